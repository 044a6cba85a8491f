package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
)

// Limits on a corpus file, which comes from outside like everything else.
const (
	maxCorpusOctets = 256 << 20 // inflated
	maxCorpusCases  = 1 << 20
)

// A corpusCase is one case of a token corpus: its own members, then those of
// the file's defaults. Members that nobody asks for are ignored.
type corpusCase struct {
	ID      string
	members map[string]json.RawMessage
	keys    map[string]json.RawMessage
}

// A judge decides one case. It returns nil when the token is accepted, and
// otherwise why it is not.
type judge func(c *corpusCase) error

// errClaims reports an accepted token out of which other values came than the
// case says.
type errClaims struct{ detail string }

func (e *errClaims) Error() string { return "accepted with other values: " + e.detail }

// errCase reports a case that cannot be read: it fails, whatever it expects.
type errCase struct{ err error }

func (e *errCase) Error() string { return e.err.Error() }

// loadCorpus reads the cases of a .json or .json.gz file.
func loadCorpus(name string, stdin io.Reader) ([]*corpusCase, error) {
	raw, err := readCorpusFile(name, stdin)
	if err != nil {
		return nil, err
	}
	return parseCorpus(raw)
}

func readCorpusFile(name string, stdin io.Reader) ([]byte, error) {
	f, err := openInput(name, stdin)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCorpusOctets+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxCorpusOctets {
		return nil, fmt.Errorf("more than %d octets", maxCorpusOctets)
	}
	return raw, nil
}

// standardInput is the name of a file that stands for standard input.
const standardInput = "-"

// An input is a file that is read, inflated if its name ends in .gz.
type input struct {
	io.Reader
	io.Closer
}

