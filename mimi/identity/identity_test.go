package identity_test

import (
	"crypto"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

func wantIdentity(t *testing.T, id *identity.Identity, level identity.Level, kind mls.CredentialType) {
	t.Helper()
	if id.Client.String() != client || id.User.String() != user || id.Provider().String() != "mimi://acme.example" {
		t.Errorf("identity of %s, %s", id.Client, id.User)
	}
	if id.Level != level || id.Type != kind {
		t.Errorf("%s by type 0x%04x, want %s", id.Level, uint16(id.Type), level)
	}
}

func TestFromCertificate(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	chain := a.chain(t, key, deviceNames(t))
	r, err := a.verify(t.Context(), chain, certs.RoleClient, point(t, key))
	must(t, err)
	id, err := identity.FromCertificate(r, acme())
	must(t, err)
	wantIdentity(t, id, identity.Issued, mls.CredentialX509)
	if id.Issuer != "acme" || !id.Proven() || id.Pseudonymous() || !id.MayPreauthorize() || id.NotAfter.Before(time.Now()) {
		t.Errorf("identity %+v", id)
	}
	attested := acme()
	attested.Attested = true
	id, err = identity.FromCertificate(r, attested)
	must(t, err)
	wantIdentity(t, id, identity.Attested, mls.CredentialX509)

	_, err = identity.FromCertificate(r, &identity.Issuer{Name: "nobody"})
	wantCode(t, "issuer without grants", err, credentials.CodeIdentityUnauthorized)
	users := acme()
	users.Allows = func(u mimi.URI) bool { return u.Kind() == mimi.KindUser }
	_, err = identity.FromCertificate(r, users)
	wantCode(t, "issuer for users only", err, credentials.CodeIdentityUnauthorized)
}

func TestCheckHub(t *testing.T) {
	a, key := newAuthority(t), newKey(t)
	names, err := certs.ProviderNames("mimi://acme.example")
	must(t, err)
	r, err := a.verify(t.Context(), a.chain(t, key, names), certs.RoleHub, point(t, key))
	must(t, err)
	must(t, identity.CheckHub(r, acme(), uri(t, "mimi://acme.example/r/club")))
	err = identity.CheckHub(r, acme(), uri(t, "mimi://sub.acme.example/r/club"))
	wantCode(t, "room of a subdomain", err, credentials.CodeIdentityHostMismatch)
	err = identity.CheckHub(r, &identity.Issuer{}, uri(t, "mimi://acme.example/r/club"))
	wantCode(t, "issuer without grants", err, credentials.CodeIdentityUnauthorized)
	_, err = identity.FromCertificate(r, acme())
	wantCode(t, "hub as a client", err, credentials.CodeIdentityMissing)

	device, err := a.verify(t.Context(), a.chain(t, key, deviceNames(t)), certs.RoleClient, point(t, key))
	must(t, err)
	err = identity.CheckHub(device, acme(), uri(t, "mimi://acme.example/r/club"))
	wantCode(t, "client as a hub", err, credentials.CodeIdentityMalformed)
}

func TestFromSDJWT(t *testing.T) {
	key := newKey(t)
	good := jwt(t, key, map[string]any{"sub": client, "mimi_user": user}, sdjwt.Path{"mimi_user"})
	id, err := identity.FromSDJWT(good, acme())
	must(t, err)
	wantIdentity(t, id, identity.Issued, mls.CredentialSDJWT)
	if id.NotBefore.IsZero() || id.NotAfter.IsZero() {
		t.Errorf("valid from %v to %v", id.NotBefore, id.NotAfter)
	}
	thumbprint, err := identity.ThumbprintURI(key.Public())
	must(t, err)
	stranger, err := identity.ThumbprintURI(newKey(t).Public())
	must(t, err)
	named := func(s *identity.Issuer) { s.ClientClaim = "mimi_client" }
	for _, c := range []struct {
		name   string
		claims map[string]any
		issuer func(*identity.Issuer)
		want   credentials.Code
	}{
		{"user from the client", map[string]any{"sub": client}, func(s *identity.Issuer) { s.UserFromClient = true }, ""},
		{"named apart from sub", map[string]any{"mimi_client": client, "mimi_user": user}, named, ""},
		{"thumbprint as sub", map[string]any{"sub": thumbprint, "mimi_client": client, "mimi_user": user}, named, ""},
		{"account as sub", map[string]any{"sub": "4711", "mimi_client": client, "mimi_user": user}, named, ""},
		{"no user", map[string]any{"sub": client}, nil, credentials.CodeIdentityMissing},
		{"no client", map[string]any{"mimi_user": user}, nil, credentials.CodeIdentityMissing},
		{"user is a number", map[string]any{"sub": client, "mimi_user": 7}, nil, credentials.CodeIdentityMalformed},
		{"user is a number, client shows another", map[string]any{"sub": client, "mimi_user": 7}, func(s *identity.Issuer) { s.UserFromClient = true }, credentials.CodeIdentityMalformed},
		{"sub is the user", map[string]any{"sub": user, "mimi_client": client, "mimi_user": user}, named, ""},
		{"sub is another client", map[string]any{"sub": "mimi://acme.example/d/bob/1", "mimi_client": client, "mimi_user": user}, named, credentials.CodeIdentityMismatch},
		{"sub not canonical", map[string]any{"sub": "mimi://ACME.example/u/alice", "mimi_client": client, "mimi_user": user}, named, credentials.CodeIdentityMalformed},
		{"sub in capitals", map[string]any{"sub": "MIMI://acme.example/u/ceo", "mimi_client": client, "mimi_user": user}, named, credentials.CodeIdentityMalformed},
		{"client is no URI", map[string]any{"sub": "alice", "mimi_user": user}, nil, credentials.CodeIdentityMalformed},
		{"client not canonical", map[string]any{"sub": "mimi://ACME.example/d/alice/phone", "mimi_user": user}, nil, credentials.CodeIdentityMalformed},
		{"user as the client", map[string]any{"sub": user, "mimi_user": user}, nil, credentials.CodeIdentityMalformed},
		{"room as the user", map[string]any{"sub": client, "mimi_user": "mimi://acme.example/r/club"}, nil, credentials.CodeIdentityMalformed},
		{"two hosts", map[string]any{"sub": client, "mimi_user": "mimi://globex.example/u/alice"}, nil, credentials.CodeIdentityHostMismatch},
		{"foreign host", map[string]any{"sub": "mimi://globex.example/d/a/1", "mimi_user": "mimi://globex.example/u/a"}, nil, credentials.CodeIdentityUnauthorized},
		{"user beyond the grant", map[string]any{"sub": client, "mimi_user": "mimi://acme.example/u/ceo"}, nil, credentials.CodeIdentityUnauthorized},
		{"sub beyond the grant", map[string]any{"sub": "mimi://acme.example/u/ceo", "mimi_client": client, "mimi_user": user}, named, credentials.CodeIdentityUnauthorized},
		{"thumbprint of another key", map[string]any{"sub": stranger, "mimi_client": client, "mimi_user": user}, named, credentials.CodeIdentityMismatch},
		{"thumbprint without a hash name", map[string]any{"sub": "urn:ietf:params:oauth:ckt:AAAA", "mimi_client": client, "mimi_user": user}, named, credentials.CodeIdentityMismatch},
	} {
		issuer := acme()
		if c.issuer != nil {
			c.issuer(issuer)
		}
		id, err := identity.FromSDJWT(jwt(t, key, c.claims), issuer)
		wantCode(t, c.name, err, c.want)
		if err == nil {
			wantIdentity(t, id, identity.Issued, mls.CredentialSDJWT)
		}
	}
	good.KeyBinding = nil
	_, err = identity.FromSDJWT(good, acme())
	wantCode(t, "bearer token", err, credentials.CodeKBMissing)
}

func TestFromSDCWT(t *testing.T) {
	key := newKey(t)
	good := cwt(t, key, sdcwt.Claims{sdcwt.ClaimSubject: client, sdcwt.Redact("mimi_user"): user})
	id, err := identity.FromSDCWT(good, acme())
	must(t, err)
	wantIdentity(t, id, identity.Issued, mls.CredentialSDCWT)
	numbered := acme()
	numbered.ClientClaim, numbered.UserClaim = 1001, 1002
	id, err = identity.FromSDCWT(cwt(t, key, sdcwt.Claims{sdcwt.ClaimSubject: "account 4711", 1001: client, 1002: user}), numbered)
	must(t, err)
	wantIdentity(t, id, identity.Issued, mls.CredentialSDCWT)
	_, err = identity.FromSDCWT(cwt(t, key, sdcwt.Claims{sdcwt.ClaimSubject: client}), acme())
	wantCode(t, "no user", err, credentials.CodeIdentityMissing)
	_, err = identity.FromSDCWT(cwt(t, key, sdcwt.Claims{sdcwt.ClaimSubject: client, "mimi_user": "mimi://acme.example/u/ceo"}), acme())
	wantCode(t, "user beyond the grant", err, credentials.CodeIdentityUnauthorized)
	good.KeyBinding = nil
	_, err = identity.FromSDCWT(good, acme())
	wantCode(t, "issued token without key binding", err, credentials.CodeKBMissing)
}

func TestFromBasic(t *testing.T) {
	id, err := identity.FromBasic([]byte(client), "")
	must(t, err)
	wantIdentity(t, id, identity.Asserted, mls.CredentialBasic)
	id, err = identity.FromBasic([]byte(client), "acme.example")
	must(t, err)
	wantIdentity(t, id, identity.Vouched, mls.CredentialBasic)
	if id.Proven() || id.MayPreauthorize() {
		t.Error("a basic credential proves something")
	}
	for name, s := range map[string]string{
		"a user": user, "client of one segment": "mimi://acme.example/d/phone", "no URI": "alice", "nothing": "",
		"three segments": client + "/2", "not canonical": "mimi://acme.example/d/alice/p%68one",
	} {
		_, err := identity.FromBasic([]byte(s), "")
		wantCode(t, name, err, credentials.CodeIdentityMalformed)
	}
	_, err = identity.FromBasic([]byte(client), "globex.example")
	wantCode(t, "delivered by another provider", err, credentials.CodeIdentityHostMismatch)
}

func TestPins(t *testing.T) {
	basic, err := identity.FromBasic([]byte(client), "acme.example")
	must(t, err)
	old, now := identity.FingerprintOf([]byte{1}), identity.FingerprintOf([]byte{2})
	must(t, identity.CheckPin(basic, old, old))
	wantCode(t, "new key", identity.CheckPin(basic, old, now), credentials.CodeIdentityKeyChanged)
	proven := *basic
	proven.Level = identity.Issued
	must(t, identity.CheckPin(&proven, old, now))
}

// multi judges bindings by what their credentials are in this test.
func multi(t *testing.T, a *authority, idp map[string]*sdjwt.Verified) identity.BindingJudge {
	return func(b *mls.CredentialBinding) (*identity.Judged, error) {
		switch b.Credential.Type {
		case mls.CredentialBasic:
			id, err := identity.FromBasic(b.Credential.Identity(), "")
			return &identity.Judged{Identity: id}, err
		case mls.CredentialX509:
			chain, err := b.Credential.Certificates()
			if err != nil {
				return nil, err
			}
			r, err := a.verify(t.Context(), chain, certs.RoleClient, b.CredentialKey)
			if err != nil {
				return nil, err
			}
			id, err := identity.FromCertificate(r, acme())
			return &identity.Judged{Identity: id}, err
		}
		v := idp[string(b.Credential.Body[2:])] // without the framing
		subject, _ := v.Claims.Text("sub")
		thumbprint, err := identity.ThumbprintURI(v.KeyBinding.HolderKey)
		return &identity.Judged{Subject: subject, Thumbprint: thumbprint}, err
	}
}

func TestFromMulti(t *testing.T) {
	a, leaf := newAuthority(t), newKey(t)
	bind := func(c mls.Credential, key crypto.Signer) *mls.CredentialBinding {
		b, err := mls.BindCredential(t.Context(), mls.P256AES128SHA256P256, c, key, point(t, leaf))
		must(t, err)
		return b
	}
	deviceKey, idpKey := newKey(t), newKey(t)
	x509 := bind(mls.X509Credential(a.chain(t, deviceKey, deviceNames(t))), deviceKey)
	basic := bind(mls.BasicCredential([]byte(client)), newKey(t))
	bob := bind(mls.BasicCredential([]byte("mimi://acme.example/d/bob/1")), newKey(t))
	thumbprint, err := identity.ThumbprintURI(idpKey.Public())
	must(t, err)
	idp := map[string]*sdjwt.Verified{
		"own":     jwt(t, idpKey, map[string]any{"sub": thumbprint, "badge": "staff"}),
		"client":  jwt(t, idpKey, map[string]any{"sub": client, "badge": "staff"}),
		"another": jwt(t, idpKey, map[string]any{"sub": "mimi://acme.example/d/bob/1"}),
		"nobody":  jwt(t, idpKey, map[string]any{"badge": "staff"}),
	}
	employer := func(which string) *mls.CredentialBinding {
		return bind(mls.Credential{Type: mls.CredentialSDJWT, Body: append([]byte{0, byte(len(which))}, which...)}, idpKey)
	}
	mauled := *x509
	mauled.Signature = append([]byte{}, x509.Signature...)
	mauled.Signature[len(mauled.Signature)-1] ^= 1
	all := func(*mls.CredentialBinding) bool { return true }
	noBasic := func(b *mls.CredentialBinding) bool { return b.Credential.Type != mls.CredentialBasic }
	none := func(*mls.CredentialBinding) bool { return false }
	for _, c := range []struct {
		name       string
		credential mls.Credential
		supports   func(*mls.CredentialBinding) bool
		level      identity.Level
		want       credentials.Code
	}{
		{"x509", mls.MultiCredential(x509), all, identity.Issued, ""},
		{"basic and x509", mls.MultiCredential(basic, x509), all, identity.Issued, ""},
		{"x509 and basic, weak", mls.WeakMultiCredential(x509, basic), all, identity.Asserted, ""},
		{"x509 and basic, weak, basic not supported", mls.WeakMultiCredential(x509, basic), noBasic, identity.Issued, ""},
		{"employer's claims about the key", mls.MultiCredential(x509, employer("own")), all, identity.Issued, ""},
		{"employer's claims about the client", mls.MultiCredential(employer("client"), x509), all, identity.Issued, ""},
		{"employer's claims about another", mls.MultiCredential(x509, employer("another")), all, 0, credentials.CodeMultiConflict},
		{"employer's claims about nobody", mls.MultiCredential(x509, employer("nobody")), all, 0, credentials.CodeMultiConflict},
		{"employer's claims alone", mls.MultiCredential(employer("own")), all, 0, credentials.CodeIdentityMissing},
		{"two clients", mls.MultiCredential(x509, bob), all, 0, credentials.CodeMultiConflict},
		{"not all supported", mls.MultiCredential(x509, basic), noBasic, 0, credentials.CodeMultiUnsupported},
		{"weak, none supported", mls.WeakMultiCredential(x509, basic), none, 0, credentials.CodeMultiUnsupported},
		{"signature mauled", mls.MultiCredential(&mauled), all, 0, credentials.CodeBindingSignature},
		{"nested", mls.MultiCredential(bind(mls.MultiCredential(x509), deviceKey)), all, 0, credentials.CodeMultiNested},
		{"one binding twice", mls.MultiCredential(x509, x509), all, 0, credentials.CodeMalformed},
		{"no binding", mls.MultiCredential(), all, 0, credentials.CodeMalformed},
		{"not a multi credential", mls.BasicCredential([]byte(client)), all, 0, credentials.CodeMalformed},
	} {
		id, err := identity.FromMulti(&c.credential, point(t, leaf), c.supports, multi(t, a, idp))
		wantCode(t, c.name, err, c.want)
		if err == nil {
			wantIdentity(t, id, c.level, c.credential.Type)
			if id.MayPreauthorize() != (c.credential.Type == mls.CredentialMulti) {
				t.Errorf("%s: may preauthorize %t", c.name, id.MayPreauthorize())
			}
		}
	}
	stolen := mls.MultiCredential(x509)
	_, err = identity.FromMulti(&stolen, point(t, newKey(t)), all, multi(t, a, idp))
	wantCode(t, "binding copied into another leaf", err, credentials.CodeBindingSignature)
}
