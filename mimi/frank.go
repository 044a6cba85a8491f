package mimi

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// Sizes of franking (draft-ietf-mimi-protocol-06 section 5.4.1.2).
const (
	FrankingTagSize = sha256.Size // of the client's tag
	ServerFrankSize = sha256.Size // of the hub's MAC
	SaltSize        = 16          // of the MIMI content salt that keys the tag
)

const labelFrankingIntegrity = "FrankingIntegrityTBS"

// A FrankingTag commits the sender to a message without showing it: the hub
// sees the tag in the authenticated data, and only somebody who has decrypted
// the message can show what it stands for.
type FrankingTag [FrankingTagSize]byte

// ComputeFrankingTag returns HMAC-SHA256(salt, application_data). The salt is
// that of the MIMI content; applicationData is what MLS encrypts, with its
// ApplicationFraming where the group uses it.
func ComputeFrankingTag(salt [SaltSize]byte, applicationData []byte) (tag FrankingTag) {
	mac := hmac.New(sha256.New, salt[:])
	mac.Write(applicationData)
	mac.Sum(tag[:0])
	return tag
}

// A ServerFrankingContext is what the hub vouches for beside the tag.
//
//	struct {
//	    IdentifierUri sender_uri;
//	    IdentifierUri room_uri;
//	    uint64 accepted_timestamp;
//	} ServerFrankingContext;
type ServerFrankingContext struct {
	SenderURI         URI
	RoomURI           URI
	AcceptedTimestamp uint64 // milliseconds since the UNIX epoch; strictly increasing in a room
}

func (c *ServerFrankingContext) append(b *tlsvec.Builder) {
	b.String(c.SenderURI.String())
	b.String(c.RoomURI.String())
	b.Uint64(c.AcceptedTimestamp)
}

// Marshal returns the context's encoding.
func (c *ServerFrankingContext) Marshal() []byte {
	b := tlsvec.NewBuilder(len(c.SenderURI.String()) + len(c.RoomURI.String()) + 16)
	c.append(b)
	return b.Bytes()
}

// macInput is what the hub's MAC is over: franking_tag || context.
func (c *ServerFrankingContext) macInput(tag FrankingTag) []byte {
	b := tlsvec.NewBuilder(2 * MaxURI / 8)
	b.Raw(tag[:])
	c.append(b)
	return b.Bytes()
}

// A Frank is the hub's statement that it accepted a message with a tag, from a
// user, in a room, at a time.
//
//	struct {
//	    uint8 server_frank[32];
//	    CipherSuite franking_signature_ciphersuite;
//	    opaque franking_integrity_signature<V>;
//	} Frank;
type Frank struct {
	ServerFrank        [ServerFrankSize]byte
	CipherSuite        mls.CipherSuite // gives the signature scheme
	IntegritySignature []byte
}

// maxFrankSignature is above any signature of a cipher suite that we have.
const maxFrankSignature = 256

// Marshal returns the frank's encoding.
func (f *Frank) Marshal() []byte {
	b := tlsvec.NewBuilder(ServerFrankSize + len(f.IntegritySignature) + 6)
	f.append(b)
	return b.Bytes()
}

func (f *Frank) append(b *tlsvec.Builder) {
	b.Raw(f.ServerFrank[:])
	b.Uint16(uint16(f.CipherSuite))
	b.Vector(f.IntegritySignature)
}

func (f *Frank) read(r *tlsvec.Reader) {
	copy(f.ServerFrank[:], r.Bytes(ServerFrankSize))
	f.CipherSuite = mls.CipherSuite(r.Uint16())
	f.IntegritySignature = r.Vector()
	if len(f.IntegritySignature) > maxFrankSignature {
		r.Fail(fmt.Sprintf("franking signature of %d octets, want at most %d", len(f.IntegritySignature), maxFrankSignature))
	}
}

// ParseFrank decodes a Frank and nothing after it.
func ParseFrank(b []byte) (*Frank, error) {
	r := tlsvec.NewReader(b)
	f := new(Frank)
	f.read(r)
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("mimi: Frank: %w", err)
	}
	return f, nil
}

// frankingIntegrityTBS is what the hub signs: server_frank || ciphersuite ||
// context.
func (f *Frank) integrityTBS(c *ServerFrankingContext) []byte {
	b := tlsvec.NewBuilder(256)
	b.Raw(f.ServerFrank[:])
	b.Uint16(uint16(f.CipherSuite))
	c.append(b)
	return b.Bytes()
}

// A MAC is an HMAC-SHA256 key that may live in a device.
type MAC interface {
	MAC(ctx context.Context, data []byte) ([]byte, error)
}

// A SoftwareMAC is a MAC key in memory, for tests and for checking old franks
// whose keys have been taken out of service.
type SoftwareMAC []byte

