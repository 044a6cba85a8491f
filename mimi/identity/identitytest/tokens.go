package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/mls"
)

// A TokenIssuer issues SD-JWTs and SD-CWTs.
type TokenIssuer struct {
	Key *ecdsa.PrivateKey
	Iss string
	// Claims are added to those of the names.
	Claims map[string]any
	// Lifetime of what it issues; Day if 0.
	Lifetime time.Duration
	now      func() time.Time
}

// NewTokenIssuer makes one.
func NewTokenIssuer(tb testing.TB, iss string, now func() time.Time) *TokenIssuer {
	tb.Helper()
	if now == nil {
		now = time.Now
	}
	return &TokenIssuer{Key: NewKey(tb), Iss: iss, now: now}
}

func (i *TokenIssuer) lifetime() time.Duration {
	if i.Lifetime == 0 {
		return Day
	}
	return i.Lifetime
}

// IssueSDJWT issues an SD-JWT to the holder of a key, in which the claim of the
// user can be withheld.
func (i *TokenIssuer) IssueSDJWT(tb testing.TB, holder crypto.PublicKey, client, user string) string {
	tb.Helper()
	claims := map[string]any{"sub": client, "mimi_user": user, "vct": "https://vct.example/mimi-device/1"}
	for k, v := range i.Claims {
		claims[k] = v
	}
	for k, v := range claims {
		if v == nil || v == "" {
			delete(claims, k)
		}
	}
	body, err := json.Marshal(claims)
	check(tb, err)
	request := sdjwt.Request{Claims: body, Holder: holder, IssuedAt: i.now(), Expires: i.now().Add(i.lifetime())}
	if claims["mimi_user"] != nil {
		request.Redact = []sdjwt.Path{{"mimi_user"}}
	}
	token, err := (&sdjwt.Issuer{Key: i.Key, Name: i.Iss, Kid: "1"}).Issue(tb.Context(), request)
	check(tb, err)
	return token.String()
}

// SDJWT is the credential of type sd_jwt of a key's holder, with key binding for
// an audience. The claim of the user is disclosed.
func (i *TokenIssuer) SDJWT(tb testing.TB, key crypto.Signer, audience, client, user string) mls.Credential {
	tb.Helper()
	c, err := sdjwt.OpenCredential(i.IssueSDJWT(tb, key.Public(), client, user), sdjwt.Limits{})
	check(tb, err)
	b, err := mlscred.SDJWT(tb.Context(), c, mlscred.Binding{Key: key, Audience: audience, Now: i.now}, true, c.Disclosable()...)
	check(tb, err)
	return mls.Credential{Type: mls.CredentialSDJWT, Body: b}
}

// IssueSDCWT is IssueSDJWT for an SD-CWT.
func (i *TokenIssuer) IssueSDCWT(tb testing.TB, holder crypto.PublicKey, client, user string) []byte {
	tb.Helper()
	cnf, err := credentials.CWTConfirmation(holder)
	check(tb, err)
	confirmation, err := sdcwt.CBOR(cnf)
	check(tb, err)
	token, err := (&sdcwt.Issuer{Key: i.Key, KeyID: []byte("1")}).Issue(tb.Context(), sdcwt.Claims{
		sdcwt.ClaimIssuer: i.Iss, sdcwt.ClaimSubject: client, sdcwt.ClaimCnf: confirmation, sdcwt.ClaimIssuedAt: i.now().Unix(),
		sdcwt.ClaimExpires: i.now().Add(i.lifetime()).Unix(), sdcwt.ClaimCWTID: []byte("0123456789abcdef"), sdcwt.Redact("mimi_user"): user,
	})
	check(tb, err)
	return token
}

// SDCWT is SDJWT as a credential of type sd_cwt.
func (i *TokenIssuer) SDCWT(tb testing.TB, key crypto.Signer, audience, client, user string) mls.Credential {
	tb.Helper()
	c, err := sdcwt.ParseCredential(i.IssueSDCWT(tb, key.Public(), client, user))
	check(tb, err)
	b, err := mlscred.SDCWT(tb.Context(), c, mlscred.Binding{Key: key, Audience: audience, Now: i.now}, sdcwt.All)
	check(tb, err)
	return mls.Credential{Type: mls.CredentialSDCWT, Body: b}
}

// Entry returns the configuration entry that believes the issuer for tokens of
// a type, "sd_jwt" or "sd_cwt", about clients of the hosts, without revocation.
func (i *TokenIssuer) Entry(tb testing.TB, dir, name, kind string, hosts ...string) Issuer {
	tb.Helper()
	jwk, err := credentials.FormatJWK(i.Key.Public())
	check(tb, err)
	var key map[string]any
	check(tb, json.Unmarshal(jwk, &key))
	key["kid"] = "1"
	text, err := json.Marshal(map[string]any{"keys": []any{key}})
	check(tb, err)
	check(tb, os.WriteFile(filepath.Join(dir, name+".jwks"), text, 0o600))
	var grants []any
	for _, h := range hosts {
		grants = append(grants, map[string]any{"host": h, "paths": []string{"d/*/*", "d/*", "u/*"}})
	}
	return Issuer{
		"name": name, "type": kind, "roles": []string{"client"}, "iss": i.Iss, "keys": map[string]any{"source": "jwks_file", "file": name + ".jwks"},
		"claims": map[string]any{"client": "sub", "user": "mimi_user"}, "grants": grants, "revocation": map[string]any{"mode": "none"},
	}
}

func check(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// WriteCRL signs a CRL that lists serial numbers as revoked and writes it to a
// file.
func (ca *CA) WriteCRL(tb testing.TB, path string, number int64, revoked ...*big.Int) {
	tb.Helper()
	ca.writeCRL(tb, path, number, 1, revoked) // keyCompromise
}

// WriteHolds is WriteCRL with certificates that are on hold, and may be valid
// again.
func (ca *CA) WriteHolds(tb testing.TB, path string, number int64, held ...*big.Int) {
	tb.Helper()
	ca.writeCRL(tb, path, number, 6, held) // certificateHold
}

func (ca *CA) writeCRL(tb testing.TB, path string, number int64, reason int, revoked []*big.Int) {
	tb.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: ca.now().Add(-time.Second), NextUpdate: ca.now().Add(10 * time.Hour)}
	for _, n := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: ca.now(), ReasonCode: reason})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Certificate, ca.Key)
	check(tb, err)
	check(tb, os.WriteFile(path, der, 0o600))
}
