package mls

import (
	"crypto/hpke"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// GroupSecrets are what a Welcome tells one new member (section 12.4.3.1).
//
//	struct {
//	  opaque joiner_secret<V>;
//	  optional<PathSecret> path_secret;
//	  PreSharedKeyID psks<V>;
//	} GroupSecrets;
type groupSecrets struct {
	joiner     []byte
	pathSecret []byte // nil if absent
	psks       []PreSharedKeyID
}

func (g *groupSecrets) marshal(b *tlsvec.Builder) {
	b.Vector(g.joiner)
	b.Optional(g.pathSecret != nil)
	if g.pathSecret != nil {
		b.Vector(g.pathSecret)
	}
	b.Nested(func(b *tlsvec.Builder) {
		for i := range g.psks {
			g.psks[i].marshal(b)
		}
	})
}

func (g *groupSecrets) unmarshal(r *tlsvec.Reader) {
	g.joiner = r.Vector()
	if r.Optional() {
		g.pathSecret = r.Vector()
	}
	r.Each(func(r *tlsvec.Reader) {
		var id PreSharedKeyID
		id.unmarshal(r)
		g.psks = append(g.psks, id)
		limitCount(r, len(g.psks), maxPSKs)
	})
}

// EncryptedGroupSecrets is one new member's part of a Welcome.
//
//	struct {
//	  KeyPackageRef new_member;
//	  HPKECiphertext encrypted_group_secrets;
//	} EncryptedGroupSecrets;
type EncryptedGroupSecrets struct {
	NewMember             []byte
	EncryptedGroupSecrets HPKECiphertext
}

// A Welcome brings new members into a group (section 12.4.3.1).
//
//	struct {
//	  CipherSuite cipher_suite;
//	  EncryptedGroupSecrets secrets<V>;
//	  opaque encrypted_group_info<V>;
//	} Welcome;
type Welcome struct {
	CipherSuite        CipherSuite
	Secrets            []EncryptedGroupSecrets
	EncryptedGroupInfo []byte
}

// ParseWelcome decodes a Welcome, bare or as an MLSMessage.
func ParseWelcome(b []byte) (*Welcome, error) {
	w := new(Welcome)
	return w, parseBareOrMessage("Welcome", b, WireWelcome, w)
}

// Message returns the encoding as an MLSMessage.
func (w *Welcome) Message() []byte { return wrapMessage(WireWelcome, w) }

func (w *Welcome) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(w.CipherSuite))
	b.Nested(func(b *tlsvec.Builder) {
		for i := range w.Secrets {
			b.Vector(w.Secrets[i].NewMember)
			w.Secrets[i].EncryptedGroupSecrets.marshal(b)
		}
	})
	b.Vector(w.EncryptedGroupInfo)
}

func (w *Welcome) unmarshal(r *tlsvec.Reader) {
	w.CipherSuite = CipherSuite(r.Uint16())
	r.Each(func(r *tlsvec.Reader) {
		s := EncryptedGroupSecrets{NewMember: r.Vector()}
		s.EncryptedGroupSecrets.unmarshal(r)
		w.Secrets = append(w.Secrets, s)
		limitCount(r, len(w.Secrets), maxLeaves)
	})
	w.EncryptedGroupInfo = r.Vector()
}

// For returns the part for a KeyPackageRef, or nil.
func (w *Welcome) For(ref []byte) *EncryptedGroupSecrets {
	for i := range w.Secrets {
		if string(w.Secrets[i].NewMember) == string(ref) {
			return &w.Secrets[i]
		}
	}
	return nil
}

// openSecrets decrypts the part of one KeyPackage. The init key may be held
// by a device.
func (w *Welcome) openSecrets(s *suite, part *EncryptedGroupSecrets, initKey hpke.PrivateKey) (*groupSecrets, error) {
	plain, err := s.decryptWithLabel(initKey, "Welcome", w.EncryptedGroupInfo, part.EncryptedGroupSecrets)
	if err != nil {
		return nil, fmt.Errorf("%w: group secrets: %w", ErrDecrypt, err)
	}
	g := new(groupSecrets)
	return g, decode("GroupSecrets", plain, g)
}

// openGroupInfo decrypts the GroupInfo.
func (w *Welcome) openGroupInfo(s *suite, welcomeSecret []byte) (*GroupInfo, error) {
	k := s.welcomeKey(welcomeSecret)
	aead, err := s.newAEAD(k.key)
	if err != nil {
		return nil, fmt.Errorf("mls: welcome key: %w", err)
	}
	plain, err := aead.Open(nil, k.nonce, w.EncryptedGroupInfo, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: GroupInfo", ErrDecrypt)
	}
	g := new(GroupInfo)
	return g, decode("GroupInfo", plain, g)
}

// sealGroupInfo encrypts a GroupInfo for a Welcome.
func (s *suite) sealGroupInfo(welcomeSecret []byte, g *GroupInfo) ([]byte, error) {
	k := s.welcomeKey(welcomeSecret)
	aead, err := s.newAEAD(k.key)
	if err != nil {
		return nil, fmt.Errorf("mls: welcome key: %w", err)
	}
	return aead.Seal(nil, k.nonce, encode(g), nil), nil
}
