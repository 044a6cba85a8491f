// Package trust says which issuer is believed for which mimi:// names, and by
// which keys, across the credential formats: X.509, SD-JWT and SD-CWT.
//
// Everything follows from one strict configuration file. A [List] reads it and
// reads it again; a [Snapshot] is one reading of it, by which one credential is
// judged. The token or certificate only says who it claims to be from; the
// [Issuer] entry that is configured for that says where keys come from, which
// names it may give ([Grant]) and how revocation is learned. Nothing in a
// credential adds authority or an address to be asked.
//
// A verification here is free of the clock: it finds what a credential says and
// whether the signatures hold, and returns an [Evidence] with the time in which
// all of it is valid. Whether that time is now, and what follows from a
// revocation or from not knowing, differs between one who decides and one who
// is told, and is mimi/identity's to say.
//
// The rules are ours: the MIMI drafts leave them open. docs/trust.md explains
// them to operators.
package trust
