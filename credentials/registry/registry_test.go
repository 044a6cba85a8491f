package registry_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/statuslist"
)

// seen is what each place says of a device's credentials.
func (b *book) seen(t testing.TB, records ...*registry.Record) (states []string) {
	t.Helper()
	for _, r := range records {
		now, err := b.Get(t.Context(), r.ID)
		must(t, err)
		place := ""
		if ref, ok := now.Reference(); ok {
			s, err := b.StatusLists().Status(t.Context(), ref.URI, ref.Index)
			must(t, err)
			place = s.String()
		} else {
			c, err := b.Certificates().Record(t.Context(), now.IssuerKey, serialOf(t, now))
			must(t, err)
			switch {
			case c.Revocation == nil:
				place = "valid"
			case c.Revocation.Reason == certs.CertificateHold:
				place = "suspended"
			default:
				place = "revoked"
			}
		}
		if place != string(now.State) {
			t.Errorf("%s %s: the record says %s, its place %s", now.Type, now.ID, now.State, place)
		}
		states = append(states, string(now.State))
	}
	return states
}

func want(t testing.TB, got []string, state registry.State) {
	t.Helper()
	for _, s := range got {
		if s != string(state) {
			t.Errorf("states %v, want all %s", got, state)
		}
	}
}

func TestOneRevocationChangesEveryPlace(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		b, ctx := newBook(t), t.Context()
		key := newKey(t)
		x, _ := b.certificate(t, laptop, key)
		all := []*registry.Record{x, b.token(t, registry.SDJWT, laptop, key), b.token(t, registry.SDCWT, laptop, key)}
		other := b.token(t, registry.SDJWT, phone, newKey(t))
		if x.Holder != all[1].Holder || x.Level != "tpm-listed" || x.Kind != certs.KindDevice || x.Issued.IsZero() || len(x.Digest) != 32 {
			t.Errorf("record %+v", x)
		}
		if e, err := b.Evidence(ctx, x.ID); err != nil || string(e) != "evidence" {
			t.Errorf("evidence %q, %v", e, err)
		}
		var told []registry.Change
		defer b.Watch(func(c []registry.Change) { told = append(told, c...) })()

		_, err := b.Suspend(ctx, registry.Target{Client: laptop})
		must(t, err)
		want(t, b.seen(t, all...), registry.Suspended)
		_, err = b.Resume(ctx, registry.Target{Holder: x.Holder})
		must(t, err)
		want(t, b.seen(t, all...), registry.Valid)
		changes, err := b.Revoke(ctx, registry.Target{Client: laptop}, certs.KeyCompromise)
		must(t, err)
		want(t, b.seen(t, all...), registry.Revoked)
		want(t, b.seen(t, other), registry.Valid)
		if len(changes) != 3 || changes[0].Record.Client != laptop || len(told) != 9 {
			t.Errorf("%d changes, told of %d", len(changes), len(told))
		}
		again, err := b.Revoke(ctx, registry.Target{Client: laptop}, certs.Superseded)
		if err != nil || len(again) != 0 {
			t.Errorf("revoked again: %v, %v", again, err)
		}
		for name, err := range map[string]error{
			"resume":  second(b.Resume(ctx, registry.Target{ID: x.ID})),
			"suspend": second(b.Suspend(ctx, registry.Target{ID: x.ID})),
		} {
			if !errors.Is(err, registry.ErrRevoked) {
				t.Errorf("%s after the revocation: %v", name, err)
			}
		}
		if changes, err := b.Resume(ctx, registry.Target{ID: other.ID}); err != nil || len(changes) != 0 {
			t.Errorf("resumed what is valid: %v, %v", changes, err)
		}
		history, err := b.History(ctx, x.ID)
		must(t, err)
		if len(history) != 3 || history[2].State != registry.Revoked || history[2].Reason != "keyCompromise" {
			t.Errorf("history %+v", history)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestChangesRefused(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		b, ctx := newBook(t), t.Context()
		r, err := b.Begin(ctx, registry.Draft{Type: registry.SDJWT, Issuer: issURL, IssuerKey: b.tokens.Public(), Names: names(t, laptop),
			Holder: newKey(t).Public(), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)})
		must(t, err)
		must(t, b.StatusLists().Create(ctx, listURL+"/one", 1, 64))
		narrow, err := b.Begin(ctx, registry.Draft{Type: registry.SDCWT, Issuer: issURL, IssuerKey: b.tokens.Public(), Names: names(t, phone),
			Holder: newKey(t).Public(), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), List: listURL + "/one"})
		must(t, err)
		ended, err := b.Begin(ctx, registry.Draft{Type: registry.SDCWT, Issuer: issURL, IssuerKey: b.tokens.Public(), Names: names(t, phone),
			Holder: newKey(t).Public(), NotBefore: time.Now(), NotAfter: time.Now().Add(-8 * 24 * time.Hour), List: listURL})
		must(t, err)
		for name, c := range map[string]struct{ err, want error }{
			"unknown":   {second(b.Revoke(ctx, registry.Target{ID: registry.NewID()}, certs.Unspecified)), registry.ErrUnknown},
			"no client": {second(b.Revoke(ctx, registry.Target{Client: "mimi://acme.example/d/x/y"}, certs.Unspecified)), registry.ErrUnknown},
			"no status": {second(b.Revoke(ctx, registry.Target{ID: r.ID}, certs.Unspecified)), registry.ErrNoStatus},
			"one bit":   {second(b.Suspend(ctx, registry.Target{ID: narrow.ID})), registry.ErrNotSuspending},
			"hold":      {second(b.Revoke(ctx, registry.Target{ID: narrow.ID}, certs.CertificateHold)), nil},
			"remove":    {second(b.Revoke(ctx, registry.Target{ID: narrow.ID}, certs.RemoveFromCRL)), nil},
			"two":       {second(b.Revoke(ctx, registry.Target{ID: narrow.ID, Client: phone}, certs.Unspecified)), nil},
			"none":      {second(b.Revoke(ctx, registry.Target{}, certs.Unspecified)), nil},
			"ended":     {second(b.Revoke(ctx, registry.Target{ID: ended.ID}, certs.Unspecified)), nil},
		} {
			if c.err == nil || c.want != nil && !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v", name, c.err)
			}
		}
		if changes, err := b.Changes(ctx, 0, 0); err != nil || len(changes) != 0 {
			t.Errorf("changes %v, %v", changes, err)
		}
		must(t, second(b.Revoke(ctx, registry.Target{ID: narrow.ID}, certs.Unspecified)))
		if err := b.Finish(ctx, narrow.ID, []byte("token")); !errors.Is(err, registry.ErrRevoked) {
			t.Errorf("a token that was revoked before it was signed: %v", err)
		}
	})
}

