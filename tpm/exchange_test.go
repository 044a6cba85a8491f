package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
)

// go-tpm is the peer of what this package marshals by hand: the same command
// must become the same octets, and the same answer the same values.

// A tape records a command and plays an answer.
type tape struct {
	command []byte
	answer  []byte
}

func (t *tape) Send(command []byte) ([]byte, error) {
	t.command = bytes.Clone(command)
	return bytes.Clone(t.answer), nil
}

// steady is a session whose nonces are known beforehand.
type steady struct {
	*use
	nonce []byte
}

func (s *steady) NewNonceCaller() error { s.nonceCaller = s.nonce; return nil }

// A peer is one of the commands, in our words and in go-tpm's.
type peer struct {
	name   string
	cc     tpm2.TPMCC
	d      direction
	parms  []byte
	theirs func(Transport, tpm2.AuthHandle) (any, error)
	ours   func(cryptobyte.String) (any, error)
	answer []byte // the parameters of an answer
}

func peers(r *mathrand.Rand) []peer {
	octets := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	digest, data, x, y := octets(32), octets(r.IntN(1025)), octets(32), octets(32)
	signature := func(r, s []byte) []byte { return append2B(append2B([]byte{0, 0x18, 0, 0x0b}, r), s) }
	sign := func(scheme tpm2.TPMTSigScheme) func(Transport, tpm2.AuthHandle) (any, error) {
		return func(t Transport, h tpm2.AuthHandle) (any, error) {
			rsp, err := tpm2.Sign{KeyHandle: h, Digest: tpm2.TPM2BDigest{Buffer: digest}, InScheme: scheme,
				Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull}}.Execute(t)
			if err != nil {
				return nil, err
			}
			ecc, err := rsp.Signature.Signature.ECDSA()
			if err != nil {
				return nil, err
			}
			return fmt.Sprintf("%x %x", new(big.Int).SetBytes(ecc.SignatureR.Buffer), new(big.Int).SetBytes(ecc.SignatureS.Buffer)), nil
		}
	}
	readSignature := func(parms cryptobyte.String) (any, error) {
		der, err := signatureDER(&ecdsa.PublicKey{Curve: elliptic.P256()}, parms)
		if err != nil {
			return nil, err
		}
		var r, s big.Int
		in := cryptobyte.String(der)
		if !in.ReadASN1(&in, 0x30) || !in.ReadASN1Integer(&r) || !in.ReadASN1Integer(&s) || !in.Empty() {
			return nil, errors.New("no DER")
		}
		return fmt.Sprintf("%x %x", &r, &s), nil
	}
	// Below the order of P-256, which begins with ffffffff00000000.
	below := func() []byte { b := octets(32); b[4] = 0; b[0] &= 0x7f; return b }
	return []peer{
		{"TPM2_Sign", tpm2.TPMCCSign, in, signParameters(digest, tpm2.TPMAlgNull), sign(tpm2.TPMTSigScheme{}), readSignature, signature(below(), below())},
		{"TPM2_Sign with a scheme", tpm2.TPMCCSign, in, signParameters(digest, tpm2.TPMAlgSHA256),
			sign(tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256})}),
			readSignature, signature(below()[8:], below()[1:])},
		{"TPM2_HMAC", tpm2.TPMCCHMAC, inOut, hmacParameters(data), func(t Transport, h tpm2.AuthHandle) (any, error) {
			rsp, err := tpm2.Hmac{Handle: h, Buffer: tpm2.TPM2BMaxBuffer{Buffer: data}, HashAlg: tpm2.TPMAlgSHA256}.Execute(t)
			if err != nil {
				return nil, err
			}
			return fmt.Sprintf("%x", rsp.OutHMAC.Buffer), nil
		}, func(parms cryptobyte.String) (any, error) {
			mac, ok := readDigest(parms)
			if !ok {
				return nil, errors.New("no digest")
			}
			return fmt.Sprintf("%x", mac), nil
		}, append2B(nil, octets(32))},
		{"TPM2_ECDH_ZGen", tpm2.TPMCCECDHZGen, inOut, zgenParameters(x, y), func(t Transport, h tpm2.AuthHandle) (any, error) {
			rsp, err := tpm2.ECDHZGen{KeyHandle: h, InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})}.Execute(t)
			if err != nil {
				return nil, err
			}
			z, err := rsp.OutPoint.Contents()
			if err != nil {
				return nil, err
			}
			return fmt.Sprintf("%x", z.X.Buffer), nil
		}, func(parms cryptobyte.String) (any, error) {
			x, ok := readPoint(parms)
			if !ok {
				return nil, errors.New("no point")
			}
			return fmt.Sprintf("%x", x), nil
		}, append2B(nil, append2B(append2B(nil, octets(32)), octets(31)))},
	}
}

