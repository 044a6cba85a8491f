package statuslist_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

var statusKey, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

func ourRules() *statuslist.Rules {
	return &statuslist.Rules{Keys: statuslist.StaticKeys{statusKey.Public()}, Now: func() time.Time { return exampleNow }}
}

func deflate(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// A madeList is a token whose parts can be changed before it is signed.
type madeList struct {
	header, claims, list map[any]any
	key                  crypto.Signer
	after                func([]byte) []byte
	uri                  string
	index                int64
}

func newMadeList() *madeList {
	now := exampleNow.Unix()
	return &madeList{
		header: map[any]any{}, claims: map[any]any{"sub": exampleURI, "iat": now, "exp": now + 100, "ttl": 10},
		list: map[any]any{"bits": 1, "lst": deflate([]byte{0xb9, 0xa3})}, key: statusKey, uri: exampleURI,
	}
}

var cwtNames = map[any]any{"sub": 2, "iat": 6, "exp": 4, "nbf": 5, "ttl": 65534, "status_list": 65533}

func (m *madeList) cwt(t testing.TB) []byte {
	claims := map[any]any{}
	m.claimsWithList(func(k, v any) {
		if n, ok := cwtNames[k]; ok {
			k = n
		}
		claims[k] = v
	})
	header := map[any]any{16: statuslist.MediaTypeCWT, 4: []byte("12")}
	change(header, m.header)
	protected, err := dcbor.FromNative(header)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := dcbor.FromNative(claims)
	if err != nil {
		t.Fatal(err)
	}
	out, err := cose.Sign(context.Background(), m.key, protected, dcbor.NewMap(), dcbor.Encode(payload))
	if err != nil {
		t.Fatal(err)
	}
	return m.finish(out)
}

// change sets or, with the value "none", takes away members.
func change(m, changes map[any]any) {
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_, v any) bool { return v == "none" })
}

func (m *madeList) claimsWithList(add func(k, v any)) {
	for k, v := range m.claims {
		add(k, v)
	}
	if _, there := m.claims["status_list"]; !there && m.list != nil {
		add("status_list", m.list)
	}
}

