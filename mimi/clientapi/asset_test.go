package clientapi_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
)

func TestAssetQuery(t *testing.T) {
	room, err := mimi.ParseURI("mimi://a.example/r/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []clientapi.AssetQuery{{}, {Room: room, Type: "image/png", Lifetime: time.Hour}} {
		if got, err := clientapi.ParseAssetQuery(q.Values()); err != nil || *got != q {
			t.Errorf("%+v, %v; want %+v", got, err, q)
		}
	}
	for _, s := range []string{"room=x", "lifetime=-1", "lifetime=1h", "lifetime=99999999999", "other=1", "type=a&type=b"} {
		v, err := url.ParseQuery(s)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := clientapi.ParseAssetQuery(v); err == nil {
			t.Errorf("%s: %+v", s, q)
		}
	}
	a := clientapi.Asset{URL: "https://a.example/x", Size: 5, Expires: 6}
	b := a.Marshal()
	if got, err := clientapi.ParseAsset(b); err != nil || *got != a {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b {
		if _, err := clientapi.ParseAsset(b[:i]); err == nil {
			t.Errorf("a prefix of %d octets was read", i)
		}
	}
}
