package identity_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

const (
	idp      = "https://idp.example"
	roomName = "mimi://hub.example/r/room"
)

// A world has a CA and a token issuer of acme.example, both believed.
type world struct {
	ck     *clock
	dir    string
	ca     *identitytest.CA
	tokens *identitytest.TokenIssuer
	list   *trust.List
	eval   *identity.Evaluator
}

func newWorld(t testing.TB, more map[string]any) *world {
	t.Helper()
	w := &world{ck: newClock(), dir: t.TempDir()}
	w.ca, w.tokens = identitytest.NewCA(t, "Acme", w.ck.now), identitytest.NewTokenIssuer(t, idp, w.ck.now)
	path := identitytest.WriteConfig(t, w.dir, more,
		w.ca.Entry(t, w.dir, "acme", "acme.example"), w.tokens.Entry(t, w.dir, "jwt", "sd_jwt", "acme.example"), w.tokens.Entry(t, w.dir, "cwt", "sd_cwt", "acme.example"))
	w.list, w.eval = identitytest.Open(t, path, w.ck.now)
	return w
}

func TestEvaluateTokens(t *testing.T) {
	w, key := newWorld(t, nil), newKey(t)
	for kind, issue := range map[string]func(string, string, string) mls.Credential{
		"sd_jwt": func(aud, c, u string) mls.Credential { return w.tokens.SDJWT(t, key, aud, c, u) },
		"sd_cwt": func(aud, c, u string) mls.Credential { return w.tokens.SDCWT(t, key, aud, c, u) },
	} {
		for _, c := range []struct {
			name              string
			aud, client, user string
			change            func(*identity.Question)
			want              credentials.Code
		}{
			{"for the room", roomName, client, user, nil, ""},
			{"for the group", "mimi://hub.example/g/room", client, user, nil, ""},
			{"for the hub", hub, client, user, nil, ""},
			{"for the holder's provider", "mimi://acme.example", client, user, nil, ""},
			{"for another room", "mimi://hub.example/r/other", client, user, nil, credentials.CodeAudience},
			{"for another hub", "mimi://evil.example", client, user, nil, credentials.CodeAudience},
			{"no room is known", roomName, client, user, func(q *identity.Question) { q.Room = uri(t, "mimi://hub.example") }, credentials.CodeAudience},
			{"another key", roomName, client, user, func(q *identity.Question) { q.SignatureKey = point(t, newKey(t)) }, credentials.CodeCnfLeafMismatch},
			{"another suite", roomName, client, user, func(q *identity.Question) { q.Suite = mls.X25519AES128SHA256Ed25519 }, credentials.CodeCnfLeafMismatch},
			{"another host", roomName, "mimi://globex.example/d/alice/1", "mimi://globex.example/u/alice", nil, credentials.CodeIdentityUnauthorized},
			{"two hosts", roomName, client, "mimi://globex.example/u/alice", nil, credentials.CodeIdentityHostMismatch},
			{"a client that is a user", roomName, user, user, nil, credentials.CodeIdentityMalformed},
			{"not canonical", roomName, "mimi://ACME.example/d/alice/phone", user, nil, credentials.CodeIdentityMalformed},
			{"expired", roomName, client, user, func(q *identity.Question) { q.At = w.ck.at.Add(25 * time.Hour) }, credentials.CodeExpired},
			{"not yet", roomName, client, user, func(q *identity.Question) { q.At = w.ck.at.Add(-time.Hour) }, credentials.CodeNotYetValid},
			{"a hub", roomName, client, user, func(q *identity.Question) { q.Role = identity.RoleHub }, credentials.CodePolicy},
			{"another expected", roomName, client, user, func(q *identity.Question) { q.Expect.User = uri(t, user+"x") }, credentials.CodeIdentityMismatch},
		} {
			q := question(t, key, issue(c.aud, c.client, c.user))
			q.Room = uri(t, roomName)
			if c.change != nil {
				c.change(&q)
			}
			v, err := w.eval.Evaluate(t.Context(), q)
			wantCode(t, kind+" "+c.name, err, c.want)
			checkFindings(t, kind+" "+c.name, v, err)
			if err == nil && (v.Identity.Client.String() != client || v.Identity.Level != identity.Issued || len(v.Claims) != 1 || v.Identity.NotAfter.Sub(v.Identity.NotBefore) != identitytest.Day) {
				t.Errorf("%s %s: %+v", kind, c.name, v.Identity)
			}
		}
	}
}

