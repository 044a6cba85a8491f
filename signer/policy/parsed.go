package policy

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/signer"
)

// Describe sets Request and the variable of the request's shape.
func (in *Input) Describe(r *signer.Request) error {
	in.Request = Request{Operation: "sign", Shape: string(r.Shape()), Type: r.Type(), Size: int64(len(r.Octets()))}
	switch p := r.Parsed().(type) {
	case *signer.MLSContent:
		in.MLS = describeMLS(p)
	case *signer.JWSInput:
		return in.describeJWS(p)
	case *signer.COSEInput:
		return in.describeCOSE(p)
	case *x509.Certificate:
		in.Certificate = describeCertificate(p)
	case *x509.RevocationList:
		in.CRL = describeCRL(p)
	case *x509.CertificateRequest:
		in.CSR = CSR{Subject: p.Subject.String(), CommonName: p.Subject.CommonName, DNSNames: p.DNSNames,
			Emails: p.EmailAddresses, URIs: uris(p.URIs), IPs: ips(p.IPAddresses)}
	case *ocsp.Response:
		in.OCSP = OCSP{Serial: p.SerialNumber.Text(16), Status: ocspStatus[p.Status], ThisUpdate: p.ThisUpdate, NextUpdate: p.NextUpdate}
	case *signer.TLSContent:
		in.TLS.Role = p.Role
	case *signer.Checkpoint:
		in.Checkpoint = Checkpoint{Origin: p.Origin, Size: p.Size}
	}
	return nil
}

var ocspStatus = map[int]string{ocsp.Good: "good", ocsp.Revoked: "revoked", ocsp.Unknown: "unknown"}

func describeMLS(c *signer.MLSContent) MLS {
	m := MLS{Label: c.Label}
	f := c.Fields
	if f == nil {
		return m
	}
	m.Group, m.Epoch, m.HasEpoch, m.CipherSuite = f.Group, f.Epoch, f.HasEpoch, int64(f.CipherSuite)
	m.WireFormat, m.Sender, m.SenderIndex = int64(f.WireFormat), f.Sender, int64(f.SenderIndex)
	m.ContentType, m.ProposalType, m.HasPath = f.ContentType, int64(f.ProposalType), f.HasPath
	m.Leaf, m.NotBefore, m.NotAfter = f.Leaf, clampSeconds(f.NotBefore), clampSeconds(f.NotAfter)
	if f.Credential != nil {
		m.CredentialType, m.Identity = int64(f.Credential.Type), f.Credential.Identity
	}
	return m
}

// clampSeconds keeps an endless lifetime from becoming one in the past.
func clampSeconds(s uint64) int64 { return int64(min(s, 1<<62)) }

func describeCRL(l *x509.RevocationList) CRL {
	c := CRL{Issuer: l.Issuer.String(), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Revoked: int64(len(l.RevokedCertificateEntries))}
	if l.Number != nil {
		c.Number = l.Number.String()
	}
	return c
}

func describeCertificate(c *x509.Certificate) Certificate {
	d := Certificate{
		Serial: c.SerialNumber.Text(16), Subject: c.Subject.String(), CommonName: c.Subject.CommonName, Issuer: c.Issuer.String(),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, IsCA: c.IsCA, MaxPathLen: -1,
		DNSNames: c.DNSNames, Emails: c.EmailAddresses, URIs: uris(c.URIs), IPs: ips(c.IPAddresses),
		KeyUsage: keyUsages(c.KeyUsage), KeyType: keyType(c.PublicKey),
	}
	if c.MaxPathLen > 0 || c.MaxPathLenZero {
		d.MaxPathLen = int64(c.MaxPathLen)
	}
	for _, u := range c.ExtKeyUsage {
		d.ExtKeyUsage = append(d.ExtKeyUsage, extKeyUsage(u))
	}
	for _, u := range c.UnknownExtKeyUsage {
		d.ExtKeyUsage = append(d.ExtKeyUsage, u.String())
	}
	return d
}

func uris(in []*url.URL) []string {
	var out []string
	for _, u := range in {
		out = append(out, u.String())
	}
	return out
}

func ips(in []net.IP) []string {
	var out []string
	for _, ip := range in {
		out = append(out, ip.String())
	}
	return out
}

// Names of RFC 5280 sections 4.2.1.3 and 4.2.1.12.
var (
	usageNames = []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment",
		"keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}
	extUsageNames = map[x509.ExtKeyUsage]string{
		x509.ExtKeyUsageAny: "anyExtendedKeyUsage", x509.ExtKeyUsageServerAuth: "serverAuth", x509.ExtKeyUsageClientAuth: "clientAuth",
		x509.ExtKeyUsageCodeSigning: "codeSigning", x509.ExtKeyUsageEmailProtection: "emailProtection",
		x509.ExtKeyUsageTimeStamping: "timeStamping", x509.ExtKeyUsageOCSPSigning: "OCSPSigning",
	}
)

func keyUsages(u x509.KeyUsage) []string {
	var out []string
	for i, name := range usageNames {
		if u&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

func extKeyUsage(u x509.ExtKeyUsage) string {
	if name, ok := extUsageNames[u]; ok {
		return name
	}
	return fmt.Sprintf("usage-%d", u)
}

func keyType(pub crypto.PublicKey) string {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return pub.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	case *ecdh.PublicKey:
		return "X25519"
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", pub.N.BitLen())
	}
	return "unknown"
}
