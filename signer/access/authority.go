package access

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
)

// Lifetimes of certificates.
const (
	DefaultCertificate = 7 * 24 * time.Hour
	authorityLifetime  = 10 * 365 * 24 * time.Hour
	backdate           = 5 * time.Minute // for callers whose clock is behind
)

// An Authority issues the certificates of callers.
type Authority struct {
	store    *Store
	key      func(context.Context) (crypto.Signer, error)
	lifetime time.Duration
	added    func(context.Context)
}

// OnNewRoot has f called when the CA has got the certificate of another key,
// before anything that it signs leaves: servers then read Pool again. It is to
// be called before the Authority is used.
func (a *Authority) OnNewRoot(f func(context.Context)) { a.added = f }

// NewAuthority returns the Authority of a store. key returns the CA's key, of
// purpose x509-ca, each time that something is to be signed, so that it may be
// rotated. Certificates are good for lifetime; DefaultCertificate if 0.
func NewAuthority(s *Store, lifetime time.Duration, key func(context.Context) (crypto.Signer, error)) (*Authority, error) {
	if lifetime == 0 {
		lifetime = DefaultCertificate
	}
	if lifetime < time.Minute || lifetime > 90*24*time.Hour {
		return nil, fmt.Errorf("%w: certificates of callers are good for 1m to 2160h", ErrUsage)
	}
	return &Authority{store: s, key: key, lifetime: lifetime}, nil
}

// Root returns the CA's certificate for its present key, and makes it when
// there is none yet.
func (a *Authority) Root(ctx context.Context) (*x509.Certificate, error) {
	key, err := a.key(ctx)
	if err != nil {
		return nil, err
	}
	return a.rootOf(ctx, key)
}

func (a *Authority) rootOf(ctx context.Context, key crypto.Signer) (*x509.Certificate, error) {
	hash, err := keyHash(key.Public())
	if err != nil {
		return nil, err
	}
	if root, err := a.loadRoot(ctx, hash); root != nil || err != nil {
		return root, err
	}
	der, err := a.selfSign(key, hash)
	if err != nil {
		return nil, fmt.Errorf("access: the CA's own certificate: %w", err)
	}
	err = a.store.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO access_authority (key_hash, certificate, not_after) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
			hash[:], der, a.store.db.Now().Add(authorityLifetime).UnixMicro())
		return err
	})
	if err != nil {
		return nil, storeError(err)
	}
	root, err := a.loadRoot(ctx, hash) // another node may have been first
	if err == nil && a.added != nil {
		a.added(ctx)
	}
	return root, err
}

func (a *Authority) selfSign(key crypto.Signer, hash [sha256.Size]byte) ([]byte, error) {
	now := a.store.db.Now()
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "Privyseal callers"}, SubjectKeyId: hash[:20],
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLifetime), IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

func (a *Authority) loadRoot(ctx context.Context, hash [sha256.Size]byte) (root *x509.Certificate, err error) {
	roots, err := a.roots(ctx, `WHERE key_hash = ?`, hash[:])
	if err != nil || len(roots) == 0 {
		return nil, err
	}
	return roots[0], nil
}

func (a *Authority) roots(ctx context.Context, where string, args ...any) (roots []*x509.Certificate, err error) {
	err = a.store.db.Read(ctx, func(tx *sqldb.Tx) error {
		roots = nil
		rows, err := tx.Query(ctx, `SELECT certificate FROM access_authority `+where, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var der []byte
			if err := rows.Scan(&der); err != nil {
				return err
			}
			c, err := x509.ParseCertificate(der)
			if err != nil {
				return err
			}
			roots = append(roots, c)
		}
		return rows.Err()
	})
	return roots, storeError(err)
}

// Pool returns the CA's certificates of all its keys that have not expired:
// the ClientCAs of the server. It asks for the key only if there is none yet,
// so that a server starts without its device.
func (a *Authority) Pool(ctx context.Context) (*x509.CertPool, error) {
	roots, err := a.roots(ctx, `WHERE not_after > ?`, a.store.db.Now().UnixMicro())
	if err != nil {
		return nil, err
	}
	if len(roots) == 0 {
		root, err := a.Root(ctx)
		if err != nil {
			return nil, err
		}
		roots = append(roots, root)
	}
	pool := x509.NewCertPool()
	for _, c := range roots {
		pool.AddCert(c)
	}
	return pool, nil
}

// An Issued is a certificate for a caller.
type Issued struct {
	Chain      [][]byte // DER, the caller's first
	NotAfter   time.Time
	RenewAfter time.Time
}

