package mls

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// The working group's vectors (mlswg/mls-implementations) come with a module
// that only tests import.
const vectorModule = "github.com/thomas-vilte/mls-go"

var vectorFolder = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", vectorModule).Output()
	dir := strings.TrimSpace(string(out))
	return filepath.Join(dir, "testdata", "mls-interop-testvectors", "test-vectors"), err
})

type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

// loadVectors reads a file whole: an unknown field or an empty set fails.
func loadVectors[T any](t testing.TB, name string) []T {
	t.Helper()
	dir, err := vectorFolder()
	if err != nil {
		t.Fatalf("finding %s: %v", vectorModule, err)
	}
	f, err := os.Open(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var cases []T
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&cases); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(cases) == 0 {
		t.Fatalf("%s holds no case", name)
	}
	return cases
}

// eachSuite runs a case for each vector of a suite that we have. Suites 4 and
// 6 (X448, Ed448) are the only ones that may be left out.
func eachSuite[T any](t *testing.T, name string, suiteOf func(*T) CipherSuite, run func(*testing.T, *suite, *T)) {
	cases := loadVectors[T](t, name)
	ran := 0
	for i := range cases {
		c := &cases[i]
		s := suites[suiteOf(c)]
		if s == nil {
			if n := suiteOf(c); n != 4 && n != 6 {
				t.Errorf("case %d has the unknown suite %d", i, n)
			}
			continue
		}
		ran++
		run(t, s, c)
	}
	if ran == 0 {
		t.Fatalf("%s: no case has one of our suites", name)
	}
	t.Logf("%s: %d cases of %d", name, ran, len(cases))
}

