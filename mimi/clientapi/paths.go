package clientapi

import (
	"net/url"

	"github.com/privyseal/privyseal/mimi"
)

// The routes.
const (
	Prefix           = "/client/v1"
	PathDevice       = Prefix + "/device"
	PathKeyPackages  = Prefix + "/key-packages"
	PathKeyMaterial  = Prefix + "/key-material"
	PathRooms        = Prefix + "/rooms"
	PathEvents       = Prefix + "/events"
	PathConsent      = Prefix + "/consent"
	PathIdentifier   = Prefix + "/identifier-query"
	PathAssets       = Prefix + "/assets"
	PathDownload     = Prefix + "/download" // with the URL in one segment
	PathOHTTP        = Prefix + "/ohttp"    // with the gateway's provider in one segment
	roomUpdate       = "/update"
	roomMessages     = "/messages"
	roomGroupInfo    = "/group-info"
	roomAbuseReports = "/abuse-reports"
	roomJoinCodes    = "/join-codes"
	roomSubscription = "/subscription"
	octetStream      = "application/octet-stream"
	eventsMediaType  = "application/vnd.privyseal.events"
)

// Media types of bodies.
const (
	ContentType       = octetStream
	ContentTypeEvents = eventsMediaType // of what PathEvents answers
)

// Limits of bodies and lists. A request beyond them has status 413.
const (
	MaxRequest         = 8 << 20   // octets of KeyPackages, a new room, an update or an abuse report
	MaxSmallRequest    = 256 << 10 // octets of any other request
	MaxMessage         = 256 << 10 // octets of a SubmitMessageRequest, unless the provider allows less
	MaxResponse        = 80 << 20  // octets of any response but an event stream
	MaxKeyPackages     = 100       // in one upload
	MaxStoredPackages  = 500       // of one client, without the last resort
	MaxRoomsListed     = 10_000    // in a RoomList
	MaxEvent           = 65 << 20  // octets of one event: any that a provider takes from a hub
	MaxInvitation      = 256       // octets of an invitation
	MaxJoiningCode     = 64        // octets of a join code
	MaxAbuseVerdicts   = 64        // in an answer, as messages in a report
	maxCredentialBytes = 128 << 10
)

// OHTTPPath returns where the provider relays to the gateway of another: POST
// with a message/ohttp-req passes on, GET gives the gateway's keys.
func OHTTPPath(gateway string) string { return PathOHTTP + "/" + url.PathEscape(gateway) }

// DownloadPath returns where the provider fetches the asset at a URL for a
// client, through the hub's proxyDownload or from its own cache.
func DownloadPath(asset string) string { return PathDownload + "/" + url.PathEscape(asset) }

// RoomPath returns the path of a room itself.
func RoomPath(room mimi.URI) string { return PathRooms + "/" + room.PathSegment() }

// UpdatePath returns where a HandshakeBundle for the room goes.
func UpdatePath(room mimi.URI) string { return RoomPath(room) + roomUpdate }

// MessagesPath returns where a SubmitMessageRequest for the room goes.
func MessagesPath(room mimi.URI) string { return RoomPath(room) + roomMessages }

// GroupInfoPath returns where a GroupInfoRequest for the room goes.
func GroupInfoPath(room mimi.URI) string { return RoomPath(room) + roomGroupInfo }

// AbuseReportsPath returns where an AbuseReport about the room goes.
func AbuseReportsPath(room mimi.URI) string { return RoomPath(room) + roomAbuseReports }

// JoinCodesPath returns where a JoinCodeRequest for the room goes.
func JoinCodesPath(room mimi.URI) string { return RoomPath(room) + roomJoinCodes }

// SubscriptionPath returns what a client deletes to hear no more of the room.
func SubscriptionPath(room mimi.URI) string { return RoomPath(room) + roomSubscription }

// IdentifierPath returns where an IdentifierRequest to a provider goes.
func IdentifierPath(domain string) string { return PathIdentifier + "/" + domain }
