package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

const fullConfig = `{
  "version": 1, "state": "state", "default_device": "token",
  "devices": {
    "token": {"kind": "pkcs11", "module": "/m.so", "token": "pkcs11:token=a;serial=1", "pin_source": "file:pin",
      "env": {"CONF": "/c"}, "init_args": "x", "workers": 2, "sessions": 4, "admit_weak": ["CKA_LOCAL"], "timeout": "1m30s", "start_timeout": "5m"},
    "tpm": {"kind": "tpm", "address": "unix:/run/tpm.sock", "srk_name": "000b", "timeout": "5s"}
  }
}`

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte(fullConfig))
	if err != nil {
		t.Fatal(err)
	}
	c.dir = "/etc/privyseal"
	d := c.Devices["token"]
	if c.stateDir() != "/etc/privyseal/state" || d.pinSource(c.dir) != "file:/etc/privyseal/pin" || d.Timeout.String() != "1m30s" || d.StartTimeout.String() != "5m0s" {
		t.Errorf("state %s, pin %s, timeouts %v and %v", c.stateDir(), d.pinSource(c.dir), d.Timeout, d.StartTimeout)
	}
	if name, err := c.defaultDevice(); err != nil || name != "token" {
		t.Errorf("default device %q, %v", name, err)
	}
	c.DefaultDevice = ""
	if _, err := c.defaultDevice(); exitCode(err) != exitLocal {
		t.Errorf("two devices and no default: %v", err)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	device := func(members string) string { return `{"version":1,"devices":{"d":{` + members + `}}}` }
	const token = `"kind":"pkcs11","module":"/m","token":"pkcs11:token=a"`
	for _, c := range []struct{ name, text, want string }{
		{"nothing", ``, ""},
		{"no object", `[]`, "not an object"},
		{"two values", `{"version":1,"devices":{}}{}`, "data after"},
		{"no version", `{"devices":{}}`, "version"},
		{"unknown member", `{"version":1,"devices":{},"pin":"1"}`, `"pin"`},
		{"member in another case", `{"Version":1,"devices":{}}`, `"Version"`},
		{"member twice", `{"version":1,"version":1,"devices":{}}`, ""},
		{"wrong type", `{"version":"1","devices":{}}`, "version"},
		{"null device", `{"version":1,"devices":{"d":null}}`, "devices.d"},
		{"null member", `{"version":1,"devices":null}`, "null"},
		{"bad device name", `{"version":1,"devices":{"D":{` + token + `}}}`, "no device name"},
		{"unknown default", `{"version":1,"devices":{},"default_device":"d"}`, "default_device"},
		{"no kind", device(`"module":"/m"`), "kind"},
		{"unknown device member", device(token + `,"pin":"1234"`), `"pin"`},
		{"no module", device(`"kind":"pkcs11","token":"pkcs11:token=a"`), "module"},
		{"no token", device(`"kind":"pkcs11","module":"/m"`), "token"},
		{"token URI that chooses none", device(`"kind":"pkcs11","module":"/m","token":"pkcs11:model=x"`), "choose"},
		{"token URI with an object", device(`"kind":"pkcs11","module":"/m","token":"pkcs11:token=a;object=b"`), "object"},
		{"token URI with a query", device(`"kind":"pkcs11","module":"/m","token":"pkcs11:token=a?pin-source=file:/x"`), "query"},
		{"PIN in the environment", device(token + `,"pin_source":"env:PIN"`), "environment"},
		{"PIN itself", device(token + `,"pin_source":"1234"`), "pin_source"},
		{"negative workers", device(token + `,"workers":-1`), "workers"},
		{"negative timeout", device(token + `,"timeout":"-1s"`), "negative"},
		{"TPM address in a token", device(token + `,"address":"unix:/x"`), "address"},
		{"token in a TPM", device(`"kind":"tpm","address":"unix:/x","token":"pkcs11:token=a"`), "pkcs11"},
		{"bad address", device(`"kind":"tpm","address":"/dev/tpm0"`), "address"},
		{"bad SRK name", device(`"kind":"tpm","address":"unix:/x","srk_name":"xyz"`), "srk_name"},
		{"too long", strings.Repeat(" ", maxConfig+1), "octets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseConfig([]byte(c.text))
			wrong := new(ConfigError)
			if !errors.As(err, &wrong) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a ConfigError with %q", err, c.want)
			}
			if strings.Contains(fmt.Sprint(err), "1234") {
				t.Errorf("the error shows the PIN: %v", err)
			}
		})
	}
}

