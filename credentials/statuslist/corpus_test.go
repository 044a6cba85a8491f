package statuslist_test

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/jose"
)

var writeCorpus = flag.String("write-corpus", "", "write the cases of this package as a corpus of cmd/conformance to this `file`")

// TestWriteCorpus writes our cases in the form that others' corpora have.
func TestWriteCorpus(t *testing.T) {
	var cases []map[string]any
	jwk := func(pub any) json.RawMessage {
		o, err := jose.FormatJWK(pub)
		if err != nil {
			t.Fatal(err)
		}
		return jose.AppendJSON(nil, o)
	}
	add := func(id, expect, reason string, f statuslist.Format, token []byte, more map[string]any) {
		c := map[string]any{"id": id, "expect": expect, "format": "jwt", "token": string(token)}
		if f == statuslist.CWT {
			c["format"], c["token"] = "cwt", hex.EncodeToString(token)
		}
		if reason != "" {
			c["reason"] = reason
		}
		maps.Copy(c, more)
		cases = append(cases, c)
	}
	all, statuses := make([]int, len(oneBit)), make([]int, len(oneBit))
	for i, s := range oneBit {
		all[i], statuses[i] = i, int(s)
	}
	draft := map[string]any{"issuer_jwk": jwk(exampleKey(t)), "idx": all, "statuses": statuses}
	add("draft/jwt", "accept", "", statuslist.JWT, []byte(exampleJWT), draft)
	add("draft/cwt", "accept", "", statuslist.CWT, unhex(exampleCWT), draft)
	for _, f := range []statuslist.Format{statuslist.JWT, statuslist.CWT} {
		make := func(m *madeList) []byte {
			if f == statuslist.CWT {
				maps.DeleteFunc(m.header, func(k, _ any) bool { _, text := k.(string); return text })
				return m.cwt(t)
			}
			maps.DeleteFunc(m.header, func(k, _ any) bool { _, text := k.(string); return !text })
			return m.jwt(t)
		}
		add(f.MediaType()+"/the unchanged token", "accept", "", f, make(newMadeList()), map[string]any{"idx": all, "statuses": statuses})
		long := newMadeList()
		long.claims["ttl"] = int64(3200000000)
		add(f.MediaType()+"/ttl of a century", "accept", "", f, make(long), map[string]any{"idx": 0, "statuses": 1})
		for _, c := range malformedLists {
			m := newMadeList()
			c.change(m)
			token := make(m)
			if len(token) > 8192 || slices.Contains([]string{"revoked", "suspended", "unknown value"}, c.name) {
				continue
			}
			add(f.MediaType()+"/"+c.name, "refuse", string(c.want), f, token, map[string]any{"uri": m.uri, "idx": []int64{m.index}})
		}
	}
	if *writeCorpus == "" {
		return
	}
	out, err := json.MarshalIndent(map[string]any{
		"format":   "statuslist",
		"defaults": map[string]any{"issuer_jwk": jwk(statusKey.Public()), "uri": exampleURI, "now": exampleNow.Unix()},
		"cases":    cases,
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(*writeCorpus, append(out, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
