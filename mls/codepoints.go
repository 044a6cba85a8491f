package mls

// The numbers of the IANA registries (RFC 9420, section 17). Provisional
// numbers of later documents stand in the last block of this file and may
// change between releases.

// A ProtocolVersion is a version of MLS.
type ProtocolVersion uint16

// MLS10 is the only version.
const MLS10 ProtocolVersion = 1 // mls10

// A CipherSuite names the algorithms of a group.
type CipherSuite uint16

// The cipher suites of RFC 9420 that this package implements.
const (
	X25519AES128SHA256Ed25519   CipherSuite = 0x0001 // MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
	P256AES128SHA256P256        CipherSuite = 0x0002 // MLS_128_DHKEMP256_AES128GCM_SHA256_P256
	X25519ChaCha20SHA256Ed25519 CipherSuite = 0x0003 // MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519
	P521AES256SHA512P521        CipherSuite = 0x0005 // MLS_256_DHKEMP521_AES256GCM_SHA512_P521
	P384AES256SHA384P384        CipherSuite = 0x0007 // MLS_256_DHKEMP384_AES256GCM_SHA384_P384
)

// A WireFormat says what an MLSMessage carries.
type WireFormat uint16

// The wire formats of RFC 9420.
const (
	WirePublicMessage  WireFormat = 0x0001 // mls_public_message
	WirePrivateMessage WireFormat = 0x0002 // mls_private_message
	WireWelcome        WireFormat = 0x0003 // mls_welcome
	WireGroupInfo      WireFormat = 0x0004 // mls_group_info
	WireKeyPackage     WireFormat = 0x0005 // mls_key_package
)

// An ExtensionType names an extension.
type ExtensionType uint16

// The extension types of RFC 9420.
const (
	ExtensionApplicationID        ExtensionType = 0x0001 // application_id
	ExtensionRatchetTree          ExtensionType = 0x0002 // ratchet_tree
	ExtensionRequiredCapabilities ExtensionType = 0x0003 // required_capabilities
	ExtensionExternalPub          ExtensionType = 0x0004 // external_pub
	ExtensionExternalSenders      ExtensionType = 0x0005 // external_senders
)

// isDefault reports whether every client supports t, so that no capabilities
// list names it (section 7.2).
func (t ExtensionType) isDefault() bool { return t >= 1 && t <= 5 }

// A ProposalType names a kind of proposal.
type ProposalType uint16

// The proposal types of RFC 9420.
const (
	ProposalAdd                    ProposalType = 0x0001 // add
	ProposalUpdate                 ProposalType = 0x0002 // update
	ProposalRemove                 ProposalType = 0x0003 // remove
	ProposalPSK                    ProposalType = 0x0004 // psk
	ProposalReInit                 ProposalType = 0x0005 // reinit
	ProposalExternalInit           ProposalType = 0x0006 // external_init
	ProposalGroupContextExtensions ProposalType = 0x0007 // group_context_extensions
)

// firstPrivateProposal begins the private use range, whose proposals have a
// body of one opaque vector here (CustomProposal).
const firstPrivateProposal ProposalType = 0xF000

func (t ProposalType) isDefault() bool { return t >= 1 && t <= 7 }

// A proposalTrait is one row of the "MLS Proposal Types" registry (section
// 17.4) and of section 12.2.
type proposalTrait struct {
	pathRequired    bool // "Path Required"
	externalSender  bool // "Ext": an external sender may send it
	externalByValue bool // legal by value in an external commit
	externalByRef   bool // legal by reference in an external commit
}

// traits gives a type's row. Custom proposals need no path, and neither
// external senders nor external commits may use them.
func (t ProposalType) traits() proposalTrait {
	switch t {
	case ProposalAppDataUpdate, ProposalAppEphemeral:
		return proposalTrait{externalSender: true, externalByValue: true, externalByRef: true}
	case ProposalSelfRemove:
		return proposalTrait{pathRequired: true, externalByRef: true}
	}
	return proposalTraits[t]
}

// proposalTraits are the rows of RFC 9420.
var proposalTraits = map[ProposalType]proposalTrait{
	ProposalAdd:                    {externalSender: true},
	ProposalUpdate:                 {pathRequired: true},
	ProposalRemove:                 {pathRequired: true, externalSender: true, externalByValue: true},
	ProposalPSK:                    {externalSender: true, externalByValue: true},
	ProposalReInit:                 {externalSender: true},
	ProposalExternalInit:           {pathRequired: true, externalByValue: true},
	ProposalGroupContextExtensions: {pathRequired: true, externalSender: true},
}

