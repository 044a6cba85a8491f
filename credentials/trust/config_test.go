package trust_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/internal/mimiuri"
)

// full is a configuration with every kind of entry.
const full = `{ "version": 1,
  "defaults": { "skew_s": 120, "max_credential_lifetime_s": 7776000, "max_stale_s": 86400, "revocation": "hard", "require_cti": true },
  "credential_type_numbers": { "multi": 3, "weak_multi": 4, "sd_cwt": 5, "sd_jwt": 6 },
  "basic": { "mode": "refuse", "hosts": [], "basic_max_role": 0 },
  "auto_domain": false,
  "issuers": [
    { "name": "acme-devices", "type": "x509", "roles": [ "client" ],
      "keys": { "source": "anchors", "pins": ["00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"] },
      "eku": "strict", "attested": true,
      "grants": [ { "host": "acme.example", "paths": [ "d/*/*", "u/*" ] } ],
      "revocation": { "mode": "hard", "methods": [ "ocsp", "crl" ], "crl": [ "https://crl.acme.example/dev.crl" ] } },
    { "name": "acme-cwt", "type": "sd_cwt", "roles": [ "client" ], "iss": "https://issuer.acme.example",
      "keys": { "source": "cose_key_set_uri", "uri": "https://issuer.acme.example/keys.cbor" },
      "algs": [ "ESP256", "Ed25519" ], "typ": [ 293 ], "vct": [ "https://issuer.acme.example/vct/mimi-device/1" ],
      "claims": { "client": "sub", "user": "mimi_user" }, "audiences": [],
      "grants": [ { "host": "acme.example", "paths": [ "d/*/*", "u/*" ] }, { "host": "chat.acme.example", "paths": [ "d/*/*", "u/*" ] } ],
      "revocation": { "mode": "hard", "methods": [ "status_list" ], "status_prefixes": [ "https://issuer.acme.example/status/" ], "status_issuer": "acme-cwt" } },
    { "name": "globex-jwt", "type": "sd_jwt", "roles": [ "client" ], "iss": "https://id.globex.example",
      "keys": { "source": "jwt_vc_issuer" }, "algs": [ "ES256" ], "typ": [ "dc+sd-jwt" ],
      "claims": { "client": "sub", "user": "mimi_user" },
      "grants": [ { "host": "globex.example", "paths": [ "d/*/*", "u/sales.*" ] } ],
      "revocation": { "mode": "soft", "methods": [ "status_list" ], "status_prefixes": [ "https://id.globex.example/" ] } },
    { "name": "acme-hub", "type": "x509", "roles": [ "hub" ], "keys": { "source": "anchors", "pins": ["ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"] },
      "grants": [ { "host": "hub.acme.example", "paths": [ "" ] } ], "revocation": { "mode": "soft", "methods": [ "crl" ] } } ] }`

func TestFullConfig(t *testing.T) {
	c, err := trust.ParseConfig([]byte(full))
	must(t, err)
	if len(c.Issuers) != 4 || c.Defaults.GraceS != 600 || c.UnknownIssuer != "reject" || !c.Defaults.RequireCTI {
		t.Errorf("%+v", c)
	}
	c, err = trust.ParseConfig([]byte(`{"version":1,"issuers":[]}`))
	must(t, err)
	if c.Defaults.Revocation != trust.ModeHard || c.Basic.Mode != "refuse" || c.CredentialTypeNumbers != (trust.TypeNumbers{Multi: 3, WeakMulti: 4, SDCWT: 5, SDJWT: 6}) {
		t.Errorf("defaults %+v", c)
	}
	path := writeFile(t, t.TempDir(), "trust.json", []byte(full))
	l, err := trust.Open(path, trust.Options{})
	must(t, err)
	defer l.Close()
	if got := l.Snapshot().Issuer("globex-jwt"); got == nil || got.Mode != trust.ModeSoft || !got.Serves(trust.RoleClient) || got.Serves(trust.RoleHub) {
		t.Errorf("%+v", got)
	}
}

