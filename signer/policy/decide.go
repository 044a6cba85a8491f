package policy

import (
	"fmt"

	"cel.dev/cel-go/cel"
)

// A Denial says which rule refused a request.
type Denial struct {
	Rule    string // "" where no rule allowed it
	Message string // of the rule
	Policy  string // version
	Err     error  // why the rule could not be decided, if so
}

func (d *Denial) Error() string {
	switch {
	case d.Rule == "":
		return "the policy has no rule that allows this request"
	case d.Err != nil:
		return fmt.Sprintf("policy rule %s could not be decided: %v", d.Rule, d.Err)
	case d.Message != "":
		return fmt.Sprintf("policy rule %s: %s", d.Rule, d.Message)
	}
	return fmt.Sprintf("policy rule %s refuses this request", d.Rule)
}

func (d *Denial) Unwrap() error { return d.Err }

// Decide returns the id of the rule that allows the request, or a *Denial.
func (p *Policy) Decide(in *Input) (rule string, err error) {
	vars := (*variables)(in)
	for i := range p.deny {
		r := &p.deny[i]
		holds, err := r.holds(vars)
		if holds || err != nil {
			return "", &Denial{Rule: r.id, Message: r.message, Policy: p.version, Err: err}
		}
	}
	for i := range p.allow {
		r := &p.allow[i]
		holds, err := r.holds(vars)
		if err != nil {
			return "", &Denial{Rule: r.id, Message: r.message, Policy: p.version, Err: err}
		}
		if holds {
			return r.id, nil
		}
	}
	return "", &Denial{Policy: p.version}
}

func (c *compiled) holds(vars cel.Activation) (bool, error) {
	out, _, err := c.program.Eval(vars)
	if err != nil {
		return false, err
	}
	holds, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("the value is a %v, not a bool", out.Type())
	}
	return holds, nil
}

// variables resolves the names of an Input.
type variables Input

// Parent returns nil: there is no outer scope.
func (v *variables) Parent() cel.Activation { return nil }

// ResolveName returns a variable.
func (v *variables) ResolveName(name string) (any, bool) {
	switch name {
	case "request":
		return &v.Request, true
	case "caller":
		return &v.Caller, true
	case "key":
		return &v.Key, true
	case "now":
		return v.Now, true
	case "mls":
		return &v.MLS, true
	case "header":
		return map[any]any(v.Header), true
	case "claims":
		return map[any]any(v.Claims), true
	case "jws":
		return &v.JWS, true
	case "cose":
		return &v.COSE, true
	}
	return v.resolveDER(name)
}

func (v *variables) resolveDER(name string) (any, bool) {
	switch name {
	case "certificate":
		return &v.Certificate, true
	case "crl":
		return &v.CRL, true
	case "ocsp":
		return &v.OCSP, true
	case "csr":
		return &v.CSR, true
	case "tls":
		return &v.TLS, true
	case "checkpoint":
		return &v.Checkpoint, true
	}
	return nil, false
}
