package sdjwt_test

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// A member is one member of a JSON object under construction; its name may
// occur again, and its value may be no JSON at all.
type member struct{ name, value string }

type members []member

func (m *members) set(name, value string) {
	for i := range *m {
		if (*m)[i].name == name {
			(*m)[i].value = value
			return
		}
	}
	m.add(name, value)
}

func (m *members) add(name, value string) { *m = append(*m, member{name, value}) }

func (m *members) del(name string) {
	var kept members
	for _, x := range *m {
		if x.name != name {
			kept = append(kept, x)
		}
	}
	*m = kept
}

func (m members) String() string {
	var parts []string
	for _, x := range m {
		parts = append(parts, fmt.Sprintf("%q:%s", x.name, x.value))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// A forger makes tokens by hand, right or wrong, with real signatures.
type forger struct {
	t              testing.TB
	issuer, holder crypto.Signer

	header, payload members
	sd              []string // digests of the payload's _sd
	disclosures     []string // as transported
	hash            string
	kbHeader, kb    members
	noKB            bool
	headerText      string // instead of header
	payloadText     string // instead of payload
	kbText          string // instead of kb
	edit            func(token string) string
}

// newForger returns a forger whose token boundPolicy accepts.
func newForger(t testing.TB, issuer, holder crypto.Signer) *forger {
	cnf, err := credentials.JWTConfirmation(holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	f := &forger{t: t, issuer: issuer, holder: holder, hash: sdjwt.DefaultHash}
	f.header = members{{"alg", `"` + algOf(t, issuer) + `"`}, {"typ", `"dc+sd-jwt"`}, {"kid", `"k1"`}}
	f.payload = members{
		{"iss", `"` + issuerName + `"`}, {"vct", `"urn:example:vct"`},
		{"iat", fmt.Sprint(now.Unix() - 1000)}, {"exp", fmt.Sprint(now.Unix() + 1000)}, {"cnf", string(cnf)},
	}
	f.kbHeader = members{{"alg", `"` + algOf(t, holder) + `"`}, {"typ", `"kb+jwt"`}}
	f.kb = members{{"iat", fmt.Sprint(now.Unix() - 10)}, {"aud", `"` + audience + `"`}, {"nonce", `"` + nonce + `"`}}
	f.redact("given_name", `"Ada"`)
	return f
}

func algOf(t testing.TB, key crypto.Signer) string {
	s, err := credentials.SchemeOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return s.JOSE
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// disclose adds a Disclosure with any content, and returns its digest.
func (f *forger) disclose(content string) string {
	f.disclosures = append(f.disclosures, b64(content))
	return sdjwt.Digest(f.hash, b64(content))
}

// redact adds a property that is disclosed, at the top level.
func (f *forger) redact(name, value string) {
	salt := fmt.Sprintf("salt-of-128-bits-%d", len(f.disclosures))
	f.sd = append(f.sd, f.disclose(fmt.Sprintf(`[%q,%q,%s]`, salt, name, value)))
}

// token returns the whole presentation.
func (f *forger) token() string {
	payload := append(members(nil), f.payload...)
	if len(f.sd) > 0 {
		payload.add("_sd", `["`+strings.Join(f.sd, `","`)+`"]`)
	}
	text := payload.String()
	if f.payloadText != "" {
		text = f.payloadText
	}
	header := f.header.String()
	if f.headerText != "" {
		header = f.headerText
	}
	token := sign(f.t, f.issuer, header, text) + "~"
	for _, d := range f.disclosures {
		token += d + "~"
	}
	if !f.noKB {
		token += f.keyBinding(token)
	}
	if f.edit != nil {
		token = f.edit(token)
	}
	return token
}

func (f *forger) keyBinding(before string) string {
	kb := append(members(nil), f.kb...)
	own := false
	for _, m := range kb {
		own = own || m.name == "sd_hash"
	}
	if !own {
		kb.add("sd_hash", `"`+sdjwt.Digest(f.hash, before)+`"`)
	}
	kb.del("-")
	text := kb.String()
	if f.kbText != "" {
		text = f.kbText
	}
	return sign(f.t, f.holder, f.kbHeader.String(), text)
}