// edit changes the JSON value at a path of full; a nil value takes it away.
func edit(t *testing.T, path []any, value any) []byte {
	t.Helper()
	var root any
	must(t, json.Unmarshal([]byte(full), &root))
	at := root
	for _, step := range path[:len(path)-1] {
		switch s := step.(type) {
		case string:
			at = at.(map[string]any)[s]
		case int:
			at = at.([]any)[s]
		}
	}
	switch last := path[len(path)-1].(type) {
	case string:
		if value == nil {
			delete(at.(map[string]any), last)
		} else {
			at.(map[string]any)[last] = value
		}
	case int:
		at.([]any)[last] = value
	}
	out, err := json.Marshal(root)
	must(t, err)
	return out
}

func TestConfigRefused(t *testing.T) {
	p := func(steps ...any) []any { return steps }
	issuer := func(n int, steps ...any) []any { return append([]any{"issuers", n}, steps...) }
	pin := strings.Repeat("ab", 32)
	for _, c := range []struct {
		name  string
		path  []any
		value any
		at    string // that the error names
	}{
		{"version 2", p("version"), 2, "version"},
		{"no version", p("version"), nil, "version"},
		{"version text", p("version"), "1", "version"},
		{"unknown member", p("trust"), true, ""},
		{"member in another case", p("Issuers"), []any{}, ""},
		{"unknown member inside", issuer(0, "anchor"), "x", "issuers[0]"},
		{"negative skew", p("defaults", "skew_s"), -1, "defaults.skew_s"},
		{"skew of an hour", p("defaults", "skew_s"), 3600, "defaults.skew_s"},
		{"skew with a fraction", p("defaults", "skew_s"), 1.5, "defaults.skew_s"},
		{"lifetime of nothing", p("defaults", "max_credential_lifetime_s"), 0, "defaults.max_credential_lifetime_s"},
		{"stale for a year", p("defaults", "max_stale_s"), 365 * 86400, "defaults.max_stale_s"},
		{"grace of a week", p("defaults", "grace_s"), 7 * 86400, "defaults.grace_s"},
		{"revocation mode", p("defaults", "revocation"), "maybe", "defaults.revocation"},
		{"type number of another type", p("credential_type_numbers", "sd_cwt"), 6, "credential_type_numbers.sd_cwt"},
		{"type number of x509", p("credential_type_numbers", "multi"), 2, "credential_type_numbers.multi"},
		{"type number twice", p("credential_type_numbers"), map[string]any{"sd_cwt": 0xF001, "sd_jwt": 0xF001}, "credential_type_numbers.sd_jwt"},
		{"type number too large", p("credential_type_numbers", "multi"), 1 << 16, "credential_type_numbers.multi"},
		{"basic mode", p("basic", "mode"), "on", "basic.mode"},
		{"basic test without hosts", p("basic", "mode"), "test", "basic.hosts"},
		{"basic host", p("basic", "hosts"), []string{"*.example"}, "basic.hosts[0]"},
		{"unknown_issuer", p("unknown_issuer"), "ignore", "unknown_issuer"},
		{"private network", p("fetch"), map[string]any{"allow_private": []string{"10.0.0.1"}}, "fetch.allow_private[0]"},
		{"timeout", p("fetch"), map[string]any{"timeout_s": 0}, "fetch.timeout_s"},
		{"null", p("issuers"), json.RawMessage("null"), "issuers"},
		{"name", issuer(0, "name"), "Acme Devices", "issuers[0].name"},
		{"name twice", issuer(0, "name"), "acme-hub", "issuers[3].name"},
		{"type", issuer(0, "type"), "pgp", "issuers[0].type"},
		{"no roles", issuer(0, "roles"), []string{}, "issuers[0].roles"},
		{"role", issuer(0, "roles"), []string{"admin"}, "issuers[0].roles[0]"},
		{"token for a hub", issuer(1, "roles"), []string{"hub"}, "issuers[1].roles"},
		{"iss of x509", issuer(0, "iss"), "https://a.example", "issuers[0]"},
		{"no iss", issuer(1, "iss"), nil, "issuers[1].iss"},
		{"iss twice", issuer(2), map[string]any{"name": "again", "type": "sd_cwt", "roles": []string{"client"}, "iss": "https://issuer.acme.example", "keys": map[string]any{"source": "cose_key_set_uri", "uri": "https://a.example/k"}, "user_from_client_path": true, "grants": []any{map[string]any{"host": "a.example", "paths": []string{"u/*"}}}}, "issuers[2].iss"},
		{"eku", issuer(0, "eku"), "any", "issuers[0].eku"},
		{"eku of a token", issuer(1, "eku"), "strict", "issuers[1].eku"},
		{"attestation level", issuer(0, "min_attestation"), "none", "issuers[0].min_attestation"},
		{"algs", issuer(1, "algs"), []string{"RS256"}, "issuers[1].algs[0]"},
		{"algs none", issuer(2, "algs"), []string{"none"}, "issuers[2].algs[0]"},
		{"typ a float", issuer(1, "typ"), []any{1.5}, ""},
		{"typ a number for a JWT", issuer(2, "typ"), []any{293}, "issuers[2]"},
		{"vct a number for a JWT", issuer(2, "vct"), []any{1}, "issuers[2]"},
		{"no user claim", issuer(2, "claims"), map[string]any{"client": "sub"}, "issuers[2].claims.user"},
		{"plain CWT of a JWT", issuer(2, "accept_plain_cwt"), true, "issuers[2].accept_plain_cwt"},
		{"source", issuer(1, "keys", "source"), "dns", "issuers[1].keys.source"},
		{"source of x509", issuer(0, "keys", "source"), "jwks_uri", "issuers[0].keys.source"},
		{"COSE keys for a JWT", issuer(2, "keys"), map[string]any{"source": "cose_key_set_uri", "uri": "https://a.example/k"}, "issuers[2].keys.source"},
		{"no anchors", issuer(0, "keys", "pins"), nil, "issuers[0].keys"},
		{"pin", issuer(0, "keys", "pins"), []string{"00"}, "issuers[0].keys.pins[0]"},
		{"pins of a key set", issuer(1, "keys", "pins"), []string{pin}, "issuers[1].keys"},
		{"http", issuer(1, "keys", "uri"), "http://issuer.acme.example/keys.cbor", "issuers[1].keys.uri"},
		{"no uri", issuer(1, "keys", "uri"), nil, "issuers[1].keys.uri"},
		{"uri of a discovery", issuer(2, "keys", "uri"), "https://a.example", "issuers[2].keys.uri"},
		{"file of a uri", issuer(1, "keys", "file"), "x.pem", "issuers[1].keys.file"},
		{"no file", issuer(2, "keys"), map[string]any{"source": "jwks_file"}, "issuers[2].keys.file"},
		{"ca_file of anchors", issuer(0, "keys", "ca_file"), "x.pem", "issuers[0].keys.ca_file"},
		{"discovery of no URL", issuer(2, "iss"), "globex", "issuers[2].keys.source"},
		{"discovery over http", issuer(2, "iss"), "http://id.globex.example", "issuers[2].keys.source"},
		{"discovery with a query", issuer(2, "iss"), "https://id.globex.example/?x", "issuers[2].keys.source"},
		{"no grants", issuer(0, "grants"), nil, "issuers[0].grants"},
		{"grant with a wildcard host", issuer(0, "grants", 0, "host"), "*.acme.example", "issuers[0].grants[0].host"},
		{"grant of a port", issuer(0, "grants", 0, "host"), "acme.example:443", "issuers[0].grants[0].host"},
		{"grant in upper case", issuer(0, "grants", 0, "host"), "ACME.example", "issuers[0].grants[0].host"},
		{"grant of an address", issuer(0, "grants", 0, "host"), "127.0.0.1", "issuers[0].grants[0].host"},
		{"grant of a dot", issuer(0, "grants", 0, "host"), "acme.example.", "issuers[0].grants[0].host"},
		{"no paths", issuer(0, "grants", 0, "paths"), []string{}, "issuers[0].grants[0].paths"},
		{"path of a room", issuer(0, "grants", 0, "paths"), []string{"r/*"}, "issuers[0].grants[0].paths[0]"},
		{"path of a group", issuer(0, "grants", 0, "paths"), []string{"g/*"}, "issuers[0].grants[0].paths[0]"},
		{"path of any kind", issuer(0, "grants", 0, "paths"), []string{"*/*"}, "issuers[0].grants[0].paths[0]"},
		{"path of a kind alone", issuer(0, "grants", 0, "paths"), []string{"u"}, "issuers[0].grants[0].paths[0]"},
		{"path with a slash", issuer(0, "grants", 0, "paths"), []string{"/u/*"}, "issuers[0].grants[0].paths[0]"},
		{"path with dots", issuer(0, "grants", 0, "paths"), []string{"u/.."}, "issuers[0].grants[0].paths[0]"},
		{"path with a query", issuer(0, "grants", 0, "paths"), []string{"u/a?b"}, "issuers[0].grants[0].paths[0]"},
		{"path that is not canonical", issuer(0, "grants", 0, "paths"), []string{"u/%61"}, "issuers[0].grants[0].paths[0]"},
		{"mode", issuer(0, "revocation", "mode"), "off", "issuers[0].revocation.mode"},
		{"mode none that asks", issuer(0, "revocation", "mode"), "none", "issuers[0].revocation"},
		{"method", issuer(0, "revocation", "methods"), []string{"status_list"}, "issuers[0].revocation.methods[0]"},
		{"CRL of a token", issuer(1, "revocation", "crl"), []string{"https://a.example/x"}, "issuers[1].revocation"},
		{"CRL at ftp", issuer(0, "revocation", "crl"), []string{"ftp://a.example/x"}, "issuers[0].revocation.crl[0]"},
		{"OCSP without a scheme", issuer(0, "revocation", "ocsp"), []string{"a.example"}, "issuers[0].revocation.ocsp[0]"},
		{"status list of x509", issuer(0, "revocation", "status_issuer"), "acme-cwt", "issuers[0].revocation"},
		{"status issuer unknown", issuer(1, "revocation", "status_issuer"), "nobody", "issuers[1].revocation.status_issuer"},
		{"status issuer of certificates", issuer(1, "revocation", "status_issuer"), "acme-hub", "issuers[1].revocation.status_issuer"},
		{"prefix without a path", issuer(1, "revocation", "status_prefixes"), []string{"https://issuer.acme.example"}, "issuers[1].revocation.status_prefixes[0]"},
		{"prefix over http", issuer(1, "revocation", "status_prefixes"), []string{"http://issuer.acme.example/"}, "issuers[1].revocation.status_prefixes[0]"},
		{"status format", issuer(1, "revocation", "status_formats"), []string{"xml"}, "issuers[1].revocation.status_formats[0]"},
		{"stale", issuer(1, "revocation", "max_stale_s"), -5, "issuers[1].revocation.max_stale_s"},
		{"lifetime", issuer(1, "max_credential_lifetime_s"), 5, "issuers[1].max_credential_lifetime_s"},
	} {
		_, err := trust.ParseConfig(edit(t, c.path, c.value))
		var e *trust.ConfigError
		if !errors.As(err, &e) || e.At != c.at {
			t.Errorf("%s: %v, want an error at %q", c.name, err, c.at)
		}
	}
	for name, text := range map[string]string{
		"nothing": "", "an array": "[]", "twice": `{"version":1,"version":1}`, "trailing": `{"version":1}{}`, "too large": `{"version":1,"x":"` + strings.Repeat("x", 1<<20) + `"}`,
		"deep": strings.Repeat("[", 1000), "no UTF-8": "{\"version\":1,\"\xff\":1}",
	} {
		if _, err := trust.ParseConfig([]byte(text)); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestGrants is the table of the matching of names.
func TestGrants(t *testing.T) {
	g := trust.Grant{Host: "acme.example", Paths: []string{"d/*/*", "u/*"}}
	for text, want := range map[string]bool{
		"mimi://acme.example/u/bob": true, "mimi://acme.example/d/bob/1": true, "mimi://acme.example/d/bob": false, "mimi://acme.example/u/a/b": false,
		"mimi://sub.acme.example/u/bob": false, "mimi://acme.example.evil/u/bob": false, "mimi://acme.example/r/x": false, "mimi://acme.example/p/x": false,
		"mimi://acme.example": false, "mimi://acme.example/u/a%2Fb": true, "mimi://acme.example/u/%2A": true,
	} {
		u, err := mimiuri.Parse(text)
		must(t, err)
		if g.Allows(u) != want {
			t.Errorf("%s: %v, want %v", text, !want, want)
		}
	}
	// What is not canonical is no URI at all, so that it can match nothing.
	for _, text := range []string{"mimi://acme.example/u/", "mimi://ACME.example/u/bob", "mimi://acme.example:443/u/bob", "mimi://acme.example/u/b%6Fb", "https://acme.example/u/bob", "mimi://acme.example/u/bob?x"} {
		if u, err := mimiuri.Parse(text); err == nil {
			t.Errorf("%s is parsed as %s", text, u)
		}
	}
	if g.Allows(mimiuri.URI{}) {
		t.Error("the zero URI is granted")
	}
	for _, c := range []struct {
		template, path string
		want           bool
	}{
		{"u/sales.*", "u/sales.bob", true}, {"u/sales.*", "u/sales.", true}, {"u/sales.*", "u/sales", false}, {"u/sales.*", "u/xsales.bob", false},
		{"u/*.sales", "u/bob.sales", true}, {"u/*.sales", "u/bob.sales.x", false}, {"u/a*b*c", "u/abc", true}, {"u/a*b*c", "u/axxbyyc", true}, {"u/a*b*c", "u/ac", false},
		{"u/a*a", "u/a", false}, {"u/a*a", "u/aa", true}, {"u/ab*ba", "u/aba", false}, {"u/**", "u/x", true}, {"u/x", "u/x", true}, {"u/x", "u/y", false},
		{"", "", true}, {"", "u/x", false}, {"u/*", "", false}, {"d/*/phone", "d/bob/phone", true}, {"d/*/phone", "d/bob/tablet", false},
	} {
		u := "mimi://acme.example"
		if c.path != "" {
			u += "/" + c.path
		}
		g := trust.Grant{Host: "acme.example", Paths: []string{c.template}}
		if g.Allows(mimiuri.MustParse(u)) != c.want {
			t.Errorf("%q and %q: %v", c.template, c.path, !c.want)
		}
	}
}

// The bare provider is for hubs, everything else for clients, whatever is
// granted.
func TestGrantsByRole(t *testing.T) {
	text := strings.ReplaceAll(full, `"paths": [ "" ]`, `"paths": [ "", "u/*" ]`)
	text = strings.ReplaceAll(text, `"roles": [ "hub" ]`, `"roles": [ "hub", "client" ]`)
	l, err := trust.Open(writeFile(t, t.TempDir(), "trust.json", []byte(text)), trust.Options{})
	must(t, err)
	i := l.Snapshot().Issuer("acme-hub")
	provider, alice := mimiuri.MustParse("mimi://hub.acme.example"), mimiuri.MustParse("mimi://hub.acme.example/u/alice")
	if !i.Allows(trust.RoleHub, provider) || i.Allows(trust.RoleClient, provider) || i.Allows(trust.RoleHub, alice) || !i.Allows(trust.RoleClient, alice) {
		t.Error("roles are confused")
	}
	only := l.Snapshot().Issuer("acme-devices")
	if only.Allows(trust.RoleHub, mimiuri.MustParse("mimi://acme.example")) {
		t.Error("an issuer of clients speaks for a hub")
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, dir, "trust.json", []byte(full))
	l, err := trust.Open(path, trust.Options{})
	must(t, err)
	defer l.Close()
	woken, stop := l.Watch()
	defer stop()
	must(t, l.Reload())
	if l.Generation() != 1 || len(woken) != 0 {
		t.Errorf("generation %d after nothing changed", l.Generation())
	}
	must(t, os.WriteFile(path, []byte("{"), 0o600))
	err = l.Reload()
	var bad *trust.ConfigError
	if !errors.As(err, &bad) || bad.File != path || l.Generation() != 1 || l.Snapshot().Issuer("acme-hub") == nil {
		t.Errorf("a bad file: %v, generation %d", err, l.Generation())
	}
	must(t, os.WriteFile(path, edit(t, []any{"issuers", 3, "name"}, "other-hub"), 0o600))
	old := l.Snapshot()
	must(t, l.Reload())
	if l.Generation() != 2 || l.Snapshot().Issuer("acme-hub") != nil || old.Issuer("acme-hub") == nil || len(woken) != 1 {
		t.Errorf("generation %d", l.Generation())
	}
	must(t, os.Remove(path))
	if err := l.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A change of a file that the configuration names is a change.
func TestReloadFiles(t *testing.T) {
	ck, dir := newClock(), t.TempDir()
	first, second := newIssuer(t, ck, "https://idp.example"), newIssuer(t, ck, "https://idp.example")
	writeFile(t, dir, "keys.json", jwks(t, first))
	l, err := trust.Open(write(t, dir, config(nil, entry("sd_jwt", first.iss, object{"source": "jwks_file", "file": "keys.json"}))), trust.Options{Now: ck.now})
	must(t, err)
	holder := newKey(t)
	token := first.jwt(holder)
	_, err = check(t, l, token, holder)
	must(t, err)
	writeFile(t, dir, "keys.json", jwks(t, second))
	must(t, l.Reload())
	if l.Generation() != 2 {
		t.Errorf("generation %d", l.Generation())
	}
	_, err = check(t, l, token, holder)
	wantCode(t, "the key is gone", err, credentials.CodeIssuerSignature)
	for name, body := range map[string][]byte{
		"empty": nil, "no keys": []byte(`{"keys":[]}`), "private": []byte(`{"keys":[{"kty":"EC","crv":"P-256","d":"AA"}]}`), "no set": []byte(`{}`), "COSE": coseKeys(t, first),
	} {
		writeFile(t, dir, "keys.json", body)
		var bad *trust.ConfigError
		if err := l.Reload(); !errors.As(err, &bad) || bad.At != "issuers[0].keys.file" {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.Remove(filepath.Join(dir, "keys.json")))
	if err := l.Reload(); !errors.Is(err, os.ErrNotExist) || l.Generation() != 2 {
		t.Errorf("no file: %v", err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte(`{"version":1,"issuers":[]}`))
	f.Add([]byte(`{"version":1,"issuers":[{"name":"a","type":"sd_jwt","roles":["client"],"iss":"x","keys":{"source":"jwks_file","file":"f"},"user_from_client_path":true,"grants":[{"host":"a.example","paths":["u/*"]}]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := trust.ParseConfig(text)
		if err != nil {
			var e *trust.ConfigError
			if !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		for _, i := range c.Issuers {
			for _, g := range i.Grants {
				if _, err := mimiuri.New(g.Host, mimiuri.Provider); err != nil || len(g.Paths) == 0 {
					t.Fatalf("issuer %q is granted %+v: %v", i.Name, g, err)
				}
			}
			if len(i.Grants) == 0 || len(i.Roles) == 0 || i.Type != trust.TypeX509 && i.Iss == "" {
				t.Fatalf("accepted %+v", i)
			}
		}
	})
}
