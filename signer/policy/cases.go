package policy

import (
	"errors"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/strictjson"
	"github.com/privyseal/privyseal/signer"
)

// A Case is an example request with what a policy should say to it.
type Case struct {
	Name string `json:"name"`
	// Input gives the variables, such as {"caller": {"tenant": "acme"}}.
	// Octets of MLS are base64.
	Input Input `json:"input"`
	// Octets, base64, are the to-be-signed octets. They set request and the
	// variable of their shape, in place of what Input says there.
	Octets []byte `json:"octets"`
	Expect Effect `json:"expect"`
	Rule   string `json:"rule"` // that decides; "" for any
}

// A Result is what became of a Case.
type Result struct {
	Name   string `json:"name"`
	Passed bool   `json:"passed"`
	Effect Effect `json:"effect"`
	Rule   string `json:"rule,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// ParseCases reads a file of cases: {"version": 1, "cases": […]}.
func ParseCases(b []byte) ([]Case, error) {
	var f struct {
		Version int    `json:"version"`
		Cases   []Case `json:"cases"`
	}
	if err := strictjson.Decode(b, MaxFile, &f); err != nil {
		return nil, fmt.Errorf("cases: %w", err)
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("cases: this release reads version 1, not %d", f.Version)
	}
	if len(f.Cases) == 0 {
		return nil, errors.New("cases: there is none")
	}
	for i, c := range f.Cases {
		if c.Name == "" || c.Expect != Allow && c.Expect != Deny {
			return nil, fmt.Errorf("cases[%d]: name is missing, or expect is neither %q nor %q", i, Allow, Deny)
		}
	}
	return f.Cases, nil
}

// Run asks the policy. A case without "now" is decided as of now.
func (c *Case) Run(p *Policy, now time.Time) Result {
	r := Result{Name: c.Name, Effect: Deny}
	in := c.Input
	if in.Now.IsZero() {
		in.Now = now
	}
	if in.Request.Operation == "" {
		in.Request.Operation = "sign"
	}
	if len(c.Octets) > 0 {
		req, err := signer.ParseRequest(c.Octets)
		if err == nil {
			err = in.Describe(req)
		}
		if err != nil {
			r.Detail = err.Error()
			r.Passed = c.Expect == Deny && c.Rule == ""
			return r
		}
	}
	rule, err := p.Decide(&in)
	if denial, ok := errors.AsType[*Denial](err); ok {
		r.Rule, r.Detail = denial.Rule, denial.Error()
	} else {
		r.Effect, r.Rule = Allow, rule
	}
	r.Passed = r.Effect == c.Expect && (c.Rule == "" || c.Rule == r.Rule)
	return r
}
