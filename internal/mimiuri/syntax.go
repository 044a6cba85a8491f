package mimiuri

import "strings"

// checkHost returns the offset and the reason for which host is not a DNS
// name in lower case made of A-labels, or "" for the reason.
func checkHost(host string) (int, string) {
	if host == "" {
		return 0, "no host"
	}
	if len(host) > 253 {
		return 253, "host is longer than a DNS name"
	}
	at, last := 0, ""
	for label := range strings.SplitSeq(host, ".") {
		if i, reason := checkLabel(label); reason != "" {
			return at + i, reason
		}
		at += len(label) + 1
		last = label
	}
	if allDigits(last) {
		return len(host) - len(last), "host is an IP address or ends in a number, want a DNS name"
	}
	return 0, ""
}

func checkLabel(label string) (int, string) {
	if label == "" {
		return 0, "empty label in the host"
	}
	if len(label) > 63 {
		return 63, "host label is longer than 63 octets"
	}
	for i := range len(label) {
		switch c := label[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(label)-1:
		case 'A' <= c && c <= 'Z':
			return i, "host is not in lower case"
		case c == ':' || c == '@':
			return i, "a port or user information is not allowed"
		case c == '?' || c == '#':
			return i, "a query or fragment is not allowed"
		default:
			return i, "host is not made of letters, digits and hyphens (write a name of another script as A-labels)"
		}
	}
	return 0, ""
}

func allDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// checkPath checks what follows the host: nothing, or a kind and at least one
// segment.
func checkPath(path string) (int, string) {
	if path == "" {
		return 0, ""
	}
	kind, rest, ok := strings.Cut(path[1:], "/")
	if len(kind) != 1 || !strings.Contains("updrgt", kind) {
		return 1, "first path segment is not one of u, p, d, r, g, t"
	}
	if !ok {
		return len(path), "no segment after the kind"
	}
	at := 3
	for segment := range strings.SplitSeq(rest, "/") {
		if i, reason := checkSegment(segment); reason != "" {
			return at + i, reason
		}
		at += len(segment) + 1
	}
	return 0, ""
}

func checkSegment(s string) (int, string) {
	if s == "" {
		return 0, "empty path segment"
	}
	if s == "." || s == ".." {
		return 0, "dot segment"
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if reason := checkEscape(s[i+1:]); reason != "" {
				return i, reason
			}
			i += 2
		case c == '?' || c == '#':
			return i, "a query or fragment is not allowed"
		case !segmentChar(c):
			return i, "character must be percent-encoded"
		}
	}
	return 0, ""
}

// checkEscape checks the two digits after a percent sign.
func checkEscape(s string) string {
	if len(s) < 2 {
		return "percent sign without two hexadecimal digits"
	}
	hi, lo := hexValue(s[0]), hexValue(s[1])
	if hi < 0 || lo < 0 {
		return "percent sign without two hexadecimal digits in upper case"
	}
	if unreserved(byte(hi<<4 | lo)) {
		return "an unreserved character is percent-encoded"
	}
	return ""
}

// hexValue returns the value of an upper-case hexadecimal digit, or -1.
func hexValue(c byte) int {
	return strings.IndexByte(upperHex, c)
}

const upperHex = "0123456789ABCDEF"

// unreserved is RFC 3986 section 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// segmentChar is pchar of RFC 3986 section 3.3 without pct-encoded.
func segmentChar(c byte) bool {
	return unreserved(c) || strings.IndexByte("!$&'()*+,;=:@", c) >= 0
}

func escape(b *strings.Builder, s string, plain func(byte) bool) {
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
}

// unescape decodes percent-encoding in upper case; anything else stands as it
// is, so that the caller's re-encoding shows the difference.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && hexValue(s[i+1]) >= 0 && hexValue(s[i+2]) >= 0 {
			b.WriteByte(byte(hexValue(s[i+1])<<4 | hexValue(s[i+2])))
			i += 2
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