// authorizations are the ways in which a command can be authorized. Each call
// of make returns the same session anew.
func authorizations(r *mathrand.Rand, d direction) map[string]func() tpm2.Session {
	key, nonce, nonceTPM := make([]byte, 32), make([]byte, nonceSize), make([]byte, nonceSize)
	for _, b := range [][]byte{key, nonce, nonceTPM} {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	auth := append([]byte("ab\x00c"), make([]byte, r.IntN(4))...)
	start := func(key, auth []byte, policy bool, d direction) func() tpm2.Session {
		return func() tpm2.Session {
			s := &session{handle: 0x02000001, key: key, nonceTPM: bytes.Clone(nonceTPM), policy: policy}
			return &steady{s.with(auth, d), nonce}
		}
	}
	return map[string]func() tpm2.Session{
		"password":          func() tpm2.Session { return tpm2.PasswordAuth(auth) },
		"unsalted":          start(nil, auth, false, plain),
		"salted":            start(key, auth, false, d),
		"salted, no value":  start(key, nil, false, d),
		"policy":            start(key, nil, true, d),
		"policy with value": start(key, auth, true, d),
		"bare policy":       start(nil, nil, true, plain),
	}
}

func testHandle(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: 0x80000002, Name: tpm2.TPM2BName{Buffer: bytes.Repeat([]byte{0x5a}, 34)}, Auth: s}
}

// answerFor is what a TPM answers in a session, once the command was made. nil
// attributes are those of the command.
func answerFor(cc tpm2.TPMCC, s tpm2.Session, parms []byte, attributes *byte) []byte {
	parms = bytes.Clone(parms)
	var auth []byte
	if u, ok := s.(*steady); ok {
		nonce := bytes.Repeat([]byte{0x77}, nonceSize)
		attrs := u.attrs
		if attributes != nil {
			attrs = *attributes
		}
		if u.IsEncryption() {
			first, err := first2B(parms)
			if err != nil {
				panic(err)
			}
			if err := u.cfb(first, nonce, u.nonceCaller, true); err != nil {
				panic(err)
			}
		}
		mac := u.mac(rpHash(tpm2.TPMRCSuccess, cc, parms), nonce, u.nonceCaller, nil, attrs)
		auth = append2B(append(append2B(nil, nonce), attrs), mac)
	} else {
		auth = []byte{0, 0, attrContinue, 0, 0}
	}
	size := headerSize + 4 + len(parms) + len(auth)
	b := appendHeader(nil, tpm2.TPMSTSessions, size, 0) // an answer's header has the response code there
	b = append(b, byte(len(parms)>>24), byte(len(parms)>>16), byte(len(parms)>>8), byte(len(parms)))
	return append(append(b, parms...), auth...)
}

// open reads an answer in our way, from the session that made the command.
func open(p peer, s tpm2.Session, answer []byte) (any, error) {
	parms, err := openAnswer(p.cc, testHandle(s), bytes.Clone(answer))
	if err != nil {
		return nil, err
	}
	return p.ours(parms)
}

// made makes the command, as exchange does.
func made(t testing.TB, p peer, s tpm2.Session) []byte {
	t.Helper()
	b, err := authorizedCommand(p.cc, testHandle(s), p.parms)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// theirs runs a command of go-tpm's, whose reader may panic.
func theirs(p peer, t Transport, s tpm2.Session) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			v, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	return p.theirs(t, testHandle(s))
}

func TestExchangeLikeGoTPM(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for range 20 {
		for _, p := range peers(r) {
			for name, session := range authorizations(r, p.d) {
				ours, his := session(), session()
				before := bytes.Clone(p.parms)
				mine := made(t, p, ours)
				if !bytes.Equal(before, p.parms) {
					t.Fatalf("%s, %s: the parameters were changed", p.name, name)
				}
				peer := &tape{answer: answerFor(p.cc, ours, p.answer, nil)}
				want, err := theirs(p, peer, his)
				if err != nil {
					t.Fatalf("%s, %s: go-tpm: %v", p.name, name, err)
				}
				if !bytes.Equal(mine, peer.command) {
					t.Fatalf("%s, %s:\nours   %x\ngo-tpm %x", p.name, name, mine, peer.command)
				}
				got, err := open(p, ours, peer.answer)
				if err != nil || got != want {
					t.Fatalf("%s, %s: %v %v, go-tpm %v", p.name, name, got, err, want)
				}
				if u, ok := ours.(*steady); ok && (!bytes.Equal(u.s.nonceTPM, his.NonceTPM().Buffer) || u.s.uncertain || u.s.dirty) {
					t.Fatalf("%s, %s: the session was not rolled on", p.name, name)
				}
			}
		}
	}
}

