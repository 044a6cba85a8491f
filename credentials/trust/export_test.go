package trust

import (
	"net"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp"
)

// OpenAt is Open with names that resolve as a test wants, and with a port that
// its server has in the place of 443.
func OpenAt(path string, opts Options, resolver *net.Resolver, port uint16) (*List, error) {
	return openWith(path, opts, func(c *safehttp.Config) { c.Resolver, c.TestPort = resolver, port })
}

// OpenBounded is OpenAt with a bound on the time of a fetch that is shorter than
// the configuration can have.
func OpenBounded(path string, opts Options, resolver *net.Resolver, bound time.Duration) (*List, error) {
	return openWith(path, opts, func(c *safehttp.Config) { c.Resolver, c.Timeout = resolver, bound })
}

func openWith(path string, opts Options, change func(*safehttp.Config)) (*List, error) {
	l := &List{path: path, opts: opts, docs: newDocuments(opts), forTests: change}
	return l, l.Reload()
}

// SetMemory changes how many octets of documents are kept in memory.
func (l *List) SetMemory(octets int) { l.docs.most = octets }
