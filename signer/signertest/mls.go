package signertest

import "github.com/privyseal/privyseal/internal/tlsvec"

// LeafNodeTBS returns the content that is signed for the leaf of a KeyPackage
// with a basic credential (RFC 9420 section 7.2). Its keys are of no use.
func LeafNodeTBS(identity string) []byte {
	b := new(tlsvec.Builder)
	leafNode(b, identity)
	return b.Bytes()
}

func leafNode(b *tlsvec.Builder, identity string) {
	var v tlsvec.Builder
	v.Vector([]byte(identity))
	leafNodeOf(b, 1, v.Bytes())
}

// KeyPackageTBSOf is KeyPackageTBS with a leaf that has a credential of any
// type, whose octets after the type are given.
func KeyPackageTBSOf(credentialType uint16, credential []byte) []byte {
	return keyPackageTBS(func(b *tlsvec.Builder) { leafNodeOf(b, credentialType, credential) })
}

func leafNodeOf(b *tlsvec.Builder, credentialType uint16, credential []byte) {
	b.Vector(make([]byte, 65)) // encryption_key
	b.Vector(make([]byte, 65)) // signature_key
	b.Uint16(credentialType)
	b.Raw(credential)
	for range 5 {
		b.Vector([]byte{0, 1})
	}
	b.Uint8(1) // key_package
	b.Uint64(1_700_000_000)
	b.Uint64(1_800_000_000)
	b.Vector(nil)
}

// KeyPackageTBS returns the content that is signed for a KeyPackage of suite 2
// (RFC 9420 section 10).
func KeyPackageTBS(identity string) []byte {
	return keyPackageTBS(func(b *tlsvec.Builder) { leafNode(b, identity) })
}

func keyPackageTBS(leaf func(*tlsvec.Builder)) []byte {
	b := new(tlsvec.Builder)
	b.Uint16(1)
	b.Uint16(2)
	b.Vector(make([]byte, 65))
	leaf(b)
	b.Vector(make([]byte, 71)) // signature
	b.Vector(nil)
	return b.Bytes()
}

// ApplicationTBS returns the content that the member at leaf 0 signs for a
// message with this text (RFC 9420 section 6.1).
func ApplicationTBS(group string, epoch uint64, text string) []byte {
	return framed(group, epoch, 1, func(b *tlsvec.Builder) { b.Vector([]byte(text)) })
}

// CommitTBS returns the content that the member at leaf 0 signs for a Commit
// without a path; what tells it from another Commit of the epoch.
func CommitTBS(group string, epoch uint64, what string) []byte {
	return framed(group, epoch, 3, func(b *tlsvec.Builder) {
		b.Vector([]byte(what))
		b.Optional(false)
	})
}

func framed(group string, epoch uint64, contentType uint8, body func(*tlsvec.Builder)) []byte {
	b := new(tlsvec.Builder)
	b.Uint16(1) // mls10
	b.Uint16(2) // PrivateMessage
	b.Vector([]byte(group))
	b.Uint64(epoch)
	b.Uint8(1) // member
	b.Uint32(0)
	b.Vector(nil)
	b.Uint8(contentType)
	body(b)
	groupContext(b, group, epoch)
	return b.Bytes()
}

func groupContext(b *tlsvec.Builder, group string, epoch uint64) {
	b.Uint16(1)
	b.Uint16(2) // suite
	b.Vector([]byte(group))
	b.Uint64(epoch)
	b.Vector(make([]byte, 32))
	b.Vector(make([]byte, 32))
	b.Vector(nil)
}

// GroupInfoTBS returns the content that the member at leaf 0 signs for a
// GroupInfo (RFC 9420 section 12.4.3).
func GroupInfoTBS(group string, epoch uint64) []byte {
	b := new(tlsvec.Builder)
	groupContext(b, group, epoch)
	b.Vector(nil)
	b.Vector(make([]byte, 32))
	b.Uint32(0)
	return b.Bytes()
}
