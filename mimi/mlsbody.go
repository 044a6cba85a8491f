package mimi

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// The draft puts structs of MLS into its own without a length before them.
// The span functions find where such a struct ends; package mls then judges
// exactly those octets, so that a span that is too generous accepts nothing.

func span(r *tlsvec.Reader, skip func(*tlsvec.Reader)) []byte {
	start := r.Pos()
	skip(r)
	if r.Err() != nil {
		return nil
	}
	return r.Since(start)
}

func skipVectors(r *tlsvec.Reader, n int) {
	for range n {
		r.Vector()
	}
}

func skipLeafNode(r *tlsvec.Reader) {
	skipVectors(r, 2) // encryption_key, signature_key
	skipCredential(r)
	skipVectors(r, 5) // capabilities
	switch mls.LeafNodeSource(r.Uint8()) {
	case mls.LeafFromKeyPackage:
		r.Bytes(16) // lifetime
	case mls.LeafFromCommit:
		r.Vector() // parent_hash
	}
	skipVectors(r, 2) // extensions, signature
}

// skipCredential passes over a credential. All are one vector but for an sd_jwt,
// which is an SdJwt (draft-mahy-mls-sd-cwt-credential-02).
func skipCredential(r *tlsvec.Reader) mls.CredentialType {
	t := mls.CredentialType(r.Uint16())
	if t != mls.CredentialSDJWT {
		r.Vector()
		return t
	}
	switch r.Uint8() {
	case 0:
		r.Vector() // sd_jwt_kb
	case 1:
		skipVectors(r, 5) // protected, payload, signature, disclosures, sd_jwt_key_binding
	default:
		r.Fail("compacted of an SdJwt is neither 0 nor 1")
	}
	return t
}

func skipKeyPackage(r *tlsvec.Reader) {
	r.Bytes(4) // version, cipher_suite
	r.Vector() // init_key
	skipLeafNode(r)
	skipVectors(r, 2) // extensions, signature
}

func skipWelcome(r *tlsvec.Reader) {
	r.Uint16()        // cipher_suite
	skipVectors(r, 2) // secrets, encrypted_group_info
}

func skipGroupInfo(r *tlsvec.Reader) {
	r.Bytes(4)        // version, cipher_suite
	r.Vector()        // group_id
	r.Uint64()        // epoch
	skipVectors(r, 5) // tree_hash, confirmed_transcript_hash, extensions; extensions, confirmation_tag
	r.Uint32()        // signer
	r.Vector()        // signature
}

func skipPSK(r *tlsvec.Reader) {
	switch mls.PSKType(r.Uint8()) {
	case mls.PSKExternal:
		r.Vector() // psk_id
	case mls.PSKResumption:
		r.Uint8()  // usage
		r.Vector() // psk_group_id
		r.Uint64() // psk_epoch
	case mls.PSKApplication:
		r.Uint16() // component_id
		r.Vector() // psk_id
	}
	r.Vector() // psk_nonce
}

func skipAppDataUpdate(r *tlsvec.Reader) {
	r.Uint16() // component_id
	if r.Uint8() == 1 {
		r.Vector() // update
	}
}

func skipProposal(r *tlsvec.Reader) {
	switch mls.ProposalType(r.Uint16()) {
	case mls.ProposalAdd:
		skipKeyPackage(r)
	case mls.ProposalUpdate:
		skipLeafNode(r)
	case mls.ProposalRemove:
		r.Uint32()
	case mls.ProposalPSK:
		skipPSK(r)
	case mls.ProposalReInit:
		r.Vector() // group_id
		r.Bytes(4) // version, cipher_suite
		r.Vector() // extensions
	case mls.ProposalAppDataUpdate:
		skipAppDataUpdate(r)
	case mls.ProposalAppEphemeral:
		r.Uint16() // component_id
		r.Vector() // data
	case mls.ProposalSelfRemove:
	default: // external_init, group_context_extensions and private proposals
		r.Vector()
	}
}

func skipCommit(r *tlsvec.Reader) {
	r.Vector() // proposals
	if r.Optional() {
		skipLeafNode(r)
		r.Vector() // nodes
	}
}

