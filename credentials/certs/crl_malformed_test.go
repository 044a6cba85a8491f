package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A madeCRL is written octet for octet and then signed, so that exactly one
// thing about it is wrong. A nil part is left out.
type madeCRL struct {
	version, alg, outerAlg, issuer, this, next, entries []byte
	exts                                                [][]byte
	rawExts                                             []byte // instead of exts
	tail                                                []byte // after the extensions
	hash                                                crypto.Hash
	key                                                 crypto.Signer
	signature                                           func([]byte) []byte
	outer                                               [][]byte // after the signature
	after                                               func([]byte) []byte

	ca      *x509.Certificate // who is believed to have signed
	leaf    *x509.Certificate // who is asked about
	at      time.Time
	asDelta bool // to be applied to a full CRL of number 5
	prev    *certs.CRL
}

var (
	algES256  = derSeq(derOID(1, 2, 840, 10045, 4, 3, 2))
	oidNumber = derOID(2, 5, 29, 20)
	oidReason = derOID(2, 5, 29, 21)
	oidDelta  = derOID(2, 5, 29, 27)
	oidIDP    = derOID(2, 5, 29, 28)
	oidAKI    = derOID(2, 5, 29, 35)
)

// crlEntry is one revoked certificate.
func crlEntry(serial []byte, exts ...[]byte) []byte {
	if len(exts) == 0 {
		return derSeq(serial, derUTC(t0))
	}
	return derSeq(serial, derUTC(t0), derSeq(exts...))
}

func crlReason(n byte) []byte { return derExt(oidReason, derEnum(n)) }

// idpOf is an issuing distribution point with a URI, and more after it.
func idpOf(uri string, more ...[]byte) []byte {
	point := derCtx(0, derCtx(0, tlv(0x86, []byte(uri))))
	return derSeq(append([][]byte{point}, more...)...)
}

func newMadeCRL(w *crlWorld) *madeCRL {
	return &madeCRL{
		version: derInt(1), alg: algES256, outerAlg: algES256, issuer: w.ca.cert.RawSubject, this: derUTC(t0), next: derUTC(t0.Add(time.Hour)),
		entries: derSeq(crlEntry(derInt(7), crlReason(1))),
		exts: [][]byte{
			derExt(oidAKI, derSeq(tlv(0x80, w.ca.cert.SubjectKeyId))),
			derExt(oidNumber, derInt(9)),
		},
		hash: crypto.SHA256, key: w.ca.key, ca: w.ca.cert, leaf: w.leafs[2], at: t0,
	}
}

func (m *madeCRL) der(t testing.TB) []byte {
	t.Helper()
	exts := m.rawExts
	if exts == nil && m.exts != nil {
		exts = derCtx(0, derSeq(m.exts...))
	}
	tbs := derSeq(m.version, m.alg, m.issuer, m.this, m.next, m.entries, exts, m.tail)
	h := m.hash.New()
	h.Write(tbs)
	sig, err := m.key.Sign(rand.Reader, h.Sum(nil), m.hash)
	must(t, err)
	sig = derBits(sig)
	if m.signature != nil {
		sig = m.signature(sig)
	}
	out := derSeq(append([][]byte{tbs, m.outerAlg, sig}, m.outer...)...)
	if m.after != nil {
		out = m.after(out)
	}
	return out
}

// judge says what becomes of a certificate by the CRL.
func (m *madeCRL) judge(t testing.TB, base *certs.CRL) error {
	t.Helper()
	if m.asDelta {
		c, err := base.WithDelta(m.der(t))
		if err != nil {
			return err
		}
		return c.Check(m.leaf, m.at, time.Minute)
	}
	c, err := certs.ParseCRL(m.der(t), m.ca, m.prev)
	if err != nil {
		return err
	}
	return c.Check(m.leaf, m.at, time.Minute)
}

// deltaOf makes it a delta that builds on the given base.
func (m *madeCRL) deltaOf(base []byte) {
	m.asDelta = true
	m.exts = append(m.exts, derCritical(oidDelta, base))
}

func pemOf(kind string, head map[string]string) func([]byte) []byte {
	return func(b []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Headers: head, Bytes: b})
	}
}

const unavailable = credentials.CodeStatusUnavailable

