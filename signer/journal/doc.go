// Package journal keeps the record of every signature, and the guard against
// signing two accounts of one thing.
//
// A signature has two calls here. [Journal.Reserve] says that a device may sign,
// and [Reservation.Complete] writes what became of it; only then may the
// signature leave. If either fails, nothing is released.
//
// What the guard has something to write of has two durable steps: Reserve decides
// by the guard and writes who wants what signed, and both are on the disk when it
// returns. A crash between the two leaves a reservation without an outcome: it is
// found by [Journal.Unfinished], counts as signed for the guard, and is closed as
// such by [Journal.Reconcile]. Everything else has one durable step, in Complete
// ([Options.Intents]), unless it is not known that the journal can be written: then
// it has two as well, so that no device works for what cannot be recorded.
//
// The guard looks at [Claims]: what a request says about an MLS group and
// epoch, a status list, a CRL or a log's checkpoint. Epochs, dates, numbers
// and sizes do not go backwards, and where there may be one content only, a
// second, different one is refused ([GuardError]). The same octets may be
// signed again. The member of a group whose Commit was refused by the delivery
// service says so with [Journal.ReportRejected], and may then sign another.
//
// Entries are numbered from 0 without a gap in the order in which they were
// completed; that number is the entry's index in the transparency log
// (signer/translog). An [Entry] has a commitment, and each row the running
// hash of all commitments before it, so that a row that is changed, exchanged
// or cut out shows ([Journal.Verify]); the log shows what the last rows were
// even to somebody who does not trust the database.
//
// Several nodes may share a journal in PostgreSQL. One commit carries all that
// waits for it, so that the rate does not fall to one flush per signature.
//
// What it does not do: authenticate callers, evaluate policy, touch devices,
// log or publish.
package journal
