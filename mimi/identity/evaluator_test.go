package identity_test

import (
	"context"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/trust"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mls"
)

// A clock that tests set.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)} }

const suite = mls.P256AES128SHA256P256

// question is an acting one.
func question(t testing.TB, key cryptoSigner, c mls.Credential) identity.Question {
	return identity.Question{Suite: suite, Credential: c, SignatureKey: point(t, key), Acting: true}
}

func TestEvaluateX509(t *testing.T) {
	ck := newClock()
	dir, ca, other := t.TempDir(), identitytest.NewCA(t, "Acme", ck.now), identitytest.NewCA(t, "Other", ck.now)
	_, e := identitytest.Open(t, identitytest.WriteConfig(t, dir, nil, ca.Entry(t, dir, "acme", "acme.example")), ck.now)
	key := newKey(t)
	good := ca.Client(t, key.Public(), client, user)
	for _, c := range []struct {
		name   string
		change func(*identity.Question)
		want   credentials.Code
	}{
		{"good", func(*identity.Question) {}, ""},
		{"another key", func(q *identity.Question) { q.SignatureKey = point(t, newKey(t)) }, credentials.CodeCnfLeafMismatch},
		{"another suite", func(q *identity.Question) { q.Suite = mls.X25519AES128SHA256Ed25519 }, credentials.CodeCnfCurve},
		{"unknown suite", func(q *identity.Question) { q.Suite = 0x0004 }, credentials.CodeCnfCurve},
		{"unknown issuer", func(q *identity.Question) { q.Credential = other.Client(t, key.Public(), client, user) }, credentials.CodeIssuerUnknown},
		{"another host", func(q *identity.Question) {
			q.Credential = ca.Client(t, key.Public(), "mimi://globex.example/d/alice/phone", "mimi://globex.example/u/alice")
		}, credentials.CodeIdentityUnauthorized},
		{"no certificate", func(q *identity.Question) { q.Credential = mls.X509Credential(nil) }, credentials.CodeMalformed},
		{"garbage", func(q *identity.Question) {
			q.Credential = mls.Credential{Type: mls.CredentialX509, Body: []byte{5, 1}}
		}, credentials.CodeMalformed},
		{"unknown type", func(q *identity.Question) { q.Credential.Type = 0x4242 }, credentials.CodePolicy},
		{"basic", func(q *identity.Question) { q.Credential = mls.BasicCredential([]byte(client)) }, credentials.CodePolicy},
		{"a hub as a client", func(q *identity.Question) { q.Credential = ca.Hub(t, key.Public(), "mimi://acme.example") }, credentials.CodeIdentityMalformed},
		{"a client as a hub", func(q *identity.Question) { q.Role = identity.RoleHub }, credentials.CodeIdentityMalformed},
		{"another client than expected", func(q *identity.Question) { q.Expect.Client = uri(t, client+"2") }, credentials.CodeIdentityMismatch},
		{"expired", func(q *identity.Question) { q.At = ck.at.Add(25 * time.Hour) }, credentials.CodeExpired},
		{"expired within the skew", func(q *identity.Question) { q.At = ck.at.Add(24*time.Hour + 30*time.Second) }, ""},
		{"not yet", func(q *identity.Question) { q.At = ck.at.Add(-time.Hour) }, credentials.CodeNotYetValid},
		{"too long without revocation", func(q *identity.Question) {
			q.Credential = mls.X509Credential([][]byte{ca.Issue(t, key.Public(), 25*time.Hour, client, user).Raw})
		}, credentials.CodePolicy},
	} {
		for range 2 { // the second finds the evidence kept
			q := question(t, key, good)
			c.change(&q)
			v, err := e.Evaluate(t.Context(), q)
			wantCode(t, c.name, err, c.want)
			checkFindings(t, c.name, v, err)
			if c.want == "" && (v.Identity == nil || v.Identity.Client.String() != client || v.Identity.User.String() != user || v.Identity.Level != identity.Issued || len(v.Claims) != 1 || v.Quarantined) {
				t.Errorf("%s: %+v", c.name, v)
			}
		}
	}
}

