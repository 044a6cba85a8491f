package service

import (
	"crypto/x509"
	"encoding/hex"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/signer"
)

// summarise names the few parsed fields by which a person recognises a request
// in the journal. Contents are not among them: a journal is read by many.
func summarise(req *signer.Request) any {
	switch p := req.Parsed().(type) {
	case *signer.MLSContent:
		return summariseMLS(p.Fields)
	case *signer.JWSInput:
		return map[string]any{"alg": p.Alg}
	case *signer.COSEInput:
		return map[string]any{"alg": p.Alg}
	case *x509.Certificate:
		return map[string]any{"serial": p.SerialNumber.Text(16), "subject": p.Subject.String(), "not_after": p.NotAfter.UTC(), "ca": p.IsCA}
	case *x509.RevocationList:
		m := map[string]any{"this_update": p.ThisUpdate.UTC(), "revoked": len(p.RevokedCertificateEntries)}
		if p.Number != nil {
			m["number"] = p.Number.String()
		}
		return m
	case *ocsp.Response:
		return map[string]any{"serial": p.SerialNumber.Text(16), "this_update": p.ThisUpdate.UTC()}
	case *signer.Checkpoint:
		return map[string]any{"size": p.Size}
	}
	return nil
}

// mlsSummary has its members in the order of their names, as all summaries do.
type mlsSummary struct {
	ContentType string  `json:"content_type,omitempty"`
	Epoch       *uint64 `json:"epoch,omitempty"`
	Group       *string `json:"group,omitempty"`
	Leaf        string  `json:"leaf,omitempty"`
	Sender      *string `json:"sender,omitempty"`
}

func summariseMLS(f *signer.MLSFields) any {
	if f == nil {
		return nil
	}
	m := &mlsSummary{ContentType: f.ContentType, Leaf: f.Leaf}
	if f.HasEpoch {
		group := hex.EncodeToString(f.Group)
		m.Group, m.Epoch = &group, &f.Epoch
	}
	if f.ContentType != "" {
		m.Sender = &f.Sender
	}
	return m
}