var malformedCRLs = []struct {
	name string
	want credentials.Code
	do   func(w *crlWorld, m *madeCRL)
}{
	// The octets.
	{"empty", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func([]byte) []byte { return nil } }},
	{"one octet", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func([]byte) []byte { return []byte{0x30} } }},
	{"text", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func([]byte) []byte { return []byte("<html>404</html>") } }},
	{"too large", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func([]byte) []byte { return make([]byte, certs.MaxCRL+1) } }},
	{"cut by one", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func(b []byte) []byte { return b[:len(b)-1] } }},
	{"cut in half", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func(b []byte) []byte { return b[:len(b)/2] } }},
	{"octet after it", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func(b []byte) []byte { return append(b, 0) } }},
	{"two CRLs", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func(b []byte) []byte { return append(b, b...) } }},
	{"a SET", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = func(b []byte) []byte { b[0] = 0x31; return b } }},
	{"indefinite length", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { return append(append([]byte{0x30, 0x80}, b[4:]...), 0, 0) }
	}},
	{"length not the shortest", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { return append([]byte{0x30, 0x83, 0, b[2], b[3]}, b[4:]...) }
	}},
	{"a certificate", unavailable, func(w *crlWorld, m *madeCRL) { m.after = func([]byte) []byte { return w.ca.cert.Raw } }},
	{"base64 without PEM", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) }
	}},
	{"PEM of a certificate", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = pemOf("CERTIFICATE", nil) }},
	{"PEM of type CRL", unavailable, func(_ *crlWorld, m *madeCRL) { m.after = pemOf("CRL", nil) }},
	{"PEM cut", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { p := pemOf("X509 CRL", nil)(b); return p[:len(p)-20] }
	}},
	{"PEM with a line after it", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { return append(pemOf("X509 CRL", nil)(b), "x\n"...) }
	}},
	{"two PEM blocks", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { p := pemOf("X509 CRL", nil)(b); return append(p, p...) }
	}},
	{"PEM with an octet after the CRL", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.after = func(b []byte) []byte { return pemOf("X509 CRL", nil)(append(b, 0)) }
	}},

	// The frame.
	{"something after the signature", unavailable, func(_ *crlWorld, m *madeCRL) { m.outer = [][]byte{derNull()} }},
	{"a second signature", unavailable, func(_ *crlWorld, m *madeCRL) { m.outer = [][]byte{derBits(make([]byte, 70))} }},
	{"no signature", unavailable, func(_ *crlWorld, m *madeCRL) { m.signature = func([]byte) []byte { return nil } }},
	{"empty signature", unavailable, func(_ *crlWorld, m *madeCRL) { m.signature = func([]byte) []byte { return derBits(nil) } }},
	{"signature as octets", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.signature = func(b []byte) []byte { return derOctets(b[3:]) }
	}},
	{"signature with unused bits", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.signature = func(b []byte) []byte { b[2] = 1; b[len(b)-1] &= 0xfe; return b }
	}},
	{"signature changed", unavailable, func(_ *crlWorld, m *madeCRL) { m.signature = func(b []byte) []byte { b[len(b)-1] ^= 1; return b } }},
	{"signature of zeros", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.signature = func([]byte) []byte { return derBits(derSeq(derInt(0), derInt(0))) }
	}},
	{"signature with octets after it", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.signature = func(b []byte) []byte { return derBits(append(b[3:], 0)) }
	}},
	{"algorithms inside and outside differ", unavailable, func(_ *crlWorld, m *madeCRL) { m.outerAlg = derSeq(derOID(1, 2, 840, 10045, 4, 3, 3)) }},
	{"algorithm unknown", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.alg = derSeq(derOID(1, 3, 6, 1, 4, 1, 32473, 9))
		m.outerAlg = m.alg
	}},
	{"algorithm SHA-1", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.alg = derSeq(derOID(1, 2, 840, 10045, 4, 1))
		m.outerAlg, m.hash = m.alg, crypto.SHA1
	}},
	{"algorithm of an RSA key", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.alg = derSeq(derOID(1, 2, 840, 113549, 1, 1, 11), derNull())
		m.outerAlg = m.alg
	}},
	{"algorithm Ed25519", unavailable, func(_ *crlWorld, m *madeCRL) { m.alg = derSeq(derOID(1, 3, 101, 112)); m.outerAlg = m.alg }},
	{"algorithm of another hash", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.alg = derSeq(derOID(1, 2, 840, 10045, 4, 3, 4))
		m.outerAlg = m.alg
	}},
	{"no algorithm", unavailable, func(_ *crlWorld, m *madeCRL) { m.alg, m.outerAlg = derSeq(), derSeq() }},
	{"no version", unavailable, func(_ *crlWorld, m *madeCRL) { m.version = nil }},
	{"version 1 with extensions", unavailable, func(_ *crlWorld, m *madeCRL) { m.version = derInt(0) }},
	{"version 3", unavailable, func(_ *crlWorld, m *madeCRL) { m.version = derInt(2) }},
	{"version explicit, as in a certificate", unavailable, func(_ *crlWorld, m *madeCRL) { m.version = derCtx(0, derInt(1)) }},
	{"something after the extensions", unavailable, func(_ *crlWorld, m *madeCRL) { m.tail = derNull() }},
	{"extensions twice", unavailable, func(_ *crlWorld, m *madeCRL) { m.tail = derCtx(0, derSeq(derExt(oidNumber, derInt(10)))) }},

	// Who signed it.
	{"issuer of another name", unavailable, func(w *crlWorld, m *madeCRL) { m.issuer = w.ca.rootCert.RawSubject }},
	{"issuer without a name", unavailable, func(_ *crlWorld, m *madeCRL) { m.issuer = derSeq() }},
	{"issuer is no name", unavailable, func(_ *crlWorld, m *madeCRL) { m.issuer = derSeq(derInt(1)) }},
	{"issuer missing", unavailable, func(_ *crlWorld, m *madeCRL) { m.issuer = nil }},
	{"signed by another key", unavailable, func(w *crlWorld, m *madeCRL) { m.key = p256(w.t) }},
	{"signed by the root", unavailable, func(w *crlWorld, m *madeCRL) { m.key = w.ca.rootKey }},
	{"signed on another curve", unavailable, func(w *crlWorld, m *madeCRL) {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		must(w.t, err)
		m.key = key
	}},
	{"key identifier of another CA", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[0] = derExt(oidAKI, derSeq(tlv(0x80, []byte{1, 2}))) }},
	{"key identifier that cannot be read", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[0] = derExt(oidAKI, derInt(1)) }},
	{"key identifier twice", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts = append(m.exts, m.exts[0]) }},
	{"CA that may not sign CRLs", unavailable, func(w *crlWorld, m *madeCRL) {
		ca := *w.ca.cert
		ca.KeyUsage = x509.KeyUsageCertSign
		m.ca = &ca
	}},
	{"asked about a certificate of another CA", unavailable, func(w *crlWorld, m *madeCRL) { m.leaf = w.ca.cert }},

	// Its times.
	{"no times", unavailable, func(_ *crlWorld, m *madeCRL) { m.this, m.next = nil, nil }},
	{"no next update", unavailable, func(_ *crlWorld, m *madeCRL) { m.next = nil }},
	{"next update before this", unavailable, func(_ *crlWorld, m *madeCRL) { m.next = derUTC(t0.Add(-time.Second)); m.at = t0.Add(-30 * time.Second) }},
	{"next update equal to this", unavailable, func(_ *crlWorld, m *madeCRL) { m.next = m.this; m.at = t0.Add(-30 * time.Second) }},
	{"time of a number", unavailable, func(_ *crlWorld, m *madeCRL) { m.this = derInt(1) }},
	{"time without seconds", unavailable, func(_ *crlWorld, m *madeCRL) { m.this = tlv(0x17, []byte("2611201200Z")) }},
	{"time with an offset", unavailable, func(_ *crlWorld, m *madeCRL) { m.next = tlv(0x17, []byte("261120130000+0100")) }},
	{"time with a fraction", unavailable, func(_ *crlWorld, m *madeCRL) { m.next = tlv(0x18, []byte("20261120130000.5Z")) }},
	{"time of month 13", unavailable, func(_ *crlWorld, m *madeCRL) { m.next = tlv(0x17, []byte("261320120000Z")) }},
	{"begins later than clocks differ", unavailable, func(_ *crlWorld, m *madeCRL) { m.at = t0.Add(-61 * time.Second) }},
	{"to be replaced now", unavailable, func(_ *crlWorld, m *madeCRL) { m.at = t0.Add(time.Hour) }},
	{"long past", unavailable, func(_ *crlWorld, m *madeCRL) { m.at = t0.Add(1000 * time.Hour) }},

	// Its number.
	{"number negative", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[1] = derExt(oidNumber, derInt(-1)) }},
	{"number text", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[1] = derExt(oidNumber, tlv(0x0c, []byte("9"))) }},
	{"number with octets after it", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[1] = derExt(oidNumber, append(derInt(9), 0)) }},
	{"number of 21 octets", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts[1] = derExt(oidNumber, derBig(new(big.Int).Lsh(big.NewInt(1), 160)))
	}},
	{"number not the shortest", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[1] = derExt(oidNumber, []byte{2, 2, 0, 9}) }},
	{"number twice", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts = append(m.exts, derExt(oidNumber, derInt(10))) }},
	{"number lower than that known", unavailable, func(w *crlWorld, m *madeCRL) {
		newer := newMadeCRL(w)
		newer.exts[1] = derExt(oidNumber, derInt(10))
		m.prev = parsed(w, newer)
	}},
	{"earlier than that known", unavailable, func(w *crlWorld, m *madeCRL) {
		newer := newMadeCRL(w)
		newer.this = derUTC(t0.Add(time.Minute))
		m.prev = parsed(w, newer)
	}},
	{"number left out, earlier than that known", unavailable, func(w *crlWorld, m *madeCRL) {
		newer := newMadeCRL(w)
		newer.this = derUTC(t0.Add(time.Minute))
		m.prev, m.exts = parsed(w, newer), m.exts[:1]
	}},
	{"number left out after one that had it", unavailable, func(w *crlWorld, m *madeCRL) {
		m.prev = parsed(w, newMadeCRL(w))
		m.exts, m.this = m.exts[:1], derUTC(t0.Add(time.Minute))
	}},

	// Other extensions.
	{"extensions empty", unavailable, func(_ *crlWorld, m *madeCRL) { m.rawExts = derCtx(0, derSeq()) }},
	{"extensions without their sequence", unavailable, func(_ *crlWorld, m *madeCRL) { m.rawExts = derCtx(0) }},
	{"extensions implicit", unavailable, func(_ *crlWorld, m *madeCRL) { m.rawExts = derCtx(0, m.exts...) }},
	{"extensions with octets after them", unavailable, func(_ *crlWorld, m *madeCRL) { m.rawExts = derCtx(0, derSeq(m.exts...), derNull()) }},
	{"extension without value", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts = append(m.exts, derSeq(oidIDP)) }},
	{"extension with a part more", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts[1] = derSeq(oidNumber, derOctets(derInt(9)), derNull())
	}},
	{"extension critical by a number", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts[1] = derSeq(oidNumber, derInt(1), derOctets(derInt(9)))
	}},
	{"extension critical by a BOOLEAN of 1", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts[1] = derSeq(oidNumber, derBool(1), derOctets(derInt(9)))
	}},
	{"extension unknown and critical", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(derOID(1, 3, 6, 1, 4, 1, 32473, 7), derNull()))
	}},
	{"extension unknown, twice", unavailable, func(_ *crlWorld, m *madeCRL) {
		e := derExt(derOID(1, 3, 6, 1, 4, 1, 32473, 7), derNull())
		m.exts = append(m.exts, e, e)
	}},

	// What it covers.
	{"point without a name", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts = append(m.exts, derCritical(oidIDP, derSeq(derCtx(0)))) }},
	{"point empty", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts = append(m.exts, derCritical(oidIDP, derSeq())) }},
	{"point of a DNS name", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, derSeq(derCtx(0, derCtx(0, tlv(0x82, []byte("crl.acme.example")))))))
	}},
	{"point relative to the issuer", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, derSeq(derCtx(0, derCtx(1, tlv(0x06, []byte{0x55, 4, 3}))))))
	}},
	{"point with octets after it", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, append(idpOf(crlURL), 0)))
	}},
	{"point twice", unavailable, func(_ *crlWorld, m *madeCRL) {
		e := derCritical(oidIDP, idpOf(crlURL))
		m.exts = append(m.exts, e, e)
	}},
	{"point that the certificate does not name", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf("http://crl.acme.example/other.crl")))
	}},
	{"only for users", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL, tlv(0x81, []byte{0xff}))))
	}},
	{"only for CAs", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL, tlv(0x82, []byte{0xff}))))
	}},
	{"only for some reasons", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL, tlv(0x83, []byte{6, 0x40}))))
	}},
	{"indirect", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL, tlv(0x84, []byte{0xff}))))
	}},
	{"only for attributes", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL, tlv(0x85, []byte{0xff}))))
	}},

	// Its entries.
	{"entries are a SET", unavailable, func(_ *crlWorld, m *madeCRL) { m.entries = derSet(crlEntry(derInt(7))) }},
	{"entry is a number", unavailable, func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(derInt(7)) }},
	{"entry without a date", unavailable, func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(derSeq(derInt(7))) }},
	{"entry without a serial", unavailable, func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(derSeq(derUTC(t0))) }},
	{"entry with a part more", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(derSeq(derInt(7), derUTC(t0), derSeq(crlReason(1)), derNull()))
	}},
	{"entry with an empty list of extensions", unavailable, func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(derSeq(derInt(7), derUTC(t0), derSeq())) }},
	{"serial of 21 octets", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(new(big.Int).Lsh(big.NewInt(1), 160))))
	}},
	{"serial not the shortest", unavailable, func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(crlEntry([]byte{2, 2, 0, 7})) }},
	{"serial twice", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), crlReason(1)), crlEntry(derInt(7), crlReason(6)))
	}},
	{"reason an INTEGER", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), derExt(oidReason, derInt(1))))
	}},
	{"reason with octets after it", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), derExt(oidReason, append(derEnum(1), 0))))
	}},
	{"reason twice", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), crlReason(6), crlReason(1)))
	}},
	{"entry of another issuer", unavailable, func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), derCritical(derOID(2, 5, 29, 29), derSeq(derCtx(4, w.ca.rootCert.RawSubject)))))
	}},
	{"entry with an unknown critical extension", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), derCritical(derOID(1, 3, 6, 1, 4, 1, 32473, 7), derNull())))
	}},

	// Deltas.
	{"delta as a full CRL", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(derInt(5)); m.asDelta = false }},
	{"full CRL as a delta", unavailable, func(_ *crlWorld, m *madeCRL) { m.asDelta = true }},
	{"delta indicator is text", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(tlv(0x0c, []byte("5"))) }},
	{"delta indicator negative", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(derInt(-5)) }},
	{"delta indicator with octets after it", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(append(derInt(5), 0)) }},
	{"delta indicator twice", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(derInt(5)); m.deltaOf(derInt(4)) }},
	{"delta on a newer base", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(derInt(6)) }},
	{"delta on itself", unavailable, func(_ *crlWorld, m *madeCRL) { m.deltaOf(derInt(9)) }},
	{"delta without a number", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts = m.exts[:1]; m.deltaOf(derInt(5)) }},
	{"delta older than its base", unavailable, func(_ *crlWorld, m *madeCRL) { m.exts[1] = derExt(oidNumber, derInt(4)); m.deltaOf(derInt(3)) }},
	{"delta of the past", unavailable, func(_ *crlWorld, m *madeCRL) { m.this = derUTC(t0.Add(-2 * time.Hour)); m.deltaOf(derInt(5)) }},
	{"delta of another point", unavailable, func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL)))
		m.deltaOf(derInt(5))
	}},
	{"delta that is signed by another key", unavailable, func(w *crlWorld, m *madeCRL) { m.key = p256(w.t); m.deltaOf(derInt(5)) }},
	{"delta that has ended", unavailable, func(_ *crlWorld, m *madeCRL) { m.at = t0.Add(time.Hour); m.deltaOf(derInt(5)) }},

	// What a good one says.
	{"revoked", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(1)))
	}},
	{"revoked without a reason", "revoked", func(w *crlWorld, m *madeCRL) { m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber))) }},
	{"revoked at a later time", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(derSeq(derBig(w.leafs[2].SerialNumber), derUTC(t0.Add(time.Minute))))
	}},
	{"revoked for reason 7", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(7)))
	}},
	{"revoked for reason 11", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(11)))
	}},
	{"revoked for a negative reason", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(0xff)))
	}},
	{"removed, by a full CRL", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(8)))
	}},
	{"on hold", "suspended", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(6)))
	}},
	{"revoked by a delta", "revoked", func(w *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derBig(w.leafs[2].SerialNumber), crlReason(4)))
		m.deltaOf(derInt(5))
	}},
	{"revoked by the base of a delta", "revoked", func(w *crlWorld, m *madeCRL) { m.leaf = w.leafs[0]; m.deltaOf(derInt(5)) }},
}

