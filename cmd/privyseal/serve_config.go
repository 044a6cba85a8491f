package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/signer"
)

// A ServeConfig is the member "serve": what "privyseal serve" listens on and
// which services it runs. A service is a member of its own, with a struct in
// the file of that service, and runs where its member is there.
type ServeConfig struct {
	// Listeners are the sockets, by names of your choice: 1 to 32 of a-z, 0-9
	// and '-'. Required.
	Listeners map[string]*ListenerSection `json:"listeners"`
	// Operator names the listener of /health/live, /health/ready,
	// /health/state and /metrics; keep it from the public.
	Operator string `json:"operator,omitempty"`
	// Drain bounds how long requests under way may take to end; default 20s.
	Drain Duration `json:"drain,omitzero"`
	// Log says how to log to standard error.
	Log LogSection `json:"log,omitzero"`
	// CriticalKeys are the keys without which the process is not ready.
	CriticalKeys []signer.KeyID `json:"critical_keys,omitempty"`
	// SelfTest is how often each key is tested on each of its devices; default
	// 5m, and "0s" never tests.
	SelfTest *Duration `json:"self_test,omitempty"`
	// Provider is a MIMI provider.
	Provider *ProviderSection `json:"provider,omitempty"`
	// Journal says how the journal is written.
	Journal JournalSection `json:"journal,omitzero"`
	// TransparencyLog publishes the journal. One node of several has it.
	TransparencyLog *TransparencyLogSection `json:"transparency_log,omitempty"`
	// Signer is the signing service for callers.
	Signer *SignerSection `json:"signer,omitempty"`
	// Issuer serves what verifiers fetch from our issuer.
	Issuer *IssuerServeSection `json:"issuer,omitempty"`
}

// A LogSection says how to log.
type LogSection struct {
	Format string `json:"format,omitempty"` // "text" (default) or "json"
	Level  string `json:"level,omitempty"`  // "debug", "info" (default), "warn" or "error"
}

// A ListenerSection is one socket.
type ListenerSection struct {
	// Address is host:port, or unix:/path. Required.
	Address string `json:"address"`
	// Plain listens without TLS: for public lists and for this machine only.
	Plain bool `json:"plain,omitempty"`

	// Certificate is the file of the certificate chain, PEM, the server's own
	// first.
	Certificate string `json:"certificate,omitempty"`
	// Key is the file of its private key, PEM (PKCS#8), mode 0600; or KeyID is
	// the id of a key of purpose tls in a device.
	Key   string       `json:"key,omitempty"`
	KeyID signer.KeyID `json:"key_id,omitempty"`

	// ClientCA is the file of the authorities whose client certificates are
	// admitted, PEM. Without it no client certificate is asked for.
	ClientCA string `json:"client_ca,omitempty"`
	// ClientAuth is "require" (default with client_ca) or "optional"; or, without
	// client_ca, "any" for the clients of a provider, whose certificates only
	// carry their keys, or "asked" for other providers, whose certificates the
	// provider judges itself: those for servers are good for callers too.
	ClientAuth string `json:"client_auth,omitempty"`

	// MaxConnections bounds the open connections; default 4096. The one that
	// is idle longest makes room.
	MaxConnections int `json:"max_connections,omitempty"`
	// BodyTime bounds how long a request may take to arrive, apart from what comes
	// at 4 KiB a second; default 30s.
	BodyTime Duration `json:"body_time,omitzero"`
}

// maxListeners bounds the listeners.
const maxListeners = 64

func (s *ServeConfig) check() error {
	if len(s.Listeners) == 0 || len(s.Listeners) > maxListeners {
		return configErrorf("serve.listeners", "is required: 1 to %d listeners", maxListeners)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Listeners)) {
		at := "serve.listeners." + name
		if !deviceName.MatchString(name) {
			return configErrorf("serve.listeners", "%q is no listener name; use 1 to 32 of a-z, 0-9 and '-'", name)
		}
		if err := s.Listeners[name].check(at); err != nil {
			return err
		}
	}
	if s.Operator != "" {
		if err := s.checkListener("serve.operator", s.Operator); err != nil {
			return err
		}
	}
	for _, id := range s.CriticalKeys {
		if _, err := signer.ParseKeyID(string(id)); err != nil {
			return configErrorf("serve.critical_keys", "%w", err)
		}
	}
	if err := s.Provider.check(s); err != nil {
		return err
	}
	if err := s.TransparencyLog.check(s); err != nil {
		return err
	}
	if err := s.Journal.check("serve.journal"); err != nil {
		return err
	}
	if err := s.Signer.check(s); err != nil {
		return err
	}
	if err := s.Issuer.check(s); err != nil {
		return err
	}
	return s.Log.check("serve.log")
}

// checkListener refuses the name of a listener that is not there. Sections of
// services use it for the listeners that they name.
func (s *ServeConfig) checkListener(at, name string) error {
	if s.Listeners[name] == nil {
		return configErrorf(at, "there is no listener %q; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(s.Listeners)), ", "))
	}
	return nil
}

func (l LogSection) check(at string) error {
	if !slices.Contains([]string{"", "text", "json"}, l.Format) {
		return configErrorf(at+".format", "%q; use text or json", l.Format)
	}
	if !slices.Contains([]string{"", "debug", "info", "warn", "error"}, l.Level) {
		return configErrorf(at+".level", "%q; use debug, info, warn or error", l.Level)
	}
	return nil
}

func (l *ListenerSection) check(at string) error {
	switch {
	case l == nil:
		return configErrorf(at, "null")
	case l.Address == "":
		return configErrorf(at+".address", "is required: host:port or unix:/path")
	case l.MaxConnections < 0:
		return configErrorf(at+".max_connections", "cannot be negative")
	case l.Plain:
		return l.checkPlain(at)
	}
	return l.checkTLS(at)
}

func (l *ListenerSection) checkPlain(at string) error {
	if l.Certificate != "" || l.Key != "" || l.KeyID != "" || l.ClientCA != "" || l.ClientAuth != "" {
		return configErrorf(at, "is plain and has members that are for TLS")
	}
	return nil
}

func (l *ListenerSection) checkTLS(at string) error {
	switch {
	case l.Certificate == "":
		return configErrorf(at+".certificate", "is required, or \"plain\": true")
	case (l.Key == "") == (l.KeyID == ""):
		return configErrorf(at, "needs one of key and key_id")
	case !slices.Contains([]string{"", "require", "optional", "any", "asked"}, l.ClientAuth):
		return configErrorf(at+".client_auth", "%q; use require, optional, any or asked", l.ClientAuth)
	case l.judgedElsewhere() && l.ClientCA != "":
		return configErrorf(at+".client_auth", "%s goes without client_ca", l.ClientAuth)
	case l.ClientAuth != "" && !l.judgedElsewhere() && l.ClientCA == "":
		return configErrorf(at+".client_auth", "needs client_ca")
	}
	if l.KeyID != "" {
		if _, err := signer.ParseKeyID(string(l.KeyID)); err != nil {
			return configErrorf(at+".key_id", "%w", err)
		}
	}
	return nil
}

// judgedElsewhere reports whether the service, and not the listener, judges the
// certificates of clients.
func (l *ListenerSection) judgedElsewhere() bool {
	return l.ClientAuth == "any" || l.ClientAuth == "asked"
}

// errNoServe says that the configuration has nothing to serve.
var errNoServe = fmt.Errorf("there is no member \"serve\"; see: privyseal help config")
