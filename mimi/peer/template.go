package peer

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/safehttp"
)

// A template is an absolute https URI template with at most one simple
// expression (RFC 6570 level 1), after the authority.
type template struct {
	before, variable, after string
}

// parseTemplate reads a template whose variable is one of the names; with no
// names it is a plain URL.
func parseTemplate(s string, names []string) (template, error) {
	t := template{before: s}
	if len(names) > 0 {
		open := strings.IndexByte(s, '{')
		length := strings.IndexByte(s[max(open, 0):], '}')
		if open < 0 || length < 0 {
			return t, fmt.Errorf("want a variable {%s}", names[0])
		}
		t = template{s[:open], s[open+1 : open+length], s[open+length+1:]}
		if !slices.Contains(names, t.variable) {
			return t, fmt.Errorf("variable {%s}, want {%s}", t.variable, strings.Join(names, "} or {"))
		}
	}
	return t, t.check()
}

func (t template) check() error {
	if strings.ContainsAny(t.before+t.after, "{}") {
		return fmt.Errorf("more than one expression")
	}
	u, err := safehttp.CheckURL(t.before, false)
	if err != nil {
		return fmt.Errorf("not a URL that is called: %w", errors.Unwrap(err))
	}
	if t.variable != "" && u.Path == "" {
		return fmt.Errorf("the variable is not in the path or the query")
	}
	if strings.Contains(t.before+t.after, "#") {
		return fmt.Errorf("a fragment")
	}
	return nil
}

// expand returns the URL in which the variable has a value.
func (t template) expand(value string) (*url.URL, error) {
	if t.variable == "" {
		return url.Parse(t.before)
	}
	return url.Parse(t.before + escapeSegment(value) + t.after)
}

// escapeSegment is simple string expansion (RFC 6570 section 3.2.2): all but
// unreserved characters are percent-encoded.
func escapeSegment(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; unreserved(c) {
			b.WriteByte(c)
		} else {
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// unescapeSegment is the inverse of escapeSegment. A segment that it would not
// have written is refused, so that a value has one spelling.
func unescapeSegment(s string) (string, error) {
	value, err := url.PathUnescape(s)
	if err != nil || len(value) > maxVariable || escapeSegment(value) != s {
		return "", fmt.Errorf("path segment is not the simple expansion (RFC 6570) of a value of at most %d octets", maxVariable)
	}
	return value, nil
}
