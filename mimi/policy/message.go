package policy

import "github.com/privyseal/privyseal/mimi"

// message is row 13 for the sender of a message. Hub and clients ask for
// canSendMessage; clients add what they see in the content.
func (j *judge) message(m *Message) *Refusal {
	p, refusal := j.activeUser(m.Sender)
	if refusal != nil {
		return refusal
	}
	return j.needsAll(p, append([]Capability{CanSendMessage}, m.Needs...))
}

// delivery is row 13 for those who get a message.
func (j *judge) delivery(d *Delivery) *Refusal {
	p, refusal := j.activeUser(d.To)
	if refusal != nil {
		return refusal
	}
	return j.needsAll(p, []Capability{CanReceiveMessage})
}

// deed is row 13 for everything else.
func (j *judge) deed(d *Deed) *Refusal {
	p, refusal := j.party(d.Actor)
	if refusal != nil {
		return refusal
	}
	if p.role == nil || p.role.inert() {
		return j.inert(p)
	}
	if len(d.Needs) == 0 {
		return p.refuse(RowOther, CheckUnclassified, p.user, "a deed without a capability")
	}
	return j.needsAll(p, d.Needs)
}

// activeUser returns a participant who has a client in the group.
func (j *judge) activeUser(user mimi.URI) (*party, *Refusal) {
	p := &party{user: user}
	entry := j.s.roster.find(user)
	if entry == nil {
		return nil, p.refuse(RowMessage, CheckParticipant, user, "the user does not participate")
	}
	p.participant, p.role = true, j.s.policies.roles[entry.pair.Role]
	if p.role.inert() {
		return nil, j.inert(p)
	}
	if len(entry.leaves) == 0 {
		return nil, p.refuse(RowMessage, CheckLeaf, user, "the user has no client in the group")
	}
	return p, nil
}

func (j *judge) needsAll(p *party, needs []Capability) *Refusal {
	for _, c := range needs {
		if refusal := p.needs(RowMessage, c, mimi.URI{}); refusal != nil {
			return refusal
		}
	}
	return j.pass(RowMessage, nil)
}