func openInput(name string, stdin io.Reader) (*input, error) {
	if name == standardInput {
		return &input{stdin, io.NopCloser(stdin)}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if !strings.HasSuffix(name, ".gz") {
		return &input{f, f}, nil
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &input{z, f}, nil
}

// A corpusDocument is what stands around cases.
type corpusDocument struct {
	Format   json.RawMessage              `json:"format"`
	Defaults map[string]json.RawMessage   `json:"defaults"`
	Keys     map[string]json.RawMessage   `json:"keys"`
	Cases    []map[string]json.RawMessage `json:"cases"`
}

// parseCorpus reads a file of cases: an object that has them, a list of them, one
// alone, or several of these one after the other.
func parseCorpus(raw []byte) ([]*corpusCase, error) {
	var cases []*corpusCase
	values := json.NewDecoder(bytes.NewReader(raw))
	for {
		var value json.RawMessage
		if err := values.Decode(&value); err == io.EOF && cases != nil {
			return cases, nil
		} else if err != nil {
			return nil, err
		}
		file, err := readCorpus(value)
		if err != nil {
			return nil, err
		}
		if n := len(cases) + len(file.Cases); len(file.Cases) == 0 || n > maxCorpusCases {
			return nil, fmt.Errorf("%d cases, want 1 to %d", n, maxCorpusCases)
		}
		cases = file.appendTo(cases)
	}
}

func readCorpus(value json.RawMessage) (*corpusDocument, error) {
	file := new(corpusDocument)
	if value[0] == '[' {
		return file, json.Unmarshal(value, &file.Cases)
	}
	if err := json.Unmarshal(value, file); err != nil {
		return nil, err
	}
	if file.Cases != nil {
		return file, nil
	}
	var alone map[string]json.RawMessage
	if err := json.Unmarshal(value, &alone); err != nil {
		return nil, err
	}
	if alone["actions"] != nil || alone["token"] != nil {
		file.Cases = append(file.Cases, alone)
	}
	return file, nil
}

func (file *corpusDocument) appendTo(cases []*corpusCase) []*corpusCase {
	for _, own := range file.Cases {
		members := make(map[string]json.RawMessage, len(own)+len(file.Defaults)+1)
		if file.Format != nil {
			members["format"] = file.Format
		}
		maps.Copy(members, file.Defaults)
		maps.Copy(members, own)
		c := &corpusCase{members: members, keys: file.Keys}
		var id looseText
		if c.decode("id", &id); id == "" {
			id = looseText(fmt.Sprintf("#%d", len(cases)))
		}
		c.ID = string(id)
		cases = append(cases, c)
	}
	return cases
}

// raw returns the member's JSON. A member that is null is absent, so that a
// case can take away a default.
func (c *corpusCase) raw(name string) (json.RawMessage, bool) {
	v, ok := c.members[name]
	return v, ok && !bytes.Equal(v, []byte("null"))
}

func (c *corpusCase) decode(name string, to any) (bool, error) {
	v, ok := c.raw(name)
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(v, to); err != nil {
		return false, &errCase{fmt.Errorf("member %q: %w", name, err)}
	}
	return true, nil
}

// text returns a string member, or "" when it is absent.
func (c *corpusCase) text(name string) (string, error) {
	var s string
	_, err := c.decode(name, &s)
	return s, err
}

// boolean returns a true or false member, or false when it is absent.
func (c *corpusCase) boolean(name string) (bool, error) {
	var b bool
	_, err := c.decode(name, &b)
	return b, err
}

// number returns a number member and whether it is there.
func (c *corpusCase) number(name string) (float64, bool, error) {
	var f float64
	ok, err := c.decode(name, &f)
	return f, ok, err
}

// clock returns the instant of the Unix seconds in the named member, and
// whether it is there.
func (c *corpusCase) clock(name string) (time.Time, bool, error) {
	f, ok, err := c.number(name)
	if err != nil || !ok {
		return time.Time{}, false, err
	}
	if math.Abs(f) > 1<<53 {
		return time.Time{}, false, &errCase{fmt.Errorf("member %q: %v is no time", name, f)}
	}
	whole, part := math.Modf(f)
	return time.Unix(int64(whole), int64(part*1e9)), true, nil
}

// now returns the instant that the case is judged at: that of its member, or the
// present.
func (c *corpusCase) now() (time.Time, error) {
	t, there, err := c.clock("now")
	if err == nil && !there {
		t = time.Now()
	}
	return t, err
}

// key returns the JSON of the key in the named member, which is written there
// or names an entry of the file's keys. An entry may be the key itself, or an
// object that has it under "jwk" or "public_jwk". A verifier that is given no key
// believes nobody.
func (c *corpusCase) key(name string) (json.RawMessage, error) {
	v, ok := c.raw(name)
	if !ok {
		return nil, credentials.Errorf(credentials.CodeIssuerKey, name, "the case names no key")
	}
	if v[0] == '"' {
		entry, err := c.text(name)
		if err != nil {
			return nil, err
		}
		if v, ok = c.keys[entry]; !ok {
			return nil, &errCase{fmt.Errorf("member %q: no key %q in the file", name, entry)}
		}
	}
	return innerKey(v), nil
}

func innerKey(v json.RawMessage) json.RawMessage {
	var entry map[string]json.RawMessage
	if json.Unmarshal(v, &entry) != nil || entry["kty"] != nil {
		return v
	}
	for _, name := range []string{"public_jwk", "jwk", "public"} {
		if entry[name] != nil {
			return entry[name]
		}
	}
	return v
}

// corpusFiles returns the files of a command that has no flags. Without a file,
// or with a flag, it is bad usage.
func corpusFiles(name string, args []string, stderr io.Writer) (files []string, ok bool) {
	for i, arg := range args {
		if arg == "--" {
			args = append(slices.Clone(args[:i]), args[i+1:]...)
			break
		}
		if strings.HasPrefix(arg, "-") && arg != standardInput {
			fmt.Fprintf(stderr, "conformance %s: no flag %q\n", name, arg)
			return nil, false
		}
	}
	if len(args) == 0 {
		fmt.Fprintf(stderr, "usage: conformance %s [-v] FILE...\n", name)
		return nil, false
	}
	return args, true
}

// runCorpus judges every case of every file and writes the result lines. After
// -v the verdict on each case is told, and not on those alone that differ.
func runCorpus(name string, args []string, judge judge, stdin io.Reader, stdout, stderr io.Writer) int {
	told := io.Discard
	if len(args) > 0 && args[0] == "-v" {
		told, args = stdout, args[1:]
	}
	files, ok := corpusFiles(name, args, stderr)
	if !ok {
		return exitUsage
	}
	var t tally
	for _, file := range files {
		cases, err := loadCorpus(file, stdin)
		if err != nil {
			fmt.Fprintf(stderr, "conformance %s: %s: %v\n", name, file, err)
			t.failed++
			continue
		}
		for _, c := range cases {
			t.judge(c, judge, told, stdout)
		}
	}
	fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
	if t.failed > 0 {
		return exitFailed
	}
	return exitOK
}

type tally struct{ passed, failed, skipped int }

// judge counts one case, and writes a line if its verdict differs.
func (t *tally) judge(c *corpusCase, judge judge, told, stdout io.Writer) {
	want, err := c.text("expect")
	if err == nil && want != "accept" && want != "refuse" {
		err = &errCase{fmt.Errorf("expect is %q, want accept or refuse", want)}
	}
	if err == nil {
		err = judge(c)
	}
	got, why := verdict(err)
	fmt.Fprintf(told, "%s %s (%s)\n", c.ID, got, why)
	switch optional, _ := c.boolean("optional"); {
	case got == want:
		t.passed++
	case got == "refuse" && optional && lacksAlgorithm(err):
		t.skipped++
	default:
		t.failed++
		fmt.Fprintf(stdout, "FAIL %s want=%s got=%s (%s)\n", c.ID, want, got, why)
	}
}

// lacksAlgorithm reports whether err is for an algorithm that we do not have: a
// signature's, a hash, or the kind of a holder's key.
func lacksAlgorithm(err error) bool {
	switch credentials.CodeOf(err) {
	case credentials.CodeAlg, credentials.CodeSDAlg, credentials.CodeCnfCurve:
		return true
	}
	return false
}

// verdict returns accept, refuse, or what else became of the case, and the
// error's name.
func verdict(err error) (got, why string) {
	var claims *errClaims
	var unread *errCase
	switch {
	case err == nil:
		return "accept", "no error"
	case errors.As(err, &claims):
		return "accept-other", "claims: " + claims.detail
	case errors.As(err, &unread):
		return "unread", unread.Error()
	}
	if code := credentials.CodeOf(err); code != "" {
		return "refuse", string(code)
	}
	return "refuse", err.Error()
}