// Many revoke at once, on two connections to one database: every change is in
// the feed once, in order, and whoever reads on never misses one.
func TestChangesInOrder(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		src := source(t)
		b, err := openBook(t.Context(), src, newKeys(t), nil, nil)
		must(t, err)
		defer b.Close()
		two, err := registry.Open(t.Context(), src)
		must(t, err)
		defer two.Close()
		const n = 24
		var ids []registry.ID
		for range n {
			ids = append(ids, b.token(t, registry.SDJWT, laptop, newKey(t)).ID)
		}
		var wg sync.WaitGroup
		for i, id := range ids {
			s := []*registry.Store{b.Store, two}[i%2]
			wg.Go(func() {
				if _, err := s.Revoke(t.Context(), registry.Target{ID: id}, certs.Superseded); err != nil {
					t.Error(err)
				}
			})
		}
		seen, last := map[registry.ID]bool{}, int64(0)
		for deadline := time.Now().Add(time.Minute); len(seen) < n && time.Now().Before(deadline); {
			changes, err := two.Changes(t.Context(), last, 5)
			must(t, err)
			for _, c := range changes {
				if c.Seq != last+1 || seen[c.Credential] {
					t.Errorf("change %d of %s after %d", c.Seq, c.Credential, last)
				}
				seen[c.Credential], last = true, c.Seq
			}
		}
		wg.Wait()
		if len(seen) != n {
			t.Errorf("%d changes of %d", len(seen), n)
		}
	})
}