// vectorSigner makes a signer of a vector's private key.
func vectorSigner(t testing.TB, s *suite, priv []byte) crypto.Signer {
	t.Helper()
	if s.sig.curve == nil {
		return ed25519.NewKeyFromSeed(priv[:32])
	}
	k, err := ecdsa.ParseRawPrivateKey(s.sig.curve, padKey(priv, (s.sig.curve.Params().BitSize+7)/8))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// padKey restores leading zeros: some vectors give a private key as a number.
func padKey(b []byte, n int) []byte {
	return append(make([]byte, max(n-len(b), 0)), b...)
}

func vectorHPKE(t testing.TB, s *suite, priv []byte) keyPair {
	t.Helper()
	if s.sig.curve != nil {
		priv = padKey(priv, (s.sig.curve.Params().BitSize+7)/8)
	}
	k, err := s.kem.NewPrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return newKeyPair(k)
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

func mustDecode(t testing.TB, what string, b []byte, m interface {
	marshaler
	unmarshaler
}) {
	t.Helper()
	if err := decode(what, b, m); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, what+" re-encoded", encode(m), b)
}

type treeMathVector struct {
	NLeaves uint32    `json:"n_leaves"`
	NNodes  uint32    `json:"n_nodes"`
	Root    uint32    `json:"root"`
	Left    []*uint32 `json:"left"`
	Right   []*uint32 `json:"right"`
	Parent  []*uint32 `json:"parent"`
	Sibling []*uint32 `json:"sibling"`
}

func TestVectorsTreeMath(t *testing.T) {
	check := func(what string, x uint32, got NodeIndex, ok bool, want *uint32) {
		if ok != (want != nil) || ok && uint32(got) != *want {
			t.Errorf("%s of %d: got %d, %v", what, x, got, ok)
		}
	}
	for _, c := range loadVectors[treeMathVector](t, "tree-math") {
		size := sizeFor(c.NLeaves)
		if uint32(size.nodes()) != c.NNodes || uint32(size.root()) != c.Root {
			t.Errorf("%d leaves: %d nodes, root %d", c.NLeaves, size.nodes(), size.root())
		}
		for x := range c.NNodes {
			l, ok := NodeIndex(x).left()
			check("left", x, l, ok, c.Left[x])
			r, ok := NodeIndex(x).right()
			check("right", x, r, ok, c.Right[x])
			p, ok := size.parent(NodeIndex(x))
			check("parent", x, p, ok, c.Parent[x])
			sib, ok := size.sibling(NodeIndex(x))
			check("sibling", x, sib, ok, c.Sibling[x])
		}
	}
}

type deserializationVector struct {
	Header hexBytes `json:"vlbytes_header"`
	Length int      `json:"length"`
}

func TestVectorsDeserialization(t *testing.T) {
	for _, c := range loadVectors[deserializationVector](t, "deserialization") {
		r := tlsvec.NewReader(c.Header)
		if got := r.Length(); got != c.Length || r.Done() != nil {
			t.Errorf("%x: got %d, %v; want %d", c.Header, got, r.Err(), c.Length)
		}
		wantBytes(t, "header", tlsvec.AppendLength(nil, c.Length), c.Header)
	}
}

type cryptoBasicsVector struct {
	CipherSuite CipherSuite `json:"cipher_suite"`
	RefHash     struct {
		Label string   `json:"label"`
		Value hexBytes `json:"value"`
		Out   hexBytes `json:"out"`
	} `json:"ref_hash"`
	ExpandWithLabel struct {
		Secret  hexBytes `json:"secret"`
		Label   string   `json:"label"`
		Context hexBytes `json:"context"`
		Length  int      `json:"length"`
		Out     hexBytes `json:"out"`
	} `json:"expand_with_label"`
	DeriveSecret struct {
		Secret hexBytes `json:"secret"`
		Label  string   `json:"label"`
		Out    hexBytes `json:"out"`
	} `json:"derive_secret"`
	DeriveTreeSecret struct {
		Secret     hexBytes `json:"secret"`
		Label      string   `json:"label"`
		Generation uint32   `json:"generation"`
		Length     int      `json:"length"`
		Out        hexBytes `json:"out"`
	} `json:"derive_tree_secret"`
	SignWithLabel struct {
		Priv      hexBytes `json:"priv"`
		Pub       hexBytes `json:"pub"`
		Content   hexBytes `json:"content"`
		Label     string   `json:"label"`
		Signature hexBytes `json:"signature"`
	} `json:"sign_with_label"`
	EncryptWithLabel struct {
		Priv       hexBytes `json:"priv"`
		Pub        hexBytes `json:"pub"`
		Label      string   `json:"label"`
		Context    hexBytes `json:"context"`
		Plaintext  hexBytes `json:"plaintext"`
		KEMOutput  hexBytes `json:"kem_output"`
		Ciphertext hexBytes `json:"ciphertext"`
	} `json:"encrypt_with_label"`
}

func TestVectorsCryptoBasics(t *testing.T) {
	eachSuite(t, "crypto-basics", func(c *cryptoBasicsVector) CipherSuite { return c.CipherSuite }, testCryptoBasics)
}

func testCryptoBasics(t *testing.T, s *suite, c *cryptoBasicsVector) {
	wantBytes(t, "RefHash", s.refHash(c.RefHash.Label, c.RefHash.Value), c.RefHash.Out)
	e := &c.ExpandWithLabel
	wantBytes(t, "ExpandWithLabel", s.expandWithLabel(e.Secret, e.Label, e.Context, e.Length), e.Out)
	wantBytes(t, "DeriveSecret", s.deriveSecret(c.DeriveSecret.Secret, c.DeriveSecret.Label), c.DeriveSecret.Out)
	d := &c.DeriveTreeSecret
	wantBytes(t, "DeriveTreeSecret", s.deriveTreeSecret(d.Secret, d.Label, d.Generation, d.Length), d.Out)

	g := &c.SignWithLabel
	if err := s.verifyWithLabel(g.Pub, g.Label, g.Content, g.Signature); err != nil {
		t.Errorf("vector's signature: %v", err)
	}
	sig, err := s.signWithLabel(context.Background(), vectorSigner(t, s, g.Priv), g.Label, g.Content)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.verifyWithLabel(g.Pub, g.Label, g.Content, sig); err != nil {
		t.Errorf("own signature: %v", err)
	}
	if s.verifyWithLabel(g.Pub, g.Label+"x", g.Content, sig) == nil {
		t.Error("signature verifies under another label")
	}

	h := &c.EncryptWithLabel
	priv := vectorHPKE(t, s, h.Priv)
	wantBytes(t, "HPKE public key", priv.public, h.Pub)
	pt, err := s.decryptWithLabel(priv.private, h.Label, h.Context, HPKECiphertext{h.KEMOutput, h.Ciphertext})
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "plaintext", pt, h.Plaintext)
	own, err := s.encryptWithLabel(h.Pub, h.Label, h.Context, h.Plaintext)
	if err != nil {
		t.Fatal(err)
	}
	pt, err = s.decryptWithLabel(priv.private, h.Label, h.Context, own)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "own ciphertext", pt, h.Plaintext)
}

