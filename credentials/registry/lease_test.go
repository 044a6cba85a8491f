package registry_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
)

// nodes opens one book twice, as two nodes or processes do.
func nodes(t *testing.T) (a, b *book) {
	t.Helper()
	src := source(t)
	a, err := openBook(t.Context(), src, newKeys(t), nil, nil)
	must(t, err)
	t.Cleanup(func() { a.Close() })
	b, err = openBook(t.Context(), src, a.keys, a.rootCert, a.caCert)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return a, b
}

// TestOneSignsAtATime has two nodes publish each change at the same moment. Each
// CRL and list is signed once for each change, never by both at a time, and when
// Publish returns, on either, the change is published.
func TestOneSignsAtATime(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		a, b := nodes(t)
		_, cert := a.certificate(t, laptop, newKey(t))
		must(t, a.publisher.Publish(t.Context()))
		must(t, b.publisher.Publish(t.Context()))
		var signing, most atomic.Int32
		var mu sync.Mutex // guards said
		said := map[string]int{}
		for _, n := range []*book{a, b} {
			n.publisher.Lease = time.Minute // longer than a busy machine needs
			n.SetStep(func(name string) error {
				switch name {
				case "reserved CRL":
					now := signing.Add(1)
					for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
					}
				case "stored CRL":
					signing.Add(-1)
				}
				return nil
			})
			n.publisher.Published = func(p registry.Publication) {
				mu.Lock()
				defer mu.Unlock()
				said[strings.Fields(p.Place)[0]]++
			}
		}
		first := a.crl(t, false, nil).Number().Int64()
		const rounds = 8
		for round := range rounds {
			if round%2 == 0 {
				must(t, second(a.Suspend(t.Context(), registry.Target{Client: laptop})))
			} else {
				must(t, second(b.Resume(t.Context(), registry.Target{Client: laptop})))
			}
			var wg sync.WaitGroup
			for _, n := range []*book{a, b} {
				wg.Go(func() {
					if err := n.publisher.Publish(t.Context()); err != nil {
						t.Error(err)
						return
					}
					der, err := n.Certificates().CRL(t.Context(), n.issuer.ID(), false)
					if err != nil {
						t.Error(err)
						return
					}
					c, err := certs.ParseCRL(der, n.caCert, nil)
					if err != nil {
						t.Error(err)
						return
					}
					if suspended := c.Check(cert, time.Now(), time.Minute) != nil; suspended != (round%2 == 0) {
						t.Errorf("round %d: Publish returned before the change was published", round)
					}
				})
			}
			wg.Wait()
		}
		if got := a.crl(t, false, nil).Number().Int64() - first; got != rounds {
			t.Errorf("%d CRLs for %d changes", got, rounds)
		}
		if most.Load() != 1 || said["ca"] != rounds {
			t.Errorf("%d at a time; published %v", most.Load(), said)
		}
	})
}

// TestLeaseEnds has a node die over a publication: another takes over when the
// lease has ended, and not before.
func TestLeaseEnds(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		a, b := nodes(t)
		a.certificate(t, laptop, newKey(t))
		must(t, a.publisher.Publish(t.Context()))
		must(t, b.publisher.Publish(t.Context()))
		must(t, second(a.Revoke(t.Context(), registry.Target{Client: laptop}, certs.KeyCompromise)))
		// One holds on in the middle of signing, beyond its lease.
		a.publisher.Lease = 2 * time.Second
		stuck, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		var once sync.Once
		a.SetStep(func(name string) error {
			if name == "reserved CRL" {
				once.Do(func() { close(stuck); <-goOn })
			}
			return nil
		})
		begin := time.Now()
		go func() { done <- a.publisher.Publish(context.WithoutCancel(t.Context())) }()
		<-stuck
		must(t, b.publisher.Publish(t.Context()))
		if waited := time.Since(begin); waited < a.publisher.Lease {
			t.Errorf("taken over after %v", waited)
		}
		taken := b.crl(t, false, nil).Number()
		close(goOn)
		must(t, <-done) // who was stuck does no harm: its number is older
		if got := b.crl(t, false, nil).Number(); got.Cmp(taken) < 0 {
			t.Errorf("number %v after %v", got, taken)
		}
		if lag, err := b.publisher.Lag(t.Context()); err != nil || lag != 0 {
			t.Errorf("lag %v, %v", lag, err)
		}
	})
}

// TestAnswersAheadAfterRestart has OCSP answers ready again as soon as a
// publisher has run once, though nothing is to be published: then they are
// served while the key is away.
func TestAnswersAheadAfterRestart(t *testing.T) {
	onBoth(t, func(t *testing.T) {
		a, b := nodes(t) // b is the one after the restart
		_, cert := a.certificate(t, laptop, newKey(t))
		_, gone := a.certificate(t, phone, newKey(t))
		must(t, second(a.Revoke(t.Context(), registry.Target{Client: phone}, certs.KeyCompromise)))
		must(t, a.publisher.Publish(t.Context()))
		number := a.crl(t, false, nil).Number()
		must(t, b.publisher.Publish(t.Context()))
		if got := b.crl(t, false, nil).Number(); got.Cmp(number) != 0 {
			t.Errorf("the restart signed CRL %v anew", got)
		}
		b.away.Store(true)
		good, err := certs.CreateOCSPRequest(cert, b.caCert, nil)
		must(t, err)
		response, err := b.responder.Respond(t.Context(), good)
		must(t, err)
		_, err = certs.CheckOCSP(certs.OCSPCheck{Response: response, Certificate: cert, Issuer: b.caCert, At: time.Now(), Skew: time.Minute})
		must(t, err)
		revoked, err := certs.CreateOCSPRequest(gone, b.caCert, nil)
		must(t, err)
		response, err = b.responder.Respond(t.Context(), revoked)
		must(t, err)
		_, err = certs.CheckOCSP(certs.OCSPCheck{Response: response, Certificate: gone, Issuer: b.caCert, At: time.Now(), Skew: time.Minute})
		if credentials.CodeOf(err) != credentials.CodeRevoked {
			t.Errorf("of the revoked one: %v", err)
		}
		nonce := certs.NewNonce()
		fresh, err := certs.CreateOCSPRequest(cert, b.caCert, nonce)
		must(t, err)
		if _, err := b.responder.Respond(t.Context(), fresh); err == nil {
			t.Error("the key was not away")
		}
	})
}
