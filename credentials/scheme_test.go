package credentials_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var message = []byte("a message that is signed by each of the schemes")

// newKey generates a key of the scheme.
func newKey(t testing.TB, s *credentials.Scheme) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	if s.Curve() == nil {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	} else {
		key, err = ecdsa.GenerateKey(s.Curve(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, s *credentials.Scheme, key crypto.Signer, msg []byte) []byte {
	t.Helper()
	sig, err := s.Sign(rand.Reader, key, msg)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// eachScheme runs f for every scheme with a fresh key.
func eachScheme(t *testing.T, f func(t *testing.T, s *credentials.Scheme, key crypto.Signer)) {
	for _, s := range credentials.Schemes() {
		t.Run(s.Name, func(t *testing.T) { f(t, s, newKey(t, s)) })
	}
}

func eachCurve(t *testing.T, f func(t *testing.T, s *credentials.Scheme, key *ecdsa.PrivateKey)) {
	eachScheme(t, func(t *testing.T, s *credentials.Scheme, key crypto.Signer) {
		if key, ok := key.(*ecdsa.PrivateKey); ok {
			f(t, s, key)
		}
	})
}

func TestSchemeSignsAndVerifies(t *testing.T) {
	eachScheme(t, func(t *testing.T, s *credentials.Scheme, key crypto.Signer) {
		rounds := 600 // meets an r and an s with a leading zero octet
		if s.Curve() == elliptic.P521() {
			rounds = 40 // where every second one lacks a bit
		}
		for i := range rounds {
			msg := fmt.Appendf(nil, "message %d", i)
			sig := sign(t, s, key, msg)
			if !s.Verify(key.Public(), msg, sig) {
				t.Fatalf("own signature refused: %x", sig)
			}
			raw, err := s.RawSignature(sig)
			if err != nil {
				t.Fatal(err)
			}
			if len(raw) != 2*s.CoordinateSize() {
				t.Fatalf("raw signature of %d octets", len(raw))
			}
			if !s.VerifyRaw(key.Public(), msg, raw) {
				t.Fatalf("own signature refused in raw form: %x", raw)
			}
			if s.Curve() != nil && !bytes.Equal(derFromRaw(t, raw), sig) {
				t.Fatalf("raw form %x does not encode back to %x", raw, sig)
			}
		}
		raw, err := s.SignRaw(rand.Reader, key, message)
		if err != nil || !s.VerifyRaw(key.Public(), message, raw) {
			t.Fatalf("SignRaw: %x, %v", raw, err)
		}
	})
}

// signMessageOnly is a key in a device that hashes for itself.
type signMessageOnly struct{ ed25519.PrivateKey }

func (signMessageOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("this key takes messages")
}

func (k signMessageOnly) SignMessage(_ io.Reader, msg []byte, _ crypto.SignerOpts) ([]byte, error) {
	return ed25519.Sign(k.PrivateKey, msg), nil
}

func TestSchemePrefersMessageSigner(t *testing.T) {
	key := signMessageOnly{newKey(t, credentials.Ed25519).(ed25519.PrivateKey)}
	sig := sign(t, credentials.Ed25519, key, message)
	if !credentials.Ed25519.Verify(key.Public(), message, sig) {
		t.Fatal("signature refused")
	}
}

func TestSchemeRefusesKeysOfOthers(t *testing.T) {
	eachScheme(t, func(t *testing.T, s *credentials.Scheme, key crypto.Signer) {
		sig := sign(t, s, key, message)
		for _, other := range credentials.Schemes() {
			stranger := newKey(t, other)
			if s.Verify(stranger.Public(), message, sig) {
				t.Errorf("%s key verified a signature of another key", other)
			}
			if other == s {
				continue
			}
			if _, err := s.Sign(rand.Reader, stranger, message); err == nil {
				t.Errorf("signed with a key for %s", other)
			}
			if other.Verify(key.Public(), message, sig) {
				t.Errorf("%s verified with this key", other)
			}
			if raw, err := s.RawSignature(sig); err != nil || other.VerifyRaw(key.Public(), message, raw) {
				t.Errorf("%s verified the raw form with this key (%v)", other, err)
			}
		}
		for _, pub := range []crypto.PublicKey{nil, "key", ed25519.PublicKey(nil), ed25519.PublicKey(make([]byte, 31)), ecdsa.PublicKey{}} {
			if s.Verify(pub, message, sig) || s.VerifyRaw(pub, message, sig) {
				t.Errorf("verified with the key %T of no use", pub)
			}
			if _, err := credentials.SchemeOf(pub); err == nil {
				t.Errorf("a scheme for %T", pub)
			}
		}
	})
}

func TestSchemeNames(t *testing.T) {
	eachScheme(t, func(t *testing.T, s *credentials.Scheme, key crypto.Signer) {
		if got, err := credentials.SchemeOf(key.Public()); got != s || err != nil {
			t.Errorf("SchemeOf = %v, %v", got, err)
		}
		if credentials.SchemeByMLS(s.MLS) != s {
			t.Errorf("number 0x%04x leads elsewhere", s.MLS)
		}
		for _, other := range credentials.Schemes() {
			if (other == s) != s.AcceptsJOSE(other.JOSE) || (other == s) != s.AcceptsCOSE(other.COSE) || (other == s) != s.AcceptsCOSE(other.COSEAlso) {
				t.Errorf("%s and %s share an algorithm name", s, other)
			}
		}
	})
	if credentials.SchemeByMLS(0) != nil || credentials.Ed25519.AcceptsJOSE("") || credentials.ECDSAP256.AcceptsJOSE("") {
		t.Error("the empty name is a scheme")
	}
}

func TestPublicKeyForms(t *testing.T) {
	eachScheme(t, func(t *testing.T, s *credentials.Scheme, key crypto.Signer) {
		point, err := credentials.MLSPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		back, err := s.ParseMLSPublicKey(point)
		if err != nil || !credentials.SamePublicKey(key.Public(), back) {
			t.Fatalf("ParseMLSPublicKey: %v, %v", back, err)
		}
		for n := range point {
			if _, err := s.ParseMLSPublicKey(point[:n]); err == nil {
				t.Errorf("the first %d of %d octets parse", n, len(point))
			}
		}
		if _, err := s.ParseMLSPublicKey(append(bytes.Clone(point), 0)); err == nil {
			t.Error("a trailing octet is let pass")
		}
		if s.Curve() == nil {
			testEd25519Coordinates(t, s, point)
			return
		}
		testCoordinates(t, s, key.Public(), point[1:])
	})
}

func testEd25519Coordinates(t *testing.T, s *credentials.Scheme, x []byte) {
	if _, err := s.PublicFromPoint(x, nil); err != nil {
		t.Error(err)
	}
	if _, err := s.PublicFromPoint(x, []byte{}); err == nil {
		t.Error("an Ed25519 key with a y coordinate")
	}
	if s.ECDHCurve() != nil {
		t.Error("Ed25519 has a curve for key agreement")
	}
}

func testCoordinates(t *testing.T, s *credentials.Scheme, pub crypto.PublicKey, xy []byte) {
	n := s.CoordinateSize()
	back, err := s.PublicFromPoint(xy[:n], xy[n:])
	if err != nil || !credentials.SamePublicKey(pub, back) {
		t.Errorf("PublicFromPoint: %v", err)
	}
	if ec, err := pub.(*ecdsa.PublicKey).ECDH(); err != nil || ec.Curve() != s.ECDHCurve() {
		t.Errorf("ECDHCurve is %v (%v)", s.ECDHCurve(), err)
	}
	offCurve := bytes.Clone(xy)
	offCurve[2*n-1] ^= 1
	compressed := append([]byte{2 + xy[2*n-1]&1}, xy[:n]...)
	hybrid := append([]byte{6 + xy[2*n-1]&1}, xy...)
	for name, b := range map[string][]byte{
		"off the curve": append([]byte{4}, offCurve...), "compressed": compressed, "hybrid": hybrid,
		"infinity": {0}, "zeros": append([]byte{4}, make([]byte, 2*n)...),
	} {
		if _, err := s.ParseMLSPublicKey(b); err == nil {
			t.Errorf("a point %s parses", name)
		}
	}
	for name, c := range map[string][2][]byte{
		"short x": {xy[1:n], xy[n:]}, "short y": {xy[:n], xy[n+1:]}, "no y": {xy[:n], nil},
		"long x": {append([]byte{0}, xy[:n]...), xy[n:]}, "off the curve": {offCurve[:n], offCurve[n:]},
		"shifted": {xy[:n-1], xy[n-1:]},
	} {
		if _, err := s.PublicFromPoint(c[0], c[1]); err == nil {
			t.Errorf("coordinates with %s are taken", name)
		}
	}
}

// Printed examples: RFC 6979 appendix A.2.5 to A.2.7 ("sample" under the hash
// of the scheme) and RFC 8032 section 7.1 TEST 1.
var printed = []struct {
	scheme       *credentials.Scheme
	private, sig string // sig is r and s side by side
	message      string
}{
	{credentials.ECDSAP256, "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
		"EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716" +
			"F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8", "sample"},
	{credentials.ECDSAP384, "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5",
		"94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46" +
			"99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8", "sample"},
	{credentials.ECDSAP521, "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75CAA896EB32F1F47C70855836A6D16FCC1466F6D8FBEC67DB89EC0C08B0E996B83538",
		"00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F174E25A1EE9017B5D450606ADD152B534931D7D4E8455CC91F9B15BF05EC36E377FA" +
			"00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF282623EAA63E5B5C0723D8B8C37FF0777B1A20F8CCB1DCCC43997F1EE0E44DA4A67A", "sample"},
	{credentials.Ed25519, "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
		"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b", ""},
}

func TestPrintedSignatures(t *testing.T) {
	for _, v := range printed {
		t.Run(v.scheme.Name, func(t *testing.T) {
			pub := publicOf(t, v.scheme, unhex(t, v.private))
			raw := unhex(t, v.sig)
			if !v.scheme.VerifyRaw(pub, []byte(v.message), raw) {
				t.Error("the printed signature is refused")
			}
			if v.scheme.VerifyRaw(pub, []byte(v.message+"."), raw) {
				t.Error("the printed signature verifies another message")
			}
		})
	}
}

func publicOf(t testing.TB, s *credentials.Scheme, private []byte) crypto.PublicKey {
	t.Helper()
	if s.Curve() == nil {
		return ed25519.NewKeyFromSeed(private).Public()
	}
	key, err := ecdsa.ParseRawPrivateKey(s.Curve(), private)
	if err != nil {
		t.Fatal(err)
	}
	return key.Public()
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// derFromRaw encodes r and s side by side as DER.
func derFromRaw(t testing.TB, raw []byte) []byte {
	t.Helper()
	half := len(raw) / 2
	return der(t, new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:]))
}

func der(t testing.TB, r, s *big.Int) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1BigInt(r); b.AddASN1BigInt(s) })
	return b.BytesOrPanic()
}

