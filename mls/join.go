package mls

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
)

// JoinOptions help to join a group.
type JoinOptions struct {
	// RatchetTree is the encoded tree, if the Welcome or GroupInfo does not
	// carry it.
	RatchetTree []byte
	// Parent is the group from which the Welcome's group was reinitialised or
	// branched.
	Parent *Group
	// KeepKeyPackage leaves the KeyPackage in storage. One that is marked as a
	// last resort stays in any case.
	KeepKeyPackage bool
}

// A StagedWelcome is a group that this client may enter: everything is
// checked, nothing is stored, the KeyPackage is not used up.
type StagedWelcome struct {
	group *Group
	info  *GroupInfo
	entry *KeyPackageEntry
	opts  JoinOptions
}

// Members yields the members of the group.
func (w *StagedWelcome) Members() iter.Seq[Member] { return w.group.Members() }

// Sender is the leaf that sent the Welcome.
func (w *StagedWelcome) Sender() LeafIndex { return w.info.Signer }

// GroupInfo is what the Welcome said. It is read-only.
func (w *StagedWelcome) GroupInfo() *GroupInfo { return w.info }

// Join enters the group. In storage the KeyPackage is replaced by the group,
// in one step.
func (w *StagedWelcome) Join(ctx context.Context) (*Group, error) {
	b := &Batch{}
	if !w.opts.KeepKeyPackage && !w.entry.KeyPackage.LastResort() {
		b.DeleteKeyPackages = [][]byte{w.entry.Ref()}
	}
	if err := w.group.save(ctx, b); err != nil {
		return nil, err
	}
	return w.group, nil
}

// Join stages a Welcome and enters the group.
func (c *Client) Join(ctx context.Context, welcome *Welcome, entries []*KeyPackageEntry, opts JoinOptions) (*Group, error) {
	w, err := c.StageWelcome(ctx, welcome, entries, opts)
	if err != nil {
		return nil, err
	}
	return w.Join(ctx)
}

// StageWelcome opens a Welcome with the one of the client's KeyPackages that
// it names (section 12.4.3.1). Without entries they are looked up in Storage.
func (c *Client) StageWelcome(ctx context.Context, welcome *Welcome, entries []*KeyPackageEntry, opts JoinOptions) (*StagedWelcome, error) {
	if welcome.CipherSuite != c.suite.id {
		return nil, broken(RuleWelcomeSuite, "Welcome is for cipher suite 0x%04x, the client has 0x%04x", uint16(welcome.CipherSuite), uint16(c.suite.id))
	}
	entry, part, err := c.findEntry(ctx, welcome, entries)
	if err != nil {
		return nil, err
	}
	if entry.KeyPackage.CipherSuite != c.suite.id {
		return nil, broken(RuleWelcomeSuite, "KeyPackage is for cipher suite 0x%04x, the Welcome for 0x%04x", uint16(entry.KeyPackage.CipherSuite), uint16(c.suite.id))
	}
	secrets, err := welcome.openSecrets(c.suite, part, entry.init.private)
	if err != nil {
		return nil, err
	}
	j := &joiner{client: c, opts: opts, entry: entry, secrets: secrets}
	g, info, err := j.join(ctx, welcome)
	if err != nil {
		return nil, err
	}
	return &StagedWelcome{g, info, entry, opts}, nil
}

func (c *Client) findEntry(ctx context.Context, w *Welcome, entries []*KeyPackageEntry) (*KeyPackageEntry, *EncryptedGroupSecrets, error) {
	for _, e := range entries {
		if part := w.For(e.Ref()); part != nil {
			return e, part, nil
		}
	}
	if len(entries) > 0 || c.cfg.Storage == nil {
		return nil, nil, ErrNotForUs
	}
	for i := range w.Secrets {
		e, err := c.LoadKeyPackage(ctx, w.Secrets[i].NewMember)
		if err == nil {
			return e, &w.Secrets[i], nil
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, nil, err
		}
	}
	return nil, nil, ErrNotForUs
}

// A joiner takes the steps of section 12.4.3.1.
type joiner struct {
	client  *Client
	opts    JoinOptions
	entry   *KeyPackageEntry
	secrets *groupSecrets
	special *PreSharedKeyID // the reinit or branch PSK
}

