package ohttp_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/bhttp"
	"github.com/privyseal/privyseal/internal/ohttp"
)

// RFC 9458 appendix A.
const (
	vectorSecretKey = "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a"
	vectorConfig    = "01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003"
	vectorRequest   = "00034745540568747470730b6578616d706c652e636f6d012f"
	vectorSealed    = "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525"
	vectorSecret    = "62d87a6ba569ee81014c2641f52bea36"
	vectorNonce     = "c789e7151fcba46158ca84b04464910d"
	vectorResponse  = "0140c8"
	vectorAnswer    = "c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// prefixed puts a configuration in a list.
func prefixed(config []byte) []byte { return append([]byte{0, byte(len(config))}, config...) }

func vectorKey(t testing.TB) *ohttp.PrivateKey {
	t.Helper()
	configs, err := ohttp.ParseKeys(prefixed(unhex(t, vectorConfig)))
	if err != nil {
		t.Fatal(err)
	}
	key, err := hpke.DHKEM(ecdh.X25519()).NewPrivateKey(unhex(t, vectorSecretKey))
	if err != nil {
		t.Fatal(err)
	}
	return &ohttp.PrivateKey{Config: configs[0], Key: key}
}

func find(k *ohttp.PrivateKey) func(uint8) *ohttp.PrivateKey {
	return func(id uint8) *ohttp.PrivateKey {
		if id == k.Config.ID {
			return k
		}
		return nil
	}
}

func TestVectors(t *testing.T) {
	key := vectorKey(t)
	if got := hex.EncodeToString(ohttp.MarshalKeys([]*ohttp.KeyConfig{key.Config})); got != hex.EncodeToString(prefixed(unhex(t, vectorConfig))) {
		t.Errorf("configuration %s", got)
	}
	if !bytes.Equal(key.Key.PublicKey().Bytes(), key.Config.Key.Bytes()) {
		t.Error("the public key is another")
	}
	request, ctx, err := ohttp.OpenRequest(find(key), unhex(t, vectorSealed))
	if err != nil || hex.EncodeToString(request) != vectorRequest {
		t.Fatalf("request %x, %v", request, err)
	}
	if got := hex.EncodeToString(ctx.Secret()); got != vectorSecret {
		t.Errorf("secret %s", got)
	}
	answer, err := ctx.SealResponseWith(unhex(t, vectorNonce), unhex(t, vectorResponse))
	if err != nil || hex.EncodeToString(answer) != vectorAnswer {
		t.Errorf("answer %x, %v", answer, err)
	}
	opened, err := ctx.OpenResponse(unhex(t, vectorAnswer))
	if err != nil || hex.EncodeToString(opened) != vectorResponse {
		t.Errorf("response %x, %v", opened, err)
	}
}

// Every suite goes there and back, and nothing that was changed opens.
func TestRoundTrip(t *testing.T) {
	for _, kem := range []hpke.KEM{hpke.DHKEM(ecdh.X25519()), hpke.DHKEM(ecdh.P256()), hpke.DHKEM(ecdh.P384()), hpke.DHKEM(ecdh.P521())} {
		for _, suite := range []ohttp.Suite{{1, 1}, {1, 2}, {2, 2}, {3, 3}} {
			private, err := kem.GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			config := &ohttp.KeyConfig{ID: 7, KEM: kem.ID(), Key: private.PublicKey(), Suites: []ohttp.Suite{suite}}
			parsed, err := ohttp.ParseKeys(ohttp.MarshalKeys([]*ohttp.KeyConfig{config}))
			if err != nil || len(parsed) != 1 {
				t.Fatalf("%v, %v", parsed, err)
			}
			sealed, client, err := ohttp.SealRequest(parsed[0], []byte("question"))
			if err != nil {
				t.Fatal(err)
			}
			keys := find(&ohttp.PrivateKey{Config: config, Key: private})
			got, gateway, err := ohttp.OpenRequest(keys, sealed)
			if err != nil || string(got) != "question" {
				t.Fatalf("%q, %v", got, err)
			}
			answer, err := gateway.SealResponse([]byte("answer"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := client.OpenResponse(answer); err != nil || string(got) != "answer" {
				t.Errorf("%q, %v", got, err)
			}
			for i := range sealed {
				sealed[i] ^= 1
				if _, _, err := ohttp.OpenRequest(keys, sealed); err == nil {
					t.Fatalf("a request with octet %d changed opened", i)
				}
				sealed[i] ^= 1
			}
			for i := range answer {
				answer[i] ^= 1
				if _, err := client.OpenResponse(answer); err == nil {
					t.Fatalf("an answer with octet %d changed opened", i)
				}
				answer[i] ^= 1
				if _, err := client.OpenResponse(answer[:i]); err == nil {
					t.Fatalf("an answer of %d octets opened", i)
				}
			}
		}
	}
}

func TestKeyLists(t *testing.T) {
	good := prefixed(unhex(t, vectorConfig))
	unknownKEM := prefixed([]byte{2, 0x99, 0x99, 1, 2, 3})
	noSuite := unhex(t, vectorConfig)
	copy(noSuite[len(noSuite)-8:], []byte{0, 9, 0, 9, 0, 1, 0, 9})
	configs, err := ohttp.ParseKeys(bytes.Join([][]byte{unknownKEM, prefixed(noSuite), good}, nil))
	if err != nil || len(configs) != 1 || configs[0].ID != 1 || len(configs[0].Suites) != 2 {
		t.Errorf("a list with strange ones: %v, %v", configs, err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "cut": good[:len(good)-1], "cut length": {0}, "only unknown": unknownKEM, "no octets": {0, 0},
		"too many": bytes.Repeat(good, 17), "trailing": append(prefixed(append(unhex(t, vectorConfig), 0)), good...),
		"low order point": prefixed(append(append([]byte{1, 0, 0x10}, make([]byte, 65)...), 0, 4, 0, 1, 0, 1)),
	} {
		if c, err := ohttp.ParseKeys(b); err == nil {
			t.Errorf("%s: %v", name, c)
		}
	}
}

func TestRotation(t *testing.T) {
	now := time.Date(2026, 11, 28, 0, 30, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	secret := bytes.Repeat([]byte{1}, 32)
	a, err := ohttp.NewKeys(secret, time.Hour, clock)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ohttp.NewKeys(secret, time.Hour, clock) // another node
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.Current()
	if err != nil || a.Left() != 30*time.Minute {
		t.Fatalf("%v, %v", a.Left(), err)
	}
	sealed, _, err := ohttp.SealRequest(first.Config, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	open := func(k *ohttp.Keys) error { _, _, err := ohttp.OpenRequest(k.Find, sealed); return err }
	if err := open(b); err != nil {
		t.Errorf("the other node: %v", err)
	}
	now = now.Add(time.Hour)
	second, err := a.Current()
	if err != nil || second.Config.ID == first.Config.ID || bytes.Equal(second.Config.Key.Bytes(), first.Config.Key.Bytes()) {
		t.Errorf("the key did not change, %v", err)
	}
	if err := open(a); err != nil {
		t.Errorf("the key before: %v", err)
	}
	now = now.Add(time.Hour)
	if err := open(a); !errors.Is(err, ohttp.ErrKey) {
		t.Errorf("an old key: %v", err)
	}
	now = now.Add(254 * time.Hour) // the identifier comes around
	if err := open(a); !errors.Is(err, ohttp.ErrOpen) {
		t.Errorf("a key with the identifier of an old one: %v", err)
	}
	if _, err := ohttp.NewKeys(secret[1:], time.Hour, nil); err == nil {
		t.Error("a short secret was taken")
	}
}

func TestPadded(t *testing.T) {
	for n := 0; n < 1<<20; n += 97 {
		p := ohttp.Padded(n)
		if p < n || p < 512 || n > 512 && float64(p) > 1.12*float64(n) {
			t.Fatalf("Padded(%d) = %d", n, p)
		}
	}
	if ohttp.Padded(100_000) != ohttp.Padded(99_500) {
		t.Error("sizes that are near differ")
	}
}

func TestDo(t *testing.T) {
	key := vectorKey(t)
	post := func(_ context.Context, sealed []byte) ([]byte, error) {
		b, ctx, err := ohttp.OpenRequest(find(key), sealed)
		if err != nil {
			return nil, err
		}
		q, err := bhttp.ParseRequest(b)
		if err != nil {
			return nil, err
		}
		answer, err := (&bhttp.Response{Status: 200, Content: []byte(q.URL())}).Marshal()
		if err != nil {
			return nil, err
		}
		return ctx.SealResponse(bhttp.Pad(answer, 1000))
	}
	q := &bhttp.Request{Method: "GET", Scheme: "https", Authority: "a.example", Path: "/x"}
	p, err := ohttp.Do(t.Context(), key.Config, post, q)
	if err != nil || p.Status != 200 || string(p.Content) != "https://a.example/x" {
		t.Errorf("%+v, %v", p, err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add(prefixed(unhex(f, vectorConfig)))
	f.Fuzz(func(t *testing.T, b []byte) {
		configs, err := ohttp.ParseKeys(b)
		if err != nil {
			if !errors.Is(err, ohttp.ErrMalformed) && !errors.Is(err, ohttp.ErrKey) {
				t.Fatal(err)
			}
			return
		}
		again, err := ohttp.ParseKeys(ohttp.MarshalKeys(configs))
		if err != nil || len(again) != len(configs) {
			t.Fatalf("%d became %d, %v", len(configs), len(again), err)
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := vectorKey(f)
	f.Add(unhex(f, vectorSealed), unhex(f, vectorAnswer))
	_, vector, err := ohttp.OpenRequest(find(key), unhex(f, vectorSealed))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sealed, answer []byte) {
		if b, _, err := ohttp.OpenRequest(find(key), sealed); err == nil && hex.EncodeToString(b) != vectorRequest {
			t.Errorf("opened %x", b)
		}
		if b, err := vector.OpenResponse(answer); err == nil && hex.EncodeToString(b) != vectorResponse {
			t.Errorf("opened %x", b)
		}
	})
}
