package statuslist

import (
	"context"
	"crypto"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// A Format is one of the two forms of a Status List Token.
type Format int

// The formats.
const (
	JWT Format = iota
	CWT
)

// MediaType returns the format's media type.
func (f Format) MediaType() string {
	if f == CWT {
		return MediaTypeCWT
	}
	return MediaTypeJWT
}

// A Token is a Status List Token:
//
//	JWT: typ statuslist+jwt; { sub, iat, ?exp, ?ttl, status_list: { bits, lst b64u, ?aggregation_uri } }
//	CWT: 16: "application/statuslist+cwt"; { 2, 6, ?4, ?65534, 65533: { bits, lst bstr, ?aggregation_uri } }
type Token struct {
	Subject        string // the URI under which it is published
	Issuer         string // iss of a JWT; not written in a CWT
	IssuedAt       time.Time
	NotBefore      time.Time     // zero if it has none; not written
	Expires        time.Time     // zero if it has none
	TTL            time.Duration // zero if it has none
	AggregationURI string
	Bits           int
	Compressed     []byte // lst
}

// A KeyHint is what a received token says of its key.
type KeyHint struct {
	URI     string // under which the list was fetched
	KeyID   []byte
	X5Chain [][]byte
}

// A received token is one whose signature is not verified yet.
type received struct {
	Token
	hint     KeyHint
	verifies func(crypto.PublicKey) bool
}

const whereToken = "status list token"

func unavailable(format string, args ...any) error {
	return credentials.Errorf(credentials.CodeStatusUnavailable, whereToken, format, args...)
}

func invalid(format string, args ...any) error {
	return credentials.Errorf(credentials.CodeStatusInvalid, whereToken, format, args...)
}

// parse reads a token of either format.
func parse(f Format, b []byte) (*received, error) {
	if len(b) > maxToken {
		return nil, unavailable("%d octets, want at most %d", len(b), maxToken)
	}
	if f == CWT {
		return parseCWT(b)
	}
	return parseJWT(string(b))
}

func parseJWT(s string) (*received, error) {
	j, err := jose.ParseCompact(s, jsonDepth)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	if j.Header.Typ != typJWT {
		return nil, unavailable("typ is %q, want %q", j.Header.Typ, typJWT)
	}
	if err := j.Header.CheckCritical(); err != nil {
		return nil, unavailable("%w", err)
	}
	chain, err := j.Header.Certificates()
	if err != nil {
		return nil, unavailable("%w", err)
	}
	if !slices.ContainsFunc(credentials.Schemes(), func(s *credentials.Scheme) bool { return s.AcceptsJOSE(j.Header.Alg) }) {
		return nil, unavailable("alg %q is not supported", j.Header.Alg)
	}
	r := &received{hint: KeyHint{X5Chain: chain}}
	if j.Header.Kid != "" {
		r.hint.KeyID = []byte(j.Header.Kid)
	}
	r.verifies = func(pub crypto.PublicKey) bool {
		scheme, err := credentials.SchemeOf(pub)
		return err == nil && scheme.AcceptsJOSE(j.Header.Alg) && j.Verify(scheme, pub)
	}
	claims, err := jose.ParseObject(j.Payload, jsonDepth)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	return r, r.readJSON(claims)
}

func (r *received) readJSON(claims *jose.Object) error {
	var there, ok bool
	if r.Subject, there, ok = claims.Text("sub"); !there || !ok {
		return unavailable("sub is missing or no text")
	}
	if r.Issuer, _, ok = claims.Text("iss"); !ok {
		return unavailable("iss is no text")
	}
	iat, there, ok := number(claims, "iat")
	if !there || !ok {
		return unavailable("iat is missing or no time")
	}
	exp, hasExp, ok := number(claims, "exp")
	if !ok {
		return unavailable("exp is no time")
	}
	nbf, hasNbf, ok := number(claims, "nbf")
	if !ok {
		return unavailable("nbf is no time")
	}
	if hasNbf {
		r.NotBefore = seconds(nbf)
	}
	ttl, hasTTL, ok := number(claims, "ttl")
	if !ok {
		return unavailable("ttl is no number")
	}
	if err := r.times(iat, exp, hasExp, ttl, hasTTL); err != nil {
		return err
	}
	v, _ := claims.Get("status_list")
	list, ok := v.(*jose.Object)
	if !ok {
		return unavailable("status_list is missing or no object")
	}
	return r.readJSONList(list)
}

func (r *received) readJSONList(list *jose.Object) error {
	bits, there, ok := number(list, "bits")
	if !there || !ok || bits != math.Trunc(bits) || math.Abs(bits) > 8 || !validBits(int(bits)) {
		return unavailable("%w", ErrBits)
	}
	r.Bits = int(bits)
	lst, there, ok := list.Text("lst")
	if !there || !ok {
		return unavailable("lst is missing or no text")
	}
	var err error
	if r.Compressed, err = jose.DecodeBase64(lst); err != nil {
		return unavailable("lst: %w", err)
	}
	if r.AggregationURI, _, ok = list.Text("aggregation_uri"); !ok {
		return unavailable("aggregation_uri is no text")
	}
	return nil
}

// number returns a finite number within plus or minus 2^53.
func number(o *jose.Object, name string) (f float64, there, ok bool) {
	v, there := o.Get(name)
	if !there {
		return 0, false, true
	}
	n, ok := v.(json.Number)
	if !ok {
		return 0, true, false
	}
	f, err := strconv.ParseFloat(string(n), 64)
	return f, true, err == nil && math.Abs(f) <= 1<<53
}

func (r *received) times(iat, exp float64, hasExp bool, ttl float64, hasTTL bool) error {
	r.IssuedAt = seconds(iat)
	if hasExp {
		r.Expires = seconds(exp)
	}
	if hasTTL {
		if ttl <= 0 {
			return unavailable("ttl of %v seconds", ttl)
		}
		r.TTL = time.Duration(min(ttl, maxTTL) * float64(time.Second))
	}
	return nil
}

// seconds returns a NumericDate as a Time that is not the zero Time, which
// stands for a claim that is missing.
func seconds(f float64) time.Time {
	whole, part := math.Modf(f)
	t := time.Unix(int64(whole), int64(part*1e9))
	if t.IsZero() {
		return t.Add(-1)
	}
	return t
}

func parseCWT(b []byte) (*received, error) {
	limits := dcbor.Limits{Size: maxToken, Items: 1 << 12}
	s, err := cose.DecodeSign1(b, limits)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	if typ, _ := s.Protected.GetInt(cose.HeaderTyp).Text(); typ != MediaTypeCWT {
		return nil, unavailable("typ is %v, want %q", s.Protected.GetInt(cose.HeaderTyp), MediaTypeCWT)
	}
	if _, err := s.Alg(); err != nil {
		return nil, unavailable("%w", err)
	}
	if err := s.Crit(cose.HeaderAlg, cose.HeaderCrit, cose.HeaderKid, cose.HeaderTyp, cose.HeaderX5Chain); err != nil {
		return nil, unavailable("%w", err)
	}
	r := &received{verifies: s.Verify}
	if r.hint.KeyID, err = s.KeyID(); err != nil {
		return nil, unavailable("%w", err)
	}
	if r.hint.X5Chain, err = s.X5Chain(); err != nil {
		return nil, unavailable("%w", err)
	}
	claims, err := limits.Decode(s.Payload)
	if err != nil {
		return nil, unavailable("%w", err)
	}
	return r, r.readCBOR(claims)
}

func (r *received) readCBOR(claims dcbor.Value) error {
	var ok bool
	if r.Subject, ok = claims.GetInt(claimSubject).Text(); !ok {
		return unavailable("sub (2) is missing or no text")
	}
	iat, ok := cborNumber(claims.GetInt(claimIssuedAt))
	if !ok {
		return unavailable("iat (6) is missing or no time")
	}
	expItem, ttlItem := claims.GetInt(claimExpires), claims.GetInt(claimTTL)
	exp, ok := cborNumber(expItem)
	if expItem.Exists() && !ok {
		return unavailable("exp (4) is no time")
	}
	nbf, ok := cborNumber(claims.GetInt(claimNotBefore))
	if there := claims.GetInt(claimNotBefore).Exists(); there && !ok {
		return unavailable("nbf (5) is no time")
	} else if there {
		r.NotBefore = seconds(nbf)
	}
	ttl, ok := cborNumber(ttlItem)
	if ttlItem.Exists() && (!ok || ttlItem.Kind() != dcbor.Uint) {
		return unavailable("ttl (65534) is no unsigned integer")
	}
	if err := r.times(iat, exp, expItem.Exists(), ttl, ttlItem.Exists()); err != nil {
		return err
	}
	return r.readCBORList(claims.GetInt(claimStatusList))
}

func (r *received) readCBORList(list dcbor.Value) error {
	bits, ok := list.GetText("bits").Uint()
	if !ok || bits > 8 || !validBits(int(bits)) {
		return unavailable("%w", ErrBits)
	}
	r.Bits = int(bits)
	if r.Compressed, ok = list.GetText("lst").Bytes(); !ok {
		return unavailable("lst is missing or no byte string")
	}
	uri := list.GetText("aggregation_uri")
	if r.AggregationURI, ok = uri.Text(); uri.Exists() && !ok {
		return unavailable("aggregation_uri is no text")
	}
	return nil
}

func cborNumber(v dcbor.Value) (float64, bool) {
	if n, ok := v.Int(); ok {
		return float64(n), n >= -1<<53 && n <= 1<<53
	}
	f, ok := v.Float()
	return f, ok && math.Abs(f) <= 1<<53
}

// Sign signs the token with key. keyID may be nil.
func (t *Token) Sign(ctx context.Context, f Format, key crypto.Signer, keyID []byte) ([]byte, error) {
	if f == CWT {
		return t.signCWT(ctx, key, keyID)
	}
	return t.signJWT(ctx, key, keyID)
}

func (t *Token) signJWT(ctx context.Context, key crypto.Signer, keyID []byte) ([]byte, error) {
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		return nil, err
	}
	header := jose.NewObject().Add("alg", scheme.JOSE)
	if keyID != nil {
		header.Add("kid", string(keyID))
	}
	header.Add("typ", typJWT)
	list := jose.NewObject().Add("bits", integer(int64(t.Bits))).Add("lst", jose.EncodeBase64(t.Compressed))
	if t.AggregationURI != "" {
		list.Add("aggregation_uri", t.AggregationURI)
	}
	claims := jose.NewObject().Add("sub", t.Subject).Add("iat", integer(t.IssuedAt.Unix()))
	if t.Issuer != "" {
		claims.Add("iss", t.Issuer)
	}
	if !t.Expires.IsZero() {
		claims.Add("exp", integer(t.Expires.Unix()))
	}
	if t.TTL > 0 {
		claims.Add("ttl", integer(int64(t.TTL/time.Second)))
	}
	claims.Add("status_list", list)
	s, err := jose.Sign(ctx, scheme, key, jose.AppendJSON(nil, header), jose.AppendJSON(nil, claims))
	return []byte(s), err
}

