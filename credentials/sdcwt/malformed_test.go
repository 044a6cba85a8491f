package sdcwt_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A made token is one whose every part can be changed before it is signed, so
// that exactly one rule is broken.
type made struct {
	protected, unprotected, payload   map[any]any // of the SD-CWT
	kbtProtected, kbtUnprotected, kbt map[any]any
	kcwt                              any // instead of the SD-CWT
	issuerKey, holderKey              crypto.Signer
	afterIssuer, afterHolder          func([]byte) []byte // change signed octets
	payloadOctets, rawPayload         []byte
}

func cbor(t testing.TB, x any) []byte {
	t.Helper()
	v, err := dcbor.FromNative(x)
	if err != nil {
		t.Fatal(err)
	}
	return dcbor.Encode(v)
}

func value(t testing.TB, x any) dcbor.Value {
	t.Helper()
	v, err := dcbor.FromNative(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// item returns a disclosure and its hash.
func item(t testing.TB, parts ...any) (any, []byte) {
	t.Helper()
	content := cbor(t, append([]any{[]byte("0123456789abcdef")}, parts...))
	sum := sha256.Sum256(dcbor.WrapBytes(content))
	return content, sum[:]
}

var simple59 = dcbor.NewSimple(59)

func tag(n uint64, x any) any { return dcbor.Tagged{Number: n, Content: x} }

// withHashes returns a map that has hashes under simple(59).
func withHashes(m map[any]any, hashes ...any) map[any]any {
	pairs := map[any]any{}
	for k, v := range m {
		pairs[k] = v
	}
	pairs[redactedKeys{}] = hashes
	return pairs
}

// redactedKeys stands for simple(59) as a key of a Go map.
type redactedKeys struct{}

// build turns Go maps with redactedKeys into CBOR.
func build(t testing.TB, x any) dcbor.Value {
	switch x := x.(type) {
	case map[any]any:
		var pairs []dcbor.Value
		for k, v := range x {
			key := simple59
			if _, ok := k.(redactedKeys); !ok {
				key = value(t, k)
			}
			pairs = append(pairs, key, build(t, v))
		}
		return dcbor.NewMap(pairs...)
	case []any:
		elements := make([]dcbor.Value, len(x))
		for i, e := range x {
			elements[i] = build(t, e)
		}
		return dcbor.NewArray(elements...)
	case dcbor.Tagged:
		return dcbor.NewTag(x.Number, build(t, x.Content))
	}
	return value(t, x)
}

func newMade(t testing.TB) *made {
	entry, hash := item(t, "secret", 501)
	return &made{
		protected:   map[any]any{16: 293, 170: -16, 4: []byte("https://issuer.example/cose-key3")},
		unprotected: map[any]any{17: []any{entry}},
		payload: withHashes(map[any]any{1: exampleIssuer, 2: "https://holder.example", 4: exampleNow.Unix() + 1000, 5: exampleNow.Unix() - 1000,
			6: exampleNow.Unix() - 500, 8: cnfOf(t, holderKey.Public()), 500: true}, hash),
		kbtProtected: map[any]any{16: 294}, kbtUnprotected: map[any]any{},
		kbt:       map[any]any{3: exampleAud, 6: exampleNow.Unix(), 39: exampleNonce},
		issuerKey: issuerKey, holderKey: holderKey,
	}
}

func signWith(t testing.TB, key crypto.Signer, protected, unprotected dcbor.Value, payload []byte) []byte {
	t.Helper()
	if !protected.GetInt(1).Exists() {
		out, err := cose.Sign(context.Background(), key, protected, unprotected, payload)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	header := dcbor.Encode(protected) // alg is given: sign whatever it says
	tbs := cbor(t, []any{"Signature1", header, []byte{}, payload})
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sig, err := scheme.SignRaw(nil, key, tbs)
	if err != nil {
		t.Fatal(err)
	}
	return dcbor.Encode(dcbor.NewTag(18, dcbor.NewArray(dcbor.NewBytes(header), unprotected, dcbor.NewBytes(payload), dcbor.NewBytes(sig))))
}

func (m *made) sdcwt(t testing.TB) []byte {
	payload := m.rawPayload
	if payload == nil {
		payload = dcbor.Encode(build(t, m.payload))
	}
	out := signWith(t, m.issuerKey, build(t, m.protected), build(t, m.unprotected), payload)
	if m.afterIssuer != nil {
		out = m.afterIssuer(out)
	}
	return out
}

func (m *made) token(t testing.TB) []byte {
	pairs := []dcbor.Value{}
	for k, v := range build(t, m.kbtProtected).Pairs() {
		pairs = append(pairs, k, v)
	}
	if m.kcwt == nil {
		pairs = append(pairs, dcbor.NewInt(13), dcbor.Verbatim(m.sdcwt(t)))
	} else if m.kcwt != "none" {
		pairs = append(pairs, dcbor.NewInt(13), build(t, m.kcwt))
	}
	payload := m.payloadOctets
	if payload == nil {
		payload = dcbor.Encode(build(t, m.kbt))
	}
	out := signWith(t, m.holderKey, dcbor.NewMap(pairs...), build(t, m.kbtUnprotected), payload)
	if m.afterHolder != nil {
		out = m.afterHolder(out)
	}
	return out
}

func nest(n int, x any) any {
	for range n {
		x = []any{x}
	}
	return x
}

func flip(b []byte) []byte { b[len(b)-1] ^= 1; return b }

var _, edKey, _ = ed25519.GenerateKey(nil)

// add puts more disclosures into a token and their hashes into its payload.
func (m *made) add(t testing.TB, parts ...any) (hash []byte) {
	entry, hash := item(t, parts...)
	m.unprotected[17] = append(m.unprotected[17].([]any), entry)
	return hash
}

func (m *made) redact(t testing.TB, parts ...any) {
	hash := m.add(t, parts...)
	m.payload[redactedKeys{}] = append(m.payload[redactedKeys{}].([]any), hash)
}

func h32(b byte) []byte { return []byte(strings.Repeat(string(rune(b)), 32)) }

var malformedKBTs = []struct {
	name   string
	want   credentials.Code
	change func(t testing.TB, m *made)
}{
	// 1: shape
	{"trailing octet", "malformed", func(t testing.TB, m *made) { m.afterHolder = func(b []byte) []byte { return append(b, 0) } }},
	{"cut", "malformed", func(t testing.TB, m *made) { m.afterHolder = func(b []byte) []byte { return b[:len(b)-1] } }},
	{"no tag", "malformed", func(t testing.TB, m *made) { m.afterHolder = func(b []byte) []byte { return b[1:] } }},
	{"tag 61 outside", "malformed", func(t testing.TB, m *made) {
		m.afterHolder = func(b []byte) []byte { return append([]byte{0xd8, 61}, b...) }
	}},
	{"empty", "malformed", func(t testing.TB, m *made) { m.afterHolder = func([]byte) []byte { return nil } }},
	{"too large", "malformed", func(t testing.TB, m *made) { m.kbt["x"] = make([]byte, 64<<10) }},
	{"KBT payload no map", "malformed", func(t testing.TB, m *made) { m.payloadOctets = []byte{0x80} }},
	{"KBT payload indefinite", "malformed", func(t testing.TB, m *made) { m.payloadOctets = unhex("bf036161ff") }},
	{"KBT payload duplicate key", "malformed", func(t testing.TB, m *made) { m.payloadOctets = unhex("a203616103616106") }},
	{"SD-CWT payload no map", "malformed", func(t testing.TB, m *made) { m.rawPayload = []byte{0x80} }},
	{"SD-CWT payload empty", "malformed", func(t testing.TB, m *made) { m.rawPayload = []byte{} }},
	{"SD-CWT payload indefinite", "malformed", func(t testing.TB, m *made) { m.rawPayload = unhex("bf016161ff") }},
	{"SD-CWT payload indefinite text", "malformed", func(t testing.TB, m *made) { m.rawPayload = unhex("a1017f6161ff") }},
	{"SD-CWT payload duplicate key", "malformed", func(t testing.TB, m *made) { m.rawPayload = unhex("a2016161016162") }},
	{"SD-CWT payload duplicate in two encodings", "malformed", func(t testing.TB, m *made) { m.rawPayload = unhex("a2016161180161" + "62") }},
	{"SD-CWT payload trailing", "malformed", func(t testing.TB, m *made) { m.rawPayload = unhex("a000") }},
	{"SD-CWT no UTF-8", "malformed", func(t testing.TB, m *made) { m.rawPayload = unhex("a10161ff") }},
	{"SD-CWT label in both headers", "malformed", func(t testing.TB, m *made) { m.unprotected[4] = []byte("x") }},
	{"KBT label in both headers", "malformed", func(t testing.TB, m *made) { m.kbtUnprotected[16] = 294 }},
	{"kid as text", "malformed", func(t testing.TB, m *made) { m.protected[4] = "kid" }},
	{"SD-CWT array of 3", "malformed", func(t testing.TB, m *made) { m.kcwt = tag(18, []any{[]byte{}, map[any]any{}, []byte{}}) }},
	{"SD-CWT no array", "malformed", func(t testing.TB, m *made) { m.kcwt = tag(18, []byte{}) }},
	{"nested deeper than any decoder goes", "depth", func(t testing.TB, m *made) { m.payload[600] = nest(40, 1) }},

	// 2: KBT header
	{"KBT typ missing", "kbt-typ", func(t testing.TB, m *made) { delete(m.kbtProtected, 16) }},
	{"KBT typ 293", "kbt-typ", func(t testing.TB, m *made) { m.kbtProtected[16] = 293 }},
	{"KBT typ another text", "kbt-typ", func(t testing.TB, m *made) { m.kbtProtected[16] = "kb+cwt" }},
	{"KBT typ unprotected", "kbt-typ", func(t testing.TB, m *made) { delete(m.kbtProtected, 16); m.kbtUnprotected[16] = 294 }},
	{"KBT typ of another type", "kbt-typ", func(t testing.TB, m *made) { m.kbtProtected[16] = 294.0 }},
	{"KBT alg unknown", "alg", func(t testing.TB, m *made) { m.kbtProtected[1] = -999 }},
	{"KBT alg HMAC", "alg", func(t testing.TB, m *made) { m.kbtProtected[1] = 5 }},
	{"KBT alg text", "alg", func(t testing.TB, m *made) { m.kbtProtected[1] = "ES256" }},
	{"KBT alg null", "alg", func(t testing.TB, m *made) { m.kbtProtected[1] = nil }},
	{"KBT crit unknown", "crit", func(t testing.TB, m *made) { m.kbtProtected[2] = []any{9999}; m.kbtProtected[9999] = 1 }},
	{"KBT crit empty", "crit", func(t testing.TB, m *made) { m.kbtProtected[2] = []any{} }},
	{"KBT crit unprotected", "crit", func(t testing.TB, m *made) { m.kbtUnprotected[2] = []any{1} }},
	{"KBT with CWT Claims", "kbt-cwt-claims", func(t testing.TB, m *made) { m.kbtProtected[15] = map[any]any{1: "x"} }},
	{"KBT with unprotected CWT Claims", "kbt-cwt-claims", func(t testing.TB, m *made) { m.kbtUnprotected[15] = map[any]any{} }},
	{"no kcwt", "kcwt-missing", func(t testing.TB, m *made) { m.kcwt = "none" }},
	{"kcwt as bytes", "kcwt-missing", func(t testing.TB, m *made) { m.kcwt = []byte{1} }},
	{"kcwt with another tag", "kcwt-missing", func(t testing.TB, m *made) { m.kcwt = tag(17, []any{}) }},
	{"kcwt without tag", "kcwt-missing", func(t testing.TB, m *made) { m.kcwt = []any{[]byte{}, map[any]any{}, []byte{}, []byte{}} }},
	{"tag 60 in the KBT header", "claims-key", func(t testing.TB, m *made) { m.kbtProtected["x"] = []any{tag(60, h32(1))} }},
	{"tag 58 in the KBT header", "claims-key", func(t testing.TB, m *made) { m.kbtUnprotected["x"] = tag(58, 1) }},

	// 3: SD-CWT header
	{"SD-CWT typ missing", "sdcwt-typ", func(t testing.TB, m *made) { delete(m.protected, 16) }},
	{"SD-CWT typ KBT", "sdcwt-typ", func(t testing.TB, m *made) { m.protected[16] = 294 }},
	{"SD-CWT typ cwt", "sdcwt-typ", func(t testing.TB, m *made) { m.protected[16] = "application/cwt" }},
	{"SD-CWT typ suffix not allowed", "sdcwt-typ", func(t testing.TB, m *made) { m.protected[16] = "application/x+sd-cwt" }},
	{"SD-CWT alg unknown", "alg", func(t testing.TB, m *made) { m.protected[1] = -65535 }},
	{"SD-CWT alg none", "alg", func(t testing.TB, m *made) { m.protected[1] = 0 }},
	{"SD-CWT crit unknown", "crit", func(t testing.TB, m *made) { m.protected[2] = []any{"x"}; m.protected["x"] = 1 }},
	{"SD-CWT crit absent label", "crit", func(t testing.TB, m *made) { m.protected[2] = []any{172} }},
	{"sd_alg SHA-1", "sd-alg", func(t testing.TB, m *made) { m.protected[170] = -14 }},
	{"sd_alg SHA-256/64", "sd-alg", func(t testing.TB, m *made) { m.protected[170] = -15 }},
	{"sd_alg text", "sd-alg", func(t testing.TB, m *made) { m.protected[170] = "sha-256" }},
	{"sd_alg unprotected", "sd-alg", func(t testing.TB, m *made) { delete(m.protected, 170); m.unprotected[170] = -16 }},
	{"sd_aead with short tag", "alg", func(t testing.TB, m *made) { m.protected[172] = 5 }},
	{"sd_aead beyond 16 bits", "alg", func(t testing.TB, m *made) { m.protected[172] = 65536 }},
	{"sd_aead negative", "alg", func(t testing.TB, m *made) { m.protected[172] = -1 }},
	{"sd_claims empty", "sd-claims-empty", func(t testing.TB, m *made) { m.unprotected[17] = []any{} }},
	{"sd_claims no array", "sd-claims-empty", func(t testing.TB, m *made) { m.unprotected[17] = []byte{1} }},
	{"sd_claims of arrays", "sd-claims-empty", func(t testing.TB, m *made) { m.unprotected[17] = []any{[]any{}} }},
	{"sd_claims protected", "sd-claims-empty", func(t testing.TB, m *made) { m.protected[17] = m.unprotected[17]; delete(m.unprotected, 17) }},
	{"encrypted empty", "sd-claims-empty", func(t testing.TB, m *made) { m.unprotected[171] = []any{} }},
	{"encrypted of 2", "sd-claims-empty", func(t testing.TB, m *made) { m.unprotected[171] = []any{[]any{[]byte{}, []byte{}}} }},
	{"encrypted of 5", "sd-claims-empty", func(t testing.TB, m *made) {
		m.unprotected[171] = []any{[]any{[]byte{}, []byte{}, []byte{}, 1, 2}}
	}},
	{"encrypted with negative context", "sd-claims-empty", func(t testing.TB, m *made) { m.unprotected[171] = []any{[]any{[]byte{}, []byte{}, []byte{}, -1}} }},
	{"tag 60 in the SD-CWT header", "claims-key", func(t testing.TB, m *made) { m.protected["x"] = []any{tag(60, h32(1))} }},
	{"header map with a bytes key", "claims-key", func(t testing.TB, m *made) { m.unprotected["x"] = map[any]any{true: 1} }},

	// 4: claims maps
	{"bool key", "claims-key", func(t testing.TB, m *made) { m.payload[true] = 1 }},
	{"null key nested", "claims-key", func(t testing.TB, m *made) { m.payload[600] = map[any]any{nil: 1} }},
	{"text key of 256 octets", "claims-key", func(t testing.TB, m *made) { m.payload[strings.Repeat("k", 256)] = 1 }},
	{"key with tag 58", "claims-key", func(t testing.TB, m *made) { m.payload[tag(58, 600)] = 1 }},
	{"key with tag 62", "claims-key", func(t testing.TB, m *made) { m.payload[tag(62, 1)] = nil }},
	{"key with two tags", "claims-key", func(t testing.TB, m *made) { m.payload[tag(58, tag(58, 600))] = 1 }},
	{"float key", "claims-key", func(t testing.TB, m *made) { m.payload[1.5] = 1 }},
	{"depth 17", "depth", func(t testing.TB, m *made) { m.payload[600] = nest(16, 1) }},
	{"depth 17 by tags", "depth", func(t testing.TB, m *made) {
		x := any(1)
		for range 16 {
			x = tag(100, x)
		}
		m.payload[600] = x
	}},
	{"depth 17 by maps", "depth", func(t testing.TB, m *made) {
		x := any(1)
		for range 16 {
			x = map[any]any{1: x}
		}
		m.payload[600] = x
	}},
	{"hash too short", "hash-shape", func(t testing.TB, m *made) { m.payload[redactedKeys{}] = []any{make([]byte, 31)} }},
	{"hash too long", "hash-shape", func(t testing.TB, m *made) { m.payload[redactedKeys{}] = []any{make([]byte, 48)} }},
	{"hash as text", "hash-shape", func(t testing.TB, m *made) { m.payload[redactedKeys{}] = []any{"x"} }},
	{"redacted keys no array", "hash-shape", func(t testing.TB, m *made) { m.payload[redactedKeys{}] = h32(1) }},
	{"redacted element of text", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = []any{tag(60, "x")} }},
	{"redacted element too short", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = []any{tag(60, []byte{1})} }},
	{"tag 60 outside an array", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = tag(60, h32(1)) }},
	{"tag 60 inside another tag", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = []any{tag(100, tag(60, h32(1)))} }},
	{"tag 58 on an element", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = []any{tag(58, 1)} }},
	{"tag 62 as an element", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = []any{tag(62, 1)} }},
	{"simple(59) as a value", "hash-shape", func(t testing.TB, m *made) { m.payload[600] = simple59 }},
	{"hash twice in one map", "hash-duplicate", func(t testing.TB, m *made) { m.payload[redactedKeys{}] = []any{h32(1), h32(1)} }},
	{"hash in two places", "hash-duplicate", func(t testing.TB, m *made) {
		m.payload[600] = []any{tag(60, m.payload[redactedKeys{}].([]any)[0])}
	}},
	{"hash in payload and header", "hash-duplicate", func(t testing.TB, m *made) {
		m.protected[15] = withHashes(map[any]any{}, m.payload[redactedKeys{}].([]any)[0])
	}},
	{"CWT Claims no map", "malformed", func(t testing.TB, m *made) { m.protected[15] = 1 }},
	{"redaction inside cnf", "disclosure-forbidden-key", func(t testing.TB, m *made) {
		m.payload[8] = withHashes(map[any]any{}, h32(2))
	}},
	{"redaction inside aud", "disclosure-forbidden-key", func(t testing.TB, m *made) { m.payload[3] = []any{exampleAud, tag(60, h32(2))} }},
	{"redaction inside status", "disclosure-forbidden-key", func(t testing.TB, m *made) {
		m.payload[65535] = withHashes(map[any]any{}, h32(2))
	}},

	// 5 and 6: issuer
	{"unknown issuer", "issuer-unknown", func(t testing.TB, m *made) { m.payload[1] = "https://other.example" }},
	{"issuer differing by a slash", "issuer-unknown", func(t testing.TB, m *made) { m.payload[1] = exampleIssuer + "/" }},
	{"unknown kid", "issuer-key", func(t testing.TB, m *made) { m.protected[4] = []byte("other") }},
	{"iss missing", "claim-missing", func(t testing.TB, m *made) { delete(m.payload, 1) }},
	{"iss no text", "claim-type", func(t testing.TB, m *made) { m.payload[1] = []byte("x") }},
	{"x5chain empty", "chain", func(t testing.TB, m *made) { m.protected[33] = []any{} }},
	{"signed by the holder", "issuer-signature", func(t testing.TB, m *made) { m.issuerKey = holderKey }},
	{"signed with Ed25519", "issuer-signature", func(t testing.TB, m *made) { m.issuerKey = edKey }},
	{"alg of another curve", "issuer-signature", func(t testing.TB, m *made) { m.protected[1] = -9 }},
	{"issuer signature changed", "issuer-signature", func(t testing.TB, m *made) { m.afterIssuer = flip }},
	{"issuer signature cut", "issuer-signature", func(t testing.TB, m *made) {
		m.afterIssuer = func(b []byte) []byte { return append(b[:len(b)-98], 0x40) }
	}},

	// 7 and 8: claims and clock
	{"sub missing", "claim-missing", func(t testing.TB, m *made) {
		delete(m.payload, 2)
		delete(m.payload, redactedKeys{})
		delete(m.unprotected, 17)
	}},
	{"sub missing, everything disclosed", "claim-missing", func(t testing.TB, m *made) { delete(m.payload, 2) }},
	{"sub no text", "claim-type", func(t testing.TB, m *made) { m.payload[2] = 5 }},
	{"disclosed sub no text", "claim-type", func(t testing.TB, m *made) { delete(m.payload, 2); m.redact(t, 5, 2) }},
	{"cnf missing", "claim-missing", func(t testing.TB, m *made) { delete(m.payload, 8) }},
	{"cnf no map", "claim-type", func(t testing.TB, m *made) { m.payload[8] = "x" }},
	{"cti no bytes", "claim-type", func(t testing.TB, m *made) { m.payload[7] = "x" }},
	{"exp text", "claim-type", func(t testing.TB, m *made) { m.payload[4] = "tomorrow" }},
	{"exp tagged", "claim-type", func(t testing.TB, m *made) { m.payload[4] = tag(1, exampleNow.Unix()+5) }},
	{"exp infinite", "claim-type", func(t testing.TB, m *made) { m.payload[4] = math.Inf(1) }},
	{"exp NaN", "claim-type", func(t testing.TB, m *made) { m.payload[4] = math.NaN() }},
	{"exp float beyond 2^53", "claim-type", func(t testing.TB, m *made) { m.payload[4] = float64(1 << 54) }},
	{"nbf null", "claim-type", func(t testing.TB, m *made) { m.payload[5] = nil }},
	{"vct of bytes", "claim-type", func(t testing.TB, m *made) { m.payload[11] = []byte("x") }},
	{"nbf after iat", "time-order", func(t testing.TB, m *made) { m.payload[5] = exampleNow.Unix() - 400 }},
	{"nbf not before exp", "time-order", func(t testing.TB, m *made) { m.payload[5] = m.payload[4]; delete(m.payload, 6) }},
	{"iat not before exp", "time-order", func(t testing.TB, m *made) { m.payload[6] = m.payload[4] }},
	{"expired this second", "expired", func(t testing.TB, m *made) { m.payload[4] = exampleNow.Unix() }},
	{"expired by a fraction", "expired", func(t testing.TB, m *made) { m.payload[4] = float64(exampleNow.Unix()) - 0.5 }},
	{"not yet valid", "not-yet-valid", func(t testing.TB, m *made) { m.payload[5] = exampleNow.Unix() + 1; delete(m.payload, 6) }},
	{"issued in the future", "issued-in-future", func(t testing.TB, m *made) { m.payload[6] = exampleNow.Unix() + 1 }},

	// 9 and 10: confirmation
	{"cnf empty", "cnf-unsupported", func(t testing.TB, m *made) { m.payload[8] = map[any]any{} }},
	{"cnf kid", "cnf-unsupported", func(t testing.TB, m *made) { m.payload[8] = map[any]any{3: []byte("k")} }},
	{"cnf thumbprint alone", "cnf-unsupported", func(t testing.TB, m *made) { m.payload[8] = map[any]any{5: h32(1)} }},
	{"cnf unknown curve", "cnf-curve", func(t testing.TB, m *made) { m.payload[8] = map[any]any{1: map[any]any{1: 2, -1: 8}} }},
	{"cnf private", "cnf-private-key", func(t testing.TB, m *made) { m.payload[8] = map[any]any{1: map[any]any{1: 2, -1: 1, -4: h32(1)}} }},
	{"KBT by another key", "kbt-signature", func(t testing.TB, m *made) { m.holderKey = issuerKey }},
	{"KBT alg of another curve", "kbt-signature", func(t testing.TB, m *made) { m.kbtProtected[1] = -35 }},
	{"KBT signature changed", "kbt-signature", func(t testing.TB, m *made) { m.afterHolder = flip }},
	{"disclosures changed after signing", "kbt-signature", func(t testing.TB, m *made) {
		m.afterHolder = func(b []byte) []byte { return []byte(strings.Replace(string(b), "secret", "Secret", 1)) }
	}},

	// 11 to 14: key binding
	{"KBT iss", "kbt-claims", func(t testing.TB, m *made) { m.kbt[1] = "x" }},
	{"KBT sub", "kbt-claims", func(t testing.TB, m *made) { m.kbt[2] = "x" }},
	{"KBT aud missing", "kbt-claims", func(t testing.TB, m *made) { delete(m.kbt, 3) }},
	{"KBT neither iat nor cti", "kbt-claims", func(t testing.TB, m *made) { delete(m.kbt, 6) }},
	{"KBT exp without iat", "kbt-claims", func(t testing.TB, m *made) {
		delete(m.kbt, 6)
		m.kbt[7] = []byte("1")
		m.kbt[4] = exampleNow.Unix() + 5
	}},
	{"KBT nbf without iat", "kbt-claims", func(t testing.TB, m *made) { delete(m.kbt, 6); m.kbt[7] = []byte("1"); m.kbt[5] = exampleNow.Unix() }},
	{"KBT cti text", "kbt-claims", func(t testing.TB, m *made) { m.kbt[7] = "1" }},
	{"KBT cnonce text", "kbt-claims", func(t testing.TB, m *made) { m.kbt[39] = "1" }},
	{"KBT iat text", "claim-type", func(t testing.TB, m *made) { m.kbt[6] = "now" }},
	{"KBT simple(59)", "claims-key", func(t testing.TB, m *made) { m.kbt = withHashes(m.kbt, h32(1)) }},
	{"KBT nbf after iat", "kbt-time", func(t testing.TB, m *made) { m.kbt[5] = exampleNow.Unix() + 1 }},
	{"KBT exp not after iat", "kbt-time", func(t testing.TB, m *made) { m.kbt[4] = exampleNow.Unix() }},
	{"KBT exp after SD-CWT exp", "kbt-time", func(t testing.TB, m *made) { m.kbt[4] = exampleNow.Unix() + 1001 }},
	{"KBT nbf before SD-CWT nbf", "kbt-time", func(t testing.TB, m *made) { m.kbt[5] = exampleNow.Unix() - 1001 }},
	{"KBT iat before SD-CWT iat", "kbt-time", func(t testing.TB, m *made) { m.kbt[6] = exampleNow.Unix() - 501 }},
	{"KBT iat before SD-CWT nbf", "kbt-time", func(t testing.TB, m *made) { m.kbt[6] = exampleNow.Unix() - 1001; delete(m.payload, 6) }},
	{"KBT in the future", "kbt-time", func(t testing.TB, m *made) { m.kbt[6] = exampleNow.Unix() + 1 }},
	{"KBT too old", "kbt-time", func(t testing.TB, m *made) { m.kbt[6] = exampleNow.Unix() - 301 }},
	{"KBT nonce missing", "nonce", func(t testing.TB, m *made) { delete(m.kbt, 39) }},
	{"KBT nonce of another", "nonce", func(t testing.TB, m *made) { m.kbt[39] = h32(1) }},
	{"KBT aud another", "audience", func(t testing.TB, m *made) { m.kbt[3] = "https://other.example" }},
	{"KBT aud array without us", "audience", func(t testing.TB, m *made) { m.kbt[3] = []any{"a", "b"} }},
	{"KBT aud empty array", "audience", func(t testing.TB, m *made) { m.kbt[3] = []any{} }},
	{"KBT aud number", "claim-type", func(t testing.TB, m *made) { m.kbt[3] = 5 }},
	{"SD-CWT aud another", "audience", func(t testing.TB, m *made) { m.payload[3] = "https://other.example" }},

	// 15 and 16: disclosures
	{"disclosure no array", "disclosure-shape", func(t testing.TB, m *made) { m.unprotected[17] = []any{[]byte{0x01}} }},
	{"disclosure empty", "disclosure-shape", func(t testing.TB, m *made) { m.unprotected[17] = []any{[]byte{}} }},
	{"disclosure of 4", "disclosure-shape", func(t testing.TB, m *made) { m.add(t, 1, 2, 3) }},
	{"disclosure of 0", "disclosure-shape", func(t testing.TB, m *made) { m.unprotected[17] = []any{[]byte{0x80}} }},
	{"salt of 15", "disclosure-shape", func(t testing.TB, m *made) { m.unprotected[17] = []any{cbor(t, []any{make([]byte, 15), 1, 2})} }},
	{"salt of 17", "disclosure-shape", func(t testing.TB, m *made) { m.unprotected[17] = []any{cbor(t, []any{make([]byte, 17), 1, 2})} }},
	{"salt of text", "disclosure-shape", func(t testing.TB, m *made) { m.unprotected[17] = []any{cbor(t, []any{"0123456789abcdef", 1, 2})} }},
	{"disclosure trailing", "disclosure-shape", func(t testing.TB, m *made) {
		m.unprotected[17] = []any{append(cbor(t, []any{h32(1)[:16], 1, 2}), 0)}
	}},
	{"disclosed key true", "disclosure-shape", func(t testing.TB, m *made) { m.add(t, 1, true) }},
	{"disclosed key tagged", "disclosure-shape", func(t testing.TB, m *made) { m.add(t, 1, tag(58, 1)) }},
	{"disclosed key too long", "disclosure-shape", func(t testing.TB, m *made) { m.add(t, 1, strings.Repeat("k", 256)) }},
	{"element in the place of an entry", "disclosure-shape", func(t testing.TB, m *made) { m.redact(t, "x") }},
	{"entry in the place of an element", "disclosure-shape", func(t testing.TB, m *made) { m.payload[600] = []any{tag(60, m.add(t, "x", 601))} }},
	{"disclosed exp", "disclosure-forbidden-key", func(t testing.TB, m *made) { m.redact(t, exampleNow.Unix()+5, 4) }},
	{"disclosed iss", "disclosure-forbidden-key", func(t testing.TB, m *made) { m.redact(t, exampleIssuer, 1) }},
	{"disclosed status", "disclosure-forbidden-key", func(t testing.TB, m *made) { m.redact(t, map[any]any{}, 65535) }},
	{"disclosed cnonce", "disclosure-forbidden-key", func(t testing.TB, m *made) { m.redact(t, []byte{1}, 39) }},
	{"disclosed key is there", "disclosure-key-collision", func(t testing.TB, m *made) { m.redact(t, "x", 500) }},
	{"disclosed key disclosed twice", "disclosure-key-collision", func(t testing.TB, m *made) { m.redact(t, "another", 501) }},
	{"disclosure without hash", "disclosure-unmatched", func(t testing.TB, m *made) { m.add(t, "x", 601) }},
	{"hash of the bare array", "disclosure-unmatched", func(t testing.TB, m *made) {
		entry, _ := item(t, "x", 601)
		bare := sha256.Sum256(entry.([]byte))
		m.unprotected[17] = append(m.unprotected[17].([]any), entry)
		m.payload[redactedKeys{}] = append(m.payload[redactedKeys{}].([]any), bare[:])
	}},
	{"orphan of a closed parent", "disclosure-unmatched", func(t testing.TB, m *made) {
		_, inner := item(t, "x", 601)
		m.add(t, "x", 601)
		_, outer := item(t, []byte(inner), 602)
		m.payload[redactedKeys{}] = append(m.payload[redactedKeys{}].([]any), outer)
	}},
	{"same disclosure twice", "disclosure-duplicate", func(t testing.TB, m *made) { m.add(t, "secret", 501) }},
	{"too many disclosures", "malformed", func(t testing.TB, m *made) {
		for i := range 256 {
			m.redact(t, i, 1000+i)
		}
	}},
	{"disclosed value with a bad key", "claims-key", func(t testing.TB, m *made) { m.redact(t, map[any]any{true: 1}, 601) }},
	{"disclosed value with tag 58", "hash-shape", func(t testing.TB, m *made) { m.redact(t, []any{tag(58, 1)}, 601) }},
	{"disclosed value too deep", "depth", func(t testing.TB, m *made) { m.redact(t, nest(16, 1), 601) }},
	{"disclosed hash stands elsewhere", "hash-duplicate", func(t testing.TB, m *made) {
		m.redact(t, []any{tag(60, m.payload[redactedKeys{}].([]any)[0])}, 601)
	}},
	{"payload and header differ", "claims-conflict", func(t testing.TB, m *made) { m.protected[15] = map[any]any{500: false} }},
	{"disclosed and header differ", "claims-conflict", func(t testing.TB, m *made) { m.protected[15] = map[any]any{501: "other"} }},
}

