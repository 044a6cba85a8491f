package mls_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"testing"

	"github.com/privyseal/privyseal/mls"
	mlsgo "github.com/thomas-vilte/mls-go"
	"github.com/thomas-vilte/mls-go/ciphersuite"
)

// The peer is mls-go v1.6.0, an engine by others, through its Client. It
// leaves RFC 9420 in places, around which these tests go; our engine is not
// bent to it:
//
//   - Its required_capabilities has five vectors instead of three, and it
//     refuses GroupContext extensions that it does not know: the groups here
//     have neither.
//   - It does not expect padding in a PrivateMessage with a handshake: we send
//     without.
//   - SelfUpdate commits the committer's own Update, which section 12.2
//     forbids: its commits here are without proposals.
//   - A group that it reads back from storage derives with SHA-256 whatever the
//     cipher suite, so that suite 5 breaks: it keeps its groups in memory.
//   - KeyPackages and GroupInfos are taken bare only, not as MLSMessage.
//   - Its external joiner claims to support basic credentials only, and bytes
//     of credentials of unknown types are dropped: all credentials are basic,
//     and our members list no other.

// The suites that both have.
var interopSuites = []mls.CipherSuite{
	mls.X25519AES128SHA256Ed25519, mls.P256AES128SHA256P256, mls.X25519ChaCha20SHA256Ed25519, mls.P521AES256SHA512P521,
}

func eachInteropSuite(t *testing.T, f func(*testing.T, mls.CipherSuite)) {
	for _, c := range interopSuites {
		t.Run(fmt.Sprintf("suite %d", c), func(t *testing.T) { f(t, c) })
	}
}

