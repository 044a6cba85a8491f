package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

func mlsPublicKey(s *signer.Signer) ([]byte, error) { return credentials.MLSPublicKey(s.Public()) }

// A person is a client of somebody in the demonstration.
type person struct {
	*client.Client
	name   string
	serial string // of its certificate, in hexadecimal
}

// openPerson makes the keys of a client such as "alice/phone@a.example" in a
// device, has them certified, and registers it at its provider.
func (d *demo) openPerson(ctx context.Context, name, device string) (*person, error) {
	local, host, _ := strings.Cut(name, "@")
	id := signer.KeyID(strings.ReplaceAll(local, "/", "-") + "." + host)
	if _, err := d.createKey(ctx, signer.NewKey{ID: id, Purpose: signer.PurposeMLSLeaf, Device: device}); err != nil {
		return nil, err
	}
	key, err := d.ring.Signer(ctx, id, signer.PurposeMLSLeaf)
	if err != nil {
		return nil, err
	}
	custody := client.Custody{Mode: client.Device, Key: key, Agreements: ringAgreements{d.ring, device}}
	return d.join(ctx, name, custody)
}

// join certifies the key and opens and registers the client.
func (d *demo) join(ctx context.Context, name string, custody client.Custody) (*person, error) {
	local, host, _ := strings.Cut(name, "@")
	user, _, _ := strings.Cut(local, "/")
	names, err := certs.DeviceNames("mimi://"+host+"/d/"+local, "mimi://"+host+"/u/"+user)
	if err != nil {
		return nil, err
	}
	chain, err := d.certify(ctx, custody.Key, names)
	if err != nil {
		return nil, err
	}
	custody.Credential = mls.X509Credential(chain)
	own, err := d.net.certificate()
	if err != nil {
		return nil, err
	}
	home := d.hosts[host]
	file := strings.NewReplacer("/", "-", "@", ".").Replace(name)
	c, err := client.Open(ctx, client.Config{
		State: filepath.Join(d.dir, file+".db"), Custody: custody, Judge: client.TrustJudge{Evaluator: home.evaluator},
		Provider: home.clients, CipherSuite: demoSuite, KeyPackages: 2,
		TLS: &tls.Config{RootCAs: d.net.roots, Certificates: []tls.Certificate{own}, MinVersion: tls.VersionTLS13},
	})
	if err != nil {
		return nil, err
	}
	p := &person{Client: c, name: name}
	d.people = append(d.people, p)
	if p.serial, err = serialOf(chain); err != nil {
		return nil, err
	}
	_, err = c.Register(ctx, nil)
	return p, err
}

// demoPatience bounds how long a message may take to arrive.
const demoPatience = 30 * time.Second

// until takes in events until something is so.
func (p *person) until(ctx context.Context, what string, so func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	for {
		if err := p.Sync(ctx); err != nil {
			return fmt.Errorf("%s, until %s: %w", p.name, what, err)
		}
		if yes, err := so(); yes || err != nil {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: %s did not come about in %v", p.name, what, demoPatience)
		}
	}
}

// status is what a client is in a room.
func (p *person) status(ctx context.Context, room mimi.URI) client.RoomStatus {
	r, err := p.Room(ctx, room)
	if err != nil {
		return ""
	}
	s, _ := r.Status()
	return s
}

func (p *person) becomes(ctx context.Context, room mimi.URI, want client.RoomStatus) error {
	return p.until(ctx, "it is "+string(want), func() (bool, error) { return p.status(ctx, room) == want, nil })
}

// say sends a text and fails unless the hub franked it.
func (p *person) say(ctx context.Context, room mimi.URI, text string) (*client.Sent, error) {
	r, err := p.Room(ctx, room)
	if err != nil {
		return nil, err
	}
	sent, err := r.Text(ctx, text)
	if err == nil && sent.NotFranked != "" {
		err = fmt.Errorf("%s: the hub's frank does not verify: %s", p.name, sent.NotFranked)
	}
	return sent, err
}

// hears waits for a text and returns its message, whose frank must verify.
func (p *person) hears(ctx context.Context, room mimi.URI, text string) (found *client.Message, err error) {
	err = p.until(ctx, fmt.Sprintf("it hears %q", text), func() (bool, error) {
		r, err := p.Room(ctx, room)
		if err != nil {
			return false, nil // the Welcome is still under way
		}
		list, err := r.Messages(ctx, time.Time{})
		for _, m := range list {
			if textOf(m.Content) == text {
				found = m
			}
		}
		return found != nil, err
	})
	if err == nil && found.NotFranked != "" {
		err = fmt.Errorf("%s: the frank of %q does not verify: %s", p.name, text, found.NotFranked)
	}
	return found, err
}

func textOf(m *content.Message) string {
	if part, ok := m.Body.Content.(*content.SinglePart); ok {
		return string(part.Content)
	}
	return ""
}
