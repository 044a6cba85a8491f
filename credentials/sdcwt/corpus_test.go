package sdcwt_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/internal/jose"
)

var writeCorpus = flag.String("write-corpus", "", "write the cases of this package as a corpus of cmd/conformance to this `file`")

// TestWriteCorpus writes our cases in the form that others' corpora have. Those
// that need a configured verifier stay here.
func TestWriteCorpus(t *testing.T) {
	configured := []string{"unknown issuer", "issuer differing by a slash", "unknown kid", "SD-CWT typ suffix not allowed", "too many disclosures"}
	var cases []map[string]any
	add := func(id, expect, reason string, token []byte, more map[string]any) {
		c := map[string]any{"id": id, "expect": expect, "token": hex.EncodeToString(token)}
		if reason != "" {
			c["reason"] = reason
		}
		for k, v := range more {
			c[k] = v
		}
		cases = append(cases, c)
	}
	for _, name := range []string{"pre08-kbt", "08-kbt", "pre08-nested_kbt"} {
		got, err := exampleVerifier().Verify(t.Context(), example(t, name))
		if err != nil {
			t.Fatal(err)
		}
		add("draft/"+name, "accept", "", example(t, name), map[string]any{"claims": hex.EncodeToString(got.Claims.CBOR())})
	}
	for _, name := range []string{"pre08-issuer_cwt", "08-issuer_cwt", "pre08-decoy", "08-decoy", "pre08-nested_issuer_cwt", "08-nested_issuer_cwt"} {
		c, err := sdcwt.ParseCredential(example(t, name))
		if err != nil {
			t.Fatal(err)
		}
		more := map[string]any{"kind": "sd-cwt", "holder": true, "claims": hex.EncodeToString(c.Claims().CBOR()), "cnonce": nil}
		add("draft/"+name+"/holder", "accept", "", example(t, name), more)
		add("draft/"+name+"/as a KBT", "refuse", "kbt-typ", example(t, name), nil)
	}
	add("the unchanged token", "accept", "", newMade(t).token(t), nil)
	m := newMade(t)
	m.payload[600] = []any{tag(60, h32(1))}
	add("holder: hash without disclosure", "refuse", "disclosure-unmatched", m.sdcwt(t), map[string]any{"kind": "sd-cwt", "holder": true, "cnonce": nil})
	add("issued: hash without disclosure", "accept", "", m.sdcwt(t), map[string]any{"kind": "sd-cwt", "cnonce": nil})
	for _, c := range malformedKBTs {
		if slices.Contains(configured, c.name) {
			continue
		}
		m := newMade(t)
		c.change(t, m)
		if token := m.token(t); len(token) < 8192 {
			add(c.name, "refuse", string(c.want), token, nil)
		}
	}
	if *writeCorpus == "" {
		return
	}
	jwk, err := jose.FormatJWK(issuerKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := map[string]any{
		"format": "sd-cwt",
		"defaults": map[string]any{"kind": "kbt", "issuer_jwk": json.RawMessage(jose.AppendJSON(nil, jwk)), "now": exampleNow.Unix(),
			"aud": exampleAud, "cnonce": hex.EncodeToString(exampleNonce), "max_age": 300},
		"cases": cases,
	}
	out, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*writeCorpus, append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
