package policy

import "github.com/privyseal/privyseal/internal/tlsvec"

// ExtendedCapabilities lists what clients must, may by default, or must not
// support. The numbers are those of the MLS registries.
//
//	struct {
//	  ProtocolVersion versions<V>;
//	  CipherSuite cipher_suites<V>;
//	  ExtensionType extensions<V>;
//	  ProposalType proposals<V>;
//	  CredentialType credentials<V>;
//	  WireFormats wire_formats<V>;
//	  ComponentID component_ids<V>;
//	  ComponentID safe_aad_types<V>;
//	  MediaType media_types<V>;
//	  ContentType content_types<V>;
//	} ExtendedCapabilities;
//
// WireFormats is read as WireFormat, which is what can be meant.
type ExtendedCapabilities struct {
	Versions     []uint16
	CipherSuites []uint16
	Extensions   []uint16
	Proposals    []uint16
	Credentials  []uint16
	WireFormats  []uint16
	ComponentIDs []ComponentID
	SafeAADTypes []ComponentID
	MediaTypes   []MediaType
	ContentTypes []uint8
}

// PendingProposalStrategy says who commits pending proposals, and when.
//
//	enum {
//	  unspecified(0),
//	  immediate_commit(1),
//	  random_delay(2),
//	  (255)
//	} PendingProposalStrategy;
//
// Values 3 and 4 of -02 are gone from the draft and never encoded here; see
// PendingProposalPreference.
type PendingProposalStrategy uint8

// The strategies.
const (
	StrategyUnspecified     PendingProposalStrategy = 0
	StrategyImmediateCommit PendingProposalStrategy = 1
	StrategyRandomDelay     PendingProposalStrategy = 2
)

// PendingProposalPolicy is a strategy with its parameters.
//
//	struct {
//	  PendingProposalStrategy pending_proposal_strategy;
//	  select (pending_proposal_strategy) {
//	    case unspecified: case immediate_commit:
//	      struct {};
//	    case random_delay:
//	      uint64 minimum_delay_ms;
//	      uint64 maximum_delay_ms;
//	    case extension:
//	      ComponentID id_of_strategy_params;
//	  }
//	} PendingProposalPolicy;
//
// The arm extension has no value of the enum and cannot be encoded.
type PendingProposalPolicy struct {
	Strategy       PendingProposalStrategy
	MinimumDelayMS uint64 // with StrategyRandomDelay, as the next
	MaximumDelayMS uint64
}

// MinDefaultMaxTime is a range of durations in seconds; three zeros leave it
// open.
//
//	struct {
//	  uint64 minimum_time;
//	  uint64 default_time;
//	  uint64 maximum_time;
//	} MinDefaultMaxTime;
type MinDefaultMaxTime struct {
	Minimum uint64
	Default uint64
	Maximum uint64
}

// AppMessagePolicy bounds what clients do with application messages.
//
//	struct {
//	  uint8  epoch_tolerance;
//	  uint16 pad_to_size;
//	  uint32 max_generations_skipahead;
//	} AppMessagePolicy;
type AppMessagePolicy struct {
	EpochTolerance          uint8
	PadToSize               uint16
	MaxGenerationsSkipahead uint32
}

// DefaultEpochTolerance is used in rooms without mls_operational_policy.
const DefaultEpochTolerance = 1

// OperationalParameters is the value and the update of component
// mls_operational_policy (0x0024, section 7).
//
//	struct {
//	  ExtendedCapabilities mandatory_capabilities;
//	  ExtendedCapabilities default_capabilities;
//	  ExtendedCapabilities forbidden_capabilities;
//	  WireFormats handshake_formats<V>;
//	  bool external_proposal_allowed;
//	  bool external_commit_allowed;
//	  PendingProposalPolicy pending_proposal_policy;
//	  MinDefaultMaxTime LeafNode_update_time;
//	  AppMessagePolicy app_message_policy;
//	  unit64 max_kp_lifetime;
//	  uint64 max_credential_lifetime;
//	  uint64 resumption_psk_lifetime;
//	  MinDefaultMaxTime sender_nonce_keypair_lifetime;
//	  uint32 max_keypairs;
//	  MinDefaultMaxTime buffer_incoming_message_time;
//	  uint32 max_buffered_messages;
//	} OperationalParameters;
type OperationalParameters struct {
	MandatoryCapabilities      ExtendedCapabilities
	DefaultCapabilities        ExtendedCapabilities
	ForbiddenCapabilities      ExtendedCapabilities
	HandshakeFormats           []uint16
	ExternalProposalAllowed    bool
	ExternalCommitAllowed      bool
	PendingProposalPolicy      PendingProposalPolicy
	LeafNodeUpdateTime         MinDefaultMaxTime
	AppMessagePolicy           AppMessagePolicy
	MaxKPLifetime              uint64
	MaxCredentialLifetime      uint64
	ResumptionPSKLifetime      uint64
	SenderNonceKeypairLifetime MinDefaultMaxTime
	MaxKeypairs                uint32
	BufferIncomingMessageTime  MinDefaultMaxTime
	MaxBufferedMessages        uint32
}