type secretTreeVector struct {
	CipherSuite CipherSuite `json:"cipher_suite"`
	SenderData  struct {
		Secret     hexBytes `json:"sender_data_secret"`
		Ciphertext hexBytes `json:"ciphertext"`
		Key        hexBytes `json:"key"`
		Nonce      hexBytes `json:"nonce"`
	} `json:"sender_data"`
	EncryptionSecret hexBytes `json:"encryption_secret"`
	Leaves           [][]struct {
		Generation       uint32   `json:"generation"`
		HandshakeKey     hexBytes `json:"handshake_key"`
		HandshakeNonce   hexBytes `json:"handshake_nonce"`
		ApplicationKey   hexBytes `json:"application_key"`
		ApplicationNonce hexBytes `json:"application_nonce"`
	} `json:"leaves"`
}

func TestVectorsSecretTree(t *testing.T) {
	eachSuite(t, "secret-tree", func(c *secretTreeVector) CipherSuite { return c.CipherSuite }, testSecretTree)
}

func testSecretTree(t *testing.T, s *suite, c *secretTreeVector) {
	k := s.senderDataKey(c.SenderData.Secret, c.SenderData.Ciphertext)
	wantBytes(t, "sender data key", k.key, c.SenderData.Key)
	wantBytes(t, "sender data nonce", k.nonce, c.SenderData.Nonce)
	tree := newSecretTree(s, sizeFor(uint32(len(c.Leaves))), bytes.Clone(c.EncryptionSecret))
	lim := ratchetLimits{forward: 1000, kept: 1000}
	for l, generations := range c.Leaves {
		for _, g := range generations {
			for _, content := range []ContentType{ContentCommit, ContentApplication} {
				r, err := tree.ratchet(LeafIndex(l), content)
				if err != nil {
					t.Fatal(err)
				}
				k, err := r.find(s, g.Generation, lim)
				if err != nil {
					t.Fatal(err)
				}
				key, nonce := g.HandshakeKey, g.HandshakeNonce
				if content == ContentApplication {
					key, nonce = g.ApplicationKey, g.ApplicationNonce
				}
				wantBytes(t, "key", k.key, key)
				wantBytes(t, "nonce", k.nonce, nonce)
			}
		}
	}
}

type keyScheduleVector struct {
	CipherSuite       CipherSuite `json:"cipher_suite"`
	GroupID           hexBytes    `json:"group_id"`
	InitialInitSecret hexBytes    `json:"initial_init_secret"`
	Epochs            []struct {
		TreeHash                hexBytes `json:"tree_hash"`
		CommitSecret            hexBytes `json:"commit_secret"`
		PSKSecret               hexBytes `json:"psk_secret"`
		ConfirmedTranscriptHash hexBytes `json:"confirmed_transcript_hash"`
		GroupContext            hexBytes `json:"group_context"`
		JoinerSecret            hexBytes `json:"joiner_secret"`
		WelcomeSecret           hexBytes `json:"welcome_secret"`
		InitSecret              hexBytes `json:"init_secret"`
		SenderDataSecret        hexBytes `json:"sender_data_secret"`
		EncryptionSecret        hexBytes `json:"encryption_secret"`
		ExporterSecret          hexBytes `json:"exporter_secret"`
		EpochAuthenticator      hexBytes `json:"epoch_authenticator"`
		ExternalSecret          hexBytes `json:"external_secret"`
		ConfirmationKey         hexBytes `json:"confirmation_key"`
		MembershipKey           hexBytes `json:"membership_key"`
		ResumptionPSK           hexBytes `json:"resumption_psk"`
		ExternalPub             hexBytes `json:"external_pub"`
		Exporter                struct {
			Label   string   `json:"label"`
			Context hexBytes `json:"context"`
			Length  int      `json:"length"`
			Secret  hexBytes `json:"secret"`
		} `json:"exporter"`
	} `json:"epochs"`
}

func TestVectorsKeySchedule(t *testing.T) {
	eachSuite(t, "key-schedule", func(c *keyScheduleVector) CipherSuite { return c.CipherSuite }, testKeySchedule)
}

