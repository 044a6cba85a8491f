package mls

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// stateVersion is the first field of everything that is stored. A release
// reads all versions up to its own; what a version means never changes.
//
// Version 1, in the notation of the wire:
//
//	struct {
//	    uint16 version = 1;
//	    GroupContext context;
//	    opaque interim_transcript_hash<V>;
//	    MAC confirmation_tag;
//	    uint8 removed;
//	    optional<ReInit> reinit;
//	    uint32 own_leaf;
//	    PrivateKey leaf_key;                 /* absent if removed */
//	    NodeKey parent_keys<V>;
//	    opaque epoch_secrets<V>[8];
//	    ExportNode exports<V>;               /* what is left of the exporter tree */
//	    MessageKeys messages;
//	    uint32 reserved_handshake;
//	    uint32 reserved_application;
//	    PastEpoch past<V>;
//	    ResumptionPSK resumption<V>;
//	    AuthenticatedContent proposals<V>;
//	    OwnUpdate own_updates<V>;
//	    optional<Pending> pending;
//	} GroupState;
const stateVersion = 1

// MarshalBinary encodes the whole group, secrets included. It can be read by
// Client.UnmarshalGroup of this and later releases.
func (g *Group) MarshalBinary() ([]byte, error) {
	st := g.state(true)
	var b tlsvec.Builder
	b.Uint16(stateVersion)
	b.Vector(st.Tree)
	b.Vector(st.Secret)
	return b.Bytes(), nil
}

// UnmarshalGroup reads what MarshalBinary wrote. Generations that the stored
// state had reserved are skipped.
func (c *Client) UnmarshalGroup(ctx context.Context, data []byte) (*Group, error) {
	r := tlsvec.NewReader(bytes.Clone(data))
	if err := checkStateVersion(r); err != nil {
		return nil, err
	}
	st := &GroupState{Tree: r.Vector(), Secret: r.Vector()}
	if err := r.Done(); err != nil {
		return nil, &ParseError{"group state", err}
	}
	return c.UnmarshalState(ctx, st)
}

// UnmarshalState reads the two parts that a Storage keeps.
func (c *Client) UnmarshalState(ctx context.Context, st *GroupState) (*Group, error) {
	d := &stateDecoder{ctx: ctx, client: c}
	g, err := d.group(st)
	if err != nil {
		return nil, err
	}
	g.savedTree = g.public.tree
	return g, nil
}

func checkStateVersion(r *tlsvec.Reader) error {
	if v := r.Uint16(); r.Err() == nil && v != stateVersion {
		return fmt.Errorf("%w: version %d, this release reads %d", ErrStateVersion, v, stateVersion)
	}
	return nil
}

// left reports whether the state is that of a group of which this client is
// no longer a member.
func (st *GroupState) left() bool {
	r := tlsvec.NewReader(st.Secret)
	if checkStateVersion(r) != nil {
		return false
	}
	new(GroupContext).unmarshal(r)
	r.Vector()
	r.Vector()
	return r.Optional()
}

func (g *Group) state(withTree bool) GroupState {
	st := GroupState{ID: g.ID(), Epoch: g.Epoch(), Secret: encode((*groupStateWriter)(g))}
	if withTree {
		st.Tree = g.public.tree.bytes()
	}
	return st
}

// secretList gives the epoch secrets that are stored, in order.
func (e *epochSecrets) secretList() []*[]byte {
	return []*[]byte{
		&e.senderData, &e.exporter, &e.external, &e.confirmationKey, &e.membershipKey,
		&e.resumptionPSK, &e.epochAuthenticator, &e.init,
	}
}

type groupStateWriter Group

func (g *groupStateWriter) marshal(b *tlsvec.Builder) {
	b.Uint16(stateVersion)
	g.public.context.marshal(b)
	b.Vector(g.public.interim)
	b.Vector(g.public.confirmationTag)
	b.Optional(g.removed)
	b.Optional(g.reinit != nil)
	if g.reinit != nil {
		g.reinit.marshal(b)
	}
	b.Uint32(uint32(g.keys.index))
	if !g.removed {
		writeKeyPair(b, g.keys.leaf)
	}
	b.Nested(func(b *tlsvec.Builder) {
		for _, x := range sortedKeys(g.keys.parents) {
			b.Uint32(uint32(x))
			writeKeyPair(b, g.keys.parents[x])
		}
	})
	for _, secret := range g.secrets.secretList() {
		b.Vector(*secret)
	}
	g.exports.marshalNodes(b)
	g.messages.marshal(b)
	b.Uint32(g.reserved.handshake)
	b.Uint32(g.reserved.application)
	g.marshalLists(b)
	b.Optional(g.pending != nil)
	if g.pending != nil {
		g.pending.marshal(b)
	}
}

