package mimi_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/privyseal/privyseal/mimi"
)

func TestURI(t *testing.T) {
	u, err := mimi.NewURI("a.example", mimi.KindClient, "alice", "work phone")
	if err != nil || u.String() != "mimi://a.example/d/alice/work%20phone" {
		t.Fatalf("NewURI = %v, %v", u, err)
	}
	if back, err := mimi.ParseURI(u.String()); err != nil || back != u {
		t.Errorf("ParseURI = %v, %v", back, err)
	}
	if back, err := mimi.URIFromPathSegment(u.PathSegment()); err != nil || back != u {
		t.Errorf("URIFromPathSegment(%s) = %v, %v", u.PathSegment(), back, err)
	}
	_, err = mimi.ParseURI("mimi://a.example:443/u/alice")
	var e *mimi.URIError
	if !errors.As(err, &e) || e.Offset != len("mimi://a.example") {
		t.Errorf("a port gave %v", err)
	}
}

// One user with two clients: the user is what the credential says, or, for
// the longer form of a client's name, what the name says.
func ExampleURI() {
	client, err := mimi.ParseURI("mimi://a.example/d/alice/phone")
	if err != nil {
		fmt.Println(err)
		return
	}
	user, _ := client.ClientOwner()
	fmt.Println(client.Kind(), "at", client.Host(), "of", user)
	fmt.Println("/keyMaterial/" + user.PathSegment())

	_, err = mimi.ParseURI("mimi://A.example/u/alice")
	fmt.Println(err)
	// Output:
	// client at a.example of mimi://a.example/u/alice
	// /keyMaterial/mimi%3A%2F%2Fa.example%2Fu%2Falice
	// not a canonical mimi: URI at octet 7: host is not in lower case
}
