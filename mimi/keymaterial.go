package mimi

import (
	"context"
	"crypto"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// Limits of what one request or response may carry.
const (
	maxSuites      = 64
	maxUserClients = 1024
	maxSignature   = 256
	maxPublicKey   = 1024
)

const labelKeyMaterialRequest = "KeyMaterialRequestTBS"

// A KeyMaterialRequest claims one KeyPackage for every client of a user, for
// one room (section 5.2). It travels through the hub of that room.
//
//	struct {
//	    Protocol protocol;
//	    IdentifierUri requestingUser;
//	    IdentifierUri targetUser;
//	    IdentifierUri roomId;
//	    select (protocol) {
//	        case mls10:
//	            CipherSuite acceptableCiphersuites<V>;
//	            RequiredCapabilities requiredCapabilities;
//	            SignaturePublicKey requesterSignatureKey;
//	            Credential requesterCredential;
//	    };
//	    /* SignWithLabel(., "KeyMaterialRequestTBS", KeyMaterialRequestTBS) */
//	    opaque key_material_request_signature<V>;
//	} KeyMaterialRequest;
//
// KeyMaterialRequestTBS is the same without the signature.
type KeyMaterialRequest struct {
	Protocol             Protocol
	RequestingUser       URI
	TargetUser           URI
	RoomID               URI               // zero if the request is for no room
	AcceptableSuites     []mls.CipherSuite // the room's first; not empty
	RequiredCapabilities mls.RequiredCapabilities
	RequesterKey         []byte // a key of the first suite's scheme
	RequesterCredential  mls.Credential
	Signature            []byte
}

func (q *KeyMaterialRequest) appendTBS(b *tlsvec.Builder) {
	b.Uint8(uint8(q.Protocol))
	appendURI(b, q.RequestingUser)
	appendURI(b, q.TargetUser)
	appendURI(b, q.RoomID)
	appendUint16s(b, q.AcceptableSuites)
	appendUint16s(b, q.RequiredCapabilities.Extensions)
	appendUint16s(b, q.RequiredCapabilities.Proposals)
	appendUint16s(b, q.RequiredCapabilities.Credentials)
	b.Vector(q.RequesterKey)
	appendCredential(b, q.RequesterCredential)
}

func (q *KeyMaterialRequest) append(b *tlsvec.Builder) {
	q.appendTBS(b)
	b.Vector(q.Signature)
}

func (q *KeyMaterialRequest) read(r *tlsvec.Reader) {
	q.Protocol = readProtocol(r)
	q.RequestingUser = readUser(r)
	q.TargetUser = readUser(r)
	q.RoomID = readURIOrNone(r, KindRoom)
	q.AcceptableSuites = readUint16s[mls.CipherSuite](r)
	if n := len(q.AcceptableSuites); r.Err() == nil && (n == 0 || n > maxSuites) {
		r.Fail(fmt.Sprintf("%d acceptable cipher suites, want 1 to %d", n, maxSuites))
	}
	q.RequiredCapabilities = mls.RequiredCapabilities{
		Extensions:  readUint16s[mls.ExtensionType](r),
		Proposals:   readUint16s[mls.ProposalType](r),
		Credentials: readUint16s[mls.CredentialType](r),
	}
	q.RequesterKey = readBounded(r, "requesterSignatureKey", maxPublicKey)
	q.RequesterCredential = readCredential(r)
	q.Signature = readBounded(r, "signature", maxSignature)
}

// Marshal returns the request's encoding.
func (q *KeyMaterialRequest) Marshal() []byte { return marshal(q) }

// ParseKeyMaterialRequest decodes a request. Verify checks its signature.
func ParseKeyMaterialRequest(b []byte) (*KeyMaterialRequest, error) {
	q := new(KeyMaterialRequest)
	return q, parse("KeyMaterialRequest", b, q)
}

// suite is that of the signature. The draft does not say which scheme
// requesterSignatureKey has; here it is that of the first acceptable suite,
// which is the room's.
func (q *KeyMaterialRequest) suite() (mls.CipherSuite, error) {
	if len(q.AcceptableSuites) == 0 {
		return 0, errors.New("mimi: KeyMaterialRequest accepts no cipher suite")
	}
	return q.AcceptableSuites[0], nil
}

// Sign signs the request with the key that RequesterKey names.
func (q *KeyMaterialRequest) Sign(ctx context.Context, key crypto.Signer) error {
	suite, err := q.suite()
	if err != nil {
		return err
	}
	if q.Signature, err = sign(ctx, suite, key, labelKeyMaterialRequest, q); err != nil {
		return err
	}
	return q.Verify()
}

// Verify checks the signature under RequesterKey. Whether the credential is
// believed, and names that key and the requesting user, is for package
// mimi/identity to say.
func (q *KeyMaterialRequest) Verify() error {
	suite, err := q.suite()
	if err != nil {
		return err
	}
	return verify(suite, q.RequesterKey, labelKeyMaterialRequest, q, q.Signature)
}

// A KeyMaterialUserCode says how a request for a user went.
type KeyMaterialUserCode uint8

// The codes for a user. NoConsent may stand in for UserUnknown and for
// NoConsentForThisRoom, and UserUnknown for UserDeleted.
const (
	KeyMaterialSuccess              KeyMaterialUserCode = 0
	KeyMaterialPartialSuccess       KeyMaterialUserCode = 1
	KeyMaterialIncompatibleProtocol KeyMaterialUserCode = 2
	KeyMaterialNoCompatible         KeyMaterialUserCode = 3
	KeyMaterialUserUnknown          KeyMaterialUserCode = 4
	KeyMaterialNoConsent            KeyMaterialUserCode = 5
	KeyMaterialNoConsentForThisRoom KeyMaterialUserCode = 6
	KeyMaterialUserDeleted          KeyMaterialUserCode = 7
)

// String returns the draft's name of the code.
func (c KeyMaterialUserCode) String() string {
	names := [...]string{"success", "partialSuccess", "incompatibleProtocol", "noCompatibleMaterial", "userUnknown", "noConsent", "noConsentForThisRoom", "userDeleted"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// mayHaveClients reports whether a response with the code may list clients.
func (c KeyMaterialUserCode) mayHaveClients() bool {
	return c == KeyMaterialSuccess || c == KeyMaterialPartialSuccess || c == KeyMaterialNoCompatible
}

// A KeyMaterialClientCode says how a request went for one client.
type KeyMaterialClientCode uint8

// The codes for a client.
const (
	KeyMaterialClientSuccess     KeyMaterialClientCode = 0
	KeyMaterialExhausted         KeyMaterialClientCode = 1
	KeyMaterialNothingCompatible KeyMaterialClientCode = 2
)

// A ClientKeyMaterial is one client's part of a response.
//
//	struct {
//	    KeyMaterialClientCode clientStatus;
//	    IdentifierUri clientUri;
//	    select (clientStatus) {
//	        case success:           KeyPackage keyPackage;
//	        case nothingCompatible: optional<Capabilities> capabilities;
//	    };
//	} ClientKeyMaterial;
type ClientKeyMaterial struct {
	Status       KeyMaterialClientCode
	ClientURI    URI
	KeyPackage   *mls.KeyPackage   // with KeyMaterialClientSuccess
	Capabilities *mls.Capabilities // with KeyMaterialNothingCompatible, or nil
}

func (c ClientKeyMaterial) append(b *tlsvec.Builder) {
	b.Uint8(uint8(c.Status))
	appendURI(b, c.ClientURI)
	switch c.Status {
	case KeyMaterialClientSuccess:
		b.Raw(c.KeyPackage.Bytes())
	case KeyMaterialNothingCompatible:
		b.Optional(c.Capabilities != nil)
		if c.Capabilities != nil {
			appendCapabilities(b, c.Capabilities)
		}
	}
}

func readClientKeyMaterial(r *tlsvec.Reader) (c ClientKeyMaterial) {
	c.Status = readCode(r, "clientStatus", KeyMaterialClientSuccess, KeyMaterialNothingCompatible)
	c.ClientURI = readURI(r, KindClient)
	switch {
	case r.Err() != nil:
	case c.Status == KeyMaterialClientSuccess:
		c.KeyPackage = readKeyPackage(r)
	case c.Status == KeyMaterialNothingCompatible && r.Optional():
		c.Capabilities = readCapabilities(r)
	}
	return c
}

// A KeyMaterialResponse answers a KeyMaterialRequest.
//
//	struct {
//	    Protocol protocol;
//	    KeyMaterialUserCode userStatus;
//	    IdentifierUri userUri;
//	    ClientKeyMaterial clients<V>;
//	} KeyMaterialResponse;
type KeyMaterialResponse struct {
	Protocol   Protocol
	UserStatus KeyMaterialUserCode
	UserURI    URI
	Clients    []ClientKeyMaterial // each client once
}

func (p *KeyMaterialResponse) append(b *tlsvec.Builder) {
	b.Uint8(uint8(p.Protocol))
	b.Uint8(uint8(p.UserStatus))
	appendURI(b, p.UserURI)
	appendList(b, p.Clients, func(b *tlsvec.Builder, c ClientKeyMaterial) { c.append(b) })
}

func (p *KeyMaterialResponse) read(r *tlsvec.Reader) {
	p.Protocol = readProtocol(r)
	p.UserStatus = readCode(r, "userStatus", KeyMaterialSuccess, KeyMaterialUserDeleted)
	p.UserURI = readUser(r)
	seen := make(map[URI]bool)
	p.Clients = readList(r, "clients", maxUserClients, func(r *tlsvec.Reader) ClientKeyMaterial {
		c := readClientKeyMaterial(r)
		if r.Err() == nil && seen[c.ClientURI] {
			r.Fail("client is in the response twice")
		}
		seen[c.ClientURI] = true
		return c
	})
	if len(p.Clients) > 0 && !p.UserStatus.mayHaveClients() {
		r.Fail(fmt.Sprintf("clients in a response with userStatus %d", p.UserStatus))
	}
}

// Marshal returns the response's encoding.
func (p *KeyMaterialResponse) Marshal() []byte { return marshal(p) }

// ParseKeyMaterialResponse decodes a response. Its KeyPackages are not
// validated yet.
func ParseKeyMaterialResponse(b []byte) (*KeyMaterialResponse, error) {
	p := new(KeyMaterialResponse)
	return p, parse("KeyMaterialResponse", b, p)
}
