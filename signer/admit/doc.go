// Package admit keeps a service usable for all its tenants when more is asked
// of it than it can do.
//
// A [Budget] bounds how many requests a tenant, a caller and a key may make in
// a time. A [Gate] stands before a device: it lets so many in at once, and
// serves those that wait tenant by tenant in turn, so that a tenant which asks
// for ten times as much only waits longer itself. A queue has an end: whoever
// would wait longer than is useful is sent away at once, with the time after
// which to come again. So what is let in keeps its latency.
package admit