func testKeySchedule(t *testing.T, s *suite, c *keyScheduleVector) {
	init := []byte(c.InitialInitSecret)
	for i, e := range c.Epochs {
		ctx := encode(&GroupContext{
			Version: MLS10, CipherSuite: s.id, GroupID: c.GroupID, Epoch: uint64(i),
			TreeHash: e.TreeHash, ConfirmedTranscriptHash: e.ConfirmedTranscriptHash,
		})
		wantBytes(t, "group_context", ctx, e.GroupContext)
		joiner := s.joinerSecret(init, e.CommitSecret, ctx)
		wantBytes(t, "joiner_secret", joiner, e.JoinerSecret)
		got := s.deriveEpoch(joiner, e.PSKSecret, ctx)
		wantBytes(t, "welcome_secret", got.welcome, e.WelcomeSecret)
		wantBytes(t, "init_secret", got.init, e.InitSecret)
		wantBytes(t, "sender_data_secret", got.senderData, e.SenderDataSecret)
		wantBytes(t, "encryption_secret", got.encryption, e.EncryptionSecret)
		wantBytes(t, "exporter_secret", got.exporter, e.ExporterSecret)
		wantBytes(t, "epoch_authenticator", got.epochAuthenticator, e.EpochAuthenticator)
		wantBytes(t, "external_secret", got.external, e.ExternalSecret)
		wantBytes(t, "confirmation_key", got.confirmationKey, e.ConfirmationKey)
		wantBytes(t, "membership_key", got.membershipKey, e.MembershipKey)
		wantBytes(t, "resumption_psk", got.resumptionPSK, e.ResumptionPSK)
		k, err := s.externalKey(got)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "external_pub", k.PublicKey().Bytes(), e.ExternalPub)
		x := &e.Exporter
		wantBytes(t, "exporter", s.export(got.exporter, x.Label, x.Context, x.Length), x.Secret)
		init = got.init
	}
}

type pskVector struct {
	CipherSuite CipherSuite `json:"cipher_suite"`
	PSKs        []struct {
		ID    hexBytes `json:"psk_id"`
		PSK   hexBytes `json:"psk"`
		Nonce hexBytes `json:"psk_nonce"`
	} `json:"psks"`
	Secret hexBytes `json:"psk_secret"`
}

func TestVectorsPSKSecret(t *testing.T) {
	eachSuite(t, "psk_secret", func(c *pskVector) CipherSuite { return c.CipherSuite }, func(t *testing.T, s *suite, c *pskVector) {
		var psks []psk
		for _, p := range c.PSKs {
			psks = append(psks, psk{PreSharedKeyID{Type: PSKExternal, ID: p.ID, Nonce: p.Nonce}, p.PSK})
		}
		wantBytes(t, "psk_secret", s.pskSecret(psks), c.Secret)
	})
}

type transcriptVector struct {
	CipherSuite          CipherSuite `json:"cipher_suite"`
	ConfirmationKey      hexBytes    `json:"confirmation_key"`
	AuthenticatedContent hexBytes    `json:"authenticated_content"`
	InterimBefore        hexBytes    `json:"interim_transcript_hash_before"`
	ConfirmedAfter       hexBytes    `json:"confirmed_transcript_hash_after"`
	InterimAfter         hexBytes    `json:"interim_transcript_hash_after"`
}

func TestVectorsTranscriptHashes(t *testing.T) {
	eachSuite(t, "transcript-hashes", func(c *transcriptVector) CipherSuite { return c.CipherSuite }, func(t *testing.T, s *suite, c *transcriptVector) {
		a := new(AuthenticatedContent)
		mustDecode(t, "AuthenticatedContent", c.AuthenticatedContent, a)
		confirmed := s.confirmedTranscript(c.InterimBefore, a)
		wantBytes(t, "confirmed", confirmed, c.ConfirmedAfter)
		wantBytes(t, "interim", s.interimTranscript(confirmed, a.Auth.ConfirmationTag), c.InterimAfter)
		if !s.verifyMAC(c.ConfirmationKey, confirmed, a.Auth.ConfirmationTag) {
			t.Error("confirmation tag does not match")
		}
	})
}

