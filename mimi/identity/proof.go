package identity

import (
	"context"
	"slices"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// A proof is what a credential proves, apart from time and revocation.
type proof struct {
	identity            *Identity
	hub                 mimi.URI
	evidence            []*trust.Evidence // of every part that has an issuer
	claims              []policy.Credential
	notBefore, notAfter time.Time
	keysUntil           time.Time // when the keys of an issuer are due to be fetched anew
}

func (p *proof) add(ev *trust.Evidence) {
	p.evidence = append(p.evidence, ev)
	p.notBefore, p.notAfter = later(p.notBefore, ev.NotBefore), earlier(p.notAfter, ev.NotAfter)
	p.keysUntil = earlier(p.keysUntil, ev.KeysUntil)
}

// evidence verifies a credential, or remembers that it did.
func (e *Evaluator) evidence(ctx context.Context, s *trust.Snapshot, q *Question, t *trace) (*proof, error) {
	key := cacheKey(s.Generation, q)
	if p := e.cache.get(key); p != nil && (p.keysUntil.IsZero() || e.opts.Now().Before(p.keysUntil)) {
		t.passAll(q)
		return p, nil
	}
	var scheme *credentials.Scheme // nil is any
	if !q.AnyKey {
		var err error
		if scheme, err = schemeOf(q.Suite); err != nil {
			return nil, err
		}
	}
	x := &examination{e: e, snapshot: s, q: q, trace: t}
	p, err := x.examine(ctx, &q.Credential, q.SignatureKey, scheme)
	if err != nil {
		return nil, err
	}
	e.cache.put(key, p)
	return p, nil
}

// An examination is one credential under verification.
type examination struct {
	e        *Evaluator
	snapshot *trust.Snapshot
	q        *Question
	trace    *trace
}

func (x *examination) examine(ctx context.Context, c *mls.Credential, key []byte, scheme *credentials.Scheme) (*proof, error) {
	if x.q.Role == RoleHub {
		return x.hub(ctx, c, key, scheme)
	}
	if c.Type == mls.CredentialMulti || c.Type == mls.CredentialWeakMulti {
		if scheme == nil {
			return nil, credentials.Errorf(credentials.CodeBindingSignature, "bindings", "they are for the key of a leaf, and none is given")
		}
		return x.multi(ctx, c, key)
	}
	p := &proof{}
	part, err := x.part(ctx, c, key, scheme, p)
	if err != nil {
		return nil, err
	}
	if part.Identity == nil {
		return nil, part.err
	}
	p.identity = part.Identity
	p.identity.NotBefore, p.identity.NotAfter = p.notBefore, p.notAfter
	return p, nil
}

// A part is a Judged credential. One that names no client has err, which counts
// unless a binding beside it names one.
type part struct {
	Judged
	err error
}

// part verifies a single credential for a key, and adds it to p.
func (x *examination) part(ctx context.Context, c *mls.Credential, key []byte, scheme *credentials.Scheme, p *proof) (*part, error) {
	switch c.Type {
	case mls.CredentialBasic:
		return x.basic(c)
	case mls.CredentialX509:
		return x.x509(ctx, c, key, scheme, p)
	case mls.CredentialSDJWT:
		return x.sdjwt(ctx, c, key, scheme, p)
	case mls.CredentialSDCWT:
		return x.sdcwt(ctx, c, key, scheme, p)
	}
	return nil, credentials.Errorf(credentials.CodePolicy, "credential", "credential type 0x%04x is not supported", uint16(c.Type))
}

// basic takes an assertion where the configuration admits one.
func (x *examination) basic(c *mls.Credential) (*part, error) {
	x.trace.pass(ruleFraming)
	id, err := FromBasic(c.Body, x.q.Voucher)
	if err != nil {
		return nil, err
	}
	x.trace.pass(ruleIdentity)
	if !x.snapshot.AdmitsBasic(id.Client.Host()) {
		return nil, credentials.Errorf(credentials.CodePolicy, "basic credential", "the configuration does not admit one of %s", id.Client.Host())
	}
	return &part{Judged: Judged{Identity: id}}, nil
}

// chainOf returns the certificates of an x509 credential.
func chainOf(c *mls.Credential) ([][]byte, error) {
	chain, err := c.Certificates()
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeMalformed, "certificates", "%w", err)
	}
	return chain, nil
}

