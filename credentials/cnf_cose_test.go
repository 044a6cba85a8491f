package credentials_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

func hexOctets(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func coseTestKeys(t testing.TB) map[*credentials.Scheme]crypto.PublicKey {
	t.Helper()
	ed, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[*credentials.Scheme]crypto.PublicKey{credentials.Ed25519: ed}
	for s, curve := range map[*credentials.Scheme]elliptic.Curve{credentials.ECDSAP256: elliptic.P256(), credentials.ECDSAP384: elliptic.P384(), credentials.ECDSAP521: elliptic.P521()} {
		k, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		out[s] = k.Public()
	}
	return out
}

// RFC 9679 section 6 and draft-ietf-spice-sd-cwt-08 appendix C; the Ed25519 key
// is that of 32 octets 02, with a thumbprint that we made.
func TestCOSEKeyThumbprint(t *testing.T) {
	for _, c := range []struct {
		scheme     *credentials.Scheme
		x, y, want string
	}{
		{credentials.ECDSAP256, "65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d", "1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c", "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"},
		{credentials.ECDSAP256, "8554eb275dcd6fbd1c7ac641aa2c90d92022fd0d3024b5af18c7cc61ad527a2d", "4dc7ae2c677e96d0cc82597655ce92d5503f54293d87875d1e79ce4770194343", "8343d73cdfcb81f2c7cd11a5f317be8eb34e4807ec8c9ceb282495cffdf037e0"},
		{credentials.ECDSAP384, "c31798b0c7885fa3528fbf877e5b4c3a6dc67a5a5dc6b307b728c3725926f2abe5fb4964cd91e3948a5493f6ebb6cbbf", "8f6c7ec761691cad374c4daa9387453f18058ece58eb0a8e84a055a31fb7f9214b27509522c159e764f8711e11609554", "554550a611c9807b3462cfec4a690a1119bc43b571da1219782133f5fd6dbcb0"},
		{credentials.Ed25519, "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394", "", "01565176601c895cad856c02c18a1c14eb9f49b26e2fdcae7040c2530350982b"},
	} {
		var y []byte
		if c.y != "" {
			y = hexOctets(c.y)
		}
		pub, err := c.scheme.PublicFromPoint(hexOctets(c.x), y)
		if err != nil {
			t.Fatal(err)
		}
		got, err := credentials.COSEKeyThumbprint(pub)
		if err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x, %v; want %s", c.scheme, got, err, c.want)
		}
	}
}

func TestMatchCWTCnf(t *testing.T) {
	all := coseTestKeys(t)
	for s, pub := range all {
		mls, err := credentials.MLSPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := credentials.CWTConfirmation(pub)
		if err != nil {
			t.Fatal(err)
		}
		hash, err := credentials.CWTThumbprintConfirmation(pub)
		if err != nil {
			t.Fatal(err)
		}
		for _, cnf := range [][]byte{whole, hash} {
			if err := credentials.MatchCWTCnf(cnf, mls, s); err != nil {
				t.Errorf("%s: %v", s, err)
			}
			for other, pub := range coseTestKeys(t) {
				mls, _ := credentials.MLSPublicKey(pub)
				want := credentials.CodeCnfLeafMismatch
				if other != s && &cnf[0] == &whole[0] {
					want = credentials.CodeCnfCurve
				}
				if code := credentials.CodeOf(credentials.MatchCWTCnf(cnf, mls, other)); code != want {
					t.Errorf("%s under a leaf of %s: %q, want %q", s, other, code, want)
				}
			}
		}
	}
}

func TestCompressedPoint(t *testing.T) {
	for s, pub := range coseTestKeys(t) {
		if s == credentials.Ed25519 {
			continue
		}
		key, err := credentials.FormatCOSEKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		v, err := dcbor.Decode(key)
		if err != nil {
			t.Fatal(err)
		}
		y, _ := v.GetInt(-3).Bytes()
		for _, odd := range []bool{true, false} {
			compressed := dcbor.NewMap(dcbor.NewInt(1), v.GetInt(1), dcbor.NewInt(-1), v.GetInt(-1), dcbor.NewInt(-2), v.GetInt(-2), dcbor.NewInt(-3), dcbor.NewBool(odd))
			got, err := credentials.ParseCOSEKey(dcbor.Encode(compressed))
			if err != nil {
				t.Fatal(err)
			}
			if same := credentials.SamePublicKey(got.Public, pub); same != (odd == (y[len(y)-1]&1 == 1)) {
				t.Errorf("%s with sign %v: same key %v", s, odd, same)
			}
		}
	}
}