func (j *joiner) join(ctx context.Context, w *Welcome) (*Group, *GroupInfo, error) {
	s := j.client.suite
	psks, err := j.psks(ctx)
	if err != nil {
		return nil, nil, err
	}
	pskSecret := s.pskSecret(psks)
	member := s.memberSecret(j.secrets.joiner, pskSecret)
	info, err := w.openGroupInfo(s, s.deriveSecret(member, "welcome"))
	if err != nil {
		return nil, nil, err
	}
	if err := j.client.idUnused(ctx, info.GroupContext.GroupID); err != nil {
		return nil, nil, err
	}
	p, err := j.client.openGroupInfo(ctx, info, j.opts.RatchetTree)
	if err != nil {
		return nil, nil, err
	}
	keys, err := j.keys(p, info)
	if err != nil {
		return nil, nil, err
	}
	secrets := s.deriveEpoch(j.secrets.joiner, pskSecret, p.raw)
	if !s.verifyMAC(secrets.confirmationKey, p.context.ConfirmedTranscriptHash, info.ConfirmationTag) {
		return nil, nil, brokenBy(RuleWelcomeConfirmation, ErrBadMAC, "confirmation_tag of the GroupInfo")
	}
	if err := j.checkParent(ctx, p); err != nil {
		return nil, nil, err
	}
	p.confirm(info.ConfirmationTag)
	g := &Group{client: j.client, signer: j.client.cfg.Signer, public: p, keys: keys}
	g.enter(secrets)
	return g, info, nil
}

// psks finds the PSKs that the Welcome names.
func (j *joiner) psks(ctx context.Context) ([]psk, error) {
	psks, seen := make([]psk, len(j.secrets.psks)), map[string]bool{}
	for i := range j.secrets.psks {
		id := &j.secrets.psks[i]
		if len(id.Nonce) != j.client.suite.nh {
			return nil, broken(RulePSKNonce, "psk_nonce has %d octets", len(id.Nonce))
		}
		if id.Type == PSKResumption && id.Usage != UsageApplication {
			if j.special != nil {
				return nil, broken(RuleWelcomePSKAlone, "two reinit or branch PSKs")
			}
			j.special = id
		}
		key := string(encode(id))
		if seen[key] {
			return nil, broken(RuleListSamePSK, "one PreSharedKeyID twice")
		}
		seen[key] = true
		secret, err := j.psk(ctx, id)
		if err != nil {
			return nil, brokenBy(RuleCommitPSKAvailable, err, "PSK %d of the Welcome", i)
		}
		psks[i] = psk{*id, secret}
	}
	return psks, nil
}

func (j *joiner) psk(ctx context.Context, id *PreSharedKeyID) ([]byte, error) {
	if g := j.opts.Parent; g != nil && id.Type == PSKResumption && bytes.Equal(id.GroupID, g.public.context.GroupID) {
		return g.lookupPSK(ctx, id)
	}
	return j.client.lookupPSK(ctx, id)
}

