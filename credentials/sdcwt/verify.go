package sdcwt

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// An IssuerID is what a token says of its issuer. Nothing in it is an address
// to be asked.
type IssuerID struct {
	Issuer  string   // iss, or "" if the token has none
	KeyID   []byte   // kid, or nil
	X5Chain [][]byte // certificates of the protected header, or nil
}

// IssuerKeys finds the keys of a configured issuer.
type IssuerKeys interface {
	// IssuerKeys returns the keys that may have signed a token of id, one or
	// more. Its error is a *credentials.Error of code issuer-unknown, issuer-key
	// or chain.
	IssuerKeys(ctx context.Context, id IssuerID) ([]crypto.PublicKey, error)
}

// A StaticIssuer is an issuer whose keys are known beforehand.
type StaticIssuer struct {
	Issuer string // as in iss
	Keys   []StaticKey
}

// A StaticKey is one key of a StaticIssuer. A key without ID fits every kid.
type StaticKey struct {
	ID     []byte
	Public crypto.PublicKey
}

// IssuerKeys implements IssuerKeys.
func (s *StaticIssuer) IssuerKeys(_ context.Context, id IssuerID) ([]crypto.PublicKey, error) {
	if id.Issuer == "" || id.Issuer != s.Issuer {
		return nil, credentials.Errorf(credentials.CodeIssuerUnknown, "iss", "%q is not the configured issuer", id.Issuer)
	}
	var keys []crypto.PublicKey
	for _, k := range s.Keys {
		if k.ID == nil || id.KeyID == nil || bytes.Equal(k.ID, id.KeyID) {
			keys = append(keys, k.Public)
		}
	}
	if len(keys) == 0 {
		return nil, credentials.Errorf(credentials.CodeIssuerKey, "kid", "the issuer has no key with this kid")
	}
	return keys, nil
}

// A Verifier judges SD-CWTs. Its zero value accepts nothing: Issuers and one of
// Audience and AcceptAudience must be set.
type Verifier struct {
	Issuers IssuerKeys

	Audience       []string          // our names, one of which aud must have
	AcceptAudience func(string) bool // instead of Audience

	Now      func() time.Time            // time.Now if nil
	Skew     time.Duration               // by which clocks may differ
	MaxAge   time.Duration               // of a KBT since its iat; 0 for any
	Nonce    []byte                      // that the KBT's cnonce must equal, if not nil
	Types    func(mediaType string) bool // which types with the suffix +sd-cwt are taken
	MaxToken int                         // octets, 64 KiB if 0
	// AcceptPlain also takes an ordinary CWT with a cnf (RFC 8747) in the place
	// of the SD-CWT: its typ is application/cwt, or it has none.
	AcceptPlain bool

	// MaxDisclosures is 256 if 0.
	MaxDisclosures int

	// ConfirmationKey is the key that cnf must be for, such as that of an MLS
	// leaf. If it is nil, cnf must have the whole key.
	ConfirmationKey crypto.PublicKey

	Decrypt DecryptionKeys // nil leaves encrypted disclosures alone
	Profile *Profile

	// Status checks the status claim, in CBOR. It is asked last, once everything
	// else has been accepted. If it is nil, the status is not checked.
	Status func(ctx context.Context, status []byte) error
}

// A Verified is an accepted token.
type Verified struct {
	Claims          ClaimsSet // the validated disclosed claims set
	Issuer          string
	IssuerKey       crypto.PublicKey
	ConfirmationKey crypto.PublicKey
	Hash            Hash
	Expires         time.Time // zero if the token has none
	NotBefore       time.Time
	Redacted        int // claims and decoys that stayed closed
	Undecrypted     int // encrypted disclosures that are for somebody else
	KeyBinding      *KeyBinding
}

// A KeyBinding is what the holder said in the KBT.
type KeyBinding struct {
	Audience  string
	IssuedAt  time.Time // zero if there is only a cti
	Expires   time.Time // zero if there is none
	CWTID     []byte
	Nonce     []byte
	Claims    ClaimsSet // all claims of the KBT
	Encrypted int       // disclosures that were presented encrypted
}

// Verify judges a KBT. The steps are those of the draft's section 9, shape
// before signatures and signatures before content.
func (v *Verifier) Verify(ctx context.Context, kbt []byte) (*Verified, error) {
	if err := v.configured(); err != nil {
		return nil, err
	}
	k, err := v.parseKBT(kbt) // steps 1 to 4
	if err != nil {
		return nil, err
	}
	out, err := v.issued(ctx, k.token) // 5 to 9
	if err != nil {
		return nil, err
	}
	if !k.sign1.Verify(out.ConfirmationKey) { // 10
		return nil, credentials.Errorf(credentials.CodeKBTSignature, "KBT", "the signature is not by the confirmation key, or alg does not fit it")
	}
	if out.KeyBinding, err = v.keyBinding(k, k.token); err != nil { // 11 to 14
		return nil, err
	}
	if err := v.finish(ctx, k.token, out, false); err != nil { // 15 to 18
		return nil, err
	}
	return out, nil
}