func interopSigner(t testing.TB, c mls.CipherSuite) crypto.Signer {
	t.Helper()
	curves := map[mls.CipherSuite]elliptic.Curve{mls.P256AES128SHA256P256: elliptic.P256(), mls.P521AES256SHA512P521: elliptic.P521()}
	var k crypto.Signer
	var err error
	if curve := curves[c]; curve != nil {
		k, err = ecdsa.GenerateKey(curve, rand.Reader)
	} else {
		_, k, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var interopPSK = []byte("thirty-two octets of shared key!")

// A native is a client of ours, with its group once it has one.
type native struct {
	*testing.T
	client *mls.Client
	entry  *mls.KeyPackageEntry
	group  *mls.Group
}

func newNative(t *testing.T, c mls.CipherSuite, name string) *native {
	t.Helper()
	client, err := mls.NewClient(mls.Config{
		CipherSuite: c, Signer: interopSigner(t, c), Credential: mls.BasicCredential([]byte(name)),
		Capabilities: mls.Capabilities{
			Versions: []mls.ProtocolVersion{mls.MLS10}, CipherSuites: mls.CipherSuites(),
			Credentials: []mls.CredentialType{mls.CredentialBasic},
		},
		PSK:     func(context.Context, []byte) ([]byte, error) { return interopPSK, nil },
		Padding: mls.NoPadding,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &native{T: t, client: client}
}

func (n *native) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatalf("ours: %v", err)
	}
}

func (n *native) keyPackage() []byte {
	n.Helper()
	var err error
	n.entry, err = n.client.NewKeyPackage(context.Background(), mls.KeyPackageOptions{})
	n.must(err)
	return n.entry.KeyPackage.Bytes()
}

func (n *native) join(welcome []byte) {
	n.Helper()
	w, err := mls.ParseWelcome(welcome)
	n.must(err)
	n.group, err = n.client.Join(context.Background(), w, []*mls.KeyPackageEntry{n.entry}, mls.JoinOptions{})
	n.must(err)
}

// commit makes a commit that everybody accepts.
func (n *native) commit(opts mls.CommitOptions) *mls.PendingCommit {
	n.Helper()
	opts.RatchetTree = true
	p, err := n.group.Commit(context.Background(), opts)
	n.must(err)
	n.must(n.group.MergePending(context.Background()))
	return p
}

func (n *native) verify(raw []byte) mls.Verified {
	n.Helper()
	m, err := mls.ParseMessage(raw)
	n.must(err)
	v, err := n.group.Verify(m)
	n.must(err)
	return v
}

func (n *native) process(raw []byte) {
	n.Helper()
	switch v := n.verify(raw).(type) {
	case *mls.VerifiedProposal:
		n.must(n.group.Keep(v))
	case *mls.VerifiedCommit:
		staged, err := n.group.Stage(context.Background(), v)
		n.must(err)
		n.must(n.group.Merge(context.Background(), staged))
	default:
		n.Fatalf("ours: a %T", v)
	}
}

// A stranger is a client of theirs.
type stranger struct {
	*testing.T
	client *mlsgo.Client
	id     []byte
}

func newStranger(t *testing.T, c mls.CipherSuite, name string) *stranger {
	t.Helper()
	client, err := mlsgo.NewClient([]byte(name), ciphersuite.CipherSuite(c),
		mlsgo.WithCacheStrategy(mlsgo.CacheAlways), mlsgo.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &stranger{T: t, client: client}
}

func (s *stranger) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("theirs: %v", err)
	}
}

func (s *stranger) keyPackage() *mls.KeyPackage {
	s.Helper()
	raw, err := s.client.FreshKeyPackageBytes(context.Background())
	s.must(err)
	k, err := mls.ParseKeyPackage(raw)
	if err != nil {
		s.Fatal(err)
	}
	return k
}

func (s *stranger) create() {
	s.Helper()
	var err error
	s.id, err = s.client.CreateGroup(context.Background())
	s.must(err)
}

func (s *stranger) join(welcome []byte) {
	s.Helper()
	var err error
	s.id, err = s.client.JoinGroupWithPSKs(context.Background(), welcome, map[string][]byte{"psk": interopPSK})
	s.must(err)
}

func (s *stranger) invite(keyPackage []byte) (commit, welcome []byte) {
	s.Helper()
	commit, welcome, err := s.client.InviteMember(context.Background(), s.id, keyPackage)
	s.must(err)
	return commit, welcome
}

func (s *stranger) process(commit []byte) {
	s.Helper()
	s.must(s.client.ProcessCommit(context.Background(), s.id, commit))
}

// agree compares a member of each engine and has both send.
func agree(n *native, s *stranger) {
	n.Helper()
	ctx := context.Background()
	authenticator, err := s.client.EpochAuthenticator(ctx, s.id)
	s.must(err)
	if !bytes.Equal(authenticator, n.group.EpochAuthenticator()) {
		n.Fatal("epoch authenticators differ")
	}
	exported, err := s.client.Export(ctx, s.id, "test", []byte("context"), 42)
	s.must(err)
	own, err := n.group.Export("test", []byte("context"), 42)
	n.must(err)
	if !bytes.Equal(exported, own) {
		n.Error("exported secrets differ")
	}
	m, err := n.group.Send(ctx, []byte("from ours"), []byte("ad"))
	n.must(err)
	got, err := s.client.ReceiveMessage(ctx, s.id, m)
	s.must(err)
	if string(got.Plaintext) != "from ours" {
		n.Errorf("they received %q", got.Plaintext)
	}
	m, err = s.client.SendMessage(ctx, s.id, []byte("from theirs"), mlsgo.WithAAD([]byte("their ad")))
	s.must(err)
	app, ok := n.verify(m).(*mls.ApplicationMessage)
	if !ok || string(app.Data()) != "from theirs" || string(app.AuthenticatedData()) != "their ad" {
		n.Errorf("we received %q with %q", app.Data(), app.AuthenticatedData())
	}
}

// We create the group and they join, commit and leave.
func TestInteropOurGroup(t *testing.T) { eachInteropSuite(t, testInteropOurGroup) }

func testInteropOurGroup(t *testing.T, c mls.CipherSuite) {
	ctx := context.Background()
	alice, bob, carol := newNative(t, c, "alice"), newStranger(t, c, "bob"), newStranger(t, c, "carol")
	var err error
	alice.group, err = alice.client.CreateGroup(ctx, nil, mls.GroupOptions{})
	alice.must(err)
	bob.join(alice.commit(mls.CommitOptions{Proposals: []mls.Proposal{&mls.Add{KeyPackage: bob.keyPackage()}}}).Welcome)
	agree(alice, bob)

	for _, w := range []mls.WireFormat{mls.WirePublicMessage, mls.WirePrivateMessage} {
		bob.process(alice.commit(mls.CommitOptions{WireFormat: w}).Message)
		agree(alice, bob)
		update, _, err := bob.client.CommitPendingProposals(ctx, bob.id)
		bob.must(err)
		alice.process(update)
		agree(alice, bob)
	}
	p := alice.commit(mls.CommitOptions{Proposals: []mls.Proposal{&mls.Add{KeyPackage: carol.keyPackage()}}})
	bob.process(p.Message)
	carol.join(p.Welcome)
	agree(alice, bob)
	agree(alice, carol)

	removal, err := carol.client.RemoveMember(ctx, carol.id, []byte("bob"))
	carol.must(err)
	alice.process(removal)
	agree(alice, carol)
	if alice.group.Size() != 2 {
		t.Errorf("%d members", alice.group.Size())
	}
	p = alice.commit(mls.CommitOptions{Proposals: []mls.Proposal{&mls.Remove{Removed: memberIndex(alice, "carol")}}})
	if err := carol.client.ProcessCommit(ctx, carol.id, p.Message); err == nil {
		if after, err := carol.client.EpochAuthenticator(ctx, carol.id); err == nil && bytes.Equal(after, alice.group.EpochAuthenticator()) {
			t.Error("a removed member follows")
		}
	}
	if alice.group.Size() != 1 {
		t.Errorf("%d members", alice.group.Size())
	}
}

func memberIndex(n *native, identity string) mls.LeafIndex {
	n.Helper()
	for m := range n.group.Members() {
		if string(m.Node.Credential.Identity()) == identity {
			return m.Leaf
		}
	}
	n.Fatalf("no member %s", identity)
	return 0
}

// They create the group and we join, commit and are removed.
func TestInteropTheirGroup(t *testing.T) { eachInteropSuite(t, testInteropTheirGroup) }

func testInteropTheirGroup(t *testing.T, c mls.CipherSuite) {
	ctx := context.Background()
	alice, bob, carol := newStranger(t, c, "alice"), newNative(t, c, "bob"), newNative(t, c, "carol")
	alice.create()
	_, welcome := alice.invite(bob.keyPackage())
	bob.join(welcome)
	agree(bob, alice)
	commit, welcome := alice.invite(carol.keyPackage())
	bob.process(commit)
	carol.join(welcome)
	agree(bob, alice)
	agree(carol, alice)

	p := carol.commit(mls.CommitOptions{})
	bob.process(p.Message)
	alice.process(p.Message)
	agree(bob, alice)
	proposal, err := bob.group.ProposeUpdate(ctx, nil, mls.ProposeOptions{WireFormat: mls.WirePublicMessage})
	bob.must(err)
	alice.must(alice.client.ProcessPublicMessage(ctx, alice.id, proposal))
	carol.process(proposal)
	commit, _, err = alice.client.CommitPendingProposals(ctx, alice.id)
	alice.must(err)
	bob.process(commit)
	carol.process(commit)
	agree(bob, alice)
	agree(carol, alice)

	removal, err := alice.client.RemoveMember(ctx, alice.id, []byte("bob"))
	alice.must(err)
	bob.process(removal)
	carol.process(removal)
	if bob.group.Active() {
		t.Error("we stay active after our removal")
	}
	agree(carol, alice)
}

// Each joins the other's group by an external commit.
func TestInteropExternalJoin(t *testing.T) { eachInteropSuite(t, testInteropExternalJoin) }

func testInteropExternalJoin(t *testing.T, c mls.CipherSuite) {
	ctx := context.Background()
	alice, bob, carol := newStranger(t, c, "alice"), newNative(t, c, "bob"), newStranger(t, c, "carol")
	alice.create()
	raw, err := alice.client.GroupInfo(ctx, alice.id)
	alice.must(err)
	info, err := mls.ParseGroupInfo(raw)
	bob.must(err)
	j, err := bob.client.JoinExternal(ctx, info, mls.ExternalJoinOptions{})
	bob.must(err)
	bob.group, err = j.Join(ctx)
	bob.must(err)
	alice.process(j.Message)
	agree(bob, alice)

	own, err := bob.group.GroupInfo(ctx, mls.GroupInfoOptions{RatchetTree: true, ExternalPub: true})
	bob.must(err)
	var commit []byte
	carol.id, commit, err = carol.client.ExternalJoin(ctx, own.Bytes())
	carol.must(err)
	bob.process(commit)
	alice.process(commit)
	agree(bob, carol)
	agree(bob, alice)
}

// A Welcome with an external PSK, and resumption PSKs from both sides.
func TestInteropPSK(t *testing.T) { eachInteropSuite(t, testInteropPSK) }

func testInteropPSK(t *testing.T, c mls.CipherSuite) {
	ctx := context.Background()
	alice, bob := newNative(t, c, "alice"), newStranger(t, c, "bob")
	var err error
	alice.group, err = alice.client.CreateGroup(ctx, nil, mls.GroupOptions{})
	alice.must(err)
	bob.join(alice.commit(mls.CommitOptions{Proposals: []mls.Proposal{
		&mls.Add{KeyPackage: bob.keyPackage()}, alice.group.ExternalPSK([]byte("psk"))}}).Welcome)
	agree(alice, bob)

	bob.process(alice.commit(mls.CommitOptions{Proposals: []mls.Proposal{alice.group.ResumptionPSK(alice.group.Epoch())}}).Message)
	agree(alice, bob)
	proposal, err := bob.client.ProposeResumptionPSK(ctx, bob.id, alice.group.Epoch())
	bob.must(err)
	alice.process(proposal)
	commit, _, err := bob.client.CommitPendingProposals(ctx, bob.id)
	bob.must(err)
	alice.process(commit)
	agree(alice, bob)
}
