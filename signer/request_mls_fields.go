package signer

import (
	"bytes"
	"fmt"

	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/internal/tlsvec"
)

// MLSFields is what the content of an MLS signature says, as far as rules and
// the guard against double signing look at it. Which members are set depends on
// the label:
//
//	FramedContentTBS  Group, Epoch, WireFormat, Sender, SenderIndex, ContentType,
//	                  ProposalType; CipherSuite if the sender is in the group;
//	                  Credential of the new leaf if a Commit has a path
//	LeafNodeTBS       Leaf, Credential; Group and SenderIndex unless the leaf is
//	                  of a KeyPackage
//	KeyPackageTBS     CipherSuite, Leaf, Credential
//	GroupInfoTBS      Group, Epoch, CipherSuite, SenderIndex
type MLSFields struct {
	Group       []byte // group_id
	Epoch       uint64
	HasEpoch    bool
	CipherSuite uint16

	WireFormat   uint16 // 1 is PublicMessage, 2 PrivateMessage, 0xF051 SemiPrivateMessage
	Sender       string // "member", "external", "new_member_proposal", "new_member_commit"
	SenderIndex  uint32 // leaf_index or sender_index
	ContentType  string // "application", "proposal", "commit"
	ProposalType uint16 // of a proposal
	HasPath      bool   // of a Commit

	Leaf       string // "key_package", "update", "commit"
	NotBefore  uint64 // lifetime of a KeyPackage's leaf, Unix seconds
	NotAfter   uint64
	Credential *MLSCredential

	privateSDJWT bool // while it is read: a credential type of private use is an sd_jwt
}

// An MLSCredential is the credential of a leaf (RFC 9420 section 5.3).
type MLSCredential struct {
	Type     uint16 // 1 is basic, 2 is x509
	Identity []byte // of a basic credential
}

// mlsFields reads the content of the labels that it knows, and nil for others.
var mlsFields = map[string]func(*tlsvec.Reader, *MLSFields){
	"FramedContentTBS": readFramedContentTBS,
	"LeafNodeTBS":      readLeafNodeTBS,
	"KeyPackageTBS":    readKeyPackageTBS,
	"GroupInfoTBS":     readGroupInfoTBS,
}

// readMLSFields parses content to its end, or returns nil for another label.
func readMLSFields(label string, content []byte) (*MLSFields, error) {
	read, ok := mlsFields[label]
	if !ok {
		return nil, nil
	}
	f, err := readOneWay(read, content, false)
	if f.Credential == nil || f.Credential.Type < privateCredentials {
		return orNil(f, err)
	}
	// A credential type of private use is one vector, as most are, or that of
	// an sd_jwt. Only what can be read in one way is known for what it is.
	asSDJWT, errSDJWT := readOneWay(read, content, true)
	switch {
	case err != nil && errSDJWT == nil:
		return asSDJWT, nil
	case err == nil && errSDJWT == nil:
		return nil, fmt.Errorf("the credential of type 0x%04x can be read in two ways", f.Credential.Type)
	}
	return orNil(f, err)
}

func readOneWay(read func(*tlsvec.Reader, *MLSFields), content []byte, sdJWT bool) (*MLSFields, error) {
	f := &MLSFields{privateSDJWT: sdJWT}
	r := tlsvec.NewReader(content)
	read(r, f)
	f.privateSDJWT = false
	return f, r.Done()
}

