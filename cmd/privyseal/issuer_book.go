package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/publish"
	"github.com/privyseal/privyseal/credentials/registry"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/signing"
	"github.com/privyseal/privyseal/signer"
)

// issuerPart is the issuer's name among the databases.
const issuerPart = "issuer"

// withBook runs f with the registry of credentials open.
func (w *wiring) withBook(ctx context.Context, f func(*registry.Store) error) error {
	b, err := registry.Open(ctx, w.config.databaseSource(issuerPart))
	if err != nil {
		return err
	}
	return errors.Join(f(b), b.Close())
}

// A deviceKey signs with the active version of a key. It is made from the
// record, so that a device that is away does not matter until it must sign.
type deviceKey struct {
	ring    *signer.Keyring
	id      signer.KeyID
	purpose signer.Purpose
	kid     string
	public  crypto.PublicKey
	signer  atomic.Pointer[signer.Signer] // nil until the first signature
}

func (w *wiring) deviceKey(ctx context.Context, id signer.KeyID, purpose signer.Purpose) (*deviceKey, error) {
	key, err := w.store.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	if key.Purpose != purpose {
		return nil, &signer.Refusal{Key: id, Purpose: key.Purpose, Shape: "as " + signer.Shape(purpose),
			Reason: fmt.Sprintf("the key has purpose %s and was asked for as %s", key.Purpose, purpose)}
	}
	v := key.Active()
	if v == nil {
		return nil, fmt.Errorf("key %s has no active version; see: privyseal key show %s", id, id)
	}
	public, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	return &deviceKey{ring: w.ring, id: id, purpose: purpose, kid: v.KID, public: public}, nil
}

func (k *deviceKey) Public() crypto.PublicKey { return k.public }

// Sign refuses: a device key is shown the message.
func (k *deviceKey) Sign(_ io.Reader, _ []byte, _ crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("key %s signs messages and no digests", k.id)
}

// SignMessage implements crypto.MessageSigner.
func (k *deviceKey) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.SignMessageContext(context.Background(), msg, opts)
}

// SignMessageContext is SignMessage with a context.
func (k *deviceKey) SignMessageContext(ctx context.Context, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, _, err := k.SignVerified(ctx, msg, opts)
	return sig, err
}

// errRotated says that a key's active version is another than that of a deviceKey.
var errRotated = errors.New("has been rotated")

// SignVerified is SignMessageContext that says whether the signature was verified.
// The key is looked up once, and again when its version signs no more.
func (k *deviceKey) SignVerified(ctx context.Context, msg []byte, opts crypto.SignerOpts) (sig []byte, verified bool, err error) {
	return k.with(ctx, func(s *signer.Signer) ([]byte, bool, error) { return s.SignVerified(ctx, msg, opts) })
}

// Read parses a message as the keyring does before it signs.
func (k *deviceKey) Read(msg []byte) (signing.Read, error) { return signer.ParseRequest(msg) }

// SignRead implements signing.ReadingSigner.
func (k *deviceKey) SignRead(ctx context.Context, r signing.Read) (sig []byte, verified bool, err error) {
	return k.with(ctx, func(s *signer.Signer) ([]byte, bool, error) { return s.SignRead(ctx, r) })
}

// with has the signer of the key do f.
func (k *deviceKey) with(ctx context.Context, f func(*signer.Signer) ([]byte, bool, error)) (sig []byte, verified bool, err error) {
	if s := k.signer.Load(); s != nil {
		if sig, verified, err = f(s); !errors.Is(err, signer.ErrKeyState) {
			return sig, verified, err
		}
	}
	s, err := k.ring.Signer(ctx, k.id, k.purpose)
	if err != nil {
		return nil, false, err
	}
	if !credentials.SamePublicKey(s.Public(), k.public) {
		return nil, false, fmt.Errorf("key %s %w; start again with its new version", k.id, errRotated)
	}
	k.signer.Store(s)
	return f(s)
}

