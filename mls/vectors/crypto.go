package vectors

import (
	"context"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

type treeMathVector struct {
	NLeaves uint32    `json:"n_leaves"`
	NNodes  uint32    `json:"n_nodes"`
	Root    uint32    `json:"root"`
	Left    []*uint32 `json:"left"`
	Right   []*uint32 `json:"right"`
	Parent  []*uint32 `json:"parent"`
	Sibling []*uint32 `json:"sibling"`
}

func treeMath(c *check, v *treeMathVector) {
	shape, err := mls.NewTreeShape(v.NLeaves)
	if !c.ok("n_leaves", err) {
		return
	}
	if v.NNodes != 2*v.NLeaves-1 {
		c.fail("%d leaves with %d nodes are no full binary tree", v.NLeaves, v.NNodes)
	}
	if shape.Nodes() != v.NNodes || uint32(shape.Root()) != v.Root {
		c.fail("%d leaves: %d nodes with root %d, want %d with root %d", v.NLeaves, shape.Nodes(), shape.Root(), v.NNodes, v.Root)
		return
	}
	for _, of := range []struct {
		name string
		get  func(mls.NodeIndex) (mls.NodeIndex, bool)
		want []*uint32
	}{{"left", shape.Left, v.Left}, {"right", shape.Right, v.Right}, {"parent", shape.Parent, v.Parent}, {"sibling", shape.Sibling, v.Sibling}} {
		if len(of.want) != int(v.NNodes) {
			c.fail("%s lists %d of %d nodes", of.name, len(of.want), v.NNodes)
			continue
		}
		for x, want := range of.want {
			if got, has := of.get(mls.NodeIndex(x)); has != (want != nil) || has && uint32(got) != *want {
				c.fail("%s of node %d: got %d (%v)", of.name, x, got, has)
			}
		}
	}
}

type deserializationVector struct {
	Header hexBytes `json:"vlbytes_header"`
	Length int      `json:"length"`
}

func deserialization(c *check, v *deserializationVector) {
	r := tlsvec.NewReader(v.Header)
	got := r.Length()
	if c.ok("vlbytes_header", r.Done()) && got != v.Length {
		c.fail("length: got %d, want %d", got, v.Length)
	}
	c.equal("encoded length", tlsvec.AppendLength(nil, v.Length), v.Header)
}

type cryptoBasicsVector struct {
	CipherSuite mls.CipherSuite `json:"cipher_suite"`
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

func cryptoBasics(c *check, p mls.Primitives, v *cryptoBasicsVector) {
	c.length("expand_with_label: secret", v.ExpandWithLabel.Secret, p)
	c.length("derive_secret: secret", v.DeriveSecret.Secret, p)
	c.length("derive_tree_secret: secret", v.DeriveTreeSecret.Secret, p)
	c.equal("ref_hash", p.RefHash(v.RefHash.Label, v.RefHash.Value), v.RefHash.Out)
	e := &v.ExpandWithLabel
	c.value("expand_with_label", e.Out)(p.ExpandWithLabel(e.Secret, e.Label, e.Context, e.Length))
	c.equal("derive_secret", p.DeriveSecret(v.DeriveSecret.Secret, v.DeriveSecret.Label), v.DeriveSecret.Out)
	d := &v.DeriveTreeSecret
	c.value("derive_tree_secret", d.Out)(p.DeriveTreeSecret(d.Secret, d.Label, d.Generation, d.Length))
	checkSigning(c, p, v)
	checkEncryption(c, p, v)
}

func checkSigning(c *check, p mls.Primitives, v *cryptoBasicsVector) {
	g := &v.SignWithLabel
	c.ok("sign_with_label: signature", mls.VerifyWithLabel(p.CipherSuite(), g.Pub, g.Label, g.Content, g.Signature))
	signer, err := SignatureKey(p.CipherSuite(), g.Priv)
	if !c.ok("sign_with_label: priv", err) {
		return
	}
	sig, err := mls.SignWithLabel(context.Background(), p.CipherSuite(), signer, g.Label, g.Content)
	if c.ok("sign_with_label: signing", err) {
		c.ok("sign_with_label: own signature", mls.VerifyWithLabel(p.CipherSuite(), g.Pub, g.Label, g.Content, sig))
		if mls.VerifyWithLabel(p.CipherSuite(), g.Pub, g.Label+"x", g.Content, sig) == nil {
			c.fail("sign_with_label: the signature verifies under another label")
		}
	}
}

func checkEncryption(c *check, p mls.Primitives, v *cryptoBasicsVector) {
	h := &v.EncryptWithLabel
	priv, err := HPKEKey(p.CipherSuite(), h.Priv)
	if !c.ok("encrypt_with_label: priv", err) {
		return
	}
	c.equal("encrypt_with_label: pub", priv.PublicKey().Bytes(), h.Pub)
	given := mls.HPKECiphertext{KEMOutput: h.KEMOutput, Ciphertext: h.Ciphertext}
	c.value("encrypt_with_label: plaintext", h.Plaintext)(p.DecryptWithLabel(priv, h.Label, h.Context, given))
	own, err := p.EncryptWithLabel(h.Pub, h.Label, h.Context, h.Plaintext)
	if c.ok("encrypt_with_label: encryption", err) {
		c.value("encrypt_with_label: own plaintext", h.Plaintext)(p.DecryptWithLabel(priv, h.Label, h.Context, own))
	}
}

// maxForward is how far ahead a vector's generations may be.
const maxForward = 1 << 16

type secretTreeVector struct {
	CipherSuite mls.CipherSuite `json:"cipher_suite"`
	SenderData  struct {
		Secret     hexBytes `json:"sender_data_secret"`
		Ciphertext hexBytes `json:"ciphertext"`
		Key        hexBytes `json:"key"`
		Nonce      hexBytes `json:"nonce"`
	} `json:"sender_data"`
	EncryptionSecret hexBytes            `json:"encryption_secret"`
	Leaves           [][]generationsKeys `json:"leaves"`
}

type generationsKeys struct {
	Generation       uint32   `json:"generation"`
	HandshakeKey     hexBytes `json:"handshake_key"`
	HandshakeNonce   hexBytes `json:"handshake_nonce"`
	ApplicationKey   hexBytes `json:"application_key"`
	ApplicationNonce hexBytes `json:"application_nonce"`
}

func secretTree(c *check, p mls.Primitives, v *secretTreeVector) {
	c.length("sender_data_secret", v.SenderData.Secret, p)
	c.length("encryption_secret", v.EncryptionSecret, p)
	key, nonce := p.SenderDataKey(v.SenderData.Secret, v.SenderData.Ciphertext)
	c.equal("sender_data key", key, v.SenderData.Key)
	c.equal("sender_data nonce", nonce, v.SenderData.Nonce)
	tree, err := p.NewSecretTree(uint32(len(v.Leaves)), maxForward, v.EncryptionSecret)
	if !c.ok("leaves", err) {
		return
	}
	for l, generations := range v.Leaves {
		if len(generations) == 0 {
			c.fail("leaf %d has no generation", l)
		}
		for i := range generations {
			g := &generations[i]
			checkGeneration(c, tree, mls.LeafIndex(l), mls.ContentCommit, g.Generation, g.HandshakeKey, g.HandshakeNonce)
			checkGeneration(c, tree, mls.LeafIndex(l), mls.ContentApplication, g.Generation, g.ApplicationKey, g.ApplicationNonce)
		}
	}
}

func checkGeneration(c *check, t *mls.SecretTree, l mls.LeafIndex, content mls.ContentType, generation uint32, wantKey, wantNonce []byte) {
	key, nonce, err := t.Key(l, content, generation)
	if c.ok("ratchet", err) {
		c.equal("key", key, wantKey)
		c.equal("nonce", nonce, wantNonce)
	}
}

type pskVector struct {
	CipherSuite mls.CipherSuite `json:"cipher_suite"`
	PSKs        []struct {
		ID    hexBytes `json:"psk_id"`
		PSK   hexBytes `json:"psk"`
		Nonce hexBytes `json:"psk_nonce"`
	} `json:"psks"`
	Secret hexBytes `json:"psk_secret"`
}

func pskSecret(c *check, p mls.Primitives, v *pskVector) {
	var ids []mls.PreSharedKeyID
	var secrets [][]byte
	for _, k := range v.PSKs {
		ids = append(ids, mls.PreSharedKeyID{Type: mls.PSKExternal, ID: k.ID, Nonce: k.Nonce})
		secrets = append(secrets, k.PSK)
	}
	c.value("psk_secret", v.Secret)(p.PSKSecret(ids, secrets))
}

type transcriptVector struct {
	CipherSuite          mls.CipherSuite `json:"cipher_suite"`
	ConfirmationKey      hexBytes        `json:"confirmation_key"`
	AuthenticatedContent hexBytes        `json:"authenticated_content"`
	InterimBefore        hexBytes        `json:"interim_transcript_hash_before"`
	ConfirmedAfter       hexBytes        `json:"confirmed_transcript_hash_after"`
	InterimAfter         hexBytes        `json:"interim_transcript_hash_after"`
}

func transcriptHashes(c *check, p mls.Primitives, v *transcriptVector) {
	c.length("confirmation_key", v.ConfirmationKey, p)
	a, err := mls.ParseAuthenticatedContent(v.AuthenticatedContent)
	if !c.ok("authenticated_content", err) {
		return
	}
	c.equal("authenticated_content re-encoded", a.Bytes(), v.AuthenticatedContent)
	confirmed, interim := p.TranscriptHashes(v.InterimBefore, a)
	c.equal("confirmed_transcript_hash_after", confirmed, v.ConfirmedAfter)
	c.equal("interim_transcript_hash_after", interim, v.InterimAfter)
	c.equal("confirmation_tag", p.MAC(v.ConfirmationKey, confirmed), a.Auth.ConfirmationTag)
}
