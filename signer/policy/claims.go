package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"

	"github.com/fxamacker/cbor/v2"

	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

// maxDepth bounds the claims that are turned into values for rules; the
// parsers of signer have bounded them before.
const maxDepth = 32

func (in *Input) describeJWS(j *signer.JWSInput) (err error) {
	in.JWS = JWS{Alg: j.Alg, Typ: j.Typ}
	if in.Header, err = jsonMap(j.Header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if in.Claims, err = jsonMap(j.Payload); err != nil {
		return fmt.Errorf("claims: %w", err)
	}
	return nil
}

// UnmarshalJSON reads a JSON object as a JWS has it.
func (m *Map) UnmarshalJSON(b []byte) (err error) {
	*m, err = jsonMap(string(b))
	return err
}

func jsonMap(text string) (Map, error) {
	o, err := jose.ParseObject(text, maxDepth)
	if err != nil {
		return nil, err
	}
	return objectMap(o), nil
}

func objectMap(o *jose.Object) map[any]any {
	m := make(map[any]any, len(o.Members))
	for _, member := range o.Members {
		m[member.Name] = jsonValue(member.Value)
	}
	return m
}

// jsonValue turns numbers into int where they are whole and fit, and into
// double otherwise.
func jsonValue(v any) any {
	switch v := v.(type) {
	case *jose.Object:
		return objectMap(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = jsonValue(v[i])
		}
		return out
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, err := v.Float64()
		if err != nil {
			return v.String() // too large for a double: no rule compares it as a number
		}
		return f
	}
	return v
}

var cborDec = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: maxDepth,
		UTF8: cbor.UTF8RejectInvalid, DefaultMapType: nil,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

func (in *Input) describeCOSE(c *signer.COSEInput) error {
	in.COSE = COSE{Alg: c.Alg, Typ: c.Typ, Size: int64(len(c.Payload))}
	header, ok := cborMap(c.Protected)
	if !ok {
		return fmt.Errorf("protected header: not a map of integers and text")
	}
	in.Header = header
	in.Claims, _ = cborMap(c.Payload)
	return nil
}

// cborMap decodes one CBOR map, or reports that b is none.
func cborMap(b []byte) (Map, bool) {
	if len(b) == 0 || b[0]>>5 != 5 {
		return nil, len(b) == 0
	}
	var v any
	if err := cborDec.Unmarshal(b, &v); err != nil {
		return nil, false
	}
	m, ok := cborValue(v).(map[any]any)
	return m, ok
}

// cborValue makes integers int where they fit, so that rules may write them
// plainly, and opens tags.
func cborValue(v any) any {
	switch v := v.(type) {
	case uint64:
		if v <= math.MaxInt64 {
			return int64(v)
		}
		return v
	case map[any]any:
		m := make(map[any]any, len(v))
		for k, e := range v {
			m[cborKey(k)] = cborValue(e)
		}
		return m
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = cborValue(v[i])
		}
		return out
	case cbor.Tag:
		return cborValue(v.Content)
	case []byte:
		return bytes.Clone(v)
	case nil, bool, int64, float64, string:
		return v
	case float32:
		return float64(v)
	}
	return fmt.Sprint(v) // times, big numbers, byte strings as keys: text to rules
}

func cborKey(k any) any {
	switch k := k.(type) {
	case uint64, int64, string, bool:
		return cborValue(k)
	}
	return fmt.Sprintf("%T %v", k, k)
}
