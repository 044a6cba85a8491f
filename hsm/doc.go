// Package hsm drives PKCS#11 tokens: it makes keys in them, finds keys by
// RFC 7512 URI, and uses them through the interfaces of the standard library.
//
// [Open] loads a Module, either in this process or, with Config.Workers, in
// supervised child processes of the running binary. [Module.OpenToken] chooses
// one Token by URI and logs in; [Token.Signer], [Token.Agreement] and
// [Token.MAC] give keys that are [crypto.Signer] and [crypto.MessageSigner],
// [crypto/ecdh.KeyExchanger], or a MAC. Keys are made by [Token.Generate].
//
// Sessions, logins and handles are the driver's business. Sessions closed by
// somebody else, a logout, a token that went away and came back, a module that
// was finalised and a daemon that was restarted are all repaired under the call
// that met them; that call takes longer and succeeds. What cannot be repaired
// comes back as an [*Error], which names module, slot, token, function and CKR_
// code, and says whether the caller may try again, must change the
// configuration, or needs an operator. A PIN that the token refused is never
// sent a second time.
//
// A module shared by threads of one process may take the whole process down,
// and a call that hangs in vendor code cannot be taken back. In workers either
// costs the calls in flight and a restart. Programs that use workers, and test
// binaries of packages that do, call [WorkerMain] first in main or TestMain.
//
// The attributes of a key (CKA_SENSITIVE, CKA_NEVER_EXTRACTABLE, CKA_LOCAL, ...)
// are read back and kept in [KeyInfo], and a key without them is refused unless
// the configuration admits it. They are what the module says about itself, not
// a proof. The package signs what it is given: purposes, policy and the
// verification of signatures are the signer's. The name of the hash is checked
// against the length of the digest because tokens do not do so.
package hsm
