package credentials_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/privyseal/privyseal/credentials"
)

func TestAttestationLevels(t *testing.T) {
	for l := credentials.AttestationNone; l <= credentials.AttestationCertified; l++ {
		if got, err := credentials.ParseAttestationLevel(l.String()); err != nil || got != l {
			t.Errorf("%v: parsed as %v, %v", l, got, err)
		}
		ext, ok := l.Extension()
		if ok != (l != credentials.AttestationNone) {
			t.Errorf("%v: extension %v", l, ok)
			continue
		}
		cert := new(x509.Certificate)
		if ok {
			cert.Extensions = []pkix.Extension{ext}
		}
		if got, err := credentials.AttestationOf(cert); err != nil || got != l {
			t.Errorf("%v: read as %v, %v", l, got, err)
		}
	}
	for _, name := range []string{"", "None", "tpm", "stated "} {
		if l, err := credentials.ParseAttestationLevel(name); credentials.CodeOf(err) != credentials.CodeClaimType {
			t.Errorf("%q: %v, %v", name, l, err)
		}
	}
}

func TestAttestationOfRefuses(t *testing.T) {
	good, _ := credentials.AttestationStated.Extension()
	critical := good
	critical.Critical = true
	value := func(b ...byte) pkix.Extension { return pkix.Extension{Id: credentials.OIDAttestation, Value: b} }
	for name, exts := range map[string][]pkix.Extension{
		"two":           {good, good},
		"critical":      {critical},
		"none written":  {value(0x0a, 1, 0)},
		"unknown level": {value(0x0a, 1, 4)},
		"negative":      {value(0x0a, 1, 0xff)},
		"integer":       {value(0x02, 1, 1)},
		"trailing":      {value(0x0a, 1, 1, 0)},
		"empty":         {value()},
		"long form":     {value(0x0a, 2, 0, 1)},
	} {
		if l, err := credentials.AttestationOf(&x509.Certificate{Extensions: exts}); credentials.CodeOf(err) != credentials.CodeMalformed {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}
