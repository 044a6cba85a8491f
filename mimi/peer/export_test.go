package peer

import (
	"context"
	"io"
)

// Body is a body whose call has a time.
func Body(ctx context.Context, r io.ReadCloser) io.ReadCloser { return &body{r, ctx, func() {}} }
