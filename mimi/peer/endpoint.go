package peer

import (
	"net/http"
	"time"
)

// An Endpoint is a key of the directory.
type Endpoint string

// The endpoints of draft-ietf-mimi-protocol-06 section 5.1, and two of ours
// for Oblivious HTTP, which the draft asks for without a way to find it.
const (
	KeyMaterial     Endpoint = "keyMaterial"
	Update          Endpoint = "update"
	Notify          Endpoint = "notify"
	SubmitMessage   Endpoint = "submitMessage"
	GroupInfo       Endpoint = "groupInfo"
	RequestConsent  Endpoint = "requestConsent"
	UpdateConsent   Endpoint = "updateConsent"
	IdentifierQuery Endpoint = "identifierQuery"
	ReportAbuse     Endpoint = "reportAbuse"
	ProxyDownload   Endpoint = "proxyDownload"
	OHTTPGateway    Endpoint = "ohttpGateway" // no variable
	OHTTPRelay      Endpoint = "ohttpRelay"   // {gateway}
)

// Bounds on what one call carries.
const (
	MaxBody      = 16 << 20 // octets of the largest request that a client has made
	maxTreeBody  = 64 << 20 // of what a hub sends with the ratchet tree of a large room
	maxSmallBody = 256 << 10
	maxDirectory = 64 << 10 // octets of a directory
	maxVariable  = 4096     // octets of a template's value before expansion
)

// A trait is what the draft and our rulings fix about an endpoint.
type trait struct {
	method    string
	variables []string // the names that a template may use; ours is the first
	success   int      // the status that we answer with
	request   int64    // most octets of a request's body
	response  int64    // most octets of an answer
	timeout   time.Duration
}

// MaxNotify is the most octets in one call of notify. A Welcome with the tree of
// a room of tens of thousands of clients fits.
const MaxNotify = maxTreeBody

var traits = map[Endpoint]trait{
	KeyMaterial:     {http.MethodPost, []string{"targetUser"}, http.StatusOK, maxSmallBody, 8 << 20, 30 * time.Second},
	Update:          {http.MethodPost, []string{"roomId"}, http.StatusOK, MaxBody, maxSmallBody, 60 * time.Second},
	Notify:          {http.MethodPost, []string{"roomId"}, http.StatusCreated, MaxNotify, maxSmallBody, 60 * time.Second},
	SubmitMessage:   {http.MethodPost, []string{"roomId"}, http.StatusOK, 1 << 20, maxSmallBody, 30 * time.Second},
	GroupInfo:       {http.MethodPost, []string{"roomId"}, http.StatusOK, maxSmallBody, maxTreeBody, 60 * time.Second},
	RequestConsent:  {http.MethodPost, []string{"targetDomain", "targetUser"}, http.StatusCreated, maxSmallBody, maxSmallBody, 30 * time.Second},
	UpdateConsent:   {http.MethodPost, []string{"requesterDomain", "requesterUser"}, http.StatusCreated, 1 << 20, maxSmallBody, 30 * time.Second},
	IdentifierQuery: {http.MethodPost, []string{"domain"}, http.StatusOK, maxSmallBody, 4 << 20, 30 * time.Second},
	ReportAbuse:     {http.MethodPost, []string{"roomId"}, http.StatusCreated, 8 << 20, maxSmallBody, 60 * time.Second},
	ProxyDownload:   {http.MethodGet, []string{"downloadUrl"}, http.StatusOK, 0, 1 << 40, 60 * time.Second},
	OHTTPGateway:    {http.MethodPost, nil, http.StatusOK, 1 << 20, 1 << 40, 60 * time.Second},
	OHTTPRelay:      {http.MethodPost, []string{"gateway"}, http.StatusOK, 1 << 20, 1 << 40, 60 * time.Second},
}
