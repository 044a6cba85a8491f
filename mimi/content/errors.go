package content

import "fmt"

// A Code names one reason for which a message is refused.
type Code string

// Reasons that lie in the message alone, found by Parse and Encode.
const (
	CodeMalformed        Code = "malformed"         // not one item of CBOR
	CodeNotDeterministic Code = "not-deterministic" // another encoding of a message
	CodeTooLarge         Code = "too-large"
	CodeShape            Code = "shape" // an item of the wrong type or an array of the wrong length
	CodeSalt             Code = "salt"
	CodeMessageID        Code = "message-id" // not 32 octets
	CodeHashAlgorithm    Code = "hash-algorithm"
	CodeTopicID          Code = "topic-id"
	CodeExpires          Code = "expires"
	CodeExtensionKey     Code = "extension-key"
	CodeExtensionDepth   Code = "extension-depth"
	CodeExtensionValue   Code = "extension-value"
	CodeDisposition      Code = "disposition"
	CodeCardinality      Code = "cardinality"
	CodePartSemantics    Code = "part-semantics"
	CodePartCount        Code = "part-count"
	CodePartDepth        Code = "part-depth"
	CodeRange            Code = "range" // an integer beyond its size
)

// Reasons that lie between a message and what the receiver knows, found by
// Receive and Timeline.
const (
	CodeURILength     Code = "uri-length"
	CodeSenderURI     Code = "sender-uri"
	CodeRoomURI       Code = "room-uri"
	CodeTimestamp     Code = "timestamp"
	CodeDuplicate     Code = "duplicate"
	CodeUnauthorized  Code = "unauthorized"
	CodeReplacesShape Code = "replaces-shape"
)

// An Error says why a message is refused.
type Error struct {
	Code   Code
	Where  string // the field, such as "nestedPart.parts[1].url"
	Detail string
	Err    error
}

func (e *Error) Error() string {
	s := "MIMI content: " + string(e.Code)
	if e.Where != "" {
		s += " in " + e.Where
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error of the same Code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

func refuse(code Code, where, format string, args ...any) error {
	return &Error{Code: code, Where: where, Detail: fmt.Sprintf(format, args...)}
}