// skipPublicMessage returns the content type.
func skipPublicMessage(r *tlsvec.Reader) mls.ContentType {
	r.Vector() // group_id
	r.Uint64() // epoch
	sender := mls.SenderType(r.Uint8())
	if sender == mls.SenderMember || sender == mls.SenderExternal {
		r.Uint32()
	}
	r.Vector() // authenticated_data
	content := mls.ContentType(r.Uint8())
	switch content {
	case mls.ContentProposal:
		skipProposal(r)
	case mls.ContentCommit:
		skipCommit(r)
	default:
		r.Vector()
	}
	r.Vector() // signature
	if content == mls.ContentCommit {
		r.Vector() // confirmation_tag
	}
	if sender == mls.SenderMember {
		r.Vector() // membership_tag
	}
	return content
}

// skipCiphertext passes over a PrivateMessage, or over a SemiPrivateMessage,
// which has more vectors after the content type.
func skipCiphertext(r *tlsvec.Reader, vectors int) mls.ContentType {
	r.Vector() // group_id
	r.Uint64() // epoch
	content := mls.ContentType(r.Uint8())
	skipVectors(r, vectors)
	return content
}

// An MLSMessage is an MLSMessage exactly as it came. MLS signs and hashes
// octets, and a follower must pass on those that the hub accepted.
type MLSMessage struct {
	WireFormat  mls.WireFormat
	ContentType mls.ContentType // 0 for a Welcome, GroupInfo or KeyPackage
	GroupID     []byte          // nil for a Welcome and a KeyPackage
	Epoch       uint64

	octets []byte
}

// ParseMLSMessage decodes the framing of an MLSMessage and keeps its octets.
func ParseMLSMessage(b []byte) (*MLSMessage, error) {
	m := new(MLSMessage)
	return m, parse("MLSMessage", b, m)
}

// Bytes returns the octets.
func (m *MLSMessage) Bytes() []byte { return m.octets }

// Marshal returns the octets.
func (m *MLSMessage) Marshal() []byte { return m.octets }

func (m *MLSMessage) append(b *tlsvec.Builder) { b.Raw(m.octets) }

func (m *MLSMessage) read(r *tlsvec.Reader) {
	m.octets = span(r, m.skip)
	if r.Err() != nil {
		return
	}
	decoded, err := mls.ParseMessage(m.octets)
	if err != nil {
		r.Fail(err.Error())
		return
	}
	m.GroupID, m.Epoch, _ = decoded.GroupID()
}

func (m *MLSMessage) skip(r *tlsvec.Reader) {
	if v := mls.ProtocolVersion(r.Uint16()); r.Err() == nil && v != mls.MLS10 {
		r.Fail(fmt.Sprintf("MLS version %d is unknown", v))
	}
	switch m.WireFormat = mls.WireFormat(r.Uint16()); m.WireFormat {
	case mls.WirePublicMessage:
		m.ContentType = skipPublicMessage(r)
	case mls.WirePrivateMessage:
		m.ContentType = skipCiphertext(r, 3)
	case mls.WireSemiPrivateMessage:
		m.ContentType = skipCiphertext(r, 6)
	case mls.WireWelcome:
		skipWelcome(r)
	case mls.WireGroupInfo:
		skipGroupInfo(r)
	case mls.WireKeyPackage:
		skipKeyPackage(r)
	default:
		r.Fail(fmt.Sprintf("wire format 0x%04x is unknown", uint16(m.WireFormat)))
	}
}

// handshake reports whether m is a proposal or commit that a hub can read.
func (m *MLSMessage) handshake(c mls.ContentType) bool {
	return m.ContentType == c && (m.WireFormat == mls.WirePublicMessage || m.WireFormat == mls.WireSemiPrivateMessage)
}

// readProposals reads MLSMessages that must all be proposals of one group and
// epoch.
func readProposals(r *tlsvec.Reader, groupID []byte, epoch uint64) []*MLSMessage {
	return readList(r, "proposals", maxProposals, func(r *tlsvec.Reader) *MLSMessage {
		m := new(MLSMessage)
		m.read(r)
		switch {
		case r.Err() != nil:
		case !m.handshake(mls.ContentProposal):
			r.Fail("a message among the proposals is none")
		case string(m.GroupID) != string(groupID) || m.Epoch != epoch:
			r.Fail("a proposal is of another group or epoch")
		}
		return m
	})
}

