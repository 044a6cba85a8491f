package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A member can encrypt as another member, but not sign. What it forges must
// not use up the other's keys.
func TestForgedGenerationCostsNothing(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	alice, bob, mallory := r.groups["alice"], r.groups["bob"], r.groups["carol"]
	first, err := alice.Send(r.ctx, []byte("first"), nil)
	r.must(err)
	s := mallory.public.suite
	for _, generation := range []uint32{4095, 4096, 1} {
		a, err := mallory.sign(r.ctx, WirePrivateMessage, nil, FramedContent{ContentType: ContentApplication, ApplicationData: []byte("x")})
		r.must(err)
		a.Content.Sender = memberSender(alice.OwnLeaf())
		ratchet, err := reload(t, mallory).messages.ratchet(alice.OwnLeaf(), ContentApplication)
		r.must(err)
		k, err := ratchet.find(s, generation, ratchetLimits{math.MaxUint32, 1})
		r.must(err)
		m, err := a.seal(s, mallory.secrets.senderData, k, generation, NoPadding)
		r.must(err)
		_, err = bob.Verify(&Message{WireFormat: WirePrivateMessage, PrivateMessage: m})
		wantRule(t, err, RuleFrameSignature)
		m.Ciphertext[len(m.Ciphertext)-1] ^= 1
		if _, err = bob.Verify(&Message{WireFormat: WirePrivateMessage, PrivateMessage: m}); !errors.Is(err, ErrDecrypt) {
			t.Fatal(err)
		}
	}
	a, err := mallory.sign(r.ctx, WirePrivateMessage, nil, FramedContent{ContentType: ContentApplication})
	r.must(err)
	a.Content.Sender = memberSender(alice.OwnLeaf())
	for _, generation := range []uint32{4097, math.MaxUint32} {
		m, err := a.seal(s, mallory.secrets.senderData, keyNonce{make([]byte, s.nk), make([]byte, s.nn)}, generation, NoPadding)
		r.must(err)
		if _, err := bob.Verify(&Message{WireFormat: WirePrivateMessage, PrivateMessage: m}); !errors.Is(err, ErrTooFarAhead) {
			t.Fatalf("generation %d: %v", generation, err)
		}
	}
	ratchet, err := bob.messages.ratchet(alice.OwnLeaf(), ContentApplication)
	r.must(err)
	if ratchet.next != 0 || len(ratchet.kept) != 0 || ratchet.ahead != nil {
		t.Errorf("the ratchet is at %d and keeps %d keys", ratchet.next, len(ratchet.kept))
	}
	if string(mustVerify(t, reload(t, bob), first).(*ApplicationMessage).Data()) != "first" {
		t.Error("the first message was lost after a reload")
	}
	if string(mustVerify(t, bob, first).(*ApplicationMessage).Data()) != "first" {
		t.Error("the first message was lost")
	}
}

// Skipped keys are bounded, the oldest go first.
func TestSkippedKeysAreBounded(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	bob := r.groups["bob"]
	bob.client.cfg.Limits.MaxKept = 3
	var sent [][]byte
	for range 10 {
		m, err := r.groups["alice"].Send(r.ctx, []byte("x"), nil)
		r.must(err)
		sent = append(sent, m)
	}
	mustVerify(t, bob, sent[9])
	for i, want := range map[int]error{0: ErrConsumed, 5: ErrConsumed, 6: nil, 7: nil, 8: nil, 9: ErrConsumed} {
		m, err := ParseMessage(sent[i])
		r.must(err)
		if _, err := bob.Verify(m); !errors.Is(err, want) {
			t.Errorf("generation %d: got %v, want %v", i, err, want)
		}
	}
}

// Nobody outside the group can make a member believe that it sent something.
func TestOwnMessageIsAuthentic(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice := r.groups["alice"]
	p, err := alice.Commit(r.ctx, CommitOptions{WireFormat: WirePublicMessage})
	r.must(err)
	m, err := ParseMessage(p.Message)
	r.must(err)
	if _, err := alice.Verify(m); !errors.Is(err, ErrOwnMessage) {
		t.Errorf("own commit: %v", err)
	}
	m.PublicMessage.MembershipTag[0] ^= 1
	unmoved(t, alice, RuleFrameMembershipTag, func() error { _, err := alice.Verify(m); return err })
	m.PublicMessage.Content.Epoch++
	unmoved(t, alice, RuleFrameEpoch, func() error { _, err := alice.Verify(m); return err })
}

