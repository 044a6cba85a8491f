package sdjwt

import (
	"encoding/json"
	"math"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// numericDate returns a NumericDate claim in seconds (RFC 7519 section 2):
// any JSON number that is finite as a float64. Comparing floats cannot wrap
// around, however large the number is.
func numericDate(o *jose.Object, where, name string) (seconds float64, there bool, err error) {
	v, there := o.Get(name)
	if !there {
		return 0, false, nil
	}
	n, ok := v.(json.Number)
	if ok {
		seconds, err = n.Float64()
	}
	if !ok || err != nil || math.IsInf(seconds, 0) {
		return 0, true, credentials.Errorf(credentials.CodeClaimType, where+"."+name, "not a finite number of seconds")
	}
	return seconds, true, nil
}

func seconds(t time.Time) float64 { return float64(t.Unix()) + float64(t.Nanosecond())/1e9 }

// toTime converts a NumericDate for the caller's use; what lies beyond the
// years that time.Time can print is clamped.
func toTime(s float64) time.Time {
	const first, last = -62135596800, 253402300799 // years 1 and 9999
	whole, part := math.Modf(math.Max(first, math.Min(last, s)))
	return time.Unix(int64(whole), int64(part*1e9)).UTC()
}

// A validity is what exp, nbf and iat say.
type validity struct{ expires, notBefore, issuedAt time.Time }

// checkTimes compares exp, nbf and iat with the clock (row 9).
func checkTimes(o *jose.Object, where string, now time.Time, skew time.Duration) (validity, error) {
	var v validity
	clock, slack := seconds(now), skew.Seconds()
	for _, c := range []struct {
		name string
		to   *time.Time
		bad  func(s float64) bool
		code credentials.Code
		text string
	}{
		{"exp", &v.expires, func(s float64) bool { return clock-slack >= s }, credentials.CodeExpired, "it has expired"},
		{"nbf", &v.notBefore, func(s float64) bool { return clock+slack < s }, credentials.CodeNotYetValid, "it is not valid yet"},
		{"iat", &v.issuedAt, func(s float64) bool { return clock+slack < s }, credentials.CodeIssuedInFuture, "it was issued in the future"},
	} {
		s, there, err := numericDate(o, where, c.name)
		if err != nil {
			return v, err
		}
		if !there {
			continue
		}
		if *c.to = toTime(s); c.bad(s) {
			return v, credentials.Errorf(c.code, where+"."+c.name, "%s: %s is %s, the clock is at %s", c.text, c.name,
				c.to.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	return v, nil
}
