package safehttp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/safehttp"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// serve starts a TLS server and returns it with a Client that trusts it and may
// reach it.
func serve(t *testing.T, h http.HandlerFunc, change func(*safehttp.Config)) (*httptest.Server, *safehttp.Client) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	config := safehttp.Config{Allow: loopback, Roots: roots}
	if change != nil {
		change(&config)
	}
	c := safehttp.New(config)
	t.Cleanup(c.Close)
	return s, c
}

func wantReason(t *testing.T, what string, err error, want safehttp.Reason) {
	t.Helper()
	if got := safehttp.ReasonOf(err); got != want {
		t.Errorf("%s: %v (reason %q), want %q", what, err, got, want)
	}
}

func TestFetch(t *testing.T) {
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for _, never := range []string{"Cookie", "Referer", "Authorization", "User-Agent"} {
			if v, there := r.Header[never]; there {
				t.Errorf("sent %s: %s", never, v)
			}
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, r.Method, " ", r.Header.Get("Accept"))
	}, nil)
	for range 2 {
		body, kind, err := c.Fetch(context.Background(), s.URL+"/x?y=1", []string{"a/b", "c/d"}, 100)
		if err != nil || string(body) != "GET a/b, c/d" || kind != "application/json" {
			t.Fatalf("%q %q %v", body, kind, err)
		}
	}
}

func TestPost(t *testing.T) {
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, "/", http.StatusTemporaryRedirect)
			return
		}
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, r.Header.Get("Content-Type"), string(b))
	}, nil)
	r := safehttp.Request{URL: s.URL, Post: []byte("ask"), PostType: "application/ocsp-request", Redirects: 3}
	got, err := c.Do(context.Background(), r)
	if err != nil || string(got.Body) != "POSTapplication/ocsp-requestask" {
		t.Fatalf("%v %v", got, err)
	}
	r.URL += "/moved"
	_, err = c.Do(context.Background(), r)
	wantReason(t, "a redirected POST", err, safehttp.BadRedirect)
}

func TestURLsRefused(t *testing.T) {
	c := safehttp.New(safehttp.Config{})
	for _, u := range []string{
		"", "x", "/x", "//a.example/x", "http://a.example/x", "ftp://a.example/", "file:///etc/passwd", "gopher://a.example/", "https:a.example",
		"https://", "https:///x", "https://u@a.example/", "https://u:p@a.example/", "https://a.example/#x", "https://a.example:http/", "https://[::1", "https://a.example/%zz",
		"https://a.example/" + strings.Repeat("a", safehttp.MaxURL), "https://a .example/", "unix:///run/x.sock", "https://:443/",
	} {
		_, err := c.Do(context.Background(), safehttp.Request{URL: u})
		wantReason(t, u, err, safehttp.BadURL)
	}
}

func TestAddressesRefused(t *testing.T) {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	c := safehttp.New(safehttp.Config{Timeout: 3 * time.Second})
	for _, host := range []string{
		"127.0.0.1", "127.1.2.3", "localhost", "0.0.0.0", "10.0.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255",
		"[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[2001:db8::1]", "[::127.0.0.1]",
	} {
		_, err := c.Do(context.Background(), safehttp.Request{URL: "https://" + host + ":" + portOf(s.URL)})
		wantReason(t, host, err, safehttp.BadAddress)
	}
	_, err := c.Do(context.Background(), safehttp.Request{URL: "http://127.0.0.1:" + portOf(s.URL), Plain: true})
	wantReason(t, "plain http", err, safehttp.BadAddress)
}

func portOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u.Port()
}

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "1.1.1.1": true, "100.63.255.255": true, "100.128.0.0": true, "172.15.255.255": true, "172.32.0.0": true, "11.0.0.0": true, "223.255.255.255": true,
		"2606:4700::1111": true, "2001:4860:4860::8888": true, "64:ff9b::808:808": true,
		"64:ff9b::a00:1": false, "::ffff:8.8.8.8": false, "100.127.255.255": false, "198.19.255.255": false, "192.0.0.170": false, "240.0.0.1": false,
		"2001:0:1::": false, "4000::1": false, "fec0::1": false, "100::1": false, "2000::%eth0": false, "3fff::1": false,
	} {
		if got := safehttp.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("Public(%s) = %v", text, got)
		}
	}
	if safehttp.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func TestPorts(t *testing.T) {
	s, c := serve(t, func(http.ResponseWriter, *http.Request) {}, func(c *safehttp.Config) { c.Ports = []uint16{443} })
	_, err := c.Do(context.Background(), safehttp.Request{URL: s.URL})
	wantReason(t, "another port", err, safehttp.BadAddress)
}

func TestRootsAreChecked(t *testing.T) {
	s, c := serve(t, func(http.ResponseWriter, *http.Request) {}, func(c *safehttp.Config) { c.Roots = nil })
	_, err := c.Do(context.Background(), safehttp.Request{URL: s.URL})
	wantReason(t, "an unknown authority", err, safehttp.Unreachable)
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("%v does not say that the authority is unknown", err)
	}
}

func TestRedirects(t *testing.T) {
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/once":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/for-ever":
			http.Redirect(w, r, "/for-ever", http.StatusMovedPermanently)
		case "/empty":
			w.WriteHeader(http.StatusFound)
		case "/to":
			w.Header().Set("Location", r.URL.Query().Get("u"))
			w.WriteHeader(http.StatusSeeOther)
		default:
			fmt.Fprint(w, "end")
		}
	}, nil)
	get := func(path string, hops int) (*safehttp.Response, error) {
		return c.Do(context.Background(), safehttp.Request{URL: s.URL + path, Redirects: hops})
	}
	if r, err := get("/once", 1); err != nil || string(r.Body) != "end" || r.URL != s.URL+"/end" {
		t.Errorf("%v %v", r, err)
	}
	_, err := get("/once", 0)
	wantReason(t, "one hop", err, safehttp.BadRedirect)
	_, err = get("/for-ever", 3)
	wantReason(t, "a circle", err, safehttp.BadRedirect)
	_, err = get("/empty", 0)
	wantReason(t, "no location", err, safehttp.BadRedirect)
	for _, to := range []string{"https://localhost:" + portOf(s.URL) + "/end", "http://" + strings.TrimPrefix(s.URL, "https://"), "https://169.254.169.254/latest", "file:///etc/passwd", "https://u:p@" + strings.TrimPrefix(s.URL, "https://"), "%zz"} {
		_, err := get("/to?u="+url.QueryEscape(to), 3)
		wantReason(t, to, err, safehttp.BadRedirect)
		if strings.Contains(err.Error(), "u:p") {
			t.Errorf("the error has the credentials: %v", err)
		}
	}
}