// FuzzParseConfig: what is accepted is accepted again after it was written,
// with the same meaning; what is refused is refused with a ConfigError.
func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(fullConfig))
	f.Add([]byte(`{"version":1,"devices":{}}`))
	f.Add([]byte(`{"version":1,"devices":{"d":{"kind":"tpm","address":"tcp:[::1]:2321","timeout":"0s"}}}`))
	f.Add([]byte(`{"version":1e0,"devices":{"d":{"kind":"pkcs11","module":"m","token":"pkcs11:slot-id=0","pin_source":"fd:3"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			if !is[*ConfigError](err) {
				t.Fatalf("refused with %T: %v", err, err)
			}
			return
		}
		once, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseConfig(once)
		if err != nil {
			t.Fatalf("%s\nis not accepted again: %v", once, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(once) {
			t.Fatalf("%s\nbecame %s (%v)", once, twice, err)
		}
	})
}

// FuzzParseAttestation: the decoder of what key attest writes.
func FuzzParseAttestation(f *testing.F) {
	f.Add([]byte(`{"key":"a","version":1,"algorithm":"P-256","kid":"x","evidence":"claim","claim":{"sensitive":true,"always_sensitive":true,"extractable":false,"never_extractable":true,"local":true,"read_at":"2026-01-02T03:04:05Z"}}`))
	f.Add([]byte(`{"key":"a","version":1,"algorithm":"P-256","kid":"x","evidence":"proof","proof":{"format":"tpm2-certify","fixed_tpm":true,"fixed_parent":true,"sensitive_data_origin":true,"attestation_key":"00","statement":{"format":"privyseal-tpm-evidence-1"},"verified_at":"2026-01-02T03:04:05Z"}}`))
	f.Add([]byte(`{"evidence":"proof","claim":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		att, err := parseAttestation(b)
		if err != nil {
			if exitCode(err) != exitRefused {
				t.Fatalf("refused with status %d: %v", exitCode(err), err)
			}
			return
		}
		if att.Proof == nil {
			return
		}
		if _, err := att.verify(nil, nil); err != nil && exitCode(err) != exitRefused {
			t.Fatalf("verification refused with status %d: %v", exitCode(err), err)
		}
	})
}

func TestExitCode(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("while testing: %w", err) }
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("anything"), exitLocal},
		{wrap(usageError{errors.New("x")}), exitLocal},
		{wrap(signer.ErrUsage), exitLocal},
		{wrap(signer.ErrNoKey), exitLocal},
		{wrap(&ConfigError{Err: errors.New("x")}), exitLocal},
		{wrap(remoteError{errors.New("x")}), exitRemote},
		{wrap(&signer.Refusal{Reason: "x"}), exitRefused},
		{wrap(credentials.Errorf(credentials.CodeExpired, "", "x")), exitRefused},
		{wrap(&tpm.EvidenceError{Check: "nonce", Err: errors.New("x")}), exitRefused},
		{wrap(&signer.DeviceError{Err: errors.New("x")}), exitDevice},
		{wrap(signer.ErrDeviceSuspect), exitDevice},
		{errors.Join(problemError{1}, errors.New("x")), exitProblem},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: %d, want %d", c.err, got, c.want)
		}
	}
}
