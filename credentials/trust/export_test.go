package trust

import (
	"net"

	"github.com/privyseal/privyseal/internal/safehttp"
)

// OpenAt is Open with names that resolve as a test wants, and with a port that
// its server has in the place of 443.
func OpenAt(path string, opts Options, resolver *net.Resolver, port uint16) (*List, error) {
	l := &List{path: path, opts: opts, docs: newDocuments(opts), forTests: func(c *safehttp.Config) { c.Resolver, c.TestPort = resolver, port }}
	return l, l.Reload()
}
