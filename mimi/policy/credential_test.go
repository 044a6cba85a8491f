package policy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdcwt"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

// The MLS credential types of these tests.
const (
	typeSDCWT = 0x0005
	typeSDJWT = 0x0006
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// x509Credential issues a device certificate and verifies its chain.
func x509Credential(t *testing.T, client, user string) policy.Credential {
	ctx := context.Background()
	store := must(certs.OpenSQLStore(ctx, filepath.Join(t.TempDir(), "certs.db")))(t)
	t.Cleanup(func() { store.Close() })
	rootKey, caKey, deviceKey := newKey(t), newKey(t), newKey(t)
	root := must(certs.CreateRoot(ctx, rootKey, store, nil, certs.CAOrder{Subject: pkix.Name{CommonName: "Root"}}))(t)
	rootIssuer := must(certs.NewIssuer(certs.Config{Key: rootKey, Certificate: root, Store: store}))(t)
	ca := must(rootIssuer.CreateIssuingCA(ctx, caKey, certs.CAOrder{Subject: pkix.Name{CommonName: "Devices"}, Hosts: []string{"a.example"}}))(t)
	issuer := must(certs.NewIssuer(certs.Config{Key: caKey, Certificate: ca, Store: store}))(t)

	nonce := certs.NewNonce()
	names := must(certs.DeviceNames(client, user))(t)
	der := must(certs.CreateRequest(rand.Reader, deviceKey, names, nonce))(t)
	request := must(certs.ParseRequest(der))(t)
	prepared := must(issuer.Prepare(ctx, certs.Order{Request: request, Names: names, Nonce: nonce}))(t)
	cert := must(issuer.Issue(ctx, prepared))(t)

	verifier := must(certs.NewVerifier(0, certs.Entry{Name: "devices", Anchors: []*x509.Certificate{root}}))(t)
	result := must(verifier.Verify(ctx, certs.Check{
		Certificates: [][]byte{cert.Raw, ca.Raw}, Scheme: credentials.ECDSAP256,
		SignatureKey: must(credentials.MLSPublicKey(deviceKey.Public()))(t), At: time.Now(),
	}))(t)
	return policy.NewX509(result.Chain[0])
}

// sdjwtCredential issues an SD-JWT of which the holder discloses some claims.
func sdjwtCredential(t *testing.T, disclose ...sdjwt.Path) policy.Credential {
	ctx := context.Background()
	issuerKey, deviceKey := newKey(t), newKey(t)
	issuer := &sdjwt.Issuer{Key: issuerKey, Name: "https://issuer.example", Kid: "1"}
	token := must(issuer.Issue(ctx, sdjwt.Request{
		Claims: []byte(`{"vct":"https://issuer.example/staff","department":"hr","groups":["staff","chess"],"level":7,"address":{"b":1,"a":"Ham"}}`),
		Redact: []sdjwt.Path{{"department"}, {"groups", nil}},
		Holder: deviceKey.Public(), IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
	}))(t)
	verifier := must(sdjwt.NewVerifier(sdjwt.Policy{
		Issuers: sdjwt.IssuerTable{"https://issuer.example": sdjwt.StaticKeys{{Kid: "1", Public: issuerKey.Public()}}}, VC: true,
		Audiences: []string{"https://hub.example"}, Required: []string{"exp"}, Nonces: new(sdjwt.MemoryNonces),
	}))(t)
	held := must(verifier.Receive(ctx, token.String(), deviceKey.Public()))(t)
	shown := must(held.Present(ctx, sdjwt.Presentation{Disclose: disclose, Key: deviceKey, Audience: "https://hub.example", Nonce: "n"}))(t)
	verified := must(verifier.Verify(ctx, shown.String(), sdjwt.Expect{Nonce: "n"}))(t)
	return must(policy.NewJWT(typeSDJWT, verified.Issuer, verified.Claims.JSON()))(t)
}

// sdcwtCredential issues an SD-CWT of which the holder discloses some claims.
func sdcwtCredential(t *testing.T, disclose ...any) policy.Credential {
	ctx, now := context.Background(), time.Now()
	issuerKey, deviceKey := newKey(t), newKey(t)
	confirmation := must(sdcwt.CBOR(must(credentials.CWTConfirmation(deviceKey.Public()))(t)))(t)
	token := must((&sdcwt.Issuer{Key: issuerKey}).Issue(ctx, sdcwt.Claims{
		sdcwt.ClaimIssuer: "https://issuer.example", sdcwt.ClaimSubject: "mimi://a.example/d/eve/1",
		sdcwt.ClaimIssuedAt: now.Unix(), sdcwt.ClaimExpires: now.Add(time.Hour).Unix(), sdcwt.ClaimCnf: confirmation,
		sdcwt.Redact("department"): "hr", int64(-70001): []any{int64(3), "night"},
	}))(t)
	issuers := &sdcwt.StaticIssuer{Issuer: "https://issuer.example", Keys: []sdcwt.StaticKey{{Public: issuerKey.Public()}}}
	held := must((&sdcwt.Holder{Issuers: issuers, Key: deviceKey.Public()}).Accept(ctx, token))(t)
	nonce := []byte("nonce")
	kbt := must(held.Present(ctx, deviceKey, sdcwt.Presentation{Audience: "https://hub.example", IssuedAt: now, Nonce: nonce, Disclose: sdcwt.Keys(disclose...)}))(t)
	verifier := &sdcwt.Verifier{Issuers: issuers, Audience: []string{"https://hub.example"}, Nonce: nonce, MaxAge: time.Minute}
	verified := must(verifier.Verify(ctx, kbt))(t)
	return must(policy.NewCWT(typeSDCWT, verified.Issuer, verified.Claims.CBOR()))(t)
}

func cborText(s string) []byte { return dcbor.Encode(dcbor.NewText(s)) }

// entryFor preauthorises role 2 of the strict room for one claim.
func entryFor(roles *policy.RoleData, claims ...policy.Claim) *policy.PreAuthData {
	return &policy.PreAuthData{PreauthorizedEntries: []policy.PreAuthRoleEntry{{Claimset: claims, TargetRole: *roles.Role(2)}}}
}

func TestPreauthorizedJoins(t *testing.T) {
	san, _ := hex.DecodeString("551d11")
	cn, _ := hex.DecodeString("550403")
	keyUsage, _ := hex.DecodeString("551d0f")
	cert := x509Credential(t, "mimi://a.example/d/eve/1", "mimi://a.example/u/eve")
	open, closed := sdjwtCredential(t, sdjwt.Path{"department"}, sdjwt.Path{"groups", 0}), sdjwtCredential(t)
	cwt, cwtClosed := sdcwtCredential(t, "department"), sdcwtCredential(t)
	digitalSignature := must(asn1.Marshal(asn1.BitString{Bytes: []byte{0x80}, BitLength: 1}))(t)
	jwt := func(name, value string) policy.Claim {
		return policy.Claim{CredentialType: typeSDJWT, ID: []byte(name), Value: []byte(value)}
	}
	for _, c := range []struct {
		name   string
		holds  []policy.Credential
		claims []policy.Claim
		want   bool
	}{
		{"x509 SAN", []policy.Credential{cert}, []policy.Claim{{CredentialType: 2, ID: san, Value: []byte("mimi://a.example/u/eve")}}, true},
		{"x509 SAN of another", []policy.Credential{cert}, []policy.Claim{{CredentialType: 2, ID: san, Value: []byte("mimi://a.example/u/kim")}}, false},
		{"x509 OID with tag and length", []policy.Credential{cert}, []policy.Claim{{CredentialType: 2, ID: append([]byte{6, 3}, san...), Value: []byte("mimi://a.example/u/eve")}}, false},
		{"x509 extension", []policy.Credential{cert}, []policy.Claim{{CredentialType: 2, ID: keyUsage, Value: digitalSignature}}, true},
		{"x509 without the attribute", []policy.Credential{cert}, []policy.Claim{{CredentialType: 2, ID: cn, Value: []byte("Devices")}}, false},
		{"SD-JWT", []policy.Credential{open}, []policy.Claim{jwt("department", "hr")}, true},
		{"SD-JWT element of an array", []policy.Credential{open}, []policy.Claim{jwt("groups", "staff")}, true},
		{"SD-JWT element not disclosed", []policy.Credential{open}, []policy.Claim{jwt("groups", "chess")}, false},
		{"SD-JWT claim not disclosed", []policy.Credential{closed}, []policy.Claim{jwt("department", "hr")}, false},
		{"SD-JWT number", []policy.Credential{closed}, []policy.Claim{jwt("level", "7")}, true},
		{"SD-JWT object", []policy.Credential{closed}, []policy.Claim{jwt("address", `{"a":"Ham","b":1}`)}, true},
		{"SD-JWT object in another order", []policy.Credential{closed}, []policy.Claim{jwt("address", `{"b":1,"a":"Ham"}`)}, false},
		{"SD-JWT, all claims", []policy.Credential{open}, []policy.Claim{jwt("department", "hr"), jwt("level", "7")}, true},
		{"SD-JWT, one of two claims", []policy.Credential{open}, []policy.Claim{jwt("department", "hr"), jwt("level", "8")}, false},
		{"SD-JWT as x509", []policy.Credential{open}, []policy.Claim{{CredentialType: 2, ID: []byte("department"), Value: []byte("hr")}}, false},
		{"SD-CWT", []policy.Credential{cwt}, []policy.Claim{{CredentialType: typeSDCWT, ID: cborText("department"), Value: cborText("hr")}}, true},
		{"SD-CWT without CBOR", []policy.Credential{cwt}, []policy.Claim{{CredentialType: typeSDCWT, ID: []byte("department"), Value: []byte("hr")}}, false},
		{"SD-CWT element of an array", []policy.Credential{cwtClosed}, []policy.Claim{{CredentialType: typeSDCWT, ID: dcbor.Encode(dcbor.NewInt(-70001)), Value: cborText("night")}}, true},
		{"SD-CWT number", []policy.Credential{cwtClosed}, []policy.Claim{{CredentialType: typeSDCWT, ID: dcbor.Encode(dcbor.NewInt(-70001)), Value: []byte{3}}}, true},
		{"SD-CWT claim not disclosed", []policy.Credential{cwtClosed}, []policy.Claim{{CredentialType: typeSDCWT, ID: cborText("department"), Value: cborText("hr")}}, false},
		{"different bindings of a multi-credential", []policy.Credential{cert, cwt}, []policy.Claim{
			{CredentialType: 2, ID: san, Value: []byte("mimi://a.example/u/eve")}, {CredentialType: typeSDCWT, ID: cborText("department"), Value: cborText("hr")}}, true},
		{"no credential", nil, []policy.Claim{jwt("department", "hr")}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			roles := policy.StrictRoles()
			k := newKit(t, policy.Config{}, "ada:3", roles, entryFor(roles, c.claims...))
			k.holds["eve"] = c.holds
			want := "J3 capability"
			if c.want {
				want = "ok J1"
			}
			k.expect("~eve: +eve:2 init", want)
		})
	}
}