// An issuer of two providers: a key binding that is made for the one that is not the
// holder's, nor ours, was for somebody else's eyes.
func TestAudienceOfAnotherProvider(t *testing.T) {
	ck, dir, key := newClock(), t.TempDir(), newKey(t)
	tokens := identitytest.NewTokenIssuer(t, idp, ck.now)
	path := identitytest.WriteConfig(t, dir, nil,
		tokens.Entry(t, dir, "jwt", "sd_jwt", "acme.example", "globex.example"), tokens.Entry(t, dir, "cwt", "sd_cwt", "acme.example", "globex.example"))
	_, eval := identitytest.Open(t, path, ck.now)
	for aud, want := range map[string]credentials.Code{"mimi://acme.example": "", "mimi://globex.example": credentials.CodeAudience} {
		for kind, credential := range map[string]mls.Credential{"sd_jwt": tokens.SDJWT(t, key, aud, client, user), "sd_cwt": tokens.SDCWT(t, key, aud, client, user)} {
			q := question(t, key, credential)
			q.Room = uri(t, roomName)
			_, err := eval.Evaluate(t.Context(), q)
			wantCode(t, kind+" for "+aud, err, want)
		}
	}
}

// Claims that were disclosed may give a role; the others may not.
func TestPreauthorisedByClaims(t *testing.T) {
	w, key := newWorld(t, nil), newKey(t)
	w.tokens.Claims = map[string]any{"badge": "staff"}
	q := question(t, key, w.tokens.SDJWT(t, key, hub, client, user))
	q.Room = uri(t, roomName)
	v, err := w.eval.Evaluate(t.Context(), q)
	must(t, err)
	entry := func(claim, value string) *policy.PreAuthData {
		return &policy.PreAuthData{PreauthorizedEntries: []policy.PreAuthRoleEntry{{Claimset: []policy.Claim{{CredentialType: uint16(mls.CredentialSDJWT), ID: []byte(claim), Value: []byte(value)}}}}}
	}
	if !v.MayPreauthorize() || entry("badge", "staff").Match(v.Claims) != 0 || entry("badge", "boss").Match(v.Claims) != -1 || entry("_sd", "x").Match(v.Claims) != -1 {
		t.Errorf("claims %v", v.Claims)
	}
}