type treeValidationVector struct {
	CipherSuite CipherSuite   `json:"cipher_suite"`
	Tree        hexBytes      `json:"tree"`
	GroupID     hexBytes      `json:"group_id"`
	Resolutions [][]NodeIndex `json:"resolutions"`
	TreeHashes  []hexBytes    `json:"tree_hashes"`
}

func TestVectorsTreeValidation(t *testing.T) {
	eachSuite(t, "tree-validation", func(c *treeValidationVector) CipherSuite { return c.CipherSuite }, testTreeValidation)
}

func testTreeValidation(t *testing.T, s *suite, c *treeValidationVector) {
	tree, err := parseTree(s, c.Tree)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, "tree", encode(tree), c.Tree)
	tree.hash()
	for x, n := range tree.nodes() {
		wantBytes(t, "tree hash", n.hash, c.TreeHashes[x])
		var got []NodeIndex
		for _, r := range n.resolution(x, nil) {
			got = append(got, r.x)
		}
		if len(got) != len(c.Resolutions[x]) {
			t.Errorf("resolution of %d: got %v, want %v", x, got, c.Resolutions[x])
			continue
		}
		for i := range got {
			if got[i] != c.Resolutions[x][i] {
				t.Errorf("resolution of %d: got %v, want %v", x, got, c.Resolutions[x])
			}
		}
	}
	ctx := &GroupContext{GroupID: c.GroupID, TreeHash: tree.hash()}
	if _, err := validateTree(tree, ctx, leafRules{}); err != nil {
		t.Error(err)
	}
}

type treeOperationsVector struct {
	CipherSuite    CipherSuite `json:"cipher_suite"`
	TreeBefore     hexBytes    `json:"tree_before"`
	Proposal       hexBytes    `json:"proposal"`
	ProposalSender LeafIndex   `json:"proposal_sender"`
	TreeHashBefore hexBytes    `json:"tree_hash_before"`
	TreeAfter      hexBytes    `json:"tree_after"`
	TreeHashAfter  hexBytes    `json:"tree_hash_after"`
}

func TestVectorsTreeOperations(t *testing.T) {
	eachSuite(t, "tree-operations", func(c *treeOperationsVector) CipherSuite { return c.CipherSuite }, func(t *testing.T, s *suite, c *treeOperationsVector) {
		before, err := parseTree(s, c.TreeBefore)
		if err != nil {
			t.Fatal(err)
		}
		wantBytes(t, "tree hash before", before.hash(), c.TreeHashBefore)
		p, err := ParseProposal(c.Proposal)
		if err != nil {
			t.Fatal(err)
		}
		after := before.fork()
		switch p := p.(type) {
		case *Add:
			after.add(p.KeyPackage.LeafNode)
		case *Update:
			after.update(c.ProposalSender, p.LeafNode)
		case *Remove:
			after.remove(p.Removed)
		default:
			t.Fatalf("unexpected %T", p)
		}
		wantBytes(t, "tree hash after", after.hash(), c.TreeHashAfter)
		wantBytes(t, "tree after", encode(after), c.TreeAfter)
		wantBytes(t, "tree before, after the edit", encode(before), c.TreeBefore)
	})
}

type treeKEMVector struct {
	CipherSuite             CipherSuite `json:"cipher_suite"`
	GroupID                 hexBytes    `json:"group_id"`
	Epoch                   uint64      `json:"epoch"`
	ConfirmedTranscriptHash hexBytes    `json:"confirmed_transcript_hash"`
	RatchetTree             hexBytes    `json:"ratchet_tree"`
	LeavesPrivate           []struct {
		Index          LeafIndex `json:"index"`
		EncryptionPriv hexBytes  `json:"encryption_priv"`
		SignaturePriv  hexBytes  `json:"signature_priv"`
		PathSecrets    []struct {
			Node       NodeIndex `json:"node"`
			PathSecret hexBytes  `json:"path_secret"`
		} `json:"path_secrets"`
	} `json:"leaves_private"`
	UpdatePaths []struct {
		Sender        LeafIndex   `json:"sender"`
		UpdatePath    hexBytes    `json:"update_path"`
		PathSecrets   []*hexBytes `json:"path_secrets"`
		CommitSecret  hexBytes    `json:"commit_secret"`
		TreeHashAfter hexBytes    `json:"tree_hash_after"`
	} `json:"update_paths"`
}