func strictVerifier() *sdcwt.Verifier {
	v := exampleVerifier()
	v.Nonce, v.MaxAge = exampleNonce, 300*time.Second
	return v
}

func TestMalformedKBTs(t *testing.T) {
	if len(malformedKBTs) < 100 {
		t.Fatalf("only %d cases", len(malformedKBTs))
	}
	if _, err := strictVerifier().Verify(context.Background(), newMade(t).token(t)); err != nil {
		t.Fatalf("the unchanged token: %v", err)
	}
	for _, c := range malformedKBTs {
		t.Run(c.name, func(t *testing.T) {
			m := newMade(t)
			c.change(t, m)
			out, err := strictVerifier().Verify(context.Background(), m.token(t))
			if out != nil && err != nil {
				t.Error("claims come with the refusal")
			}
			wantCode(t, err, c.want)
		})
	}
}

// What looks odd and is right.
// TestAEADsBySize refuses each algorithm of the IANA registry whose tag has fewer than
// 16 octets (section 16.9), and leaves alone what another can open.
func TestAEADsBySize(t *testing.T) {
	short := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 19, 21, 22, 24, 25, 27, 28}
	for n := 1; n <= 33; n++ {
		m := newMade(t)
		m.protected[172] = n
		want := credentials.Code("")
		if slices.Contains(short, n) {
			want = credentials.CodeAlg
		}
		_, err := strictVerifier().Verify(context.Background(), m.token(t))
		if got := credentials.CodeOf(err); got != want || (err == nil) != (want == "") {
			t.Errorf("AEAD %d: %v, want %q", n, err, want)
		}
	}
}

