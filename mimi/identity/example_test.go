package identity_test

import (
	"fmt"
	"log"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
)

// A certificate that was verified, and a bare assertion of the same user: the
// one may join the room, the other may not join beside it.
func Example() {
	names, err := certs.DeviceNames("mimi://acme.example/d/alice/phone", "mimi://acme.example/u/alice")
	if err != nil {
		log.Fatal(err)
	}
	verified := &certs.Result{Names: names, Entry: "acme-devices"} // what certs.Verifier.Verify returns
	issuer := &identity.Issuer{
		Name:   verified.Entry,
		Allows: func(u mimi.URI) bool { return u.Host() == "acme.example" }, // asked of the trust configuration
	}
	phone, err := identity.FromCertificate(verified, issuer)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(phone.Client, "of", phone.User, "is", phone.Level)

	tablet, err := identity.FromBasic([]byte("mimi://acme.example/d/alice/tablet"), "acme.example")
	if err != nil {
		log.Fatal(err)
	}
	var room identity.Roster
	if _, err := room.Apply(&identity.Change{Added: []*identity.Identity{phone}}); err != nil {
		log.Fatal(err)
	}
	_, err = room.Apply(&identity.Change{Added: []*identity.Identity{tablet}})
	fmt.Println(tablet.Client, "is", tablet.Level, "and refused:", credentials.CodeOf(err))
	// Output:
	// mimi://acme.example/d/alice/phone of mimi://acme.example/u/alice is issued
	// mimi://acme.example/d/alice/tablet is vouched and refused: identity-downgrade
}
