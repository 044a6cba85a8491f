package dcbor

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
)

// String returns v in diagnostic notation, RFC 8949 section 8.
func (v Value) String() string {
	var b strings.Builder
	v.diagnose(&b)
	return b.String()
}

func (v Value) diagnose(b *strings.Builder) {
	switch v.kind {
	case Uint:
		b.WriteString(strconv.FormatUint(v.n, 10))
	case Nint:
		if v.n == math.MaxUint64 {
			b.WriteString("-18446744073709551616")
			return
		}
		b.WriteString("-" + strconv.FormatUint(v.n+1, 10))
	case Bytes:
		b.WriteString("h'" + hex.EncodeToString(v.content()) + "'")
	case Text:
		b.WriteString(strconv.Quote(string(v.content())))
	case Array:
		v.diagnoseAll(b, "[", "]", 1)
	case Map:
		v.diagnoseAll(b, "{", "}", 2)
	case Tag:
		b.WriteString(strconv.FormatUint(v.n, 10))
		v.diagnoseAll(b, "(", ")", 1)
	case Float:
		b.WriteString(diagnosticFloat(math.Float64frombits(v.n)))
	case Simple:
		b.WriteString(diagnosticSimple(v.n))
	default:
		b.WriteString("<" + v.kind.String() + ">")
	}
}

func (v Value) diagnoseAll(b *strings.Builder, open, end string, width int) {
	b.WriteString(open)
	for i, k := range v.kids {
		switch {
		case i == 0:
		case i%width == 0:
			b.WriteString(", ")
		default:
			b.WriteString(": ")
		}
		k.diagnose(b)
	}
	b.WriteString(end)
}

func diagnosticFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

func diagnosticSimple(n uint64) string {
	switch n {
	case simpleFalse:
		return "false"
	case simpleTrue:
		return "true"
	case simpleNull:
		return "null"
	case simpleUndefined:
		return "undefined"
	}
	return "simple(" + strconv.FormatUint(n, 10) + ")"
}
