package safehttptest

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Hosts are how a URL can lead inside: the hosts of URLs, as they are written.
// What is not an address is asked of a resolver that is as obliging as can be:
// every name leads to loopback.
var Hosts = []string{
	"127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
	"[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]",
	"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::127.0.0.1]", // IPv4-mapped and -compatible
	"[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::1]", // NAT64
	"[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:7f00:1::]", "[2001:db8::1]", "[3fff::1]", // 6to4, Teredo, documentation
	"[::1%25lo]", "[fe80::1%25lo]", "[fe80::1%25eth0]", // zones
	"127.1", "127.0.1", "2130706433", "017700000001", "0177.0.0.1", "0x7f.1", "0x7f000001", "0x7f.0.0.0x1", "127.0.0.01", // other notations
	"localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "ip6-localhost", "printer.local", "inside", "inside.example.", // names and trailing dots
	"\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1", // digits and dots that a browser would map
}

// Malformed are authorities that no URL may have: user information, control
// characters, other ports than there are. In each, HOST stands for what the
// surface would otherwise fetch from, with its port.
var Malformed = []string{
	"me@HOST", "me:secret@HOST", "@HOST", "HOST@127.0.0.1", "127.0.0.1\\@HOST", "HOST\\@127.0.0.1",
	"HOST\r\nHost: inside", "HOST\r\n\r\nGET /inside", "HOST%0d%0aX: y", "HOST\t", "HOST\x00", "HOST%00", " HOST", "HOST ",
	"HOST:1", "[HOST]", "HOST:x", "HOST:-1", "HOST:99999", "HOST:65536", "",
}

// Addresses are what a name may lead to and is not followed to.
var Addresses = addresses(
	"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.255.255", "169.254.169.254", "100.64.0.1", "100.127.255.255",
	"192.0.0.170", "192.0.2.1", "192.88.99.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
	"::1", "::", "::7f00:1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
	"64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::c0a8:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::", "2001:2::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "4000::1",
)

func addresses(texts ...string) []netip.Addr {
	all := make([]netip.Addr, len(texts))
	for i, s := range texts {
		all[i] = netip.MustParseAddr(s)
	}
	return all
}

// A Setting is where a surface fetches.
type Setting struct {
	Names *net.Resolver
	// Answer is what Names says; see [Resolver].
	Answer func(name string, v6 bool) []netip.Addr
	// Allow are networks beyond the public internet that are configured.
	Allow []netip.Prefix
}

func setting(t *testing.T, answer func(string, bool) []netip.Addr, allow ...netip.Prefix) Setting {
	return Setting{Resolver(t, answer), answer, allow}
}

// With is the setting in which one name is at an address of its own, which may
// be connected to.
func (s Setting) With(t *testing.T, name string, at netip.Addr) Setting {
	return setting(t, func(asked string, v6 bool) []netip.Addr {
		if asked == name+"." {
			return []netip.Addr{at}
		}
		return s.Answer(asked, v6)
	}, append(slices.Clone(s.Allow), netip.PrefixFrom(at, at.BitLen()))...)
}

// A Surface is something of ours that fetches from where others say.
type Surface struct {
	// Fetch makes the surface anew, with its own constructor, and has it fetch
	// from https://HOST/ of any path. It returns what the surface said.
	Fetch func(t *testing.T, s Setting, host string) error
	// Refused tells a refusal of a URL or an address from other failures.
	Refused func(error) bool
}

// A trap is what stands inside: it counts who connects, by the address.
type trap struct {
	port    string
	mu      sync.Mutex // guards arrived
	arrived map[string]int
}

// newTrap listens on loopback of both kinds, at one port.
func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := &trap{port: port, arrived: make(map[string]int)}
	p.serve(t, l, "127.0.0.1")
	for _, more := range []string{"127.0.0.2", "127.1.2.3", "::1"} { // where the system has them
		if l, err := net.Listen("tcp", net.JoinHostPort(more, port)); err == nil {
			p.serve(t, l, more)
		}
	}
	return p
}

