package mls

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"
)

func TestPublicGroupFollows(t *testing.T) {
	h := newHubRoom(t, X25519AES128SHA256Ed25519, WirePublicMessage, 1)
	h.walk(200)
	t.Logf("epoch %d, %d members, %v", h.hub.Current().Epoch(), h.hub.Current().Size(), h.done)
}

func TestPublicGroupFollowsSemiPrivate(t *testing.T) {
	h := newHubRoom(t, P256AES128SHA256P256, WireSemiPrivateMessage, 2)
	h.walk(200)
	t.Logf("epoch %d, %d members, %v", h.hub.Current().Epoch(), h.hub.Current().Size(), h.done)
}

// smallHubRoom has three members and an empty history.
func smallHubRoom(t testing.TB, wire WireFormat) *hubRoom {
	h := newHubRoom(t, X25519AES128SHA256Ed25519, wire, 3)
	var list []Proposal
	for range 2 {
		name, c, e := h.newcomer()
		h.joins[name] = pendingJoin{c, e}
		list = append(list, &Add{e.KeyPackage})
	}
	h.commitThrough("m0", list...)
	h.compare()
	return h
}

func (h *hubRoom) stageAtHub(opts CommitOptions) (*StagedCommit, *GroupInfo) {
	h.t.Helper()
	opts.WireFormat, opts.GroupInfo = h.wire, &GroupInfoOptions{ExternalPub: true}
	p, err := h.groups["m0"].Commit(h.ctx, opts)
	h.must(err)
	h.must(h.groups["m0"].DiscardPending(h.ctx))
	_, staged := h.process(p.Message)
	info, err := ParseGroupInfo(p.GroupInfo)
	h.must(err)
	return staged, info
}

func TestGroupInfoAtHub(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	staged, good := h.stageAtHub(CommitOptions{})
	for name, c := range map[string]struct {
		rule   Rule
		damage func(*GroupInfo)
	}{
		"epoch":        {RuleGroupInfoContext, func(g *GroupInfo) { g.GroupContext.Epoch++ }},
		"tree hash":    {RuleGroupInfoContext, func(g *GroupInfo) { g.GroupContext.TreeHash = make([]byte, 32) }},
		"tag":          {RuleGroupInfoConfirmation, func(g *GroupInfo) { g.ConfirmationTag = make([]byte, 32) }},
		"signer":       {RuleGroupInfoSigner, func(g *GroupInfo) { g.Signer = 1 }},
		"other tree":   {RuleGroupInfoTree, func(g *GroupInfo) { g.Extensions = g.Extensions.With(ExtensionRatchetTree, []byte{0}) }},
		"external_pub": {RuleGroupInfoExternalPub, func(g *GroupInfo) { g.Extensions = Extensions{externalPubExtension([]byte("no key"))} }},
		"signature":    {RuleWelcomeSignature, func(g *GroupInfo) { g.Extensions = append(g.Extensions, Extension{0xF123, nil}) }},
	} {
		t.Run(name, func(t *testing.T) {
			info, err := ParseGroupInfo(good.Bytes())
			h.must(err)
			c.damage(info)
			wantRule(t, staged.CheckGroupInfo(info), c.rule)
			if staged.info != nil {
				t.Fatal("a GroupInfo that was refused is kept")
			}
		})
	}
	partial, err := good.Partial()
	h.must(err)
	partial.Presence = TreePresent
	_, err = staged.RebuildGroupInfo(partial)
	wantRule(t, err, RulePartialPresence)
	good.Extensions = good.Extensions.With(ExtensionRatchetTree, h.hub.Current().RatchetTree())
	_, err = good.Partial()
	wantRule(t, err, RulePartialPresence)
}

func TestPublicGroupRefuses(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	hub := h.hub
	private, err := h.groups["m1"].Propose(h.ctx, &Remove{0}, ProposeOptions{})
	h.must(err)
	m, err := ParseMessage(private)
	h.must(err)
	_, _, err = hub.Process(h.ctx, m)
	wantRule(t, err, RulePublicHandshake)
	wantRule(t, hub.CheckApplication(m), RulePublicHandshake)

	// A stage of a member is none of the hub's, and the other way round.
	staged, _ := h.stageAtHub(CommitOptions{})
	if err := h.groups["m1"].Merge(h.ctx, staged); !errors.Is(err, ErrStale) {
		t.Fatalf("a member merged the hub's stage: %v", err)
	}
	h.groups["m1"].ClearProposals()
	h.commitThrough("m2")
	if err := hub.Merge(staged); !errors.Is(err, ErrStale) {
		t.Fatalf("a stage of a past epoch was merged: %v", err)
	}
	if _, err := hub.Propose(h.ctx, newSigner(t, suites[h.suite]), &Remove{0}, nil); err == nil {
		t.Fatal("proposed without being an external sender")
	}
	if _, err := hub.Propose(h.ctx, h.signer, &Remove{77}, nil); err == nil {
		t.Fatal("proposed to remove a blank leaf")
	}
	// Of two SelfRemoves that a member sends in one epoch the first counts.
	twin := reload(t, h.groups["m2"])
	h.proposeThrough("m2", &SelfRemove{}, WirePublicMessage)
	second, err := twin.Propose(h.ctx, &SelfRemove{}, ProposeOptions{WireFormat: WirePublicMessage, AuthenticatedData: []byte("again")})
	h.must(err)
	m, err = ParseMessage(second)
	h.must(err)
	_, _, err = hub.Process(h.ctx, m)
	wantRule(t, err, RuleSelfRemoveOnce)
	h.commitThrough("m0")

	application, err := h.groups["m1"].Send(h.ctx, []byte("x"), nil)
	h.must(err)
	m, err = ParseMessage(application)
	h.must(err)
	h.must(hub.CheckApplication(m))
	if _, err := hub.Verify(h.ctx, m); !errors.Is(err, ErrUnsupported) {
		t.Fatalf("application data as a handshake: %v", err)
	}
	m.PrivateMessage.Epoch++
	if err := hub.CheckApplication(m); !errors.Is(err, ErrWrongEpoch) {
		t.Fatalf("application data of another epoch: %v", err)
	}

	h.commitThrough("m0", &ReInit{[]byte("next"), MLS10, h.suite, nil})
	if _, err := h.hub.Verify(h.ctx, m); !errors.Is(err, ErrReInitialized) || h.hub.ReInit() == nil {
		t.Fatalf("after ReInit: %v", err)
	}
}

