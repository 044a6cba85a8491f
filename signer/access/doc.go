// Package access says who may call the signing service and what for.
//
// A caller belongs to a tenant and has a [Role] and [Grant]s. It is known by a
// client certificate of the service's own [Authority], whose key may live in a
// device. A new caller exchanges a one-time token for its first certificate
// and renews it before it expires.
//
// Tenants cannot see each other because there is no way to name what is
// another's: the names of keys and callers are within the tenant of who asks.
//
// What it does not do: transport, budgets, policy over requests.
package access
