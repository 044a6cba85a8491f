package enrol

import (
	"context"
	"crypto"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/internal/strictjson"
)

// StatementType is the typ of a Statement.
const StatementType = "key-statement+jwt"

// Bounds of a statement.
const (
	maxStatement      = 16 << 10
	maxStatementDepth = 8
)

// A Statement is what an appliance says that a PKCS#11 module answered when it
// was asked for the attributes of a key. As a JWS, signed by a key of the
// appliance, it stays verifiable for as long as it is kept.
type Statement struct {
	Audience   string // the issuer's URL
	Nonce      []byte
	IssuedAt   time.Time
	Key        crypto.PublicKey
	Attributes Attributes
}

// Attributes are those of a key object (PKCS#11 3.0 section 4.9).
type Attributes struct {
	Sensitive        bool      `json:"sensitive"`
	AlwaysSensitive  bool      `json:"always_sensitive"`
	Extractable      bool      `json:"extractable"`
	NeverExtractable bool      `json:"never_extractable"`
	Local            bool      `json:"local"`
	Module           string    `json:"module,omitempty"` // the module's description of itself
	Token            string    `json:"token,omitempty"`  // label and serial of the token
	ReadAt           time.Time `json:"read_at"`
}

// kept reports whether the key was made in its token and never left it.
func (a *Attributes) kept() bool {
	return a.Sensitive && a.AlwaysSensitive && !a.Extractable && a.NeverExtractable && a.Local
}

// statementClaims is the payload.
type statementClaims struct {
	Audience   string       `json:"aud"`
	Nonce      string       `json:"nonce"` // base64url
	IssuedAt   int64        `json:"iat"`
	Cnf        statementCnf `json:"cnf"`
	Attributes Attributes   `json:"attributes"`
}

type statementCnf struct {
	JWK json.RawMessage `json:"jwk"`
}

type statementHeader struct {
	Alg string `json:"alg"`
	Typ string `json:"typ"`
	Kid string `json:"kid"` // JWK thumbprint
}

// Sign signs the statement with a key of the appliance.
func (s *Statement) Sign(ctx context.Context, key crypto.Signer) (string, error) {
	scheme, err := credentials.SchemeOf(key.Public())
	if err != nil {
		return "", err
	}
	kid, err := thumbprint(key.Public())
	if err != nil {
		return "", err
	}
	jwk, err := credentials.FormatJWK(s.Key)
	if err != nil {
		return "", err
	}
	header, err := json.Marshal(statementHeader{scheme.JOSE, StatementType, kid})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(statementClaims{
		s.Audience, base64.RawURLEncoding.EncodeToString(s.Nonce), s.IssuedAt.Unix(), statementCnf{jwk}, s.Attributes,
	})
	if err != nil {
		return "", err
	}
	return jose.Sign(ctx, scheme, key, header, payload)
}

func thumbprint(pub crypto.PublicKey) (string, error) {
	sum, err := credentials.JWKThumbprint(pub)
	return base64.RawURLEncoding.EncodeToString(sum), err
}

// OpenStatement verifies that one of the appliances signed a statement, and
// returns it. Whom it is for and what it says is not judged.
func OpenStatement(text string, appliances []crypto.PublicKey) (*Statement, error) {
	if len(text) > maxStatement {
		return nil, fmt.Errorf("a statement of %d octets, want at most %d", len(text), maxStatement)
	}
	j, err := jose.ParseCompact(text, maxStatementDepth)
	if err != nil {
		return nil, err
	}
	if typ := strings.TrimPrefix(j.Header.Typ, "application/"); typ != StatementType {
		return nil, fmt.Errorf("typ %.40q, want %q", typ, StatementType)
	}
	if err := j.Header.CheckCritical(); err != nil {
		return nil, err
	}
	if err := verifyStatement(j, appliances); err != nil {
		return nil, err
	}
	return parseStatement(j.Payload)
}

func verifyStatement(j *jose.JWS, appliances []crypto.PublicKey) error {
	for _, pub := range appliances {
		kid, err := thumbprint(pub)
		if err != nil {
			return err
		}
		if kid != j.Header.Kid {
			continue
		}
		scheme, err := credentials.SchemeOf(pub)
		if err != nil {
			return err
		}
		if !scheme.AcceptsJOSE(j.Header.Alg) || !j.Verify(scheme, pub) {
			return errors.New("the signature of the appliance is wrong")
		}
		return nil
	}
	return fmt.Errorf("key %.64q is not that of a believed appliance", j.Header.Kid)
}

func parseStatement(payload string) (*Statement, error) {
	var c statementClaims
	if err := strictjson.Decode([]byte(payload), maxStatement, &c); err != nil {
		return nil, err
	}
	nonce, err := jose.DecodeBase64(c.Nonce)
	if err != nil {
		return nil, fmt.Errorf("nonce: %w", err)
	}
	key, _, err := credentials.ParseJWK(c.Cnf.JWK)
	if err != nil {
		return nil, err
	}
	return &Statement{Audience: c.Audience, Nonce: nonce, IssuedAt: time.Unix(c.IssuedAt, 0).UTC(), Key: key, Attributes: c.Attributes}, nil
}

// check holds a statement against what was asked.
func (s *Statement) check(audience string, nonce []byte, key crypto.PublicKey) error {
	switch {
	case s.Audience != audience:
		return fmt.Errorf("it is for %.100q, not for %q", s.Audience, audience)
	case subtle.ConstantTimeCompare(s.Nonce, nonce) != 1:
		return errors.New("it is not over the nonce of this session")
	case !credentials.SamePublicKey(s.Key, key):
		return errors.New("it is about another key than that of the request")
	case !s.Attributes.kept():
		return errors.New("the module does not say that the key was made in the token and cannot leave it")
	}
	return nil
}
