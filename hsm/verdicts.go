package hsm

import (
	"cmp"
	"slices"
)

// A Verdict is one line of the table from return values to what helps.
type Verdict struct {
	Kind   Kind // "" for every module that is not named
	Code   CKR
	Class  Class
	Advice string
}

// Verdicts returns the table, ordered by code, what a kind does differently
// after what the others do.
func Verdicts() []Verdict {
	var all []Verdict
	for code, v := range verdicts {
		all = append(all, Verdict{"", code, v.class, v.advice})
	}
	for kind, codes := range kindVerdicts {
		for code, v := range codes {
			all = append(all, Verdict{kind, code, v.class, v.advice})
		}
	}
	slices.SortFunc(all, func(a, b Verdict) int { return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Kind, b.Kind)) })
	return all
}
