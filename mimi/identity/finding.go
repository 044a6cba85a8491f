package identity

import (
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi"
)

// A Rule is one of the rules that a credential goes through.
type Rule string

// The rules, in their order. A credential with bindings goes through the first
// six once for each.
const (
	ruleFraming    Rule = "framing"    // the credential is well formed
	ruleIssuer     Rule = "issuer"     // an issuer that is configured made it, and its signatures hold
	ruleKey        Rule = "key"        // it is for the leaf's signature key, whose holder took part
	ruleIdentity   Rule = "identity"   // it names one client and its user, or one hub
	ruleGrant      Rule = "grant"      // the issuer may give these names
	ruleExpected   Rule = "expected"   // it is whom we expect, and what the room admits
	ruleTime       Rule = "time"       // it is valid now
	ruleRevocation Rule = "revocation" // it is not revoked
)

// Rules are all rules in their order.
var Rules = []Rule{ruleFraming, ruleIssuer, ruleKey, ruleIdentity, ruleGrant, ruleExpected, ruleTime, ruleRevocation}

// An Outcome is how a rule ended.
type Outcome string

// The outcomes.
const (
	Passed     Outcome = "passed"
	Refused    Outcome = "refused"
	Tolerated  Outcome = "tolerated"   // it speaks against the leaf, and the group has gone on
	NotReached Outcome = "not-reached" // an earlier rule refused
)

// A Finding is how one rule ended.
type Finding struct {
	Rule    Rule             `json:"rule"`
	Outcome Outcome          `json:"outcome"`
	Code    credentials.Code `json:"code,omitempty"`
	Detail  string           `json:"detail,omitempty"`
}

// ruleOf says which rule a code belongs to.
var ruleOf = map[credentials.Code]Rule{
	credentials.CodeIssuerUnknown: ruleIssuer, credentials.CodeIssuerKey: ruleIssuer, credentials.CodeIssuerRole: ruleIssuer, credentials.CodeIssuerSignature: ruleIssuer,
	credentials.CodeChain: ruleIssuer, credentials.CodeNameConstraint: ruleIssuer, credentials.CodeCriticalExtension: ruleIssuer, credentials.CodeKeyUsage: ruleIssuer,
	credentials.CodeCnfUnsupported: ruleKey, credentials.CodeCnfCurve: ruleKey, credentials.CodeCnfPrivateKey: ruleKey, credentials.CodeCnfLeafMismatch: ruleKey,
	credentials.CodeKBTSignature: ruleKey, credentials.CodeKBTClaims: ruleKey, credentials.CodeKBTTime: ruleKey, credentials.CodeNonce: ruleKey, credentials.CodeAudience: ruleKey,
	credentials.CodeSDHash: ruleKey, credentials.CodeBindingSignature: ruleKey, credentials.CodeMultiUnsupported: ruleFraming, credentials.CodeMultiNested: ruleFraming,
	credentials.CodeIdentityMissing: ruleIdentity, credentials.CodeIdentityMalformed: ruleIdentity, credentials.CodeIdentityHostMismatch: ruleIdentity, credentials.CodeMultiConflict: ruleIdentity,
	credentials.CodeIdentityUnauthorized: ruleGrant, credentials.CodeIdentityMismatch: ruleExpected, credentials.CodePolicy: ruleExpected,
	credentials.CodeIdentityDowngrade: ruleExpected, credentials.CodeIdentityDuplicate: ruleExpected, credentials.CodeIdentityKeyChanged: ruleExpected,
	credentials.CodeExpired: ruleTime, credentials.CodeNotYetValid: ruleTime, credentials.CodeIssuedInFuture: ruleTime,
	credentials.CodeRevoked: ruleRevocation, credentials.CodeSuspended: ruleRevocation, credentials.CodeStatusURI: ruleRevocation, credentials.CodeStatusInvalid: ruleRevocation,
	credentials.CodeStatusUnknownValue: ruleRevocation, credentials.CodeStatusUnavailable: ruleRevocation,
}

// A trace collects the findings of one evaluation.
type trace struct {
	verdict *Verdict
	anyKey  bool
}

func (t *trace) pass(r Rule) { t.detail(r, "") }

func (t *trace) detail(r Rule, format string, args ...any) {
	t.verdict.Findings = append(t.verdict.Findings, Finding{Rule: r, Outcome: Passed, Detail: fmt.Sprintf(format, args...)})
}

func (t *trace) verified(ev *trust.Evidence) {
	t.detail(ruleIssuer, "issuer %q, valid %s to %s", ev.Issuer.Name, ev.NotBefore.UTC().Format(time.RFC3339), ev.NotAfter.UTC().Format(time.RFC3339))
	if t.anyKey {
		t.detail(ruleKey, "taken from the credential: no leaf was given")
		return
	}
	t.detail(ruleKey, "that of the leaf")
}

func (t *trace) named(i *trust.Issuer, id *Identity) {
	t.detail(ruleIdentity, "%s of %s, %s", id.Client, id.User, id.Level)
	t.detail(ruleGrant, "%s for %s; %s for %s", i.Grant(RoleClient, id.Client), id.Client, i.Grant(RoleClient, id.User), id.User)
}

func (t *trace) hub(i *trust.Issuer, provider mimi.URI) {
	t.detail(ruleIdentity, "%s", provider)
	t.detail(ruleGrant, "%s for %s", i.Grant(RoleHub, provider), provider)
}

// passAll notes what a verification that is remembered went through.
func (t *trace) passAll(*Question) {
	for _, r := range []Rule{ruleFraming, ruleIssuer, ruleKey, ruleIdentity, ruleGrant} {
		t.detail(r, "as found before")
	}
}

// end notes the refusal and what was not reached because of it, or what was
// tolerated.
func (t *trace) end(err error) {
	v := t.verdict
	outcome := Refused
	if err == nil {
		err, outcome = v.Trouble, Tolerated
	}
	if err == nil {
		return
	}
	code := credentials.CodeOf(err)
	at, ok := ruleOf[code]
	if !ok {
		at = ruleFraming
	}
	f := Finding{Rule: at, Outcome: outcome, Code: code, Detail: err.Error()}
	if outcome == Tolerated {
		v.Findings = slices.DeleteFunc(v.Findings, func(o Finding) bool { return o.Rule == at && o.Outcome == Passed })
		v.Findings = append(v.Findings, f)
		t.sort()
		return
	}
	v.Findings = append(v.Findings, f)
	for _, r := range Rules[slices.Index(Rules, at)+1:] {
		if !slices.ContainsFunc(v.Findings, func(o Finding) bool { return o.Rule == r }) {
			v.Findings = append(v.Findings, Finding{Rule: r, Outcome: NotReached})
		}
	}
	t.sort()
}

func (t *trace) sort() {
	slices.SortStableFunc(t.verdict.Findings, func(a, b Finding) int { return slices.Index(Rules, a.Rule) - slices.Index(Rules, b.Rule) })
}
