package tpm

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Object identifiers of the TCG EK Credential Profile 2.5.
var (
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEKCertificate   = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate, 3.2.16
	oidTPMManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1} // 3.1.2
	oidTPMModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidTPMVersion      = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
)

// An EKCertificate is a verified endorsement certificate and what it says
// about the TPM.
type EKCertificate struct {
	Certificate  *x509.Certificate
	Manufacturer string // as in "id:53544D20"
	Model        string
	Version      string // of the firmware
}

// EKOptions says which endorsement certificates are believed.
type EKOptions struct {
	Roots         *x509.CertPool // required
	Intermediates *x509.CertPool
	Time          time.Time // now, if zero
}

func (v *Verifier) verifyEK(e *Evidence) (*EKCertificate, error) {
	return VerifyEKCertificate(e.EK, e.EKCertificates, EKOptions{Roots: v.EKRoots, Intermediates: v.EKIntermediates, Time: v.Time})
}

// VerifyEKCertificate checks that a chain of certificates (DER, the endorsement
// key's first) leads to a root and speaks of the endorsement key given by its
// TPMT_PUBLIC.
func VerifyEKCertificate(ekPublic []byte, chain [][]byte, opts EKOptions) (*EKCertificate, error) {
	if opts.Roots == nil {
		return nil, refuse("ek-chain", "no roots were given")
	}
	if len(chain) == 0 || len(chain) > maxCertificates {
		return nil, refuse("ek-chain", "%d certificates", len(chain))
	}
	leaf, intermediates, err := parseChain(chain, opts.Intermediates)
	if err != nil {
		return nil, err
	}
	if err := checkEKMatches(ekPublic, leaf); err != nil {
		return nil, err
	}
	ek, err := readEKCertificate(leaf)
	if err != nil {
		return nil, err
	}
	// Go leaves a critical subjectAltName without names that it knows to the
	// caller, who has read it above.
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), oidSubjectAltName.Equal)
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots: opts.Roots, Intermediates: intermediates, CurrentTime: opts.Time,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, refuse("ek-chain", "%w", err)
	}
	return ek, nil
}

func parseChain(chain [][]byte, more *x509.CertPool) (*x509.Certificate, *x509.CertPool, error) {
	intermediates := x509.NewCertPool()
	if more != nil {
		intermediates = more.Clone()
	}
	var leaf *x509.Certificate
	for i, der := range chain {
		if len(der) > maxCertificate {
			return nil, nil, refuse("ek-chain", "a certificate of %d octets", len(der))
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, refuse("ek-chain", "%w", err)
		}
		if i == 0 {
			leaf = c
		} else {
			intermediates.AddCert(c)
		}
	}
	return leaf, intermediates, nil
}

// checkEKMatches checks that the key is an endorsement key and that of the
// certificate.
func checkEKMatches(ekPublic []byte, leaf *x509.Certificate) error {
	public, _, err := readPublicArea(ekPublic)
	if err != nil {
		return refuse("ek", "%w", err)
	}
	if err := checkEKAttributes(public); err != nil {
		return refuse("ek", "%w", err)
	}
	key, err := anyPublicKey(public)
	if err != nil {
		return refuse("ek", "%w", err)
	}
	if k, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !k.Equal(key) {
		return refuse("ek", "the certificate is for another key")
	}
	return nil
}

// checkEKAttributes: an endorsement key decrypts what the TPM may know and
// nothing else, and cannot leave it.
func checkEKAttributes(public *tpm2.TPMTPublic) error {
	a := attributesOf(public)
	if !a.Restricted || !a.Decrypt || a.Sign || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return fmt.Errorf("not an endorsement key: %+v", a)
	}
	return nil
}