func TestListPages(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		b, ctx := newBook(t), t.Context()
		before := time.Now()
		for i := range 7 {
			client := fmt.Sprintf("mimi://acme.example/d/alice/%d", i)
			if i%2 == 0 {
				b.certificate(t, client, newKey(t))
			} else {
				b.token(t, registry.SDJWT, client, newKey(t))
			}
		}
		must(t, second(b.Revoke(ctx, registry.Target{Client: "mimi://acme.example/d/alice/3"}, certs.Superseded)))
		key := b.issuer.ID()
		for name, c := range map[string]struct {
			f    registry.Filter
			want int
		}{
			"all":         {registry.Filter{}, 9}, // with root and issuing CA
			"devices":     {registry.Filter{Kind: certs.KindDevice}, 7},
			"type":        {registry.Filter{Type: registry.SDJWT}, 3},
			"revoked":     {registry.Filter{State: registry.Revoked}, 1},
			"client":      {registry.Filter{Client: "mimi://acme.example/d/alice/4"}, 1},
			"user":        {registry.Filter{User: alice, State: registry.Valid}, 6},
			"issuer":      {registry.Filter{IssuerKey: &key}, 4},
			"attested":    {registry.Filter{MinAttestation: credentials.AttestationListed}, 4},
			"unfinished":  {registry.Filter{Unfinished: true}, 0},
			"from":        {registry.Filter{Kind: certs.KindDevice, IssuedFrom: before}, 7},
			"before":      {registry.Filter{IssuedBefore: before}, 2},
			"valid":       {registry.Filter{Kind: certs.KindDevice, ValidAt: time.Now().Add(time.Hour)}, 7},
			"valid later": {registry.Filter{Kind: certs.KindDevice, ValidAt: time.Now().Add(48 * time.Hour)}, 0},
		} {
			seen := map[registry.ID]bool{}
			page := registry.Page{Size: 2}
			for {
				records, next, err := b.List(ctx, c.f, page)
				must(t, err)
				for _, r := range records {
					if seen[r.ID] {
						t.Errorf("%s: %s again", name, r.ID)
					}
					seen[r.ID] = true
				}
				if page.After = next; next == "" {
					break
				}
			}
			if len(seen) != c.want {
				t.Errorf("%s: %d records, want %d", name, len(seen), c.want)
			}
		}
		for _, cursor := range []string{"x", "1.", "1.zz", "1", ".", "9223372036854775808." + string(registry.NewID())} {
			if _, _, err := b.List(ctx, registry.Filter{}, registry.Page{After: cursor}); err == nil {
				t.Errorf("cursor %q was taken", cursor)
			}
		}
	})
}

func TestPublisher(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		b, ctx := newBook(t), t.Context()
		key := newKey(t)
		_, cert := b.certificate(t, laptop, key)
		token := b.token(t, registry.SDJWT, laptop, key)
		must(t, b.publisher.Publish(ctx))
		base := b.crl(t, false, nil)
		if err := base.Check(cert, time.Now(), 0); err != nil {
			t.Errorf("before the revocation: %v", err)
		}
		var pubs []registry.Publication
		b.publisher.Published = func(p registry.Publication) { pubs = append(pubs, p) }
		must(t, b.publisher.Publish(ctx))
		if len(pubs) != 0 {
			t.Errorf("published without need: %+v", pubs)
		}
		must(t, second(b.Revoke(ctx, registry.Target{Client: laptop}, certs.KeyCompromise)))
		if lag, err := b.publisher.Lag(ctx); err != nil || lag <= 0 {
			t.Errorf("lag %v, %v", lag, err)
		}
		must(t, b.publisher.Publish(ctx))
		if len(pubs) != 2 || pubs[0].Changes != 1 || pubs[1].Changes != 1 || pubs[0].Waited <= 0 {
			t.Errorf("publications %+v", pubs)
		}
		b.wantPublished(t, cert, token, base)
		if lag, err := b.publisher.Lag(ctx); err != nil || lag != 0 {
			t.Errorf("lag %v, %v", lag, err)
		}
		changes, err := b.Changes(ctx, 0, 0)
		must(t, err)
		for _, c := range changes {
			if c.Published.Before(c.At) {
				t.Errorf("change %+v", c)
			}
		}
	})
}

// crl returns the published full CRL, or the base with the published delta.
func (b *book) crl(t testing.TB, delta bool, base *certs.CRL) *certs.CRL {
	t.Helper()
	der, err := b.Certificates().CRL(t.Context(), b.issuer.ID(), delta)
	must(t, err)
	if delta {
		c, err := base.WithDelta(der)
		must(t, err)
		return c
	}
	c, err := certs.ParseCRL(der, b.caCert, nil)
	must(t, err)
	return c
}

// wantPublished wants every place that a verifier asks to say revoked.
func (b *book) wantPublished(t testing.TB, cert *x509.Certificate, token *registry.Record, base *certs.CRL) {
	t.Helper()
	ctx := t.Context()
	for name, c := range map[string]*certs.CRL{"CRL": b.crl(t, false, nil), "delta CRL": b.crl(t, true, base)} {
		if err := c.Check(cert, time.Now(), 0); credentials.CodeOf(err) != credentials.CodeRevoked {
			t.Errorf("%s: %v", name, err)
		}
	}
	request, err := certs.CreateOCSPRequest(cert, b.caCert, nil)
	must(t, err)
	answer, err := b.responder.Respond(ctx, request)
	must(t, err)
	if _, err := certs.CheckOCSP(certs.OCSPCheck{Response: answer, Certificate: cert, Issuer: b.caCert, At: time.Now()}); credentials.CodeOf(err) != credentials.CodeRevoked {
		t.Errorf("OCSP: %v", err)
	}
	pub, err := b.StatusLists().Published(ctx, listURL, time.Time{})
	must(t, err)
	for f, octets := range map[statuslist.Format][]byte{statuslist.JWT: pub.JWT, statuslist.CWT: pub.CWT} {
		if s := publishedStatus(t, f, octets, b.keys.status.Public(), token.Index); s != statuslist.Invalid {
			t.Errorf("status list %v: %v", f, s)
		}
	}
}