// MAC returns HMAC-SHA256(key, data).
func (k SoftwareMAC) MAC(_ context.Context, data []byte) ([]byte, error) {
	if len(k) < 16 {
		return nil, errors.New("mimi: franking MAC key is shorter than 16 octets")
	}
	mac := hmac.New(sha256.New, k)
	mac.Write(data)
	return mac.Sum(nil), nil
}

// String keeps the key out of prints, as Format does for every verb.
func (SoftwareMAC) String() string { return "[MAC key]" }

// Format keeps the key out of any print.
func (k SoftwareMAC) Format(f fmt.State, _ rune) { fmt.Fprint(f, "[MAC key]") }

// A Franker makes a hub's franks: one MAC and one signature each, with keys
// that may live in a device.
type Franker struct {
	CipherSuite mls.CipherSuite // of the room's group
	MAC         MAC             // hub_key
	Signer      crypto.Signer   // the key of the group's franking_agent
}

// Frank makes the frank of a message that the hub accepts.
func (f *Franker) Frank(ctx context.Context, tag FrankingTag, c *ServerFrankingContext) (*Frank, error) {
	sum, err := f.MAC.MAC(ctx, c.macInput(tag))
	if err != nil {
		return nil, fmt.Errorf("mimi: server frank: %w", err)
	}
	frank := &Frank{CipherSuite: f.CipherSuite}
	if copy(frank.ServerFrank[:], sum) != len(sum) || len(sum) != ServerFrankSize {
		return nil, fmt.Errorf("mimi: server frank: MAC of %d octets, want %d", len(sum), ServerFrankSize)
	}
	frank.IntegritySignature, err = mls.SignWithLabel(ctx, f.CipherSuite, f.Signer, labelFrankingIntegrity, frank.integrityTBS(c))
	if err != nil {
		return nil, fmt.Errorf("mimi: franking signature: %w", err)
	}
	return frank, nil
}

// A FrankReason names why a frank does not stand.
type FrankReason string

// The reasons, in the order in which a receiver or a hub meets them.
const (
	FrankSuite     FrankReason = "frank-suite"     // signed in another cipher suite than the group's
	FrankAgent     FrankReason = "frank-agent"     // no franking_agent for the room's host
	FrankSignature FrankReason = "frank-signature" // not signed by the hub, or over other values
	FrankTag       FrankReason = "frank-tag"       // the tag is not of this message
	FrankSender    FrankReason = "frank-sender"    // the message names a user other than its leaf's, or than the accused
	FrankRoom      FrankReason = "frank-room"      // the message names another room
	FrankKey       FrankReason = "frank-key"       // no key of the hub was in force at that time
	FrankMAC       FrankReason = "frank-mac"       // the hub never accepted this
)

// A FrankError says why a frank does not stand.
type FrankError struct {
	Reason FrankReason
	Detail string
	Err    error
}

func (e *FrankError) Error() string { return "mimi: " + string(e.Reason) + ": " + e.Detail }

func (e *FrankError) Unwrap() error { return e.Err }

// Is reports whether target is a *FrankError of the same Reason.
func (e *FrankError) Is(target error) bool {
	t, ok := target.(*FrankError)
	return ok && t.Reason == e.Reason
}

// FrankedContent is what a decrypted message says of itself.
type FrankedContent struct {
	ApplicationData []byte         // exactly what was decrypted
	Salt            [SaltSize]byte // of the MIMI content in it
	SenderURI       URI            // extension 1 of the MIMI content
	RoomURI         URI            // extension 2 of the MIMI content
}

// A FrankedMessage is a received message with all that its frank is judged by.
type FrankedMessage struct {
	Content           FrankedContent
	Frank             *Frank
	AcceptedTimestamp uint64      // as fanned out
	Tag               FrankingTag // frank_aad in the message's authenticated data

	GroupSuite  mls.CipherSuite
	AgentKey    []byte // franking_signature_key of the GroupContext's franking_agent, empty if there is none
	AgentDomain string // the domain that the agent's credential was verified for
	LeafUserURI URI    // the user of the sender's leaf
	RoomURI     URI    // the room whose group the message came in
}

