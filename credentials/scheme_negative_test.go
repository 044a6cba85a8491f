package credentials_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"math/big"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/credentials"
)

// An alteration is one way to write a signature (r, s) that is not the way.
type alteration struct {
	name  string
	write func(t testing.TB, n, r, s *big.Int) []byte
}

// The alterations of an ECDSA signature in DER (X.690 section 10: definite
// lengths in the fewest octets, integers in the fewest octets). n is the order
// of the curve; every one must be refused by Verify.
var ecdsaAlterations = []alteration{
	{"empty", func(testing.TB, *big.Int, *big.Int, *big.Int) []byte { return nil }},
	{"empty sequence", func(testing.TB, *big.Int, *big.Int, *big.Int) []byte { return []byte{0x30, 0} }},
	{"r is 0", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, new(big.Int), s) }},
	{"s is 0", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, r, new(big.Int)) }},
	{"both are 0", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, new(big.Int), new(big.Int)) }},
	{"both are 1", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, big.NewInt(1), big.NewInt(1)) }},
	{"r is n", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, n, s) }},
	{"s is n", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, r, n) }},
	{"r is raised by n", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, add(r, n), s) }},
	{"s is raised by n", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, r, add(s, n)) }},
	{"r is negative", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, new(big.Int).Neg(r), s) }},
	{"s is negative", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, r, new(big.Int).Neg(s)) }},
	{"s is lowered by n", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, r, new(big.Int).Sub(s, n)) }},
	{"r and s are swapped", func(t testing.TB, n, r, s *big.Int) []byte { return der(t, s, r) }},
	{"r is huge", func(t testing.TB, n, r, s *big.Int) []byte {
		return der(t, new(big.Int).Lsh(big.NewInt(1), 9000), s)
	}},
	{"r has a leading zero", func(t testing.TB, n, r, s *big.Int) []byte {
		return sequence(integer(append([]byte{0}, content(r)...)), integer(content(s)))
	}},
	{"s has a leading zero", func(t testing.TB, n, r, s *big.Int) []byte {
		return sequence(integer(content(r)), integer(append([]byte{0}, content(s)...)))
	}},
	{"s has no sign octet", func(t testing.TB, n, r, s *big.Int) []byte {
		high := new(big.Int).Sub(n, big.NewInt(1))
		high.SetBit(high, 8*((n.BitLen()+7)/8)-1, 1)
		return sequence(integer(content(r)), integer(high.Bytes()))
	}},
	{"an integer without content", func(t testing.TB, n, r, s *big.Int) []byte {
		return sequence(integer(nil), integer(content(s)))
	}},
	{"a long-form length", func(t testing.TB, n, r, s *big.Int) []byte {
		body := slices.Concat(integer(content(r)), integer(content(s)))
		return slices.Concat([]byte{0x30, 0x82, 0, byte(len(body))}, body)
	}},
	{"a long-form length of an integer", func(t testing.TB, n, r, s *big.Int) []byte {
		c := content(r)
		return sequence(slices.Concat([]byte{2, 0x81, byte(len(c))}, c), integer(content(s)))
	}},
	{"an indefinite length", func(t testing.TB, n, r, s *big.Int) []byte {
		return slices.Concat([]byte{0x30, 0x80}, integer(content(r)), integer(content(s)), []byte{0, 0})
	}},
	{"a length beyond the end", func(t testing.TB, n, r, s *big.Int) []byte {
		sig := der(t, r, s)
		sig[len(sig)-len(content(s))-1]++
		return sig
	}},
	{"a SET", func(t testing.TB, n, r, s *big.Int) []byte { sig := der(t, r, s); sig[0] = 0x31; return sig }},
	{"an OCTET STRING for r", func(t testing.TB, n, r, s *big.Int) []byte {
		return sequence(append([]byte{4, byte(len(content(r)))}, content(r)...), integer(content(s)))
	}},
	{"r alone", func(t testing.TB, n, r, s *big.Int) []byte { return sequence(integer(content(r))) }},
	{"three integers", func(t testing.TB, n, r, s *big.Int) []byte {
		return sequence(integer(content(r)), integer(content(s)), integer([]byte{0}))
	}},
	{"an octet after s", func(t testing.TB, n, r, s *big.Int) []byte {
		return sequence(integer(content(r)), integer(content(s)), []byte{0})
	}},
	{"an octet after the sequence", func(t testing.TB, n, r, s *big.Int) []byte { return append(der(t, r, s), 0) }},
	{"the signature twice", func(t testing.TB, n, r, s *big.Int) []byte {
		return slices.Concat(der(t, r, s), der(t, r, s))
	}},
	{"r and s side by side", func(t testing.TB, n, r, s *big.Int) []byte { return side(n, r, s) }},
}

func add(a, b *big.Int) *big.Int { return new(big.Int).Add(a, b) }

