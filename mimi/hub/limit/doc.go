// Package limit slows down those who probe for users or drain KeyPackages.
//
// [Buckets] are token buckets by key, bounded in memory; a [Guard] has them for
// each endpoint and peer, and for each asker and target of the endpoints that
// tell about users. [Claims] counts KeyPackages that were claimed, durably and
// for all nodes of a database, since a restart must not refill what an attacker
// has drained.
//
// What is refused is a problem with 429 and the time after which one more call
// would pass.
package limit
