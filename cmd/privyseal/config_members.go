package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/jose"
)

// checkMembers refuses members that Config does not have. encoding/json alone
// would take "Version" for "version" as well.
func checkMembers(o *jose.Object, at string) error {
	return checkStruct(o, reflect.TypeFor[Config](), at)
}

func checkStruct(o *jose.Object, t reflect.Type, at string) error {
	for _, m := range o.Members {
		f, ok := fieldByTag(t, m.Name)
		if !ok {
			return configErrorf(at, "there is no member %q; see: privyseal help config", m.Name)
		}
		if err := checkType(m.Value, f.Type, join(at, m.Name)); err != nil {
			return err
		}
	}
	return nil
}

// checkType descends where v and t both have members.
func checkType(v any, t reflect.Type, at string) error {
	if v == nil {
		return configErrorf(at, "null; leave the member out instead")
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	o, ok := v.(*jose.Object)
	switch list, isList := v.([]any); {
	case isList && t.Kind() == reflect.Slice:
		for i, e := range list {
			if err := checkType(e, t.Elem(), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
	case !ok:
	case t.Kind() == reflect.Struct:
		return checkStruct(o, t, at)
	case t.Kind() == reflect.Map:
		for _, m := range o.Members {
			if err := checkType(m.Value, t.Elem(), join(at, m.Name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func join(at, name string) string {
	if at == "" {
		return name
	}
	return at + "." + name
}

func fieldByTag(t reflect.Type, name string) (reflect.StructField, bool) {
	for f := range t.Fields() {
		if f.Anonymous {
			if inner, ok := fieldByTag(f.Type, name); ok {
				return inner, true
			}
		}
		if tag, _, _ := strings.Cut(f.Tag.Get("json"), ","); tag == name && tag != "" {
			return f, true
		}
	}
	return reflect.StructField{}, false
}

const configText = `The configuration is one file, $PRIVYSEAL_HOME/privyseal.json or
~/.privyseal/privyseal.json or what --config names. It is JSON, decoded strictly:
a member that is unknown, twice there or in the wrong case is an error. It holds
no secret. Paths are relative to the folder of the file. "privyseal init" writes
one, "privyseal config check" reads it and says what it means.

  version         1 (required)
  state           folder of the key store and of TPM key files, mode 0700;
                  default: the folder of the configuration file
  default_device  where keys are made when --device is not given
  devices         the tokens and TPMs, by names of your choice
  database        postgres://... where several nodes share their state (no
                  password in it: name its file with passfile=); default:
                  SQLite files in the state folder
  issuer          what we are as an issuer of credentials, see below
  serve           what "privyseal serve" does, see below
  trust           file of the trust configuration: whose credentials are
                  believed for which names; see: privyseal help trust

A device of kind "pkcs11":

  module          path of the PKCS#11 module (required)
  token           pkcs11: URI that chooses the token by token, serial or
                  slot-id (required)
  pin_source      file:PATH (mode 0600), fd:N, credential:NAME or prompt
  env             object: what the module reads from the environment
  init_args       the string that NSS wants at C_Initialize
  workers         processes that host the module; 0 means this process
  sessions        bound on the sessions used at once
  admit_weak      attributes whose absence is accepted, as CKA_ names
  timeout         bound on one call of the device, such as "30s"

A device of kind "tpm":

  address         device:/dev/tpmrm0, unix:/path or tcp:host:port (required)
  srk_name        Name of the storage root key that the TPM must have, hex
  timeout         bound on one command, such as "30s"

The member "issuer":

  url             https URL that is the iss of tokens; status lists and keys are
                  below it (required with token_key)
  token_key       key of purpose credential-issuer that signs tokens
  status_key      key of purpose status that signs the status list; without it
                  tokens get no status and live a day at most
  cas             CAs whose CRL and OCSP answers are signed, by their names in
                  URLs: {"devices": {"key": "issuing-ca"}}
  crl_validity    how long a CRL is valid; default "24h"
  bound           bound from a revocation to its publication; default "60s"
  attestation     which TPMs are believed: {"ek_roots": FILE, "ek_intermediates":
                  FILE, "ek_list": FILE}; see docs/attestation.md
  history         true keeps every status list, for the query by time

The member "serve":

  listeners       the sockets, by names of your choice (required)
  operator        listener of /health/live, /health/ready, /health/state and
                  /metrics; keep it from the public
  drain           bound on the end of requests under way; default "20s"
  log             {"format": "text" or "json", "level": "debug", "info", "warn"
                  or "error"}
  critical_keys   ids of the keys without which the process is not ready
  self_test       how often each key is tested on each of its devices; default
                  "5m", "0s" never
  journal         {"node": NAME, "intents": "all"}: this node's name in the
                  entries; and what is on the disk before a device works: all, or
                  "guarded", what the guard writes of; see docs/operating.md
  issuer          {"listener": NAME} publishes and serves CRLs, OCSP, status lists,
                  keys and CA certificates of the member "issuer"

  signer          the signing service, see docs/signing-service.md
  provider        a MIMI provider, see below

The member "provider" of "serve" (all of it: docs/operating.md):

  domain          the provider's name, as in mimi://DOMAIN (required)
  clients, peers  listeners for our clients (required) and other providers
  trust           file of the trust configuration (required)
  keys, mac_key   the hub's keys (required); "before" in an entry of keys, and
                  mac_keys_before, are those that they have replaced
  peer_roots      file of the authorities of other providers' certificates, PEM
                  (required with peers); peers_allow_private lists networks, such
                  as "10.0.0.0/8", beyond the public internet where they may be
  consent         {"unasked": "own", "all" or "none"}: who may add users who have
                  said nothing; default "own", the users of this provider
  limits          rates of calls and claims, where the defaults do not fit
  directory       {"providers": [DOMAIN]}: who may search; default all
  assets          {} keeps assets and fetches those of others
  ohttp           {"gateways": [DOMAIN]} runs Oblivious HTTP; needs assets

A listener:

  address         host:port or unix:/path (required)
  plain           true listens without TLS: public lists, this machine only
  certificate     file of the certificate chain, PEM
  key, key_id     file of its key (mode 0600), or a key of purpose tls
  client_ca       file of the authorities of client certificates, PEM
  client_auth     "require" (default) or "optional"; without client_ca "any" for
                  the clients of a provider, or "asked" for other providers
  max_connections default 4096; the longest idle one makes room, or one on which
                  nothing has moved for body_time
  body_time       bound on the arrival of a request, and more for what arrives
                  with 4 KiB a second; default "30s"

Example:

  {
    "version": 1,
    "default_device": "softhsm",
    "devices": {
      "softhsm": {
        "kind": "pkcs11",
        "module": "/usr/lib/softhsm/libsofthsm2.so",
        "token": "pkcs11:token=privyseal",
        "pin_source": "file:softhsm/pin",
        "env": {"SOFTHSM2_CONF": "/home/me/.privyseal/softhsm/softhsm2.conf"}
      },
      "tpm": {"kind": "tpm", "address": "device:/dev/tpmrm0"}
    }
  }
`

// newConfigCommand is "config", which is also the help topic of the file.
func newConfigCommand(a *app) *cobra.Command {
	check := &cobra.Command{
		Use: "check", Short: "Read the configuration and say what it means", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return configCheck(a) },
	}
	c := group("config", "The configuration file", check)
	c.Long = configText
	return c
}

// configCheck reads the file and looks at the modes of what it names.
func configCheck(a *app) error {
	path, err := a.configFile()
	if err != nil {
		return err
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	problems := checkFiles(path, c)
	result := struct {
		Path     string    `json:"path"`
		State    string    `json:"state"`
		Config   *Config   `json:"config"`
		Problems []problem `json:"problems"`
	}{path, c.stateDir(), c, problems}
	err = a.print(result, func(w io.Writer) {
		fmt.Fprintf(w, "file   %s\nstate  %s\n", path, c.stateDir())
		b, err := json.MarshalIndent(c, "", "  ")
		if err == nil {
			fmt.Fprintf(w, "%s\n", b)
		}
		printProblems(w, problems)
	})
	if len(problems) > 0 {
		err = errors.Join(err, problemError{len(problems)})
	}
	return err
}
