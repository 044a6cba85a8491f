// Package asset keeps the encrypted assets of a provider's users, and fetches
// those of others for them (draft-ietf-mimi-protocol-06 section 5.10).
//
// A [Store] takes uploads under the limits of the room's asset policy and the
// user's quota, in files that are named by the hash of their octets. Senders
// encrypt each asset with a fresh key, so that the name is also what one must
// know to download it.
//
// A [Proxy] is proxyDownload: it fetches from the asset hosts that are
// configured, by their exact names, and from nowhere else, whatever names,
// redirects and addresses say; and it keeps what it fetched, within a bound,
// so that the host does not learn how often and when an asset is read.
package asset