func (g *groupStateWriter) marshalLists(b *tlsvec.Builder) {
	b.Nested(func(b *tlsvec.Builder) {
		for _, p := range g.past {
			p.marshal(b)
		}
	})
	b.Nested(func(b *tlsvec.Builder) {
		for _, epoch := range sortedKeys(g.resumption) {
			b.Uint64(epoch)
			b.Vector(g.resumption[epoch])
		}
	})
	b.Nested(func(b *tlsvec.Builder) {
		for _, p := range g.proposals {
			p.content.marshal(b)
		}
	})
	b.Nested(func(b *tlsvec.Builder) {
		for _, key := range sortedKeys(g.ownUpdates) {
			writeKeyPair(b, g.ownUpdates[key].pair)
			public, _ := g.public.suite.sig.encodePublicKey(g.ownUpdates[key].signer.Public())
			b.Vector(public)
		}
	})
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// writeKeyPair writes a private key, or a reference to one that a device
// holds.
//
//	struct {
//	    uint8 place; /* 1 here, 2 device */
//	    select (place) {
//	        case 1: opaque private_key<V>;
//	        case 2: HPKEPublicKey public_key;
//	    };
//	} PrivateKey;
func writeKeyPair(b *tlsvec.Builder, k keyPair) {
	if raw, err := k.private.Bytes(); err == nil {
		b.Uint8(1)
		b.Vector(raw)
		return
	}
	b.Uint8(2)
	b.Vector(k.public)
}

func (t *secretTree) marshal(b *tlsvec.Builder) {
	b.Uint32(uint32(t.size))
	t.marshalNodes(b)
	b.Nested(func(b *tlsvec.Builder) {
		for _, l := range sortedKeys(t.ratchets) {
			b.Uint32(uint32(l))
			t.ratchets[l].handshake.marshal(b)
			t.ratchets[l].application.marshal(b)
		}
	})
}

func (t *secretTree) marshalNodes(b *tlsvec.Builder) {
	b.Nested(func(b *tlsvec.Builder) {
		for _, x := range sortedKeys(t.nodes) {
			b.Uint32(uint32(x))
			b.Vector(t.nodes[x])
		}
	})
}

func (t *secretTree) unmarshalNodes(r *tlsvec.Reader) {
	t.nodes = map[NodeIndex][]byte{}
	r.Each(func(r *tlsvec.Reader) {
		x := NodeIndex(r.Uint32())
		t.nodes[x] = t.secret(r)
	})
}

func (t *secretTree) unmarshal(r *tlsvec.Reader) {
	if t.size = treeSize(r.Uint32()); t.size == 0 || t.size > maxLeaves || t.size&(t.size-1) != 0 {
		r.Fail("size of the secret tree is no power of two")
		t.size = 1
	}
	t.unmarshalNodes(r)
	t.ratchets = map[LeafIndex]*senderRatchets{}
	r.Each(func(r *tlsvec.Reader) {
		l, s := LeafIndex(r.Uint32()), new(senderRatchets)
		s.handshake.unmarshal(r, t)
		s.application.unmarshal(r, t)
		t.ratchets[l] = s
	})
}

// secret reads a secret of the hash's length.
func (t *secretTree) secret(r *tlsvec.Reader) []byte {
	secret := r.Vector()
	if r.Err() == nil && len(secret) != t.suite.nh {
		r.Fail("secret has the wrong length")
	}
	return secret
}

func (r *ratchet) marshal(b *tlsvec.Builder) {
	b.Vector(r.secret)
	b.Uint32(r.next)
	b.Nested(func(b *tlsvec.Builder) {
		for i := range r.kept {
			b.Uint32(r.kept[i].generation)
			b.Vector(r.kept[i].key)
			b.Vector(r.kept[i].nonce)
		}
	})
}

func (r *ratchet) unmarshal(in *tlsvec.Reader, t *secretTree) {
	r.secret = t.secret(in)
	r.next = in.Uint32()
	in.Each(func(in *tlsvec.Reader) {
		k := keptKey{in.Uint32(), keyNonce{in.Vector(), in.Vector()}}
		if in.Err() == nil && (len(k.key) != t.suite.nk || len(k.nonce) != t.suite.nn) {
			in.Fail("message key has the wrong length")
		}
		r.kept = append(r.kept, k)
	})
}

func (p *pastEpoch) marshal(b *tlsvec.Builder) {
	p.context.marshal(b)
	b.Vector(p.senderData)
	p.messages.marshal(b)
	b.Nested(func(b *tlsvec.Builder) {
		for _, l := range sortedKeys(p.keys) {
			b.Uint32(uint32(l))
			b.Optional(p.keys[l] != nil)
			if p.keys[l] != nil {
				b.Vector(p.keys[l])
			}
		}
	})
}

func (p *PendingCommit) marshal(b *tlsvec.Builder) {
	p.Staged.content.marshal(b)
	b.Optional(p.firstSecret != nil)
	if p.firstSecret != nil {
		b.Vector(p.firstSecret)
		writeKeyPair(b, p.leaf)
	}
	b.Vector(p.pskSecret)
	b.Vector(p.Message)
	b.Vector(p.Welcome)
	b.Vector(p.GroupInfo)
}

// MarshalBinary encodes the entry, its private keys included.
//
//	struct {
//	    uint16 version = 1;
//	    KeyPackage key_package;
//	    PrivateKey init_key;
//	    PrivateKey leaf_key;
//	} KeyPackageState;
func (e *KeyPackageEntry) MarshalBinary() ([]byte, error) {
	var b tlsvec.Builder
	b.Uint16(stateVersion)
	e.KeyPackage.marshal(&b)
	writeKeyPair(&b, e.init)
	writeKeyPair(&b, e.leaf)
	return b.Bytes(), nil
}

// UnmarshalKeyPackage reads what KeyPackageEntry.MarshalBinary wrote.
func (c *Client) UnmarshalKeyPackage(ctx context.Context, data []byte) (*KeyPackageEntry, error) {
	d := &stateDecoder{ctx: ctx, client: c}
	r := tlsvec.NewReader(bytes.Clone(data))
	if err := checkStateVersion(r); err != nil {
		return nil, err
	}
	e := &KeyPackageEntry{KeyPackage: new(KeyPackage)}
	e.KeyPackage.unmarshal(r)
	e.init, e.leaf = d.keyPair(r), d.keyPair(r)
	if d.err != nil {
		return nil, d.err
	}
	if err := r.Done(); err != nil {
		return nil, &ParseError{"KeyPackage state", err}
	}
	if !bytes.Equal(e.init.public, e.KeyPackage.InitKey) || !bytes.Equal(e.leaf.public, e.KeyPackage.LeafNode.EncryptionKey) {
		return nil, &ParseError{"KeyPackage state", errors.New("private keys are not those of the KeyPackage")}
	}
	return e, nil
}

// A stateDecoder reads stored state; err is the first error that is not one
// of encoding.
type stateDecoder struct {
	ctx    context.Context
	client *Client
	err    error
}

func (d *stateDecoder) keyPair(r *tlsvec.Reader) keyPair {
	place, data := r.Uint8(), r.Vector()
	if r.Err() != nil {
		return keyPair{}
	}
	switch place {
	case 1:
		k, err := d.client.suite.kem.NewPrivateKey(data)
		if err != nil {
			r.Fail("private key: " + err.Error())
			return keyPair{}
		}
		// X25519 takes a scalar whose bits are not yet as RFC 7748 sets them;
		// what we write has them set.
		if again, err := k.Bytes(); err != nil || !bytes.Equal(again, data) {
			r.Fail("private key is not in its one encoding")
			return keyPair{}
		}
		return newKeyPair(k)
	case 2:
		return d.deviceKey(data)
	}
	r.Fail("place of a private key is unknown")
	return keyPair{}
}

func (d *stateDecoder) deviceKey(public []byte) keyPair {
	find := d.client.cfg.PrivateKey
	if find == nil {
		d.fail(errors.New("mls: state refers to a device's HPKE key and Config.PrivateKey is nil"))
		return keyPair{}
	}
	k, err := find(d.ctx, public)
	if err != nil {
		d.fail(fmt.Errorf("mls: finding a device's HPKE key: %w", err))
		return keyPair{}
	}
	pair := newKeyPair(k)
	if !bytes.Equal(pair.public, public) {
		d.fail(errors.New("mls: Config.PrivateKey returned another key than was asked for"))
	}
	return pair
}

func (d *stateDecoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// signer finds the signer of a signature key.
func (d *stateDecoder) signer(public []byte) crypto.Signer {
	if bytes.Equal(public, d.client.public) {
		return d.client.cfg.Signer
	}
	if d.client.cfg.SignerFor == nil {
		d.fail(errors.New("mls: the group's leaf has another signature key than Config.Signer, and Config.SignerFor is nil"))
		return nil
	}
	k, err := d.client.cfg.SignerFor(d.ctx, public)
	if err != nil {
		d.fail(fmt.Errorf("mls: finding a signer: %w", err))
	}
	return k
}

func (d *stateDecoder) group(st *GroupState) (*Group, error) {
	r := tlsvec.NewReader(bytes.Clone(st.Secret))
	if err := checkStateVersion(r); err != nil {
		return nil, err
	}
	p := &publicState{suite: d.client.suite}
	p.context.unmarshal(r)
	p.interim, p.confirmationTag = r.Vector(), r.Vector()
	if err := r.Err(); err != nil {
		return nil, &ParseError{"group state", err}
	}
	if p.context.CipherSuite != d.client.suite.id {
		return nil, fmt.Errorf("%w: the group has cipher suite 0x%04x, the client 0x%04x", ErrUnsupported, uint16(p.context.CipherSuite), uint16(d.client.suite.id))
	}
	if err := p.loadTree(bytes.Clone(st.Tree)); err != nil {
		return nil, err
	}
	p.raw = p.context.bytes()
	g := &Group{client: d.client, public: p, secrets: new(epochSecrets)}
	d.secrets(g, r)
	if err := cmp.Or(d.err, r.Done()); err != nil {
		return nil, &ParseError{"group state", err}
	}
	return g, d.finish(g)
}

// loadTree trusts the tree as far as its hash: it was validated when it was
// stored.
func (p *publicState) loadTree(data []byte) (err error) {
	if p.tree, err = parseTree(p.suite, data); err != nil {
		return err
	}
	if !bytes.Equal(p.tree.hash(), p.context.TreeHash) {
		return broken(RuleTreeHash, "stored tree differs from the stored GroupContext")
	}
	p.census, err = takeCensus(p.tree)
	return err
}

func (d *stateDecoder) secrets(g *Group, r *tlsvec.Reader) {
	g.removed = r.Optional()
	if r.Optional() {
		g.reinit = new(ReInit)
		g.reinit.unmarshal(r)
	}
	g.keys = &ownKeys{index: LeafIndex(r.Uint32()), parents: map[NodeIndex]keyPair{}}
	if !g.removed {
		g.keys.leaf = d.keyPair(r)
	}
	r.Each(func(r *tlsvec.Reader) {
		x := NodeIndex(r.Uint32())
		g.keys.parents[x] = d.keyPair(r)
	})
	for _, secret := range g.secrets.secretList() {
		*secret = r.Vector()
	}
	g.exports = &secretTree{suite: g.public.suite, size: exporterSize}
	g.exports.unmarshalNodes(r)
	g.messages = &secretTree{suite: g.public.suite}
	g.messages.unmarshal(r)
	g.reserved = reservation{r.Uint32(), r.Uint32()}
	d.lists(g, r)
	if r.Optional() {
		g.pending = d.pending(r)
	}
}

func (d *stateDecoder) lists(g *Group, r *tlsvec.Reader) {
	r.Each(func(r *tlsvec.Reader) { g.past = append(g.past, d.pastEpoch(g.public.suite, r)) })
	g.resumption = map[uint64][]byte{}
	r.Each(func(r *tlsvec.Reader) {
		epoch := r.Uint64()
		g.resumption[epoch] = r.Vector()
	})
	g.byRef = map[string]*keptProposal{}
	r.Each(func(r *tlsvec.Reader) {
		a := new(AuthenticatedContent)
		if a.unmarshal(r); a.Content.Proposal == nil {
			r.Fail("kept message is no proposal")
			return
		}
		k := &keptProposal{a, a.proposalRef(g.public.suite)}
		g.proposals = append(g.proposals, k)
		g.byRef[string(k.ref)] = k
	})
	g.ownUpdates = map[string]ownUpdate{}
	r.Each(func(r *tlsvec.Reader) {
		pair, public := d.keyPair(r), r.Vector()
		if r.Err() == nil {
			g.ownUpdates[string(pair.public)] = ownUpdate{pair, d.signer(public)}
		}
	})
}

func (d *stateDecoder) pastEpoch(s *suite, r *tlsvec.Reader) *pastEpoch {
	p := &pastEpoch{messages: &secretTree{suite: s}, keys: map[LeafIndex][]byte{}}
	p.context.unmarshal(r)
	p.raw = p.context.bytes()
	p.senderData = r.Vector()
	p.messages.unmarshal(r)
	r.Each(func(r *tlsvec.Reader) {
		l := LeafIndex(r.Uint32())
		p.keys[l] = nil
		if r.Optional() {
			p.keys[l] = r.Vector()
		}
	})
	return p
}

func (d *stateDecoder) pending(r *tlsvec.Reader) *PendingCommit {
	p := &PendingCommit{Staged: &StagedCommit{content: new(AuthenticatedContent)}}
	if p.Staged.content.unmarshal(r); p.Staged.content.Content.Commit == nil {
		r.Fail("pending message is no commit")
		return nil
	}
	if r.Optional() {
		p.firstSecret = r.Vector()
		p.leaf = d.keyPair(r)
	}
	p.pskSecret = r.Vector()
	p.Message = r.Vector()
	p.Welcome, p.GroupInfo = emptyNil(r.Vector()), emptyNil(r.Vector())
	return p
}

func emptyNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

var errInconsistentState = errors.New("stored keys do not fit the stored tree")

// finish checks what was read against the tree, moves the own ratchets past
// what was reserved, and stages the pending commit again.
func (d *stateDecoder) finish(g *Group) error {
	if g.removed {
		return nil
	}
	leaf := g.public.tree.leaf(g.keys.index)
	if leaf == nil || !bytes.Equal(leaf.EncryptionKey, g.keys.leaf.public) {
		return &ParseError{"group state", errInconsistentState}
	}
	if g.signer = d.signer(leaf.SignatureKey); d.err != nil {
		return d.err
	}
	for _, t := range []ContentType{ContentCommit, ContentApplication} {
		r, err := g.messages.ratchet(g.keys.index, t)
		if err != nil {
			return &ParseError{"group state", err}
		}
		limit := g.reserved.handshake
		if t == ContentApplication {
			limit = g.reserved.application
		}
		if limit > r.next && limit-r.next > d.client.cfg.Limits.GenerationBlock {
			return &ParseError{"group state", errors.New("more generations reserved than a block")}
		}
		r.forward(g.public.suite, limit)
	}
	return d.restage(g)
}

// restage works out again what the pending commit leads to: that is cheaper
// to compute than to store.
func (d *stateDecoder) restage(g *Group) error {
	p := g.pending
	if p == nil {
		return nil
	}
	content := p.Staged.content
	items, err := resolve(content.Content.Commit, content.Content.Sender, g.byRef)
	if err != nil {
		return &ParseError{"pending commit", err}
	}
	c, steps, err := g.public.follow(items, content.Content.Sender, content.Content.Commit.Path, g.listRules(leafRules{unlisted: g.client.cfg.AdmitUnlisted}))
	if err != nil {
		return &ParseError{"pending commit", err}
	}
	var path *newPath
	if content.Content.Commit.Path != nil {
		if path, err = g.public.suite.derivePath(steps, p.firstSecret); err != nil {
			return &ParseError{"pending commit", err}
		}
	}
	p.Staged = g.ownStaged(c, content, path, p, g.secrets.init)
	if c.newCommitter != nil {
		p.Staged.signer = d.signer(c.newCommitter.SignatureKey)
	}
	if d.err != nil {
		return d.err
	}
	return p.Staged.checkTag(content.Auth.ConfirmationTag)
}
