package enrol

import (
	"context"
	"crypto"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/internal/sqldb"
)

// An Endorser decides which TPMs are believed.
type Endorser interface {
	// Believe judges an endorsement key and makes a credential for it and the
	// attestation key.
	Believe(*TPM) (Believed, error)
}

// A Believed is a TPM whose endorsement key is believed, and which is yet to
// prove that it has that key.
type Believed interface {
	// Level is what the credential says once everything is proven.
	Level() credentials.AttestationLevel
	// Credential is to be activated.
	Credential() Credential
	// Activated reports whether the answer is the secret of the credential.
	Activated(answer []byte) bool
	// Certified checks that the attestation key certifies a key over the
	// nonce, and returns the key and what is kept as evidence.
	Certified(nonce, evidence []byte) (key crypto.PublicKey, kept []byte, err error)
}

// An Issuer signs credentials and writes them down with their evidence. It runs
// Order.Spend in the transaction that writes a credential down, before or after it
// has signed, and releases nothing if that fails.
type Issuer interface {
	Issue(context.Context, Order) (*Issued, error)
}

// An Order is a credential for a device that has proven its key.
type Order struct {
	Invitation
	Request  *certs.Request // verified, for the names, over the nonce
	Nonce    []byte
	Level    credentials.AttestationLevel
	Evidence []byte
	Spend    registry.Along // spends the code; its error is the refusal
}

// Config is what a Service is made of. Invitations, Issuer and Audience are
// needed.
type Config struct {
	Invitations *Store
	Issuer      Issuer
	Audience    string             // the issuer's URL
	TPMs        Endorser           // nil takes no TPM
	Appliances  []crypto.PublicKey // whose statements are believed
	Lifetime    time.Duration      // of a session; default five minutes
	Most        int                // sessions open at once in this process, on SQLite; default 1,000
	// CACerts returns the certificates of the CA that issues and of those above
	// it, for devices that have none yet. nil where no certificates are issued.
	CACerts func(context.Context) ([]*x509.Certificate, error)
	Now     func() time.Time // default time.Now
	// Report, if set, is told of each attempt that fails, and why.
	Report func(error)
}

// A Service enrols devices. It is safe for concurrent use. Where the invitations
// are in PostgreSQL, any node that has them finishes what another has begun.
type Service struct {
	Config
	sessions sessionStore
	codes    codesInHand
}

// issueTime bounds the signing of a credential.
const issueTime = time.Minute

