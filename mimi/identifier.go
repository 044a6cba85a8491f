package mimi

import (
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

const (
	maxQueryElements = 32
	maxQueryValue    = 1024
	maxProfiles      = 256 // that we read; we answer with at most MaxIdentifierResults
	maxProfileFields = 64
	maxFieldValue    = 16 << 10
)

// MaxIdentifierResults is the most users that an answer should name; a query
// that more match is ambiguous.
const MaxIdentifierResults = 20

// A SearchIdentifierType says what a query looks at.
type SearchIdentifierType uint8

// The types (section 5.8).
const (
	SearchHandle       SearchIdentifierType = 1 // the whole handle URI
	SearchNick         SearchIdentifierType = 2 // nick name or user part
	SearchEmail        SearchIdentifierType = 3 // addr-spec
	SearchPhone        SearchIdentifierType = 4 // international, with its +
	SearchPartialName  SearchIdentifierType = 5 // part of any name, in any case
	SearchWholeProfile SearchIdentifierType = 6 // part of any field
	SearchOIDCStdClaim SearchIdentifierType = 7 // one named claim
	SearchVCardField   SearchIdentifierType = 8 // one named property
)

// named reports whether the type takes the name of a field.
func (t SearchIdentifierType) named() bool { return t == SearchOIDCStdClaim || t == SearchVCardField }

// A QueryElement is one condition of a query.
//
//	struct {
//	    SearchIdentifierType searchType;
//	    select (searchType) {
//	        case oidcStdClaim: opaque claimName<V>;
//	        case vcardField:   opaque propertyName<V>;
//	    };
//	    opaque searchValue<V>;
//	} QueryElement;
type QueryElement struct {
	SearchType  SearchIdentifierType
	FieldName   string // with SearchOIDCStdClaim and SearchVCardField
	SearchValue string
}

func (e QueryElement) append(b *tlsvec.Builder) {
	b.Uint8(uint8(e.SearchType))
	if e.SearchType.named() {
		b.String(e.FieldName)
	}
	b.String(e.SearchValue)
}

func readQueryElement(r *tlsvec.Reader) (e QueryElement) {
	e.SearchType = readCode(r, "searchType", SearchHandle, SearchVCardField)
	if e.SearchType.named() {
		e.FieldName = readNote(r, "field name", maxQueryValue)
	}
	e.SearchValue = readNote(r, "searchValue", maxQueryValue)
	return e
}

// An IdentifierRequest looks for users of one provider. Every element must
// match.
//
//	struct {
//	    QueryElement query_elements<V>;
//	    AppDataDictionary id_request_extensions;
//	} IdentifierRequest;
type IdentifierRequest struct {
	QueryElements []QueryElement // an empty query is forbidden
	Extensions    mls.AppDataDictionary
}

func (q *IdentifierRequest) append(b *tlsvec.Builder) {
	appendList(b, q.QueryElements, func(b *tlsvec.Builder, e QueryElement) { e.append(b) })
	appendDictionary(b, q.Extensions)
}

func (q *IdentifierRequest) read(r *tlsvec.Reader) {
	q.QueryElements = readList(r, "query elements", maxQueryElements, readQueryElement)
	q.Extensions = readDictionary(r)
}

// Marshal returns the request's encoding.
func (q *IdentifierRequest) Marshal() []byte { return marshal(q) }

// ParseIdentifierRequest decodes a request.
func ParseIdentifierRequest(b []byte) (*IdentifierRequest, error) {
	q := new(IdentifierRequest)
	return q, parse("IdentifierRequest", b, q)
}

// An IdentifierQueryCode says how a query went.
type IdentifierQueryCode uint8

// The codes of a query.
const (
	QuerySuccess          IdentifierQueryCode = 0
	QueryNotFound         IdentifierQueryCode = 1
	QueryAmbiguous        IdentifierQueryCode = 2
	QueryForbidden        IdentifierQueryCode = 3
	QueryUnsupportedField IdentifierQueryCode = 4
)

// A FieldSource says in which vocabulary a profile's field is named.
type FieldSource uint8

// The sources have the numbers of the search types.
const (
	FieldOIDCStdClaim FieldSource = 7
	FieldVCard        FieldSource = 8
)

// A ProfileField is one disclosed field of a user's profile.
//
//	struct {
//	    FieldSource fieldSource;
//	    opaque fieldName<V>;
//	    opaque fieldValue<V>;
//	} ProfileField;
type ProfileField struct {
	Source FieldSource
	Name   string
	Value  []byte
}

// A UserProfile is what is disclosed of a user.
//
//	struct {
//	    IdentifierUri stableUri;
//	    ProfileField fields<V>;
//	} UserProfile;
type UserProfile struct {
	StableURI URI
	Fields    []ProfileField
}

func (p UserProfile) append(b *tlsvec.Builder) {
	appendURI(b, p.StableURI)
	appendList(b, p.Fields, func(b *tlsvec.Builder, f ProfileField) {
		b.Uint8(uint8(f.Source))
		b.String(f.Name)
		b.Vector(f.Value)
	})
}

func readUserProfile(r *tlsvec.Reader) (p UserProfile) {
	p.StableURI = readUser(r)
	p.Fields = readList(r, "profile fields", maxProfileFields, func(r *tlsvec.Reader) ProfileField {
		return ProfileField{
			Source: readCode(r, "fieldSource", FieldOIDCStdClaim, FieldVCard),
			Name:   readNote(r, "fieldName", maxQueryValue),
			Value:  readBounded(r, "fieldValue", maxFieldValue),
		}
	})
	return p
}

// An IdentifierResponse answers an IdentifierRequest. URIs has every match;
// FoundProfiles has those of them that disclose fields, in the same order.
//
//	struct {
//	    IdentifierQueryCode responseCode;
//	    IdentifierUri uri<V>;
//	    UserProfile foundProfiles<V>;
//	    AppDataDictionary id_response_extensions;
//	} IdentifierResponse;
type IdentifierResponse struct {
	ResponseCode  IdentifierQueryCode
	URIs          []URI
	FoundProfiles []UserProfile
	Extensions    mls.AppDataDictionary
}

func (p *IdentifierResponse) append(b *tlsvec.Builder) {
	b.Uint8(uint8(p.ResponseCode))
	appendList(b, p.URIs, appendURI)
	appendList(b, p.FoundProfiles, func(b *tlsvec.Builder, u UserProfile) { u.append(b) })
	appendDictionary(b, p.Extensions)
}

func (p *IdentifierResponse) read(r *tlsvec.Reader) {
	p.ResponseCode = readCode(r, "responseCode", QuerySuccess, QueryUnsupportedField)
	p.URIs = readList(r, "URIs", maxProfiles, readUser)
	p.FoundProfiles = readList(r, "profiles", maxProfiles, readUserProfile)
	p.Extensions = readDictionary(r)
	if r.Err() != nil {
		return
	}
	if p.ResponseCode != QuerySuccess && len(p.URIs)+len(p.FoundProfiles) > 0 {
		r.Fail(fmt.Sprintf("users in a response with responseCode %d", p.ResponseCode))
	}
	if !p.profilesFollowURIs() {
		r.Fail("foundProfiles are not users of uri in the same order")
	}
}

func (p *IdentifierResponse) profilesFollowURIs() bool {
	next := 0
	for _, u := range p.URIs {
		if next < len(p.FoundProfiles) && p.FoundProfiles[next].StableURI == u {
			next++
		}
	}
	return next == len(p.FoundProfiles)
}

// CheckHost refuses users of another provider than the one that answers: it says
// who of its own users is found, and nothing of those of others.
func (p *IdentifierResponse) CheckHost(domain string) error {
	for _, u := range p.URIs { // foundProfiles are among them
		if u.Host() != domain {
			return fmt.Errorf("mimi: IdentifierResponse of %s names %s", domain, u)
		}
	}
	return nil
}

// Marshal returns the response's encoding.
func (p *IdentifierResponse) Marshal() []byte { return marshal(p) }

// ParseIdentifierResponse decodes a response.
func ParseIdentifierResponse(b []byte) (*IdentifierResponse, error) {
	p := new(IdentifierResponse)
	return p, parse("IdentifierResponse", b, p)
}
