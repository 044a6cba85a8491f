package certs

import (
	"crypto/x509/pkix"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/mimiuri"
)

// Names are the mimi: URIs of a certificate: a client and its user for a
// device certificate, or only a provider for a hub certificate.
type Names struct {
	Client   mimiuri.URI // mimi://h/d/…
	User     mimiuri.URI // mimi://h/u/… or mimi://h/p/…
	Provider mimiuri.URI // mimi://h
}

// DeviceNames parses the names of a device certificate.
func DeviceNames(client, user string) (Names, error) {
	c, err := parseURI(client, "client URI")
	if err != nil {
		return Names{}, err
	}
	u, err := parseURI(user, "user URI")
	if err != nil {
		return Names{}, err
	}
	n := Names{Client: c, User: u}
	return n, n.check("names")
}

// ProviderNames parses the name of a hub certificate.
func ProviderNames(provider string) (Names, error) {
	p, err := parseURI(provider, "provider URI")
	if err != nil {
		return Names{}, err
	}
	n := Names{Provider: p}
	return n, n.check("names")
}

func parseURI(s, where string) (mimiuri.URI, error) {
	u, err := mimiuri.Parse(s)
	if err != nil {
		return u, credentials.Errorf(credentials.CodeIdentityMalformed, where, "%.100q: %w", s, err)
	}
	return u, nil
}

// IsHub reports whether n names a provider rather than a device.
func (n Names) IsHub() bool { return !n.Provider.IsZero() }

// Host returns the host of the names.
func (n Names) Host() string {
	if n.IsHub() {
		return n.Provider.Host()
	}
	return n.Client.Host()
}

// URIs returns the names in the order in which they are issued.
func (n Names) URIs() []string {
	if n.IsHub() {
		return []string{n.Provider.String()}
	}
	return []string{n.Client.String(), n.User.String()}
}

// check holds the shape of the two kinds of names.
func (n Names) check(where string) error {
	if n.IsHub() {
		if !n.Client.IsZero() || !n.User.IsZero() || n.Provider.Kind() != mimiuri.Provider {
			return credentials.Errorf(credentials.CodeIdentityMalformed, where, "a hub is named by one URI mimi://<host> and nothing else")
		}
		return nil
	}
	if n.Client.IsZero() || n.User.IsZero() {
		return credentials.Errorf(credentials.CodeIdentityMissing, where, "want one client URI (/d/…) and one user URI (/u/… or /p/…)")
	}
	if n.Client.Kind() != mimiuri.Client || !isUser(n.User) {
		return credentials.Errorf(credentials.CodeIdentityMalformed, where, "want a client URI (/d/…) and a user URI (/u/… or /p/…), not a %s and a %s", n.Client.Kind(), n.User.Kind())
	}
	if n.Client.Host() != n.User.Host() {
		return credentials.Errorf(credentials.CodeIdentityHostMismatch, where, "client at %s, user at %s", n.Client.Host(), n.User.Host())
	}
	return nil
}

func isUser(u mimiuri.URI) bool { return u.Kind() == mimiuri.User || u.Kind() == mimiuri.Pseudonym }

// namesOf sorts the URIs of a subject alternative name into Names. Every URI
// must be canonical, and there must be exactly those that one device or one
// hub has.
func namesOf(uris []string, where string) (Names, error) {
	var n Names
	if len(uris) == 0 {
		return n, credentials.Errorf(credentials.CodeIdentityMissing, where, "no URI in the subject alternative name")
	}
	for _, s := range uris {
		u, err := parseURI(s, where)
		if err != nil {
			return n, err
		}
		if err := n.add(u, where); err != nil {
			return n, err
		}
	}
	return n, n.check(where)
}

func (n *Names) add(u mimiuri.URI, where string) error {
	var place *mimiuri.URI
	switch {
	case u.Kind() == mimiuri.Client:
		place = &n.Client
	case isUser(u):
		place = &n.User
	case u.Kind() == mimiuri.Provider:
		place = &n.Provider
	default:
		return credentials.Errorf(credentials.CodeIdentityMalformed, where, "a %s URI is not an identity", u.Kind())
	}
	if !place.IsZero() {
		return credentials.Errorf(credentials.CodeIdentityMalformed, where, "two %s URIs, want one", u.Kind())
	}
	*place = u
	return nil
}

// same reports whether both have the same URIs.
func (n Names) same(m Names) bool { return slices.Equal(n.URIs(), m.URIs()) }

// altNames is a subject alternative name as it stands in the certificate,
// because package x509 writes URIs anew when it parses them.
//
//	SubjectAltName ::= GeneralNames
//	GeneralNames ::= SEQUENCE SIZE (1..MAX) OF GeneralName
//	GeneralName ::= CHOICE { …
//	     dNSName                         [2]     IA5String,
//	     uniformResourceIdentifier       [6]     IA5String, … }
type altNames struct {
	uris, dns []string
	others    int // names of other types
	present   bool
	critical  bool
}

var (
	tagDNSName = asn1.Tag(2).ContextSpecific()
	tagURI     = asn1.Tag(6).ContextSpecific()
)

// readAltNames returns the subject alternative name among exts.
func readAltNames(exts []pkix.Extension, where string) (altNames, error) {
	ext := extension(exts, oidSubjectAltName)
	if ext == nil {
		return altNames{}, nil
	}
	a := altNames{present: true, critical: ext.Critical}
	input := cryptobyte.String(ext.Value)
	var names cryptobyte.String
	if !input.ReadASN1(&names, asn1.SEQUENCE) || !input.Empty() || names.Empty() {
		return a, credentials.Errorf(credentials.CodeMalformed, where, "subject alternative name is not a DER SEQUENCE of names")
	}
	for !names.Empty() {
		var value cryptobyte.String
		var tag asn1.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			return a, credentials.Errorf(credentials.CodeMalformed, where, "subject alternative name is cut short")
		}
		if err := a.add(tag, string(value), where); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *altNames) add(tag asn1.Tag, value, where string) error {
	switch tag {
	case tagURI:
		a.uris = append(a.uris, value)
	case tagDNSName:
		a.dns = append(a.dns, value)
	default:
		a.others++
		return nil
	}
	if strings.IndexFunc(value, func(r rune) bool { return r >= 0x80 }) >= 0 {
		return credentials.Errorf(credentials.CodeMalformed, where, "name is not an IA5String")
	}
	return nil
}

// altNameExtension encodes uris as a subject alternative name, octet for
// octet. It is critical when the subject is empty (RFC 5280 section 4.2.1.6).
func altNameExtension(uris []string, critical bool) (pkix.Extension, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, u := range uris {
			b.AddASN1(tagURI, func(b *cryptobyte.Builder) { b.AddBytes([]byte(u)) })
		}
	})
	der, err := b.Bytes()
	return pkix.Extension{Id: oidSubjectAltName, Critical: critical, Value: der}, err
}
