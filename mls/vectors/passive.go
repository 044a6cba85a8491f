package vectors

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/mls"
)

type welcomeVector struct {
	CipherSuite mls.CipherSuite `json:"cipher_suite"`
	InitPriv    hexBytes        `json:"init_priv"`
	SignerPub   hexBytes        `json:"signer_pub"`
	KeyPackage  hexBytes        `json:"key_package"`
	Welcome     hexBytes        `json:"welcome"`
}

func welcome(c *check, p mls.Primitives, v *welcomeVector) {
	kp, err := mls.ParseKeyPackage(v.KeyPackage)
	if !c.ok("key_package", err) {
		return
	}
	w, err := mls.ParseWelcome(v.Welcome)
	if !c.ok("welcome", err) {
		return
	}
	priv, err := HPKEKey(p.CipherSuite(), v.InitPriv)
	if !c.ok("init_priv", err) {
		return
	}
	joiner, info, err := p.OpenWelcome(w, kp, priv)
	if !c.ok("welcome", err) {
		return
	}
	c.ok("GroupInfo", p.VerifyGroupInfo(info, v.SignerPub))
	e := p.EpochSecrets(joiner, make([]byte, p.HashLength()), info.GroupContext.Bytes())
	c.equal("confirmation_tag", info.ConfirmationTag, p.MAC(e.ConfirmationKey, info.GroupContext.ConfirmedTranscriptHash))
}

type passiveVector struct {
	CipherSuite  mls.CipherSuite `json:"cipher_suite"`
	ExternalPSKs []struct {
		ID  hexBytes `json:"psk_id"`
		PSK hexBytes `json:"psk"`
	} `json:"external_psks"`
	KeyPackage     hexBytes       `json:"key_package"`
	SignaturePriv  hexBytes       `json:"signature_priv"`
	EncryptionPriv hexBytes       `json:"encryption_priv"`
	InitPriv       hexBytes       `json:"init_priv"`
	Welcome        hexBytes       `json:"welcome"`
	RatchetTree    *hexBytes      `json:"ratchet_tree"`
	InitialAuth    hexBytes       `json:"initial_epoch_authenticator"`
	Epochs         []passiveEpoch `json:"epochs"`
}

type passiveEpoch struct {
	Proposals []hexBytes `json:"proposals"`
	Commit    hexBytes   `json:"commit"`
	Auth      hexBytes   `json:"epoch_authenticator"`
}

// passive joins by a Welcome and follows the group through its epochs.
func passive(c *check, p mls.Primitives, v *passiveVector) {
	kp, err := mls.ParseKeyPackage(v.KeyPackage)
	if !c.ok("key_package", err) {
		return
	}
	client, err := v.client(p, kp)
	if !c.ok("signature_priv", err) {
		return
	}
	g, err := v.join(client, kp)
	if !c.ok("welcome", err) {
		return
	}
	c.equal("initial_epoch_authenticator", g.EpochAuthenticator(), v.InitialAuth)
	for i := range v.Epochs {
		err := v.Epochs[i].follow(g)
		if !c.ok(fmt.Sprintf("epoch %d", i), err) {
			return
		}
		c.equal(fmt.Sprintf("epoch_authenticator %d", i), g.EpochAuthenticator(), v.Epochs[i].Auth)
		if g, err = reload(client, g); !c.ok("stored state", err) {
			return
		}
	}
}

// client has the private keys of the vector, and believes every credential: a
// vector says nothing about whom to believe. Lifetimes in vectors are without
// end, and the working group's engines leave cipher suite 7 and GREASE
// extensions out of their capabilities.
func (v *passiveVector) client(p mls.Primitives, kp *mls.KeyPackage) (*mls.Client, error) {
	signer, err := SignatureKey(p.CipherSuite(), v.SignaturePriv)
	if err != nil {
		return nil, err
	}
	client, err := mls.NewClient(mls.Config{
		CipherSuite: p.CipherSuite(), Signer: signer, Credential: kp.LeafNode.Credential,
		Capabilities: kp.LeafNode.Capabilities, PSK: v.psk, AdmitUnlisted: true,
		Judge:  func(context.Context, *mls.Judgement) error { return nil },
		Limits: mls.Limits{MaxLifetime: -1, MaxMembers: 1 << 17, MaxForward: maxForward, MaxProposals: 1 << 16, PastResumptionPSKs: 1 << 16},
	})
	if err == nil && !bytes.Equal(client.SignatureKey(), kp.LeafNode.SignatureKey) {
		err = errors.New("not the private key of the KeyPackage's signature_key")
	}
	return client, err
}

func (v *passiveVector) psk(_ context.Context, id []byte) ([]byte, error) {
	for _, p := range v.ExternalPSKs {
		if bytes.Equal(p.ID, id) {
			return p.PSK, nil
		}
	}
	return nil, mls.ErrUnknownPSK
}

func (v *passiveVector) join(client *mls.Client, kp *mls.KeyPackage) (*mls.Group, error) {
	ctx := context.Background()
	initKey, err := HPKEKey(v.CipherSuite, v.InitPriv)
	if err != nil {
		return nil, err
	}
	leafKey, err := HPKEKey(v.CipherSuite, v.EncryptionPriv)
	if err != nil {
		return nil, err
	}
	entry, err := client.ImportKeyPackage(ctx, kp, initKey, leafKey)
	if err != nil {
		return nil, err
	}
	w, err := mls.ParseWelcome(v.Welcome)
	if err != nil {
		return nil, err
	}
	var opts mls.JoinOptions
	if v.RatchetTree != nil {
		opts.RatchetTree = *v.RatchetTree
	}
	return client.Join(ctx, w, []*mls.KeyPackageEntry{entry}, opts)
}

// follow processes an epoch. A proposal that cannot be kept matters only if the
// commit refers to it, and then the commit fails too.
func (e *passiveEpoch) follow(g *mls.Group) error {
	var unkept error
	for _, p := range e.Proposals {
		unkept = errors.Join(unkept, keep(g, p))
	}
	if err := merge(g, e.Commit); err != nil {
		return errors.Join(err, unkept)
	}
	return nil
}

func keep(g *mls.Group, raw []byte) error {
	p, err := verify[*mls.VerifiedProposal](g, raw)
	if err != nil {
		return err
	}
	return g.Keep(p)
}

func merge(g *mls.Group, raw []byte) error {
	commit, err := verify[*mls.VerifiedCommit](g, raw)
	if err != nil {
		return err
	}
	staged, err := g.Stage(context.Background(), commit)
	if err != nil {
		return err
	}
	return g.Merge(context.Background(), staged)
}

func verify[T mls.Verified](g *mls.Group, raw []byte) (v T, err error) {
	m, err := mls.ParseMessage(raw)
	if err != nil {
		return v, err
	}
	got, err := g.Verify(m)
	if err != nil {
		return v, err
	}
	v, ok := got.(T)
	if !ok {
		return v, fmt.Errorf("the message is a %T, want a %T", got, v)
	}
	return v, nil
}

// reload stores the group and reads it back.
func reload(client *mls.Client, g *mls.Group) (*mls.Group, error) {
	b, err := g.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return client.UnmarshalGroup(context.Background(), b)
}
