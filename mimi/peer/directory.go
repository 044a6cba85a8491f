package peer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// DirectoryPath is where a provider has its directory.
const DirectoryPath = "/.well-known/mimi-protocol-directory"

// basePath stands before our endpoints. A version that its peers cannot read
// gets another path and another key in the directory.
const basePath = "/v1/"

// A Directory says at which URLs a provider has its endpoints.
//
// The draft's own example is not JSON and misses a slash; a Directory is
// written in the form that it means. When it is read, any absolute https
// template with the known variable will do, and unknown keys are ignored.
type Directory struct {
	templates map[Endpoint]template
}

// NewDirectory returns the directory of a provider whose endpoints are served
// by a Server at a host, with a port if it is not 443.
func NewDirectory(host string, endpoints ...Endpoint) (*Directory, error) {
	d := &Directory{templates: make(map[Endpoint]template, len(endpoints))}
	for _, e := range endpoints {
		s := "https://" + host + basePath + string(e)
		if v := traits[e].variables; len(v) > 0 {
			s += "/{" + v[0] + "}"
		}
		if err := d.set(e, s); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *Directory) set(e Endpoint, s string) error {
	t, err := parseTemplate(s, traits[e].variables)
	if err != nil {
		return fmt.Errorf("peer: directory entry %s: %w", e, err)
	}
	d.templates[e] = t
	return nil
}

// ParseDirectory decodes a directory.
func ParseDirectory(b []byte) (*Directory, error) {
	if len(b) > maxDirectory {
		return nil, fmt.Errorf("peer: directory of %d octets, want at most %d", len(b), maxDirectory)
	}
	var entries map[Endpoint]json.RawMessage
	if err := json.Unmarshal(b, &entries); err != nil {
		return nil, fmt.Errorf("peer: directory is not a JSON object: %w", err)
	}
	if entries == nil {
		return nil, errors.New("peer: directory is null, want a JSON object")
	}
	d := &Directory{templates: make(map[Endpoint]template)}
	for e := range traits {
		raw, ok := entries[e]
		if !ok {
			continue
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return nil, fmt.Errorf("peer: directory entry %s is not a string", e)
		}
		if err := d.set(e, s); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// MarshalJSON returns the directory's encoding.
func (d *Directory) MarshalJSON() ([]byte, error) {
	entries := make(map[Endpoint]string, len(d.templates))
	for e, t := range d.templates {
		entries[e] = t.before
		if t.variable != "" {
			entries[e] += "{" + t.variable + "}" + t.after
		}
	}
	return json.Marshal(entries)
}

// Has reports whether the provider offers an endpoint.
func (d *Directory) Has(e Endpoint) bool {
	_, ok := d.templates[e]
	return ok
}

// URL returns where to call an endpoint about a value. The consent endpoints
// take a provider's domain or a user, as the peer's template has it; value
// gives either for the name of the variable.
func (d *Directory) URL(e Endpoint, value func(variable string) string) (*url.URL, error) {
	t, ok := d.templates[e]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoEndpoint, e)
	}
	v := value(t.variable)
	if len(v) > maxVariable {
		return nil, fmt.Errorf("peer: value of %d octets for %s, want at most %d", len(v), e, maxVariable)
	}
	return t.expand(v)
}

// Value is the same value for any variable.
func Value(s string) func(string) string { return func(string) string { return s } }

// ConsentValue is for the consent endpoints: the domain where the template
// asks for one, and otherwise the user.
func ConsentValue(domain, user string) func(string) string {
	return func(variable string) string {
		if strings.HasSuffix(variable, "Domain") {
			return domain
		}
		return user
	}
}
