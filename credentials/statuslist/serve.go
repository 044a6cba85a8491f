package statuslist

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
)

// ServeHTTP serves the list's newest publication under its URI: GET and HEAD,
// JWT or CWT by Accept, gzip by Accept-Encoding, and with History the query
// parameter time.
func (p *Publisher) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Vary", "Accept, Accept-Encoding")
	if !readOnly(w, r) {
		return
	}
	format, ok := negotiate(r.Header.Values("Accept"))
	if !ok {
		problem.New(http.StatusNotAcceptable, "not-acceptable", "available are %s and %s", MediaTypeJWT, MediaTypeCWT).Write(w)
		return
	}
	at, status := p.when(r)
	if status != 0 {
		refuse(w, status)
		return
	}
	pub, err := p.publication(r.Context(), at)
	if err != nil {
		refuse(w, statusFor(err))
		return
	}
	p.write(w, r, pub.in(format), pub.Expires, format, !at.IsZero())
}

func readOnly(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	refuse(w, http.StatusMethodNotAllowed)
	return false
}

// refusals are the codes and details of the problems that this file answers
// with.
var refusals = map[int][2]string{
	http.StatusMethodNotAllowed:   {"method-not-allowed", "a status list is read with GET or HEAD"},
	http.StatusNotImplemented:     {"no-history", "this list keeps no history; ask without time"},
	http.StatusBadRequest:         {"bad-time", "time is one number of seconds since 1970"},
	http.StatusNotFound:           {"no-list", "there is no list that was valid then"},
	http.StatusServiceUnavailable: {"list-unavailable", "there is no list at hand that is still valid; try again later"},
}

func refuse(w http.ResponseWriter, status int) {
	r := refusals[status]
	problem.New(status, r[0], "%s", r[1]).Write(w)
}

func statusFor(err error) int {
	if errors.Is(err, ErrNoHistory) || errors.Is(err, ErrNoList) {
		return http.StatusNotFound
	}
	return http.StatusServiceUnavailable
}

func (pub *Publication) in(f Format) []byte {
	if f == CWT {
		return pub.CWT
	}
	return pub.JWT
}

// when reads the query parameter time. The zero Time is now; a status other
// than 0 refuses.
func (p *Publisher) when(r *http.Request) (time.Time, int) {
	q := r.URL.Query()
	if !q.Has("time") {
		return time.Time{}, 0
	}
	if !p.History {
		return time.Time{}, http.StatusNotImplemented
	}
	n, err := strconv.ParseInt(q.Get("time"), 10, 64)
	if err != nil || n <= 0 || len(q["time"]) != 1 {
		return time.Time{}, http.StatusBadRequest
	}
	return time.Unix(n, 0), 0
}

// publication returns what is served. One that is past its exp is not.
func (p *Publisher) publication(ctx context.Context, at time.Time) (*Publication, error) {
	pub, err := p.Store.Published(ctx, p.URI, at)
	if err != nil {
		return nil, err
	}
	if at.IsZero() && !p.Now().Before(pub.Expires) {
		return nil, errors.New("statuslist: the newest list has expired")
	}
	return pub, nil
}

