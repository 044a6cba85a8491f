package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// FuzzPeerRequest sends a peer that is in a group any line: it is answered with
// a result or an error, and never with our own failure.
func FuzzPeerRequest(f *testing.F) {
	for name := range peerMethods {
		f.Add(`{"id":1,"method":"` + name + `","params":{"client":"c1","state":"s1"}}`)
	}
	for _, params := range []string{
		`"commit","params":{"state":"s1","proposals":[{"type":"remove","leaf":7},{"type":"psk","psk_id":"00"}],"merge":true}`,
		`"commit","params":{"state":"s1","proposals":[{"type":"gce","extensions":[{"type":5,"data":"00"}]}]}`,
		`"propose","params":{"state":"s1","proposal":{"type":"app_data_update","component":1,"update":"00"}}`,
		`"create_client","params":{"suite":2,"credential":{"type":"x509","certs":["00"]},"capabilities":{"extensions":[1]}}`,
		`"create_key_package","params":{"client":"c1","lifetime":{"not_before":18446744073709551615,"not_after":0}}`,
		`"export","params":{"state":"s1","label":"x","context":"00","length":32}`,
		`"process","params":{"state":"s1","message":"00010001"}`,
		`"decode","params":{"message":"00010005"}`,
	} {
		f.Add(`{"method":` + params + `}`)
	}
	f.Fuzz(func(t *testing.T, line string) {
		ctx, p := context.Background(), newPeer(softwareKeys{})
		for _, q := range []peerRequest{
			{Method: "create_client", Params: json.RawMessage(`{"suite":1,"identity":"00"}`)},
			{Method: "create_group", Params: json.RawMessage(`{"client":"c1","group_id":"00"}`)},
		} {
			if _, err := p.call(ctx, &q); err != nil {
				t.Fatal(err)
			}
		}
		r := p.answer(ctx, []byte(line), nil)
		if _, err := json.Marshal(r); err != nil {
			t.Error(err)
		}
		if (r.Error == nil) == (r.Result == nil) || r.Error != nil && strings.HasPrefix(r.Error.Message, "internal error") {
			t.Errorf("%q: %+v", line, r.Error)
		}
	})
}