// An issuance is everything that an issuer needs to publish.
type issuance struct {
	book      *registry.Store
	section   *IssuerSection
	cas       []publish.CA
	list      *statuslist.Publisher // nil without a status key
	keys      []publish.Key
	publisher *registry.Publisher
}

// openIssuance joins the book with the keys and certificates that the
// configuration names. No device is asked.
func (w *wiring) openIssuance(ctx context.Context, b *registry.Store) (*issuance, error) {
	s := w.config.issuer()
	i := &issuance{book: b, section: s, publisher: &registry.Publisher{Store: b, Bound: time.Duration(s.Bound)}}
	for _, name := range slices.Sorted(maps.Keys(s.CAs)) {
		if err := w.addCA(ctx, i, name, s.CAs[name]); err != nil {
			return nil, fmt.Errorf("issuer.cas.%s: %w", name, err)
		}
	}
	if s.TokenKey != "" {
		key, err := w.deviceKey(ctx, s.TokenKey, signer.PurposeCredentialIssuer)
		if err != nil {
			return nil, fmt.Errorf("issuer.token_key: %w", err)
		}
		i.keys = append(i.keys, publish.Key{ID: key.kid, Public: key.public})
	}
	if s.StatusKey != "" {
		if err := w.addList(ctx, i); err != nil {
			return nil, fmt.Errorf("issuer.status_key: %w", err)
		}
	}
	return i, nil
}

func (w *wiring) addCA(ctx context.Context, i *issuance, name string, ca *CASection) error {
	record, chain, err := loadCA(w.config, ca.Key)
	if err != nil {
		return err
	}
	issuer, _, err := w.openIssuer(ctx, ca.Key, i.book)
	if err != nil {
		return err
	}
	key, err := w.deviceKey(ctx, ca.Key, signer.PurposeX509CA)
	if err != nil {
		return err
	}
	responder, err := certs.NewResponder(certs.OCSPConfig{CA: chain[0], Key: key, Store: i.book.Certificates(), Answers: i.book.Certificates()})
	if err != nil {
		return err
	}
	presign := ca.Presign
	if presign == 0 {
		presign = defaultPresign
	}
	i.cas = append(i.cas, publish.CA{Name: name, Chain: chain, Store: i.book.Certificates(), Responder: responder})
	i.publisher.CAs = append(i.publisher.CAs, &registry.CA{Issuer: issuer, Order: record.crlOrder(i.section), Responder: responder, Presign: presign})
	return nil
}

// crlOrder is what the CRLs of a CA carry: the first URL that is in its
// certificates, and where its delta is.
func (r *caRecord) crlOrder(s *IssuerSection) certs.CRLOrder {
	o := certs.CRLOrder{Validity: time.Duration(s.CRLValidity)}
	if len(r.CRL) == 1 {
		o.DistributionPoint = r.CRL[0]
		if base, ok := strings.CutSuffix(r.CRL[0], ".crl"); ok {
			o.Freshest = base + "-delta.crl"
		}
	}
	return o
}

func (w *wiring) addList(ctx context.Context, i *issuance) error {
	key, err := w.deviceKey(ctx, i.section.StatusKey, signer.PurposeStatus)
	if err != nil {
		return err
	}
	i.list = &statuslist.Publisher{
		Store: i.book.StatusLists(), URI: i.section.statusList(), Issuer: i.section.URL, AggregationURI: i.section.below("/status"),
		Key: key, KeyID: []byte(key.kid), History: i.section.History,
	}
	if err := i.list.Open(ctx); err != nil {
		return err
	}
	i.keys = append(i.keys, publish.Key{ID: key.kid, Public: key.public})
	i.publisher.Lists = append(i.publisher.Lists, i.list)
	return nil
}

// served is what is served over HTTP.
func (i *issuance) served(report func(error)) publish.Config {
	c := publish.Config{CAs: i.cas, Report: report}
	if i.list != nil {
		c.Lists, c.Aggregation = []*statuslist.Publisher{i.list}, i.section.below("/status")
	}
	if i.section.URL != "" {
		c.Issuers = []publish.Issuer{{URL: i.section.URL, Keys: i.keys}}
	}
	return c
}