// Proposals of others that cannot be committed do not keep anybody from
// committing; those that can be are committed.
func TestUnfitProposalsAreLeftOut(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob", "carol")
	alice, f := r.groups["alice"], forger{t, r.groups["bob"]}
	again, err := r.groups["carol"].client.NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	refused, good := r.keyPackage("refused", nil), r.keyPackage("dave", nil)
	for _, g := range r.groups {
		g.client.cfg.Judge = func(_ context.Context, j *Judgement) error {
			if string(j.Leaf.Credential.Identity()) == "refused" {
				return errRefused
			}
			return nil
		}
	}
	alice.client.cfg.PSK = func(_ context.Context, id []byte) ([]byte, error) {
		if string(id) == "unknown" {
			return nil, ErrUnknownPSK
		}
		return append([]byte("psk of "), id...), nil
	}
	var want [][]byte
	for _, c := range []struct {
		p    Proposal
		good bool
	}{
		{&Add{again.KeyPackage}, false},
		{f.ExternalPSK([]byte("unknown")), false},
		{f.ExternalPSK([]byte("known")), true},
		{&GroupContextExtensions{Extensions{{0xF00D, nil}}}, false},
		{&CustomProposal{0xF001, nil}, false},
		{&Add{refused.KeyPackage}, false},
		{&Add{good.KeyPackage}, true},
	} {
		m := f.propose(c.p)
		for name, g := range r.groups {
			if name != "bob" {
				r.must(process(g, m))
			}
		}
		a := m.PublicMessage.authenticated()
		r.must(f.keep(a, a.proposalRef(f.public.suite)))
		if c.good {
			want = append(want, a.proposalRef(f.public.suite))
		}
	}
	p := r.commit("alice", CommitOptions{WireFormat: WirePublicMessage})
	got := p.Staged.content.Content.Commit.Proposals
	if len(got) != len(want) {
		t.Fatalf("%d proposals were committed, want %d", len(got), len(want))
	}
	for i := range got {
		wantBytes(t, "reference", got[i].Reference, want[i])
	}
	// What the application itself asks for is not left out silently.
	unmoved(t, alice, RuleListMemberAdded, func() error {
		_, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{again.KeyPackage}}})
		return err
	})
}

// A proposal that was sent is stored before it leaves: a commit of somebody
// else may refer to it after a crash.
func TestOwnProposalSurvivesCrash(t *testing.T) {
	st := NewMemoryStorage()
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Storage = st })
	r.add("alice", CommitOptions{}, "bob", "carol")
	m, err := r.groups["alice"].Propose(r.ctx, &Remove{r.groups["carol"].OwnLeaf()}, ProposeOptions{WireFormat: WirePublicMessage})
	r.must(err)
	r.groups["alice"], err = r.groups["alice"].client.LoadGroup(r.ctx, r.groups["alice"].ID())
	r.must(err)
	r.deliver("alice", m)
	r.commit("bob", CommitOptions{})
	r.check()
}

// A proposal that could not be stored is not sent and not kept.
func TestProposalIsNotKeptUnstored(t *testing.T) {
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, nil)
	r.add("alice", CommitOptions{}, "bob")
	alice := r.groups["alice"]
	alice.client.cfg.Storage = &failingStorage{NewMemoryStorage(), true}
	if out, err := alice.Propose(r.ctx, &Remove{1}, ProposeOptions{WireFormat: WirePublicMessage}); !errors.Is(err, errDisk) || out != nil {
		t.Errorf("got %x, %v", out, err)
	}
	if out, err := alice.ProposeUpdate(r.ctx, nil, ProposeOptions{WireFormat: WirePublicMessage}); !errors.Is(err, errDisk) || out != nil {
		t.Errorf("got %x, %v", out, err)
	}
	if len(alice.proposals)+len(alice.byRef)+len(alice.ownUpdates) != 0 {
		t.Error("the proposals are kept")
	}
	if _, err := alice.Commit(r.ctx, CommitOptions{}); !errors.Is(err, errDisk) || alice.Pending() != nil {
		t.Errorf("the commit that was not stored is pending: %v", err)
	}
	alice.client.cfg.Storage = nil
	r.commit("alice", CommitOptions{})
	r.chat()
}

