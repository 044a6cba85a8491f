package mls

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A PreSharedKeyID names a PSK and the nonce of one use of it (section 8.4).
//
//	struct {
//	  PSKType psktype;
//	  select (PreSharedKeyID.psktype) {
//	    case external:
//	      opaque psk_id<V>;
//	    case resumption:
//	      ResumptionPSKUsage usage;
//	      opaque psk_group_id<V>;
//	      uint64 psk_epoch;
//	    case application: /* draft-ietf-mls-extensions-10, section 3.6 */
//	      ComponentID component_id;
//	      opaque psk_id<V>;
//	  };
//	  opaque psk_nonce<V>;
//	} PreSharedKeyID;
type PreSharedKeyID struct {
	Type      PSKType
	ID        []byte          // external, application
	Usage     ResumptionUsage // resumption
	GroupID   []byte          // resumption
	Epoch     uint64          // resumption
	Component ComponentID     // application
	Nonce     []byte
}

func (p *PreSharedKeyID) marshal(b *tlsvec.Builder) {
	p.marshalID(b)
	b.Vector(p.Nonce)
}

// marshalID writes everything but the nonce: what names the key itself.
func (p *PreSharedKeyID) marshalID(b *tlsvec.Builder) {
	b.Uint8(uint8(p.Type))
	switch p.Type {
	case PSKExternal:
		b.Vector(p.ID)
	case PSKResumption:
		b.Uint8(uint8(p.Usage))
		b.Vector(p.GroupID)
		b.Uint64(p.Epoch)
	case PSKApplication:
		b.Uint16(uint16(p.Component))
		b.Vector(p.ID)
	}
}

func (p *PreSharedKeyID) unmarshal(r *tlsvec.Reader) {
	switch p.Type = PSKType(r.Uint8()); p.Type {
	case PSKExternal:
		p.ID = r.Vector()
	case PSKResumption:
		p.Usage = ResumptionUsage(r.Uint8())
		if p.Usage < UsageApplication || p.Usage > UsageBranch {
			r.Fail(fmt.Sprintf("resumption PSK usage %d is unknown", p.Usage))
		}
		p.GroupID = r.Vector()
		p.Epoch = r.Uint64()
	case PSKApplication:
		p.Component = ComponentID(r.Uint16())
		p.ID = r.Vector()
	default:
		r.Fail(fmt.Sprintf("psktype %d is unknown", p.Type))
	}
	p.Nonce = r.Vector()
}

// maxPSKs is what the count of a PSKLabel can say.
const maxPSKs = 1<<16 - 1

type psk struct {
	id     PreSharedKeyID
	secret []byte
}

// pskSecret chains PSKs in order (section 8.4).
//
//	struct {
//	    PreSharedKeyID id;
//	    uint16 index;
//	    uint16 count;
//	} PSKLabel;
func (s *suite) pskSecret(psks []psk) []byte {
	secret := s.zero()
	for i := range psks {
		var label tlsvec.Builder
		psks[i].id.marshal(&label)
		label.Uint16(uint16(i))
		label.Uint16(uint16(len(psks)))
		extracted := s.extract(s.zero(), psks[i].secret)
		input := s.expandWithLabel(extracted, "derived psk", label.Bytes(), s.nh)
		secret = s.extract(input, secret)
	}
	return secret
}
