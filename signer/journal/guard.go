package journal

import "bytes"

// A mark is how far one guarded thing has come: a row of journal_guard.
type mark struct {
	kind   Kind
	name   string
	number Number
	// content is what there may be one of; nil where there may be several, or
	// where the one was rejected.
	content []byte
	// owner is the one reservation that brought the mark here. It is 0 once a
	// second one rests on it; then nothing takes the mark back.
	owner int64
	prior *position // before owner; nil if there was nothing

	exists bool // as a row; false after the last owner took it back
	dirty  bool
}

type position struct {
	number  Number
	content []byte
}

// admit brings the mark to what the claim of a reservation says, or refuses.
// It changes nothing if it refuses.
func (m *mark) admit(c *Claim, reservation int64) error {
	if m.exists {
		switch c.Number.Compare(m.number) {
		case -1:
			return &GuardError{Claim: *c, Number: m.number}
		case 0:
			return m.admitEqual(c, reservation)
		}
	}
	if !c.Observe {
		m.advance(c, reservation)
	}
	return nil
}

func (m *mark) admitEqual(c *Claim, reservation int64) error {
	switch {
	case c.Observe:
	case c.Content != nil && m.content == nil:
		m.advance(c, reservation)
	case !bytes.Equal(c.Content, m.content):
		return &GuardError{Claim: *c, Number: m.number, Fork: true}
	case m.owner != 0:
		m.owner, m.prior, m.dirty = 0, nil, true
	}
	return nil
}

func (m *mark) advance(c *Claim, reservation int64) {
	m.prior = nil
	if m.exists {
		m.prior = &position{m.number, m.content}
	}
	m.kind, m.name = c.Kind, clip(printable(c.Name))
	m.number, m.content, m.owner = c.Number, c.Content, reservation
	m.exists, m.dirty = true, true
}

// takeBack undoes what a reservation did that certainly signed nothing, if
// nothing else rests on it.
func (m *mark) takeBack(reservation int64) {
	if !m.exists || m.owner != reservation {
		return
	}
	m.owner, m.dirty = 0, true
	if m.prior == nil {
		m.exists = false
		return
	}
	m.number, m.content, m.prior = m.prior.number, m.prior.content, nil
}

// reject forgets the content, so that another one may be signed.
func (m *mark) reject(n Number, content []byte) error {
	if !m.exists || m.number != n || m.content == nil || !bytes.Equal(m.content, content) {
		return ErrNotFound
	}
	m.content, m.owner, m.prior, m.dirty = nil, 0, nil, true
	return nil
}