// Enroll exchanges a token for a certificate. The token goes to the public key
// of the first csr: with that key it may be asked again, for the case that the
// answer was lost, until it expires.
func (a *Authority) Enroll(ctx context.Context, token string, csr []byte) (*Issued, error) {
	t, err := ParseToken(token)
	if err != nil {
		return nil, err
	}
	pub, hash, err := parseCSR(csr)
	if err != nil {
		return nil, err
	}
	var in *invited
	err = a.store.db.Write(ctx, func(tx *sqldb.Tx) error {
		if in, err = a.store.invitation(ctx, tx, t, hash); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, storeError(err)
	}
	return a.issue(ctx, in.tenant, in.name, pub, func(tx *sqldb.Tx) error {
		if _, err := a.store.invitation(ctx, tx, t, hash); err != nil { // it may have gone to another key meanwhile
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE access_invitation SET key_hash = ? WHERE tenant = ? AND name = ?`, hash[:], in.tenant, in.name)
		return err
	})
}

// Renew issues a certificate to an active caller.
func (a *Authority) Renew(ctx context.Context, c *Caller, csr []byte) (*Issued, error) {
	pub, _, err := parseCSR(csr)
	if err != nil {
		return nil, err
	}
	return a.issue(ctx, c.Tenant, c.Name, pub, func(tx *sqldb.Tx) error {
		now, err := loadCaller(ctx, tx, c.Tenant, c.Name, tx.ForUpdate())
		if err == nil && now.State != Active {
			err = fmt.Errorf("%w: the caller was revoked", ErrUnknown)
		}
		return err
	})
}

// issue signs a certificate and then records it, together with what entitled
// its holder. A certificate that is not recorded is nobody's.
func (a *Authority) issue(ctx context.Context, tenant, name string, pub crypto.PublicKey, entitled func(*sqldb.Tx) error) (*Issued, error) {
	key, err := a.key(ctx)
	if err != nil {
		return nil, err
	}
	root, err := a.rootOf(ctx, key)
	if err != nil {
		return nil, err
	}
	now := a.store.db.Now()
	template := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{Organization: []string{tenant}, CommonName: name}, URIs: []*url.URL{callerURI(tenant, name)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(a.lifetime).Truncate(time.Second),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, root, pub, key)
	if err != nil {
		return nil, fmt.Errorf("access: the certificate of a caller: %w", err)
	}
	err = a.store.db.Write(ctx, func(tx *sqldb.Tx) error {
		if err := entitled(tx); err != nil {
			return err
		}
		return record(ctx, tx, tenant, name, template, now)
	})
	if err != nil {
		return nil, storeError(err)
	}
	a.store.known.clear()
	return &Issued{Chain: [][]byte{der, root.Raw}, NotAfter: template.NotAfter, RenewAfter: now.Add(a.lifetime * 2 / 3)}, nil
}

func record(ctx context.Context, tx *sqldb.Tx, tenant, name string, c *x509.Certificate, now time.Time) error {
	_, err := tx.Exec(ctx, `INSERT INTO access_certificate (serial, tenant, name, issued_at, not_after, revoked) VALUES (?, ?, ?, ?, ?, 0)`,
		c.SerialNumber.Text(16), tenant, name, now.UnixMicro(), c.NotAfter.UnixMicro())
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM access_certificate WHERE not_after < ?`, now.UnixMicro()); err != nil {
		return err
	}
	gone := fmt.Errorf("%w: the caller was revoked", ErrUnknown)
	return tx.ExecOne(ctx, gone, `UPDATE access_caller SET state = 'active', not_after = ? WHERE tenant = ? AND name = ? AND state <> 'revoked'`,
		c.NotAfter.UnixMicro(), tenant, name)
}

func callerURI(tenant, name string) *url.URL {
	return &url.URL{Scheme: "privyseal", Host: tenant, Path: "/callers/" + name}
}

// newSerial returns 127 random bits.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	b[15] |= 1 // not zero
	return new(big.Int).SetBytes(b)
}

// maxCSR is above any request with a key of a kind that we take.
const maxCSR = 16 << 10

// parseCSR returns the public key that a request proves possession of.
func parseCSR(der []byte) (crypto.PublicKey, [sha256.Size]byte, error) {
	var none [sha256.Size]byte
	if len(der) > maxCSR {
		return nil, none, fmt.Errorf("%w: a certificate request of %d octets", ErrUsage, len(der))
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, none, fmt.Errorf("%w: not a PKCS#10 request in DER", ErrUsage)
	}
	switch csr.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, none, fmt.Errorf("%w: callers have ECDSA or Ed25519 keys, not %T", ErrUsage, csr.PublicKey)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, none, fmt.Errorf("%w: the request is not signed with its own key", ErrUsage)
	}
	hash, err := keyHash(csr.PublicKey)
	return csr.PublicKey, hash, err
}

func keyHash(pub crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return [sha256.Size]byte{}, errors.Join(ErrUsage, err)
	}
	return sha256.Sum256(der), nil
}