// TestEvaluateMulti has a software leaf key bound to credentials of other keys.
func TestEvaluateMulti(t *testing.T) {
	w := newWorld(t, map[string]any{"basic": map[string]any{"mode": "allow"}})
	strict := newWorld(t, nil)
	leaf, device, idpKey := newKey(t), newKey(t), newKey(t)
	bind := func(c mls.Credential, key cryptoSigner) *mls.CredentialBinding {
		b, err := mls.BindCredential(t.Context(), suite, c, key, point(t, leaf))
		must(t, err)
		return b
	}
	cert := bind(w.ca.Client(t, device.Public(), client, user), device)
	token := bind(w.tokens.SDJWT(t, idpKey, hub, client, user), idpKey)
	w.tokens.Claims = map[string]any{"sub": client, "mimi_user": nil, "badge": "staff"}
	employer := bind(w.tokens.SDJWT(t, idpKey, hub, client, ""), idpKey)
	w.tokens.Claims = map[string]any{"sub": "mimi://acme.example/d/bob/1", "mimi_user": nil}
	other := bind(w.tokens.SDJWT(t, idpKey, hub, client, ""), idpKey)
	w.tokens.Claims = nil
	bob := bind(w.tokens.SDCWT(t, idpKey, hub, "mimi://acme.example/d/bob/1", "mimi://acme.example/u/bob"), idpKey)
	stolen := bind(w.ca.Client(t, newKey(t).Public(), client, user), device)
	basic := bind(mls.BasicCredential([]byte(client)), newKey(t))
	mauled := *cert
	mauled.Signature = bytes.Clone(cert.Signature)
	mauled.Signature[len(mauled.Signature)-1] ^= 1
	for _, c := range []struct {
		name   string
		c      mls.Credential
		level  identity.Level
		claims int
		want   credentials.Code
	}{
		{"a certificate of a device", mls.MultiCredential(cert), identity.Issued, 1, ""},
		{"a certificate and a token", mls.MultiCredential(cert, token), identity.Issued, 2, ""},
		{"a certificate and claims", mls.MultiCredential(cert, employer), identity.Issued, 2, ""},
		{"claims alone", mls.MultiCredential(employer), 0, 0, credentials.CodeIdentityMissing},
		{"claims about another", mls.MultiCredential(cert, other), 0, 0, credentials.CodeMultiConflict},
		{"two clients", mls.MultiCredential(cert, bob), 0, 0, credentials.CodeMultiConflict},
		{"a certificate of another key", mls.MultiCredential(stolen), 0, 0, credentials.CodeCnfLeafMismatch},
		{"mauled", mls.MultiCredential(&mauled), 0, 0, credentials.CodeBindingSignature},
		{"weak", mls.WeakMultiCredential(cert, basic), identity.Asserted, 0, ""},
		{"a strong and an assertion", mls.MultiCredential(cert, basic), identity.Issued, 1, ""},
		{"nested", mls.MultiCredential(bind(mls.MultiCredential(cert), newKey(t))), 0, 0, credentials.CodeMultiNested},
		{"nothing", mls.MultiCredential(), 0, 0, credentials.CodeMalformed},
	} {
		q := question(t, leaf, c.c)
		q.Room = uri(t, roomName)
		v, err := w.eval.Evaluate(t.Context(), q)
		wantCode(t, c.name, err, c.want)
		if err == nil && (v.Identity.Level != c.level || len(v.Claims) != c.claims || v.Identity.Type != c.c.Type || v.MayPreauthorize() != (c.claims > 0)) {
			t.Errorf("%s: %+v with %d claims", c.name, v.Identity, len(v.Claims))
		}
	}
	// Another leaf cannot take it over.
	q := question(t, newKey(t), mls.MultiCredential(cert))
	_, err := w.eval.Evaluate(t.Context(), q)
	wantCode(t, "another leaf", err, credentials.CodeBindingSignature)
	// Where assertions are refused, one is not supported: a weak credential is
	// as strong as the rest, and a strong one is refused.
	cert = bind(strict.ca.Client(t, device.Public(), client, user), device)
	v, err := strict.eval.Evaluate(t.Context(), question(t, leaf, mls.WeakMultiCredential(cert, basic)))
	if err != nil || v.Identity.Level != identity.Issued {
		t.Errorf("weak where assertions are refused: %+v, %v", v.Identity, err)
	}
	_, err = strict.eval.Evaluate(t.Context(), question(t, leaf, mls.MultiCredential(cert, basic)))
	wantCode(t, "strong where assertions are refused", err, credentials.CodeMultiUnsupported)
}

// TestFlippedBits changes a credential in every place, and wants it refused
// with a name each time.
func TestFlippedBits(t *testing.T) {
	w, key := newWorld(t, nil), newKey(t)
	n := 0
	codes := map[credentials.Code]int{}
	for _, c := range []mls.Credential{w.tokens.SDJWT(t, key, hub, client, user), w.tokens.SDCWT(t, key, hub, client, user), w.ca.Client(t, key.Public(), client, user)} {
		for at := 0; at < len(c.Body); at += 3 {
			mauled := mls.Credential{Type: c.Type, Body: bytes.Clone(c.Body)}
			mauled.Body[at] ^= 1 << (at % 8)
			q := question(t, key, mauled)
			q.Room = uri(t, roomName)
			v, err := w.eval.Evaluate(t.Context(), q)
			if credentials.CodeOf(err) == "" {
				t.Fatalf("type %d, octet %d: %v, %+v", c.Type, at, err, v.Identity)
			}
			codes[credentials.CodeOf(err)]++
			n++
		}
		for cut := 0; cut < len(c.Body); cut += 7 {
			q := question(t, key, mls.Credential{Type: c.Type, Body: c.Body[:cut]})
			q.Room = uri(t, roomName)
			if _, err := w.eval.Evaluate(t.Context(), q); credentials.CodeOf(err) == "" {
				t.Fatalf("type %d, first %d octets: %v", c.Type, cut, err)
			}
			n++
		}
	}
	if n < 600 || len(codes) < 8 {
		t.Errorf("%d cases with %v", n, codes)
	}
}

