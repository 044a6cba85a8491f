package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"

	"github.com/privyseal/privyseal/signer"
)

// A Kind is a kind of thing of which a signer gives one account only.
type Kind string

// The kinds. Names of the first two are the group's id, in hex.
const (
	KindEpoch      Kind = "mls-epoch"       // of a key and group: the newest epoch that was signed in
	KindCommit     Kind = "mls-commit"      // of a key and group: the Commit of an epoch
	KindStatusList Kind = "status-list"     // of a URI: iat, and the list
	KindCRL        Kind = "crl"             // of an issuer and scope: CRL number, and the list
	KindCRLTime    Kind = "crl-this-update" // of an issuer and scope: thisUpdate
	KindCheckpoint Kind = "checkpoint"      // of an origin: tree size, and root hash
)

var nouns = map[Kind]string{
	KindEpoch: "epoch", KindCommit: "Commit of epoch", KindStatusList: "status list of date",
	KindCRL: "CRL number", KindCRLTime: "thisUpdate", KindCheckpoint: "checkpoint of size",
}

func (k Kind) noun() string { return nouns[k] }

// A Claim is what a request says about such a thing.
type Claim struct {
	Kind   Kind
	Name   string // which one, for people
	Scope  [sha256.Size]byte
	Number Number
	// Content is the digest of what there may be one of for this Number; nil
	// where there may be several.
	Content []byte
	// Observe is set where the Number must not be behind, but is not yet
	// reached by signing: the GroupInfo that goes with a Commit is of an epoch
	// that the delivery service may still refuse.
	Observe bool
}

// Claims returns what a request says that the guard looks at; none for most.
// MLS groups are guarded per key; lists and logs per tenant, whichever key
// signs. A request that is one of a guarded kind without saying which is
// refused with a *signer.Refusal.
func Claims(tenant string, key signer.KeyID, r *signer.Request) ([]Claim, error) {
	var claims []Claim
	var err error
	switch r.Shape() {
	case signer.ShapeMLS:
		claims = mlsClaims(string(key), r)
	case signer.ShapeJWS, signer.ShapeCOSE:
		claims, err = statusClaims(tenant, r)
	case signer.ShapeCRL:
		claims, err = crlClaims(tenant, r)
	case signer.ShapeCheckpoint:
		claims = checkpointClaims(tenant, r)
	}
	if err != nil {
		return nil, &signer.Refusal{Key: key, Shape: r.Shape(), Type: r.Type(), Reason: err.Error(), Err: err}
	}
	return claims, nil
}

// scope is a digest over a kind and names, each with its length before it.
func scope(kind Kind, names ...string) [sha256.Size]byte {
	b := appendCounted(make([]byte, 0, 256), string(kind))
	for _, n := range names {
		b = appendCounted(b, n)
	}
	return sha256.Sum256(b)
}

func appendCounted(b []byte, s string) []byte {
	return append(append(strconv.AppendInt(b, int64(len(s)), 10), ':'), s...)
}

func sha(octets []byte) []byte {
	d := sha256.Sum256(octets)
	return d[:]
}

// digest is over parts, each with its length before it.
func digest(parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(append(strconv.AppendInt(nil, int64(len(p)), 10), ':'))
		h.Write(p)
	}
	return h.Sum(nil)
}

// A ClaimRecord is a Claim as it is kept; see IntentRecord.
type ClaimRecord struct {
	Kind    Kind   `json:"kind"`
	Name    string `json:"name"`
	Number  string `json:"number"`
	Content string `json:"content,omitempty"`
}

func claimRecords(claims []Claim) []ClaimRecord {
	var out []ClaimRecord
	for _, c := range claims {
		out = append(out, ClaimRecord{c.Kind, clip(printable(c.Name)), c.Number.String(), hex.EncodeToString(c.Content)})
	}
	return out
}

// clip keeps what a name has at most in an entry; the scope has all of it.
func clip(s string) string {
	if len(s) <= MaxName {
		return s
	}
	return s[:MaxName-3] + "..."
}

// mlsClaims reads FramedContentTBS and GroupInfoTBS (RFC 9420 sections 6.1 and
// 12.4.3). Of an epoch there may be many messages and one Commit.
func mlsClaims(key string, r *signer.Request) []Claim {
	f := r.Parsed().(*signer.MLSContent).Fields
	if f == nil || !f.HasEpoch {
		return nil
	}
	group, name := string(f.Group), hex.EncodeToString(f.Group)
	claims := []Claim{{Kind: KindEpoch, Name: name, Scope: scope(KindEpoch, key, group), Number: Uint(f.Epoch),
		Observe: r.Type() == "GroupInfoTBS"}}
	if f.ContentType == "commit" {
		claims = append(claims, Claim{Kind: KindCommit, Name: name, Scope: CommitScope(signer.KeyID(key), f.Group),
			Number: Uint(f.Epoch), Content: sha(r.Octets())})
	}
	return claims
}

// CommitScope is the scope of a key's Commits in a group.
func CommitScope(key signer.KeyID, group []byte) [sha256.Size]byte {
	return scope(KindCommit, string(key), string(group))
}

// checkpointClaims lets one size have one root.
func checkpointClaims(tenant string, r *signer.Request) []Claim {
	c := r.Parsed().(*signer.Checkpoint)
	return []Claim{{Kind: KindCheckpoint, Name: c.Origin, Scope: scope(KindCheckpoint, tenant, c.Origin),
		Number: Uint(c.Size), Content: digest(c.Root)}}
}
