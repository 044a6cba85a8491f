// Package identity says whose a leaf is: where MLS, which knows keys and
// opaque credentials, meets the credentials that name clients and users of
// MIMI providers.
//
// The packages below credentials verify certificates and tokens; what they
// found becomes an [Identity] here: the URIs of the client and its user, how
// strong the evidence is ([Level]) and who issued it. An [Identity] is then
// compared with what is expected of a leaf ([Expected]), with the rest of the
// group ([Roster]) and with the one that it replaces ([CheckSuccessor]).
//
// The drafts give examples of such names and no rules. These rules are ours;
// docs/drafts.md has them as proposed text. Every refusal is a
// *credentials.Error whose code begins with identity- or multi-, or is policy.
//
// The functions are pure: they fetch nothing and know no clock. Which issuer
// may speak for which names is configured in package credentials/trust and
// asked through [Issuer].Allows.
package identity
