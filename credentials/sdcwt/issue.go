package sdcwt

import (
	"context"
	"crypto"
	"crypto/rand"
	"io"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
)

// An Issuer signs SD-CWTs with one key. It trusts its caller to have proven
// that the holder has the key in cnf.
type Issuer struct {
	Key     crypto.Signer
	KeyID   []byte   // kid, left out if nil
	X5Chain [][]byte // DER certificates, leaf first, left out if nil
	Hash    Hash     // SHA-256 if 0
	AEAD    AEAD     // in which the holder may encrypt disclosures; AES-128-GCM if 0
	Type    string   // a media type ending in +sd-cwt; content format 293 if ""
	Profile *Profile // nil for the requirements of the draft alone

	Rand           io.Reader // of salts, crypto/rand if nil
	MaxDisclosures int       // 256 if 0
}

// Issue redacts what Redact and Decoy mark in claims, and signs the rest.
func (i *Issuer) Issue(ctx context.Context, claims Claims) ([]byte, error) {
	v, err := dcbor.FromNative(claims)
	if err != nil {
		return nil, malformed(whereClaims, err)
	}
	r := redactors.Get().(*redactor)
	defer r.release()
	return i.issue(ctx, r, v)
}

// IssueCBOR is Issue for a claims set in CBOR, with tags 58 and 62 as a holder
// may have sent it.
func (i *Issuer) IssueCBOR(ctx context.Context, claims []byte) ([]byte, error) {
	r := redactors.Get().(*redactor)
	defer r.release()
	v, err := limitsOf(0).DecodeIn(&r.arena, claims)
	if err != nil {
		return nil, malformed(whereClaims, err)
	}
	return i.issue(ctx, r, v)
}

func (i *Issuer) issue(ctx context.Context, r *redactor, claims dcbor.Value) ([]byte, error) {
	random := i.Rand
	if random == nil {
		random = rand.Reader
	}
	hash := i.Hash
	if hash == 0 {
		hash = SHA256
	}
	if hash.size() == 0 {
		return nil, credentials.Errorf(credentials.CodeSDAlg, "issuer", "sd_alg %d is not supported", hash)
	}
	r.hash = hash
	payload, err := r.redact(claims, random)
	if err != nil {
		return nil, err
	}
	if err := i.check(payload, r.count, hash); err != nil {
		return nil, err
	}
	protected, err := i.protected(r.arena.Make(10)[:0])
	if err != nil {
		return nil, err
	}
	r.scratch = payload.Append(r.scratch[:0])
	out, err := cose.Sign(ctx, i.Key, protected, r.sdClaims(), r.scratch)
	if err != nil {
		return nil, err
	}
	if len(out) > maxToken {
		return nil, credentials.Errorf(credentials.CodeMalformed, "issuer", "a token of %d octets, want at most %d", len(out), maxToken)
	}
	return out, nil
}

// protected returns the protected header without alg. sd_alg is always written:
// what a verifier need not infer it cannot infer wrongly. The members are appended
// to header, in the order of their labels.
func (i *Issuer) protected(header []dcbor.Value) (dcbor.Value, error) {
	typ := dcbor.NewInt(contentFormatSDCWT)
	if i.Type != "" {
		typ = dcbor.NewText(i.Type)
	}
	if !isType(typ, holdableSuffix) {
		return typ, credentials.Errorf(credentials.CodeSDCWTTyp, "issuer", "%q is no type of an SD-CWT", i.Type)
	}
	hash := i.Hash
	if hash == 0 {
		hash = SHA256
	}
	if i.KeyID != nil {
		header = append(header, dcbor.NewInt(cose.HeaderKid), dcbor.NewBytes(i.KeyID))
	}
	header = append(header, dcbor.NewInt(cose.HeaderTyp), typ)
	if i.X5Chain != nil {
		header = append(header, dcbor.NewInt(cose.HeaderX5Chain), x5chain(i.X5Chain))
	}
	header = append(header, dcbor.NewInt(headerSDAlg), dcbor.NewInt(int64(hash)))
	if i.AEAD != 0 {
		n := dcbor.NewUint(uint64(i.AEAD))
		if _, err := aeadFrom(n); err != nil {
			return n, err
		}
		header = append(header, dcbor.NewInt(headerSDAEAD), n)
	}
	return dcbor.NewMap(header...), nil
}

func x5chain(chain [][]byte) dcbor.Value {
	if len(chain) == 1 {
		return dcbor.NewBytes(chain[0])
	}
	list := make([]dcbor.Value, len(chain))
	for i, c := range chain {
		list[i] = dcbor.NewBytes(c)
	}
	return dcbor.NewArray(list...)
}

// sdClaims returns the unprotected header with the disclosures.
func (r *redactor) sdClaims() dcbor.Value {
	if r.count == 0 {
		return dcbor.NewMap()
	}
	members := r.arena.Make(2)
	members[0], members[1] = dcbor.NewInt(headerSDClaims), dcbor.Verbatim(r.salted)
	return dcbor.NewMap(members...)
}

// check refuses to sign what a verifier would refuse to accept.
func (i *Issuer) check(payload dcbor.Value, disclosures int, h Hash) error {
	limit := i.MaxDisclosures
	if limit == 0 {
		limit = maxDisclosures
	}
	if disclosures > limit {
		return credentials.Errorf(credentials.CodeMalformed, "issuer", "%d disclosures, want at most %d", disclosures, limit)
	}
	t := &token{payload: payload, hash: h, shape: newClaimsShape(h, disclosures)}
	if err := t.shape.claimsMap(payload); err != nil {
		return err
	}
	life, err := i.checkClaims(t)
	if err != nil {
		return err
	}
	if !life.order() {
		return credentials.Errorf(credentials.CodeTimeOrder, whereClaims, "want nbf <= iat, nbf < exp and iat < exp")
	}
	if _, err := credentials.CWTCnfFrom(payload.GetInt(ClaimCnf)); err != nil {
		return err
	}
	return i.checkProfile(t)
}

func (i *Issuer) checkClaims(t *token) (lifetime, error) {
	iss := t.claim(ClaimIssuer)
	if !iss.Exists() && i.X5Chain == nil {
		return lifetime{}, credentials.Errorf(credentials.CodeClaimMissing, whereClaims, "iss is missing")
	}
	if iss.Exists() && iss.Kind() != dcbor.Text {
		return lifetime{}, credentials.Errorf(credentials.CodeClaimType, whereClaims, "iss is a %s, want text", iss.Kind())
	}
	if err := checkVCT(t.claim(ClaimVCT)); err != nil {
		return lifetime{}, err
	}
	return requiredClaims(t)
}

// checkProfile checks the profile on what a verifier without any disclosure
// would see.
func (i *Issuer) checkProfile(t *token) error {
	if i.Profile == nil {
		return nil
	}
	if err := i.Profile.clear(t); err != nil {
		return err
	}
	return i.Profile.validated(&opened{claims: ClaimsSet{t.payload}})
}
