// Package vectors checks package mls against files of test vectors in the
// formats of the MLS working group (mlswg/mls-implementations), whoever made
// them.
//
// It needs no group of its own making: a file is read, every case of a cipher
// suite that package mls has is checked, and what differed is reported. Cases
// that the format lets an implementation reproduce are also run the other way
// round. Applications have no use for it.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/privyseal/privyseal/mls"
)

// A Report says what became of the cases of a file.
type Report struct {
	Passed, Failed, Skipped int
	Failures                []Failure
}

// A Failure is one check of one case that failed.
type Failure struct {
	Case  int
	Check string
}

// Options vary how a file is read.
type Options struct {
	// Strict refuses members that the format does not have.
	Strict bool
}

// ErrFormat is found in the error for a file of no known format.
var ErrFormat = errors.New("vectors: not a format of the MLS working group")

// formats lists what is checked, by the base name of the working group's file.
var formats = map[string]reader{
	"tree-math":          noSuite(treeMath),
	"deserialization":    noSuite(deserialization),
	"messages":           noSuite(messages),
	"crypto-basics":      withSuite(cryptoBasics),
	"secret-tree":        withSuite(secretTree),
	"message-protection": withSuite(messageProtection),
	"key-schedule":       withSuite(keySchedule),
	"psk_secret":         withSuite(pskSecret),
	"tree-validation":    withSuite(treeValidation),
	"transcript-hashes":  withSuite(transcriptHashes),
	"welcome":            withSuite(welcome),
	"tree-operations":    withSuite(treeOperations),
	"treekem":            withSuite(treeKEM),
	passiveClient:        withSuite(passive),
}

const passiveClient = "passive-client"

// Name is a file's base name without .json and .gz.
func Name(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".gz"), ".json")
}

// Format tells the format of a file from its name. Files in a folder named
// passive or interop-passive have the format of passive clients.
func Format(path string) (string, error) {
	name := Name(path)
	if formats[name] != nil {
		return name, nil
	}
	if strings.HasPrefix(name, passiveClient) {
		return passiveClient, nil
	}
	if abs, err := filepath.Abs(path); err == nil {
		for folder := range strings.SplitSeq(filepath.Dir(abs), string(filepath.Separator)) {
			if folder == "passive" || folder == "interop-passive" {
				return passiveClient, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %s", ErrFormat, name)
}

// Check checks every case of a file. A file that cannot be read as a list of
// at least one case is an error.
func Check(format string, file []byte, opts Options) (*Report, error) {
	read := formats[format]
	if read == nil {
		return nil, fmt.Errorf("%w: %s", ErrFormat, format)
	}
	var raw []json.RawMessage
	if err := decodeJSON(file, &raw, opts); err != nil {
		return nil, err
	}
	if len(raw) == 0 {
		return nil, errors.New("vectors: the file holds no case")
	}
	outcomes := make([]*check, len(raw))
	eachOnAllCores(len(raw), func(i int) { outcomes[i] = runCase(read, raw[i], opts) })
	return tally(outcomes), nil
}

func tally(outcomes []*check) *Report {
	r := new(Report)
	for i, c := range outcomes {
		switch {
		case c.skipped:
			r.Skipped++
		case len(c.failures) == 0:
			r.Passed++
		default:
			r.Failed++
			for _, f := range c.failures {
				r.Failures = append(r.Failures, Failure{i, f})
			}
		}
	}
	return r
}

func eachOnAllCores(n int, f func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}

// runCase turns a panic into a failure, so that the other cases are judged.
func runCase(read reader, raw json.RawMessage, opts Options) (c *check) {
	c = new(check)
	defer func() {
		if p := recover(); p != nil {
			c.fail("panic: %v", p)
		}
	}()
	read(c, raw, opts)
	return c
}

// A reader decodes one case and checks it.
type reader func(*check, json.RawMessage, Options)

// A check collects what is wrong with one case.
type check struct {
	failures []string
	skipped  bool
}

func (c *check) fail(format string, args ...any) {
	c.failures = append(c.failures, fmt.Sprintf(format, args...))
}

// ok reports whether err is nil, and else fails the check.
func (c *check) ok(what string, err error) bool {
	if err != nil {
		c.fail("%s: %v", what, err)
	}
	return err == nil
}

// decode reads a case, which must have every member of its format.
func (c *check) decode(raw json.RawMessage, to any, opts Options) bool {
	return c.ok("decoding", decodeJSON(raw, to, opts)) &&
		c.ok("decoding", requireMembers(raw, reflect.TypeOf(to).Elem()))
}

// length checks that a secret is as long as the suite's hash: HMAC does not
// tell one from the same with zeros behind.
func (c *check) length(what string, secret []byte, p mls.Primitives) {
	if len(secret) != p.HashLength() {
		c.fail("%s has %d octets, not %d", what, len(secret), p.HashLength())
	}
}

func (c *check) equal(what string, got, want []byte) {
	if !bytes.Equal(got, want) {
		c.fail("%s: got %s, want %s", what, short(got), short(want))
	}
}

// value is equal for a result that may be an error.
func (c *check) value(what string, want []byte) func(got []byte, err error) {
	return func(got []byte, err error) {
		if c.ok(what, err) {
			c.equal(what, got, want)
		}
	}
}

func short(b []byte) string {
	if len(b) > 40 {
		return fmt.Sprintf("%x... (%d octets)", b[:40], len(b))
	}
	return hex.EncodeToString(b)
}

// hexBytes are octets, in hexadecimal in the file.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

func decodeJSON(b []byte, to any, opts Options) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if opts.Strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(to); err != nil {
		return fmt.Errorf("vectors: %w", err)
	}
	if d.More() {
		return errors.New("vectors: more than one JSON value")
	}
	return nil
}

func noSuite[T any](run func(*check, *T)) reader {
	return func(c *check, raw json.RawMessage, opts Options) {
		if v := new(T); c.decode(raw, v, opts) {
			run(c, v)
		}
	}
}

// notOurs are the cipher suites of RFC 9420 whose curves nobody implements for
// us: X448 and Ed448.
var notOurs = []mls.CipherSuite{4, 6}

func withSuite[T any](run func(*check, mls.Primitives, *T)) reader {
	return func(c *check, raw json.RawMessage, opts Options) {
		var head struct {
			CipherSuite mls.CipherSuite `json:"cipher_suite"`
		}
		if !c.ok("decoding", decodeJSON(raw, &head, Options{})) {
			return
		}
		if slices.Contains(notOurs, head.CipherSuite) {
			c.skipped = true
			return
		}
		p, err := mls.NewPrimitives(head.CipherSuite)
		v := new(T)
		if c.ok("cipher suite", err) && c.decode(raw, v, opts) {
			run(c, p, v)
		}
	}
}
