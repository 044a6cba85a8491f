package identity

import (
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// A Level is the strength of the evidence for an identity.
type Level int

// The levels.
const (
	Asserted Level = iota // a basic credential, or a weak one with a basic binding
	Vouched               // a basic credential that the client's own provider delivered
	Issued                // a certificate or token of an issuer that may speak for the names
	Attested              // the same, of an issuer that demands an attested device key
)

// String returns the level in words.
func (l Level) String() string {
	if names := [...]string{"asserted", "vouched", "issued", "attested"}; l >= 0 && int(l) < len(names) {
		return names[l]
	}
	return fmt.Sprintf("level %d", int(l))
}

// An Identity is whom a leaf stands for.
type Identity struct {
	Client mimi.URI // mimi://h/d/…
	User   mimi.URI // mimi://h/u/… or mimi://h/p/…; the participant
	Level  Level
	Type   mls.CredentialType
	Issuer string // the issuer's entry in the configuration; empty for a basic credential

	// NotBefore and NotAfter bound the time in which all of the evidence is
	// valid. Zero is no bound.
	NotBefore, NotAfter time.Time
}

// Provider returns the provider of the client and its user.
func (i *Identity) Provider() mimi.URI { return i.Client.Provider() }

// Pseudonymous reports whether the user goes by a pseudonym.
func (i *Identity) Pseudonymous() bool { return i.User.Kind() == mimi.KindPseudonym }

// Proven reports whether an issuer stands behind the identity, end to end.
func (i *Identity) Proven() bool { return i.Level >= Issued }

// MayPreauthorize reports whether claims of the credential may give a role. A
// credential with bindings of which a verifier may skip some may not.
func (i *Identity) MayPreauthorize() bool { return i.Proven() && i.Type != mls.CredentialWeakMulti }

// SameParticipant reports whether two leaves are of one participant. A name
// that is only asserted never equals one that is proven.
func SameParticipant(a, b *Identity) bool { return a.User == b.User && a.Proven() == b.Proven() }

// An Issuer is the entry of the trust configuration under which evidence was
// verified.
type Issuer struct {
	Name     string
	Attested bool // it demands an attestation of the device key

	// Allows reports whether the issuer may speak for a name. nil allows none.
	Allows func(mimi.URI) bool

	// ClientClaim and UserClaim of a token hold the URIs: a string, or an
	// integer key of a CWT. The client's is sub if ClientClaim is nil.
	ClientClaim, UserClaim any
	// UserFromClient takes the user mimi://h/u/<user> from a client
	// mimi://h/d/<user>/<client> if there is no claim of the user.
	UserFromClient bool
}

func (s *Issuer) level() Level {
	if s.Attested {
		return Attested
	}
	return Issued
}

func (s *Issuer) allow(where string, u mimi.URI) error {
	if s.Allows == nil || !s.Allows(u) {
		return credentials.Errorf(credentials.CodeIdentityUnauthorized, where, "issuer %q may not speak for %s", s.Name, u)
	}
	return nil
}

// FromCertificate returns the identity of a verified device certificate.
func FromCertificate(r *certs.Result, issuer *Issuer) (*Identity, error) {
	const where = "certificate"
	if r.IsHub() {
		return nil, credentials.Errorf(credentials.CodeIdentityMissing, where, "a hub's certificate names no client")
	}
	id := &Identity{Client: r.Client, User: r.User, NotBefore: r.NotBefore, NotAfter: r.NotAfter}
	return id.issued(where, mls.CredentialX509, issuer)
}

// FromSDJWT returns the identity of a verified SD-JWT with key binding.
func FromSDJWT(v *sdjwt.Verified, issuer *Issuer) (*Identity, error) {
	const where = "SD-JWT"
	if v.KeyBinding == nil {
		return nil, credentials.Errorf(credentials.CodeKBMissing, where, "a token without key binding is nobody's")
	}
	c := claims{
		where: where, issuer: issuer, key: v.KeyBinding.HolderKey, subject: "sub",
		has:  func(name any) bool { _, ok := v.Claims.Get(name); return ok },
		text: func(name any) (string, bool) { return v.Claims.Text(name) },
	}
	id := &Identity{
		NotBefore: later(v.NotBefore, v.IssuedAt),
		NotAfter:  earlier(v.Expires, v.KeyBinding.Expires),
	}
	if err := c.name(id); err != nil {
		return nil, err
	}
	return id.issued(where, mls.CredentialSDJWT, issuer)
}

// FromSDCWT returns the identity of a verified SD-CWT with its key binding.
func FromSDCWT(v *sdcwt.Verified, issuer *Issuer) (*Identity, error) {
	const where = "SD-CWT"
	if v.KeyBinding == nil {
		return nil, credentials.Errorf(credentials.CodeKBMissing, where, "a token without key binding is nobody's")
	}
	c := claims{where: where, issuer: issuer, key: v.ConfirmationKey, subject: sdcwt.ClaimSubject, has: v.Claims.Has, text: v.Claims.Text}
	id := &Identity{NotBefore: v.NotBefore, NotAfter: earlier(v.Expires, v.KeyBinding.Expires)}
	if err := c.name(id); err != nil {
		return nil, err
	}
	return id.issued(where, mls.CredentialSDCWT, issuer)
}

// FromBasic returns the identity that a basic credential asserts. It must be a
// client mimi://h/d/<user>/<client>, whose user is mimi://h/u/<user>. voucher
// is the host of the provider that delivered the KeyPackage over an
// authenticated connection, and must be h; if it is empty, nobody vouches.
func FromBasic(identity []byte, voucher string) (*Identity, error) {
	const where = "basic credential"
	client, err := parseName(where, string(identity))
	if err != nil {
		return nil, err
	}
	user, ok := client.ClientOwner()
	if !ok {
		return nil, credentials.Errorf(credentials.CodeIdentityMalformed, where, "%s is not of the form mimi://<host>/d/<user>/<client>", client)
	}
	id := &Identity{Client: client, User: user, Level: Asserted, Type: mls.CredentialBasic}
	if voucher == "" {
		return id, nil
	}
	if voucher != client.Host() {
		return nil, credentials.Errorf(credentials.CodeIdentityHostMismatch, where, "%s was delivered by %q", client, voucher)
	}
	id.Level = Vouched
	return id, nil
}

// issued completes an identity whose names come from an issuer, all of which
// must be its to give: an issuer that claims one name too many is
// misconfigured or hostile.
func (i *Identity) issued(where string, t mls.CredentialType, issuer *Issuer) (*Identity, error) {
	if err := i.consistent(where); err != nil {
		return nil, err
	}
	for _, u := range []mimi.URI{i.Client, i.User} {
		if err := issuer.allow(where, u); err != nil {
			return nil, err
		}
	}
	i.Type, i.Level, i.Issuer = t, issuer.level(), issuer.Name
	return i, nil
}

// consistent holds the shape of an identity: one client, its user, one host.
func (i *Identity) consistent(where string) error {
	switch {
	case i.Client.IsZero() || i.User.IsZero():
		return credentials.Errorf(credentials.CodeIdentityMissing, where, "want one client URI (/d/…) and one user URI (/u/… or /p/…)")
	case i.Client.Kind() != mimi.KindClient:
		return credentials.Errorf(credentials.CodeIdentityMalformed, where, "%s names a %s, want a client", i.Client, i.Client.Kind())
	case i.User.Kind() != mimi.KindUser && i.User.Kind() != mimi.KindPseudonym:
		return credentials.Errorf(credentials.CodeIdentityMalformed, where, "%s names a %s, want a user", i.User, i.User.Kind())
	case i.Client.Host() != i.User.Host():
		return credentials.Errorf(credentials.CodeIdentityHostMismatch, where, "client at %s, user at %s", i.Client.Host(), i.User.Host())
	}
	return nil
}

func parseName(where, s string) (mimi.URI, error) {
	u, err := mimi.ParseURI(s)
	if err != nil {
		return u, credentials.Errorf(credentials.CodeIdentityMalformed, where, "%.100q: %w", s, err)
	}
	return u, nil
}

// claims are the claims of a token in which its issuer names the holder.
type claims struct {
	where   string
	issuer  *Issuer
	key     crypto.PublicKey // that cnf confirms
	subject any              // name of sub
	has     func(name any) bool
	text    func(name any) (string, bool)
}

// name reads the URIs.
func (c *claims) name(id *Identity) (err error) {
	clientClaim := c.issuer.ClientClaim
	if clientClaim == nil {
		clientClaim = c.subject
	}
	if id.Client, err = c.uri("client", clientClaim); err != nil {
		return err
	}
	if id.User, err = c.user(id.Client); err != nil || clientClaim == c.subject {
		return err
	}
	return c.checkSubject(id)
}

// user reads the user's URI. A claim of the user that is there decides, even
// where the client would show its user.
func (c *claims) user(client mimi.URI) (mimi.URI, error) {
	claim := c.issuer.UserClaim
	if owner, ok := client.ClientOwner(); ok && c.issuer.UserFromClient && (claim == nil || !c.has(claim)) {
		return owner, nil
	}
	return c.uri("user", claim)
}

func (c *claims) uri(what string, name any) (mimi.URI, error) {
	where := fmt.Sprintf("%s claim %v", c.where, name)
	if name == nil || !c.has(name) {
		return mimi.URI{}, credentials.Errorf(credentials.CodeIdentityMissing, where, "it should name the %s", what)
	}
	s, ok := c.text(name)
	if !ok {
		return mimi.URI{}, credentials.Errorf(credentials.CodeIdentityMalformed, where, "not a text")
	}
	return parseName(where, s)
}

// checkSubject judges a sub beside a claim of the client: a mimi: URI must be
// the issuer's to give and name the same client or user, and a key thumbprint
// must be that of the confirmed key.
func (c *claims) checkSubject(id *Identity) error {
	s, ok := c.text(c.subject)
	where := c.where + " sub"
	switch {
	case !ok:
		return nil
	case isMIMI(s):
		u, err := parseName(where, s)
		if err != nil {
			return err
		}
		if err := c.issuer.allow(where, u); err != nil {
			return err
		}
		if u != id.Client && u != id.User {
			return credentials.Errorf(credentials.CodeIdentityMismatch, where, "%s is neither %s nor its user", u, id.Client)
		}
	case strings.HasPrefix(s, thumbprintURN):
		if want, err := ThumbprintURI(c.key); err != nil || s != want {
			return credentials.Errorf(credentials.CodeIdentityMismatch, where, "it is the thumbprint of another key than the confirmed one")
		}
	}
	return nil
}

// isMIMI reports whether a text is a mimi: URI, canonical or not: the scheme of a
// URI is of either case.
func isMIMI(s string) bool {
	const scheme = "mimi:"
	return len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme)
}

const thumbprintURN = "urn:ietf:params:oauth:ckt:"

// ThumbprintURI returns the COSE key thumbprint URI of a key (RFC 9679), by
// which a token may name its holder without a name.
func ThumbprintURI(key crypto.PublicKey) (string, error) {
	t, err := credentials.COSEKeyThumbprint(key)
	if err != nil {
		return "", err
	}
	return thumbprintURN + "sha-256:" + base64.RawURLEncoding.EncodeToString(t), nil
}

// later and earlier take zero as no bound.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// A Fingerprint is what two people compare, and what is pinned for a client
// whose identity nobody has proven.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a leaf's signature key.
func FingerprintOf(signatureKey []byte) Fingerprint { return sha256.Sum256(signatureKey) }

// CheckPin compares the key of a leaf with the one that was pinned for its
// client. A proven identity may change its key; for another the user decides.
func CheckPin(id *Identity, pinned, now Fingerprint) error {
	if !id.Proven() && pinned != now {
		return credentials.Errorf(credentials.CodeIdentityKeyChanged, "leaf", "%s has another key than before, and no issuer vouches for it", id.Client)
	}
	return nil
}
