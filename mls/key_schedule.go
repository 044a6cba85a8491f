package mls

import (
	"crypto/hpke"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A GroupContext summarises the state of a group (section 8.1).
//
//	struct {
//	    ProtocolVersion version = mls10;
//	    CipherSuite cipher_suite;
//	    opaque group_id<V>;
//	    uint64 epoch;
//	    opaque tree_hash<V>;
//	    opaque confirmed_transcript_hash<V>;
//	    Extension extensions<V>;
//	} GroupContext;
type GroupContext struct {
	Version                 ProtocolVersion
	CipherSuite             CipherSuite
	GroupID                 []byte
	Epoch                   uint64
	TreeHash                []byte
	ConfirmedTranscriptHash []byte
	Extensions              Extensions
}

func (c *GroupContext) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(c.Version))
	b.Uint16(uint16(c.CipherSuite))
	b.Vector(c.GroupID)
	b.Uint64(c.Epoch)
	b.Vector(c.TreeHash)
	b.Vector(c.ConfirmedTranscriptHash)
	c.Extensions.marshal(b)
}

func (c *GroupContext) unmarshal(r *tlsvec.Reader) {
	c.Version = readVersion(r)
	c.CipherSuite = CipherSuite(r.Uint16())
	c.GroupID = r.Vector()
	c.Epoch = r.Uint64()
	c.TreeHash = r.Vector()
	c.ConfirmedTranscriptHash = r.Vector()
	c.Extensions.unmarshal(r)
}

// epochSecrets are the secrets of one epoch (section 8, table 4).
type epochSecrets struct {
	joiner, welcome    []byte
	senderData         []byte
	encryption         []byte
	exporter           []byte
	external           []byte
	confirmationKey    []byte
	membershipKey      []byte
	resumptionPSK      []byte
	epochAuthenticator []byte
	init               []byte
	applicationExport  []byte // root of the exporter tree of draft-ietf-mls-extensions
}

// joinerSecret combines the last epoch's init secret with a commit's.
func (s *suite) joinerSecret(initSecret, commitSecret, context []byte) []byte {
	return s.expandWithLabel(s.extract(initSecret, commitSecret), "joiner", context, s.nh)
}

// memberSecret is the value from which welcome and epoch secrets come.
func (s *suite) memberSecret(joiner, pskSecret []byte) []byte {
	return s.extract(joiner, pskSecret)
}

// deriveEpoch runs the key schedule from the joiner secret down.
func (s *suite) deriveEpoch(joiner, pskSecret, context []byte) *epochSecrets {
	member := s.memberSecret(joiner, pskSecret)
	e := s.epochFrom(s.expandWithLabel(member, "epoch", context, s.nh))
	e.joiner = joiner
	e.welcome = s.deriveSecret(member, "welcome")
	return e
}

// epochFrom derives the secrets of table 4 from an epoch secret.
func (s *suite) epochFrom(epochSecret []byte) *epochSecrets {
	d := func(label string) []byte { return s.deriveSecret(epochSecret, label) }
	return &epochSecrets{
		senderData:         d("sender data"),
		encryption:         d("encryption"),
		exporter:           d("exporter"),
		external:           d("external"),
		confirmationKey:    d("confirm"),
		membershipKey:      d("membership"),
		resumptionPSK:      d("resumption"),
		epochAuthenticator: d("authentication"),
		init:               d("init"),
		applicationExport:  d("application_export"),
	}
}

// externalKey is the key pair of external joins (section 8).
func (s *suite) externalKey(e *epochSecrets) (hpke.PrivateKey, error) {
	k, err := s.deriveKeyPair(e.external)
	if err != nil {
		return nil, fmt.Errorf("mls: external key: %w", err)
	}
	return k, nil
}

// export is MLS-Exporter (section 8.5).
func (s *suite) export(exporter []byte, label string, context []byte, length int) []byte {
	return s.expandWithLabel(s.deriveSecret(exporter, label), "exported", s.sum(context), length)
}

// welcomeKey gives the AEAD key and nonce of encrypted_group_info (section
// 12.4.3.1).
func (s *suite) welcomeKey(welcome []byte) keyNonce {
	return keyNonce{
		key:   s.expandWithLabel(welcome, "key", nil, s.nk),
		nonce: s.expandWithLabel(welcome, "nonce", nil, s.nn),
	}
}
