// Package content is the MIMI content container
// (draft-ietf-mimi-content-08): what one member of a room says to the others,
// with its parts, its relation to earlier messages and its message ID.
//
// Encode writes the one encoding that the draft allows and Parse takes no
// other, so encoding what was parsed gives the same octets. A receiver uses
// Receive, which also computes the message ID and judges the message against
// what it knows from MLS and the hub; Timeline folds received messages into
// what a person should see. The package renders nothing: HTML and Markdown are
// octets to it.
package content

// A Message is one MIMI content message.
//
//	mimiContent = [
//	  salt: bstr .size 16,
//	  replaces: null / MessageId,
//	  topicId: bstr,
//	  expires: null / Expiration,
//	  inReplyTo: null / MessageId,
//	  mimiExtensions: extensions,
//	  nestedPart: NestedPart
//	]
type Message struct {
	Salt       [SaltSize]byte // random, fresh for each message
	Replaces   *MessageID     // the first version of the message that this one edits or deletes, or nil
	TopicID    []byte         // at most MaxTopicID octets; empty for no topic
	Expires    *Expiration    // a hint, or nil
	InReplyTo  *MessageID     // the version that this one answers or reacts to, or nil
	Extensions Extensions
	Body       NestedPart
}

// An Expiration asks the receiver to forget a message. Nothing enforces it.
//
//	Expiration = [ relative: bool, time: uint .size 4 ]
type Expiration struct {
	Relative bool   // Time counts from the reading of the message
	Time     uint32 // seconds; if not Relative, since the UNIX epoch
}

// A NestedPart is a body, or a part of one.
//
//	NestedPart = [ disposition, language: tstr,
//	               ( NullPart // SinglePart // ExternalPart // MultiPart ) ]
type NestedPart struct {
	Disposition Disposition
	Language    string // empty, or language tags (RFC 5646) with commas between them
	Content     Content
}

// Content is what a NestedPart holds: a NullPart, *SinglePart, *ExternalPart or
// *MultiPart.
type Content interface{ cardinality() uint64 }

// Cardinalities, the third item of a NestedPart.
const (
	nullPart     = 0
	singlePart   = 1
	externalPart = 2
	multiPart    = 3
)

// A NullPart is an absent body: with Replaces set, it deletes a message or
// takes back a reaction.
type NullPart struct{}

// A SinglePart is content in place.
//
//	SinglePart = ( cardinality: 1, contentType: tstr, content: bstr )
type SinglePart struct {
	ContentType string // media type with its parameters
	Content     []byte
}

// An ExternalPart is content at a URL, usually encrypted (see SealAsset).
type ExternalPart struct {
	ContentType string // media type of what was encrypted
	URL         string
	Expires     uint32 // seconds since the UNIX epoch, 0 for never
	Size        uint64 // octets at the URL, 0 if not known
	EncAlg      uint16 // IANA AEAD algorithm, 0 if not encrypted
	Key         []byte
	Nonce       []byte
	AAD         []byte
	HashAlg     uint8 // IANA Named Information hash algorithm
	ContentHash []byte
	Description string
	Filename    string
}

// A MultiPart is at least two parts that belong together.
//
//	MultiPart = ( cardinality: 3, partSemantics, parts: [2* NestedPart] )
type MultiPart struct {
	Semantics PartSemantics
	Parts     []NestedPart
}

func (NullPart) cardinality() uint64      { return nullPart }
func (*SinglePart) cardinality() uint64   { return singlePart }
func (*ExternalPart) cardinality() uint64 { return externalPart }
func (*MultiPart) cardinality() uint64    { return multiPart }

// PartSemantics says how the parts of a MultiPart belong together.
type PartSemantics uint8

// The part semantics. A message with another value is refused.
const (
	ChooseOne  PartSemantics = 0 // the receiver picks one by its own policy
	SingleUnit PartSemantics = 1 // all of them or none
	ProcessAll PartSemantics = 2 // as many as the receiver can
)

// A Disposition says what a part is for. Values that are not listed are not an
// error: they stand for Render.
type Disposition uint8

// The dispositions of the registry.
const (
	Unspecified Disposition = 0
	Render      Disposition = 1
	Reaction    Disposition = 2
	Profile     Disposition = 3
	Inline      Disposition = 4
	Icon        Disposition = 5
	Attachment  Disposition = 6
	Session     Disposition = 7
	Preview     Disposition = 8
)

// Effective returns how a receiver treats d: d itself, or Render where d is
// not registered.
func (d Disposition) Effective() Disposition {
	if d > Preview {
		return Render
	}
	return d
}

// Limits of the format and of this implementation.
const (
	SaltSize      = 16
	MaxTopicID    = 4096 // octets
	MaxParts      = 1024 // NestedParts of one message, at all levels together
	MaxPartDepth  = 4    // levels of NestedParts
	MaxExtDepth   = 4    // levels of tags, maps and arrays, the extension map being the first
	MaxExtKey     = 255  // octets of a text key
	MaxExtInteger = 1<<53 - 1
	MaxMessage    = 1 << 20 // octets of an encoded message; local policy
)