func orNil(f *MLSFields, err error) (*MLSFields, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

var (
	mlsSenders  = map[uint8]string{1: "member", 2: "external", 3: "new_member_proposal", 4: "new_member_commit"}
	mlsContents = map[uint8]string{1: "application", 2: "proposal", 3: "commit"}
	mlsLeaves   = map[uint8]string{1: "key_package", 2: "update", 3: "commit"}
)

// named reads a uint8 that must be one of names.
func named(r *tlsvec.Reader, what string, names map[uint8]string) string {
	v := r.Uint8()
	if names[v] == "" && r.Err() == nil {
		r.Fail(fmt.Sprintf("%s %d is unknown", what, v))
	}
	return names[v]
}

func mls10(r *tlsvec.Reader) {
	if v := r.Uint16(); v != 1 && r.Err() == nil {
		r.Fail(fmt.Sprintf("version %d is not mls10", v))
	}
}

// The wire formats that are signed. That of SemiPrivateMessages is of private use
// (draft-mahy-mls-semiprivatemessage has no number yet).
const (
	wirePublic      = 1
	wirePrivate     = 2
	wireSemiPrivate = 0xF051
)

// readFramedContentTBS reads RFC 9420 section 6.1. The body of a proposal is
// not looked into: its end is known only to those who know its type.
func readFramedContentTBS(r *tlsvec.Reader, f *MLSFields) {
	mls10(r)
	f.WireFormat = r.Uint16()
	if f.WireFormat != wirePublic && f.WireFormat != wirePrivate && f.WireFormat != wireSemiPrivate && r.Err() == nil {
		r.Fail(fmt.Sprintf("wire_format 0x%04x is none that is signed", f.WireFormat))
	}
	f.Group, f.Epoch, f.HasEpoch = r.Vector(), r.Uint64(), true
	f.Sender = named(r, "sender_type", mlsSenders)
	if f.Sender == "member" || f.Sender == "external" {
		f.SenderIndex = r.Uint32()
	}
	r.Vector() // authenticated_data
	f.ContentType = named(r, "content_type", mlsContents)
	if f.WireFormat == wireSemiPrivate && (f.Sender != "member" || f.ContentType == "application") && r.Err() == nil {
		r.Fail("a SemiPrivateMessage is a member's proposal or commit")
	}
	inGroup := f.Sender == "member" || f.Sender == "new_member_commit"
	switch f.ContentType {
	case "application":
		r.Vector()
	case "proposal":
		f.ProposalType = r.Uint16()
		r.Rest()
		return
	case "commit":
		r.Vector() // proposals
		if f.HasPath = r.Optional(); f.HasPath {
			readLeafNode(r, f)
			r.Vector() // signature
			r.Vector() // nodes
		}
	}
	if inGroup {
		readOwnContext(r, f)
	}
}

// readOwnContext reads the GroupContext that a member signs along, which must
// be of the same group and epoch.
func readOwnContext(r *tlsvec.Reader, f *MLSFields) {
	in := new(MLSFields)
	readGroupContext(r, in)
	f.CipherSuite = in.CipherSuite
	if r.Err() == nil && (in.Epoch != f.Epoch || !bytes.Equal(in.Group, f.Group)) {
		r.Fail("the GroupContext is of another group or epoch than the content")
	}
}

// readGroupContext reads RFC 9420 section 8.1.
func readGroupContext(r *tlsvec.Reader, f *MLSFields) {
	mls10(r)
	f.CipherSuite = r.Uint16()
	f.Group, f.Epoch, f.HasEpoch = r.Vector(), r.Uint64(), true
	r.Vector() // tree_hash
	r.Vector() // confirmed_transcript_hash
	readExtensions(r)
}

func readExtensions(r *tlsvec.Reader) {
	r.Each(func(r *tlsvec.Reader) {
		r.Uint16()
		r.Vector()
	})
}

// readGroupInfoTBS reads RFC 9420 section 12.4.3.
func readGroupInfoTBS(r *tlsvec.Reader, f *MLSFields) {
	readGroupContext(r, f)
	readExtensions(r)
	r.Vector() // confirmation_tag
	f.SenderIndex = r.Uint32()
}

// readKeyPackageTBS reads RFC 9420 section 10.
func readKeyPackageTBS(r *tlsvec.Reader, f *MLSFields) {
	mls10(r)
	f.CipherSuite = r.Uint16()
	r.Vector() // init_key
	readLeafNode(r, f)
	r.Vector() // signature
	readExtensions(r)
	if f.Leaf != "key_package" && r.Err() == nil {
		r.Fail("the leaf of a KeyPackage has another source")
	}
}

// readLeafNodeTBS reads RFC 9420 section 7.2.
func readLeafNodeTBS(r *tlsvec.Reader, f *MLSFields) {
	readLeafNode(r, f)
	if f.Leaf != "key_package" {
		f.Group, f.SenderIndex = r.Vector(), r.Uint32()
	}
}

// The credential types that differ from one vector of opaque octets: an sd_jwt
// has the suggested number, or one of private use (RFC 9420 section 17.5) where
// a deployment refuses unregistered ones.
const (
	credentialBasic    = 1
	credentialSDJWT    = 6
	privateCredentials = 0xF000
)

// readLeafNode reads a LeafNode up to its signature.
func readLeafNode(r *tlsvec.Reader, f *MLSFields) {
	r.Vector() // encryption_key
	r.Vector() // signature_key
	f.Credential = &MLSCredential{Type: r.Uint16()}
	switch t := f.Credential.Type; {
	case t == credentialBasic:
		f.Credential.Identity = r.Vector()
	case t == credentialSDJWT || t >= privateCredentials && f.privateSDJWT:
		mlscred.ReadSDJWT(r)
	default:
		r.Vector()
	}
	for range 5 { // Capabilities
		r.Each(func(r *tlsvec.Reader) { r.Uint16() })
	}
	f.Leaf = named(r, "leaf_node_source", mlsLeaves)
	switch f.Leaf {
	case "key_package":
		f.NotBefore, f.NotAfter = r.Uint64(), r.Uint64()
	case "commit":
		r.Vector() // parent_hash
	}
	readExtensions(r)
}
