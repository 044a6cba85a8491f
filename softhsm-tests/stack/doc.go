// Package stack runs whole providers and clients as processes of their own, cuts
// the connections between them, kills them at random and starts them again, and
// then checks what they have: what was acknowledged is with every member, once
// and in one order, and members and hubs agree.
//
// Two providers serve one room each and follow the other's. One keeps its state
// in PostgreSQL, which is killed too, the other in SQLite. All connections go
// through links (see link), which the test disturbs.
package stack