// A signature that fails late costs no message key, also when the commit is
// encrypted.
func TestFailedWelcomeSignatureCostsNoKey(t *testing.T) {
	dev := &brokenSigner{Signer: newSigner(t, suites[P256AES128SHA256P256])}
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, func(c *Config) { c.Signer = dev })
	r.add("alice", CommitOptions{}, "bob")
	alice := r.groups["alice"]
	before, err := alice.MarshalBinary()
	r.must(err)
	e := r.keyPackage("carol", nil)
	for fail := 1; fail <= 3; fail++ {
		dev.calls, dev.failAt = 0, fail
		if _, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}}); !errors.Is(err, errDevice) {
			t.Fatalf("signature %d: %v", fail, err)
		}
		after, err := alice.MarshalBinary()
		r.must(err)
		if !bytes.Equal(before, after) {
			t.Errorf("signature %d: the group changed", fail)
		}
	}
}

// Only as many resumption PSKs are kept as was asked for.
func TestResumptionPSKsAreForgotten(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, func(c *Config) { c.Limits.PastResumptionPSKs = 2 })
	r.add("alice", CommitOptions{}, "bob")
	for range 3 {
		r.commit("alice", CommitOptions{})
	}
	alice := r.groups["alice"]
	if len(alice.resumption) != 2 || alice.resumption[alice.Epoch()] == nil || alice.resumption[alice.Epoch()-1] == nil {
		t.Errorf("kept %d PSKs in epoch %d", len(alice.resumption), alice.Epoch())
	}
	unmoved(t, alice, RuleCommitPSKAvailable, func() error {
		_, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{alice.ResumptionPSK(alice.Epoch() - 2)}})
		return err
	})
	if n := (Limits{PastResumptionPSKs: -1}).withDefaults().PastResumptionPSKs; n != 1 {
		t.Errorf("-1 keeps %d", n)
	}
}

// The last epoch of a group does not wrap around.
func TestLastEpoch(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	alice := r.groups["alice"]
	p := *alice.public
	p.context.Epoch = math.MaxUint64
	p.raw = encode(&p.context)
	alice.public = &p
	if _, err := alice.Commit(r.ctx, CommitOptions{}); !errors.Is(err, errLastEpoch) {
		t.Errorf("got %v", err)
	}
	alice.enter(alice.secrets)
	if alice.resumption[math.MaxUint64] == nil {
		t.Error("the PSK of the last epoch was dropped")
	}
}

// The generations of one epoch do not wrap around.
func TestLastGeneration(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	alice := r.groups["alice"]
	ratchet, err := alice.messages.ratchet(0, ContentApplication)
	r.must(err)
	ratchet.next = math.MaxUint32 - 1
	if _, err := alice.Send(r.ctx, nil, nil); !errors.Is(err, errGenerations) {
		t.Errorf("got %v", err)
	}
}

// The sample of a ciphertext that is shorter than a hash is the whole of it.
func TestSenderDataOfShortCiphertext(t *testing.T) {
	for _, c := range CipherSuites() {
		s := suites[c]
		secret := random(s.nh)
		for _, n := range []int{0, 1, 16, s.nh - 1, s.nh, s.nh + 1} {
			m := &PrivateMessage{GroupID: []byte("g"), ContentType: ContentApplication, Ciphertext: random(n)}
			d := &senderData{leaf: 3, generation: 9, guard: [4]byte{1, 2, 3, 4}}
			var err error
			if m.EncryptedSenderData, err = s.sealSenderData(secret, m, d); err != nil {
				t.Fatal(err)
			}
			if got, err := s.openSenderData(secret, m); err != nil || *got != *d {
				t.Errorf("suite %d, %d octets: %v, %v", c, n, got, err)
			}
			if n > 0 {
				m.Ciphertext[0] ^= 1
				if _, err := s.openSenderData(secret, m); !errors.Is(err, ErrDecrypt) {
					t.Errorf("suite %d, %d octets: the sample is not what the key depends on", c, n)
				}
			}
		}
	}
}

