package sdjwt

// Limits bound what one token may cost its reader. The zero value stands for
// the defaults.
type Limits struct {
	Octets      int // of the whole token; default 64 KiB
	Disclosures int // default 256
	Depth       int // of nested arrays and objects, disclosed ones included; default 16
}

func (l Limits) withDefaults() Limits {
	if l.Octets == 0 {
		l.Octets = 64 << 10
	}
	if l.Disclosures == 0 {
		l.Disclosures = 256
	}
	if l.Depth == 0 {
		l.Depth = 16
	}
	return l
}
