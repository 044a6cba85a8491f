package mls

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// An AppDataOperation says what an AppDataUpdate does.
type AppDataOperation uint8

// The operations of section 3.8.
const (
	AppDataReplace AppDataOperation = 1 // update
	AppDataRemove  AppDataOperation = 2 // remove
)

// An AppDataUpdate changes one component's data in the GroupContext (section
// 3.8). What Update means is the component's to say.
//
//	struct {
//	    ComponentID component_id;
//	    AppDataUpdateOperation op;
//	    select (AppDataUpdate.op) {
//	        case update: opaque update<V>;
//	        case remove: struct{};
//	    };
//	} AppDataUpdate;
type AppDataUpdate struct {
	Component ComponentID
	Op        AppDataOperation
	Update    []byte // if Op is AppDataReplace
}

// UpdateAppData is a proposal to update a component's data.
func UpdateAppData(id ComponentID, update []byte) *AppDataUpdate {
	return &AppDataUpdate{id, AppDataReplace, update}
}

// RemoveAppData is a proposal to remove a component's data.
func RemoveAppData(id ComponentID) *AppDataUpdate {
	return &AppDataUpdate{Component: id, Op: AppDataRemove}
}

// ProposalType implements Proposal.
func (*AppDataUpdate) ProposalType() ProposalType { return ProposalAppDataUpdate }

func (p *AppDataUpdate) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(p.Component))
	b.Uint8(uint8(p.Op))
	if p.Op == AppDataReplace {
		b.Vector(p.Update)
	}
}

func (p *AppDataUpdate) unmarshal(r *tlsvec.Reader) {
	p.Component = ComponentID(r.Uint16())
	switch p.Op = AppDataOperation(r.Uint8()); p.Op {
	case AppDataReplace:
		p.Update = r.Vector()
	case AppDataRemove:
	default:
		r.Fail(fmt.Sprintf("operation %d of an AppDataUpdate is unknown", p.Op))
	}
}

// An AppEphemeral binds a component's data to a commit and changes nothing
// (section 3.9).
//
//	struct {
//	    ComponentID component_id;
//	    opaque data<V>;
//	} AppEphemeral;
type AppEphemeral struct {
	Component ComponentID
	Data      []byte
}

// ProposalType implements Proposal.
func (*AppEphemeral) ProposalType() ProposalType { return ProposalAppEphemeral }

func (p *AppEphemeral) marshal(b *tlsvec.Builder) {
	b.Uint16(uint16(p.Component))
	b.Vector(p.Data)
}

func (p *AppEphemeral) unmarshal(r *tlsvec.Reader) {
	p.Component = ComponentID(r.Uint16())
	p.Data = r.Vector()
}

// A SelfRemove removes the member that sent it (section 5.3). It is sent as a
// PublicMessage and committed by reference.
//
//	struct {} SelfRemove;
type SelfRemove struct{}

// ProposalType implements Proposal.
func (*SelfRemove) ProposalType() ProposalType { return ProposalSelfRemove }

func (*SelfRemove) marshal(*tlsvec.Builder)  {}
func (*SelfRemove) unmarshal(*tlsvec.Reader) {}

// AppAck tells which messages arrived in an epoch (section 5.1). It travels
// in an AppEphemeral of ComponentAppAck.
//
//	struct {
//	    MessageRange received_ranges<V>;
//	} AppAck;
type AppAck struct{ Ranges []MessageRange }

// A MessageRange is a run of one sender's generations, both ends included.
//
//	struct {
//	    uint32 sender;
//	    uint32 first_generation;
//	    uint32 last_generation;
//	} MessageRange;
type MessageRange struct {
	Sender      LeafIndex
	First, Last uint32
}

// Proposal is the AppEphemeral that carries the acknowledgement.
func (a *AppAck) Proposal() *AppEphemeral { return &AppEphemeral{ComponentAppAck, encode(a)} }

// ParseAppAck reads the data of an AppEphemeral of ComponentAppAck. Ranges
// must be sorted and must not overlap.
func ParseAppAck(b []byte) (*AppAck, error) {
	a := new(AppAck)
	if err := parse("AppAck", b, a); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *AppAck) marshal(b *tlsvec.Builder) {
	b.Nested(func(b *tlsvec.Builder) {
		for _, m := range a.Ranges {
			b.Uint32(uint32(m.Sender))
			b.Uint32(m.First)
			b.Uint32(m.Last)
		}
	})
}

func (a *AppAck) unmarshal(r *tlsvec.Reader) {
	a.Ranges = nil
	r.Each(func(r *tlsvec.Reader) {
		m := MessageRange{LeafIndex(r.Uint32()), r.Uint32(), r.Uint32()}
		if r.Err() == nil && !m.follows(a.Ranges) {
			r.Fail("range is empty, out of order or overlaps the one before")
			return
		}
		a.Ranges = append(a.Ranges, m)
	})
}

func (m MessageRange) follows(before []MessageRange) bool {
	if m.First > m.Last {
		return false
	}
	if len(before) == 0 {
		return true
	}
	last := before[len(before)-1]
	return m.Sender > last.Sender || m.Sender == last.Sender && m.First > last.Last
}
