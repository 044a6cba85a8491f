package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/signer"
)

// A Rejection says that a signed Commit did not take effect.
type Rejection struct {
	Tenant, Caller string
	Key            signer.KeyID
	Group          []byte // group_id
	Epoch          uint64 // in which the Commit was made
	// Digest is the SHA-256 of the to-be-signed octets of the Commit, as the
	// entry of its signature has it.
	Digest []byte
	Reason string // such as the error code of the delivery service
	// Rule and PolicyVersion say which rule allowed the report.
	Rule, PolicyVersion string
}

// ReportRejected lets the key sign another Commit for the epoch, because the
// delivery service refused this one. It is an entry of its own. Errors:
// ErrNotFound if this Commit is not the one that the guard has, ErrInFlight if
// it may still be signed.
func (j *Journal) ReportRejected(ctx context.Context, r Rejection) error {
	p, c, err := r.prepare(j.now(), j.node)
	if err != nil {
		return err
	}
	return j.record(ctx, p, "", c)
}

func (r *Rejection) prepare(now time.Time, node string) (*prepared, *Claim, error) {
	if len(r.Digest) != sha256.Size || len(r.Reason) > MaxName {
		return nil, nil, fmt.Errorf("%w: the digest is no SHA-256, or the reason is too long", ErrUsage)
	}
	c := &Claim{Kind: KindCommit, Name: hex.EncodeToString(r.Group), Scope: CommitScope(r.Key, r.Group),
		Number: Uint(r.Epoch), Content: r.Digest}
	summary, err := json.Marshal(map[string]string{"reason": r.Reason})
	if err != nil {
		return nil, nil, err
	}
	in := Intent{Tenant: r.Tenant, Caller: r.Caller, Key: r.Key, Operation: OpReject, Rule: r.Rule,
		PolicyVersion: r.PolicyVersion, Summary: summary}
	p, err := in.prepare(now, node)
	if err != nil {
		return nil, nil, err
	}
	record := in.record(now, node)
	record.Digest, record.Claims = hex.EncodeToString(r.Digest), claimRecords([]Claim{*c})
	p.octets, err = encode(record)
	return p, c, err
}
