package softhsmtests

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// messagesInGroup is how many messages a group exchanges in TestMLSGroup.
const messagesInGroup = 1000

// A keyMaker makes the keys of one member: the leaf's signature key, and an
// init key for one KeyPackage.
type keyMaker struct {
	signer  func() crypto.Signer
	initKey func() ecdh.KeyExchanger // nil for software
}

func onToken(t *testing.T, tok *hsm.Token, sign, agree hsm.KeyType) keyMaker {
	ctx := context.Background()
	generate := func(kind hsm.KeyType, use hsm.Use) hsm.URI {
		info, err := tok.Generate(ctx, hsm.KeySpec{Type: kind, Use: use, Label: "member"})
		if err != nil {
			t.Fatal(err)
		}
		return info.URI()
	}
	return keyMaker{
		signer: func() crypto.Signer {
			k, err := tok.Signer(ctx, generate(sign, hsm.UseSign))
			if err != nil {
				t.Fatal(err)
			}
			return k
		},
		initKey: func() ecdh.KeyExchanger {
			k, err := tok.Agreement(ctx, generate(agree, hsm.UseAgree))
			if err != nil {
				t.Fatal(err)
			}
			return k
		},
	}
}

func onTPM(t *testing.T, d *tpm.Device) keyMaker {
	generate := func(kind tpm.Kind) *tpm.Key {
		k, err := d.GenerateKey(context.Background(), tpm.KeySpec{Kind: kind})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	return keyMaker{
		signer:  func() crypto.Signer { return generate(tpm.SignP256) },
		initKey: func() ecdh.KeyExchanger { return generate(tpm.ECDHP256) },
	}
}

func inSoftware(t *testing.T, suite mls.CipherSuite) keyMaker {
	return keyMaker{signer: func() crypto.Signer {
		if suite == mls.X25519AES128SHA256Ed25519 {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return key
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}}
}

// A member is a client with its storage and, while it is one, its group.
type member struct {
	name   string
	client *mls.Client
	keys   keyMaker
	held   []hpke.PrivateKey // init keys of the device, by which stored state refers to them
	group  *mls.Group
}

// A room is a group and those who may be in it.
type room struct {
	t       *testing.T
	ctx     context.Context
	id      []byte
	members []*member
	random  *mrand.Rand
	sent    int
}

func newRoom(t *testing.T, suite mls.CipherSuite, makers map[string]keyMaker) *room {
	r := &room{t: t, ctx: context.Background(), id: []byte("room"), random: mrand.New(mrand.NewPCG(4, 2))}
	names := make([]string, 0, len(makers))
	for name := range makers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m := &member{name: name, keys: makers[name]}
		var err error
		m.client, err = mls.NewClient(mls.Config{
			CipherSuite: suite, Signer: m.keys.signer(), Credential: mls.BasicCredential([]byte(name)), Storage: mls.NewMemoryStorage(),
			PrivateKey: func(_ context.Context, public []byte) (hpke.PrivateKey, error) { return m.find(public) },
		})
		r.must(err)
		r.members = append(r.members, m)
	}
	var err error
	r.members[0].group, err = r.members[0].client.CreateGroup(r.ctx, r.id, mls.GroupOptions{})
	r.must(err)
	return r
}

func (m *member) find(public []byte) (hpke.PrivateKey, error) {
	for _, k := range m.held {
		if bytes.Equal(k.PublicKey().Bytes(), public) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("no key %x is held", public)
}

func (r *room) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *room) in() []*member {
	return slices.DeleteFunc(slices.Clone(r.members), func(m *member) bool { return m.group == nil })
}

func (r *room) out() []*member {
	return slices.DeleteFunc(slices.Clone(r.members), func(m *member) bool { return m.group != nil })
}

func (r *room) pick(from []*member) *member { return from[r.random.IntN(len(from))] }

// say has one member send and all others read.
func (r *room) say() {
	r.t.Helper()
	from := r.pick(r.in())
	r.sent++
	text := fmt.Appendf(nil, "message %d of %s", r.sent, from.name)
	raw, err := from.group.Send(r.ctx, text, nil)
	r.must(err)
	for _, to := range r.in() {
		if to == from {
			continue
		}
		got, err := to.group.Verify(r.parse(raw))
		if err != nil {
			r.t.Fatalf("%s reads %s: %v", to.name, from.name, err)
		}
		if data := got.(*mls.ApplicationMessage).Data(); !bytes.Equal(data, text) {
			r.t.Fatalf("%s reads %q, want %q", to.name, data, text)
		}
		r.must(to.group.Save(r.ctx))
	}
}

func (r *room) parse(raw []byte) *mls.Message {
	r.t.Helper()
	m, err := mls.ParseMessage(raw)
	r.must(err)
	return m
}

// commit has one member commit and all others follow.
func (r *room) commit(by *member, proposals ...mls.Proposal) *mls.PendingCommit {
	r.t.Helper()
	p, err := by.group.Commit(r.ctx, mls.CommitOptions{Proposals: proposals, RatchetTree: true})
	r.must(err)
	r.must(by.group.MergePending(r.ctx))
	for _, m := range r.in() {
		if m == by {
			continue
		}
		got, err := m.group.Verify(r.parse(p.Message))
		r.must(err)
		staged, err := m.group.Stage(r.ctx, got.(*mls.VerifiedCommit))
		if err != nil {
			r.t.Fatalf("%s follows %s: %v", m.name, by.name, err)
		}
		r.must(m.group.Merge(r.ctx, staged))
		if staged.SelfRemoved() {
			m.group = nil
		}
	}
	return p
}

func (r *room) join(m *member) {
	r.t.Helper()
	var o mls.KeyPackageOptions
	if m.keys.initKey != nil {
		key, err := hpke.NewDHKEMPrivateKey(m.keys.initKey())
		r.must(err)
		m.held = append(m.held, key)
		o.InitKey = key
	}
	entry, err := m.client.NewKeyPackage(r.ctx, o)
	r.must(err)
	p := r.commit(r.pick(r.in()), &mls.Add{KeyPackage: entry.KeyPackage})
	w, err := mls.ParseWelcome(p.Welcome)
	r.must(err)
	if m.group, err = m.client.Join(r.ctx, w, nil, mls.JoinOptions{}); err != nil {
		r.t.Fatalf("%s joins: %v", m.name, err)
	}
}

func (r *room) remove() {
	r.t.Helper()
	by := r.pick(r.in())
	gone := r.pick(slices.DeleteFunc(r.in(), func(m *member) bool { return m == by }))
	for m := range by.group.Members() {
		if string(m.Node.Credential.Identity()) == gone.name {
			r.commit(by, &mls.Remove{Removed: m.Leaf})
			return
		}
	}
	r.t.Fatalf("%s is not in the group", gone.name)
}

// restart has a member load its group from storage, as after a crash.
func (r *room) restart(m *member) {
	r.t.Helper()
	var err error
	if m.group, err = m.client.LoadGroup(r.ctx, r.id); err != nil {
		r.t.Fatalf("%s restarts: %v", m.name, err)
	}
}

// agree checks that all members are in the same epoch with the same secrets.
func (r *room) agree() {
	r.t.Helper()
	in := r.in()
	for _, m := range in[1:] {
		if m.group.Epoch() != in[0].group.Epoch() || !bytes.Equal(m.group.EpochAuthenticator(), in[0].group.EpochAuthenticator()) {
			r.t.Fatalf("%s and %s are in different epochs", m.name, in[0].name)
		}
	}
}

func (r *room) walk() {
	for r.sent < messagesInGroup {
		switch n := r.random.IntN(100); {
		case n < 3 && len(r.out()) > 0, len(r.in()) == 1:
			r.join(r.pick(r.out()))
		case n < 5 && len(r.in()) > 2:
			r.remove()
		case n < 7:
			r.restart(r.pick(r.in()))
		case n < 9:
			r.commit(r.pick(r.in()))
		default:
			r.say()
		}
		r.agree()
	}
}

// TestMLSGroup runs groups whose members have their keys in a SoftHSM token, in
// a TPM and in software: a thousand messages with joins, removals, updates and
// restarts in between. Those with a device join with an init key that is in it.
func TestMLSGroup(t *testing.T) {
	t.Run("suite 1", func(t *testing.T) {
		tok := hsmtest.Token(t)
		newRoom(t, mls.X25519AES128SHA256Ed25519, map[string]keyMaker{
			"alice": inSoftware(t, mls.X25519AES128SHA256Ed25519),
			"bob":   onToken(t, tok, hsm.Ed25519, hsm.X25519),
			"cathy": onToken(t, tok, hsm.Ed25519, hsm.X25519),
		}).walk()
	})
	t.Run("suite 2", func(t *testing.T) {
		tok := hsmtest.Token(t)
		newRoom(t, mls.P256AES128SHA256P256, map[string]keyMaker{
			"alice": inSoftware(t, mls.P256AES128SHA256P256),
			"bob":   onToken(t, tok, hsm.P256, hsm.P256),
			"cathy": onTPM(t, tpmtest.Open(t)),
			"dan":   onToken(t, tok, hsm.P256, hsm.P256),
		}).walk()
	})
}
