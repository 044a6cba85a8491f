// Package translog publishes a signer's journal as a transparency log: a
// tile-based Merkle tree (C2SP tlog-tiles) with signed checkpoints.
//
// The leaf with index n is the commitment of the journal's entry n, 32 octets,
// so that the log can be shown to everybody while the entries are not. Whoever
// holds a signature can ask for the entry and its proof (C2SP tlog-proof) and
// check it without us. The journal decides the order: a [Log] appends what the
// tree does not have yet, and after a crash goes on where the tree ends, so
// that each entry is in it once.
//
// Checkpoints are signed with a key of purpose log-checkpoint, through the
// journal and its guard ([NewJournalSigner]): a checkpoint of a smaller tree
// than an earlier one, or of another tree of the same size, is not signed. The
// entries that these signatures make do not alone cause the next checkpoint.
// Witnesses may cosign (C2SP tlog-witness, tlog-cosignature).
//
// A [Source] reads a log from a directory or over HTTP, [Prove] and
// [VerifyProof] make and check proofs, [Audit] compares a journal with a log,
// and a [Monitor] follows a log and tells if it is cut off, rewritten, forked
// or stale.
package translog
