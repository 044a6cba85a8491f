package mls

import "fmt"

// A Rule numbers one validation rule; docs/validation.md lists them with
// section, error and test. Numbers never change.
type Rule uint16

func (r Rule) String() string { return fmt.Sprintf("V%03d", uint16(r)) }

// Section gives the section of RFC 9420 that states the rule, or, after the
// short name of another document, that document's.
func (r Rule) Section() string { return ruleSections[r] }

// Leaf nodes (sections 7.2, 7.3).
const (
	RuleLeafSource           Rule = 101 + iota // leaf_node_source fits where the leaf appears
	RuleLeafSignature                          // signature verifies
	RuleLeafCredential                         // credential acceptable to the application
	RuleLeafCredentialListed                   // own credential type listed in capabilities
	RuleLeafRequired                           // required capabilities are supported
	RuleLeafCredentialCommon                   // credential type supported by all; supports all in use
	RuleLeafLifetime                           // now within lifetime
	RuleLeafLifetimeTotal                      // lifetime not longer than the maximum
	RuleLeafExtensions                         // leaf extensions listed in capabilities
	RuleLeafSignatureKey                       // signature_key unique in the group
	RuleLeafEncryptionKey                      // encryption_key unique in the group
	RuleLeafUpdateKey                          // Update changes the encryption key
	RuleLeafVersion                            // version and cipher suite of the group listed
	RuleLeafGroupExtensions                    // GroupContext extensions supported
	RuleLeafPublicKeys                         // keys are keys of the cipher suite
	RuleExtensionsUnique                       // no extension type twice in a list
	RuleLeafCertificateKey                     // certificate of an x509 credential is for signature_key
)

// Ratchet trees (sections 7.1, 7.9.2, 12.4.3.1, 12.4.3.3).
const (
	RuleTreeLastBlank        Rule = 201 + iota // last node of ratchet_tree is non-blank
	RuleTreeNodeKind                           // leaves and parents alternate
	RuleTreeHash                               // root hash equals tree_hash
	RuleTreeParentHash                         // every parent is parent-hash valid
	RuleTreeUnmergedSorted                     // unmerged_leaves strictly increasing
	RuleTreeUnmergedLeaf                       // entries are non-blank leaves below the node
	RuleTreeUnmergedBetween                    // nodes between carry the entry too
	RuleTreeParentKeyUnique                    // parent keys appear in no other node
	RulePathParentHash                         // leaf of an UpdatePath carries the computed parent hash
	RulePathLength                             // UpdatePath has one node per filtered path node
	RulePathCiphertextCount                    // one ciphertext per resolution node
	RulePathKeysFresh                          // UpdatePath keys appear in no node of the tree
	RulePathDerivedKey                         // path secret derives the public keys given
	RulePathParentPublicKeys                   // parent keys are keys of the cipher suite
)

// KeyPackages and groups (sections 8.1, 10.1, 11.1 to 11.3).
const (
	RuleKeyPackageSuite      Rule = 301 + iota // version and suite are the group's
	RuleKeyPackageSignature                    // signature verifies
	RuleKeyPackageInitKey                      // init_key differs from encryption_key
	RuleKeyPackagePublicKey                    // init_key is a key of the suite
	RuleGroupRequired                          // required_capabilities met by all members
	RuleGroupExtensions                        // all members support GroupContext extensions
	RuleReInitWelcome                          // Welcome matches the ReInit
	RuleBranchWelcome                          // Welcome matches the branch
	RuleGroupIDUnique                          // group_id not in use
	RuleKeyPackageExtensions                   // KeyPackage extensions listed in capabilities
	RuleMessageVersion                         // KeyPackage version equals MLSMessage version
)

// Messages (sections 6, 6.1 to 6.3, 15).
const (
	RuleFrameApplicationPrivate Rule = 401 + iota // application data only as PrivateMessage
	RuleFrameSender                               // sender exists and may send this content
	RuleFrameSignature                            // FramedContent signature verifies
	RuleFrameMembershipTag                        // membership tag verifies
	RuleFramePadding                              // padding is all zero
	RuleFrameSenderData                           // sender data names a non-blank leaf
	RuleFrameExternalProposal                     // external senders send only allowed types
	RuleFrameEpoch                                // handshake messages are of the current epoch
	RuleFrameAuthenticatedData                    // authenticated_data obeys the group's rule
)