func (m *madeList) jwt(t testing.TB) []byte {
	text := func(m map[any]any) []byte {
		o := map[string]any{}
		for k, v := range m {
			if inner, ok := v.(map[any]any); ok {
				list := map[string]any{}
				for k, v := range inner {
					list[fmt.Sprint(k)] = v
					if b, ok := v.([]byte); ok {
						list[fmt.Sprint(k)] = jose.EncodeBase64(b)
					}
				}
				v = list
			}
			o[fmt.Sprint(k)] = v
		}
		b, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	claims := map[any]any{}
	m.claimsWithList(func(k, v any) { claims[k] = v })
	scheme, err := credentials.SchemeOf(m.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	header := map[any]any{"alg": scheme.JOSE, "kid": "12", "typ": "statuslist+jwt"}
	change(header, m.header)
	s, err := jose.Sign(context.Background(), scheme, m.key, text(header), text(claims))
	if err != nil {
		t.Fatal(err)
	}
	return m.finish([]byte(s))
}

func (m *madeList) finish(b []byte) []byte {
	if m.after != nil {
		return m.after(b)
	}
	return b
}

// Cases that break both formats.
var malformedLists = []struct {
	name   string
	want   credentials.Code
	change func(m *madeList)
}{
	{"empty", "status-unavailable", func(m *madeList) { m.after = func([]byte) []byte { return nil } }},
	{"cut in half", "status-unavailable", func(m *madeList) { m.after = func(b []byte) []byte { return b[:len(b)/2] } }},
	{"cut by one", "", func(m *madeList) { m.after = func(b []byte) []byte { return b[:len(b)-1] } }},
	{"trailing", "status-unavailable", func(m *madeList) { m.after = func(b []byte) []byte { return append(b, '.', 'x') } }},
	{"too large", "status-unavailable", func(m *madeList) { m.after = func([]byte) []byte { return make([]byte, 6<<20+1) } }},
	{"signed by another", "status-invalid", func(m *madeList) { m.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	{"signed on another curve", "status-invalid", func(m *madeList) { m.key, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
	{"sub missing", "status-unavailable", func(m *madeList) { delete(m.claims, "sub") }},
	{"sub number", "status-unavailable", func(m *madeList) { m.claims["sub"] = 5 }},
	{"sub of another list", "status-invalid", func(m *madeList) { m.claims["sub"] = exampleURI + "0" }},
	{"sub with a slash", "status-invalid", func(m *madeList) { m.claims["sub"] = exampleURI + "/" }},
	{"sub in capitals", "status-invalid", func(m *madeList) { m.claims["sub"] = strings.ToUpper(exampleURI) }},
	{"asked under another URI", "status-invalid", func(m *madeList) { m.uri = exampleURI + "?x" }},
	{"iat missing", "status-unavailable", func(m *madeList) { delete(m.claims, "iat") }},
	{"iat text", "status-unavailable", func(m *madeList) { m.claims["iat"] = "now" }},
	{"iat null", "status-unavailable", func(m *madeList) { m.claims["iat"] = nil }},
	{"iat huge", "status-unavailable", func(m *madeList) { m.claims["iat"] = float64(1 << 60) }},
	{"iat in the future", "status-unavailable", func(m *madeList) { m.claims["iat"] = exampleNow.Unix() + 1 }},
	{"not valid yet", "status-unavailable", func(m *madeList) { m.claims["nbf"] = exampleNow.Unix() + 1 }},
	{"nbf text", "status-unavailable", func(m *madeList) { m.claims["nbf"] = "later" }},
	{"exp text", "status-unavailable", func(m *madeList) { m.claims["exp"] = "later" }},
	{"exp true", "status-unavailable", func(m *madeList) { m.claims["exp"] = true }},
	{"expired", "status-unavailable", func(m *madeList) { m.claims["exp"] = exampleNow.Unix() - 1 }},
	{"expired in the year 1, when Go's time begins", "status-unavailable", func(m *madeList) { m.claims["exp"] = int64(-62135596800) }},
	{"expires now", "status-unavailable", func(m *madeList) { m.claims["exp"] = exampleNow.Unix() }},
	{"ttl zero", "status-unavailable", func(m *madeList) { m.claims["ttl"] = 0 }},
	{"ttl negative", "status-unavailable", func(m *madeList) { m.claims["ttl"] = -5 }},
	{"ttl text", "status-unavailable", func(m *madeList) { m.claims["ttl"] = "5" }},
	{"no list", "status-unavailable", func(m *madeList) { m.list = nil }},
	{"list text", "status-unavailable", func(m *madeList) { m.claims["status_list"] = "x" }},
	{"list array", "status-unavailable", func(m *madeList) { m.claims["status_list"] = []any{} }},
	{"bits missing", "status-unavailable", func(m *madeList) { delete(m.list, "bits") }},
	{"bits 0", "status-unavailable", func(m *madeList) { m.list["bits"] = 0 }},
	{"bits 3", "status-unavailable", func(m *madeList) { m.list["bits"] = 3 }},
	{"bits 16", "status-unavailable", func(m *madeList) { m.list["bits"] = 16 }},
	{"bits -1", "status-unavailable", func(m *madeList) { m.list["bits"] = -1 }},
	{"bits text", "status-unavailable", func(m *madeList) { m.list["bits"] = "1" }},
	{"bits half", "status-unavailable", func(m *madeList) { m.list["bits"] = 1.5 }},
	{"lst missing", "status-unavailable", func(m *madeList) { delete(m.list, "lst") }},
	{"lst number", "status-unavailable", func(m *madeList) { m.list["lst"] = 5 }},
	{"lst empty", "status-unavailable", func(m *madeList) { m.list["lst"] = []byte{} }},
	{"lst not compressed", "status-unavailable", func(m *madeList) { m.list["lst"] = []byte{0xb9, 0xa3} }},
	{"lst raw DEFLATE", "status-unavailable", func(m *madeList) { m.list["lst"] = deflate([]byte{0xb9, 0xa3})[2:] }},
	{"lst gzip", "status-unavailable", func(m *madeList) { m.list["lst"] = []byte{0x1f, 0x8b, 8, 0} }},
	{"lst cut", "status-unavailable", func(m *madeList) { b := deflate([]byte{1, 2, 3}); m.list["lst"] = b[:len(b)-1] }},
	{"lst checksum", "status-unavailable", func(m *madeList) { b := deflate([]byte{1, 2, 3}); b[len(b)-1] ^= 1; m.list["lst"] = b }},
	{"lst trailing", "status-unavailable", func(m *madeList) { m.list["lst"] = append(deflate([]byte{1, 2, 3}), 0) }},
	{"lst two streams", "status-unavailable", func(m *madeList) { m.list["lst"] = append(deflate([]byte{1}), deflate([]byte{2})...) }},
	{"lst with dictionary", "status-unavailable", func(m *madeList) { m.list["lst"] = []byte{0x78, 0xbb, 0, 0, 0, 1, 1, 0, 0} }},
	{"lst inflates to 16 MiB and one", "status-unavailable", func(m *madeList) { m.list["lst"] = deflate(make([]byte, 16<<20+1)) }},
	{"aggregation_uri number", "status-unavailable", func(m *madeList) { m.list["aggregation_uri"] = 5 }},
	{"typ missing", "status-unavailable", func(m *madeList) { m.header["typ"], m.header[16] = "none", "none" }},
	{"typ JWT", "status-unavailable", func(m *madeList) { m.header["typ"], m.header[16] = "JWT", "application/cwt" }},
	{"typ of the other format", "status-unavailable", func(m *madeList) { m.header["typ"], m.header[16] = "statuslist+cwt", statuslist.MediaTypeJWT }},
	{"crit", "status-unavailable", func(m *madeList) { m.header["crit"], m.header[2] = []string{"x"}, []any{99} }},
	{"index out of range", "status-invalid", func(m *madeList) { m.index = 16 }},
	{"index negative", "status-invalid", func(m *madeList) { m.index = -1 }},
	{"index beyond 32 bits", "status-invalid", func(m *madeList) { m.index = 1 << 40 }},
	{"revoked", "revoked", func(m *madeList) { m.index = 0 }},
	{"suspended", "suspended", func(m *madeList) { m.list["bits"], m.list["lst"], m.index = 2, deflate([]byte{0xc9}), 1 }},
	{"unknown value", "status-unknown-value", func(m *madeList) { m.list["bits"], m.list["lst"], m.index = 4, deflate([]byte{0xf0}), 1 }},
}

func TestMalformedTokens(t *testing.T) {
	if len(malformedLists)*2 < 100 {
		t.Fatalf("only %d cases", len(malformedLists)*2)
	}
	for _, format := range []statuslist.Format{statuslist.JWT, statuslist.CWT} {
		judge := func(m *madeList) error {
			var token []byte
			if format == statuslist.JWT {
				// [2] and [16] are labels of COSE
				maps.DeleteFunc(m.header, func(k, _ any) bool { _, ok := k.(int); return ok })
				token = m.jwt(t)
			} else {
				maps.DeleteFunc(m.header, func(k, _ any) bool { _, ok := k.(string); return ok })
				token = m.cwt(t)
			}
			_, list, err := ourRules().Verify(context.Background(), format, token, m.uri)
			if err != nil {
				return err
			}
			return list.Judge(m.index)
		}
		good := newMadeList()
		good.index = 1
		if err := judge(good); err != nil {
			t.Fatalf("the unchanged token: %v", err)
		}
		for _, c := range malformedLists {
			t.Run(format.MediaType()+"/"+c.name, func(t *testing.T) {
				m := newMadeList()
				c.change(m)
				got := credentials.CodeOf(judge(m))
				if got != c.want && (c.want != "" || got == "") {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		}
	}
}

// TestLongTTL has a ttl of a century, which is a positive number as any, stand for
// the longest that is kept.
func TestLongTTL(t *testing.T) {
	for _, format := range []statuslist.Format{statuslist.JWT, statuslist.CWT} {
		m := newMadeList()
		m.claims["ttl"] = int64(3200000000)
		token := m.jwt
		if format == statuslist.CWT {
			token = m.cwt
		}
		maps.DeleteFunc(m.header, func(k, _ any) bool { _, text := k.(string); return text == (format == statuslist.CWT) })
		got, _, err := ourRules().Verify(context.Background(), format, token(t), m.uri)
		if err != nil || got.TTL != 10*366*24*time.Hour {
			t.Errorf("%s: %v, %v", format.MediaType(), got, err)
		}
	}
}

func TestMalformedReferences(t *testing.T) {
	for _, text := range []string{``, `{}`, `[]`, `{"status_list":1}`, `{"status_list":{}}`, `{"status_list":{"idx":0}}`, `{"status_list":{"uri":"https://x.example/1"}}`,
		`{"status_list":{"idx":-1,"uri":"https://x.example/1"}}`, `{"status_list":{"idx":1.5,"uri":"https://x.example/1"}}`, `{"status_list":{"idx":"0","uri":"https://x.example/1"}}`,
		`{"status_list":{"idx":9007199254740992,"uri":"https://x.example/1"}}`, `{"status_list":{"idx":0,"uri":"http://x.example/1"}}`, `{"status_list":{"idx":0,"uri":"/1"}}`,
		`{"status_list":{"idx":0,"uri":"https:///1"}}`, `{"status_list":{"idx":0,"uri":"https://u@x.example/1"}}`, `{"status_list":{"idx":0,"uri":"https://x.example/1#f"}}`,
		`{"status_list":{"idx":0,"uri":5}}`, `{"status_list":{"idx":0,"idx":1,"uri":"https://x.example/1"}}`, `{"status_list":{"idx":0,"uri":"https://x.example/` + strings.Repeat("a", 3000) + `"}}`} {
		if ref, err := statuslist.ParseReferenceJSON([]byte(text)); credentials.CodeOf(err) != credentials.CodeStatusInvalid {
			t.Errorf("%.60s: %v, %v", text, ref, err)
		}
	}
	for _, x := range []any{1, map[any]any{}, map[any]any{"status_list": map[any]any{"idx": -1, "uri": exampleURI}}, map[any]any{"status_list": map[any]any{"idx": uint64(1) << 60, "uri": exampleURI}},
		map[any]any{"status_list": map[any]any{"idx": "0", "uri": exampleURI}}, map[any]any{"status_list": map[any]any{"idx": 0, "uri": []byte(exampleURI)}}, map[any]any{"status_list": map[any]any{"idx": 0, "uri": "http://x.example"}}} {
		v, err := dcbor.FromNative(x)
		if err != nil {
			t.Fatal(err)
		}
		if ref, err := statuslist.ParseReferenceCBOR(dcbor.Encode(v)); credentials.CodeOf(err) != credentials.CodeStatusInvalid {
			t.Errorf("%v: %v, %v", x, ref, err)
		}
	}
}

// A list that inflates to 256 MiB, or to any number, costs no more than its limit.
func TestInflationIsBounded(t *testing.T) {
	var out bytes.Buffer
	w, err := zlib.NewWriterLevel(&out, zlib.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 256 {
		w.Write(zeros)
	}
	w.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	list, err := statuslist.Inflate(1, out.Bytes())
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Fatalf("inflated to %d entries", list.Len())
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 128<<20 {
		t.Errorf("%d octets allocated for a bomb of %d", n, out.Len())
	}
}

func FuzzVerifyJWT(f *testing.F) {
	f.Add(exampleJWT)
	f.Add(string(newMadeList().jwt(f)))
	rules := exampleRules(f)
	f.Fuzz(func(t *testing.T, token string) { fuzzVerify(t, rules, statuslist.JWT, []byte(token)) })
}

func FuzzVerifyCWT(f *testing.F) {
	f.Add(unhex(exampleCWT))
	f.Add(newMadeList().cwt(f))
	rules := exampleRules(f)
	f.Fuzz(func(t *testing.T, token []byte) { fuzzVerify(t, rules, statuslist.CWT, token) })
}

func fuzzVerify(t *testing.T, rules *statuslist.Rules, f statuslist.Format, token []byte) {
	_, list, err := rules.Verify(context.Background(), f, token, exampleURI)
	if err != nil {
		if credentials.CodeOf(err) == "" {
			t.Fatalf("%T: %v", err, err)
		}
		return
	}
	if !bytes.Equal(list.Octets(), []byte{0xb9, 0xa3}) {
		t.Fatalf("accepted %x", list.Octets())
	}
}

func FuzzInflate(f *testing.F) {
	f.Add(1, unhex("78dadbb918000217015d"))
	f.Add(2, unhex("78da3be9f2130003df0207"))
	f.Fuzz(func(t *testing.T, bits int, lst []byte) {
		list, err := statuslist.Inflate(bits, lst)
		if err != nil || list.Len() == 0 {
			return
		}
		again, err := list.Compress()
		if err != nil {
			t.Fatal(err)
		}
		same, err := statuslist.Inflate(bits, again)
		if err != nil || !bytes.Equal(same.Octets(), list.Octets()) {
			t.Fatalf("%x became %x: %v", list.Octets(), again, err)
		}
	})
}

func FuzzParseReference(f *testing.F) {
	f.Add([]byte(`{"status_list":{"idx":0,"uri":"https://x.example/1"}}`))
	f.Add(statuslist.Reference{URI: exampleURI, Index: 7}.CBOR())
	f.Fuzz(func(t *testing.T, data []byte) {
		if ref, err := statuslist.ParseReferenceJSON(data); err == nil {
			if again, err := statuslist.ParseReferenceJSON(ref.JSON()); err != nil || again != ref {
				t.Fatalf("%v became %v, %v", ref, again, err)
			}
		}
		if ref, err := statuslist.ParseReferenceCBOR(data); err == nil {
			if again, err := statuslist.ParseReferenceCBOR(ref.CBOR()); err != nil || again != ref {
				t.Fatalf("%v became %v, %v", ref, again, err)
			}
		}
	})
}
