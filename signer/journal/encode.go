package journal

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// Records are encoded as encode does, to the octet, but without reflection where
// all texts are of characters that stand for themselves, as they nearly always are.

// members are the members of a JSON object that is being written.
type members struct {
	b       []byte
	escapes bool // there is a text that cannot stand as it is
}

func (m *members) name(name string) {
	if n := len(m.b); n > 0 && m.b[n-1] != '{' {
		m.b = append(m.b, ',')
	}
	m.b = append(append(append(m.b, '"'), name...), `":`...)
}

func (m *members) text(name, value string) {
	m.name(name)
	m.b = append(append(append(m.b, '"'), value...), '"')
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			m.escapes = true
		}
	}
}

func (m *members) textIfAny(name, value string) {
	if value != "" {
		m.text(name, value)
	}
}

// begin begins an object: the first, or one more of a list.
func (m *members) begin() {
	if n := len(m.b); n > 0 && m.b[n-1] == '}' {
		m.b = append(m.b, ',')
	}
	m.b = append(m.b, '{')
}

func (r *IntentRecord) encode() ([]byte, error) {
	m := &members{b: make([]byte, 0, 768+len(r.Summary))}
	m.begin()
	m.text("time", r.Time)
	m.textIfAny("node", r.Node)
	m.textIfAny("tenant", r.Tenant)
	m.textIfAny("caller", r.Caller)
	m.text("key", r.Key)
	m.name("version")
	m.b = strconv.AppendInt(m.b, int64(r.Version), 10)
	m.text("purpose", r.Purpose)
	m.text("operation", string(r.Operation))
	m.textIfAny("shape", r.Shape)
	m.textIfAny("type", r.Type)
	m.text("digest", r.Digest)
	if len(r.Claims) > 0 {
		m.name("claims")
		m.b = append(m.b, '[')
		for i := range r.Claims {
			r.Claims[i].write(m)
		}
		m.b = append(m.b, ']')
	}
	m.textIfAny("rule", r.Rule)
	m.textIfAny("policy_version", r.PolicyVersion)
	m.textIfAny("idempotency_key", r.IdempotencyKey)
	m.textIfAny("request_checksum", r.RequestChecksum)
	if m.escapes {
		return encode(r)
	}
	if len(r.Summary) > 0 {
		m.name("summary")
		w := bytes.NewBuffer(m.b)
		if err := json.Compact(w, r.Summary); err != nil {
			return nil, err
		}
		m.b = w.Bytes()
	}
	return append(m.b, '}'), nil
}

func (c *ClaimRecord) write(m *members) {
	m.begin()
	m.text("kind", string(c.Kind))
	m.text("name", c.Name)
	m.text("number", c.Number)
	m.textIfAny("content", c.Content)
	m.b = append(m.b, '}')
}

func (r *OutcomeRecord) encode() ([]byte, error) {
	m := &members{b: make([]byte, 0, 256)}
	m.begin()
	m.text("time", r.Time)
	m.text("result", string(r.Result))
	m.textIfAny("signature_sha256", r.Signature)
	m.textIfAny("device", r.Device)
	m.textIfAny("error_class", r.ErrorClass)
	m.text("salt", r.Salt)
	if m.escapes {
		return encode(r)
	}
	return append(m.b, '}'), nil
}