func FuzzRawSignature(f *testing.F) {
	for _, v := range printed {
		if raw := unhex(f, v.sig); v.scheme.Curve() != nil {
			f.Add(derFromRaw(f, raw))
		} else {
			f.Add(raw)
		}
	}
	f.Add([]byte{0x30, 0x80, 0x02, 0x01, 0x01, 0x02, 0x01, 0x01, 0, 0})
	keys := map[*credentials.Scheme]crypto.PublicKey{}
	for _, v := range printed {
		keys[v.scheme] = publicOf(f, v.scheme, unhex(f, v.private))
	}
	f.Fuzz(func(t *testing.T, sig []byte) {
		for s, pub := range keys {
			raw, err := s.RawSignature(sig)
			ok := s.Verify(pub, []byte("sample"), sig)
			if err != nil && ok {
				t.Fatalf("%s: %x verifies and has no raw form: %v", s, sig, err)
			}
			if err != nil {
				continue
			}
			if ok != s.VerifyRaw(pub, []byte("sample"), raw) {
				t.Fatalf("%s: the two forms of %x are judged differently", s, sig)
			}
			if s.Curve() != nil && !bytes.Equal(derFromRaw(t, raw), sig) {
				t.Fatalf("%s: %x is not the DER form of its own values", s, sig)
			}
		}
	})
}