// content returns the content octets of a non-negative INTEGER.
func content(v *big.Int) []byte {
	b := v.Bytes()
	if len(b) == 0 || b[0]&0x80 != 0 {
		return append([]byte{0}, b...)
	}
	return b
}

func integer(content []byte) []byte { return append([]byte{2, byte(len(content))}, content...) }

func sequence(parts ...[]byte) []byte {
	body := slices.Concat(parts...)
	if len(body) < 128 {
		return append([]byte{0x30, byte(len(body))}, body...)
	}
	return append([]byte{0x30, 0x81, byte(len(body))}, body...)
}

// side writes r and s at the width of n.
func side(n, r, s *big.Int) []byte {
	size := (n.BitLen() + 7) / 8
	raw := make([]byte, 2*size)
	r.FillBytes(raw[:size])
	s.FillBytes(raw[size:])
	return raw
}

// signed returns a signature of message by key, and its values.
func signed(t testing.TB, scheme *credentials.Scheme, key *ecdsa.PrivateKey) (sig []byte, r, s *big.Int) {
	t.Helper()
	sig = sign(t, scheme, key, message)
	raw, err := scheme.RawSignature(sig)
	if err != nil {
		t.Fatal(err)
	}
	half := len(raw) / 2
	return sig, new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])
}

func TestVerifyRefusesAlteredECDSA(t *testing.T) {
	eachCurve(t, func(t *testing.T, scheme *credentials.Scheme, key *ecdsa.PrivateKey) {
		n := key.Params().N
		sig, r, s := signed(t, scheme, key)
		if !bytes.Equal(sig, sequence(integer(content(r)), integer(content(s)))) {
			t.Fatalf("the writers of this test do not reproduce %x", sig)
		}
		for _, a := range ecdsaAlterations {
			if altered := a.write(t, n, r, s); scheme.Verify(key.Public(), message, altered) {
				t.Errorf("%s: %x verifies", a.name, altered)
			}
		}
	})
}

// RawSignature need not know the order of the curve, but must not turn what is
// no DER into something that might verify.
func TestRawSignatureRefusesMalformed(t *testing.T) {
	wellFormed := map[string]bool{ // right DER of values in range, wrong all the same
		"r is n": true, "s is n": true, "both are 1": true, "r and s are swapped": true,
	}
	eachCurve(t, func(t *testing.T, scheme *credentials.Scheme, key *ecdsa.PrivateKey) {
		n := key.Params().N
		_, r, s := signed(t, scheme, key)
		for _, a := range ecdsaAlterations {
			altered := a.write(t, n, r, s)
			raw, err := scheme.RawSignature(altered)
			if err == nil && !wellFormed[a.name] && !fitsRaw(n, r, s, a.name) {
				t.Errorf("%s: %x becomes %x", a.name, altered, raw)
			}
			if err == nil && scheme.VerifyRaw(key.Public(), message, raw) {
				t.Errorf("%s: verifies after conversion", a.name)
			}
		}
	})
}

// fitsRaw reports whether a value raised by n still fits its coordinate, as it
// always does for P-521, whose coordinates have seven bits to spare.
func fitsRaw(n, r, s *big.Int, name string) bool {
	bits := 8 * ((n.BitLen() + 7) / 8)
	return name == "r is raised by n" && add(r, n).BitLen() <= bits ||
		name == "s is raised by n" && add(s, n).BitLen() <= bits ||
		name == "s has no sign octet" && n.BitLen()%8 != 0
}

func TestVerifyRawRefusesAltered(t *testing.T) {
	eachCurve(t, func(t *testing.T, scheme *credentials.Scheme, key *ecdsa.PrivateKey) {
		n := key.Params().N
		sig, r, s := signed(t, scheme, key)
		zero, half := new(big.Int), scheme.CoordinateSize()
		raw := side(n, r, s)
		for name, altered := range map[string][]byte{
			"nothing": nil, "DER": sig, "r alone": raw[:half], "one octet short": raw[1:], "one octet cut": raw[:len(raw)-1],
			"one octet more": append(bytes.Clone(raw), 0), "a leading zero": append([]byte{0}, raw...),
			"zeros": make([]byte, len(raw)), "r is 0": side(n, zero, s), "s is 0": side(n, r, zero),
			"r is n": side(n, n, s), "s is n": side(n, r, n), "swapped": side(n, s, r),
			"all ones": bytes.Repeat([]byte{0xff}, len(raw)), "twice": slices.Concat(raw, raw),
			"little-endian": reversed(raw, half),
		} {
			if scheme.VerifyRaw(key.Public(), message, altered) {
				t.Errorf("%s: %x verifies", name, altered)
			}
		}
		if !scheme.VerifyRaw(key.Public(), message, raw) {
			t.Error("the signature itself is refused")
		}
	})
}

func reversed(raw []byte, half int) []byte {
	b := bytes.Clone(raw)
	slices.Reverse(b[:half])
	slices.Reverse(b[half:])
	return b
}

