package clienttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mls"
)

func members(r *hub.Room) []mimi.URI {
	var list []mimi.URI
	for _, m := range r.Members() {
		list = append(list, m.Client)
	}
	return list
}

// fanOut gives events to those who are, or were before, in the room; a Welcome
// to its addressees.
func (h *Hub) fanOut(r *hub.Room, events []hub.Event, before []mimi.URI) {
	present := members(r)
	for _, e := range events {
		to, payload := present, e.Fanout
		switch e.Kind {
		case hub.EventWelcome:
			to = nil
			for _, a := range e.To {
				to = append(to, a.Client)
			}
			var err error
			if payload, err = mimi.CompleteWelcome(e.Fanout, r.Tree()); err != nil {
				panic(err)
			}
		case hub.EventCommit:
			to = append(slices.Clone(present), before...)
		}
		for _, d := range h.devices {
			if slices.Contains(to, d.client) {
				h.tell(d, r.URI(), clientapi.EventFanout, payload)
			}
		}
	}
}

// tell appends an event and wakes those who wait.
func (h *Hub) tell(d *device, room mimi.URI, kind clientapi.EventKind, payload []byte) {
	h.seq++
	d.events = append(d.events, &clientapi.Event{
		Seq: h.seq, Time: uint64(time.Now().UnixMilli()), Kind: kind, Room: room, Payload: payload,
	})
	close(h.changed)
	h.changed = make(chan struct{})
}

// after returns a device's events after a cursor, and what to wait for.
func (h *Hub) after(d *device, cursor uint64) ([]*clientapi.Event, chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := len(d.events)
	for i > 0 && d.events[i-1].Seq > cursor {
		i--
	}
	return d.events[i:], h.changed
}

func (h *Hub) events(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	d, oldest := h.devices[clientapi.TLSKeyHash(r.TLS.PeerCertificates[0])], h.oldest
	h.mu.Unlock()
	q, err := clientapi.ParseEventQuery(r.URL.Query())
	switch {
	case d == nil:
		problem.Of(clientapi.Problemf(clientapi.CodeNotRegistered, "the TLS key is of no client")).Write(w)
		return
	case err != nil:
		problem.Of(malformed(err)).Write(w)
		return
	case q.After < oldest:
		problem.Of(clientapi.Problemf(clientapi.CodeCursorGone, "events before %d are not kept", oldest)).Write(w)
		return
	}
	w.Header().Set("Content-Type", clientapi.ContentTypeEvents)
	w.WriteHeader(http.StatusOK)
	ctx, cancel := context.WithTimeout(r.Context(), q.Wait)
	defer cancel()
	for {
		list, changed := h.after(d, q.After)
		for _, e := range list {
			if clientapi.WriteEvent(w, e) != nil {
				return
			}
			q.After = e.Seq
		}
		w.(http.Flusher).Flush()
		if len(list) > 0 && !q.Follow {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// verdict judges one reported message.
func (h *Hub) verdict(ctx context.Context, room mimi.URI, a *mimi.AbuseReport, m *mimi.AbusiveMessage) clientapi.AbuseVerdict {
	refused := clientapi.AbuseVerdict{Reason: mimi.FrankTag}
	framing, err := mls.ParseApplicationFraming(m.MessageContent)
	if err != nil {
		return refused
	}
	c, err := content.Parse(framing.Content)
	if err != nil {
		return refused
	}
	named, _ := c.Extensions.SenderURI()
	sender, err := mimi.ParseURI(named)
	if err != nil {
		return refused
	}
	err = h.keys.VerifyReport(ctx, &mimi.FrankReport{
		Content: mimi.FrankedContent{ApplicationData: m.MessageContent, Salt: c.Salt, SenderURI: sender, RoomURI: room},
		Frank:   &m.Frank, AcceptedTimestamp: m.AcceptedTimestamp, RoomURI: room, AllegedAbuser: a.AllegedAbuserURI,
	})
	var why *mimi.FrankError
	if errors.As(err, &why) {
		return clientapi.AbuseVerdict{Reason: why.Reason}
	}
	return clientapi.AbuseVerdict{Accepted: err == nil}
}

// selfSigned makes a TLS key with a certificate of its own.
func selfSigned(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
