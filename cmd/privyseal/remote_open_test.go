package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/client"
)

// maxOutstanding bounds the requests of an open load that wait for an answer.
const maxOutstanding = 20_000

// open makes requests at the Rate, and does not wait for answers.
func (l load) open(identity *client.Identity) error {
	callers := make([]*client.Client, l.Callers)
	for i := range callers {
		c, err := connectRemote(l.Server, l.Roots, identity)
		if err != nil {
			return err
		}
		if _, err := c.Signer(context.Background(), "leaf-0"); err != nil { // connects
			return err
		}
		callers[i] = c
	}
	o := opened{loaded: loaded{Reasons: make(map[string]int64)}}
	slots := make(chan struct{}, maxOutstanding)
	before, begin := cpuTime(), time.Now()
	for n := range l.Count {
		if wait := time.Until(begin.Add(time.Duration(float64(n) / l.Rate * float64(time.Second)))); wait > 0 {
			time.Sleep(wait)
		}
		slots <- struct{}{}
		o.group.Go(func() {
			defer func() { <-slots }()
			start := time.Now()
			m := &signerv1.SignRequest{Key: l.keyName(n), Input: &signerv1.SignRequest_Octets{Octets: loadMessage(int64(n))}}
			_, err := callers[n%len(callers)].Signing().Sign(context.Background(), connect.NewRequest(m))
			o.add(time.Since(start), err)
		})
	}
	o.Offered = float64(l.Count) / time.Since(begin).Seconds()
	o.group.Wait()
	o.Seconds, o.CPU = time.Since(begin).Seconds(), (cpuTime() - before).Seconds()
	slices.Sort(o.took)
	slices.Sort(o.shed)
	o.P50, o.P99, o.ShedP99 = milliseconds(quantile(o.took, .5)), milliseconds(quantile(o.took, .99)), milliseconds(quantile(o.shed, .99))
	return json.NewEncoder(os.Stdout).Encode(o.loaded)
}

// opened is what has come of an open load so far.
type opened struct {
	loaded
	group      sync.WaitGroup
	mu         sync.Mutex // guards the rest, and loaded
	took, shed []time.Duration
}

func (o *opened) add(took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil {
		o.Accepted++
		o.took = append(o.took, took)
		return
	}
	reason := "transport"
	if e, ok := errors.AsType[*client.Error](client.Explain(err)); ok && e.Reason != "" {
		reason = e.Reason
		if ms := milliseconds(e.RetryAfter); e.RetryAfter > 0 && (o.RetryAfter == 0 || ms < o.RetryAfter) {
			o.RetryAfter = ms
		}
	}
	o.Reasons[reason]++
	if reason == "OVERLOADED" {
		o.Shed++
		o.shed = append(o.shed, took)
		return
	}
	o.Failed++
}