func (p *Publisher) write(w http.ResponseWriter, r *http.Request, body []byte, expires time.Time, f Format, past bool) {
	h := w.Header()
	sum := sha256.Sum256(body)
	tag := hex.EncodeToString(sum[:16])
	zip := acceptsGzip(r.Header.Values("Accept-Encoding"))
	if zip {
		tag += "-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(p.maxAge(expires, past)/time.Second)))
	h.Set("X-Content-Type-Options", "nosniff")
	if matches(r.Header.Values("If-None-Match"), tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.MediaType())
	if zip {
		h.Set("Content-Encoding", "gzip")
		body = p.zips.zipped(sum, body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		w.Write(body) // an error is the client's, who has gone
	}
}

// maxAge is the ttl, or less if the list expires before.
func (p *Publisher) maxAge(expires time.Time, past bool) time.Duration {
	if past {
		return 24 * time.Hour // what was valid then does not change
	}
	return max(0, min(p.TTL, expires.Sub(p.Now())))
}

// A zipCache keeps the gzip forms of the bodies served last.
type zipCache struct {
	mu sync.Mutex // guards m
	m  map[[sha256.Size]byte][]byte
}

const maxZips = 8

func (c *zipCache) zipped(sum [sha256.Size]byte, body []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if z := c.m[sum]; z != nil {
		return z
	}
	var b bytes.Buffer
	g := gzip.NewWriter(&b)
	g.Write(body) // into memory
	g.Close()
	if c.m == nil || len(c.m) >= maxZips {
		c.m = make(map[[sha256.Size]byte][]byte)
	}
	c.m[sum] = b.Bytes()
	return b.Bytes()
}

// negotiate chooses a format by Accept. Without one it is a JWT.
func negotiate(accept []string) (Format, bool) {
	jwt, cwt := 0.0, 0.0
	if len(accept) == 0 {
		return JWT, true
	}
	var jwtNamed, cwtNamed bool
	for name, q := range weights(accept) {
		switch name {
		case MediaTypeJWT:
			jwt, jwtNamed = q, true
		case MediaTypeCWT:
			cwt, cwtNamed = q, true
		case "application/*", "*/*":
			if !jwtNamed {
				jwt = max(jwt, q)
			}
			if !cwtNamed {
				cwt = max(cwt, q)
			}
		}
	}
	if cwt > jwt {
		return CWT, true
	}
	return JWT, jwt > 0
}

// weights yields the members of a list with their q (RFC 9110 section 12.4.2).
// Members whose q is malformed count as not acceptable.
func weights(values []string) func(yield func(name string, q float64) bool) {
	return func(yield func(string, float64) bool) {
		for _, member := range strings.Split(strings.Join(values, ","), ",") {
			name, params, _ := strings.Cut(member, ";")
			q := 1.0
			for _, param := range strings.Split(params, ";") {
				key, value, _ := strings.Cut(strings.TrimSpace(param), "=")
				if strings.EqualFold(key, "q") {
					var err error
					if q, err = strconv.ParseFloat(value, 64); err != nil || q < 0 || q > 1 {
						q = 0
					}
				}
			}
			if !yield(strings.ToLower(strings.TrimSpace(name)), q) {
				return
			}
		}
	}
}

func acceptsGzip(values []string) bool {
	for name, q := range weights(values) {
		if name == "gzip" && q > 0 {
			return true
		}
	}
	return false
}

// matches reports whether If-None-Match names the entity tag.
func matches(values []string, tag string) bool {
	for _, member := range strings.Split(strings.Join(values, ","), ",") {
		member = strings.TrimPrefix(strings.TrimSpace(member), "W/")
		if member == "*" || member == `"`+tag+`"` {
			return true
		}
	}
	return false
}

// An Aggregation serves the URIs of all lists of a store, as
// {"status_lists": [...]}.
type Aggregation struct {
	Store  Store
	MaxAge time.Duration
}

// ServeHTTP implements http.Handler.
func (a *Aggregation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !readOnly(w, r) {
		return
	}
	uris, err := a.Store.Lists(r.Context())
	if err != nil {
		refuse(w, http.StatusServiceUnavailable)
		return
	}
	if uris == nil {
		uris = []string{}
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(a.MaxAge/time.Second)))
	json.NewEncoder(w).Encode(map[string][]string{"status_lists": uris}) // an error is the client's, who has gone
}

// ParseAggregation returns the URIs in an aggregation.
func ParseAggregation(body []byte) ([]string, error) {
	if err := tooLarge(len(body), maxCompressed); err != nil {
		return nil, err
	}
	var a struct {
		Lists []string `json:"status_lists"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, unavailable("aggregation: %w", err)
	}
	for _, uri := range a.Lists {
		if err := checkURI(uri); err != nil {
			return nil, unavailable("aggregation: %q: %w", uri, err)
		}
	}
	return a.Lists, nil
}