// TestRecheck has credentials lose their standing while somebody holds them.
func TestRecheck(t *testing.T) {
	w := newWorld(t, nil)
	crl := filepath.Join(w.dir, "acme.crl")
	entry := w.ca.Entry(t, w.dir, "acme", "acme.example")
	entry["revocation"] = map[string]any{"mode": "hard", "methods": []string{"crl"}, "crl": []string{"acme.crl"}}
	other := identitytest.NewCA(t, "Other", w.ck.now)
	path := identitytest.WriteConfig(t, w.dir, nil, entry, other.Entry(t, w.dir, "other", "acme.example"))
	w.ca.WriteCRL(t, crl, 1)
	list, eval := identitytest.Open(t, path, w.ck.now)
	held := []identity.Held{}
	add := func(name string, ca *identitytest.CA, life time.Duration) *identity.Question {
		key := newKey(t)
		cert := ca.Issue(t, key.Public(), life, "mimi://acme.example/d/alice/"+name, user)
		q := question(t, key, mls.X509Credential([][]byte{cert.Raw}))
		_, err := eval.Evaluate(t.Context(), q)
		must(t, err)
		held = append(held, identity.Held{Question: q, Ref: name})
		if name == "bad" {
			w.ca.WriteCRL(t, filepath.Join(w.dir, "next.crl"), 2, cert.SerialNumber)
		}
		return &held[len(held)-1].Question
	}
	add("good", w.ca, 30*identitytest.Day)
	add("bad", w.ca, 30*identitytest.Day)
	add("short", w.ca, time.Hour)
	add("other", other, identitytest.Day)
	look := func(want string) {
		t.Helper()
		alerts, next, err := eval.Recheck(t.Context(), held)
		must(t, err)
		var got []string
		for _, a := range alerts {
			got = append(got, fmt.Sprintf("%s %s %s", a.Ref, a.Kind, credentials.CodeOf(a.Err)))
		}
		if strings.Join(got, ", ") != want || next.IsZero() || !next.After(w.ck.at) {
			t.Errorf("%q at %v, want %q", got, next, want)
		}
	}
	look("")
	text, err := os.ReadFile(filepath.Join(w.dir, "next.crl"))
	must(t, err)
	must(t, os.WriteFile(crl, text, 0o600))
	look("") // what is at hand is not due
	must(t, eval.Refresh(t.Context(), "acme"))
	look("bad revoked revoked")
	w.ck.at = w.ck.at.Add(2 * time.Hour)
	look("bad revoked revoked, short expired expired")
	identitytest.WriteConfig(t, w.dir, nil, entry)
	must(t, list.Reload())
	look("bad revoked revoked, short expired expired, other unauthorized issuer-unknown")
	// The CRL is not renewed: first it is old, then it is worth nothing.
	must(t, os.Remove(crl))
	w.ck.at = w.ck.at.Add(12 * time.Hour)
	look("bad revoked revoked, short expired expired, other unauthorized issuer-unknown")
	w.ck.at = w.ck.at.Add(36 * time.Hour)
	look("bad revoked revoked, short expired expired, other unauthorized issuer-unknown")
	w.ck.at = w.ck.at.Add(time.Hour)
	alerts, _, err := eval.Recheck(t.Context(), held)
	must(t, err)
	if len(alerts) != 4 || alerts[0].Kind != identity.AlertUnavailable || alerts[0].Kind.Remove() || !alerts[1].Kind.Remove() {
		t.Errorf("%+v", alerts)
	}
	// What was suspended stays so while nothing can be learned of it, and no
	// longer.
	held = held[:1]
	held[0].Suspended = true
	kind := func() (kinds string) {
		alerts, _, err := eval.Recheck(t.Context(), held)
		must(t, err)
		for _, a := range alerts {
			kinds += string(a.Kind)
		}
		return kinds
	}
	if got := kind(); got != "suspended" {
		t.Errorf("nothing is known, and the suspension has become %q", got)
	}
	w.ca.WriteCRL(t, crl, 9)
	w.ck.at = w.ck.at.Add(time.Minute)
	must(t, eval.Refresh(t.Context(), "acme"))
	if got := kind(); got != "" {
		t.Errorf("it is good again, and found %q", got)
	}
	must(t, os.Remove(crl))
	w.ck.at = w.ck.at.Add(13 * time.Hour)
	if got := kind(); got != "suspended" {
		t.Errorf("only something out of date is known, and the suspension has become %q", got)
	}
}