// What looks odd and is right.
var unusualCRLs = []struct {
	name string
	do   func(w *crlWorld, m *madeCRL)
}{
	{"as it is", func(*crlWorld, *madeCRL) {}},
	{"PEM", func(_ *crlWorld, m *madeCRL) { m.after = pemOf("X509 CRL", nil) }},
	{"no entries", func(_ *crlWorld, m *madeCRL) { m.entries = nil }},
	{"empty list of entries", func(_ *crlWorld, m *madeCRL) { m.entries = derSeq() }},
	{"generalized time", func(_ *crlWorld, m *madeCRL) { m.next = derGeneralized(t0.Add(time.Hour)) }},
	{"no number", func(_ *crlWorld, m *madeCRL) { m.exts = m.exts[:1] }},
	{"no extensions", func(_ *crlWorld, m *madeCRL) { m.exts = nil }},
	{"number of 20 octets", func(_ *crlWorld, m *madeCRL) {
		m.exts[1] = derExt(oidNumber, derBig(new(big.Int).Lsh(big.NewInt(1), 158)))
	}},
	{"same number again", func(w *crlWorld, m *madeCRL) { m.prev = parsed(w, newMadeCRL(w)) }},
	{"unknown extension, not critical", func(_ *crlWorld, m *madeCRL) {
		m.exts = append(m.exts, derExt(derOID(1, 3, 6, 1, 4, 1, 32473, 7), derNull()))
	}},
	{"point of the certificate", func(_ *crlWorld, m *madeCRL) { m.exts = append(m.exts, derCritical(oidIDP, idpOf(crlURL))) }},
	{"begins as late as clocks differ", func(_ *crlWorld, m *madeCRL) { m.at = t0.Add(-time.Minute) }},
	{"serial of zero, as of old CAs", func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(crlEntry(derInt(0))) }},
	{"serial negative, as of old CAs", func(_ *crlWorld, m *madeCRL) { m.entries = derSeq(crlEntry(derInt(-7))) }},
	{"invalidity date", func(_ *crlWorld, m *madeCRL) {
		m.entries = derSeq(crlEntry(derInt(7), crlReason(1), derExt(derOID(2, 5, 29, 24), derGeneralized(t0))))
	}},
	{"delta", func(_ *crlWorld, m *madeCRL) { m.deltaOf(derInt(5)) }},
	{"delta that removes", func(w *crlWorld, m *madeCRL) {
		m.leaf = w.leafs[1]
		m.entries = derSeq(crlEntry(derBig(w.leafs[1].SerialNumber), crlReason(8)))
		m.deltaOf(derInt(5))
	}},
}