func TestStatus(t *testing.T) {
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("If-None-Match") == `"1"`, r.URL.Path == "/304":
			w.WriteHeader(http.StatusNotModified)
		case r.URL.Path == "/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}, nil)
	if r, err := c.Do(context.Background(), safehttp.Request{URL: s.URL, IfNoneMatch: `"1"`}); err != nil || r.Status != http.StatusNotModified || len(r.Body) != 0 {
		t.Errorf("%v %v", r, err)
	}
	_, err := c.Do(context.Background(), safehttp.Request{URL: s.URL + "/304"})
	wantReason(t, "304 unasked", err, safehttp.BadStatus)
	_, err = c.Do(context.Background(), safehttp.Request{URL: s.URL + "/busy?token=secret"})
	wantReason(t, "busy", err, safehttp.BadStatus)
	var e *safehttp.Error
	if !errors.As(err, &e) || e.Status != 503 || e.RetryAfter != 7*time.Second || !e.Temporary() || strings.Contains(err.Error(), "secret") {
		t.Errorf("%+v", e)
	}
	_, err = c.Do(context.Background(), safehttp.Request{URL: s.URL + "/none"})
	if !errors.As(err, &e) || e.Temporary() {
		t.Errorf("404 is temporary: %v", err)
	}
}

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBounds(t *testing.T) {
	bomb := zipped(t, make([]byte, 64<<20))
	small := zipped(t, []byte("hello"))
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/exact":
			w.Write(make([]byte, 1000))
		case "/one-more":
			w.Write(make([]byte, 1001))
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		case "/announced":
			w.Header().Set("Content-Length", "1000000000000")
			w.Write([]byte("x"))
		case "/header":
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		default:
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(map[string][]byte{"/bomb": bomb, "/zip": small, "/cut": small[:len(small)-9], "/bad": append(small[:len(small)-8:len(small)-8], "checksum"...), "/none": []byte("there is no gzip in this")}[r.URL.Path])
		}
	}, nil)
	for _, tt := range []struct {
		path string
		gzip bool
		want safehttp.Reason
	}{
		{"/exact", false, ""}, {"/one-more", false, safehttp.TooLarge}, {"/endless", false, safehttp.TooLarge}, {"/announced", false, safehttp.TooLarge},
		{"/header", false, safehttp.Unreachable}, {"/zip", true, ""}, {"/zip", false, safehttp.BadCoding}, {"/bomb", true, safehttp.TooLarge}, {"/cut", true, safehttp.Unreachable},
		{"/bad", true, safehttp.BadCoding}, {"/none", true, safehttp.BadCoding},
	} {
		r, err := c.Do(context.Background(), safehttp.Request{URL: s.URL + tt.path, MaxBody: 1000, Gzip: tt.gzip})
		wantReason(t, tt.path, err, tt.want)
		if tt.path == "/zip" && tt.gzip && string(r.Body) != "hello" {
			t.Errorf("inflated to %q", r.Body)
		}
	}
}

// A stream that ran over its bound stays ended.
func TestStream(t *testing.T) {
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 5000)) }, nil)
	st, err := c.Open(context.Background(), safehttp.Request{URL: s.URL, MaxBody: 5000})
	if err != nil || st.Length != -1 && st.Length != 5000 {
		t.Fatalf("%+v %v", st, err)
	}
	if n, err := io.Copy(io.Discard, st); n != 5000 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	st.Close()
	s, c = serve(t, func(w http.ResponseWriter, r *http.Request) {
		for range 10 {
			w.Write(make([]byte, 5000))
			w.(http.Flusher).Flush()
		}
	}, nil)
	st, err = c.Open(context.Background(), safehttp.Request{URL: s.URL, MaxBody: 6000})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	n, err := io.Copy(io.Discard, st)
	wantReason(t, "the stream", err, safehttp.TooLarge)
	if again, err := st.Read(make([]byte, 10)); n != 6000 || again != 0 || safehttp.ReasonOf(err) != safehttp.TooLarge {
		t.Errorf("%d octets, then %d and %v", n, again, err)
	}
}

// A server that sends one octet now and then does not hold a fetch.
func TestTime(t *testing.T) {
	done := make(chan struct{})
	s, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for r.URL.Path == "/drip" {
			fmt.Fprint(w, "x")
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		<-done
	}, func(c *safehttp.Config) { c.Timeout = 300 * time.Millisecond })
	defer close(done)
	for _, path := range []string{"/drip", "/silent"} {
		_, err := c.Do(context.Background(), safehttp.Request{URL: s.URL + path})
		wantReason(t, path, err, safehttp.Timeout)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := c.Do(ctx, safehttp.Request{URL: s.URL}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A dialer connects to no address inside, but for those of the networks.
func TestDialer(t *testing.T) {
	s, _ := serve(t, func(http.ResponseWriter, *http.Request) {}, nil)
	address := s.Listener.Addr().String()
	if c, err := safehttp.Dialer(nil, time.Second).DialContext(t.Context(), "tcp", address); safehttp.ReasonOf(err) != safehttp.BadAddress {
		t.Errorf("connected to %s: %v, %v", address, c, err)
	}
	c, err := safehttp.Dialer(loopback, 10*time.Second).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
