package peer_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi/peer"
)

func TestDirectoryRoundTrip(t *testing.T) {
	d, err := peer.NewDirectory("mimi.a.example:8443", peer.Update, peer.RequestConsent, peer.ProxyDownload, peer.OHTTPGateway)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	got, err := peer.ParseDirectory(b)
	if err != nil {
		t.Fatal(err)
	}
	for e, want := range map[peer.Endpoint]string{
		peer.Update:         "https://mimi.a.example:8443/v1/update/mimi%3A%2F%2Fa.example%2Fr%2Fclubhouse",
		peer.RequestConsent: "https://mimi.a.example:8443/v1/requestConsent/a.example",
		peer.OHTTPGateway:   "https://mimi.a.example:8443/v1/ohttpGateway",
	} {
		value := peer.Value("mimi://a.example/r/clubhouse")
		if e == peer.RequestConsent {
			value = peer.ConsentValue("a.example", "mimi://a.example/u/alice")
		}
		u, err := got.URL(e, value)
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", e, u, err)
		}
	}
	if got.Has(peer.KeyMaterial) || !got.Has(peer.ProxyDownload) {
		t.Error("the directory has other endpoints than it was made with")
	}
}

// The draft's example, as it is meant, with what other providers may write.
func TestDirectoryOfOthers(t *testing.T) {
	d, err := peer.ParseDirectory([]byte(`{
		"keyMaterial": "https://mimi.example.com/v1/keyMaterial/{targetUser}",
		"update": "https://mimi.example.com/v1/update{roomId}",
		"requestConsent": "https://mimi.example.com/v1/requestConsent/{targetUser}?x=1",
		"identifierQuery": "https://mimi.example.com/v1/q?d={domain}",
		"update_v2": 7, "somethingElse": {"a": []}}`))
	if err != nil {
		t.Fatal(err)
	}
	for e, want := range map[peer.Endpoint]string{
		peer.Update:          "https://mimi.example.com/v1/updatemimi%3A%2F%2Fa.example%2Fr%2Fx",
		peer.RequestConsent:  "https://mimi.example.com/v1/requestConsent/mimi%3A%2F%2Fa.example%2Fu%2Fa?x=1",
		peer.IdentifierQuery: "https://mimi.example.com/v1/q?d=mimi%3A%2F%2Fa.example%2Fr%2Fx",
	} {
		value := peer.Value("mimi://a.example/r/x")
		if e == peer.RequestConsent {
			value = peer.ConsentValue("a.example", "mimi://a.example/u/a")
		}
		if u, err := d.URL(e, value); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v", e, u, err)
		}
	}
}

func TestDirectoryRefused(t *testing.T) {
	for _, s := range []string{
		``, `[]`, `null`, `null x`, `{"update":`, `{"update":7}`, `{"update":""}`, `{"update":"https://a.example/x"}`, `{"update":"https://a.example/{room}"}`,
		`{"update":"http://a.example/{roomId}"}`, `{"update":"/v1/{roomId}"}`, `{"update":"https://{roomId}/x"}`, `{"update":"https://a.example{roomId}"}`,
		`{"update":"https://me@a.example/{roomId}"}`, `{"update":"https://a.example/{+roomId}"}`, `{"update":"https://a.example/{roomId*}"}`, `{"update":"https://a.example/{roomId:3}"}`,
		`{"update":"https://a.example/{roomId}/{roomId}"}`, `{"update":"https://a.example/#{roomId}"}`, `{"update":"https://a.example/{roomId}#x"}`, `{"update":"https://a.example/{roomId"}`,
		`{"update":"https://a.example/}{roomId}"}`, `{"update":"https:a.example/{roomId}"}`, `{"update":"https:///{roomId}"}`, `{"ohttpGateway":"https://a.example/{x}"}`,
		`{"x":"` + strings.Repeat("a", 70000) + `"}`,
	} {
		if _, err := peer.ParseDirectory([]byte(s)); err == nil {
			t.Errorf("accepted %.60s", s)
		}
	}
}

func FuzzParseDirectory(f *testing.F) {
	f.Add([]byte(`{"update":"https://a.example/{roomId}","ohttpGateway":"https://a.example/o","x":[1]}`), "mimi://a.example/r/x")
	f.Add([]byte(`{"update":"https://a.example/?q={roomId}&y=1"}`), "ü/?#")
	f.Fuzz(func(t *testing.T, b []byte, value string) {
		d, err := peer.ParseDirectory(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := peer.ParseDirectory(again); err != nil {
			t.Fatalf("does not read what it wrote, %s: %v", again, err)
		}
		if !d.Has(peer.Update) {
			return
		}
		plain, err := d.URL(peer.Update, peer.Value("x"))
		if err != nil {
			return
		}
		u, err := d.URL(peer.Update, peer.Value(value))
		if err == nil && (u.Host != plain.Host || u.Scheme != "https" || u.User != nil) {
			t.Errorf("the value %q moved the URL to %s", value, u)
		}
	})
}