func TestVectorsTreeKEM(t *testing.T) {
	eachSuite(t, "treekem", func(c *treeKEMVector) CipherSuite { return c.CipherSuite }, testTreeKEM)
}

func testTreeKEM(t *testing.T, s *suite, c *treeKEMVector) {
	tree, err := parseTree(s, c.RatchetTree)
	if err != nil {
		t.Fatal(err)
	}
	members := map[LeafIndex]*ownKeys{}
	signers := map[LeafIndex]crypto.Signer{}
	for _, p := range c.LeavesPrivate {
		keys := &ownKeys{p.Index, vectorHPKE(t, s, p.EncryptionPriv), map[NodeIndex]keyPair{}}
		wantBytes(t, "leaf key", keys.leaf.public, tree.leaf(p.Index).EncryptionKey)
		for _, ps := range p.PathSecrets {
			pair, err := (&pathSecretChain{s, ps.PathSecret}).next()
			if err != nil {
				t.Fatal(err)
			}
			keys.parents[ps.Node] = pair
			wantBytes(t, "parent key", pair.public, tree.at(ps.Node).parent.EncryptionKey)
		}
		members[p.Index], signers[p.Index] = keys, vectorSigner(t, s, p.SignaturePriv)
	}
	ctx := &GroupContext{Version: MLS10, CipherSuite: s.id, GroupID: c.GroupID, Epoch: c.Epoch, ConfirmedTranscriptHash: c.ConfirmedTranscriptHash}
	for _, u := range c.UpdatePaths {
		path := new(UpdatePath)
		mustDecode(t, "UpdatePath", u.UpdatePath, path)
		after, steps := vectorMerge(t, tree, u.Sender, path)
		wantBytes(t, "tree hash after", after.hash(), u.TreeHashAfter)
		ctx.TreeHash = after.hash()
		vectorFollow(t, s, members, u.Sender, path, steps, encode(ctx), u.CommitSecret, u.PathSecrets)

		steps = tree.filteredPath(u.Sender)
		np, err := s.derivePath(steps, random(s.nh))
		if err != nil {
			t.Fatal(err)
		}
		parents, hash := tree.pathParents(steps, np.publicKeys())
		leaf := *tree.leaf(u.Sender)
		leaf.raw, leaf.Source, leaf.ParentHash = nil, LeafFromCommit, hash
		if err := leaf.sign(context.Background(), s, signers[u.Sender], c.GroupID, u.Sender); err != nil {
			t.Fatal(err)
		}
		after = tree.fork()
		after.setPath(u.Sender, &leaf, steps, parents)
		ctx.TreeHash = after.hash()
		nodes, err := np.encrypt(s, encode(ctx), nil)
		if err != nil {
			t.Fatal(err)
		}
		vectorFollow(t, s, members, u.Sender, &UpdatePath{&leaf, nodes}, steps, encode(ctx), np.commitSecret, nil)
	}
}

func vectorMerge(t *testing.T, tree *ratchetTree, sender LeafIndex, path *UpdatePath) (*ratchetTree, []pathStep) {
	steps := tree.filteredPath(sender)
	if err := checkPathShape(tree.suite, path, steps, nil); err != nil {
		t.Fatal(err)
	}
	parents, hash := tree.pathParents(steps, path.publicKeys())
	wantBytes(t, "parent hash", path.LeafNode.ParentHash, hash)
	after := tree.fork()
	after.setPath(sender, path.LeafNode, steps, parents)
	return after, steps
}

func vectorFollow(t *testing.T, s *suite, members map[LeafIndex]*ownKeys, sender LeafIndex, path *UpdatePath, steps []pathStep, context, commitSecret []byte, secrets []*hexBytes) {
	for l, keys := range members {
		if l == sender {
			continue
		}
		_, got, err := decryptPath(s, keys, sender, path, steps, context, nil)
		if err != nil {
			t.Fatalf("leaf %d: %v", l, err)
		}
		wantBytes(t, "commit secret", got, commitSecret)
		if secrets == nil {
			continue
		}
		x := nodeAt(l, commonAncestorLevel(sender, l))
		for i := range steps {
			if steps[i].x == x {
				secret, err := openStep(s, keys, &steps[i], &path.Nodes[i], context, nil)
				if err != nil {
					t.Fatal(err)
				}
				wantBytes(t, "path secret", secret, *secrets[l])
			}
		}
	}
}
