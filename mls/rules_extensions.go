package mls

// Rules of draft-ietf-mls-extensions-10. Their sections are given as "ext"
// and the draft's number.
const (
	RuleDictionary          Rule = 701 + iota // app_data_dictionary strictly sorted
	RuleComponentValue                        // lists and values that this package interprets decode
	RuleLeafComponents                        // leaf supports the required app_components
	RuleLeafSafeAAD                           // leaf understands the required Safe AAD items
	RuleLeafMediaTypes                        // leaf receives the required media types
	RuleLeafWireFormats                       // leaf supports the required wire formats
	RuleComponentUnknown                      // AppDataUpdate and AppEphemeral are of known components
	RuleAppDataAbsent                         // AppDataUpdate removes only what is there
	RuleAppDataList                           // one remove, or updates, for each component
	RuleAppDataRefused                        // the component accepts the updates
	RuleAppDataGCE                            // GroupContextExtensions leaves the dictionary as it was
	RuleAppEphemeralRefused                   // the component accepts the AppEphemeral
	RuleSelfRemoveByRef                       // SelfRemove in commits by reference only
	RuleSelfRemoveFraming                     // SelfRemove is a member's PublicMessage
	RuleSelfRemoveOwn                         // committer does not commit its own SelfRemove
	RuleSelfRemoveOnce                        // one SelfRemove of a member in an epoch
	RuleApplicationFraming                    // application data is an ApplicationFraming
	RuleLastResort                            // last-resort mark is empty and single
	RuleBindingList                           // bindings: one to eight, not nested, distinct keys
	RuleBindingSignature                      // binding signed by its credential_key
	RuleBindingSupport                        // members support the bindings
)