// openGroupInfo validates a GroupInfo and its tree, and asks whether the
// members are believed.
func (c *Client) openGroupInfo(ctx context.Context, info *GroupInfo, tree []byte) (*publicState, error) {
	p, err := c.publicState(info, tree)
	if err != nil {
		return nil, err
	}
	for i := range info.GroupContext.Extensions {
		if t := info.GroupContext.Extensions[i].Type; !c.cfg.Capabilities.supportsExtension(t) {
			return nil, broken(RuleWelcomeExtensions, "GroupContext extension 0x%04x is not supported here", uint16(t))
		}
	}
	for l, leaf := range p.tree.leaves() {
		j := &Judgement{GroupID: p.context.GroupID, Leaf: leaf, Index: l, Joining: true}
		if err := c.judge(ctx, j); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// publicState checks tree and signature of a GroupInfo.
func (c *Client) publicState(info *GroupInfo, tree []byte) (*publicState, error) {
	if info.GroupContext.CipherSuite != c.suite.id {
		return nil, broken(RuleWelcomeSuite, "GroupInfo is for cipher suite 0x%04x", uint16(info.GroupContext.CipherSuite))
	}
	p, err := newPublicState(c.suite, info, tree, c.receiving())
	if err == nil {
		p.raw = p.context.bytes()
	}
	return p, err
}

func newPublicState(s *suite, info *GroupInfo, tree []byte, rules leafRules) (*publicState, error) {
	if data, ok := info.Extensions.Find(ExtensionRatchetTree); ok {
		tree = data
	}
	if tree == nil {
		return nil, ErrNoTree
	}
	if err := info.GroupContext.Extensions.checkKnown(); err != nil {
		return nil, err
	}
	if _, err := info.Extensions.AppData(); err != nil {
		return nil, err
	}
	p := &publicState{suite: s, context: info.GroupContext}
	var err error
	if p.tree, err = parseTree(s, bytes.Clone(tree)); err != nil {
		return nil, err
	}
	if p.census, err = validateTree(p.tree, &p.context, rules); err != nil {
		return nil, err
	}
	signer := p.tree.leaf(info.Signer)
	if signer == nil {
		return nil, broken(RuleWelcomeSignature, "signer's leaf %d is blank", info.Signer)
	}
	return p, info.verify(s, signer.SignatureKey)
}

// keys finds our leaf and derives the parents' keys from the path secret.
func (j *joiner) keys(p *publicState, info *GroupInfo) (*ownKeys, error) {
	own := j.entry.KeyPackage.LeafNode
	keys := &ownKeys{leaf: j.entry.leaf, parents: map[NodeIndex]keyPair{}}
	found := false
	for l, leaf := range p.tree.leaves() {
		if bytes.Equal(leaf.raw, own.raw) {
			keys.index, found = l, true
			break
		}
	}
	if !found {
		return nil, broken(RuleWelcomeOwnLeaf, "no leaf of the tree is the KeyPackage's")
	}
	if j.secrets.pathSecret == nil {
		return keys, nil
	}
	if keys.index == info.Signer {
		return nil, broken(RuleWelcomePathSecret, "the Welcome's sender is our own leaf")
	}
	return j.followTree(p, keys, commonAncestorLevel(keys.index, info.Signer))
}

// followTree derives keys from the common ancestor up; blank nodes are not on
// the sender's filtered path.
func (j *joiner) followTree(p *publicState, keys *ownKeys, level int) (*ownKeys, error) {
	var steps []pathStep
	var public [][]byte
	for ; level <= p.tree.size.height(); level++ {
		x := nodeAt(keys.index, level)
		if n := p.tree.at(x); n.parent != nil {
			steps = append(steps, pathStep{x: x})
			public = append(public, n.parent.EncryptionKey)
		} else if len(steps) == 0 {
			return nil, broken(RuleWelcomePathSecret, "path secret for the blank node %d", x)
		}
	}
	keys, _, err := followPath(p.suite, keys, steps, public, j.secrets.pathSecret)
	if err != nil {
		return nil, brokenBy(RuleWelcomePathSecret, err, "path secret of the Welcome")
	}
	return keys, nil
}

// checkParent checks a reinitialised or branched group against its parent
// (sections 11.2, 11.3).
func (j *joiner) checkParent(ctx context.Context, p *publicState) error {
	if j.special == nil {
		return nil
	}
	if p.context.Epoch != 1 {
		return broken(RuleWelcomeEpoch, "epoch is %d", p.context.Epoch)
	}
	parent, err := j.parent(ctx)
	if err != nil {
		return err
	}
	if j.special.Usage == UsageReInit {
		return checkReInit(parent, j.special, p)
	}
	return checkBranch(parent, p)
}

func (j *joiner) parent(ctx context.Context) (*Group, error) {
	if g := j.opts.Parent; g != nil && bytes.Equal(g.public.context.GroupID, j.special.GroupID) {
		return g, nil
	}
	if j.client.cfg.Storage == nil {
		return nil, fmt.Errorf("%w: the group that this one succeeds", ErrNotFound)
	}
	return j.client.LoadGroup(ctx, j.special.GroupID)
}

func checkReInit(parent *Group, id *PreSharedKeyID, p *publicState) error {
	r := parent.reinit
	switch {
	case r == nil || id.Epoch != parent.Epoch():
		return broken(RuleReInitWelcome, "the last commit of the old group has no ReInit")
	case !bytes.Equal(r.GroupID, p.context.GroupID) || r.Version != p.context.Version || r.CipherSuite != p.context.CipherSuite:
		return broken(RuleReInitWelcome, "group_id, version or cipher suite differ from the ReInit")
	case !r.Extensions.equal(p.context.Extensions):
		return broken(RuleReInitWelcome, "extensions differ from the ReInit")
	}
	now := credentials(p.tree)
	for _, leaf := range parent.public.tree.leaves() {
		if !now[credentialName(leaf)] {
			return broken(RuleReInitWelcome, "a member of the old group is missing")
		}
	}
	return checkDescent(RuleReInitWelcome, parent, p)
}

func checkBranch(parent *Group, p *publicState) error {
	if p.context.Version != parent.public.context.Version || p.context.CipherSuite != parent.public.context.CipherSuite {
		return broken(RuleBranchWelcome, "version or cipher suite differ from the old group's")
	}
	return checkDescent(RuleBranchWelcome, parent, p)
}

// checkDescent checks that every member was one of the old group.
func checkDescent(rule Rule, parent *Group, p *publicState) error {
	then := credentials(parent.public.tree)
	for l, leaf := range p.tree.leaves() {
		if !then[credentialName(leaf)] {
			return broken(rule, "leaf %d was not in the old group", l)
		}
	}
	return nil
}

// credentialName identifies a member across groups: by its credential.
func credentialName(l *LeafNode) string { return string(encode(&l.Credential)) }

func credentials(t *ratchetTree) map[string]bool {
	set := make(map[string]bool, t.members())
	for _, leaf := range t.leaves() {
		set[credentialName(leaf)] = true
	}
	return set
}
