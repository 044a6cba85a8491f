package certs_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

func TestChallenges(t *testing.T) {
	now := t0
	c := certs.NewChallenges(time.Minute, 2, func() time.Time { return now })
	first, err := c.New()
	must(t, err)
	if _, err := c.New(); err != nil {
		t.Fatal(err)
	}
	_, err = c.New()
	wantCode(t, err, credentials.CodeNonce) // too many are open
	must(t, c.Redeem(first))
	wantCode(t, c.Redeem(first), credentials.CodeNonce)
	wantCode(t, c.Redeem(certs.NewNonce()), credentials.CodeNonce)
	wantCode(t, c.Redeem(nil), credentials.CodeNonce)
	late, err := c.New()
	must(t, err)
	now = now.Add(time.Minute)
	if _, err := c.New(); err != nil { // those that ended make room
		t.Error(err)
	}
	wantCode(t, c.Redeem(late), credentials.CodeNonce)
}

func TestChallengeIsRedeemedOnce(t *testing.T) {
	c := certs.NewChallenges(0, 0, nil)
	nonce, err := c.New()
	must(t, err)
	var redeemed atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if c.Redeem(nonce) == nil {
				redeemed.Add(1)
			}
		})
	}
	wg.Wait()
	if redeemed.Load() != 1 {
		t.Errorf("redeemed %d times", redeemed.Load())
	}
}
