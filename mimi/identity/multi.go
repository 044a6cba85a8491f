package identity

import (
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mls"
)

// A Judged is what the verification of one binding's credential found.
type Judged struct {
	// Identity is nil for a credential that names no client and carries
	// further claims only. Its Subject must then be the client's URI or the
	// thumbprint URI of the binding's key.
	Identity *Identity
	Subject  string
	// Thumbprint is the thumbprint URI of the binding's key.
	Thumbprint string
}

// A BindingJudge verifies the credential of one binding with its
// CredentialKey in the place of a leaf's signature key.
type BindingJudge func(*mls.CredentialBinding) (*Judged, error)

// FromMulti returns the identity of a multi or weak-multi credential in a leaf
// with the given signature key. supports reports whether this client supports
// the suite and type of a binding.
//
// All bindings that name a client or user must name the same. A multi
// credential is as strong as its strongest binding, since all of them are
// verified; a weak one as its weakest, since an attacker chooses who looks at
// which.
func FromMulti(c *mls.Credential, signatureKey []byte, supports func(*mls.CredentialBinding) bool, judge BindingJudge) (*Identity, error) {
	bindings, err := bindingsOf(c)
	if err != nil {
		return nil, err
	}
	weak := c.Type == mls.CredentialWeakMulti
	var found []*Judged
	for i := range bindings {
		b := &bindings[i]
		if !supports(b) {
			if weak {
				continue
			}
			return nil, credentials.Errorf(credentials.CodeMultiUnsupported, "binding", "binding %d is of type 0x%04x and suite 0x%04x", i, uint16(b.Credential.Type), uint16(b.CipherSuite))
		}
		j, err := judgeBinding(b, signatureKey, judge)
		if err != nil {
			return nil, err
		}
		found = append(found, j)
	}
	if len(found) == 0 {
		return nil, credentials.Errorf(credentials.CodeMultiUnsupported, "bindings", "none of %d is supported here", len(bindings))
	}
	return combine(found, c.Type)
}

func bindingsOf(c *mls.Credential) ([]mls.CredentialBinding, error) {
	if c.Type != mls.CredentialMulti && c.Type != mls.CredentialWeakMulti {
		return nil, credentials.Errorf(credentials.CodeMalformed, "credential", "type 0x%04x has no bindings", uint16(c.Type))
	}
	list, err := c.Bindings()
	if err == nil {
		return list, nil
	}
	nested := func(b mls.CredentialBinding) bool {
		return b.Credential.Type == mls.CredentialMulti || b.Credential.Type == mls.CredentialWeakMulti
	}
	if slices.ContainsFunc(list, nested) {
		return nil, credentials.Errorf(credentials.CodeMultiNested, "bindings", "%w", err)
	}
	return nil, credentials.Errorf(credentials.CodeMalformed, "bindings", "%w", err)
}

func judgeBinding(b *mls.CredentialBinding, signatureKey []byte, judge BindingJudge) (*Judged, error) {
	if err := b.Verify(signatureKey); err != nil {
		return nil, credentials.Errorf(credentials.CodeBindingSignature, "binding", "%w", err)
	}
	return judge(b)
}

// combine joins what bindings say into one identity.
func combine(found []*Judged, t mls.CredentialType) (*Identity, error) {
	var all *Identity
	for _, j := range found {
		switch {
		case j.Identity == nil:
		case all == nil:
			first := *j.Identity
			all = &first
		case j.Identity.Client != all.Client || j.Identity.User != all.User:
			return nil, credentials.Errorf(credentials.CodeMultiConflict, "bindings", "one is of %s, another of %s", all.Client, j.Identity.Client)
		default:
			all.join(j.Identity, t)
		}
	}
	if all == nil {
		return nil, credentials.Errorf(credentials.CodeIdentityMissing, "bindings", "none names a client")
	}
	for _, j := range found {
		if j.Identity == nil && (j.Subject == "" || j.Subject != all.Client.String() && j.Subject != j.Thumbprint) {
			return nil, credentials.Errorf(credentials.CodeMultiConflict, "bindings", "one carries claims of another subject than %s", all.Client)
		}
	}
	all.Type = t
	return all, nil
}

// join takes up another binding of the same client.
func (i *Identity) join(other *Identity, t mls.CredentialType) {
	takes := other.Level > i.Level
	if t == mls.CredentialWeakMulti {
		takes = other.Level < i.Level
	}
	if takes {
		i.Level, i.Issuer = other.Level, other.Issuer
	}
	i.NotBefore = later(i.NotBefore, other.NotBefore)
	i.NotAfter = earlier(i.NotAfter, other.NotAfter)
}