// anyPublicKey is publicKey, for RSA too.
func anyPublicKey(public *tpm2.TPMTPublic) (crypto.PublicKey, error) {
	if public.Type != tpm2.TPMAlgRSA {
		return publicKey(public)
	}
	k, err := tpm2.Pub(*public)
	if err != nil {
		return nil, err
	}
	if r, ok := k.(*rsa.PublicKey); !ok || r.N.BitLen() < 2048 {
		return nil, errors.New("an RSA key of less than 2048 bits")
	}
	return k, nil
}

// readEKCertificate checks what the profile asks of the certificate itself and
// reads the TPM's description out of its subjectAltName (3.1.2 and 3.2.9).
func readEKCertificate(c *x509.Certificate) (*EKCertificate, error) {
	if c.IsCA {
		return nil, refuse("ek-certificate", "it is a CA certificate")
	}
	if !slices.ContainsFunc(c.UnknownExtKeyUsage, oidEKCertificate.Equal) {
		return nil, refuse("ek-certificate", "the extended key usage tcg-kp-EKCertificate (2.23.133.8.1) is missing")
	}
	ek := &EKCertificate{Certificate: c}
	for _, ext := range c.Extensions {
		if ext.Id.Equal(oidSubjectAltName) {
			if err := ek.readName(ext.Value); err != nil {
				return nil, refuse("ek-certificate", "subjectAltName: %w", err)
			}
		}
	}
	if ek.Manufacturer == "" {
		return nil, refuse("ek-certificate", "the subjectAltName does not name the TPM's manufacturer")
	}
	return ek, nil
}

// readName reads the directoryName of a subjectAltName.
//
//	SubjectAltName ::= SEQUENCE SIZE (1..MAX) OF GeneralName  /* RFC 5280, 4.2.1.6 */
//	directoryName      [4] Name
func (ek *EKCertificate) readName(der []byte) error {
	in := cryptobyte.String(der)
	var names cryptobyte.String
	if !in.ReadASN1(&names, cbasn1.SEQUENCE) || !in.Empty() {
		return errors.New("no SEQUENCE")
	}
	directory := cbasn1.Tag(4).Constructed().ContextSpecific()
	for !names.Empty() {
		var name, rdns cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&name, &tag) {
			return errors.New("no GeneralName")
		}
		if tag != directory {
			continue
		}
		if !name.ReadASN1(&rdns, cbasn1.SEQUENCE) || !name.Empty() {
			return errors.New("no Name")
		}
		if err := ek.readRDNs(rdns); err != nil {
			return err
		}
	}
	return nil
}

func (ek *EKCertificate) readRDNs(rdns cryptobyte.String) error {
	for !rdns.Empty() {
		var set cryptobyte.String
		if !rdns.ReadASN1(&set, cbasn1.SET) {
			return errors.New("no RelativeDistinguishedName")
		}
		for !set.Empty() {
			var pair, value cryptobyte.String
			var id asn1.ObjectIdentifier
			var tag cbasn1.Tag
			if !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&id) || !pair.ReadAnyASN1(&value, &tag) {
				return errors.New("no AttributeTypeAndValue")
			}
			ek.setAttribute(id, string(value))
		}
	}
	return nil
}

func (ek *EKCertificate) setAttribute(id asn1.ObjectIdentifier, value string) {
	switch {
	case id.Equal(oidTPMManufacturer):
		ek.Manufacturer = value
	case id.Equal(oidTPMModel):
		ek.Model = value
	case id.Equal(oidTPMVersion):
		ek.Version = value
	}
}

// ManufacturerName returns the letters that an identifier like "id:53544D20"
// stands for, or the identifier itself.
func (ek *EKCertificate) ManufacturerName() string {
	letters, err := hex.DecodeString(strings.TrimPrefix(ek.Manufacturer, "id:"))
	name := bytes.TrimRight(letters, "\x00 ")
	notPrintable := func(r rune) bool { return r <= 0x20 || r >= 0x7f }
	if err != nil || len(letters) != 4 || len(name) == 0 || bytes.ContainsFunc(name, notPrintable) {
		return ek.Manufacturer
	}
	return string(name)
}