func TestPublisherSaysWhatIsLate(t *testing.T) {
	b, ctx := newBook(t), t.Context()
	r, _ := b.certificate(t, laptop, newKey(t))
	must(t, b.publisher.Publish(ctx))
	must(t, second(b.Revoke(ctx, registry.Target{ID: r.ID}, certs.Superseded)))
	fault := errors.New("the token is away")
	b.SetStep(func(name string) error {
		if name == "reserved CRL" {
			return fault
		}
		return nil
	})
	if err := b.publisher.Publish(ctx); !errors.Is(err, fault) || errors.Is(err, registry.ErrLate) {
		t.Errorf("at first: %v", err)
	}
	b.publisher.Now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if err := b.publisher.Publish(ctx); !errors.Is(err, fault) || !errors.Is(err, registry.ErrLate) {
		t.Errorf("after the bound: %v", err)
	}
	b.publisher.CAs = nil
	if err := b.publisher.Publish(ctx); !errors.Is(err, registry.ErrNoPublisher) || !errors.Is(err, registry.ErrLate) {
		t.Errorf("without its CA: %v", err)
	}
}

// A change by another process reaches a running Publisher, and one of its own
// at once.
func TestRunPublishes(t *testing.T) {
	src := source(t)
	b, err := openBook(t.Context(), src, newKeys(t), nil, nil)
	must(t, err)
	defer b.Close()
	other, err := registry.Open(t.Context(), src)
	must(t, err)
	defer other.Close()
	b.publisher.Poll, b.publisher.Settle = 50*time.Millisecond, time.Millisecond
	published := make(chan registry.Publication, 16)
	b.publisher.Published = func(p registry.Publication) {
		if p.Changes > 0 {
			published <- p
		}
	}
	b.publisher.Report = func(err error) { t.Error(err) }
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.publisher.Run(ctx) })
	defer func() { cancel(); wg.Wait() }()
	for _, s := range []*registry.Store{b.Store, other} {
		r := b.token(t, registry.SDJWT, laptop, newKey(t))
		must(t, second(s.Revoke(t.Context(), registry.Target{ID: r.ID}, certs.Superseded)))
		select {
		case p := <-published:
			if p.Place != listURL || p.Waited > registry.DefaultBound {
				t.Errorf("publication %+v", p)
			}
		case <-time.After(registry.DefaultBound):
			t.Fatal("not published within the bound")
		}
	}
}

// A certificate that was issued is found by an index, however many there are.
func TestIssuedIsFoundByIndex(t *testing.T) {
	s, err := registry.Open(t.Context(), filepath.Join(t.TempDir(), "issuer.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	plan, err := s.PlanOfIssued(t.Context())
	if err != nil || !strings.Contains(plan, "USING INDEX credential_order (prepared=?)") {
		t.Errorf("SQLite finds the record so: %s (%v)", plan, err)
	}
}

// TestPublisherAfterClockWasAhead has a CRL and a list signed by a clock that is
// ahead. When it is right again neither can be signed, since nothing goes backwards,
// and whoever runs the publisher is told so at once and not when they end.
func TestPublisherAfterClockWasAhead(t *testing.T) {
	b := newBook(t)
	b.certificate(t, laptop, newKey(t))
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	var err error
	b.issuer, err = certs.NewIssuer(certs.Config{Key: b.ca, Certificate: b.caCert, Store: b.Store, Profile: certs.Profile{CRL: []string{crlURL}}, Now: now})
	must(t, err)
	b.list.Now, b.publisher.Now, b.publisher.CAs[0].Issuer = now, now, b.issuer
	ahead.Store(int64(2 * time.Hour))
	must(t, b.publisher.Publish(t.Context()))
	ahead.Store(0)
	restarted := &registry.Publisher{Store: b.Store, CAs: b.publisher.CAs, Lists: b.publisher.Lists}
	for name, p := range map[string]*registry.Publisher{"the same process": b.publisher, "another": restarted} {
		if err := p.Publish(t.Context()); !errors.Is(err, certs.ErrClockBehind) || !errors.Is(err, statuslist.ErrClock) {
			t.Errorf("%s: %v, want that the clock is behind", name, err)
		}
	}
	ahead.Store(int64(2*time.Hour + time.Minute))
	must(t, b.publisher.Publish(t.Context()))
}
