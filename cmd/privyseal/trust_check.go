package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/mlscred"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

const (
	typeBasic = "basic"
	typeMLS   = "mls" // a Credential of RFC 9420
)

type trustCheckOptions struct {
	file, trust, as, kind, room, key, voucher, at string
	member                                        bool
}

func newTrustCheck(a *app) *cobra.Command {
	var o trustCheckOptions
	c := &cobra.Command{
		Use: "check CREDENTIAL --as URI", Short: "Judge a credential as a hub or member would, rule by rule", Args: exactArgs(1),
		Long: "Judges a credential by the trust configuration, with the evaluator that hubs and\n" +
			"clients use, and says of each rule how it ended. CREDENTIAL is a file, or - for\n" +
			"standard input: certificates in PEM, an SD-JWT with its KB-JWT, a key binding\n" +
			"token with its SD-CWT, the name that a basic credential asserts, or a Credential\n" +
			"of MLS of any type, such as \"credential bind\" makes. Octets may be in base64url\n" +
			"or hexadecimal. The bindings of a multi or weak-multi are for the key of one\n" +
			"leaf: give it as --key. Exit code 3 says that it is refused.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			return trustCheck(cmd.Context(), a, &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.as, "as", "", "the client, user or, for a hub, provider `URI` that it must be of (required)")
	f.StringVar(&o.trust, "trust", "", "the trust configuration `file` (default: that of the configuration)")
	f.StringVar(&o.kind, "type", "", "x509, sd-jwt, sd-cwt, basic or mls (default: as it looks)")
	f.StringVar(&o.room, "room", "", "the room `URI` in which it is shown")
	f.StringVar(&o.key, "key", "", "`file` with the public key of the leaf, JWK or PEM (default: the key that the credential is for)")
	f.StringVar(&o.voucher, "voucher", "", "basic: the `host` of the provider that delivered it")
	f.StringVar(&o.at, "at", "", "judge as at this `time` (RFC 3339) instead of now")
	f.BoolVar(&o.member, "member", false, "judge as a member that follows what the group has done, not as one who decides")
	return c
}

func trustCheck(ctx context.Context, a *app, o *trustCheckOptions) error {
	text, err := readInput(a.in, o.file)
	if err != nil {
		return err
	}
	l, err := a.openTrust(ctx, o.trust)
	if err != nil {
		return err
	}
	defer l.close()
	q, err := o.question(text)
	if err != nil {
		return err
	}
	v, refusal := identity.NewEvaluator(l.List, identity.EvaluatorOptions{}).Evaluate(ctx, q)
	if refusal != nil && credentials.CodeOf(refusal) == "" {
		return refusal
	}
	if err := a.print(newCheckResult(v, refusal), newCheckResult(v, refusal).text); err != nil {
		return err
	}
	return refusal
}

// question turns the flags and the credential into a Question.
func (o *trustCheckOptions) question(text []byte) (q identity.Question, err error) {
	q = identity.Question{AnyKey: true, Acting: !o.member, Voucher: o.voucher}
	q.Expect.Pseudonyms = true
	if q.Credential, err = parseCredential(o.kind, text); err != nil {
		return q, err
	}
	if err := o.expect(&q); err != nil {
		return q, err
	}
	if o.room != "" {
		if q.Room, err = mimi.ParseURI(o.room); err != nil {
			return q, usageError{fmt.Errorf("--room: %w", err)}
		}
	}
	if o.at != "" {
		if q.At, err = time.Parse(time.RFC3339, o.at); err != nil {
			return q, usageError{fmt.Errorf("--at: %w", err)}
		}
	}
	return q, o.leaf(&q)
}

func (o *trustCheckOptions) expect(q *identity.Question) error {
	if o.as == "" {
		return usageError{errors.New("--as is required: the client, user or provider URI that the credential must be of")}
	}
	u, err := mimi.ParseURI(o.as)
	if err != nil {
		return usageError{fmt.Errorf("--as: %w", err)}
	}
	switch u.Kind() {
	case mimi.KindClient:
		q.Expect.Client = u
	case mimi.KindUser, mimi.KindPseudonym:
		q.Expect.User = u
	case mimi.KindProvider:
		q.Role, q.Room = identity.RoleHub, u
	default:
		return usageError{fmt.Errorf("--as: a credential is of a client, a user or a provider, not of a %s", u.Kind())}
	}
	return nil
}

// suites are cipher suites by their signature scheme, of which the evaluator
// only looks at that.
var suites = map[*credentials.Scheme]mls.CipherSuite{
	credentials.Ed25519: mls.X25519AES128SHA256Ed25519, credentials.ECDSAP256: mls.P256AES128SHA256P256,
	credentials.ECDSAP384: mls.P384AES256SHA384P384, credentials.ECDSAP521: mls.P521AES256SHA512P521,
}

// leaf sets the key of the leaf, if it is given.
func (o *trustCheckOptions) leaf(q *identity.Question) error {
	if o.key == "" {
		return nil
	}
	pub, err := readPublicKey(o.key)
	if err != nil {
		return err
	}
	return setLeaf(q, pub)
}

func setLeaf(q *identity.Question, pub crypto.PublicKey) error {
	scheme, err := credentials.SchemeOf(pub)
	if err != nil {
		return err
	}
	q.AnyKey, q.Suite = false, suites[scheme]
	q.SignatureKey, err = credentials.MLSPublicKey(pub)
	return err
}

// parseCredential makes an MLS credential of what a file has.
func parseCredential(kind string, text []byte) (c mls.Credential, err error) {
	trimmed := bytes.TrimSpace(text)
	if kind == "" {
		kind = looksLike(trimmed)
	}
	switch kind {
	case typeX509:
		certificates, err := parseCertificates(text)
		if err != nil {
			return c, err
		}
		chain := make([][]byte, len(certificates))
		for i, cert := range certificates {
			chain[i] = cert.Raw
		}
		return mls.X509Credential(chain), nil
	case typeSDJWT:
		c.Type = mls.CredentialSDJWT
		c.Body, err = mlscred.FormatSDJWT(string(trimmed), true)
		return c, err
	case typeSDCWT:
		return mls.Credential{Type: mls.CredentialSDCWT, Body: octetsOf(text)}, nil
	case typeMLS:
		return identity.ParseCredential(octetsOf(text))
	case typeBasic:
		return mls.BasicCredential(trimmed), nil
	}
	return c, usageError{fmt.Errorf("--type is %s, %s, %s, %s or %s, not %q", typeX509, typeSDJWT, typeSDCWT, typeBasic, typeMLS, kind)}
}

// octetsOf returns the octets that a file has as they are, or as a line of
// hexadecimal or base64url.
func octetsOf(text []byte) []byte {
	line := string(bytes.TrimSpace(text))
	if octets, err := hex.DecodeString(line); err == nil {
		return octets
	}
	if octets, err := base64.RawURLEncoding.Strict().DecodeString(line); err == nil {
		return octets
	}
	return text
}

// looksLike guesses the type of a credential by how it begins.
func looksLike(text []byte) string {
	switch {
	case bytes.HasPrefix(text, []byte("-----BEGIN")):
		return typeX509
	case bytes.HasPrefix(text, []byte("eyJ")):
		return typeSDJWT
	case bytes.HasPrefix(text, []byte("mimi:")):
		return typeBasic
	}
	const tagged, private = 0xd2, 0xf0 // COSE_Sign1; the first octet of types of private use
	if octets := octetsOf(text); len(octets) > 0 && octets[0] != tagged && (octets[0] == 0 || octets[0] >= private) {
		return typeMLS
	}
	return typeSDCWT
}

// A checkResult is a verdict as it is printed.
type checkResult struct {
	Verdict     string             `json:"verdict"` // accepted, quarantined or refused
	Client      string             `json:"client,omitempty"`
	User        string             `json:"user,omitempty"`
	Hub         string             `json:"hub,omitempty"`
	Level       string             `json:"level,omitempty"`
	Issuer      string             `json:"issuer,omitempty"`
	Standing    string             `json:"revocation,omitempty"`
	UsableUntil *time.Time         `json:"usable_until,omitempty"`
	Findings    []identity.Finding `json:"findings"`
}

func newCheckResult(v *identity.Verdict, refusal error) *checkResult {
	r := &checkResult{Verdict: "accepted", Findings: v.Findings}
	switch {
	case refusal != nil:
		r.Verdict = "refused"
	case v.Quarantined:
		r.Verdict = "quarantined"
	}
	if id := v.Identity; id != nil {
		r.Client, r.User, r.Level, r.Issuer = id.Client.String(), id.User.String(), id.Level.String(), id.Issuer
	}
	if !v.Hub.IsZero() {
		r.Hub = v.Hub.String()
	}
	if refusal == nil {
		r.Standing = v.Standing.String()
		if until := v.UsableUntil.UTC(); !v.UsableUntil.IsZero() {
			r.UsableUntil = &until
		}
	}
	return r
}

func (r *checkResult) text(w io.Writer) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, value)
		}
	}
	line("verdict", r.Verdict)
	line("client", r.Client)
	line("user", r.User)
	line("hub", r.Hub)
	line("level", r.Level)
	line("issuer", r.Issuer)
	line("revocation", r.Standing)
	if r.UsableUntil != nil {
		line("until", r.UsableUntil.Format(time.RFC3339))
	}
	fmt.Fprintln(w)
	for _, f := range r.Findings {
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-12s %-11s %s", f.Rule, f.Outcome, f.Detail), " "))
	}
}
