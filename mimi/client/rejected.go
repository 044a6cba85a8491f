package client

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"github.com/privyseal/privyseal/internal/signing"
	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A signing service signs one Commit for an epoch and no other, unless it is
// told that the first was rejected (Custody.Rejected). A Commit that another
// overtook needs no report: the next one is of a later epoch.

// A note has the digest of the last framed content that was signed in its
// context. Commits of several rooms may be made at the same time.
type note struct{ digest []byte }

type noteKey struct{}

// noting returns a context in which what is signed is noted, if a signing service
// is to be told of rejections.
func noting(ctx context.Context) (context.Context, *note) {
	n := new(note)
	return context.WithValue(ctx, noteKey{}, n), n
}

// A notingSigner notes what it signs.
type notingSigner struct{ crypto.Signer }

// SignMessageContext signs a message in the best way that the key has.
func (s notingSigner) SignMessageContext(ctx context.Context, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	if n, ok := ctx.Value(noteKey{}).(*note); ok && framed(msg) {
		sum := sha256.Sum256(msg)
		n.digest = sum[:]
	}
	return signing.Message(ctx, s.Signer, msg, opts.HashFunc())
}

// SignMessage is there so that nobody passes by SignMessageContext.
func (s notingSigner) SignMessage(_ io.Reader, msg []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.SignMessageContext(context.Background(), msg, opts)
}

// framed reports whether a SignContent (RFC 9420 section 5.1.2) is a
// FramedContentTBS.
func framed(signContent []byte) bool {
	r := tlsvec.NewReader(signContent)
	label := r.Vector()
	return r.Err() == nil && string(label) == "MLS 1.0 FramedContentTBS"
}

// A rejection is a Commit that was signed and did not take effect.
type rejection struct {
	digest []byte
	epoch  uint64
}

// noteSigned is the step that stores the digest of a commit that was signed in an
// epoch. It is kept in memory also where the step fails: the signing service has
// signed it.
func (r *Room) noteSigned(ctx context.Context, u *unit, n *note, epoch uint64) {
	if n.digest != nil {
		r.signed = &rejection{n.digest, epoch}
		r.storeSigned(ctx, u)
	}
}

func (r *Room) storeSigned(ctx context.Context, u *unit) {
	uri, digest, epoch := r.uri.String(), []byte(nil), int64(0)
	if r.signed != nil {
		digest, epoch = slices.Clone(r.signed.digest), int64(r.signed.epoch)
	}
	u.add(func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE room SET signed = ?, signed_epoch = ? WHERE uri = ?`, digest, epoch, uri)
		return err
	})
}

// reportRejected tells the signing service of a Commit of the present epoch
// that will not take effect. If it cannot be told, no other can be made in the
// epoch, so it is tried again before the next.
func (r *Room) reportRejected(ctx context.Context, reason string) error {
	if r.signed == nil || r.c.keys.Rejected == nil {
		return nil
	}
	if r.group == nil || r.signed.epoch == r.group.Epoch() {
		if err := r.c.keys.Rejected(ctx, r.groupID, r.signed.epoch, r.signed.digest, reason); err != nil {
			return &DeviceError{fmt.Errorf("reporting a commit as rejected: %w", err)}
		}
	}
	r.signed = nil
	return r.step(ctx, func(ctx context.Context, u *unit) error { r.storeSigned(ctx, u); return nil })
}
