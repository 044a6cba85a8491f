// Package clientapi is the wire between a MIMI provider and its own clients.
// MIMI leaves it to the provider (draft-ietf-mimi-protocol-06 section 2); both
// ends here import this package, and nothing else of each other.
//
// Everything runs over HTTPS with mutual TLS, under the prefix "/client/v1".
// The client's TLS certificate may be self-signed: what counts is its key.
// Registration binds the SHA-256 of that key's SubjectPublicKeyInfo to one
// client URI, with a signature of the client's MLS signature key over it, and
// every later request on that TLS key is that client's.
//
//	POST   /client/v1/device                          RegisterRequest -> Registration
//	GET    /client/v1/device                          -> Registration
//	DELETE /client/v1/device                          forgets the device
//	POST   /client/v1/key-packages                    KeyPackageUpload -> KeyPackageCounts
//	GET    /client/v1/key-packages                    -> KeyPackageCounts
//	POST   /client/v1/key-material                    mimi.KeyMaterialRequest -> mimi.KeyMaterialResponse
//	GET    /client/v1/rooms/keys?suite=NUMBER         -> HubKeys
//	GET    /client/v1/rooms                           -> RoomList
//	POST   /client/v1/rooms                           CreateRoomRequest -> mimi.UpdateRoomResponse
//	DELETE /client/v1/rooms/{roomId}                  destroys the room
//	POST   /client/v1/rooms/{roomId}/update           mimi.HandshakeBundle -> mimi.UpdateRoomResponse
//	POST   /client/v1/rooms/{roomId}/messages         mimi.SubmitMessageRequest -> mimi.SubmitMessageResponse
//	POST   /client/v1/rooms/{roomId}/group-info       mimi.GroupInfoRequest -> mimi.GroupInfoResponse
//	POST   /client/v1/rooms/{roomId}/abuse-reports    mimi.AbuseReport -> AbuseVerdicts
//	POST   /client/v1/rooms/{roomId}/join-codes       JoinCodeRequest -> JoinCode
//	DELETE /client/v1/rooms/{roomId}/subscription     no more events of the room
//	GET    /client/v1/events                          -> events; see EventQuery
//	POST   /client/v1/consent                         mimi.ConsentEntry -> empty
//	GET    /client/v1/consent                         -> ConsentList
//	POST   /client/v1/identifier-query/{domain}       mimi.IdentifierRequest -> mimi.IdentifierResponse
//	GET    /client/v1/download/{assetUrl}             the asset, fetched by the provider
//	POST   /client/v1/ohttp/{gateway}                 message/ohttp-req -> message/ohttp-res
//	GET    /client/v1/ohttp/{gateway}                 application/ohttp-keys
//	POST   /client/v1/assets, GET /client/v1/assets/{name}   as package asset of the hub says
//
// {roomId} is the whole room URI in one path segment (mimi.URI.PathSegment).
// The room may have its hub at another provider; the client's own provider then
// passes the request on, and the client cannot tell the difference.
//
// Bodies are in the presentation language of MLS (RFC 9420 section 2.1), media
// type application/octet-stream. Most of what is sent is MLS and MIMI structs in
// that encoding already, whose octets are signed and hashed and must arrive as
// they are; one codec for all of them leaves nothing to convert, and each struct
// has exactly one encoding. JSON would wrap the same octets in base64url.
//
// An answer that has a code in its body comes with status 200, also when the
// code refuses (package mimi has those). Any other failure has a status of 400
// or more and a problem document (RFC 9457), whose code is a [Code].
//
// A request may be repeated when its answer was lost. Registration, uploads and
// deletions come to the same state. A commit or message that was accepted
// already is answered with the first answer again, for as long as the hub keeps
// the event.
package clientapi
