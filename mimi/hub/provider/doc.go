// Package provider runs a MIMI provider: hub of its own rooms and follower of
// others (draft-ietf-mimi-protocol-06).
//
// A [Service] keeps rooms, events, clients and KeyPackages in one database and
// has package hub decide what happens. An event is decided, franked and stored
// before it is answered: one at a time in a room, many rooms at once, and all
// that are ready at one moment in one flush. Several nodes may share one
// PostgreSQL: whoever stores first wins, and the other decides again on the
// state that it then finds.
//
// Events are stored once, with a sequence number of the whole provider. What a
// client or a following provider gets is found by reading from where it stands,
// so the cost of a message does not grow with the clients that hear it.
//
// [Service.ClientHandler] serves our own clients (package clientapi),
// [Service.ServePeers] adds the endpoints for other providers to a peer.Server,
// and [Service.Run] delivers events to them.
package provider
