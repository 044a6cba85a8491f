package certs_test

import (
	"bytes"
	"crypto"
	"crypto/sha1" // of the names of issuers
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A madeRequest is an OCSP request written octet for octet. A nil part is left
// out.
type madeRequest struct {
	hash, nameHash, keyHash, serial []byte
	certID                          []byte // instead of these four
	one                             []byte // after the CertID
	list                            []byte // instead of the list of one
	version, name, exts, tail       []byte // of TBSRequest
	outer                           []byte // after TBSRequest
	after                           func([]byte) []byte
}

var (
	oidNonce     = derOID(1, 3, 6, 1, 5, 5, 7, 48, 1, 2)
	oidUnknown   = derOID(1, 3, 6, 1, 4, 1, 32473, 7)
	hashSHA1     = derSeq(derOID(1, 3, 14, 3, 2, 26), derNull())
	hashSHA256   = derSeq(derOID(2, 16, 840, 1, 101, 3, 4, 2, 1), derNull())
	fittingNonce = derExt(oidNonce, derOctets(bytes.Repeat([]byte{7}, 32)))
)

func spkiBits(t testing.TB, c *x509.Certificate) []byte {
	t.Helper()
	bits := c.RawSubjectPublicKeyInfo
	return bits[len(bits)-65:] // an uncompressed point on P-256
}

func newMadeRequest(w *crlWorld) *madeRequest {
	name, key := sha1.Sum(w.ca.cert.RawSubject), sha1.Sum(spkiBits(w.t, w.ca.cert))
	return &madeRequest{hash: hashSHA1, nameHash: derOctets(name[:]), keyHash: derOctets(key[:]), serial: derBig(w.leafs[2].SerialNumber)}
}

func (m *madeRequest) der() []byte {
	id := m.certID
	if id == nil {
		id = derSeq(m.hash, m.nameHash, m.keyHash, m.serial)
	}
	list := m.list
	if list == nil {
		list = derSeq(derSeq(id, m.one))
	}
	out := derSeq(derSeq(m.version, m.name, list, m.exts, m.tail), m.outer)
	if m.after != nil {
		out = m.after(out)
	}
	return out
}

// request gives the request as a whole.
func wholeRequest(b []byte) func(*crlWorld, *madeRequest) {
	return func(_ *crlWorld, m *madeRequest) { m.after = func([]byte) []byte { return b } }
}

func edited(f func([]byte) []byte) func(*crlWorld, *madeRequest) {
	return func(_ *crlWorld, m *madeRequest) { m.after = f }
}

// exts gives the request extensions.
func withExts(exts ...[]byte) func(*crlWorld, *madeRequest) {
	return func(_ *crlWorld, m *madeRequest) { m.exts = derCtx(2, derSeq(exts...)) }
}

func singleExts(exts ...[]byte) func(*crlWorld, *madeRequest) {
	return func(_ *crlWorld, m *madeRequest) { m.one = derCtx(0, derSeq(exts...)) }
}

func signedBy(parts ...[]byte) func(*crlWorld, *madeRequest) {
	return func(_ *crlWorld, m *madeRequest) { m.outer = derCtx(0, parts...) }
}

const (
	malformedRequest = "malformedRequest"
	unauthorized     = "unauthorized"
)

var malformedRequests = []struct {
	name, want string
	do         func(*crlWorld, *madeRequest)
}{
	// The octets.
	{"empty", malformedRequest, wholeRequest(nil)},
	{"one octet", malformedRequest, wholeRequest([]byte{0x30})},
	{"empty sequence", malformedRequest, wholeRequest(derSeq())},
	{"text", malformedRequest, wholeRequest([]byte("GET / HTTP/1.1\r\n\r\n"))},
	{"too large", malformedRequest, edited(func([]byte) []byte { return make([]byte, certs.MaxOCSPRequest+1) })},
	{"too large, and right", malformedRequest, withExts(derExt(oidUnknown, make([]byte, certs.MaxOCSPRequest)))},
	{"octet after it", malformedRequest, edited(func(b []byte) []byte { return append(b, 0) })},
	{"two requests", malformedRequest, edited(func(b []byte) []byte { return append(b, b...) })},
	{"cut by one", malformedRequest, edited(func(b []byte) []byte { return b[:len(b)-1] })},
	{"cut in half", malformedRequest, edited(func(b []byte) []byte { return b[:len(b)/2] })},
	{"a SET", malformedRequest, edited(func(b []byte) []byte { b[0] = 0x31; return b })},
	{"primitive SEQUENCE", malformedRequest, edited(func(b []byte) []byte { b[0] = 0x10; return b })},
	{"indefinite length", malformedRequest, edited(func(b []byte) []byte { return append(append([]byte{0x30, 0x80}, b[2:]...), 0, 0) })},
	{"length not the shortest", malformedRequest, edited(func(b []byte) []byte { return append([]byte{0x30, 0x81, b[1]}, b[2:]...) })},
	{"length beyond the octets", malformedRequest, edited(func(b []byte) []byte { b[1]++; return b })},
	{"length of four gibibytes", malformedRequest, wholeRequest([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0x30})},
	{"high tag number", malformedRequest, edited(func(b []byte) []byte { return append([]byte{0x3f, 0x10}, b[1:]...) })},
	{"an OCSP response", malformedRequest, wholeRequest(ocsp.TryLaterErrorResponse)},
	{"a certificate", malformedRequest, func(w *crlWorld, m *madeRequest) { m.after = func([]byte) []byte { return w.leafs[2].Raw } }},
	{"base64", malformedRequest, wholeRequest([]byte("MEIwQDA+MDwwOjAJBgUrDgMCGgUABBQ="))},
	{"nested a thousand deep", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		b := derNull()
		for range 1000 {
			b = derSeq(b)
		}
		m.after = func([]byte) []byte { return b }
	}},

	// The frame.
	{"without TBSRequest", malformedRequest, edited(func(b []byte) []byte { return derSeq(derCtx(0, derNull())) })},
	{"TBSRequest twice", malformedRequest, edited(func(b []byte) []byte { return derSeq(b[2:], b[2:]) })},
	{"TBSRequest empty", malformedRequest, edited(func([]byte) []byte { return derSeq(derSeq()) })},
	{"TBSRequest as octets", malformedRequest, edited(func(b []byte) []byte { return derSeq(derOctets(b[4:])) })},
	{"something after TBSRequest", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.outer = derNull() }},
	{"version v1 written out", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.version = derCtx(0, derInt(0)) }},
	{"version v2", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.version = derCtx(0, derInt(1)) }},
	{"version without its tag", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.version = derInt(0) }},
	{"version after the name", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.name = slices.Concat(derCtx(1, tlv(0x86, []byte("urn:x"))), derCtx(0, derInt(0)))
	}},
	{"name empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.name = derCtx(1) }},
	{"two names", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.name = derCtx(1, tlv(0x86, []byte("urn:x")), tlv(0x86, []byte("urn:y")))
	}},
	{"name of a kind that does not exist", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.name = derCtx(1, tlv(0x89, []byte("x"))) }},
	{"name is text", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.name = derCtx(1, tlv(0x0c, []byte("x"))) }},
	{"name cut", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.name = derCtx(1, []byte{0x86, 5, 'u'}) }},
	{"name implicit", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.name = tlv(0x81, []byte("x")) }},
	{"no list, but extensions", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.list, m.exts = []byte{}, derCtx(2, derSeq(fittingNonce))
	}},
	{"list empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.list = derSeq() }},
	{"list of two", malformedRequest, func(w *crlWorld, m *madeRequest) {
		one := derSeq(derSeq(m.hash, m.nameHash, m.keyHash, m.serial))
		m.list = derSeq(one, one)
	}},
	{"list of a number", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.list = derSeq(derInt(1)) }},
	{"list is a SET", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.list = derSet(derSeq(derSeq(m.hash, m.nameHash, m.keyHash, m.serial)))
	}},
	{"list twice", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		list := derSeq(derSeq(derSeq(m.hash, m.nameHash, m.keyHash, m.serial)))
		m.list = slices.Concat(list, list)
	}},
	{"CertID in the place of a request", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.list = derSeq(derSeq(m.hash, m.nameHash, m.keyHash, m.serial))
	}},
	{"something after the extensions", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.tail = derNull() }},
	{"extensions before the list", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.name = derCtx(2, derSeq(fittingNonce)) }},

	// The CertID.
	{"CertID empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.certID = derSeq() }},
	{"CertID as octets", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.certID = derOctets(m.hash, m.nameHash, m.keyHash, m.serial)
	}},
	{"CertID with a part more", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.certID = derSeq(m.hash, m.nameHash, m.keyHash, m.serial, derNull())
	}},
	{"CertID without a hash algorithm", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.hash = nil }},
	{"CertID without a name hash", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.nameHash = nil }},
	{"CertID without a serial", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = nil }},
	{"CertID with the serial first", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.certID = derSeq(m.serial, m.hash, m.nameHash, m.keyHash)
	}},
	{"hash algorithm empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.hash = derSeq() }},
	{"hash algorithm bare", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.hash = derOID(1, 3, 14, 3, 2, 26) }},
	{"hash algorithm MD5", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.hash, m.nameHash, m.keyHash = derSeq(derOID(1, 2, 840, 113549, 2, 5), derNull()), derOctets(make([]byte, 16)), derOctets(make([]byte, 16))
	}},
	{"hash algorithm SHA-512", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.hash, m.nameHash, m.keyHash = derSeq(derOID(2, 16, 840, 1, 101, 3, 4, 2, 3), derNull()), derOctets(make([]byte, 64)), derOctets(make([]byte, 64))
	}},
	{"hash algorithm of a signature", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.hash = algES256 }},
	{"hash algorithm with octets for parameters", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.hash = derSeq(derOID(1, 3, 14, 3, 2, 26), derOctets([]byte{1}))
	}},
	{"hash algorithm with two parameters", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.hash = derSeq(derOID(1, 3, 14, 3, 2, 26), derNull(), derNull())
	}},
	{"hash algorithm with a NULL of one octet", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.hash = derSeq(derOID(1, 3, 14, 3, 2, 26), []byte{5, 1, 0})
	}},
	{"hash algorithm with an empty OID", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.hash = derSeq([]byte{6, 0}, derNull()) }},
	{"hash algorithm with an OID that is cut", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.hash = derSeq([]byte{6, 2, 0x2b, 0x8e}, derNull())
	}},
	{"name hash empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.nameHash = derOctets() }},
	{"name hash too short", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.nameHash = derOctets(make([]byte, 19)) }},
	{"name hash too long", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.nameHash = derOctets(make([]byte, 32)) }},
	{"name hash as bits", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.nameHash = derBits(make([]byte, 20)) }},
	{"key hash empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.keyHash = derOctets() }},
	{"key hash too short", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.keyHash = derOctets(make([]byte, 8)) }},
	{"key hash too long", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.keyHash = derOctets(make([]byte, 21)) }},
	{"key hash is a key identifier in context", malformedRequest, func(w *crlWorld, m *madeRequest) {
		m.keyHash = tlv(0x80, make([]byte, 20))
	}},
	{"hashes of SHA-1 that are called SHA-256", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.hash = hashSHA256 }},
	{"serial empty", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = []byte{2, 0} }},
	{"serial not the shortest", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = []byte{2, 2, 0, 1} }},
	{"serial not the shortest, negative", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = []byte{2, 2, 0xff, 0xff} }},
	{"serial of 21 octets", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = derBig(new(big.Int).Lsh(big.NewInt(1), 160)) }},
	{"serial of a thousand octets", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.serial = derBig(new(big.Int).Lsh(big.NewInt(1), 8000))
	}},
	{"serial as octets", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = derOctets([]byte{1}) }},
	{"serial an ENUMERATED", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = derEnum(1) }},
	{"serial as text", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.serial = tlv(0x13, []byte("1")) }},

	// Extensions of the one certificate.
	{"something after the CertID", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.one = derNull() }},
	{"single extensions empty", malformedRequest, singleExts()},
	{"single extensions are octets", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.one = derCtx(0, derOctets()) }},
	{"single extensions with another tag", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.one = derCtx(1, derSeq(derExt(oidUnknown, derNull()))) }},
	{"single extension unknown and critical", malformedRequest, singleExts(derCritical(oidUnknown, derNull()))},
	{"single extension twice", malformedRequest, singleExts(derExt(oidUnknown, derNull()), derExt(oidUnknown, derNull()))},
	{"single extension without value", malformedRequest, singleExts(derSeq(oidUnknown))},
	{"single extensions twice", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		e := derCtx(0, derSeq(derExt(oidUnknown, derNull())))
		m.one = slices.Concat(e, e)
	}},

	// Extensions of the request.
	{"extensions empty", malformedRequest, withExts()},
	{"extensions without their sequence", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.exts = derCtx(2) }},
	{"extensions implicit", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.exts = derCtx(2, fittingNonce) }},
	{"extensions with octets after them", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		m.exts = derCtx(2, derSeq(fittingNonce), derNull())
	}},
	{"extensions with the tag of a response", malformedRequest, func(_ *crlWorld, m *madeRequest) { m.exts = derCtx(1, derSeq(fittingNonce)) }},
	{"65 extensions", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		var all [][]byte
		for n := range 65 {
			all = append(all, derExt(derOID(1, 3, 6, 1, 4, 1, 32473, 7, n), derNull()))
		}
		m.exts = derCtx(2, derSeq(all...))
	}},
	{"extension unknown and critical", malformedRequest, withExts(derCritical(oidUnknown, derNull()))},
	{"extension unknown, twice", malformedRequest, withExts(derExt(oidUnknown, derNull()), derExt(oidUnknown, derNull()))},
	{"extension without an identifier", malformedRequest, withExts(derSeq(derOctets(derNull())))},
	{"extension without a value", malformedRequest, withExts(derSeq(oidUnknown, derBool(0xff)))},
	{"extension with a part more", malformedRequest, withExts(derSeq(oidUnknown, derOctets(), derNull()))},
	{"extension critical by a BOOLEAN of 1", malformedRequest, withExts(derSeq(oidNonce, derBool(1), derOctets(derOctets([]byte{7}))))},
	{"extension critical by a BOOLEAN of two octets", malformedRequest, withExts(derSeq(oidNonce, []byte{1, 2, 0xff, 0xff}, derOctets(derOctets([]byte{7}))))},
	{"extension value as bits", malformedRequest, withExts(derSeq(oidUnknown, derBits([]byte{1})))},

	// The nonce.
	{"nonce twice", malformedRequest, withExts(fittingNonce, fittingNonce)},
	{"nonce without its own octets", malformedRequest, withExts(derExt(oidNonce, bytes.Repeat([]byte{7}, 32)))},
	{"nonce empty", malformedRequest, withExts(derExt(oidNonce, derOctets()))},
	{"nonce without content", malformedRequest, withExts(derExt(oidNonce, nil))},
	{"nonce of 129 octets", malformedRequest, withExts(derExt(oidNonce, derOctets(make([]byte, 129))))},
	{"nonce with octets after it", malformedRequest, withExts(derExt(oidNonce, append(derOctets([]byte{7}), 0)))},
	{"nonce an INTEGER", malformedRequest, withExts(derExt(oidNonce, derInt(7)))},
	{"nonce cut", malformedRequest, withExts(derExt(oidNonce, []byte{4, 32, 7}))},

	// The signature, which nobody asks for.
	{"signature empty", malformedRequest, signedBy()},
	{"signature is octets", malformedRequest, signedBy(derOctets([]byte{1}))},
	{"signature without bits", malformedRequest, signedBy(derSeq(algES256))},
	{"signature without an algorithm", malformedRequest, signedBy(derSeq(derBits([]byte{1})))},
	{"signature with a part more", malformedRequest, signedBy(derSeq(algES256, derBits([]byte{1}), derNull()))},
	{"signature with certificates as octets", malformedRequest, signedBy(derSeq(algES256, derBits([]byte{1}), derCtx(0, derOctets())))},
	{"signature with certificates twice", malformedRequest, signedBy(derSeq(algES256, derBits([]byte{1}), derCtx(0, derSeq(), derSeq())))},
	{"signature twice", malformedRequest, func(_ *crlWorld, m *madeRequest) {
		s := derCtx(0, derSeq(algES256, derBits([]byte{1})))
		m.outer = slices.Concat(s, s)
	}},

	// Whom it asks about.
	{"issuer of another name", unauthorized, func(_ *crlWorld, m *madeRequest) { m.nameHash = derOctets(make([]byte, 20)) }},
	{"issuer with another key", unauthorized, func(_ *crlWorld, m *madeRequest) { m.keyHash = derOctets(make([]byte, 20)) }},
	{"name and key exchanged", unauthorized, func(_ *crlWorld, m *madeRequest) { m.nameHash, m.keyHash = m.keyHash, m.nameHash }},
	{"hash of the SubjectPublicKeyInfo", unauthorized, func(w *crlWorld, m *madeRequest) {
		sum := sha1.Sum(w.ca.cert.RawSubjectPublicKeyInfo)
		m.keyHash = derOctets(sum[:])
	}},
	{"the root's certificates", unauthorized, func(w *crlWorld, m *madeRequest) {
		name, key := sha1.Sum(w.ca.rootCert.RawSubject), sha1.Sum(spkiBits(w.t, w.ca.rootCert))
		m.nameHash, m.keyHash = derOctets(name[:]), derOctets(key[:])
	}},
	{"never issued", "unknown", func(_ *crlWorld, m *madeRequest) { m.serial = derInt(12345) }},
	{"serial zero", "unknown", func(_ *crlWorld, m *madeRequest) { m.serial = derInt(0) }},
	{"serial negative", "unknown", func(w *crlWorld, m *madeRequest) { m.serial = derBig(new(big.Int).Neg(w.leafs[2].SerialNumber)) }},
	{"revoked", "revoked", func(w *crlWorld, m *madeRequest) { m.serial = derBig(w.leafs[0].SerialNumber) }},
}

