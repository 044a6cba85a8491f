package mls

import (
	"bytes"
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
	c.marshalHead(b)
	c.Extensions.marshal(b)
}

// marshalHead writes what stands before the extensions.
func (c *GroupContext) marshalHead(b *tlsvec.Builder) {
	b.Uint16(uint16(c.Version))
	b.Uint16(uint16(c.CipherSuite))
	b.Vector(c.GroupID)
	b.Uint64(c.Epoch)
	b.Vector(c.TreeHash)
	b.Vector(c.ConfirmedTranscriptHash)
}

// bytes is the encoding.
func (c *GroupContext) bytes() []byte {
	b := tlsvec.NewBuilder(c.headSize() + 4 + c.Extensions.size())
	c.marshal(b)
	return b.Bytes()
}

func (c *GroupContext) headSize() int {
	return 12 + vectorSize(c.GroupID) + vectorSize(c.TreeHash) + vectorSize(c.ConfirmedTranscriptHash)
}

// pieces is the encoding in pieces that follow each other, among them the data
// of extensions as it is: what an application keeps for its members there may be
// long, and a signature is over all of it.
func (c *GroupContext) pieces() [][]byte {
	b := tlsvec.NewBuilder(c.headSize() + 4 + 6*len(c.Extensions))
	c.marshalHead(b)
	b.Raw(tlsvec.AppendLength(nil, c.Extensions.size()))
	list := make([][]byte, 0, 2*len(c.Extensions)+1)
	from := 0
	for i := range c.Extensions {
		b.Uint16(uint16(c.Extensions[i].Type))
		b.Raw(tlsvec.AppendLength(nil, len(c.Extensions[i].Data)))
		list = append(list, b.Bytes()[from:], c.Extensions[i].Data)
		from = b.Len()
	}
	return append(list, b.Bytes()[from:])
}

// equal reports whether the encodings are the same.
func (c *GroupContext) equal(o *GroupContext) bool {
	return c.Version == o.Version && c.CipherSuite == o.CipherSuite && c.Epoch == o.Epoch &&
		bytes.Equal(c.GroupID, o.GroupID) && bytes.Equal(c.TreeHash, o.TreeHash) &&
		bytes.Equal(c.ConfirmedTranscriptHash, o.ConfirmedTranscriptHash) && c.Extensions.equal(o.Extensions)
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
