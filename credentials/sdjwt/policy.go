package sdjwt

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// TypeVC is the typ of an SD-JWT VC.
const TypeVC = "dc+sd-jwt"

// typeKB is the typ of a KB-JWT (RFC 9901 section 4.3).
const typeKB = "kb+jwt"

// Default clock tolerances.
const (
	DefaultSkew      = 120 * time.Second
	DefaultFreshness = 300 * time.Second
)

// Unlimited, as a Freshness, accepts a KB-JWT of any age; Exactly, as a Skew,
// tolerates no difference between clocks.
const (
	Unlimited time.Duration = -1
	Exactly   time.Duration = -1
)

// A KeyBindingMode says whether the presenter must prove to hold the
// confirmation key. It is the verifier's decision and never depends on what is
// in the token (RFC 9901 section 7.3 step 1).
type KeyBindingMode int

// The modes. The zero value is the strict one.
const (
	KeyBindingRequired    KeyBindingMode = iota // a presentation without KB-JWT is refused
	KeyBindingNotRequired                       // a KB-JWT must have the form of a JWT, and proves nothing
)

// DefaultPermanent returns the top-level claims that no Disclosure may bring
// in, because they decide whether a token is valid (RFC 9901 section 9.7).
func DefaultPermanent() []string {
	return []string{"iss", "aud", "exp", "nbf", "iat", "cnf", "status", "vct"}
}

// permanentVC are the claims of SD-JWT VC that must not be selectively
// disclosable, members included.
var permanentVC = []string{"iss", "nbf", "exp", "cnf", "vct", "vct#integrity", "aka_vcts", "status"}

// A Policy says which tokens a Verifier accepts. Only Issuers has no default.
type Policy struct {
	Issuers IssuerKeys // whom to believe, and by which key

	Algorithms []string // of both JWTs; default ES256, ES384, ES512, EdDSA, Ed25519
	Types      []string // typ of the Issuer-signed JWT; default TypeVC alone
	AnyType    bool     // instead of Types: any, or none; never that of a KB-JWT
	VC         bool     // the rules of SD-JWT VC, on top of those of RFC 9901
	VCTs       []string // with VC: the vct values that are accepted; default all
	Required   []string // top-level claims that must be there, such as exp
	Permanent  []string // replaces DefaultPermanent if not nil; VC adds its own

	KeyBinding KeyBindingMode
	Audiences  []string // who we are; one of them must be the aud of the KB-JWT, and in the aud claim if there is one
	// AnyAudience accepts a KB-JWT made for anyone. It is for tools that look
	// at tokens, never for a service: another verifier could replay to it.
	AnyAudience bool
	Nonces      NonceGuard    // makes nonces work once; nil if the caller sees to that
	AnyNonce    bool          // accept a nonce that nobody asked for, where replay is stopped otherwise
	Freshness   time.Duration // how old a KB-JWT may be; default DefaultFreshness
	LooseCnf    bool          // cnf may have members that stand for no key, as in RFC 7800

	Skew   time.Duration // how far clocks may differ; default DefaultSkew
	KBSkew time.Duration // the same for the iat of a KB-JWT; default Skew
	// IssuedAhead accepts an iat of the Issuer-signed JWT in the future, which
	// no rule of RFC 7519 or RFC 9901 forbids.
	IssuedAhead bool
	Now         func() time.Time

	// Status judges the status claim after all else is verified. Without it a
	// token that has the claim is refused, unless IgnoreStatus is set.
	Status       func(ctx context.Context, ref StatusReference) error
	IgnoreStatus bool

	Limits Limits
}

// A StatusReference is a status claim with the issuer that signed it.
type StatusReference struct {
	Issuer string
	Key    crypto.PublicKey // that verified the token
	Status json.RawMessage
}

// A NonceGuard makes every nonce work once.
type NonceGuard interface {
	// Use marks nonce as used and returns an error if it was used before, or
	// was never given out. It may forget the nonce after until, when a KB-JWT
	// with it is too old anyway; zero means never. It is called after all
	// checks succeeded.
	Use(ctx context.Context, nonce string, until time.Time) error
}

func orDefault(d, def time.Duration) time.Duration {
	switch {
	case d == 0:
		return def
	case d < 0:
		return 0
	}
	return d
}

// complete returns p with its defaults.
func (p Policy) complete() (Policy, error) {
	if p.Issuers == nil {
		return p, errors.New("sdjwt: a policy without Issuers accepts nothing")
	}
	if p.KeyBinding == KeyBindingRequired && len(p.Audiences) == 0 && !p.AnyAudience {
		return p, errors.New("sdjwt: key binding needs Audiences, the names that we go by")
	}
	if len(p.Algorithms) == 0 {
		p.Algorithms = allAlgorithms()
	}
	for _, alg := range p.Algorithms {
		if schemeByAlg(alg) == nil {
			return p, errors.New("sdjwt: a policy allows the unknown algorithm " + alg)
		}
	}
	if len(p.Types) == 0 {
		p.Types = []string{TypeVC}
	}
	if p.Permanent == nil {
		p.Permanent = DefaultPermanent()
	}
	if p.VC {
		p.Permanent = slices.Concat(p.Permanent, permanentVC)
	}
	if p.Freshness == 0 {
		p.Freshness = DefaultFreshness
	}
	if p.KBSkew == 0 {
		p.KBSkew = p.Skew
	}
	p.Skew, p.KBSkew = orDefault(p.Skew, DefaultSkew), orDefault(p.KBSkew, DefaultSkew)
	if p.Now == nil {
		p.Now = time.Now
	}
	p.Limits = p.Limits.withDefaults()
	return p, nil
}

func allAlgorithms() []string {
	var all []string
	for _, s := range credentials.Schemes() {
		if all = append(all, s.JOSE); s.JOSEAlso != "" {
			all = append(all, s.JOSEAlso)
		}
	}
	return all
}

// schemeByAlg returns the scheme with a JOSE name, or nil.
func schemeByAlg(alg string) *credentials.Scheme {
	for _, s := range credentials.Schemes() {
		if s.AcceptsJOSE(alg) {
			return s
		}
	}
	return nil
}