var unusualRequests = []struct {
	name string
	do   func(*crlWorld, *madeRequest)
}{
	{"as it is", func(*crlWorld, *madeRequest) {}},
	{"hash algorithm without parameters", func(_ *crlWorld, m *madeRequest) { m.hash = derSeq(derOID(1, 3, 14, 3, 2, 26)) }},
	{"SHA-256", func(w *crlWorld, m *madeRequest) {
		name, key := sha256.Sum256(w.ca.cert.RawSubject), sha256.Sum256(spkiBits(w.t, w.ca.cert))
		m.hash, m.nameHash, m.keyHash = hashSHA256, derOctets(name[:]), derOctets(key[:])
	}},
	{"nonce", withExts(fittingNonce)},
	{"nonce, critical", withExts(derCritical(oidNonce, derOctets([]byte{7})))},
	{"nonce of 128 octets", withExts(derExt(oidNonce, derOctets(make([]byte, 128))))},
	{"acceptable responses", withExts(derExt(derOID(1, 3, 6, 1, 5, 5, 7, 48, 1, 4), derSeq(derOID(1, 3, 6, 1, 5, 5, 7, 48, 1, 1))), fittingNonce)},
	{"single extension, not critical", singleExts(derExt(oidUnknown, derNull()))},
	{"name", func(_ *crlWorld, m *madeRequest) { m.name = derCtx(1, derCtx(4, derSeq())) }},
	{"signature", signedBy(derSeq(algES256, derBits([]byte{1}), derCtx(0, derSeq())))},
}

