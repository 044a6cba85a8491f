package certs_test

import (
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// pair signs a full and a delta CRL together.
func (w *crlWorld) pair(o certs.CRLOrder) (full, delta []byte) {
	w.t.Helper()
	f, d, err := w.ca.issuing.SignCRLs(w.t.Context(), w.store, o)
	must(w.t, err)
	if d == nil {
		return f.Raw, nil
	}
	if f.Number.Cmp(d.Number) != 0 || !f.ThisUpdate.Equal(d.ThisUpdate) {
		w.t.Errorf("full CRL %v of %v, delta %v of %v", f.Number, f.ThisUpdate, d.Number, d.ThisUpdate)
	}
	return f.Raw, d.Raw
}

// What a verifier learns from its old full CRL and the newest delta is what the
// newest full CRL says.
func TestDeltaSaysWhatTheFullCRLSays(t *testing.T) { onBoth(t, testDelta) }

func testDelta(t *testing.T) {
	w := newCRLWorld(t, t0)
	o := certs.CRLOrder{DistributionPoint: crlURL, Freshest: "http://crl.acme.example/delta.crl"}
	must(t, w.revoke(1, certs.CertificateHold))
	raw, delta := w.pair(o)
	if delta != nil {
		t.Error("a delta without a base")
	}
	held, err := certs.ParseCRL(raw, w.ca.cert, nil)
	must(t, err)
	first := held
	for step, change := range []func() error{
		func() error { return w.revoke(0, certs.KeyCompromise) },
		func() error { return w.resume(1) },
		func() error { return w.revoke(2, certs.CertificateHold) },
		func() error { return w.revoke(2, certs.Superseded) },
		func() error { return w.revoke(1, certs.CertificateHold) },
		func() error { return nil },
	} {
		must(t, change())
		w.now = w.now.Add(time.Minute)
		raw, delta = w.pair(o)
		full, err := certs.ParseCRL(raw, w.ca.cert, nil)
		must(t, err)
		fromFirst, err := first.WithDelta(delta)
		must(t, err)
		held, err = held.WithDelta(delta)
		must(t, err)
		for n, leaf := range w.leafs {
			want := credentials.CodeOf(full.Check(leaf, w.now, 0))
			for name, c := range map[string]*certs.CRL{"first": fromFirst, "chain": held} {
				if got := credentials.CodeOf(c.Check(leaf, w.now, 0)); got != want {
					t.Errorf("step %d, leaf %d, %s with delta: %q, the full CRL says %q", step, n, name, got, want)
				}
			}
		}
	}
	if first.Check(w.leafs[0], w.now, 0) != nil {
		t.Error("the first CRL has changed")
	}
}

func TestDeltaRefused(t *testing.T) {
	w := newCRLWorld(t, t0)
	o := certs.CRLOrder{DistributionPoint: crlURL}
	raw, _ := w.pair(o)
	old, err := certs.ParseCRL(raw, w.ca.cert, nil)
	must(t, err)
	w.now = w.now.Add(time.Minute)
	full, firstDelta := w.pair(o)
	_, elsewhere := w.pair(certs.CRLOrder{DistributionPoint: "http://crl.acme.example/other.crl"})
	w.now = w.now.Add(time.Minute)
	_, second := w.pair(o)
	newest, err := old.WithDelta(second)
	must(t, err)
	w.now = w.now.Add(48 * time.Hour) // the old one has ended, so deltas build on later ones
	w.pair(o)
	_, later := w.pair(o)
	for name, c := range map[string]struct {
		on   *certs.CRL
		data []byte
	}{
		"full CRL":                   {old, full},
		"older than what is at hand": {newest, firstDelta},
		"other distribution point":   {old, elsewhere},
		"builds on a newer one":      {old, later},
		"changed":                    {old, append(second[:len(second)-1:len(second)-1], second[len(second)-1]^1)},
		"cut":                        {old, second[:len(second)-1]},
		"empty":                      {old, nil},
	} {
		if _, err := c.on.WithDelta(c.data); credentials.CodeOf(err) != credentials.CodeStatusUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := certs.ParseCRL(second, w.ca.cert, nil); credentials.CodeOf(err) != credentials.CodeStatusUnavailable {
		t.Errorf("a delta as a full CRL: %v", err)
	}
}