// checkFindings wants every rule once: those before the refusal passed, those
// after it not reached.
func checkFindings(t *testing.T, name string, v *identity.Verdict, err error) {
	t.Helper()
	refused := false
	seen := map[identity.Rule]bool{}
	for _, f := range v.Findings {
		switch {
		case f.Outcome == identity.Refused:
			refused = true
			if f.Code != credentials.CodeOf(err) || f.Detail == "" {
				t.Errorf("%s: %+v for %v", name, f, err)
			}
		case refused != (f.Outcome == identity.NotReached):
			t.Errorf("%s: %v after a refusal: %v", name, f, refused)
		}
		seen[f.Rule] = true
	}
	if refused != (err != nil) {
		t.Errorf("%s: refused %v, error %v", name, refused, err)
	}
	if err == nil && len(seen) != len(identity.Rules) && v.Identity != nil && v.Identity.Proven() {
		t.Errorf("%s: %d of %d rules: %+v", name, len(seen), len(identity.Rules), v.Findings)
	}
}

// A member follows what the group has done, with grace and then in quarantine.
func TestMemberFollows(t *testing.T) {
	ck := newClock()
	dir, ca, other := t.TempDir(), identitytest.NewCA(t, "Acme", ck.now), identitytest.NewCA(t, "Other", ck.now)
	key := newKey(t)
	entry := ca.Entry(t, dir, "acme", "acme.example")
	_, e := identitytest.Open(t, identitytest.WriteConfig(t, dir, nil, entry), ck.now)
	q := question(t, key, ca.Client(t, key.Public(), client, user))
	q.Acting = false
	for _, c := range []struct {
		after      time.Duration
		quarantine bool
	}{{0, false}, {24*time.Hour + 11*time.Minute - 30*time.Second, false}, {24*time.Hour + 12*time.Minute, true}, {-2 * time.Minute, false}, {-20 * time.Minute, true}} {
		q.At = ck.at.Add(c.after)
		v, err := e.Evaluate(t.Context(), q)
		if err != nil || v.Quarantined != c.quarantine || c.quarantine != (v.Trouble != nil) || v.Identity == nil {
			t.Errorf("after %v: %+v, %v", c.after, v, err)
		}
	}
	q.At, q.Credential = time.Time{}, other.Client(t, key.Public(), client, user)
	_, err := e.Evaluate(t.Context(), q)
	wantCode(t, "unknown issuer", err, credentials.CodeIssuerUnknown)
	_, e = identitytest.Open(t, identitytest.WriteConfig(t, dir, map[string]any{"unknown_issuer": "quarantine"}, entry), ck.now)
	v, err := e.Evaluate(t.Context(), q)
	if err != nil || !v.Quarantined || !v.Unverified || v.Identity != nil || credentials.CodeOf(v.Trouble) != credentials.CodeIssuerUnknown {
		t.Errorf("unknown issuer in quarantine: %+v, %v", v, err)
	}
	q.Acting = true
	_, err = e.Evaluate(t.Context(), q)
	wantCode(t, "unknown issuer where we act", err, credentials.CodeIssuerUnknown)
}

func TestEvaluateBasic(t *testing.T) {
	key := newKey(t)
	for _, c := range []struct {
		mode              string
		hosts             []string
		identity, voucher string
		want              credentials.Code
		level             identity.Level
	}{
		{"refuse", nil, client, "acme.example", credentials.CodePolicy, 0},
		{"test", []string{"acme.example"}, client, "", "", identity.Asserted},
		{"test", []string{"globex.example"}, client, "acme.example", credentials.CodePolicy, 0},
		{"allow", nil, client, "acme.example", "", identity.Vouched},
		{"allow", nil, client, "globex.example", credentials.CodeIdentityHostMismatch, 0},
		{"allow", nil, "mimi://acme.example/d/phone", "acme.example", credentials.CodeIdentityMalformed, 0},
		{"allow", nil, "alice", "", credentials.CodeIdentityMalformed, 0},
	} {
		basic := map[string]any{"mode": c.mode, "basic_max_role": 2}
		if c.hosts != nil {
			basic["hosts"] = c.hosts
		}
		_, e := identitytest.Open(t, identitytest.WriteConfig(t, t.TempDir(), map[string]any{"basic": basic}), nil)
		q := question(t, key, mls.BasicCredential([]byte(c.identity)))
		q.Voucher = c.voucher
		v, err := e.Evaluate(t.Context(), q)
		wantCode(t, c.mode+" "+c.identity, err, c.want)
		if err == nil && (v.Identity.Level != c.level || len(v.Claims) != 0 || v.MayPreauthorize() || !v.Bounded || v.MaxRole != 2) {
			t.Errorf("%s: %+v", c.mode, v.Identity)
		}
	}
}

