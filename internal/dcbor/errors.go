package dcbor

import (
	"errors"
	"fmt"
)

// The reasons for which octets are refused.
var (
	ErrTruncated        = errors.New("item ends before its announced length")
	ErrTrailing         = errors.New("octets after the item")
	ErrIndefinite       = errors.New("indefinite length")
	ErrReserved         = errors.New("reserved additional information or simple value")
	ErrUTF8             = errors.New("text is not UTF-8")
	ErrDuplicateKey     = errors.New("two map keys have the same preferred encoding")
	ErrTooDeep          = errors.New("nested too deeply")
	ErrTooLarge         = errors.New("larger than the limit")
	ErrNotDeterministic = errors.New("not in core deterministic encoding")
)

// A SyntaxError says at which octet of the input decoding stopped, and why.
type SyntaxError struct {
	Offset int
	Err    error // one of the reasons above
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("CBOR at octet %d: %v", e.Offset, e.Err) }

func (e *SyntaxError) Unwrap() error { return e.Err }
