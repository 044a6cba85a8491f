package sdjwt_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// seeds are tokens of every shape: the RFC's, and good and bad ones of our own.
func seeds(t testing.TB) []string {
	issuer, holder := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	all := []string{"", "~", "~~", "a.b.c~", "a.b.c~d~e.f.g", `{"payload":"a","protected":"b","signature":"c"}`, newForger(t, issuer, holder).token()}
	for _, e := range loadRFC(t).Examples {
		all = append(all, e.Token)
	}
	return all
}

// typed fails unless err is nil or a *credentials.Error with a code.
func typed(t *testing.T, err error) {
	t.Helper()
	var refused *credentials.Error
	if err != nil && (!errors.As(err, &refused) || refused.Code == "") {
		t.Fatalf("refused without a code: %v", err)
	}
}

// FuzzVerify: no input makes the verifier panic, every refusal has a code, and
// what is accepted is written back octet by octet.
func FuzzVerify(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	p := rfcPolicy(f)
	bound := newVerifier(f, p)
	p.KeyBinding = sdjwt.KeyBindingNotRequired
	plain := newVerifier(f, p)
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range []*sdjwt.Verifier{bound, plain} {
			got, err := v.Verify(context.Background(), text, sdjwt.Expect{Nonce: rfcNonce})
			typed(t, err)
			if err == nil && !got.Claims.Equal(got.Claims.JSON()) {
				t.Fatalf("claims do not survive their JSON: %s", got.Claims.JSON())
			}
		}
		token, err := sdjwt.Parse(text, sdjwt.Limits{})
		typed(t, err)
		if err == nil && token.String() != text {
			t.Fatalf("%q is written back as %q", text, token)
		}
		_, err = sdjwt.ParseJSON([]byte(text), sdjwt.Limits{})
		typed(t, err)
	})
}

// FuzzUnredact signs whatever payload and Disclosures it is given, so that the
// mutations reach the rules behind the signature.
func FuzzUnredact(f *testing.F) {
	all := loadRFC(f)
	for _, p := range all.Payloads {
		var texts []string
		for _, d := range all.Disclosures {
			if d.Section == p.Section {
				texts = append(texts, d.Disclosure)
			}
		}
		f.Add(string(p.Payload), strings.Join(texts, "~"))
	}
	f.Add(`{"a":[{"...":"x"}],"_sd":[]}`, "")
	key := ecKey(f, elliptic.P256())
	v := newVerifier(f, plainPolicy(key.Public()))
	f.Fuzz(func(t *testing.T, payload, disclosures string) {
		if payload == "" {
			return
		}
		token := sign(t, key, `{"alg":"ES256"}`, payload) + "~"
		if disclosures != "" {
			token += disclosures + "~"
		}
		got, err := v.Verify(context.Background(), token, sdjwt.Expect{})
		typed(t, err)
		if err != nil {
			return
		}
		for _, name := range []string{"_sd", "_sd_alg", "..."} {
			if _, ok := got.Claims.Get(name); ok {
				t.Fatalf("%q is left in %s", name, got.Claims.JSON())
			}
		}
		cred, err := sdjwt.OpenCredential(token, sdjwt.Limits{})
		if err != nil || !cred.Claims().Equal(got.Claims.JSON()) {
			t.Fatalf("the holder reads %v, the verifier %s", err, got.Claims.JSON())
		}
		again, err := cred.Present(context.Background(), sdjwt.Presentation{Disclose: cred.Disclosable()})
		if err != nil || again.String() != token {
			t.Fatalf("%q is presented as %q: %v", token, again, err)
		}
	})
}