// Proposals (sections 8.4, 12.1, 12.2).
const (
	RuleRemoveTarget       Rule = 501 + iota // removed is a member
	RulePSKUsage                             // reinit and branch PSKs only there
	RulePSKNonce                             // psk_nonce has KDF.Nh octets
	RuleReInitVersion                        // ReInit does not lower the version
	RuleListOwnUpdate                        // no Update by the committer
	RuleListSelfRemove                       // committer does not remove itself
	RuleListSameLeaf                         // one Update or Remove per leaf
	RuleListSameClient                       // no client added twice
	RuleListMemberAdded                      // no member added again
	RuleListSamePSK                          // no PSK twice
	RuleListOneGCE                           // one GroupContextExtensions
	RuleListReInitAlone                      // ReInit stands alone
	RuleListExternalInit                     // ExternalInit only in external commits
	RuleListUnsupported                      // non-default types supported by all
	RuleExternalList                         // external commits: allowed proposals only
	RuleExternalInitOnce                     // external commits: exactly one ExternalInit
	RuleExternalRemoveOnce                   // external commits: at most one Remove, of the joiner's old leaf
	RuleExternalByValue                      // external commits: proposals by value
	RuleUpdateSender                         // Update comes from a member
)

// Commits, Welcomes and external commits (sections 12.4 to 12.4.3).
const (
	RuleCommitPathRequired  Rule = 601 + iota // path present where required
	RuleCommitConfirmation                    // confirmation tag verifies
	RuleCommitUnknownRef                      // references are known
	RuleCommitLeafKey                         // path leaf has a new encryption key
	RuleCommitPSKAvailable                    // PSKs are available
	RuleExternalPath                          // external commits carry a path
	RuleWelcomeSuite                          // suites of Welcome, KeyPackage and GroupInfo agree
	RuleWelcomePSKAlone                       // reinit or branch PSK is the only such PSK
	RuleWelcomeSignature                      // GroupInfo signature by the signer's leaf
	RuleWelcomeConfirmation                   // confirmation tag of the GroupInfo
	RuleWelcomeOwnLeaf                        // a leaf equals the KeyPackage's
	RuleWelcomePathSecret                     // path secret fits the tree
	RuleWelcomeEpoch                          // epoch is 1 with a reinit or branch PSK
	RuleWelcomeExtensions                     // joiner supports the GroupContext extensions
	RuleExternalPub                           // GroupInfo has external_pub
	RuleAddLeafLimit                          // group stays within its limit of members
)

// SemiPrivateMessages, and GroupInfo for delivery services
// (draft-mahy-mls-semiprivatemessage-07, draft-mahy-mls-ratchet-tree-options-03).
const (
	RuleSemiPrivateAllowed    Rule = 801 + iota // the GroupContext requires the wire format and has receivers
	RuleSemiPrivateReceivers                    // one key for each external receiver, and no other
	RuleSemiPrivateContext                      // partial_context_hash fits sender and nonce
	RuleSemiPrivateHash                         // framed_content_tbs_hash fits the content
	RuleSemiPrivateContent                      // proposals and commits only
	RuleExternalReceivers                       // external_receivers: keys of the suite, none twice
	RuleTreeSource                              // httpsUri points into ratchet_tree_source_domains
	RuleTreeOption                              // a group that is not known yet comes with its full tree
	RulePartialPresence                         // ratchet_tree_presence is no_ratchet_tree
	RuleGroupInfoContext                        // GroupInfo describes the commit's epoch
	RuleGroupInfoConfirmation                   // confirmation_tag is the commit's
	RuleGroupInfoSigner                         // signer is the committer
	RuleGroupInfoTree                           // ratchet_tree, if there, is the group's
	RuleGroupInfoExternalPub                    // external_pub, if there, is a key of the suite
	RulePublicHandshake                         // handshakes of a group with a hub are readable to it
)

