package mls

import (
	"context"
	"crypto"
	"crypto/hpke"
	"errors"
	"fmt"
	"slices"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A ComponentID names a component: a part of an application that uses MLS
// without disturbing the others (draft-ietf-mls-extensions-10, section 3.2).
// The sections of this and the following comments that speak of components
// are that draft's.
type ComponentID uint16

// componentGREASE are the GREASE values for components; the other numbers of
// section 13.5 of RFC 9420 are private components.
var componentGREASE = greaseValues[:8]

func (id ComponentID) isGREASE() bool { return slices.Contains(componentGREASE, uint16(id)) }

const baseLabel = "MLS Component"

// operationLabel is the label of a component's operation (sections 3.3, 3.4).
// It is binary and stands where RFC 9420 has text.
//
//	struct {
//	  opaque base_label<V> = "MLS Component";
//	  ComponentID component_id;
//	  opaque label<V>;
//	} ComponentOperationLabel;
func (id ComponentID) operationLabel(label string) string {
	b := tlsvec.NewBuilder(len(baseLabel) + len(label) + 8)
	b.String(baseLabel)
	b.Uint16(uint16(id))
	b.String(label)
	return string(b.Bytes())
}

// SafeSignWithLabel signs on behalf of a component (section 3.4). A component
// signs under its own ID only.
func SafeSignWithLabel(ctx context.Context, c CipherSuite, signer crypto.Signer, id ComponentID, label string, content []byte) ([]byte, error) {
	sig, err := SignWithLabel(ctx, c, signer, id.operationLabel(label), content)
	var failed *SignError
	if errors.As(err, &failed) {
		return nil, &SignError{fmt.Sprintf("%q of component 0x%04x", label, uint16(id)), failed.Err}
	}
	return sig, err
}

// SafeVerifyWithLabel checks a component's signature (section 3.4).
func SafeVerifyWithLabel(c CipherSuite, publicKey []byte, id ComponentID, label string, content, signature []byte) error {
	s, err := lookupSuite(c)
	if err != nil {
		return err
	}
	pub, err := s.sig.parsePublicKey(publicKey)
	if err != nil {
		return fmt.Errorf("%w: public key: %w", ErrBadSignature, err)
	}
	if !s.sig.verify(pub, signature, signContent(id.operationLabel(label), content)) {
		return fmt.Errorf("%w: %q of component 0x%04x", ErrBadSignature, label, uint16(id))
	}
	return nil
}

// SafeEncryptWithLabel encrypts to an HPKE key of the cipher suite for a
// component (section 3.3).
func SafeEncryptWithLabel(c CipherSuite, publicKey []byte, id ComponentID, label string, context, plaintext []byte) (HPKECiphertext, error) {
	s, err := lookupSuite(c)
	if err != nil {
		return HPKECiphertext{}, err
	}
	return s.encryptWithLabel(publicKey, id.operationLabel(label), context, plaintext)
}

// SafeDecryptWithLabel is the inverse of SafeEncryptWithLabel. A component
// decrypts under its own ID only.
func SafeDecryptWithLabel(c CipherSuite, key hpke.PrivateKey, id ComponentID, label string, context []byte, ct HPKECiphertext) ([]byte, error) {
	s, err := lookupSuite(c)
	if err != nil {
		return nil, err
	}
	plain, err := s.decryptWithLabel(key, id.operationLabel(label), context, ct)
	if err != nil {
		return nil, fmt.Errorf("%w: component 0x%04x: %w", ErrDecrypt, uint16(id), err)
	}
	return plain, nil
}

// SafeSign signs with this member's leaf key on behalf of a component.
func (g *Group) SafeSign(ctx context.Context, id ComponentID, label string, content []byte) ([]byte, error) {
	if g.removed {
		return nil, ErrInactive
	}
	return SafeSignWithLabel(ctx, g.public.suite.id, g.signer, id, label, content)
}

// ExternalPub is the public key to which others may encrypt to all members of
// this epoch, by SafeEncryptWithLabel.
func (g *Group) ExternalPub() ([]byte, error) {
	if g.removed {
		return nil, ErrInactive
	}
	k, err := g.public.suite.externalKey(g.secrets)
	if err != nil {
		return nil, err
	}
	return k.PublicKey().Bytes(), nil
}

// SafeDecrypt decrypts what was encrypted to ExternalPub of this epoch.
func (g *Group) SafeDecrypt(id ComponentID, label string, context []byte, ct HPKECiphertext) ([]byte, error) {
	if g.removed {
		return nil, ErrInactive
	}
	k, err := g.public.suite.externalKey(g.secrets)
	if err != nil {
		return nil, err
	}
	return SafeDecryptWithLabel(g.public.suite.id, k, id, label, context, ct)
}

// A ComponentsList is the value of app_components and safe_aad (section 4):
// in a LeafNode what its client supports, in the GroupContext what all
// members must support.
//
//	struct {
//	    ComponentID component_ids<V>;
//	} ComponentsList;
type ComponentsList []ComponentID

// Bytes returns the encoding, sorted and without duplicates.
func (l ComponentsList) Bytes() []byte {
	var b tlsvec.Builder
	writeUint16s(&b, l.sorted())
	return b.Bytes()
}

func (l ComponentsList) sorted() ComponentsList {
	l = slices.Clone(l)
	slices.Sort(l)
	return slices.Compact(l)
}

// ParseComponentsList reads a list in any order and ignores duplicates.
func ParseComponentsList(b []byte) (ComponentsList, error) {
	r := tlsvec.NewReader(b)
	list := readUint16s[ComponentID](r)
	if err := r.Done(); err != nil {
		return nil, &ParseError{"ComponentsList", err}
	}
	return ComponentsList(list).sorted(), nil
}

// missing returns an entry of a sorted list that another sorted list lacks.
func (l ComponentsList) missing(in ComponentsList) (ComponentID, bool) {
	for _, id := range l {
		if _, ok := slices.BinarySearch(in, id); !ok {
			return id, true
		}
	}
	return 0, false
}

// grease adds a random GREASE value.
func (l ComponentsList) grease() ComponentsList { return append(slices.Clone(l), randomComponent()) }

func randomComponent() ComponentID {
	return ComponentID(componentGREASE[int(random(1)[0])%len(componentGREASE)])
}