func TestCWTCnfRefuses(t *testing.T) {
	pub := coseTestKeys(t)[credentials.ECDSAP256]
	key, err := credentials.FormatCOSEKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	good, err := dcbor.Decode(key)
	if err != nil {
		t.Fatal(err)
	}
	n, b := dcbor.NewInt, dcbor.NewBytes
	// with returns the key with a member changed, added, or taken away.
	with := func(label int64, value dcbor.Value) dcbor.Value {
		var pairs []dcbor.Value
		for k, v := range good.Pairs() {
			if !k.IsInt(label) {
				pairs = append(pairs, k, v)
			}
		}
		if value.Exists() {
			pairs = append(pairs, n(label), value)
		}
		return dcbor.NewMap(n(1), dcbor.NewMap(pairs...))
	}
	x, _ := good.GetInt(-2).Bytes()
	for _, c := range []struct {
		name string
		cnf  dcbor.Value
		code credentials.Code
	}{
		{"empty", dcbor.NewMap(), credentials.CodeCnfUnsupported},
		{"no map", dcbor.NewArray(), credentials.CodeCnfUnsupported},
		{"key and ckt", dcbor.NewMap(n(1), good, n(5), b(make([]byte, 32))), credentials.CodeCnfUnsupported},
		{"kid", dcbor.NewMap(n(3), b([]byte("k"))), credentials.CodeCnfUnsupported},
		{"encrypted key", dcbor.NewMap(n(2), dcbor.NewArray()), credentials.CodeCnfUnsupported},
		{"jkt", dcbor.NewMap(dcbor.NewText("jkt"), dcbor.NewText("x")), credentials.CodeCnfUnsupported},
		{"short ckt", dcbor.NewMap(n(5), b(make([]byte, 31))), credentials.CodeCnfUnsupported},
		{"ckt as text", dcbor.NewMap(n(5), dcbor.NewText("x")), credentials.CodeCnfUnsupported},
		{"key no map", dcbor.NewMap(n(1), b(key)), credentials.CodeCnfUnsupported},
		{"private", with(-4, b(make([]byte, 32))), credentials.CodeCnfPrivateKey},
		{"kty OKP", with(1, n(1)), credentials.CodeCnfCurve},
		{"no kty", with(1, dcbor.Value{}), credentials.CodeCnfCurve},
		{"P-384", with(-1, n(2)), credentials.CodeCnfCurve},
		{"unknown curve", with(-1, n(8)), credentials.CodeCnfCurve},
		{"no x", with(-2, dcbor.Value{}), credentials.CodeCnfCurve},
		{"x shortened", with(-2, b(x[1:])), credentials.CodeCnfCurve},
		{"x padded", with(-2, b(append([]byte{0}, x...))), credentials.CodeCnfCurve},
		{"not on the curve", with(-3, b(x)), credentials.CodeCnfCurve},
		{"no y", with(-3, dcbor.Value{}), credentials.CodeCnfCurve},
		{"alg of another curve", with(3, n(-35)), credentials.CodeCnfCurve},
		{"alg as text", with(3, dcbor.NewText("ES256")), credentials.CodeCnfCurve},
		{"key_ops sign", with(4, dcbor.NewArray(n(1))), credentials.CodeCnfUnsupported},
		{"key_ops empty", with(4, dcbor.NewArray()), credentials.CodeCnfUnsupported},
		{"kid as text", with(2, dcbor.NewText("k")), credentials.CodeCnfUnsupported},
	} {
		if _, err := credentials.ParseCWTCnf(dcbor.Encode(c.cnf)); credentials.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %q", c.name, err, c.code)
		}
	}
	if _, err := credentials.ParseCWTCnf([]byte{0xa1}); credentials.CodeOf(err) != credentials.CodeMalformed {
		t.Errorf("cut: %v", err)
	}
	for _, ok := range []dcbor.Value{with(3, n(-7)), with(3, n(-9)), with(4, dcbor.NewArray(n(2))), with(2, b([]byte("k")))} {
		if c, err := credentials.ParseCWTCnf(dcbor.Encode(ok)); err != nil || !credentials.SamePublicKey(c.Key.Public, pub) {
			t.Errorf("%v: %v", ok, err)
		}
	}
}