func integer(n int64) json.Number { return json.Number(strconv.FormatInt(n, 10)) }

func (t *Token) signCWT(ctx context.Context, key crypto.Signer, keyID []byte) ([]byte, error) {
	list := []dcbor.Value{dcbor.NewText("bits"), dcbor.NewInt(int64(t.Bits)), dcbor.NewText("lst"), dcbor.NewBytes(t.Compressed)}
	if t.AggregationURI != "" {
		list = append(list, dcbor.NewText("aggregation_uri"), dcbor.NewText(t.AggregationURI))
	}
	claims := []dcbor.Value{
		dcbor.NewInt(claimSubject), dcbor.NewText(t.Subject),
		dcbor.NewInt(claimIssuedAt), dcbor.NewInt(t.IssuedAt.Unix()),
		dcbor.NewInt(claimStatusList), dcbor.NewMap(list...),
	}
	if !t.Expires.IsZero() {
		claims = append(claims, dcbor.NewInt(claimExpires), dcbor.NewInt(t.Expires.Unix()))
	}
	if t.TTL > 0 {
		claims = append(claims, dcbor.NewInt(claimTTL), dcbor.NewInt(int64(t.TTL/time.Second)))
	}
	protected := []dcbor.Value{dcbor.NewInt(cose.HeaderTyp), dcbor.NewText(MediaTypeCWT)}
	if keyID != nil {
		protected = append(protected, dcbor.NewInt(cose.HeaderKid), dcbor.NewBytes(keyID))
	}
	return cose.Sign(ctx, key, dcbor.NewMap(protected...), dcbor.NewMap(), dcbor.Encode(dcbor.NewMap(claims...)))
}
