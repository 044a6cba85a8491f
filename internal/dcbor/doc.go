// Package dcbor is the one CBOR codec of this module: an encoder that writes
// the core deterministic encoding (RFC 8949 section 4.2.1) and a strict decoder
// that keeps the octets of every item as they were received, since hashes and
// signatures are over octets and not over values.
//
// The decoder takes one item and nothing after it. It refuses indefinite
// lengths, reserved values, text that is not UTF-8, and two keys of one map
// with the same preferred encoding; size, depth and number of items are bounded
// before anything is allocated for them.
package dcbor