// A CredentialType names a kind of credential.
type CredentialType uint16

// The credential types of RFC 9420.
const (
	CredentialBasic CredentialType = 0x0001 // basic
	CredentialX509  CredentialType = 0x0002 // x509
)

// A PSKType says where a pre-shared key comes from.
type PSKType uint8

// The PSK types of RFC 9420, section 8.4.
const (
	PSKExternal   PSKType = 1 // external
	PSKResumption PSKType = 2 // resumption
)

// PSKApplication is a pre-shared key of a component
// (draft-ietf-mls-extensions-10, section 3.6).
const PSKApplication PSKType = 3 // application

// A ResumptionUsage says what a resumption PSK is for.
type ResumptionUsage uint8

// The usages of section 8.4.
const (
	UsageApplication ResumptionUsage = 1 // application
	UsageReInit      ResumptionUsage = 2 // reinit
	UsageBranch      ResumptionUsage = 3 // branch
)

// A ContentType says what a framed message carries.
type ContentType uint8

// The content types of section 6.
const (
	ContentApplication ContentType = 1 // application
	ContentProposal    ContentType = 2 // proposal
	ContentCommit      ContentType = 3 // commit
)

// A SenderType says who framed a message.
type SenderType uint8

// The sender types of section 6.
const (
	SenderMember            SenderType = 1 // member
	SenderExternal          SenderType = 2 // external
	SenderNewMemberProposal SenderType = 3 // new_member_proposal
	SenderNewMemberCommit   SenderType = 4 // new_member_commit
)

// A LeafNodeSource says how a leaf came into the tree.
type LeafNodeSource uint8

// The sources of section 7.2.
const (
	LeafFromKeyPackage LeafNodeSource = 1 // key_package
	LeafFromUpdate     LeafNodeSource = 2 // update
	LeafFromCommit     LeafNodeSource = 3 // commit
)

// greaseValues are reserved so that clients show that they ignore unknown
// values (section 13.5).
var greaseValues = [...]uint16{
	0x0A0A, 0x1A1A, 0x2A2A, 0x3A3A, 0x4A4A, 0x5A5A, 0x6A6A, 0x7A7A,
	0x8A8A, 0x9A9A, 0xAAAA, 0xBABA, 0xCACA, 0xDADA, 0xEAEA,
}

// The numbers below are provisional: they are suggested by
// draft-ietf-mls-extensions-10, or private where no document suggests any. A
// program that must talk to a peer with other numbers may set them before it
// first uses this package, and never afterwards.
var (
	ExtensionAppDataDictionary    ExtensionType = 0x0006 // app_data_dictionary
	ExtensionSupportedWireFormats ExtensionType = 0x0007 // supported_wire_formats
	ExtensionRequiredWireFormats  ExtensionType = 0x0008 // required_wire_formats
	// ExtensionLastResort marks a KeyPackage as earlier drafts did.
	ExtensionLastResort ExtensionType = 0x000A // last_resort

	// Private: draft-mahy-mls-semiprivatemessage-07 and
	// draft-mahy-mls-ratchet-tree-options-03.
	WireSemiPrivateMessage            WireFormat    = 0xF051 // mls_semiprivate_message
	ExtensionExternalReceivers        ExtensionType = 0xF051 // external_receivers
	ExtensionRatchetTreeSourceDomains ExtensionType = 0xF052 // ratchet_tree_source_domains
	// ComponentExternalReceivers, if it is not 0, makes external_receivers a
	// component instead of an extension; the draft suggests 0x0008.
	ComponentExternalReceivers ComponentID = 0

	ProposalAppDataUpdate ProposalType = 0x0008 // app_data_update
	ProposalAppEphemeral  ProposalType = 0x0009 // app_ephemeral
	ProposalSelfRemove    ProposalType = 0x000A // self_remove

	CredentialMulti     CredentialType = 0x0003 // multi
	CredentialWeakMulti CredentialType = 0x0004 // weak-multi
	// Suggested by draft-mahy-mls-sd-cwt-credential-02.
	CredentialSDCWT CredentialType = 0x0005 // sd_cwt
	CredentialSDJWT CredentialType = 0x0006 // sd_jwt

	ComponentAppComponents     ComponentID = 0x0001 // app_components
	ComponentSafeAAD           ComponentID = 0x0002 // safe_aad
	ComponentContentMediaTypes ComponentID = 0x0003 // content_media_types
	ComponentLastResort        ComponentID = 0x0004 // last_resort_key_package
	ComponentAppAck            ComponentID = 0x0005 // app_ack
)