func parsed(w *crlWorld, m *madeCRL) *certs.CRL {
	w.t.Helper()
	c, err := certs.ParseCRL(m.der(w.t), m.ca, nil)
	must(w.t, err)
	return c
}

// baseOfDeltas is a full CRL of number 5 by which leaf 0 is revoked and leaf 1
// on hold.
func baseOfDeltas(w *crlWorld) *certs.CRL {
	m := newMadeCRL(w)
	m.exts[1] = derExt(oidNumber, derInt(5))
	m.this = derUTC(t0.Add(-time.Hour))
	m.entries = derSeq(crlEntry(derBig(w.leafs[0].SerialNumber), crlReason(1)), crlEntry(derBig(w.leafs[1].SerialNumber), crlReason(6)))
	return parsed(w, m)
}

func TestMalformedCRLs(t *testing.T) {
	if n := len(malformedCRLs); n < 100 {
		t.Fatalf("only %d cases", n)
	}
	w := newCRLWorld(t, t0)
	base := baseOfDeltas(w)
	for _, c := range malformedCRLs {
		t.Run(c.name, func(t *testing.T) {
			m := newMadeCRL(w)
			c.do(w, m)
			wantCode(t, m.judge(t, base), c.want)
		})
	}
	for _, c := range unusualCRLs {
		t.Run(c.name, func(t *testing.T) {
			m := newMadeCRL(w)
			c.do(w, m)
			must(t, m.judge(t, base))
		})
	}
}