func appendMessages(b *tlsvec.Builder, list []*MLSMessage) {
	appendList(b, list, func(b *tlsvec.Builder, m *MLSMessage) { m.append(b) })
}

// readAs reads a bare struct of MLS. Package mls takes it as the body of an
// MLSMessage, where no other reading of the octets is possible.
func readAs[T any](r *tlsvec.Reader, w mls.WireFormat, skip func(*tlsvec.Reader), parse func([]byte) (T, error)) T {
	return readBare(r, skip, func(octets []byte) (T, error) {
		b := tlsvec.NewBuilder(len(octets) + 4)
		b.Uint16(uint16(mls.MLS10))
		b.Uint16(uint16(w))
		b.Raw(octets)
		return parse(b.Bytes())
	})
}

func readKeyPackage(r *tlsvec.Reader) *mls.KeyPackage {
	return readAs(r, mls.WireKeyPackage, skipKeyPackage, mls.ParseKeyPackage)
}

// readWelcome reads a bare Welcome where it lies: that of a large room is long,
// and all of its vectors say how long they are.
func readWelcome(r *tlsvec.Reader) *mls.Welcome {
	w := new(mls.Welcome)
	mls.Read(r, w)
	return w
}

// appendWelcome writes the bare Welcome.
func appendWelcome(b *tlsvec.Builder, w *mls.Welcome) { mls.Write(b, w) }

// sizeOfWelcome is about how many octets a Welcome takes.
func sizeOfWelcome(w *mls.Welcome) int {
	n := len(w.EncryptedGroupInfo) + 64
	for i := range w.Secrets {
		s := &w.Secrets[i]
		n += len(s.NewMember) + len(s.EncryptedGroupSecrets.KEMOutput) + len(s.EncryptedGroupSecrets.Ciphertext) + 12
	}
	return n
}

// readGroupInfo reads a GroupInfo, which carries no ratchet_tree in MIMI.
func readGroupInfo(r *tlsvec.Reader) *mls.GroupInfo {
	g := readAs(r, mls.WireGroupInfo, skipGroupInfo, mls.ParseGroupInfo)
	if r.Err() == nil {
		if _, ok := g.Extensions.Find(mls.ExtensionRatchetTree); ok {
			r.Fail("the GroupInfo carries a ratchet_tree")
		}
	}
	return g
}

func skipTree(r *tlsvec.Reader) {
	switch mls.TreeRepresentation(r.Uint8()) {
	case mls.TreeFull, mls.TreeOutOfBand:
		r.Vector()
	case mls.TreeHTTPS:
		skipVectors(r, 2)
	}
}

// readTree reads a RatchetTreeOption, of which package mls knows the four
// forms. The tree itself is checked when it is used.
func readTree(r *tlsvec.Reader) *mls.RatchetTreeOption {
	return readBare(r, skipTree, mls.ParseRatchetTreeOption)
}

func appendTree(b *tlsvec.Builder, t *mls.RatchetTreeOption) {
	if t == nil {
		t = &mls.RatchetTreeOption{Representation: mls.TreeDistributionService}
	}
	b.Raw(t.Bytes())
}

// readPartialGroupInfo reads a PartialGroupInfo. Where a ratchet_tree stood in
// the GroupInfo that was signed cannot be told, so there must not have been
// one.
func readPartialGroupInfo(r *tlsvec.Reader) *mls.PartialGroupInfo {
	p := readBare(r, func(r *tlsvec.Reader) { r.Uint8(); skipVectors(r, 2) }, mls.ParsePartialGroupInfo)
	if r.Err() == nil && p.Presence != mls.TreeAbsent {
		r.Fail(fmt.Sprintf("ratchet_tree_presence %d, want %d", p.Presence, mls.TreeAbsent))
	}
	return p
}

// readBare reads a struct of MLS that no MLSMessage carries.
func readBare[T any](r *tlsvec.Reader, skip func(*tlsvec.Reader), parse func([]byte) (T, error)) (v T) {
	octets := span(r, skip)
	if r.Err() != nil {
		return v
	}
	v, err := parse(octets)
	if err != nil {
		r.Fail(err.Error())
	}
	return v
}