func (p *trap) serve(t *testing.T, l net.Listener, at string) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.arrived[at]++
			p.mu.Unlock()
			c.Close()
		}
	}()
}

// take returns how many connected since it was last asked, by address.
func (p *trap) take() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.arrived
	p.arrived = make(map[string]int)
	return n
}

func (p *trap) untouched(t *testing.T, what string) {
	t.Helper()
	if n := p.take(); len(n) != 0 {
		t.Errorf("%s: connections arrived inside: %v", what, n)
	}
}

var (
	loopback = netip.MustParsePrefix("127.0.0.0/8")
	home     = netip.MustParseAddr("127.0.0.1")
	away     = netip.MustParseAddr("127.0.0.2")
)

// InsideIsRefused has a surface be led inside in every way of the table. Nothing
// may connect, and the surface says that it refuses. That the surface does
// connect where the configuration lets it is shown first, so that the rest
// shows something.
func InsideIsRefused(t *testing.T, s Surface) {
	trap := newTrap(t)
	open, closed := setting(t, always(home), loopback), setting(t, always(home))
	name := "inside.example:" + trap.port
	if err := s.Fetch(t, open, name); err == nil || trap.take()["127.0.0.1"] == 0 {
		t.Fatalf("the surface does not connect where it may, so that the table shows nothing: %v", err)
	}
	refused := func(what string, set Setting, host string) {
		t.Helper()
		if err := s.Fetch(t, set, host); err == nil || !s.Refused(err) {
			t.Errorf("%s: %v, want a refusal", what, err)
		}
		trap.untouched(t, what)
	}
	for _, host := range Hosts {
		refused("host "+strconv.Quote(host), closed, host+":"+trap.port)
	}
	for _, form := range Malformed { // loopback is open, so that the form alone is what is refused
		refused("authority "+strconv.Quote(form), open, strings.ReplaceAll(form, "HOST", name))
	}
	for _, addr := range Addresses {
		refused("a name of "+addr.String(), setting(t, always(addr)), name)
	}
	refused("a name of several addresses", setting(t, always(addresses("10.0.0.1", "127.0.0.1", "::1", "fd00::1")...)), name)
	refused("a name beside an open network", setting(t, always(away), netip.PrefixFrom(home, 32)), name)
	s.rebinding(t, trap)
}

func always(all ...netip.Addr) func(string, bool) []netip.Addr {
	return func(string, bool) []netip.Addr { return all }
}

// rebinding has a name lead to an address that is open when it is asked for the
// first time, and inside from then on: who looks a name up to judge it and again
// to connect is led inside.
func (s Surface) rebinding(t *testing.T, trap *trap) {
	t.Helper()
	var asked atomic.Int32
	set := setting(t, func(_ string, v6 bool) []netip.Addr {
		if !v6 && asked.Add(1) == 1 {
			return []netip.Addr{home}
		}
		return []netip.Addr{away}
	}, netip.PrefixFrom(home, 32))
	for round, want := range []int{1, 0} {
		err := s.Fetch(t, set, "rebinds.example:"+trap.port)
		if at := trap.take(); err == nil || min(at[home.String()], 1) != want || at[away.String()] != 0 {
			t.Errorf("round %d of a name that leads elsewhere the second time: %v, connections %v", round, err, at)
		}
	}
}

// Redirects are answers that lead elsewhere, as values of Location. HOST stands
// for the host that answers, with its port, and INSIDE for another one.
var Redirects = []string{
	"https://INSIDE/", "http://INSIDE/", "//INSIDE/", "https://127.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://localhost/",
	"https://me@HOST/", "https://me:secret@HOST/", "https://HOST@INSIDE/", "https://HOST.:443/", "file:///etc/passwd", "gopher://INSIDE/", "javascript:alert(1)", "https:HOST", "", "%zz", "https://HOST:x/", "/again",
}

// redirect answers with one of Redirects.
func redirect(to, inside string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", strings.NewReplacer("HOST", r.Host, "INSIDE", inside).Replace(to))
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

// Home is the setting in which every name is this machine, and may be.
func Home(t *testing.T) Setting { return setting(t, always(home), loopback) }
