package tpm

import (
	"cmp"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// A Meaning is one line of the table from response codes to what helps.
type Meaning struct {
	RC     tpm2.TPMRC
	Class  Class
	Advice string
}

// Meanings returns the table, ordered by code.
func Meanings() []Meaning {
	var all []Meaning
	for rc, m := range rcMeanings {
		all = append(all, Meaning{rc, m.class, m.advice})
	}
	slices.SortFunc(all, func(a, b Meaning) int { return cmp.Compare(a.RC, b.RC) })
	return all
}
