package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"
)

// testComponent is a component of an application.
const testComponent ComponentID = 0x8001

var testComponents = Components{testComponent: ReplaceData(func(b []byte) error {
	if len(b) == 0 {
		return errors.New("empty")
	}
	return nil
})}

// A hubRoom is a room whose messages go through a hub.
type hubRoom struct {
	*room
	hub    *PublicGroup
	cfg    PublicConfig
	signer crypto.Signer // the hub's
	wire   WireFormat    // of members' handshakes
	rng    *rand.Rand
	names  int
	joins  map[string]pendingJoin
	done   map[string]int // how often each kind of step was taken

	tree    []byte   // at some epoch, and
	changes [][]byte // what has changed
	marked  *PublicEpoch
}

// patch checks that the tree follows from an earlier one and what has changed.
func (h *hubRoom) patch() {
	h.t.Helper()
	now := h.hub.Current()
	if h.marked == nil || len(h.changes) == 40 {
		h.tree, h.changes, h.marked = now.RatchetTree(), nil, now
		return
	}
	h.changes, h.marked = append(h.changes, now.TreeChanges(h.marked)), now
	got, err := PatchTree(h.tree, h.changes...)
	h.must(err)
	wantBytes(h.t, "patched tree", got, now.RatchetTree())
}

// A pendingJoin is a client whose Add was proposed.
type pendingJoin struct {
	client *Client
	entry  *KeyPackageEntry
}

func (h *hubRoom) memberConfig(c *Config) {
	c.Capabilities = ExtendedCapabilities()
	c.Capabilities.Extensions = append(c.Capabilities.Extensions, ExtensionExternalReceivers)
	c.Components = testComponents
	c.WireFormats = []WireFormat{WireSemiPrivateMessage}
}