// Verify judges a frank as a receiver: that the hub of the room signed it, and
// that it is of this message by this sender. A message whose frank does not
// stand is shown as unfranked, never as franked; one that names another sender
// or room is discarded.
//
// A receiver cannot see that the hub's MAC covers the tag; only the hub can.
func (m *FrankedMessage) Verify() error {
	switch {
	case m.Frank.CipherSuite != m.GroupSuite:
		return &FrankError{FrankSuite, fmt.Sprintf("frank of suite 0x%04x in a group of suite 0x%04x", uint16(m.Frank.CipherSuite), uint16(m.GroupSuite)), nil}
	case len(m.AgentKey) == 0:
		return &FrankError{FrankAgent, "the group has no franking agent", nil}
	case m.AgentDomain != m.RoomURI.Host():
		return &FrankError{FrankAgent, fmt.Sprintf("the franking agent is of %q, the room of %q", m.AgentDomain, m.RoomURI.Host()), nil}
	}
	c := ServerFrankingContext{m.Content.SenderURI, m.Content.RoomURI, m.AcceptedTimestamp}
	if err := m.Frank.verifySignature(m.AgentKey, &c); err != nil {
		return err
	}
	tag := ComputeFrankingTag(m.Content.Salt, m.Content.ApplicationData)
	switch {
	case subtle.ConstantTimeCompare(tag[:], m.Tag[:]) != 1:
		return &FrankError{FrankTag, "the tag in the authenticated data is not of this message", nil}
	case m.Content.SenderURI != m.LeafUserURI:
		return &FrankError{FrankSender, "the message names a user other than that of its sender's leaf", nil}
	case m.Content.RoomURI != m.RoomURI:
		return &FrankError{FrankRoom, "the message names another room", nil}
	}
	return nil
}

func (f *Frank) verifySignature(key []byte, c *ServerFrankingContext) error {
	if err := mls.VerifyWithLabel(f.CipherSuite, key, labelFrankingIntegrity, f.integrityTBS(c), f.IntegritySignature); err != nil {
		return &FrankError{FrankSignature, "the hub did not sign this sender, room and time", err}
	}
	return nil
}

// A FrankingKeys is a hub's keys by the time at which they made franks. It is
// kept for as long as abuse may be reported.
type FrankingKeys struct {
	macs  []timedKey[MAC]
	signs []timedKey[frankVerifier]
}

type frankVerifier struct {
	suite mls.CipherSuite
	key   []byte
}

type timedKey[K any] struct {
	from, to uint64 // [from, to) in milliseconds since the UNIX epoch
	key      K
}

// MaxTimestamp stands for "still in force" in AddMAC and AddSignatureKey.
const MaxTimestamp uint64 = math.MaxUint64

// AddMAC adds a MAC key that was in force from from until before to. Keys in
// force at one time are all tried.
func (k *FrankingKeys) AddMAC(from, to uint64, key MAC) {
	k.macs = append(k.macs, timedKey[MAC]{from, to, key})
}

// AddSignatureKey adds a franking public key, as an MLS SignaturePublicKey of a
// cipher suite.
func (k *FrankingKeys) AddSignatureKey(from, to uint64, suite mls.CipherSuite, key []byte) {
	k.signs = append(k.signs, timedKey[frankVerifier]{from, to, frankVerifier{suite, key}})
}

// A FrankReport is one message of an abuse report, opened by the hub.
type FrankReport struct {
	Content           FrankedContent
	Frank             *Frank
	AcceptedTimestamp uint64
	RoomURI           URI // the room of the request
	AllegedAbuser     URI
}

// VerifyReport judges a reported message as the hub that franked it. A nil
// error means that the hub accepted exactly this message from exactly this
// user, in this room, at this time.
func (k *FrankingKeys) VerifyReport(ctx context.Context, r *FrankReport) error {
	switch {
	case r.Content.SenderURI != r.AllegedAbuser:
		return &FrankError{FrankSender, "the message names a user other than the accused", nil}
	case r.Content.RoomURI != r.RoomURI:
		return &FrankError{FrankRoom, "the message names another room", nil}
	}
	c := ServerFrankingContext{r.Content.SenderURI, r.Content.RoomURI, r.AcceptedTimestamp}
	tag := ComputeFrankingTag(r.Content.Salt, r.Content.ApplicationData)
	if err := k.verifyMAC(ctx, r.Frank, c.macInput(tag), r.AcceptedTimestamp); err != nil {
		return err
	}
	return k.verifySignature(r.Frank, &c)
}

func (k *FrankingKeys) verifyMAC(ctx context.Context, f *Frank, input []byte, at uint64) error {
	known := false
	for _, m := range k.macs {
		if at < m.from || at >= m.to {
			continue
		}
		known = true
		sum, err := m.key.MAC(ctx, input)
		if err != nil {
			return fmt.Errorf("mimi: server frank: %w", err)
		}
		if subtle.ConstantTimeCompare(sum, f.ServerFrank[:]) == 1 {
			return nil
		}
	}
	if !known {
		return &FrankError{FrankKey, "no franking MAC key was in force at that time", nil}
	}
	return &FrankError{FrankMAC, "the hub did not accept this message from this user at this time", nil}
}

func (k *FrankingKeys) verifySignature(f *Frank, c *ServerFrankingContext) error {
	err := error(&FrankError{FrankKey, "no franking signature key of that cipher suite was in force at that time", nil})
	for _, s := range k.signs {
		if c.AcceptedTimestamp < s.from || c.AcceptedTimestamp >= s.to || s.key.suite != f.CipherSuite {
			continue
		}
		if err = f.verifySignature(s.key.key, c); err == nil {
			return nil
		}
	}
	return err
}