// New returns a Service.
func New(c Config) (*Service, error) {
	if c.Invitations == nil || c.Issuer == nil || c.Audience == "" {
		return nil, errors.New("enrol: a service needs invitations, an issuer and its URL")
	}
	if c.Lifetime <= 0 {
		c.Lifetime = 5 * time.Minute
	}
	if c.Most <= 0 {
		c.Most = 1000
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Report == nil {
		c.Report = func(error) {}
	}
	s := &Service{Config: c, sessions: newSessions(c.Most)}
	if c.Invitations.db.Dialect() == sqldb.PostgreSQL {
		shared := &sharedSessions{store: c.Invitations}
		shared.resumer, _ = c.TPMs.(Resumer)
		s.sessions = shared
	}
	return s, nil
}

// Begin opens a session for the device with the code. Who has no code costs one
// look-up.
func (s *Service) Begin(ctx context.Context, r *BeginRequest) (*Challenge, error) {
	code, err := ParseCode(r.Code)
	if err != nil {
		return nil, err
	}
	hash := code.hash()
	in, err := s.Invitations.find(ctx, hash)
	if err != nil {
		return nil, err
	}
	now := s.Now()
	x := &session{code: hash, invitation: in, nonce: certs.NewNonce(), ends: now.Add(s.Lifetime)}
	if x.believed, err = s.believe(r.TPM, in.Least); err != nil {
		return nil, err
	}
	if err := s.sessions.put(ctx, x, now); err != nil {
		return nil, err
	}
	return s.challenge(x), nil
}

// believe judges the TPM, if it is one.
func (s *Service) believe(t *TPM, least credentials.AttestationLevel) (Believed, error) {
	level := credentials.AttestationStated
	var b Believed
	switch {
	case t == nil && len(s.Appliances) == 0:
		return nil, refuse(ReasonMethod, "no appliance is believed here; enrol a key in a TPM")
	case t != nil && s.TPMs == nil:
		return nil, refuse(ReasonMethod, "no TPM is believed here")
	case t != nil:
		var err error
		if b, err = s.TPMs.Believe(t); err != nil {
			return nil, &Error{ReasonEndorsement, err}
		}
		level = b.Level()
	}
	if level < least {
		return nil, refuse(ReasonLevel, "the device can prove %v, the invitation asks for %v", level, least)
	}
	return b, nil
}

func (s *Service) challenge(x *session) *Challenge {
	c := &Challenge{
		Session: x.id, Nonce: x.nonce, Audience: s.Audience, Expires: x.ends.UTC(),
		Client: x.invitation.Names.Client.String(), User: x.invitation.Names.User.String(),
	}
	if x.believed != nil {
		credential := x.believed.Credential()
		c.Credential = &credential
	}
	return c
}

// Finish ends a session. If everything is proven it spends the code and issues
// the credential, also if the device does not wait for it. The code is looked up once
// more, since others may have used it after Begin.
func (s *Service) Finish(ctx context.Context, r *FinishRequest) (*Issued, error) {
	x, err := s.sessions.take(ctx, r.Session, s.Now())
	if err != nil {
		return nil, err
	}
	if x == nil {
		return nil, refuse(ReasonSession, "the session was never opened, has ended or was used; begin again")
	}
	o, err := s.prove(x, r)
	if err != nil {
		return nil, err
	}
	return s.withCode(x.code, func() (*Issued, error) {
		if _, err := s.Invitations.find(ctx, x.code); err != nil {
			return nil, err
		}
		made, err := s.issue(ctx, x.code, o)
		if err == nil && made.Credential == "" {
			made.Credential = ChainText(made.Chain)
		}
		return made, err
	})
}

// Simple enrols a device that need not prove where its key is kept, in one
// request: the PKCS#10 request, in DER, for the invited names proves possession of
// the key. It needs no nonce: the code is fresh, and who sends the request of
// another gets a certificate for the other's key in the other's name.
func (s *Service) Simple(ctx context.Context, code string, request []byte) (*Issued, error) {
	c, err := ParseCode(code)
	if err != nil {
		return nil, err
	}
	hash := c.hash()
	return s.withCode(hash, func() (*Issued, error) { return s.simple(ctx, hash, request) })
}

func (s *Service) simple(ctx context.Context, code string, request []byte) (*Issued, error) {
	in, err := s.Invitations.find(ctx, code)
	if err != nil {
		return nil, err
	}
	if !in.Unattested {
		return nil, refuse(ReasonLevel, "the invitation asks for %v: enrol in two steps", in.Least)
	}
	o := &Order{Invitation: *in}
	if o.Request, err = in.request(request); err != nil {
		return nil, err
	}
	return s.issue(ctx, code, o)
}

// withCode runs f while it alone has the code, which is refused to others as one
// that was used.
func (s *Service) withCode(hash string, f func() (*Issued, error)) (*Issued, error) {
	if !s.codes.take(hash) {
		return nil, errCode()
	}
	defer s.codes.giveBack(hash)
	return f()
}

// issue spends the code and issues the credential, also if the device does not
// wait for it.
func (s *Service) issue(ctx context.Context, code string, o *Order) (*Issued, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issueTime)
	defer cancel()
	var spending atomic.Bool // and not refused: then the outcome is that of the commit
	o.Spend = func(ctx context.Context, tx *sqldb.Tx, id registry.ID) error {
		err := s.Invitations.redeem(ctx, tx, code, id)
		spending.Store(err == nil)
		return err
	}
	made, err := s.Issuer.Issue(ctx, *o)
	if err != nil && spending.Load() {
		s.codes.keep(code, s.Now())
	}
	return made, err
}

// prove checks the request and what proves where its key is kept.
func (s *Service) prove(x *session, r *FinishRequest) (*Order, error) {
	request, err := x.request(r.Request)
	if err != nil {
		return nil, err
	}
	o := &Order{Invitation: *x.invitation, Request: request, Nonce: x.nonce}
	if x.believed == nil {
		return o, s.proveByStatement(x, r, o)
	}
	return o, x.proveByTPM(r, o)
}

// request reads the PKCS#10 request, which must be for the invited names and
// over the nonce of the session.
func (x *session) request(der []byte) (*certs.Request, error) {
	request, err := x.invitation.request(der)
	if err == nil && subtle.ConstantTimeCompare(request.Nonce(), x.nonce) != 1 {
		return nil, refuse(ReasonRequest, "it is not over the nonce of this session")
	}
	return request, err
}

// request reads a PKCS#10 request, which must be for the invited names.
func (in *Invitation) request(der []byte) (*certs.Request, error) {
	request, err := certs.ParseRequest(der)
	switch {
	case err != nil:
		return nil, &Error{ReasonRequest, err}
	case request.Names() != in.Names:
		return nil, refuse(ReasonRequest, "it asks for other names than those that were invited")
	}
	return request, nil
}

func (x *session) proveByTPM(r *FinishRequest, o *Order) error {
	if !x.believed.Activated(r.Answer) {
		return refuse(ReasonActivation, "the secret is wrong: the endorsement key and the attestation key are not in one TPM")
	}
	key, kept, err := x.believed.Certified(x.nonce, r.Evidence)
	if err != nil {
		return &Error{ReasonEvidence, err}
	}
	if key == nil || !credentials.SamePublicKey(key, o.Request.PublicKey()) {
		return refuse(ReasonEvidence, "the TPM certified another key than that of the request")
	}
	o.Level, o.Evidence = x.believed.Level(), kept
	return nil
}

func (s *Service) proveByStatement(x *session, r *FinishRequest, o *Order) error {
	st, err := OpenStatement(r.Statement, s.Appliances)
	if err != nil {
		return &Error{ReasonStatement, err}
	}
	if err := st.check(s.Audience, x.nonce, o.Request.PublicKey()); err != nil {
		return &Error{ReasonStatement, err}
	}
	o.Level, o.Evidence = credentials.AttestationStated, []byte(r.Statement)
	return nil
}