// TestRequestLikeGoTPM: the commands without a session, of policies and slots.
func TestRequestLikeGoTPM(t *testing.T) {
	step := policyStep{code: tpm2.TPMCCPolicyPCR, pcrDigest: bytes.Repeat([]byte{7}, 32), pcrs: pcrSelection{0, 7, 8, 23}}
	saved := tpm2.TPMSContext{Sequence: 1 << 40, SavedHandle: 0x80000000, Hierarchy: tpm2.TPMRHOwner,
		ContextBlob: tpm2.TPM2BContextData{Buffer: bytes.Repeat([]byte{9}, 700)}}
	const handle = 0x03000001
	success := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
	tests := []struct {
		name   string
		ours   func(*attachment) error
		theirs func(Transport) error
		answer []byte
	}{
		{"TPM2_PolicyPCR", func(a *attachment) error { return a.step(handle, step) }, func(t Transport) error {
			_, err := tpm2.PolicyPCR{PolicySession: tpm2.TPMHandle(handle), PcrDigest: tpm2.TPM2BDigest{Buffer: step.pcrDigest}, Pcrs: step.pcrs.tpml()}.Execute(t)
			return err
		}, success},
		{"TPM2_PolicyAuthValue", func(a *attachment) error { return a.step(handle, policyStep{code: tpm2.TPMCCPolicyAuthValue}) }, func(t Transport) error {
			_, err := tpm2.PolicyAuthValue{PolicySession: tpm2.TPMHandle(handle)}.Execute(t)
			return err
		}, success},
		{"TPM2_FlushContext", func(a *attachment) error { return a.flush(handle) }, func(t Transport) error {
			_, err := tpm2.FlushContext{FlushHandle: tpm2.TPMHandle(handle)}.Execute(t)
			return err
		}, success},
		{"TPM2_ContextLoad", func(a *attachment) error {
			got, err := newSlots(a, 3).loadContext(tpm2.Marshal(saved))
			if err == nil && got != 0x80000001 {
				err = fmt.Errorf("handle %#x", uint32(got))
			}
			return err
		}, func(t Transport) error {
			_, err := tpm2.ContextLoad{Context: saved}.Execute(t)
			return err
		}, []byte{0x80, 0x01, 0, 0, 0, 14, 0, 0, 0, 0, 0x80, 0, 0, 1}},
	}
	for _, tt := range tests {
		mine, his := &tape{answer: tt.answer}, &tape{answer: tt.answer}
		a := &attachment{address: "test", transport: mine}
		if err := errors.Join(tt.ours(a), tt.theirs(his)); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if !bytes.Equal(mine.command, his.command) {
			t.Errorf("%s:\nours   %x\ngo-tpm %x", tt.name, mine.command, his.command)
		}
		for n := range tt.answer {
			mine.answer = tt.answer[:n]
			if err := tt.ours(a); !errors.Is(err, ErrMalformed) {
				t.Errorf("%s: %d octets of the answer: %v", tt.name, n, err)
			}
		}
		mine.answer = append(bytes.Clone(tt.answer), 0)
		mine.answer[5]++
		if err := tt.ours(a); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: an octet too many: %v", tt.name, err)
		}
		mine.answer = []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22}
		if err := tt.ours(a); !errors.Is(err, tpm2.TPMRCRetry) {
			t.Errorf("%s: a response code: %v", tt.name, err)
		}
	}
}

