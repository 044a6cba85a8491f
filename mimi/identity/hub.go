package identity

import (
	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/mimi"
)

// CheckHub judges the verified certificate of a hub: an external sender, the
// franking agent or the signer of a GroupInfoResponse. It names the provider
// of the room and nothing else, and its issuer may speak for that.
func CheckHub(r *certs.Result, issuer *Issuer, room mimi.URI) error {
	const where = "hub certificate"
	switch {
	case !r.IsHub():
		return credentials.Errorf(credentials.CodeIdentityMalformed, where, "it names a client, want the one URI %s", room.Provider())
	case r.Provider != room.Provider():
		return credentials.Errorf(credentials.CodeIdentityHostMismatch, where, "it is of %s, the room of %s", r.Provider, room.Provider())
	}
	return issuer.allow(where, r.Provider)
}
