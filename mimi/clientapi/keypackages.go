package clientapi

import (
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// A KeyPackageUpload gives the provider KeyPackages to hand out. Each is handed
// out once. One that is marked as last resort (component 0x0004) takes the place
// of the one before it and is handed out, as often as it takes, when all others
// of its cipher suite are gone. All must have the credential and the signature
// key that the client registered.
//
// With replace, KeyPackages that were uploaded before and not handed out are
// dropped; a client does so when it has lost their private keys or has changed
// its credential.
//
//	struct {
//	    uint8 replace;                 /* 0 or 1 */
//	    opaque key_packages<V><V>;     /* MLSMessages */
//	} KeyPackageUpload;
type KeyPackageUpload struct {
	Replace     bool
	KeyPackages []*mls.KeyPackage
}

func (u *KeyPackageUpload) append(b *tlsvec.Builder) {
	b.Optional(u.Replace)
	appendList(b, u.KeyPackages, func(b *tlsvec.Builder, k *mls.KeyPackage) { b.Vector(k.Message()) })
}

func (u *KeyPackageUpload) read(r *tlsvec.Reader) {
	u.Replace = readBool(r)
	u.KeyPackages = readList(r, "KeyPackages", MaxKeyPackages, func(r *tlsvec.Reader) *mls.KeyPackage {
		return readStruct(r, mls.ParseKeyPackage, (*mls.KeyPackage).Message)
	})
}

// Marshal returns the upload's encoding.
func (u *KeyPackageUpload) Marshal() []byte { return marshal(u) }

// ParseKeyPackageUpload decodes an upload. Its KeyPackages are not validated
// yet.
func ParseKeyPackageUpload(b []byte) (*KeyPackageUpload, error) {
	u := new(KeyPackageUpload)
	return u, parse("KeyPackageUpload", b, u)
}

// KeyPackageCounts say how many KeyPackages of a client are left, by cipher
// suite. Expired ones do not count.
//
//	struct { CipherSuite cipher_suite; uint32 left; uint8 last_resort; } KeyPackageCount;
//	struct { KeyPackageCount counts<V>; } KeyPackageCounts;
type KeyPackageCounts []KeyPackageCount

// A KeyPackageCount is the count of one cipher suite.
type KeyPackageCount struct {
	CipherSuite mls.CipherSuite
	Left        uint32
	LastResort  bool // there is one
}

func (c *KeyPackageCounts) append(b *tlsvec.Builder) {
	appendList(b, *c, func(b *tlsvec.Builder, n KeyPackageCount) {
		b.Uint16(uint16(n.CipherSuite))
		b.Uint32(n.Left)
		b.Optional(n.LastResort)
	})
}

func (c *KeyPackageCounts) read(r *tlsvec.Reader) {
	*c = readList(r, "cipher suites", 64, func(r *tlsvec.Reader) KeyPackageCount {
		return KeyPackageCount{mls.CipherSuite(r.Uint16()), r.Uint32(), readBool(r)}
	})
}

// Marshal returns the encoding.
func (c KeyPackageCounts) Marshal() []byte { return marshal(&c) }

// ParseKeyPackageCounts decodes the counts.
func ParseKeyPackageCounts(b []byte) (KeyPackageCounts, error) {
	var c KeyPackageCounts
	return c, parse("KeyPackageCounts", b, &c)
}
