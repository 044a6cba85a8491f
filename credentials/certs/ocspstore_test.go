package certs_test

import (
	"bytes"
	"crypto"
	"errors"
	"io"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

// A countedKey counts its signatures, and makes none while it is away.
type countedKey struct {
	crypto.Signer
	signs int
	away  bool
}

func (k *countedKey) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.away {
		return nil, errors.New("the token is away")
	}
	k.signs++
	return k.Signer.Sign(random, digest, opts)
}

// Answers that were signed ahead are there after a restart while the key is
// away, and for other nodes; a status that has changed since is never hidden.
func TestOCSPAnswersOutliveTheProcess(t *testing.T) { onBoth(t, testOCSPAnswers) }

func testOCSPAnswers(t *testing.T) {
	w := newCRLWorld(t, t0)
	key := &countedKey{Signer: w.ca.key}
	start := func() *certs.Responder {
		r, err := certs.NewResponder(certs.OCSPConfig{CA: w.ca.cert, Key: key, Store: w.store, Answers: w.store, Now: func() time.Time { return w.now }})
		must(t, err)
		return r
	}
	var serials []*big.Int
	for _, l := range w.leafs {
		serials = append(serials, l.SerialNumber)
	}
	must(t, w.revoke(0, certs.KeyCompromise))
	first := start()
	must(t, first.Presign(t.Context(), serials...))
	answers := [][]byte{w.ask(first, 0, nil), w.ask(first, 1, nil), w.ask(first, 2, nil)}
	if key.signs != 3 {
		t.Errorf("%d signatures for 3 answers", key.signs)
	}

	// Another node, or the next process, has them, and signs no more for them.
	w.now = t0.Add(10 * time.Minute)
	must(t, start().Presign(t.Context(), serials...))
	if key.signs != 3 {
		t.Errorf("%d signatures after a restart, want those of before", key.signs)
	}
	key.away = true
	second := start()
	for n := range w.leafs {
		if got := w.ask(second, n, nil); !bytes.Equal(got, answers[n]) {
			t.Errorf("answer %d is another after a restart", n)
		}
	}
	wantCode(t, w.check(w.ask(second, 0, nil), 0, nil), credentials.CodeRevoked)
	must(t, w.check(w.ask(second, 1, nil), 1, nil))

	// They hold until their end while the key is away, of which Presign tells.
	w.now = t0.Add(55 * time.Minute)
	third := start()
	for _, r := range []*certs.Responder{second, third} {
		if got := w.ask(r, 2, nil); !bytes.Equal(got, answers[2]) {
			t.Error("another answer before its end")
		}
		if err := r.Presign(t.Context(), serials...); err == nil {
			t.Error("Presign does not tell that the key is away")
		}
	}
	fails := func(what string, r *certs.Responder, n int) {
		t.Helper()
		req, err := certs.CreateOCSPRequest(w.leafs[n], w.ca.cert, nil)
		must(t, err)
		if resp, err := r.Respond(t.Context(), req); err == nil || status(t, resp) != ocsp.InternalError {
			t.Errorf("%s: answered, %v", what, err)
		}
	}
	must(t, w.revoke(1, certs.KeyCompromise))
	fails("a status that has changed", second, 1)
	fails("a status that has changed, after a restart", start(), 1)
	w.now = t0.Add(61 * time.Minute)
	fails("an answer that has ended", second, 2)
	fails("an answer that has ended, after a restart", start(), 2)

	// The next ones replace them, and what a database makes up is not believed.
	key.away = false
	must(t, start().Presign(t.Context(), serials...))
	if key.signs != 6 {
		t.Errorf("%d signatures, want 3 more", key.signs)
	}
	id := w.ca.issuing.ID()
	good, err := w.store.OCSPAnswer(t.Context(), id, w.leafs[2].SerialNumber.Text(16), "1.3.14.3.2.26")
	must(t, err)
	key.away = true
	for name, change := range map[string]func(*certs.OCSPAnswer){
		"of another certificate": func(a *certs.OCSPAnswer) { a.Serial = w.leafs[1].SerialNumber.Text(16) },
		"of another time":        func(a *certs.OCSPAnswer) { a.Produced = a.Produced.Add(time.Second) },
		"of another validity":    func(a *certs.OCSPAnswer) { a.Validity *= 100 },
		"from the future":        func(a *certs.OCSPAnswer) { a.Produced = a.Produced.Add(time.Hour) },
		"of another key":         func(a *certs.OCSPAnswer) { a.Responder = make([]byte, len(a.Responder)) },
	} {
		a, n := *good, 2
		change(&a)
		if a.Serial != good.Serial {
			n = 1
		}
		must(t, w.store.PutOCSPAnswers(t.Context(), []certs.OCSPAnswer{a}, w.now))
		fails("an answer "+name, start(), n)
		must(t, w.store.PutOCSPAnswers(t.Context(), []certs.OCSPAnswer{*good}, w.now))
	}
	must(t, w.check(w.ask(start(), 2, nil), 2, nil))

	// What has ended is forgotten when the next are kept.
	w.now = w.now.Add(2 * time.Hour)
	key.away = false
	must(t, start().Presign(t.Context(), serials[0]))
	if a, err := w.store.OCSPAnswer(t.Context(), id, w.leafs[2].SerialNumber.Text(16), "1.3.14.3.2.26"); !errors.Is(err, certs.ErrNoAnswer) {
		t.Errorf("what has ended is kept: %+v, %v", a, err)
	}
}