// TestOpenAnswerRefuses changes each bit of good answers and their length. In a
// session with an HMAC nothing is believed but the answer itself.
func TestOpenAnswerRefuses(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(3, 4))
	for _, p := range peers(r) {
		for _, name := range []string{"salted", "policy", "unsalted"} {
			session := authorizations(r, p.d)[name]
			asked := func() tpm2.Session { s := session(); made(t, p, s); return s }
			answer := answerFor(p.cc, asked(), p.answer, nil)
			for i := range 8 * len(answer) {
				bad := bytes.Clone(answer)
				bad[i/8] ^= 1 << (i % 8)
				if _, err := open(p, asked(), bad); err == nil {
					t.Fatalf("%s, %s: bit %d changed and believed", p.name, name, i)
				}
			}
			for n := range answer {
				if _, err := open(p, asked(), answer[:n]); err == nil {
					t.Fatalf("%s, %s: %d of %d octets believed", p.name, name, n, len(answer))
				}
				bad := bytes.Clone(answer[:n])
				if n >= headerSize {
					bad[2], bad[3], bad[4], bad[5] = 0, 0, byte(n>>8), byte(n)
				}
				if _, err := open(p, asked(), bad); err == nil {
					t.Fatalf("%s, %s: %d of %d octets believed, with their size", p.name, name, n, len(answer))
				}
			}
		}
	}
}

// TestAnswerAttributes: a session is used as was asked for, even when the
// answer that says otherwise is authentic.
func TestAnswerAttributes(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(5, 6))
	p := peers(r)[2]
	session := authorizations(r, p.d)["salted"]
	for b := range 256 {
		s := session()
		made(t, p, s)
		attrs := byte(b)
		_, err := open(p, s, answerFor(p.cc, s, p.answer, &attrs))
		if want := attrContinue | attrDecrypt | attrEncrypt; (err == nil) != (b == want) {
			t.Errorf("attributes %#02x: %v", b, err)
		}
	}
}

// TestAnswerErrors: what the TPM refuses is its response code, whatever the
// session, and the session goes on.
func TestAnswerErrors(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(7, 8))
	p := peers(r)[0]
	s := authorizations(r, p.d)["salted"]()
	made(t, p, s)
	_, err := open(p, s, []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22})
	if !errors.Is(err, tpm2.TPMRCRetry) {
		t.Errorf("%v", err)
	}
	if s.(*steady).s.uncertain {
		t.Error("the session was given up")
	}
	for _, bad := range []string{
		"\x80\x02\x00\x00\x00\x0a\x00\x00\x00\x00",                 // nothing after the header
		"\x80\x01\x00\x00\x00\x0a\x00\x00\x00\x00",                 // success without a session
		"\x80\x01\x00\x00\x00\x0b\x00\x00\x09\x22\x00",             // more than the code
		"\x80\x01\x00\x00\x00\x0b\x00\x00\x09\x22",                 // another size
		"\x00\xc4\x00\x00\x00\x0a\x00\x00\x00\x00",                 // the tag of a TPM 1.2
		"\x80\x02\x00\x00\x00\x0e\x00\x00\x00\x00\xff\xff\xff\xff", // parameters beyond the end
	} {
		if _, err := open(p, s, []byte(bad)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%x: %v", bad, err)
		}
	}
}

func TestKDFa(t *testing.T) {
	for n := range 65 {
		key, u, v := make([]byte, n), make([]byte, nonceSize), make([]byte, nonceSize)
		for _, b := range [][]byte{key, u, v} {
			rand.Read(b)
		}
		want := tpm2.KDFa(crypto.SHA256, key, "CFB", u, v, 256)
		if got := kdfa256(hmac.New(crypto.SHA256.New, key), "CFB", u, v); !bytes.Equal(got, want) {
			t.Fatalf("key of %d octets: %x, want %x", n, got, want)
		}
	}
}

// FuzzOpenAnswer: what we can read, go-tpm reads as the same. The other way
// does not hold, for it does not look at everything.
func FuzzOpenAnswer(f *testing.F) {
	all := peers(mathrand.New(mathrand.NewPCG(9, 10)))
	for i, p := range all {
		f.Add(uint8(i), answerFor(p.cc, tpm2.PasswordAuth(nil), p.answer, nil))
		f.Add(uint8(i), answerFor(p.cc, tpm2.PasswordAuth(nil), p.answer[:len(p.answer)-1], nil))
	}
	f.Add(uint8(0), []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, which uint8, answer []byte) {
		p := all[int(which)%len(all)]
		s := tpm2.PasswordAuth(nil)
		made(t, p, s)
		got, err := open(p, s, answer)
		if err != nil {
			return
		}
		if want, err := theirs(p, &tape{answer: answer}, tpm2.PasswordAuth(nil)); err != nil || got != want {
			t.Errorf("%s: we read %v, go-tpm %v, %v", p.name, got, want, err)
		}
	})
}
