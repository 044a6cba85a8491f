package trust

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
)

// An Evidence is what a credential proves: its signatures hold, an issuer that
// is configured made it, and it is for the key in question. It says nothing of
// the present time or of revocation.
type Evidence struct {
	Issuer *Issuer

	// One of these is set.
	Certificate *certs.Result
	SDJWT       *sdjwt.Verified
	SDCWT       *sdcwt.Verified

	// NotBefore and NotAfter bound the time in which all of it is valid: the
	// credential, the key binding, and every certificate of a chain. Zero is
	// no bound.
	NotBefore, NotAfter time.Time

	Attestation credentials.AttestationLevel

	// KeysUntil is when the issuer's keys are due to be fetched anew: a key may
	// be gone then. Zero if they do not change by themselves.
	KeysUntil time.Time

	id      [sha256.Size]byte // of the credential, without the key binding
	chain   []*x509.Certificate
	signers []*x509.Certificate // that certify the key of a token's issuer
	status  []byte              // status claim, in JSON or CBOR
	life    time.Duration       // for which it was issued
	ends    time.Time           // when it ends by itself, whatever its key binding says
}

// ID names the credential among all: revocations are kept under it.
func (e *Evidence) ID() [sha256.Size]byte { return e.id }

// Lifetime is for how long the credential itself was issued.
func (e *Evidence) Lifetime() time.Duration { return e.life }

// lifetime notes for how long a token was issued; its key binding may be
// shorter, and says nothing of that.
func (e *Evidence) lifetime(from, until time.Time) { e.life, e.ends = until.Sub(from), until }

// A CertificateCheck is one chain to be judged.
type CertificateCheck struct {
	Certificates [][]byte // DER, end entity first
	Role         Role
	Scheme       *credentials.Scheme
	SignatureKey []byte // in MLS encoding; with Scheme nil any key will do
}

// Certificate verifies a chain, all but the time and the revocation.
func (s *Snapshot) Certificate(ctx context.Context, c CertificateCheck) (*Evidence, error) {
	r, err := s.paths.Verify(ctx, certs.Check{
		Certificates: c.Certificates, Role: c.Role, Scheme: c.Scheme, SignatureKey: c.SignatureKey, AnyKey: c.Scheme == nil, At: s.list.opts.Now(),
		Authorize: func(r *certs.Result) error { return s.authorize(s.byName[r.Entry], c.Role, r) },
	})
	if err != nil {
		return nil, err
	}
	e := &Evidence{Issuer: s.byName[r.Entry], Certificate: r, NotBefore: r.NotBefore, NotAfter: r.NotAfter, chain: r.Chain, id: certificateID(r.Chain[0])}
	e.lifetime(r.Chain[0].NotBefore, r.Chain[0].NotAfter)
	if e.Attestation, err = credentials.AttestationOf(r.Chain[0]); err != nil {
		return nil, err
	}
	return e, e.checkIssuing()
}

// certificateID is the hash of what the issuer signed. The signature is left
// out: one of ECDSA can be written in two ways.
func certificateID(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.RawTBSCertificate) }

func (s *Snapshot) authorize(i *Issuer, role Role, r *certs.Result) error {
	const where = "certificate 0 (leaf)"
	if !i.Serves(role) {
		return credentials.Errorf(credentials.CodeIssuerRole, where, "issuer %q is not for %s", i.Name, roleName(role))
	}
	names := []URI{r.Provider}
	if !r.IsHub() {
		names = []URI{r.Client, r.User}
	}
	for _, u := range names {
		if !i.Allows(role, u) {
			return credentials.Errorf(credentials.CodeIdentityUnauthorized, where, "issuer %q has no grant for %s", i.Name, u)
		}
	}
	return nil
}

func roleName(r Role) string {
	if r == RoleHub {
		return "hubs"
	}
	return "clients"
}

// checkIssuing holds what the entry asks of every credential of the issuer.
func (e *Evidence) checkIssuing() error {
	i := e.Issuer
	if e.Attestation < i.minAttestation {
		return credentials.Errorf(credentials.CodePolicy, "credential", "its key is attested at level %s, and issuer %q must attest at %s", e.Attestation, i.Name, i.minAttestation)
	}
	if e.life > i.MaxLifetime {
		return credentials.Errorf(credentials.CodePolicy, "credential", "it is valid for %v, issuer %q may give %v", e.life, i.Name, i.MaxLifetime)
	}
	if i.Mode == ModeNone && e.life > certs.UnrevocableLifetime {
		return credentials.Errorf(credentials.CodePolicy, "credential", "without revocation it may be valid for %v at most", certs.UnrevocableLifetime)
	}
	return nil
}

// tokenID names a token by its issuer-signed part.
func tokenID(kind string, signed []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(kind))))
	h.Write([]byte(kind))
	h.Write(signed)
	return [sha256.Size]byte(h.Sum(nil))
}