// The reuse guard is fresh for each message, so even one key for two messages
// gives two nonces.
func TestReuseGuard(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, nil)
	alice := r.groups["alice"]
	s := alice.public.suite
	a, err := alice.sign(r.ctx, WirePrivateMessage, nil, FramedContent{ContentType: ContentApplication, ApplicationData: []byte("x")})
	r.must(err)
	k := keyNonce{random(s.nk), random(s.nn)}
	seen := map[[4]byte]bool{}
	for range 20 {
		m, err := a.seal(s, alice.secrets.senderData, k, 0, NoPadding)
		r.must(err)
		d, err := s.openSenderData(alice.secrets.senderData, m)
		r.must(err)
		if _, err := s.openContent(m, k, d); err != nil || seen[d.guard] {
			t.Fatalf("guard %x: %v", d.guard, err)
		}
		seen[d.guard] = true
	}
}

// Counts that a message claims cost no more than its octets, and no more
// elements than a group can need.
func TestHostileCounts(t *testing.T) {
	many := func(n int, element ...byte) []byte {
		var b tlsvec.Builder
		b.Vector(bytes.Repeat(element, n))
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		in []byte
		m  unmarshaler
	}{
		"UpdatePath":    {append(encode(seedLeaf(t)), many(maxHeight+1, 0, 0)...), new(UpdatePath)},
		"ciphertexts":   {append([]byte{0}, many(maxLeaves+1, 0, 0)...), new(UpdatePathNode)},
		"Commit":        {append(many(2*maxLeaves+1, 2, 0), 0), new(Commit)},
		"Welcome":       {append(append([]byte{0, 1}, many(maxLeaves+1, 0, 0, 0)...), 0), new(Welcome)},
		"extensions":    {many(1<<16+1, 0xF0, 0x0D, 0), new(Extensions)},
		"PSKs":          {append([]byte{0, 0}, many(maxPSKs+1, 1, 0, 0)...), new(groupSecrets)},
		"a huge length": {[]byte{0xbf, 0xff, 0xff, 0xff}, new(Extensions)},
	} {
		err := decode(name, c.in, c.m)
		var parse *ParseError
		if !errors.As(err, &parse) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tree := range map[string][]byte{
		"blank nodes":      many(2*maxLeaves, 0),
		"no end":           {0xbf, 0xff, 0xff, 0xff, 0},
		"blank, then leaf": append(many(8, 0)[:9:9], 0),
	} {
		if _, err := parseTree(suites[1], tree); err == nil || !typed(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func seedLeaf(t *testing.T) *LeafNode {
	t.Helper()
	e, err := newTestClient(t, X25519AES128SHA256Ed25519, "alice", nil).NewKeyPackage(context.Background(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return e.KeyPackage.LeafNode
}

// One leaf at the far end of an otherwise blank tree, and a root with every
// leaf unmerged: what a hostile tree costs is linear.
func TestSparseTree(t *testing.T) {
	leaf := seedLeaf(t)
	var b tlsvec.Builder
	b.Nested(func(b *tlsvec.Builder) {
		b.Raw(make([]byte, 2*(1<<14)-2))
		b.Uint16(0x0101)
		leaf.marshal(b)
	})
	tree, err := parseTree(suites[1], b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if tree.size != 1<<14 || tree.members() != 1 || tree.leaf(1<<14-1) == nil {
		t.Errorf("size %d, %d members", tree.size, tree.members())
	}
	if _, err := validateTree(tree, &GroupContext{TreeHash: tree.hash()}, leafRules{maxLifetime: 400 * 24 * time.Hour}); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(encode(tree), b.Bytes()) {
		t.Error("the tree is encoded otherwise")
	}
}

// parallel gives the error of the lowest number, calls nothing twice, and
// waits for what it started.
func TestParallel(t *testing.T) {
	for _, n := range []int{0, 1, 3, 4, 100, 1000} {
		for _, bad := range []int{-1, 0, n / 2, n - 1} {
			calls := make([]int, n)
			err := parallel(n, func(i int) error {
				calls[i]++
				if bad >= 0 && i >= bad {
					return &ParseError{Struct: string(rune(i))}
				}
				return nil
			})
			var p *ParseError
			if wantErr := bad >= 0 && bad < n; wantErr != (err != nil) || wantErr && (!errors.As(err, &p) || p.Struct != string(rune(bad))) {
				t.Errorf("%d calls, the %d-th fails: %v", n, bad, err)
			}
			for i, c := range calls {
				if c > 1 || c == 0 && (bad < 0 || i < bad) {
					t.Errorf("%d calls, the %d-th fails: number %d was called %d times", n, bad, i, c)
				}
			}
		}
	}
}

// An Add that fits only the extensions which another proposal brings is kept,
// since both may be committed together (section 12.3).
func TestProposalForNextExtensionsIsKept(t *testing.T) {
	caps := DefaultCapabilities()
	caps.Extensions = []ExtensionType{0xF00D}
	with := func(c *Config) { c.Capabilities = caps }
	r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{Extensions: Extensions{{0xF00D, nil}}}, with)
	alice := r.groups["alice"]
	bob := newTestClient(t, r.suite, "bob", with)
	e, err := bob.NewKeyPackage(r.ctx, KeyPackageOptions{})
	r.must(err)
	p := r.commit("alice", CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	r.groups["bob"], err = bob.Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{})
	r.must(err)
	f := forger{t, r.groups["bob"]}
	r.must(process(alice, f.propose(&Add{r.keyPackage("carol", nil).KeyPackage})))
	p, err = alice.Commit(r.ctx, CommitOptions{})
	r.must(err)
	if n := len(p.Staged.Added()); n != 0 {
		t.Errorf("%d members were added without the extension", n)
	}
	r.must(alice.DiscardPending(r.ctx))
	r.must(process(alice, f.propose(&GroupContextExtensions{})))
	p, err = alice.Commit(r.ctx, CommitOptions{})
	r.must(err)
	if n := len(p.Staged.Added()); n != 1 {
		t.Errorf("%d members were added", n)
	}
}

// What nobody could decode is not signed.
func TestMalformedCredentialIsNotSigned(t *testing.T) {
	c := newTestClient(t, P256AES128SHA256P256, "alice", func(c *Config) {
		c.Credential = Credential{CredentialX509, []byte("no chain")}
	})
	if _, err := c.NewKeyPackage(context.Background(), KeyPackageOptions{}); err == nil {
		t.Error("a KeyPackage with it was made")
	}
	if _, err := c.CreateGroup(context.Background(), nil, GroupOptions{}); err == nil {
		t.Error("a group with it was made")
	}
}

// Suites 1 and 3 have one KEM; their KeyPackages are still not each other's.
func TestImportedKeyPackageHasTheSuite(t *testing.T) {
	e, err := newTestClient(t, X25519ChaCha20SHA256Ed25519, "alice", nil).NewKeyPackage(context.Background(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := newTestClient(t, X25519AES128SHA256Ed25519, "alice", nil)
	_, err = c.ImportKeyPackage(context.Background(), e.KeyPackage, e.init.private, e.leaf.private)
	wantRule(t, err, RuleKeyPackageSuite)
}

// What a member certifies must be the key that it signs with (section 5.3).
func TestCertificateKey(t *testing.T) {
	for _, suite := range []CipherSuite{X25519AES128SHA256Ed25519, P256AES128SHA256P256} {
		signer := newSigner(t, suites[suite])
		chain := func(key crypto.Signer) Credential {
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			return X509Credential([][]byte{der})
		}
		other := chain(newSigner(t, suites[suite]))
		_, err := NewClient(Config{CipherSuite: suite, Signer: signer, Credential: other})
		wantRule(t, err, RuleLeafCertificateKey)
		c := newTestClient(t, suite, "", func(cfg *Config) { cfg.Signer, cfg.Credential = signer, chain(signer) })
		e, err := c.NewKeyPackage(context.Background(), KeyPackageOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantRule(t, resign(t, e, c, func(_ *KeyPackage, l *LeafNode) { l.Credential = other }).Validate(LeafPolicy{}), RuleLeafCertificateKey)
		opaque := X509Credential([][]byte{{0x30, 0}})
		if err := resign(t, e, c, func(_ *KeyPackage, l *LeafNode) { l.Credential = opaque }).Validate(LeafPolicy{}); err != nil {
			t.Errorf("what is no certificate is for the application: %v", err)
		}
	}
}

// A KeyPackage that nobody would accept is not imported.
func TestImportedKeyPackageIsSigned(t *testing.T) {
	c := newTestClient(t, X25519AES128SHA256Ed25519, "alice", nil)
	e, err := c.NewKeyPackage(context.Background(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	forged := *e.KeyPackage
	forged.Signature = make([]byte, len(forged.Signature))
	_, err = c.ImportKeyPackage(context.Background(), &forged, e.init.private, e.leaf.private)
	wantRule(t, err, RuleKeyPackageSignature)
}