// TestFollow has a revocation reach somebody who follows, at once.
func TestFollow(t *testing.T) {
	w := newWorld(t, nil)
	crl := filepath.Join(w.dir, "acme.crl")
	entry := w.ca.Entry(t, w.dir, "acme", "acme.example")
	entry["revocation"] = map[string]any{"mode": "hard", "methods": []string{"crl"}, "crl": []string{"acme.crl"}}
	w.ca.WriteCRL(t, crl, 1)
	_, eval := identitytest.Open(t, identitytest.WriteConfig(t, w.dir, nil, entry), w.ck.now)
	key := newKey(t)
	cert := w.ca.Issue(t, key.Public(), identitytest.Day, client, user)
	held := []identity.Held{{Question: question(t, key, mls.X509Credential([][]byte{cert.Raw}))}}
	looked, found := make(chan struct{}, 10), make(chan identity.Alert, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	end := errors.New("seen")
	done := make(chan error)
	go func() {
		done <- eval.Follow(ctx, func(context.Context) ([]identity.Held, error) { looked <- struct{}{}; return held, nil }, func(_ context.Context, a []identity.Alert) error {
			if len(a) == 0 {
				return nil
			}
			found <- a[0]
			return end
		})
	}()
	<-looked
	for range 2 { // the first look may still be under way
		if _, err := eval.Evaluate(ctx, held[0].Question); err != nil {
			t.Fatal(err)
		}
	}
	w.ca.WriteCRL(t, crl, 2, cert.SerialNumber)
	must(t, eval.Refresh(ctx, "acme"))
	select {
	case a := <-found:
		if a.Kind != identity.AlertRevoked {
			t.Errorf("%+v", a)
		}
	case <-ctx.Done():
		t.Fatal("nobody was told")
	}
	if err := <-done; !errors.Is(err, end) {
		t.Error(err)
	}
}

// FuzzEvaluate looks for a credential that is believed though nobody issued it,
// and for a refusal without a name.
func FuzzEvaluate(f *testing.F) {
	w, key := newWorld(f, nil), newKey(f)
	for _, c := range []mls.Credential{w.tokens.SDJWT(f, key, hub, client, user), w.tokens.SDCWT(f, key, hub, client, user), w.ca.Client(f, key.Public(), client, user), mls.BasicCredential([]byte(client))} {
		f.Add(uint16(c.Type), c.Body)
	}
	f.Add(uint16(mls.CredentialMulti), []byte{0})
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		other := newKey(t) // nobody's, so that nothing is believed
		q := question(t, other, mls.Credential{Type: mls.CredentialType(kind), Body: body})
		v, err := w.eval.Evaluate(t.Context(), q)
		if err == nil || credentials.CodeOf(err) == "" {
			t.Fatalf("%v, %+v", err, v.Identity)
		}
		if _, err := json.Marshal(v.Findings); err != nil || len(v.Findings) == 0 {
			t.Fatalf("findings %v: %v", v.Findings, err)
		}
	})
}
