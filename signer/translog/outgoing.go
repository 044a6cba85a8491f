package translog

import (
	"errors"
	"net/http"
	"time"
)

const (
	outgoingTime = 30 * time.Second
	maxWitness   = 16 << 10 // octets of a witness's answer, which is one line for each of its keys
	maxRedirects = 3
)

// witnessClient returns c, or http.DefaultClient, for the servers of witnesses.
// Those are others': an answer is read up to a bound, and a redirect, by which
// one could reach what only this host can, is not followed.
func witnessClient(c *http.Client) *http.Client {
	if c == nil {
		c = http.DefaultClient
	}
	strict := *c
	if strict.Timeout == 0 {
		strict.Timeout = outgoingTime
	}
	strict.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	strict.Transport = boundedAnswers{c.Transport}
	return &strict
}

// boundedAnswers reads no more than maxWitness octets of an answer.
type boundedAnswers struct{ through http.RoundTripper }

func (b boundedAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	through := b.through
	if through == nil {
		through = http.DefaultTransport
	}
	resp, err := through.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxWitness)
	}
	return resp, err
}

// sameHost lets a log move its tiles on its own host and no further.
func sameHost(r *http.Request, via []*http.Request) error {
	if first := via[0].URL; r.URL.Host != first.Host || r.URL.Scheme != first.Scheme {
		return errors.New("the log redirects to another host")
	}
	if len(via) > maxRedirects {
		return errors.New("the log redirects too often")
	}
	return nil
}
