package sdcwt

import (
	"cmp"
	"math"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// A date is a NumericDate: whole seconds and a fraction in [0, 1). The zero date
// is absent.
type date struct {
	sec  int64
	frac float64
	set  bool
}

func dateOf(t time.Time) date {
	return date{t.Unix(), float64(t.Nanosecond()) / 1e9, true}
}

// dateFrom reads a NumericDate: an untagged integer, or a finite float within
// plus or minus 2^53 (section 5.2).
func dateFrom(v dcbor.Value, where string) (date, error) {
	if !v.Exists() {
		return date{}, nil
	}
	if n, ok := v.Int(); ok {
		return date{sec: n, set: true}, nil
	}
	if v.Kind() == dcbor.Uint {
		return date{sec: math.MaxInt64, set: true}, nil
	}
	if v.Kind() == dcbor.Nint {
		return date{sec: math.MinInt64, set: true}, nil
	}
	f, ok := v.Float()
	if !ok || math.IsNaN(f) || math.Abs(f) > 1<<53 {
		return date{}, credentials.Errorf(credentials.CodeClaimType, where, "a time claim is no integer and no finite float within 2^53")
	}
	whole := math.Floor(f)
	return date{int64(whole), f - whole, true}, nil
}

func (d date) compare(e date) int {
	return cmp.Or(cmp.Compare(d.sec, e.sec), cmp.Compare(d.frac, e.frac))
}

// before and notAfter are true unless both dates exist and the relation does
// not hold.
func (d date) before(e date) bool   { return !d.set || !e.set || d.compare(e) < 0 }
func (d date) notAfter(e date) bool { return !d.set || !e.set || d.compare(e) <= 0 }

// time returns d, or the zero Time if d is absent.
func (d date) time() time.Time {
	if !d.set {
		return time.Time{}
	}
	return time.Unix(d.sec, int64(d.frac*1e9))
}

// lifetime is exp, nbf and iat of one token.
type lifetime struct{ exp, nbf, iat date }

func lifetimeOf(get func(int64) dcbor.Value, where string) (l lifetime, err error) {
	for _, c := range []struct {
		key int64
		to  *date
	}{{ClaimExpires, &l.exp}, {ClaimNotBefore, &l.nbf}, {ClaimIssuedAt, &l.iat}} {
		if *c.to, err = dateFrom(get(c.key), where); err != nil {
			return l, err
		}
	}
	return l, nil
}

// order checks nbf <= iat, nbf < exp, iat < exp, each if both exist.
func (l lifetime) order() bool {
	return l.nbf.notAfter(l.iat) && l.nbf.before(l.exp) && l.iat.before(l.exp)
}

// inside checks that a KBT with lifetime l is valid at no time at which the
// SD-CWT with lifetime c is not (section 9 step 7).
func (l lifetime) inside(c lifetime) bool {
	return l.exp.notAfter(c.exp) && c.nbf.notAfter(l.nbf) && c.iat.notAfter(l.iat) &&
		c.nbf.notAfter(l.iat) && l.nbf.before(c.exp) && l.iat.before(c.exp)
}

// at returns the code of the first rule that does not hold at now, or "".
func (l lifetime) at(now time.Time, skew time.Duration) credentials.Code {
	early, late := dateOf(now.Add(-skew)), dateOf(now.Add(skew))
	switch {
	case !early.before(l.exp):
		return credentials.CodeExpired
	case !l.nbf.notAfter(late):
		return credentials.CodeNotYetValid
	case !l.iat.notAfter(late):
		return credentials.CodeIssuedInFuture
	}
	return ""
}