var ruleSections = map[Rule]string{
	RuleLeafSource: "7.3", RuleLeafSignature: "7.3", RuleLeafCredential: "5.3.1", RuleLeafCredentialListed: "7.2",
	RuleLeafRequired: "7.3", RuleLeafCredentialCommon: "7.3", RuleLeafLifetime: "7.3", RuleLeafLifetimeTotal: "7.2",
	RuleLeafExtensions: "7.3", RuleLeafSignatureKey: "7.3", RuleLeafEncryptionKey: "7.3", RuleLeafUpdateKey: "7.3",
	RuleLeafVersion: "7.2", RuleLeafGroupExtensions: "13.4", RuleLeafPublicKeys: "10", RuleExtensionsUnique: "13.4",
	RuleLeafCertificateKey: "5.3",

	RuleTreeLastBlank: "12.4.3.3", RuleTreeNodeKind: "12.4.3.3", RuleTreeHash: "12.4.3.1", RuleTreeParentHash: "7.9.2",
	RuleTreeUnmergedSorted: "7.1", RuleTreeUnmergedLeaf: "12.4.3.1", RuleTreeUnmergedBetween: "12.4.3.1",
	RuleTreeParentKeyUnique: "12.4.3.1", RulePathParentHash: "7.9.2", RulePathLength: "7.6",
	RulePathCiphertextCount: "7.6", RulePathKeysFresh: "12.4.2", RulePathDerivedKey: "7.5", RulePathParentPublicKeys: "5.1.1",

	RuleKeyPackageSuite: "10.1", RuleKeyPackageSignature: "10.1", RuleKeyPackageInitKey: "10.1", RuleKeyPackagePublicKey: "10",
	RuleGroupRequired: "12.1.7", RuleGroupExtensions: "13.4", RuleReInitWelcome: "11.2", RuleBranchWelcome: "11.3",
	RuleGroupIDUnique: "12.4.3.1", RuleKeyPackageExtensions: "10", RuleMessageVersion: "10",

	RuleFrameApplicationPrivate: "6", RuleFrameSender: "6.1", RuleFrameSignature: "6.1", RuleFrameMembershipTag: "6.2",
	RuleFramePadding: "6.3.1", RuleFrameSenderData: "6.3.2", RuleFrameExternalProposal: "12.1.8", RuleFrameEpoch: "12.4.2",
	RuleFrameAuthenticatedData: "6.3.1",

	RuleRemoveTarget: "12.1.3", RulePSKUsage: "12.1.4", RulePSKNonce: "12.1.4", RuleReInitVersion: "12.1.5",
	RuleListOwnUpdate: "12.2", RuleListSelfRemove: "12.2", RuleListSameLeaf: "12.2", RuleListSameClient: "12.2",
	RuleListMemberAdded: "12.2", RuleListSamePSK: "12.2", RuleListOneGCE: "12.2", RuleListReInitAlone: "12.2",
	RuleListExternalInit: "12.2", RuleListUnsupported: "12.2", RuleExternalList: "12.2", RuleExternalInitOnce: "12.2",
	RuleExternalRemoveOnce: "12.2", RuleExternalByValue: "12.4.3.2", RuleUpdateSender: "12.1.2",

	RuleCommitPathRequired: "12.4", RuleCommitConfirmation: "12.4.2", RuleCommitUnknownRef: "12.4",
	RuleCommitLeafKey: "12.4.2", RuleCommitPSKAvailable: "12.4.2", RuleExternalPath: "12.4.3.2",
	RuleWelcomeSuite: "12.4.3.1", RuleWelcomePSKAlone: "12.4.3.1", RuleWelcomeSignature: "12.4.3.1",
	RuleWelcomeConfirmation: "12.4.3.1", RuleWelcomeOwnLeaf: "12.4.3.1", RuleWelcomePathSecret: "12.4.3.1",
	RuleWelcomeEpoch: "12.4.3.1", RuleWelcomeExtensions: "13.4", RuleExternalPub: "12.4.3.2", RuleAddLeafLimit: "7.7",

	RuleDictionary: "ext 3.7", RuleComponentValue: "ext 4", RuleLeafComponents: "ext 4", RuleLeafSafeAAD: "ext 4",
	RuleLeafMediaTypes: "ext 5.2.3", RuleLeafWireFormats: "ext 4", RuleComponentUnknown: "ext 3.8",
	RuleAppDataAbsent: "ext 3.8", RuleAppDataList: "ext 3.8", RuleAppDataRefused: "ext 3.8", RuleAppDataGCE: "ext 3.8",
	RuleAppEphemeralRefused: "ext 3.9", RuleSelfRemoveByRef: "ext 5.3.1", RuleSelfRemoveFraming: "ext 5.3.1",
	RuleSelfRemoveOwn: "ext 5.3.1", RuleSelfRemoveOnce: "ext 5.3.1", RuleApplicationFraming: "ext 5.2.4",
	RuleSemiPrivateAllowed: "spm 3", RuleSemiPrivateReceivers: "spm 3", RuleSemiPrivateContext: "spm 3.2",
	RuleSemiPrivateHash: "spm 3.2", RuleSemiPrivateContent: "spm 3.1", RuleExternalReceivers: "spm 3",
	RuleTreeSource: "rto 3.1", RuleTreeOption: "rto 3", RulePartialPresence: "rto 4", RuleGroupInfoContext: "rto 4",
	RuleGroupInfoConfirmation: "rto 4", RuleGroupInfoSigner: "rto 4", RuleGroupInfoTree: "12.4.3.3",
	RuleGroupInfoExternalPub: "12.4.3.2", RulePublicHandshake: "rto 3",

	RuleLastResort: "ext 5.4", RuleBindingList: "ext 5.5", RuleBindingSignature: "ext 5.5.1", RuleBindingSupport: "ext 5.5.2",
}
