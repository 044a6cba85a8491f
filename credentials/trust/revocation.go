package trust

import (
	"context"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// Status returns what is known of a credential's revocation, fetching what is
// due. It never fails: what cannot be learned is Unavailable.
func (s *Snapshot) Status(ctx context.Context, e *Evidence, at time.Time) Status {
	if e.Issuer.Mode == ModeNone {
		return Status{Standing: Good}
	}
	return Status{Standing: Unavailable, Err: credentials.Errorf(credentials.CodeStatusUnavailable, "status", "no way to learn of revocations is at hand")}
}