// VerifyIssued judges an SD-CWT that comes without key binding, as an issuer or
// an auditor sees it. Nobody has proven to hold the confirmation key.
func (v *Verifier) VerifyIssued(ctx context.Context, sdcwt []byte) (*Verified, error) {
	t, out, err := v.verifyIssued(ctx, sdcwt)
	if err != nil {
		return nil, err
	}
	if err := v.finish(ctx, t, out, false); err != nil {
		return nil, err
	}
	return out, nil
}

func (v *Verifier) verifyIssued(ctx context.Context, sdcwt []byte) (*token, *Verified, error) {
	if err := v.configured(); err != nil {
		return nil, nil, err
	}
	limits := limitsOf(v.MaxToken)
	s, err := cose.DecodeSign1(sdcwt, limits)
	if err != nil {
		return nil, nil, malformed("SD-CWT", err)
	}
	t, err := parseToken(s, limits, v.accepts)
	if err != nil {
		return nil, nil, err
	}
	out, err := v.issued(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	return t, out, v.audience(t.claim(ClaimAudience), "SD-CWT", false)
}

func (v *Verifier) configured() error {
	if v.Issuers == nil {
		return errors.New("sdcwt: a Verifier without Issuers")
	}
	return nil
}

// accepts reports whether the verifier takes a type beside that of an SD-CWT.
func (v *Verifier) accepts(typ dcbor.Value) bool {
	name, ok := typ.Text()
	if v.AcceptPlain && (!typ.Exists() || typ.IsInt(contentFormatCWT) || name == mediaTypeCWT) {
		return true
	}
	return ok && v.Types != nil && strings.HasSuffix(name, suffixSDCWT) && v.Types(name)
}

func (v *Verifier) now() time.Time {
	if v.Now != nil {
		return v.Now()
	}
	return time.Now()
}

// issued is what a verification of the SD-CWT itself comes to: steps 5 to 9.
func (v *Verifier) issued(ctx context.Context, t *token) (*Verified, error) {
	out := &Verified{Hash: t.hash}
	if err := v.issuer(ctx, t, out); err != nil {
		return nil, err
	}
	life, err := requiredClaims(t)
	if err != nil {
		return nil, err
	}
	if !life.order() {
		return nil, credentials.Errorf(credentials.CodeTimeOrder, "claims", "want nbf <= iat, nbf < exp and iat < exp")
	}
	if code := life.at(v.now(), v.Skew); code != "" {
		return nil, credentials.Errorf(code, "claims", "at %s", v.now().UTC().Format(time.RFC3339))
	}
	if err := v.Profile.clear(t); err != nil {
		return nil, err
	}
	out.Expires, out.NotBefore = life.exp.time(), life.nbf.time()
	out.ConfirmationKey, err = v.confirmation(t.claim(ClaimCnf))
	return out, err
}

// issuer finds the issuer's key and verifies the signature (steps 5 and 6).
func (v *Verifier) issuer(ctx context.Context, t *token, out *Verified) error {
	id, err := issuerID(t)
	if err != nil {
		return err
	}
	keys, err := v.Issuers.IssuerKeys(ctx, id)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(keys, t.sign1.Verify)
	if i < 0 {
		return credentials.Errorf(credentials.CodeIssuerSignature, "SD-CWT", "the signature is by none of the issuer's %d keys", len(keys))
	}
	out.Issuer, out.IssuerKey = id.Issuer, keys[i]
	return nil
}

func issuerID(t *token) (IssuerID, error) {
	var id IssuerID
	var err error
	if id.X5Chain, err = t.sign1.X5Chain(); err != nil {
		return id, credentials.Errorf(credentials.CodeChain, "SD-CWT header", "%w", err)
	}
	id.KeyID, _ = t.sign1.KeyID()
	iss := t.claim(ClaimIssuer)
	if !iss.Exists() && id.X5Chain == nil {
		return id, credentials.Errorf(credentials.CodeClaimMissing, "claims", "neither iss nor a certificate names the issuer")
	}
	var ok bool
	if id.Issuer, ok = iss.Text(); iss.Exists() && !ok {
		return id, credentials.Errorf(credentials.CodeClaimType, "claims", "iss is a %s, want text", iss.Kind())
	}
	return id, nil
}

// requiredClaims checks presence and type of the registered claims (step 7).
func requiredClaims(t *token) (lifetime, error) {
	for _, c := range []struct {
		key  int64
		kind dcbor.Kind
		must bool
	}{
		{ClaimSubject, dcbor.Text, !t.mayBeRedacted()},
		{ClaimCnf, dcbor.Map, true},
		{ClaimCWTID, dcbor.Bytes, false},
		{ClaimCNonce, dcbor.Bytes, false},
	} {
		v := t.claim(c.key)
		if !v.Exists() && c.must {
			return lifetime{}, credentials.Errorf(credentials.CodeClaimMissing, "claims", "claim %d is missing", c.key)
		}
		if v.Exists() && v.Kind() != c.kind {
			return lifetime{}, credentials.Errorf(credentials.CodeClaimType, "claims", "claim %d is a %s, want a %s", c.key, v.Kind(), c.kind)
		}
	}
	return lifetimeOf(t.claim, "claims")
}

// confirmation returns the key that the KBT must be signed with (step 9).
func (v *Verifier) confirmation(cnf dcbor.Value) (crypto.PublicKey, error) {
	c, err := credentials.CWTCnfFrom(cnf)
	if err != nil {
		return nil, err
	}
	if v.ConfirmationKey != nil {
		return v.ConfirmationKey, c.MatchKey(v.ConfirmationKey)
	}
	if c.Key == nil {
		return nil, credentials.Errorf(credentials.CodeCnfUnsupported, "cnf", "only a thumbprint, and the key is not known otherwise")
	}
	return c.Key.Public, nil
}

// audience checks that an aud claim names us (step 14).
func (v *Verifier) audience(aud dcbor.Value, where string, must bool) error {
	if !aud.Exists() && !must {
		return nil
	}
	names, ok := aud.Elements()
	if !ok {
		names = []dcbor.Value{aud}
	}
	ours := false
	for _, n := range names {
		name, ok := n.Text()
		if !ok {
			return credentials.Errorf(credentials.CodeClaimType, where, "aud is neither text nor an array of text")
		}
		ours = ours || v.isOurs(name)
	}
	if !ours {
		return credentials.Errorf(credentials.CodeAudience, where, "aud does not name this verifier")
	}
	return nil
}

func (v *Verifier) isOurs(name string) bool {
	if v.AcceptAudience != nil {
		return v.AcceptAudience(name)
	}
	return slices.Contains(v.Audience, name)
}

// finish opens the disclosures and judges what came out (steps 15 to 18). A
// holder must be able to open everything.
func (v *Verifier) finish(ctx context.Context, t *token, out *Verified, holder bool) error {
	o, err := v.open(ctx, t, holder)
	if err != nil {
		return err
	}
	if holder && o.closed > 0 {
		return credentials.Errorf(credentials.CodeDisclosureUnmatched, "claims", "%d redacted claims came without a disclosure", o.closed)
	}
	if err := afterUnredaction(o); err != nil {
		return err
	}
	if err := v.Profile.validated(o); err != nil {
		return err
	}
	out.Claims, out.Redacted = o.claims, o.closed
	out.Undecrypted = len(t.encrypted) - (len(o.disclosures) - len(t.disclosures))
	if status := o.claims.Raw(ClaimStatus); v.Status != nil && status != nil {
		return v.Status(ctx, status)
	}
	return nil
}

func (v *Verifier) open(ctx context.Context, t *token, track bool) (*opened, error) {
	limit := v.MaxDisclosures
	if limit == 0 {
		limit = maxDisclosures
	}
	if len(t.disclosures)+len(t.encrypted) > limit {
		return nil, credentials.Errorf(credentials.CodeMalformed, "SD-CWT header", "more than %d disclosures", limit)
	}
	decrypted, err := t.decrypt(ctx, v.Decrypt)
	if err != nil {
		return nil, err
	}
	disclosures, err := parseDisclosures(slices.Concat(t.disclosures, decrypted), t.hash)
	if err != nil {
		return nil, err
	}
	return t.open(disclosures, track)
}

// afterUnredaction checks the claims that may have been redacted: sub must be
// there, or among what stayed closed.
func afterUnredaction(o *opened) error {
	sub := o.claims.lookup(ClaimSubject)
	if !sub.Exists() && !o.topClosed {
		return credentials.Errorf(credentials.CodeClaimMissing, "claims", "sub is missing")
	}
	if sub.Exists() && sub.Kind() != dcbor.Text {
		return credentials.Errorf(credentials.CodeClaimType, "claims", "sub is a %s, want text", sub.Kind())
	}
	return checkVCT(o.claims.lookup(ClaimVCT))
}