// outcome is what a responder makes of a request.
func (w *crlWorld) outcome(r *certs.Responder, request []byte) string {
	w.t.Helper()
	der, err := r.Respond(w.t.Context(), request)
	must(w.t, err)
	resp, err := ocsp.ParseResponse(der, w.ca.cert)
	var failure ocsp.ResponseError
	switch {
	case errors.As(err, &failure):
		return map[ocsp.ResponseStatus]string{ocsp.Malformed: malformedRequest, ocsp.Unauthorized: unauthorized}[failure.Status]
	case err != nil:
		w.t.Fatal(err)
	}
	return map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}[resp.Status]
}

func TestMalformedOCSPRequests(t *testing.T) {
	if n := len(malformedRequests); n < 100 {
		t.Fatalf("only %d cases", n)
	}
	w := newCRLWorld(t, t0)
	must(t, w.revoke(0, certs.KeyCompromise))
	r := w.responder(false)
	seen := map[string]string{}
	for _, c := range malformedRequests {
		t.Run(c.name, func(t *testing.T) {
			m := newMadeRequest(w)
			c.do(w, m)
			der := m.der()
			if other := seen[string(der)]; other != "" {
				t.Errorf("the same octets as %q", other)
			}
			seen[string(der)] = c.name
			if got := w.outcome(r, der); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
	for _, c := range unusualRequests {
		t.Run(c.name, func(t *testing.T) {
			m := newMadeRequest(w)
			c.do(w, m)
			if got := w.outcome(r, m.der()); got != "good" {
				t.Errorf("%s, want good", got)
			}
		})
	}
}

// A madeResponse is an OCSP response, made and signed octet for octet.
type madeResponse struct {
	status, kind                             []byte
	version, responder, produced             []byte
	certID, state, this, next, single, after []byte
	exts, tail                               []byte
	alg                                      []byte
	certs, basicTail                         []byte
}

func newMadeResponse(w *crlWorld) *madeResponse {
	m := newMadeRequest(w)
	key := sha1.Sum(spkiBits(w.t, w.ca.cert))
	return &madeResponse{
		status: derEnum(0), kind: derOID(1, 3, 6, 1, 5, 5, 7, 48, 1, 1), responder: derCtx(2, derOctets(key[:])), produced: derGeneralized(t0),
		certID: derSeq(m.hash, m.nameHash, m.keyHash, m.serial), state: tlv(0x80), this: derGeneralized(t0), next: derCtx(0, derGeneralized(t0.Add(time.Hour))), alg: algES256,
	}
}

func (m *madeResponse) der(w *crlWorld) []byte {
	w.t.Helper()
	data := derSeq(m.version, m.responder, m.produced, derSeq(derSeq(m.certID, m.state, m.this, m.next, m.single), m.after), m.exts, m.tail)
	sum := sha256.Sum256(data)
	sig, err := w.ca.key.Sign(nil, sum[:], crypto.SHA256)
	must(w.t, err)
	basic := derSeq(data, m.alg, derBits(sig), m.certs, m.basicTail)
	return derSeq(m.status, derCtx(0, derSeq(m.kind, derOctets(basic))))
}

func TestMalformedOCSPResponses(t *testing.T) {
	w := newCRLWorld(t, t0)
	must(t, w.check(newMadeResponse(w).der(w), 2, nil))
	once := func(m *madeResponse) []byte { return derSeq(m.certID, m.state, m.this, m.next) }
	for name, do := range map[string]func(m *madeResponse){
		"status as INTEGER":             func(m *madeResponse) { m.status = derInt(0) },
		"status unknown":                func(m *madeResponse) { m.status = derEnum(9) },
		"status failure, and an answer": func(m *madeResponse) { m.status = derEnum(3) },
		"type unknown":                  func(m *madeResponse) { m.kind = oidUnknown },
		"type missing":                  func(m *madeResponse) { m.kind = nil },
		"version written out":           func(m *madeResponse) { m.version = derCtx(0, derInt(0)) },
		"version v2":                    func(m *madeResponse) { m.version = derCtx(0, derInt(1)) },
		"responder missing":             func(m *madeResponse) { m.responder = nil },
		"responder by another key":      func(m *madeResponse) { m.responder = derCtx(2, derOctets(make([]byte, 20))) },
		"responder by no octets":        func(m *madeResponse) { m.responder = derCtx(2, derOctets()) },
		"responder by another name":     func(m *madeResponse) { m.responder = derCtx(1, derSeq()) },
		"responder by nothing":          func(m *madeResponse) { m.responder = derCtx(1) },
		"responder by a third kind":     func(m *madeResponse) { m.responder = derCtx(3, derOctets()) },
		"produced in UTCTime":           func(m *madeResponse) { m.produced = derUTC(t0) },
		"produced missing":              func(m *madeResponse) { m.produced = nil },
		"two certificates":              func(m *madeResponse) { m.after = once(m) },
		"CertID of MD5": func(m *madeResponse) {
			m.certID = derSeq(derSeq(derOID(1, 2, 840, 113549, 2, 5)), derOctets(), derOctets(), derInt(1))
		},
		"CertID missing":                          func(m *madeResponse) { m.certID = nil },
		"good with a reason":                      func(m *madeResponse) { m.state = tlv(0x80, derEnum(1)) },
		"good explicit":                           func(m *madeResponse) { m.state = derCtx(0, derNull()) },
		"unknown with a reason":                   func(m *madeResponse) { m.state = tlv(0x82, derEnum(1)) },
		"unknown":                                 func(m *madeResponse) { m.state = tlv(0x82) },
		"a fourth state":                          func(m *madeResponse) { m.state = tlv(0x83) },
		"state missing":                           func(m *madeResponse) { m.state = nil },
		"revoked at no time":                      func(m *madeResponse) { m.state = derCtx(1) },
		"revoked with two reasons":                func(m *madeResponse) { m.state = derCtx(1, derGeneralized(t0), derCtx(0, derEnum(1), derEnum(1))) },
		"revoked for a reason that is an INTEGER": func(m *madeResponse) { m.state = derCtx(1, derGeneralized(t0), derCtx(0, derInt(1))) },
		"this update missing":                     func(m *madeResponse) { m.this = nil },
		"next update before this": func(m *madeResponse) {
			m.this, m.next = derGeneralized(t0.Add(30*time.Second)), derCtx(0, derGeneralized(t0.Add(20*time.Second)))
		},
		"next update implicit":             func(m *madeResponse) { m.next = tlv(0x80, []byte("20261120130000Z")) },
		"next update twice":                func(m *madeResponse) { m.next = append(m.next, m.next...) },
		"single extension critical":        func(m *madeResponse) { m.single = derCtx(1, derSeq(derCritical(oidUnknown, derNull()))) },
		"single extensions empty":          func(m *madeResponse) { m.single = derCtx(1, derSeq()) },
		"extension critical":               func(m *madeResponse) { m.exts = derCtx(1, derSeq(derCritical(oidUnknown, derNull()))) },
		"extension twice":                  func(m *madeResponse) { m.exts = derCtx(1, derSeq(fittingNonce, fittingNonce)) },
		"something after the extensions":   func(m *madeResponse) { m.tail = derNull() },
		"algorithm of another hash":        func(m *madeResponse) { m.alg = derSeq(derOID(1, 2, 840, 10045, 4, 3, 3)) },
		"algorithm with a parameter":       func(m *madeResponse) { m.alg = derSeq(derOID(1, 2, 840, 10045, 4, 3, 2), derInt(1)) },
		"algorithm SHA-1":                  func(m *madeResponse) { m.alg = derSeq(derOID(1, 2, 840, 10045, 4, 1)) },
		"algorithm empty":                  func(m *madeResponse) { m.alg = derSeq() },
		"certificates that are none":       func(m *madeResponse) { m.certs = derCtx(0, derSeq(derSeq(derInt(1)))) },
		"certificates as octets":           func(m *madeResponse) { m.certs = derCtx(0, derOctets()) },
		"something after the certificates": func(m *madeResponse) { m.basicTail = derNull() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMadeResponse(w)
			do(m)
			wantCode(t, w.check(m.der(w), 2, nil), unavailable)
		})
	}
	// An answer that says "revoked" is never less, whatever the reason.
	for _, reason := range []byte{0, 1, 7, 8, 11, 0x80} {
		m := newMadeResponse(w)
		m.state = derCtx(1, derGeneralized(t0), derCtx(0, derEnum(reason)))
		wantCode(t, w.check(m.der(w), 2, nil), credentials.CodeRevoked)
	}
}
