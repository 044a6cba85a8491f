package trust

import (
	"errors"
	"net/url"
	"strings"

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
