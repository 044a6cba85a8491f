package publish

import (
	"crypto"
	"fmt"
	"net/url"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

// An Issuer is an issuer of tokens, by the URL that is their iss.
type Issuer struct {
	URL  string
	Keys []Key
}

// A Key is a public key of an Issuer: of its tokens or of its status lists.
type Key struct {
	ID     string // kid
	Public crypto.PublicKey
}

// The media types of keys.
const (
	typeJWKS       = "application/jwk-set+json"
	typeCOSEKeySet = "application/cose-key-set"
	typeJSON       = "application/json"
)

func (h *handler) mountIssuer(i Issuer) error {
	u, err := url.Parse(i.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || strings.ContainsAny(u.Path, "{}") {
		return fmt.Errorf("publish: issuer %.100q is no https URL", i.URL)
	}
	jwks, err := jwkSet(i.Keys)
	if err != nil {
		return err
	}
	cose, err := coseKeySet(i.Keys)
	if err != nil {
		return err
	}
	path := PathOf(i.URL)
	metadata := jose.NewObject().Add("issuer", i.URL).Add("jwks_uri", strings.TrimSuffix(i.URL, "/")+"/jwks.json")
	h.serve("/.well-known/jwt-vc-issuer"+path, fixed(jose.AppendJSON(nil, metadata), typeJSON))
	h.serve(path+"/jwks.json", fixed(jwks, typeJWKS))
	h.serve(path+"/keys.cbor", fixed(cose, typeCOSEKeySet))
	return nil
}

// jwkSet encodes {"keys": [...]} (RFC 7517 section 5).
func jwkSet(keys []Key) ([]byte, error) {
	list := []any{}
	for _, k := range keys {
		o, err := jose.FormatJWK(k.Public)
		if err != nil {
			return nil, err
		}
		scheme, err := credentials.SchemeOf(k.Public)
		if err != nil {
			return nil, err
		}
		list = append(list, o.Add("kid", k.ID).Add("use", "sig").Add("alg", scheme.JOSE))
	}
	return jose.AppendJSON(nil, jose.NewObject().Add("keys", list)), nil
}

// coseKeySet encodes COSE_KeySet = [+ COSE_Key] (RFC 9052 section 7), each key
// with its kid: the octets of the JWK's.
func coseKeySet(keys []Key) ([]byte, error) {
	var list []dcbor.Value
	for _, k := range keys {
		octets, err := credentials.FormatCOSEKey(k.Public)
		if err != nil {
			return nil, err
		}
		v, err := dcbor.Decode(octets)
		if err != nil {
			return nil, err
		}
		members := []dcbor.Value{dcbor.NewInt(coseKeyID), dcbor.NewBytes([]byte(k.ID))}
		for key, value := range v.Pairs() {
			members = append(members, key, value)
		}
		list = append(list, dcbor.NewMap(members...))
	}
	return dcbor.Encode(dcbor.NewArray(list...)), nil
}

// coseKeyID is the label of kid in a COSE_Key (RFC 9052 section 7.1).
const coseKeyID = 2