// Neither JOSE, COSE, X.509 nor MLS asks for the smaller s, and half of the
// signatures of a token have the larger one.
func TestVerifyTakesHighS(t *testing.T) {
	eachCurve(t, func(t *testing.T, scheme *credentials.Scheme, key *ecdsa.PrivateKey) {
		n := key.Params().N
		_, r, s := signed(t, scheme, key)
		other := new(big.Int).Sub(n, s)
		if !scheme.Verify(key.Public(), message, der(t, r, other)) || !scheme.VerifyRaw(key.Public(), message, side(n, r, other)) {
			t.Error("the twin (r, n-s) is refused")
		}
	})
}

// With r = -e/d the verifier's sum is the point at infinity, which has no x.
func TestVerifyRefusesPointAtInfinity(t *testing.T) {
	eachCurve(t, func(t *testing.T, scheme *credentials.Scheme, key *ecdsa.PrivateKey) {
		n := key.Params().N
		h := scheme.Hash.New()
		h.Write(message)
		e := new(big.Int).SetBytes(h.Sum(nil))
		private, err := key.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		d := new(big.Int).SetBytes(private)
		r := new(big.Int).Mul(new(big.Int).Neg(e), new(big.Int).ModInverse(d, n))
		r.Mod(r, n)
		for _, s := range []*big.Int{big.NewInt(1), r, new(big.Int).Sub(n, big.NewInt(1))} {
			if scheme.Verify(key.Public(), message, der(t, r, s)) {
				t.Errorf("s = %x verifies", s)
			}
		}
	})
}

func TestVerifyRefusesPrefixesAndFlippedBits(t *testing.T) {
	for _, scheme := range credentials.Schemes() {
		t.Run(scheme.Name, func(t *testing.T) {
			key := newKey(t, scheme)
			sig := sign(t, scheme, key, message)
			for n := range sig {
				if scheme.Verify(key.Public(), message, sig[:n]) {
					t.Errorf("the first %d of %d octets verify", n, len(sig))
				}
			}
			step := 1
			if scheme.CoordinateSize() > 32 {
				step = 7 // the larger curves verify ten times slower
			}
			for bit := 0; bit < 8*len(sig); bit += step {
				flipped := bytes.Clone(sig)
				flipped[bit/8] ^= 1 << (bit % 8)
				if scheme.Verify(key.Public(), message, flipped) {
					t.Errorf("verifies with bit %d flipped", bit)
				}
			}
			for _, msg := range [][]byte{nil, message[1:], append(bytes.Clone(message), 0), bytes.ToUpper(message)} {
				if scheme.Verify(key.Public(), msg, sig) {
					t.Errorf("verifies for %q", msg)
				}
			}
		})
	}
}

// The order of the Ed25519 group, RFC 8032 section 5.1: 2^252 + 277...493.
var ed25519Order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

func TestVerifyRefusesAlteredEd25519(t *testing.T) {
	key := newKey(t, credentials.Ed25519).(ed25519.PrivateKey)
	pub := key.Public()
	sig := sign(t, credentials.Ed25519, key, message)
	s := littleEndian(sig[32:])
	withS := func(s *big.Int) []byte { return slices.Concat(sig[:32], fill(s)) }
	signBit := bytes.Clone(sig)
	signBit[63] |= 0x80
	nonCanonicalR := slices.Concat(fill(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(18))), sig[32:])
	for name, altered := range map[string][]byte{
		"nothing": nil, "63 octets": sig[:63], "65 octets": append(bytes.Clone(sig), 0), "R alone": sig[:32],
		"twice":               slices.Concat(sig, sig),
		"S raised by L":       withS(add(s, ed25519Order)),
		"S raised by 2 L":     withS(add(s, add(ed25519Order, ed25519Order))),
		"S raised by 8 L":     withS(add(s, new(big.Int).Lsh(ed25519Order, 3))),
		"S is 0":              withS(new(big.Int)),
		"S is L":              withS(ed25519Order),
		"S with its high bit": signBit,
		"R not canonical":     nonCanonicalR,
		"zeros":               make([]byte, 64),
		"halves swapped":      slices.Concat(sig[32:], sig[:32]),
		"S big-endian":        slices.Concat(sig[:32], reversed(sig[32:], 32)),
		"of the digest":       ed25519.Sign(key, message[:32]),
	} {
		if credentials.Ed25519.Verify(pub, message, altered) || credentials.Ed25519.VerifyRaw(pub, message, altered) {
			t.Errorf("%s: %x verifies", name, altered)
		}
	}
	for _, n := range []int{0, 63, 65, 128} {
		if _, err := credentials.Ed25519.RawSignature(make([]byte, n)); err == nil {
			t.Errorf("a raw form of %d octets", n)
		}
	}
}

func littleEndian(b []byte) *big.Int {
	c := bytes.Clone(b)
	slices.Reverse(c)
	return new(big.Int).SetBytes(c)
}

// fill writes v in 32 octets, little-endian.
func fill(v *big.Int) []byte {
	b := v.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b
}
