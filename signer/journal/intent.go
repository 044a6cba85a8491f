package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/privyseal/privyseal/signer"
)

// An Operation is what a key is asked to do.
type Operation string

// The operations. The last two are entries of one step, without a device.
const (
	OpSign   Operation = "sign"
	OpMAC    Operation = "mac"
	OpAgree  Operation = "agree"  // ECDH
	OpRefuse Operation = "refuse" // a request that policy or a purpose refused
	OpReject Operation = "reject" // a report that a signed Commit was rejected
)

// Limits of an Intent, in octets.
const (
	MaxName           = 512  // tenant, caller, rule, versions
	MaxIdempotencyKey = 128  // chosen by the caller
	MaxSummary        = 8192 // JSON
)

// An Intent is what is going to be signed, for whom, and why it is allowed.
type Intent struct {
	Tenant  string // "" where there is one tenant only
	Caller  string
	Key     signer.KeyID
	Version int
	Purpose signer.Purpose

	Operation Operation // OpSign if empty
	// Request is what is to be signed. Shape, type, digest and the claims that
	// the guard looks at are taken from it and from nowhere else.
	Request *signer.Request
	// Input stands for Request where there is none: the octets under a MAC, or
	// the other side's public key. Only its digest is kept.
	Input []byte

	// Summary is a JSON object with the parsed fields that policy looked at,
	// at most MaxSummary octets; nil for none.
	Summary json.RawMessage
	// Rule and PolicyVersion say which rule of which policy allowed it.
	Rule          string
	PolicyVersion string
	// IdempotencyKey makes a repetition of the request, by the same caller,
	// return the first one's outcome; "" for none. OpAgree has none: its
	// result is secret and not kept.
	IdempotencyKey string
	// RequestChecksum is the caller's checksum of the request, as it was sent;
	// "" for none.
	RequestChecksum string
}

// An IntentRecord is an Intent as it is kept. Members are only ever added, at the end
// and with omitempty: entries of old releases must keep their octets.
type IntentRecord struct {
	Time            string          `json:"time"`
	Node            string          `json:"node,omitempty"`
	Tenant          string          `json:"tenant,omitempty"`
	Caller          string          `json:"caller,omitempty"`
	Key             string          `json:"key"`
	Version         int             `json:"version"`
	Purpose         string          `json:"purpose"`
	Operation       Operation       `json:"operation"`
	Shape           string          `json:"shape,omitempty"`
	Type            string          `json:"type,omitempty"`
	Digest          string          `json:"digest"`
	Claims          []ClaimRecord   `json:"claims,omitempty"`
	Rule            string          `json:"rule,omitempty"`
	PolicyVersion   string          `json:"policy_version,omitempty"`
	IdempotencyKey  string          `json:"idempotency_key,omitempty"`
	RequestChecksum string          `json:"request_checksum,omitempty"`
	Summary         json.RawMessage `json:"summary,omitempty"`
}

// timeLayout is RFC 3339 with microseconds, in UTC.
const timeLayout = "2006-01-02T15:04:05.000000Z07:00"

// prepared is an Intent that was checked and encoded.
type prepared struct {
	octets []byte
	claims []Claim
	digest [sha256.Size]byte // SHA-256 of the to-be-signed octets
	idem   idemKey
	bound  [sha256.Size]byte // what an idempotency key stands for
}

type idemKey struct{ tenant, caller, key string }

func (in *Intent) prepare(now time.Time, node string) (*prepared, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	p := &prepared{idem: idemKey{in.Tenant, in.Caller, in.IdempotencyKey}}
	r := in.record(now, node)
	input := in.Input
	if in.Request != nil {
		input, r.Shape, r.Type = in.Request.Octets(), string(in.Request.Shape()), printable(in.Request.Type())
		if err := in.guard(p); err != nil {
			return nil, err
		}
	}
	p.digest = sha256.Sum256(input)
	r.Digest, r.Claims = hex.EncodeToString(p.digest[:]), claimRecords(p.claims)
	var err error
	if p.octets, err = encode(r); err != nil {
		return nil, fmt.Errorf("%w: the summary is not JSON", ErrUsage)
	}
	if len(p.octets) > MaxEntry-maxOutcome {
		return nil, fmt.Errorf("%w: an intent of %d octets is longer than %d", ErrUsage, len(p.octets), MaxEntry-maxOutcome)
	}
	p.bound = in.bind(p.digest)
	return p, nil
}

// record returns what is kept, without what comes from the octets.
func (in *Intent) record(now time.Time, node string) *IntentRecord {
	return &IntentRecord{
		Time: now.UTC().Format(timeLayout), Node: node, Tenant: in.Tenant, Caller: in.Caller,
		Key: string(in.Key), Version: in.Version, Purpose: string(in.Purpose), Operation: in.operation(),
		Rule: in.Rule, PolicyVersion: in.PolicyVersion, IdempotencyKey: in.IdempotencyKey,
		RequestChecksum: in.RequestChecksum, Summary: in.Summary,
	}
}

// guard sets the claims of what is going to be signed.
func (in *Intent) guard(p *prepared) (err error) {
	if in.operation() == OpSign {
		p.claims, err = Claims(in.Tenant, in.Key, in.Request)
	}
	return err
}

func (in *Intent) operation() Operation {
	if in.Operation == "" {
		return OpSign
	}
	return in.Operation
}

// bind is the digest of what must be the same when an idempotency key comes
// again: the key of the device, what it does, and to which octets.
func (in *Intent) bind(digest [sha256.Size]byte) [sha256.Size]byte {
	b := strconv.AppendQuote(make([]byte, 0, 256), string(in.Key))
	b = strconv.AppendInt(append(b, ' '), int64(in.Version), 10)
	b = strconv.AppendQuote(append(b, ' '), string(in.Purpose))
	b = strconv.AppendQuote(append(b, ' '), string(in.operation()))
	return sha256.Sum256(hex.AppendEncode(append(b, ' '), digest[:]))
}

func (in *Intent) check() error {
	for _, f := range []struct {
		name, value string
		most        int
	}{
		{"tenant", in.Tenant, MaxName}, {"caller", in.Caller, MaxName}, {"key", string(in.Key), MaxName},
		{"rule", in.Rule, MaxName}, {"policy version", in.PolicyVersion, MaxName},
		{"idempotency key", in.IdempotencyKey, MaxIdempotencyKey}, {"request checksum", in.RequestChecksum, MaxName},
	} {
		if len(f.value) > f.most || !plain(f.value) {
			return fmt.Errorf("%w: the %s has more than %d octets, or one that is no text", ErrUsage, f.name, f.most)
		}
	}
	switch {
	case in.Key == "":
		return fmt.Errorf("%w: no key is named", ErrUsage)
	case len(in.Summary) > MaxSummary:
		return fmt.Errorf("%w: a summary of %d octets is longer than %d", ErrUsage, len(in.Summary), MaxSummary)
	case in.operation() == OpSign && in.Request == nil:
		return fmt.Errorf("%w: nothing is to be signed", ErrUsage)
	case in.Operation == OpAgree && in.IdempotencyKey != "":
		return fmt.Errorf("%w: a key agreement takes no idempotency key, its result is not kept", ErrUsage)
	}
	return nil
}

// plain reports whether s is UTF-8 without the octet 0, which PostgreSQL's
// text cannot have.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] == 0 {
			return false
		}
	}
	return utf8.ValidString(s)
}

// printable returns a type as text: the label of an MLS component operation is
// binary.
func printable(typ string) string {
	if plain(typ) {
		return typ
	}
	return "hex:" + hex.EncodeToString([]byte(typ))
}