func (x *examination) x509(ctx context.Context, c *mls.Credential, key []byte, scheme *credentials.Scheme, p *proof) (*part, error) {
	chain, err := chainOf(c)
	if err != nil {
		return nil, err
	}
	x.trace.pass(ruleFraming)
	ev, err := x.snapshot.Certificate(ctx, trust.CertificateCheck{Certificates: chain, Role: RoleClient, Scheme: scheme, SignatureKey: key})
	if err != nil {
		return nil, err
	}
	x.trace.verified(ev)
	id, err := FromCertificate(ev.Certificate, issuerOf(ev.Issuer))
	if err != nil {
		return nil, err
	}
	x.trace.named(ev.Issuer, id)
	p.add(ev)
	p.claims = append(p.claims, policy.NewX509(ev.Certificate.Chain[0]))
	return &part{Judged: Judged{Identity: id}}, nil
}

// issuerOf is an issuer entry as the functions of this package take it.
func issuerOf(i *trust.Issuer) *Issuer {
	return &Issuer{
		Name: i.Name, Attested: i.Attested, ClientClaim: i.ClientClaim, UserClaim: i.UserClaim, UserFromClient: i.UserFromClient,
		Allows: func(u mimi.URI) bool { return i.Allows(trust.RoleClient, u) },
	}
}

// hub verifies the certificate of a hub. Nothing else names one.
func (x *examination) hub(ctx context.Context, c *mls.Credential, key []byte, scheme *credentials.Scheme) (*proof, error) {
	if c.Type != mls.CredentialX509 {
		return nil, credentials.Errorf(credentials.CodePolicy, "hub credential", "credential type 0x%04x; a hub is known by its certificate", uint16(c.Type))
	}
	chain, err := chainOf(c)
	if err != nil {
		return nil, err
	}
	x.trace.pass(ruleFraming)
	ev, err := x.snapshot.Certificate(ctx, trust.CertificateCheck{Certificates: chain, Role: RoleHub, Scheme: scheme, SignatureKey: key})
	if err != nil {
		return nil, err
	}
	x.trace.verified(ev)
	provider := ev.Certificate.Provider
	if !x.q.Room.IsZero() && provider != x.q.Room.Provider() {
		return nil, credentials.Errorf(credentials.CodeIdentityHostMismatch, "hub certificate", "it is of %s, the room of %s", provider, x.q.Room.Provider())
	}
	x.trace.hub(ev.Issuer, provider)
	p := &proof{hub: provider, claims: []policy.Credential{policy.NewX509(ev.Certificate.Chain[0])}}
	p.add(ev)
	return p, nil
}

// multi verifies all bindings of a multi-credential that this side supports,
// which of a multi must be all.
func (x *examination) multi(ctx context.Context, c *mls.Credential, key []byte) (*proof, error) {
	p := &proof{}
	id, err := FromMulti(c, key, x.supports, func(b *mls.CredentialBinding) (*Judged, error) {
		return x.binding(ctx, b, p)
	})
	if err != nil {
		return nil, err
	}
	if p.identity = id; c.Type == mls.CredentialWeakMulti {
		p.claims = nil
	}
	id.NotBefore, id.NotAfter = p.notBefore, p.notAfter
	return p, nil
}

// supports reports whether a binding is verified here. An assertion is only
// where the configuration admits any.
func (x *examination) supports(b *mls.CredentialBinding) bool {
	if b.Credential.Type == mls.CredentialBasic && x.snapshot.RefusesBasic() {
		return false
	}
	single := []mls.CredentialType{mls.CredentialBasic, mls.CredentialX509, mls.CredentialSDCWT, mls.CredentialSDJWT}
	return schemes[b.CipherSuite] != nil && slices.Contains(single, b.Credential.Type)
}

// binding verifies the credential of one binding for the key that it binds.
func (x *examination) binding(ctx context.Context, b *mls.CredentialBinding, p *proof) (*Judged, error) {
	scheme, err := schemeOf(b.CipherSuite)
	if err != nil {
		return nil, err
	}
	pub, err := scheme.ParseMLSPublicKey(b.CredentialKey)
	if err != nil {
		return nil, credentials.Errorf(credentials.CodeCnfCurve, "binding", "credential_key: %w", err)
	}
	found, err := x.part(ctx, &b.Credential, b.CredentialKey, scheme, p)
	if err != nil {
		return nil, err
	}
	if found.Thumbprint, err = ThumbprintURI(pub); err != nil {
		return nil, err
	}
	return &found.Judged, nil
}
