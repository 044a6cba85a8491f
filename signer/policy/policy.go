package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/ext"

	"github.com/privyseal/privyseal/internal/strictjson"
)

// Bounds of a policy.
const (
	MaxFile       = 1 << 20
	maxRules      = 1000
	maxExpression = 4 << 10 // octets of one rule
	maxNodes      = 1000    // of one rule's syntax tree
	maxNesting    = 64
	maxRegexp     = 1000
	maxCost       = 100_000 // CEL's units of work in deciding one rule
)

// An Effect is what a rule does when it holds.
type Effect string

// The effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// file is the form of a policy on disk.
type file struct {
	Version int    `json:"version"`
	Note    string `json:"note"`
	Rules   []rule `json:"rules"`
}

type rule struct {
	ID      string `json:"id"`
	Effect  Effect `json:"effect"`
	When    when   `json:"when"`
	Message string `json:"message"` // told to a caller who is refused
	Note    string `json:"note"`    // for those who read the file
}

// when is one expression, or several that must all hold.
type when []string

func (w *when) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*w = when{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(w))
}

func (w when) expression() string {
	if len(w) == 1 {
		return w[0]
	}
	return "(" + strings.Join(w, ") && (") + ")"
}

// A Policy is a compiled set of rules. It is safe for concurrent use.
type Policy struct {
	version string
	deny    []compiled
	allow   []compiled
}

type compiled struct {
	id, message string
	program     cel.Program
}

// Version returns the lower-case hexadecimal SHA-256 of the file.
func (p *Policy) Version() string { return p.version }

// Rules returns how many rules there are.
func (p *Policy) Rules() int { return len(p.deny) + len(p.allow) }

// A RuleError says which rule of a file cannot be used.
type RuleError struct {
	Index int // from 0
	ID    string
	Err   error
}

func (e *RuleError) Error() string {
	return fmt.Sprintf("policy: rule %d (%q): %v", e.Index+1, e.ID, e.Err)
}

func (e *RuleError) Unwrap() error { return e.Err }

var ruleID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// Parse reads and compiles a policy file.
func Parse(b []byte) (*Policy, error) {
	var f file
	if err := strictjson.Decode(b, MaxFile, &f); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("policy: this release reads version 1, not %d", f.Version)
	}
	if len(f.Rules) > maxRules {
		return nil, fmt.Errorf("policy: %d rules are more than %d", len(f.Rules), maxRules)
	}
	env, err := newEnv()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	p := &Policy{version: hex.EncodeToString(sum[:])}
	return p, p.compileAll(env, f.Rules)
}

func (p *Policy) compileAll(env *cel.Env, rules []rule) error {
	seen := make(map[string]bool)
	for i, r := range rules {
		c, err := compile(env, &r)
		if err == nil && seen[r.ID] {
			err = errors.New("the id is used twice")
		}
		if err != nil {
			return &RuleError{Index: i, ID: clip(r.ID), Err: err}
		}
		seen[r.ID] = true
		if r.Effect == Deny {
			p.deny = append(p.deny, *c)
		} else {
			p.allow = append(p.allow, *c)
		}
	}
	return nil
}

// AllowAll is the policy of an appliance that has none: what the purposes of
// the keys permit. Its version is "none".
func AllowAll() *Policy {
	env, err := newEnv()
	if err != nil {
		panic(err) // nothing in it depends on input
	}
	p := &Policy{version: "none"}
	if err := p.compileAll(env, []rule{{ID: "no-policy", Effect: Allow, When: when{"true"}}}); err != nil {
		panic(err)
	}
	return p
}

func compile(env *cel.Env, r *rule) (*compiled, error) {
	switch {
	case !ruleID.MatchString(r.ID):
		return nil, errors.New("an id is 1 to 64 of a-z, 0-9 and '-'")
	case r.Effect != Allow && r.Effect != Deny:
		return nil, fmt.Errorf("effect %q; use %q or %q", clip(string(r.Effect)), Allow, Deny)
	case len(r.When) == 0:
		return nil, errors.New("when is missing")
	case len(r.Message) > 512:
		return nil, errors.New("a message has up to 512 octets")
	}
	ast, issues := env.Compile(r.When.expression())
	if issues.Err() != nil {
		return nil, issues.Err()
	}
	if ast.OutputType() != cel.BoolType {
		return nil, fmt.Errorf("when is of type %v, want bool", ast.OutputType())
	}
	options := []cel.ProgramOption{cel.EvalOptions(cel.OptOptimize)}
	if !cheap(env, ast) {
		options = append(options, cel.CostLimit(maxCost))
	}
	program, err := env.Program(ast, options...)
	if err != nil {
		return nil, err
	}
	return &compiled{id: r.ID, message: r.Message, program: program}, nil
}

// cheap reports whether a rule stays under maxCost whatever the request is.
// Counting the work of the others while they run takes six times as long.
func cheap(env *cel.Env, ast *cel.Ast) bool {
	cost, err := env.EstimateCost(ast, anyRequest{})
	return err == nil && cost.Max <= maxCost
}

// anyRequest estimates with what is the most in any request.
type anyRequest struct{}

// maxInput is more octets, or items, than one variable can have: requests are
// bounded far below it.
const maxInput = 64 << 20

// EstimateSize returns the sizes of a variable.
func (anyRequest) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Max: maxInput}
}

// EstimateCallCost leaves the functions to CEL, which knows its own.
func (anyRequest) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// newEnv declares the variables: one per field of Input, of the field's type,
// so that a misspelled field is found when the policy is loaded.
func newEnv() (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxExpression), cel.ExpressionNodeLimit(maxNodes),
		cel.ParserRecursionLimit(maxNesting), cel.RegexProgramSizeLimit(maxRegexp),
		cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true),
	}
	natives := []any{ext.ParseStructTags(true)}
	t := reflect.TypeFor[Input]()
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("json")
		switch {
		case name == "now":
			options = append(options, cel.Variable(name, cel.TimestampType))
			continue
		case f.Type == reflect.TypeFor[Map]():
			options = append(options, cel.Variable(name, cel.MapType(cel.DynType, cel.DynType)))
			continue
		}
		natives = append(natives, f.Type)
		options = append(options, cel.Variable(name, cel.ObjectType("policy."+f.Type.Name())))
	}
	return cel.NewEnv(append([]cel.EnvOption{ext.NativeTypes(natives...), ext.Strings(ext.StringsVersion(2))}, options...)...)
}

// clip bounds text from outside that is quoted in an error.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
