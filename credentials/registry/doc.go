// Package registry is an issuer's book: everything that was issued, in every
// format, and what became of it.
//
// A [Store] keeps it in one database with the certificates (package certs) and
// the status lists (package statuslist), so that all that is to be said about a
// credential changes in one transaction. A credential is written down before it
// is signed. [Store.Revoke], [Store.Suspend] and [Store.Resume] change the
// record, the row that CRLs and OCSP answers are made from, and the entry of
// the status list together, for one credential or for all of a device, a user or
// a key.
//
// A [Publisher] signs and stores what verifiers fetch: CRLs full and delta, OCSP
// answers, and status list tokens. It is woken by a change in this process, finds
// those of others by asking the database, and renews what is about to end. The
// time from a change to its publication is bounded by [Publisher.Bound] while
// the keys and the database answer, and is written down with each change.
//
// [Store.List] and [Export] show the book; [Store.Changes] and [Store.Watch] tell
// others, such as a hub, of a revocation at once.
package registry