// TestCredentialsOfOneName has actors of one name with different credentials: what
// one may, the other need not.
func TestCredentialsOfOneName(t *testing.T) {
	holds := func(claims string) []policy.Credential {
		return []policy.Credential{must(policy.NewJWT(typeSDJWT, "", []byte(claims)))(t)}
	}
	roles := policy.StrictRoles()
	roles.Role(2).Capabilities = append(roles.Role(2).Capabilities, policy.CanChangeOwnRole, policy.CanRemoveOwnClient)
	admin := policy.PreAuthRoleEntry{TargetRole: *roles.Role(3), Claimset: []policy.Claim{{CredentialType: typeSDJWT, ID: []byte("desk"), Value: []byte("true")}}}
	newRoom := func() *kit {
		return newKit(t, policy.Config{}, "ann:2/3 bob:2 ada:3", roles, &policy.PreAuthData{PreauthorizedEntries: []policy.PreAuthRoleEntry{admin}})
	}
	judge := func(k *kit, order ...policy.Proposed) string {
		return verdictOf(policy.Authorize(k.s, &policy.Bundle{Proposals: order}))
	}

	// Of two external senders of one provider, one is preauthorised.
	k := newRoom()
	enforcer, other := k.actor("!pol@b"), k.actor("!pol@b")
	enforcer.Credentials, other.Credentials = holds(`{"desk":true}`), holds(`{"desk":false}`)
	of := func(by policy.Actor, script string) policy.Proposed { return k.proposals(by, script)[0] }
	for name, c := range map[string]struct {
		list []policy.Proposed
		want string
	}{
		"the enforcer":                  {[]policy.Proposed{of(enforcer, "drop:bob")}, "ok 6"},
		"the other":                     {[]policy.Proposed{of(other, "drop:bob")}, "B no-role"},
		"the other after it":            {[]policy.Proposed{of(enforcer, "drop:bob"), of(other, "drop:ann#0")}, "B no-role"},
		"the other's half of a removal": {[]policy.Proposed{of(enforcer, "drop:bob"), of(other, "-bob")}, "B no-role"},
	} {
		if got := judge(k, c.list...); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}

	// Of two leaves of one user, one is at the desk.
	desk, phone := k.actor("ann#0"), k.actor("ann#1")
	desk.Credentials, phone.Credentials = holds(`{"desk":true}`), holds(`{"desk":false}`)
	drop := of(desk, "drop:ann#2")
	for name, c := range map[string]struct {
		list []policy.Proposed
		want string
	}{
		"the desk":                 {[]policy.Proposed{of(desk, "ann>3")}, "ok 10"},
		"the phone":                {[]policy.Proposed{of(phone, "ann>3")}, "10 preauth"},
		"the phone after the desk": {[]policy.Proposed{drop, of(phone, "ann>3")}, "10 preauth"},
		"the desk after the phone": {[]policy.Proposed{of(phone, "drop:ann#2"), of(desk, "ann>3")}, "ok 10 5"},
	} {
		if got := judge(k, c.list...); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A subject attribute is matched by the octets of its string, in whatever part of
// the name it stands.
func TestSubjectAttributes(t *testing.T) {
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{CommonName: "Eve", Organization: []string{"Acme"}, OrganizationalUnit: []string{"HR", "Payroll"}}}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	c := policy.NewX509(must(x509.ParseCertificate(der))(t))
	for _, attribute := range []struct {
		id, value string
		want      bool
	}{
		{"550403", "Eve", true}, {"55040a", "Acme", true}, {"55040b", "HR", true}, {"55040b", "Payroll", true},
		{"55040b", "HRPayroll", false}, {"550403", "Acme", false}, {"550403", "", false}, {"", "Eve", false}, {"550407", "", false},
	} {
		id, _ := hex.DecodeString(attribute.id)
		if c.Has(id, []byte(attribute.value)) != attribute.want {
			t.Errorf("%s = %q: want %v", attribute.id, attribute.value, attribute.want)
		}
	}
	if c.Issuer() == "" || c.CredentialType() != policy.CredentialX509 {
		t.Errorf("issuer %q, type %d", c.Issuer(), c.CredentialType())
	}
}

// RFC 8785, section 3.2.3 (sorting) and appendix B (numbers).
func TestCanonicalClaims(t *testing.T) {
	for _, c := range []struct{ json, want string }{
		{`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`,
			`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`},
		{`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`,
			"{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}"},
		{`-0`, "0"}, {`true`, "true"}, {`null`, "null"}, {`9007199254740991`, "9007199254740991"}, {`"9007199254740993"`, "9007199254740993"},
	} {
		credential := must(policy.NewJWT(6, "", []byte(`{"c":`+c.json+`}`)))(t)
		if !credential.Has([]byte("c"), []byte(c.want)) {
			t.Errorf("%s is not %s", c.json, c.want)
		}
		if credential.Has([]byte("c"), []byte(c.want+" ")) || credential.Has([]byte("d"), []byte(c.want)) {
			t.Errorf("%s matches too much", c.json)
		}
	}
	big := must(policy.NewJWT(6, "", []byte(`{"c":9007199254740993}`)))(t)
	for _, v := range []string{"9007199254740993", "9007199254740992"} {
		if big.Has([]byte("c"), []byte(v)) {
			t.Errorf("an integer that no double holds matches %s", v)
		}
	}
}

func TestClaimsRefused(t *testing.T) {
	for _, b := range []string{"", "[]", "null", "{", "7"} {
		if _, err := policy.NewJWT(6, "", []byte(b)); err == nil {
			t.Errorf("JWT claims %q were accepted", b)
		}
	}
	for _, b := range [][]byte{nil, {0x80}, {0xa1}, {0xf6}} {
		if _, err := policy.NewCWT(5, "", b); err == nil {
			t.Errorf("CWT claims %x were accepted", b)
		}
	}
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"a":["b",{"c":1.5}]}`), []byte("a"), []byte("b"))
	f.Add([]byte{0xa1, 1, 2}, []byte{1}, []byte{2})
	f.Fuzz(func(t *testing.T, claims, id, value []byte) {
		if c, err := policy.NewJWT(6, "i", claims); err == nil && c.Has(id, value) && len(claims) < len(id) {
			t.Fatal("a claim that is not there matched")
		}
		if c, err := policy.NewCWT(5, "i", claims); err == nil && c.Has(id, value) && len(claims) < len(id) {
			t.Fatal("a claim that is not there matched")
		}
	})
}

// The role of an entry is looked up by its index; the copy in the entry counts
// for nothing.
func TestPreauthorizedRoleIsTheRoomsOwn(t *testing.T) {
	roles := policy.StrictRoles()
	inflated := *roles.Role(2)
	inflated.Capabilities = append(inflated.Capabilities, policy.CanDestroyRoom, policy.CanRemoveParticipant)
	inflated.AuthorizedRoleChanges = roles.Role(4).AuthorizedRoleChanges
	k := newKit(t, policy.Config{}, "ada:3", roles, &policy.PreAuthData{PreauthorizedEntries: []policy.PreAuthRoleEntry{claim("staff", inflated)}})
	k.give("eve", "staff")
	k.expect("!eve: -ada drop:ada", "3 capability")
	k.apply("~eve: +eve:2 init")
	k.expect("eve: -ada drop:ada", "3 capability")
	if k.s.RoleOf(uri("eve")) != mimi.RoleIndex(2) {
		t.Error("eve has another role")
	}
}
