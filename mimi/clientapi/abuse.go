package clientapi

import (
	"unicode/utf8"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
)

// AbuseVerdicts answer a report, one for each of its messages in their order. A
// hub at another provider does not tell; the answer then has none.
//
//	struct { uint8 accepted; opaque reason<V>; } AbuseVerdict;
//	struct { AbuseVerdict verdicts<V>; } AbuseVerdicts;
type AbuseVerdicts []AbuseVerdict

// An AbuseVerdict says whether the hub accepted exactly that message from the
// accused, in that room, at that time.
type AbuseVerdict struct {
	Accepted bool
	Reason   mimi.FrankReason // why not; empty if it did
}

func (v *AbuseVerdicts) append(b *tlsvec.Builder) {
	appendList(b, *v, func(b *tlsvec.Builder, a AbuseVerdict) {
		b.Optional(a.Accepted)
		b.String(string(a.Reason))
	})
}

func (v *AbuseVerdicts) read(r *tlsvec.Reader) {
	*v = readList(r, "verdicts", MaxAbuseVerdicts, func(r *tlsvec.Reader) AbuseVerdict {
		a := AbuseVerdict{readBool(r), mimi.FrankReason(readBounded(r, "reason", 64))}
		if !utf8.ValidString(string(a.Reason)) || a.Accepted != (a.Reason == "") {
			r.Fail("verdict and reason disagree")
		}
		return a
	})
}

// Marshal returns the verdicts' encoding.
func (v AbuseVerdicts) Marshal() []byte { return marshal(&v) }

// ParseAbuseVerdicts decodes verdicts.
func ParseAbuseVerdicts(b []byte) (AbuseVerdicts, error) {
	var v AbuseVerdicts
	return v, parse("AbuseVerdicts", b, &v)
}
