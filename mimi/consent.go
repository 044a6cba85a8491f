package mimi

import (
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

const maxConsentKeyPackages = 1024

// A ConsentOperation is one step about a consent.
type ConsentOperation uint8

// The operations (section 5.7).
const (
	ConsentCancel  ConsentOperation = 0
	ConsentRequest ConsentOperation = 1
	ConsentGrant   ConsentOperation = 2
	ConsentRevoke  ConsentOperation = 3
)

// A ConsentScope is what a consent is about: that a requester may fetch the
// KeyPackages of a target, for one room or for any.
//
//	struct {
//	    IdentifierUri requesterUri;
//	    IdentifierUri targetUri;
//	    optional<IdentifierUri> roomId;
//	} ConsentScope;
type ConsentScope struct {
	RequesterURI URI
	TargetURI    URI
	RoomID       URI // zero for any room
}

// A ConsentEntry asks for a consent, or tells of one. It goes from provider to
// provider, never through a hub.
//
//	struct {
//	    ConsentOperation consentOperation;
//	    IdentifierUri requesterUri;
//	    IdentifierUri targetUri;
//	    optional<IdentifierUri> roomId;
//	    select (consentOperation) {
//	        case grant: KeyPackage clientKeyPackages<V>;
//	    };
//	    AppDataDictionary consent_extensions;
//	} ConsentEntry;
type ConsentEntry struct {
	Operation ConsentOperation
	ConsentScope
	ClientKeyPackages []*mls.KeyPackage // with ConsentGrant, may be empty
	Extensions        mls.AppDataDictionary
}

func (c *ConsentEntry) append(b *tlsvec.Builder) {
	b.Uint8(uint8(c.Operation))
	appendURI(b, c.RequesterURI)
	appendURI(b, c.TargetURI)
	b.Optional(!c.RoomID.IsZero())
	if !c.RoomID.IsZero() {
		appendURI(b, c.RoomID)
	}
	if c.Operation == ConsentGrant {
		appendList(b, c.ClientKeyPackages, func(b *tlsvec.Builder, k *mls.KeyPackage) { b.Raw(k.Bytes()) })
	}
	appendDictionary(b, c.Extensions)
}

func (c *ConsentEntry) read(r *tlsvec.Reader) {
	c.Operation = readCode(r, "consentOperation", ConsentCancel, ConsentRevoke)
	c.RequesterURI = readUser(r)
	c.TargetURI = readUser(r)
	if r.Optional() {
		c.RoomID = readURI(r, KindRoom)
	}
	if r.Err() == nil && c.Operation == ConsentGrant {
		c.ClientKeyPackages = readList(r, "KeyPackages", maxConsentKeyPackages, readKeyPackage)
	}
	c.Extensions = readDictionary(r)
}

// Marshal returns the entry's encoding.
func (c *ConsentEntry) Marshal() []byte { return marshal(c) }

// ParseConsentEntry decodes an entry.
func ParseConsentEntry(b []byte) (*ConsentEntry, error) {
	c := new(ConsentEntry)
	return c, parse("ConsentEntry", b, c)
}

// ErrConsent is found in the errors of an entry that one provider may not send
// to another.
var ErrConsent = errors.New("mimi: consent entry is not for this request")

// CheckRequest judges the body of requestConsent, which comes from the
// requester's provider: a request or a cancel.
func (c *ConsentEntry) CheckRequest(from, to string) error {
	if c.Operation != ConsentRequest && c.Operation != ConsentCancel {
		return fmt.Errorf("%w: operation %d in requestConsent", ErrConsent, c.Operation)
	}
	return checkConsentHosts(c.RequesterURI, c.TargetURI, from, to)
}

// CheckUpdate judges the body of updateConsent, which comes from the target's
// provider: a grant or a revoke. It may come unasked.
func (c *ConsentEntry) CheckUpdate(from, to string) error {
	if c.Operation != ConsentGrant && c.Operation != ConsentRevoke {
		return fmt.Errorf("%w: operation %d in updateConsent", ErrConsent, c.Operation)
	}
	return checkConsentHosts(c.TargetURI, c.RequesterURI, from, to)
}

func checkConsentHosts(sender, receiver URI, from, to string) error {
	if sender.Host() != from || receiver.Host() != to {
		return fmt.Errorf("%w: it is from %q to %q, the users are of %q and %q", ErrConsent, from, to, sender.Host(), receiver.Host())
	}
	return nil
}

// Consents are the grants and revocations that a provider knows, by scope.
type Consents map[ConsentScope]bool

// Record notes a grant or revocation; the latest of a scope stands. A request
// or cancel changes nothing.
func (c Consents) Record(e *ConsentEntry) {
	if e.Operation == ConsentGrant || e.Operation == ConsentRevoke {
		c[e.ConsentScope] = e.Operation == ConsentGrant
	}
}

// Given reports whether the requester may fetch the target's KeyPackages for
// the room. What was said of the room goes before what was said of any room;
// without a word there is no consent. The draft leaves both open.
func (c Consents) Given(s ConsentScope) bool {
	if granted, ok := c[s]; ok {
		return granted
	}
	s.RoomID = URI{}
	return c[s]
}
