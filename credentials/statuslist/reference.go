package statuslist

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// A Reference is where a credential's status stands:
//
//	status: { status_list: { idx, uri } }
//
// It is the JWT claim status or the CWT claim 65535.
type Reference struct {
	URI   string
	Index int64
}

const whereReference = "status"

// ParseReferenceJSON parses the status claim of a JWT. One that has other
// mechanisms only is refused.
func ParseReferenceJSON(claim []byte) (Reference, error) {
	o, err := jose.ParseObject(string(claim), jsonDepth)
	if err != nil {
		return Reference{}, badReference("%w", err)
	}
	v, _ := o.Get("status_list")
	list, ok := v.(*jose.Object)
	if !ok {
		return Reference{}, badReference("no status_list in it")
	}
	uri, _, ok := list.Text("uri")
	n, _ := list.Get("idx")
	number, isNumber := n.(json.Number)
	index, err := strconv.ParseInt(string(number), 10, 64)
	if !ok || !isNumber || err != nil {
		return Reference{}, badReference("uri is no text or idx no integer")
	}
	return Reference{uri, index}, Reference{uri, index}.check()
}

// ParseReferenceCBOR parses the claim 65535 of a CWT.
func ParseReferenceCBOR(claim []byte) (Reference, error) {
	v, err := dcbor.Decode(claim)
	if err != nil {
		return Reference{}, badReference("%w", err)
	}
	list := v.GetText("status_list")
	uri, ok := list.GetText("uri").Text()
	idx := list.GetText("idx")
	index, isInt := idx.Int()
	if !ok || !isInt || idx.Kind() != dcbor.Uint {
		return Reference{}, badReference("no status_list with a text uri and an unsigned idx")
	}
	return Reference{uri, index}, Reference{uri, index}.check()
}

func badReference(format string, args ...any) error {
	return credentials.Errorf(credentials.CodeStatusInvalid, whereReference, format, args...)
}

func (r Reference) check() error {
	if r.Index < 0 || r.Index > maxIndex {
		return badReference("idx %d is out of range", r.Index)
	}
	if err := checkURI(r.URI); err != nil {
		return badReference("uri: %w", err)
	}
	return nil
}

type uriError string

func (e uriError) Error() string { return string(e) }

// checkURI wants an absolute https URI that means the same to everyone who
// reads it.
func checkURI(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || len(s) > maxURI:
		return uriError("not a URI of at most 2048 octets")
	case u.Scheme != "https" || u.Host == "" || u.Opaque != "":
		return uriError("not an https URI with a host")
	case u.User != nil || u.Fragment != "" || strings.Contains(s, "#"):
		return uriError("it has user information or a fragment")
	}
	return nil
}

// Covered reports whether uri is one of the prefixes, or below one that ends in
// a slash. A path with a segment that leads upwards is below nothing.
func Covered(uri string, prefixes []string) bool {
	for _, p := range prefixes {
		if uri == p {
			return true
		}
		if strings.HasSuffix(p, "/") && strings.HasPrefix(uri, p) && checkURI(p) == nil && straight(uri) {
			return true
		}
	}
	return false
}

// straight reports whether no segment of the path leads upwards.
func straight(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || strings.ContainsAny(uri, "\\") {
		return false
	}
	for _, segment := range strings.Split(u.Path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// JSON returns the status claim of a JWT.
func (r Reference) JSON() []byte {
	list := jose.NewObject().Add("idx", json.Number(strconv.FormatInt(r.Index, 10))).Add("uri", r.URI)
	return jose.AppendJSON(nil, jose.NewObject().Add("status_list", list))
}

// CBOR returns the claim 65535 of a CWT.
func (r Reference) CBOR() []byte {
	return dcbor.Encode(dcbor.NewMap(dcbor.NewText("status_list"), dcbor.NewMap(
		dcbor.NewText("idx"), dcbor.NewInt(r.Index), dcbor.NewText("uri"), dcbor.NewText(r.URI))))
}