func appendCapabilities(b *tlsvec.Builder, c *ExtendedCapabilities) {
	for _, list := range [][]uint16{c.Versions, c.CipherSuites, c.Extensions, c.Proposals, c.Credentials, c.WireFormats} {
		appendList(b, list, appendUint16)
	}
	appendList(b, c.ComponentIDs, appendUint16)
	appendList(b, c.SafeAADTypes, appendUint16)
	appendList(b, c.MediaTypes, appendMediaType)
	b.Vector(c.ContentTypes)
}

func readCapabilities(r *tlsvec.Reader) (c ExtendedCapabilities) {
	for _, list := range []*[]uint16{&c.Versions, &c.CipherSuites, &c.Extensions, &c.Proposals, &c.Credentials, &c.WireFormats} {
		*list = readList(r, maxList, readUint16[uint16])
	}
	c.ComponentIDs = readList(r, maxList, readUint16[ComponentID])
	c.SafeAADTypes = readList(r, maxList, readUint16[ComponentID])
	c.MediaTypes = readList(r, maxList, readMediaType)
	c.ContentTypes = readOpaque(r, 256)
	return c
}

func appendPending(b *tlsvec.Builder, p PendingProposalPolicy) {
	b.Uint8(uint8(p.Strategy))
	if p.Strategy == StrategyRandomDelay {
		b.Uint64(p.MinimumDelayMS)
		b.Uint64(p.MaximumDelayMS)
	}
}

func readPending(r *tlsvec.Reader) PendingProposalPolicy {
	p := PendingProposalPolicy{Strategy: readEnum(r, "pending proposal strategy", StrategyRandomDelay)}
	if p.Strategy == StrategyRandomDelay {
		p.MinimumDelayMS, p.MaximumDelayMS = r.Uint64(), r.Uint64()
	}
	return p
}

func appendTimes(b *tlsvec.Builder, t MinDefaultMaxTime) {
	b.Uint64(t.Minimum)
	b.Uint64(t.Default)
	b.Uint64(t.Maximum)
}

func readTimes(r *tlsvec.Reader) MinDefaultMaxTime {
	return MinDefaultMaxTime{r.Uint64(), r.Uint64(), r.Uint64()}
}

// Marshal returns the parameters' encoding.
func (p *OperationalParameters) Marshal() []byte { return marshal(p.append) }

func (p *OperationalParameters) append(b *tlsvec.Builder) {
	appendCapabilities(b, &p.MandatoryCapabilities)
	appendCapabilities(b, &p.DefaultCapabilities)
	appendCapabilities(b, &p.ForbiddenCapabilities)
	appendList(b, p.HandshakeFormats, appendUint16)
	appendBool(b, p.ExternalProposalAllowed)
	appendBool(b, p.ExternalCommitAllowed)
	appendPending(b, p.PendingProposalPolicy)
	appendTimes(b, p.LeafNodeUpdateTime)
	b.Uint8(p.AppMessagePolicy.EpochTolerance)
	b.Uint16(p.AppMessagePolicy.PadToSize)
	b.Uint32(p.AppMessagePolicy.MaxGenerationsSkipahead)
	b.Uint64(p.MaxKPLifetime)
	b.Uint64(p.MaxCredentialLifetime)
	b.Uint64(p.ResumptionPSKLifetime)
	appendTimes(b, p.SenderNonceKeypairLifetime)
	b.Uint32(p.MaxKeypairs)
	appendTimes(b, p.BufferIncomingMessageTime)
	b.Uint32(p.MaxBufferedMessages)
}

// ParseOperationalParameters decodes operational parameters.
func ParseOperationalParameters(data []byte) (*OperationalParameters, error) {
	return parse("OperationalParameters", data, readOperational, (*OperationalParameters).check)
}

func readOperational(r *tlsvec.Reader) OperationalParameters {
	return OperationalParameters{
		MandatoryCapabilities:      readCapabilities(r),
		DefaultCapabilities:        readCapabilities(r),
		ForbiddenCapabilities:      readCapabilities(r),
		HandshakeFormats:           readList(r, maxList, readUint16[uint16]),
		ExternalProposalAllowed:    readBool(r),
		ExternalCommitAllowed:      readBool(r),
		PendingProposalPolicy:      readPending(r),
		LeafNodeUpdateTime:         readTimes(r),
		AppMessagePolicy:           AppMessagePolicy{r.Uint8(), r.Uint16(), r.Uint32()},
		MaxKPLifetime:              r.Uint64(),
		MaxCredentialLifetime:      r.Uint64(),
		ResumptionPSKLifetime:      r.Uint64(),
		SenderNonceKeypairLifetime: readTimes(r),
		MaxKeypairs:                r.Uint32(),
		BufferIncomingMessageTime:  readTimes(r),
		MaxBufferedMessages:        r.Uint32(),
	}
}

func (p *OperationalParameters) check() error {
	if p.PendingProposalPolicy.MaximumDelayMS < p.PendingProposalPolicy.MinimumDelayMS {
		return invalid("the longest delay before a commit is below the shortest")
	}
	for _, t := range []MinDefaultMaxTime{p.LeafNodeUpdateTime, p.SenderNonceKeypairLifetime, p.BufferIncomingMessageTime} {
		if t.Minimum > t.Default || t.Default > t.Maximum {
			return invalid("times %d, %d, %d are not minimum, default and maximum", t.Minimum, t.Default, t.Maximum)
		}
	}
	return nil
}