// TestLeadingZeroOfCoordinate takes the zero octet away with which a coordinate
// begins: the number is the same, and the length is wrong (RFC 9053 section 7.1.1,
// RFC 7518 section 6.2.1.2).
func TestLeadingZeroOfCoordinate(t *testing.T) {
	for tries := 0; tries < 20_000; tries++ {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		x, y := point[1:33], point[33:]
		if x[0] != 0 {
			continue
		}
		for short, want := range map[bool]credentials.Code{false: "", true: credentials.CodeCnfCurve} {
			x := x
			if short {
				x = x[1:]
			}
			n, b := dcbor.NewInt, dcbor.NewBytes
			cwt := dcbor.Encode(dcbor.NewMap(n(1), dcbor.NewMap(n(1), n(2), n(-1), n(1), n(-2), b(x), n(-3), b(y))))
			if _, err := credentials.ParseCWTCnf(cwt); credentials.CodeOf(err) != want {
				t.Errorf("COSE, short %v: %v, want %q", short, err, want)
			}
			sign := dcbor.NewSimple(20 + y[31]&1) // of a compressed point: false or true
			cwt = dcbor.Encode(dcbor.NewMap(n(1), dcbor.NewMap(n(1), n(2), n(-1), n(1), n(-2), b(x), n(-3), sign)))
			if _, err := credentials.ParseCWTCnf(cwt); credentials.CodeOf(err) != want {
				t.Errorf("COSE, compressed, short %v: %v, want %q", short, err, want)
			}
			encode := base64.RawURLEncoding.EncodeToString
			jwt := fmt.Appendf(nil, `{"jwk":{"kty":"EC","crv":"P-256","x":%q,"y":%q}}`, encode(x), encode(y))
			if _, err := credentials.ParseJWTCnf(jwt); credentials.CodeOf(err) != want {
				t.Errorf("JOSE, short %v: %v, want %q", short, err, want)
			}
		}
		return
	}
	t.Fatal("no coordinate began with a zero")
}

func FuzzParseCWTCnf(f *testing.F) {
	for _, pub := range coseTestKeys(f) {
		whole, _ := credentials.CWTConfirmation(pub)
		hash, _ := credentials.CWTThumbprintConfirmation(pub)
		f.Add(whole)
		f.Add(hash)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := credentials.ParseCWTCnf(data)
		if err != nil {
			if credentials.CodeOf(err) == "" {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		if c.Key == nil {
			return
		}
		again, err := credentials.CWTConfirmation(c.Key.Public)
		if err != nil {
			t.Fatal(err)
		}
		same, err := credentials.ParseCWTCnf(again)
		if err != nil || !credentials.SamePublicKey(same.Key.Public, c.Key.Public) {
			t.Fatalf("%x became %x: %v", data, again, err)
		}
		if once, _ := credentials.CWTConfirmation(same.Key.Public); !bytes.Equal(once, again) {
			t.Fatal("two encodings of one key")
		}
	})
}

// The sender's ephemeral key of the COSE working group's example
// X25519-tests/x25519-hkdf-256-direct, where the octets stand; that of Alice in
// RFC 7748 section 6.1, in the members of RFC 9053 section 7.2; and the P-256 key
// of RFC 9679 section 6, as one that agrees.
func TestFormatCOSEAgreementKey(t *testing.T) {
	ephemeral, err := ecdh.X25519().NewPrivateKey(hexOctets("1a553c409ef9dbb9249d91c464e68d9b092b20caa028ceec05d0f86fc314ca82"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		curve     ecdh.Curve
		pub, want string
	}{
		{ecdh.X25519(), hex.EncodeToString(ephemeral.PublicKey().Bytes()),
			"a3" + "0101" + "2004" + "215820" + "72fc171c21bf5c682c64d2ef3a71ac877b40013d3754f63d4c3c3a965f1ba776"},
		{ecdh.X25519(), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
			"a3" + "0101" + "2004" + "215820" + "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"},
		{ecdh.P256(), "0465eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c",
			"a4" + "0102" + "2001" + "215820" + "65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d" +
				"225820" + "1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c"},
	} {
		pub, err := c.curve.NewPublicKey(hexOctets(c.pub))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := credentials.FormatCOSEAgreementKey(pub); err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%v: %x, %v; want %s", c.curve, got, err, c.want)
		}
	}
	p384, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := credentials.FormatCOSEAgreementKey(p384.PublicKey()); err == nil {
		t.Errorf("a P-384 key: %x", got)
	}
	if got, err := credentials.ParseCOSEKey(hexOctets("a301012004215820" + "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")); err == nil {
		t.Errorf("an X25519 key verifies signatures: %v", got)
	}
}
