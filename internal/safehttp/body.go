package safehttp

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A body is read up to a bound and no further.
type body struct {
	url    *url.URL
	from   io.ReadCloser
	zip    *gzip.Reader    // nil if the body stands as it is
	ctx    context.Context // of the whole fetch
	cancel func()
	left   int64
	err    error // that ended it
}

// decode prepares for the content coding and returns the announced length, or
// -1.
func (b *body) decode(r *Request, resp *http.Response) (int64, error) {
	coding := strings.ToLower(strings.TrimSpace(strings.Join(resp.Header.Values("Content-Encoding"), ",")))
	switch {
	case coding == "" || coding == "identity":
		if resp.ContentLength > b.left {
			return 0, b.tooLarge()
		}
		return resp.ContentLength, nil
	case coding == "gzip" && r.Gzip && resp.StatusCode != http.StatusNotModified:
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return 0, b.explain(err)
		}
		b.zip = z
		return -1, nil
	}
	return 0, refuse(BadCoding, b.url, "content coding %q was not asked for", coding)
}

// Read implements io.Reader. One octet beyond the bound is looked for, so that
// a body of exactly the bound ends well.
func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 || b.err != nil {
		return 0, b.err
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.reader().Read(p)
	if int64(n) > b.left {
		n, err = int(b.left), b.tooLarge()
	} else if err != nil {
		err = b.end(err)
	}
	b.left -= int64(n)
	b.err = err
	return n, err
}

func (b *body) reader() io.Reader {
	if b.zip != nil {
		return b.zip
	}
	return b.from
}

// end explains how a body ended. A server that hears our hanging up may end
// its answer in order, and what it left out must not go unnoticed: an end
// after our time is no end.
func (b *body) end(err error) error {
	if late := b.ctx.Err(); late != nil {
		return explain(b.url, late)
	}
	if err == io.EOF {
		return io.EOF
	}
	return b.explain(err)
}

func (b *body) explain(err error) error {
	var corrupt flate.CorruptInputError
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.As(err, &corrupt) {
		return refuse(BadCoding, b.url, "broken gzip: %w", err)
	}
	return explain(b.url, err)
}

func (b *body) tooLarge() *Error {
	return refuse(TooLarge, b.url, "the answer is larger than what is taken")
}

// Close ends the fetch.
func (b *body) Close() error {
	err := b.from.Close()
	b.cancel()
	return err
}