func newHubRoom(t testing.TB, s CipherSuite, wire WireFormat, seed int64) *hubRoom {
	t.Helper()
	h := &hubRoom{signer: newSigner(t, suites[s]), wire: wire, rng: rand.New(rand.NewSource(seed)), joins: map[string]pendingJoin{}, done: map[string]int{}}
	key, err := suites[s].sig.encodePublicKey(h.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	dictionary, err := NewAppDataDictionary(ComponentData{testComponent, []byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	hub := BasicCredential([]byte("hub"))
	ext := Extensions{ExternalSendersExtension(ExternalSender{key, hub}), dictionary.Extension()}
	h.cfg = PublicConfig{Components: testComponents}
	if wire == WireSemiPrivateMessage {
		ext = append(ext, h.receiver(t, s, hub)...)
	}
	h.room = newRoom(t, s, "m0", GroupOptions{Extensions: ext}, h.memberConfig)
	gi, err := h.groups["m0"].GroupInfo(h.ctx, GroupInfoOptions{ExternalPub: true})
	h.must(err)
	h.hub, err = NewPublicGroup(h.ctx, gi, FullTree(h.groups["m0"].RatchetTree()), h.cfg)
	h.must(err)
	return h
}

// receiver makes the hub an external receiver.
func (h *hubRoom) receiver(t testing.TB, s CipherSuite, name Credential) Extensions {
	k, err := suites[s].kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := suites[s].kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	public := k.PublicKey().Bytes()
	h.cfg.ReceiverKey = func(_ context.Context, asked []byte) (hpke.PrivateKey, error) {
		if !bytes.Equal(asked, public) {
			return nil, nil
		}
		return k, nil
	}
	return Extensions{
		WireFormatsExtension(ExtensionRequiredWireFormats, WireSemiPrivateMessage),
		ExternalReceiversExtension(ExternalReceiver{other.PublicKey().Bytes(), BasicCredential([]byte("other"))}, ExternalReceiver{public, name}),
	}
}

func (h *hubRoom) stateBytes() []byte {
	h.t.Helper()
	b, err := h.hub.MarshalBinary()
	h.must(err)
	return b
}

// process gives a message to the hub, after a damaged copy of it.
func (h *hubRoom) process(raw []byte) (*VerifiedProposal, *StagedCommit) {
	h.t.Helper()
	h.refuseDamaged(raw)
	m, err := ParseMessage(raw)
	h.must(err)
	p, c, err := h.hub.Process(h.ctx, m)
	h.must(err)
	if p != nil && m.PublicMessage != nil {
		ref, err := m.PublicMessage.ProposalRef(h.hub.Current().CipherSuite())
		h.must(err)
		wantBytes(h.t, "ProposalRef", ref, p.Ref())
	}
	return p, c
}

func (h *hubRoom) refuseDamaged(raw []byte) {
	h.t.Helper()
	before := h.stateBytes()
	for range 3 {
		damaged := bytes.Clone(raw)
		damaged[h.rng.Intn(len(raw))] ^= 1 << h.rng.Intn(8)
		m, err := ParseMessage(damaged)
		if err != nil || unseen(h.t, raw, m) {
			continue
		}
		if _, _, err := h.hub.Process(h.ctx, m); err == nil {
			h.t.Fatalf("a damaged message was accepted: %x instead of %x", damaged, raw)
		}
		if !bytes.Equal(h.stateBytes(), before) {
			h.t.Fatal("a damaged message changed the hub's state")
		}
	}
}

// unseen reports whether damage is only where a non-member cannot see it.
func unseen(t testing.TB, raw []byte, m *Message) bool {
	original, err := ParseMessage(raw)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case m.PublicMessage != nil && original.PublicMessage != nil:
		m, o := *m.PublicMessage, *original.PublicMessage
		m.MembershipTag, o.MembershipTag = nil, nil
		m.Auth.ConfirmationTag, o.Auth.ConfirmationTag = nil, nil
		return bytes.Equal(encode(&m), encode(&o))
	case m.SemiPrivateMessage != nil && original.SemiPrivateMessage != nil:
		m, o := *m.SemiPrivateMessage, *original.SemiPrivateMessage
		m.EncryptedSenderData, o.EncryptedSenderData = nil, nil
		return bytes.Equal(encode(&m), encode(&o))
	}
	return false
}

// accept gives a commit to the hub with its GroupInfo, and to the members if
// the hub takes it.
func (h *hubRoom) accept(from string, message, groupInfo []byte) *StagedCommit {
	h.t.Helper()
	_, staged := h.process(message)
	if staged == nil {
		h.t.Fatal("the hub did not stage the commit")
	}
	byRef := 0
	for _, p := range staged.Proposals() {
		if p.ByReference {
			byRef++
		}
	}
	if n := len(h.hub.LeftOut(staged)); n+byRef != len(h.hub.PendingProposals()) {
		h.t.Fatalf("%d proposals left out, %d covered, of %d", n, byRef, len(h.hub.PendingProposals()))
	}
	info, err := ParseGroupInfo(groupInfo)
	h.must(err)
	partial, err := info.Partial()
	h.must(err)
	partial, err = ParsePartialGroupInfo(partial.Bytes())
	h.must(err)
	rebuilt, err := staged.RebuildGroupInfo(partial)
	h.must(err)
	wantBytes(h.t, "rebuilt GroupInfo", rebuilt.Bytes(), info.Bytes())
	h.must(h.hub.Merge(staged))
	h.deliver(from, message)
	return staged
}

// compare checks the hub's view against each member's.
func (h *hubRoom) compare() {
	h.t.Helper()
	h.check()
	h.patch()
	e := h.hub.Current()
	for name, g := range h.groups {
		wantBytes(h.t, name+": GroupContext", e.ContextBytes(), g.ContextBytes())
		wantBytes(h.t, name+": interim transcript hash", e.InterimTranscriptHash(), g.public.interim)
		wantBytes(h.t, name+": confirmation tag", e.ConfirmationTag(), g.public.confirmationTag)
		wantBytes(h.t, name+": tree", e.RatchetTree(), g.RatchetTree())
		if len(h.hub.PendingProposals()) != len(g.PendingProposals()) {
			h.t.Fatalf("the hub has %d proposals, %s has %d", len(h.hub.PendingProposals()), name, len(g.PendingProposals()))
		}
	}
	if e.Size() != len(h.groups) {
		h.t.Fatalf("the hub sees %d members of %d", e.Size(), len(h.groups))
	}
	census, err := takeCensus(e.tree)
	h.must(err)
	if !maps.Equal(census.keys, e.census.keys) {
		h.t.Fatal("the hub's census differs from the tree")
	}
}

func (h *hubRoom) anyone() string {
	return h.pick(slices.Sorted(maps.Keys(h.groups)))
}

func (h *hubRoom) other(than string) string {
	return h.pick(slices.DeleteFunc(slices.Sorted(maps.Keys(h.groups)), func(n string) bool { return n == than }))
}

func (h *hubRoom) pick(names []string) string { return names[h.rng.Intn(len(names))] }

func (h *hubRoom) newcomer() (string, *Client, *KeyPackageEntry) {
	h.names++
	name := fmt.Sprintf("m%d", h.names)
	c := newTestClient(h.t, h.suite, name, h.memberConfig)
	e, err := c.NewKeyPackage(h.ctx, KeyPackageOptions{})
	h.must(err)
	return name, c, e
}

// commitThrough commits, lets the hub accept and brings newcomers in.
func (h *hubRoom) commitThrough(from string, proposals ...Proposal) {
	h.t.Helper()
	p, err := h.groups[from].Commit(h.ctx, CommitOptions{Proposals: proposals, WireFormat: h.wire, GroupInfo: &GroupInfoOptions{ExternalPub: true}})
	h.must(err)
	staged := h.accept(from, p.Message, p.GroupInfo)
	h.must(h.groups[from].MergePending(h.ctx))
	for _, m := range staged.Added() {
		name := string(m.Node.Credential.Identity())
		join := h.joins[name]
		w, err := ParseWelcome(p.Welcome)
		h.must(err)
		h.groups[name], err = join.client.Join(h.ctx, w, []*KeyPackageEntry{join.entry}, JoinOptions{RatchetTree: h.hub.TreeOption().Tree})
		h.must(err)
	}
	h.joins = map[string]pendingJoin{}
}

// proposeThrough lets hub and members keep a proposal.
func (h *hubRoom) proposeThrough(from string, p Proposal, wire WireFormat) {
	h.t.Helper()
	raw, err := h.groups[from].Propose(h.ctx, p, ProposeOptions{WireFormat: wire})
	h.must(err)
	h.process(raw)
	h.deliver(from, raw)
}

// joinExternally lets a client in by an external commit.
func (h *hubRoom) joinExternally(name string, c *Client, opts ExternalJoinOptions) {
	h.t.Helper()
	opts.RatchetTree, opts.GroupInfo = h.hub.TreeOption().Tree, &GroupInfoOptions{ExternalPub: true}
	for _, p := range h.hub.PendingProposals() {
		if m := p.Message(); m != nil {
			opts.Pending = append(opts.Pending, m)
		}
	}
	j, err := c.JoinExternal(h.ctx, h.hub.GroupInfo(), opts)
	h.must(err)
	staged := h.accept("", j.Message, j.GroupInfo)
	if !staged.External() {
		h.t.Fatal("an external commit is not recognised")
	}
	h.groups[name], err = j.Join(h.ctx)
	h.must(err)
	h.joins = map[string]pendingJoin{}
}

var hubSteps = []struct {
	name string
	need int // members
	take func(*hubRoom)
}{
	{"add", 1, func(h *hubRoom) {
		var list []Proposal
		for range 1 + h.rng.Intn(3) {
			name, c, e := h.newcomer()
			h.joins[name] = pendingJoin{c, e}
			list = append(list, &Add{e.KeyPackage})
		}
		h.commitThrough(h.anyone(), list...)
	}},
	{"path", 1, func(h *hubRoom) { h.commitThrough(h.anyone()) }},
	{"remove", 4, func(h *hubRoom) {
		from := h.anyone()
		h.commitThrough(from, &Remove{h.groups[h.other(from)].OwnLeaf()})
	}},
	{"psk", 1, func(h *hubRoom) {
		from := h.anyone()
		h.commitThrough(from, h.groups[from].ExternalPSK([]byte("id")))
	}},
	{"extensions", 1, func(h *hubRoom) {
		from := h.anyone()
		required := RequiredCapabilities{Credentials: slices.Repeat([]CredentialType{CredentialBasic}, h.rng.Intn(3))}.Extension()
		ctx := h.groups[from].Context()
		h.commitThrough(from, &GroupContextExtensions{ctx.Extensions.With(required.Type, required.Data)})
	}},
	{"component", 1, func(h *hubRoom) {
		data := []byte{byte(h.rng.Intn(256)), 1}
		h.commitThrough(h.anyone(), UpdateAppData(testComponent, data))
		d, err := h.hub.Current().Components()
		h.must(err)
		if got, _ := d.Find(testComponent); !bytes.Equal(got, data) {
			h.t.Fatalf("component is %x, want %x", got, data)
		}
	}},
	{"propose update", 2, func(h *hubRoom) {
		from := h.anyone()
		raw, err := h.groups[from].ProposeUpdate(h.ctx, nil, ProposeOptions{WireFormat: h.wire})
		h.must(err)
		h.process(raw)
		h.deliver(from, raw)
	}},
	{"propose remove", 4, func(h *hubRoom) {
		from := h.anyone()
		h.proposeThrough(from, &Remove{h.groups[h.other(from)].OwnLeaf()}, h.wire)
	}},
	{"propose self_remove", 4, func(h *hubRoom) {
		from := h.anyone()
		for _, p := range h.hub.PendingProposals() {
			if p.Proposal().ProposalType() == ProposalSelfRemove && p.Sender() == memberSender(h.groups[from].OwnLeaf()) {
				return
			}
		}
		h.proposeThrough(from, &SelfRemove{}, WirePublicMessage)
		h.commitThrough(h.other(from))
		if h.groups[from] != nil {
			h.t.Fatal("the member that removed itself is still there")
		}
	}},
	{"hub removes", 4, func(h *hubRoom) {
		raw, err := h.hub.Propose(h.ctx, h.signer, &Remove{h.groups[h.anyone()].OwnLeaf()}, nil)
		h.must(err)
		h.deliver("", raw)
	}},
	{"hub updates component", 1, func(h *hubRoom) {
		if len(h.hub.PendingProposals()) > 0 {
			return // another update of the component may be among them
		}
		raw, err := h.hub.Propose(h.ctx, h.signer, UpdateAppData(testComponent, []byte("hub")), nil)
		h.must(err)
		h.deliver("", raw)
		h.commitThrough(h.anyone())
	}},
	{"join by proposal", 1, func(h *hubRoom) {
		name, c, e := h.newcomer()
		ctx := h.hub.Current().Context()
		raw, err := c.ProposeJoin(h.ctx, &ctx, e, nil)
		h.must(err)
		h.process(raw)
		h.deliver("", raw)
		h.joins[name] = pendingJoin{c, e}
	}},
	{"external commit", 1, func(h *hubRoom) {
		name, c, _ := h.newcomer()
		h.joinExternally(name, c, ExternalJoinOptions{PSKs: []*PreSharedKey{h.groups[h.anyone()].ExternalPSK([]byte("y"))}})
	}},
	{"external commit after self_remove", 4, func(h *hubRoom) {
		leaver := h.anyone()
		h.commitThrough(h.anyone()) // nothing is pending afterwards
		h.proposeThrough(leaver, &SelfRemove{}, WirePublicMessage)
		name, c, _ := h.newcomer()
		h.joinExternally(name, c, ExternalJoinOptions{})
		if h.groups[leaver] != nil {
			h.t.Fatal("the member that removed itself is still there")
		}
	}},
	{"resync", 2, func(h *hubRoom) {
		name := h.anyone()
		c := h.groups[name].client
		delete(h.groups, name)
		h.joinExternally(name, c, ExternalJoinOptions{Resync: true})
	}},
	{"restart", 1, func(h *hubRoom) {
		raw := h.stateBytes()
		var err error
		h.hub, err = UnmarshalPublicGroup(raw, h.cfg)
		h.must(err)
		wantBytes(h.t, "state", h.stateBytes(), raw)
	}},
}

// walk takes random steps and compares after each.
func (h *hubRoom) walk(steps int) {
	h.t.Helper()
	for i := range steps {
		step := hubSteps[h.rng.Intn(len(hubSteps))]
		if i < len(hubSteps)*2 && i >= len(hubSteps) {
			step = hubSteps[i-len(hubSteps)] // each once at least
		}
		if len(h.groups) < step.need || step.name == "add" && len(h.groups) > 9 {
			continue
		}
		step.take(h)
		h.done[step.name]++
		h.compare()
	}
	for _, step := range hubSteps {
		if h.done[step.name] == 0 {
			h.t.Errorf("no step %q was taken", step.name)
		}
	}
}