func TestPublicGroupJudges(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	refused := errors.New("nobody of that name")
	h.cfg.Judge = func(_ context.Context, j *Judgement) error {
		if string(j.Leaf.Credential.Identity()) == "mallory" {
			return refused
		}
		return nil
	}
	h.cfg.Now = func() time.Time { return time.Now().Add(1000 * 24 * time.Hour) }
	var err error
	h.hub, err = UnmarshalPublicGroup(h.stateBytes(), h.cfg)
	h.must(err)
	stage := func(name string) error {
		e, err := newTestClient(t, h.suite, name, h.memberConfig).NewKeyPackage(h.ctx, KeyPackageOptions{})
		h.must(err)
		p, err := h.groups["m0"].Commit(h.ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, WireFormat: WirePublicMessage})
		h.must(err)
		h.must(h.groups["m0"].DiscardPending(h.ctx))
		m, err := ParseMessage(p.Message)
		h.must(err)
		_, _, err = h.hub.Process(h.ctx, m)
		return err
	}
	wantRule(t, stage("late"), RuleLeafLifetime)
	h.hub.cfg.Now = nil
	wantRule(t, stage("mallory"), RuleLeafCredential)
	h.must(stage("nancy"))

	p, err := h.groups["m0"].Commit(h.ctx, CommitOptions{Proposals: []Proposal{UpdateAppData(testComponent, []byte("new"))}, WireFormat: WirePublicMessage})
	h.must(err)
	m, err := ParseMessage(p.Message)
	h.must(err)
	_, staged, err := h.hub.Process(h.ctx, m)
	h.must(err)
	if c := staged.ComponentChanges(); len(c) != 1 || string(c[0].Old) != "first" || string(c[0].New) != "new" {
		t.Fatalf("changes of components: %v", c)
	}
	h.hub.cfg.Components = nil
	_, _, err = h.hub.Process(h.ctx, m)
	wantRule(t, err, RuleComponentUnknown)
}

// Readers of an epoch are not disturbed by commits.
func TestPublicEpochIsStable(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	e := h.hub.Current()
	tree, done := e.RatchetTree(), make(chan bool)
	go func() {
		defer close(done)
		for range 50 {
			if !bytes.Equal(e.RatchetTree(), tree) || e.Size() != 3 || h.hub.Current().Size() < 3 {
				t.Error("an epoch changed")
			}
		}
	}()
	for range 5 {
		h.commitThrough(h.anyone())
	}
	<-done
}

func TestPublicGroupStart(t *testing.T) {
	h := smallHubRoom(t, WirePublicMessage)
	gi, err := h.groups["m1"].GroupInfo(h.ctx, GroupInfoOptions{ExternalPub: true})
	h.must(err)
	h.must(h.hub.SetGroupInfo(gi))
	if h.hub.GroupInfo() != gi {
		t.Fatal("the GroupInfo is not kept")
	}
	_, err = NewPublicGroup(h.ctx, gi, nil, h.cfg)
	if !errors.Is(err, ErrNoTree) {
		t.Fatalf("without a tree: %v", err)
	}
	_, err = NewPublicGroup(h.ctx, gi, &RatchetTreeOption{Representation: TreeDistributionService}, h.cfg)
	wantRule(t, err, RuleTreeOption)
	cfg := h.cfg
	cfg.Limits.MaxMembers = 2
	_, err = NewPublicGroup(h.ctx, gi, h.hub.TreeOption(), cfg)
	wantRule(t, err, RuleAddLeafLimit)
	with, err := h.groups["m1"].GroupInfo(h.ctx, GroupInfoOptions{RatchetTree: true})
	h.must(err)
	p, err := NewPublicGroup(h.ctx, with, nil, h.cfg)
	h.must(err)
	wantBytes(t, "tree", p.Current().RatchetTree(), h.hub.Current().RatchetTree())
	if p.GroupInfo() != nil {
		t.Fatal("a GroupInfo with its tree is kept")
	}
}
