package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/http"
	"sync"
	"time"

	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/signer"
)

func serialOf(chain [][]byte) (string, error) {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return "", err
	}
	return leaf.SerialNumber.Text(16), nil
}

// A crlShelf has the newest CRL of each CA.
type crlShelf struct {
	mu   sync.Mutex // guards crls
	crls map[string][]byte
}

func (s *crlShelf) put(name string, der []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.crls == nil {
		s.crls = make(map[string][]byte)
	}
	s.crls[name] = der
}

// ServeHTTP serves /NAME.crl.
func (s *crlShelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	der := s.crls[r.URL.Path]
	s.mu.Unlock()
	if der == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	digest := sha256.Sum256(der)
	w.Header().Set("ETag", `"`+hex.EncodeToString(digest[:])+`"`)
	w.Write(der)
}

// serveCRL starts the server of the CRLs and returns the URL that goes before
// their names.
func (d *demo) serveCRL() (string, error) {
	cert, err := d.net.certificate("crl.example")
	if err != nil {
		return "", err
	}
	addr, err := d.net.serve(&d.rooms.crls, "", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	return "https://" + addr, err
}

// publishCRL signs the CRLs of the root and the rooms' CA with their keys in
// the token.
func (d *demo) publishCRL(ctx context.Context) error {
	return d.withBook(ctx, func(b *registry.Store) error {
		for _, id := range []signer.KeyID{"root", demoRoomsCA} {
			issuer, _, err := d.openIssuer(ctx, id, b)
			if err != nil {
				return err
			}
			list, err := issuer.SignCRL(ctx, b.Certificates(), certs.CRLOrder{})
			if err != nil {
				return err
			}
			d.rooms.crls.put("/"+string(id)+".crl", list.Raw)
		}
		return nil
	})
}

// removal revokes the certificate of Bob's device. The hub learns of it,
// has the leaf removed, and lets it in no more.
func (d *demo) removal(ctx context.Context) error {
	bob, alice, home := d.rooms.bob, d.rooms.alice, d.hosts["a.example"]
	begin := time.Now()
	serial, ok := new(big.Int).SetString(bob.serial, 16)
	if !ok {
		return fmt.Errorf("serial %q", bob.serial)
	}
	err := d.withBook(ctx, func(b *registry.Store) error {
		issuer, _, err := d.openIssuer(ctx, demoRoomsCA, b)
		if err != nil {
			return err
		}
		return b.Certificates().Revoke(ctx, issuer.ID(), serial, certs.Revocation{At: begin, Reason: certs.KeyCompromise})
	})
	if err != nil {
		return err
	}
	if err := d.publishCRL(ctx); err != nil {
		return err
	}
	d.did("certificate of bob/tablet revoked, CRL published", "serial %.12s…, reason keyCompromise", bob.serial)
	for _, host := range demoHosts {
		if err := d.hosts[host].trust.Refresh(ctx, demoRoomsCA); err != nil {
			return err
		}
	}
	gone, err := d.goneFrom(ctx, alice, home, bob.URI())
	if err != nil {
		return err
	}
	d.did("the hub had the leaf removed", "from %s in epoch %d, %v after the revocation", gone.Room, gone.Epoch, time.Since(begin).Round(time.Millisecond))
	return d.shutOut(ctx, bob, "its")
}

// goneFrom waits until a client is in no room of the hub any more. A member
// commits what the hub has proposed.
func (d *demo) goneFrom(ctx context.Context, member *person, p *demoProvider, who mimi.URI) (where struct {
	Room  mimi.URI
	Epoch uint64
}, err error) {
	err = member.until(ctx, "the leaf is gone", func() (bool, error) {
		list, err := p.service.ClientWhereabouts(ctx, who)
		if err != nil || len(list) == 0 {
			return false, err
		}
		for _, g := range list {
			if !g.Removed {
				return false, nil
			}
			where.Room, where.Epoch = g.Room, g.Epoch
		}
		return true, nil
	})
	return where, err
}
