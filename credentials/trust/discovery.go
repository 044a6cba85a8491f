package trust

import (
	"errors"
	"net/url"
	"strings"
	"sync"

	"github.com/privyseal/privyseal/internal/mimiuri"
	"github.com/privyseal/privyseal/internal/safehttp"
)

// metadataPath is inserted between host and path of an iss
// (draft-ietf-oauth-sd-jwt-vc, JWT VC Issuer Metadata).
const metadataPath = "/.well-known/jwt-vc-issuer"

// metadataURL returns where the metadata of an issuer is.
func metadataURL(iss string) (string, error) {
	u, err := safehttp.CheckURL(iss, false)
	if err != nil {
		return "", err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return "", errors.New("an iss with a query has no metadata")
	}
	at := url.URL{Scheme: u.Scheme, Host: u.Host}
	return at.String() + metadataPath + strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

// autoDomains are the issuers that were made up for domains, by iss. They are
// bounded, since whoever sends a token can name one.
type autoDomains struct {
	mu  sync.Mutex // guards all
	all map[string]*Issuer
}

const maxAutoDomains = 1024

// autoDomain returns the issuer https://H for the names of mimi://H, if the
// configuration believes domains; else nil. It has no port and no path.
func (s *Snapshot) autoDomain(kind, iss string) *Issuer {
	host, ok := strings.CutPrefix(iss, "https://")
	if !s.Config.AutoDomain || kind != TypeSDJWT || !ok {
		return nil
	}
	if _, err := mimiuri.New(host, mimiuri.Provider); err != nil {
		return nil
	}
	a := s.domains
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := a.all[host]; i != nil {
		return i
	}
	for other := range a.all {
		if len(a.all) < maxAutoDomains {
			break
		}
		delete(a.all, other)
	}
	i := s.newAutoDomain(host, iss)
	a.all[host] = i
	return i
}

func (s *Snapshot) newAutoDomain(host, iss string) *Issuer {
	d := &s.Config.Defaults
	c := &IssuerConfig{
		Name: "auto:" + host, Type: TypeSDJWT, Roles: []string{roleClient}, Iss: iss, Keys: KeysConfig{Source: sourceOfAutoDomains},
		Claims: ClaimsConfig{User: &ClaimKey{Text: "mimi_user"}}, UserFromClientPath: true,
		Revocation: RevocationConfig{Methods: []string{MethodStatusList}, StatusPrefixes: []string{iss + "/"}},
	}
	i := &Issuer{
		Name: c.Name, Type: c.Type, config: c, MaxLifetime: seconds(d.LifetimeS), MaxStale: seconds(d.MaxStaleS), Mode: d.Revocation,
		UserFromClient: true, client: s.fetch, grants: []Grant{{host, []string{"d/*", "d/*/*", "u/*", "p/*"}}},
	}
	i.setClaims()
	i.keys = &fetchedKeys{issuer: i, list: s.list, client: s.fetch, kind: kindJWKS, metadata: iss + metadataPath}
	return i
}