func TestEvaluateHub(t *testing.T) {
	ca, e := identitytest.NewEvaluator(t, "hub.example", "acme.example")
	key := newKey(t)
	q := question(t, key, ca.Hub(t, key.Public(), hub))
	q.Role, q.Room = identity.RoleHub, uri(t, hub+"/r/room")
	v, err := e.Evaluate(t.Context(), q)
	if err != nil || v.Hub != uri(t, hub) || v.Identity != nil {
		t.Errorf("%+v, %v", v, err)
	}
	q.Room = uri(t, "mimi://acme.example/r/room")
	_, err = e.Evaluate(t.Context(), q)
	wantCode(t, "room of another hub", err, credentials.CodeIdentityHostMismatch)
	q.Credential = mls.BasicCredential([]byte(hub))
	_, err = e.Evaluate(t.Context(), q)
	wantCode(t, "basic hub", err, credentials.CodePolicy)
}

// TestJudge has the evaluator decide in an MLS engine.
func TestJudge(t *testing.T) {
	ca, e := identitytest.NewEvaluator(t, "acme.example")
	key, leaf := newKey(t), newKey(t)
	j := func(k cryptoSigner, c mls.Credential) *mls.Judgement {
		return &mls.Judgement{Leaf: &mls.LeafNode{Credential: c, SignatureKey: point(t, k)}}
	}
	var told *identity.Verdict
	judge := e.Judge(identity.JudgeOptions{Suite: suite, Verdict: func(_ context.Context, _ *mls.Judgement, v *identity.Verdict) error { told = v; return nil }})
	phone := j(key, ca.Client(t, key.Public(), client, user))
	must(t, judge(identity.Acting(t.Context()), phone))
	if told == nil || told.Identity.Client.String() != client || told.Standing != trust.Good {
		t.Errorf("told %+v", told)
	}
	wantCode(t, "stolen credential", judge(t.Context(), j(leaf, phone.Leaf.Credential)), credentials.CodeCnfLeafMismatch)
	next := j(leaf, ca.Client(t, leaf.Public(), client, user))
	next.Old = phone.Leaf
	must(t, judge(t.Context(), next))
	next = j(leaf, ca.Client(t, leaf.Public(), "mimi://acme.example/d/bob/1", "mimi://acme.example/u/bob"))
	next.Old = phone.Leaf
	wantCode(t, "alice became bob", judge(t.Context(), next), credentials.CodeIdentityMismatch)
}

// TestGraceOfClockThatWasAhead has a revocation be out of reach first while the clock
// is a year ahead: the grace begins when the clock is right, not a year later.
func TestGraceOfClockThatWasAhead(t *testing.T) {
	ck, dir, key := newClock(), t.TempDir(), newKey(t)
	ca := identitytest.NewCA(t, "Acme", ck.now)
	entry := ca.Entry(t, dir, "acme", "acme.example")
	entry["revocation"] = map[string]any{"mode": "hard", "methods": []string{"crl"}, "crl": []string{"none.crl"}}
	_, e := identitytest.Open(t, identitytest.WriteConfig(t, dir, nil, entry), ck.now)
	q := question(t, key, ca.Client(t, key.Public(), client, user))
	q.Acting = false
	for _, c := range []struct {
		after      time.Duration
		quarantine bool
	}{{12 * time.Hour, false}, {0, false}, {11 * time.Minute, true}} {
		q.At = ck.at.Add(c.after)
		v, err := e.Evaluate(t.Context(), q)
		if err != nil || v.Quarantined != c.quarantine {
			t.Errorf("after %v: quarantined %v, %v", c.after, v.Quarantined, err)
		}
	}
}