func TestUnusualKBTs(t *testing.T) {
	for name, change := range map[string]func(m *made){
		"typ as text":          func(m *made) { m.kbtProtected[16] = "application/kb+cwt"; m.protected[16] = "application/sd-cwt" },
		"sd_alg left out":      func(m *made) { delete(m.protected, 170) },
		"deprecated alg":       func(m *made) { m.protected[1] = -35; m.kbtProtected[1] = -7 },
		"unknown headers":      func(m *made) { m.protected["x"] = 1; m.kbtUnprotected[-70000] = "y" },
		"crit understood":      func(m *made) { m.protected[2] = []any{170} },
		"nothing disclosed":    func(m *made) { delete(m.unprotected, 17) },
		"sub redacted, closed": func(m *made) { delete(m.payload, 2); delete(m.unprotected, 17) },
		"sub redacted, open":   func(m *made) { delete(m.payload, 2); m.redact(t, "https://holder.example", 2) },
		"iat before nbf only by cti": func(m *made) {
			delete(m.kbt, 6)
			m.kbt[7] = []byte("1")
		},
		"aud array":                func(m *made) { m.kbt[3] = []any{"x", exampleAud}; m.payload[3] = exampleAud },
		"float times":              func(m *made) { m.payload[4] = float64(exampleNow.Unix()) + 0.5 },
		"no times at all":          func(m *made) { delete(m.payload, 4); delete(m.payload, 5); delete(m.payload, 6) },
		"exp beyond any clock":     func(m *made) { m.payload[4] = uint64(math.MaxUint64) },
		"presented decoy":          func(m *made) { m.redact(t) },
		"presented element decoy":  func(m *made) { m.payload[600] = []any{1, tag(60, m.add(t)), 2} },
		"closed element":           func(m *made) { m.payload[600] = []any{1, tag(60, h32(7)), 2} },
		"same claim in the header": func(m *made) { m.protected[15] = map[any]any{500: true, 501: "secret", 700: 1} },
		"iss in the header alone":  func(m *made) { m.protected[15] = map[any]any{1: exampleIssuer}; delete(m.payload, 1) },
		"forbidden keys, nested": func(m *made) {
			_, hash := item(t, "us", 1)
			m.add(t, "us", 1)
			m.payload[503] = withHashes(map[any]any{}, hash)
		},
		"depth 16":     func(m *made) { m.payload[600] = nest(15, 1) },
		"empty hashes": func(m *made) { m.payload[600] = withHashes(map[any]any{}) },
		"other tags":   func(m *made) { m.payload[600] = []any{tag(1, 5), tag(4, []any{-2, 27315})} },
		"text key 255": func(m *made) { m.payload[strings.Repeat("k", 255)] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMade(t)
			change(m)
			got, err := strictVerifier().Verify(context.Background(), m.token(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dcbor.Decode(got.Claims.CBOR()); err != nil || strings.Contains(got.Claims.String(), "simple(59)") || strings.Contains(got.Claims.String(), "60(") {
				t.Errorf("claims %v, %v", got.Claims, err)
			}
		})
	}
}

func TestHolderRefuses(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		want   credentials.Code
		change func(m *made, h *sdcwt.Holder)
	}{
		"hash without disclosure":     {"disclosure-unmatched", func(m *made, h *sdcwt.Holder) { m.payload[600] = []any{tag(60, h32(1))} }},
		"disclosure without hash":     {"disclosure-unmatched", func(m *made, h *sdcwt.Holder) { m.add(t, 1, 601) }},
		"another's key":               {"cnf-leaf-mismatch", func(m *made, h *sdcwt.Holder) { h.Key = edKey.Public() }},
		"another issuer":              {"issuer-unknown", func(m *made, h *sdcwt.Holder) { h.Issuer = "https://x.example" }},
		"another subject":             {"identity-mismatch", func(m *made, h *sdcwt.Holder) { h.Subject = "https://x.example" }},
		"audience":                    {"audience", func(m *made, h *sdcwt.Holder) { m.payload[3] = "https://x.example" }},
		"cnonce that we did not send": {"nonce", func(m *made, h *sdcwt.Holder) { m.payload[39] = []byte("n") }},
		"cnonce missing":              {"nonce", func(m *made, h *sdcwt.Holder) { h.CNonce = []byte("n") }},
		"expired":                     {"expired", func(m *made, h *sdcwt.Holder) { h.Now = at(exampleNow.Add(time.Hour)) }},
		"own policy": {"policy", func(m *made, h *sdcwt.Holder) {
			h.Acceptable = func(clear, all sdcwt.ClaimsSet, decoys int) error {
				if clear.Has(500) && !clear.Has(501) && all.Has(501) && decoys == 0 {
					return credentials.Errorf(credentials.CodePolicy, "claims", "500 is in the clear")
				}
				return nil
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m, h := newMade(t), exampleHolder()
			c.change(m, h)
			_, err := h.Accept(ctx, m.sdcwt(t))
			wantCode(t, err, c.want)
		})
	}
	m, h := newMade(t), exampleHolder()
	m.payload[39], h.CNonce = []byte("n"), []byte("n")
	h.Subject, h.Issuer = "https://holder.example", exampleIssuer
	if _, err := h.Accept(ctx, m.sdcwt(t)); err != nil {
		t.Error(err)
	}
}

func TestStatusIsAskedLast(t *testing.T) {
	asked := 0
	v := strictVerifier()
	v.Status = func(_ context.Context, status []byte) error {
		asked++
		return credentials.Errorf(credentials.CodeRevoked, "status", "entry %x", status)
	}
	m := newMade(t)
	m.payload[65535] = map[any]any{"status_list": map[any]any{"idx": 1, "uri": "https://s.example/1"}}
	_, err := v.Verify(context.Background(), m.token(t))
	wantCode(t, err, credentials.CodeRevoked)
	m.afterHolder = flip
	_, err = v.Verify(context.Background(), m.token(t))
	wantCode(t, err, credentials.CodeKBTSignature)
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

func TestZeroVerifierAcceptsNothing(t *testing.T) {
	if _, err := new(sdcwt.Verifier).Verify(context.Background(), newMade(t).token(t)); err == nil {
		t.Error("accepted")
	}
	_, err := (&sdcwt.Verifier{Issuers: exampleIssuers(), Now: at(exampleNow)}).Verify(context.Background(), newMade(t).token(t))
	if !errors.Is(err, &credentials.Error{Code: credentials.CodeAudience}) {
		t.Errorf("got %v", err)
	}
}
