package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mls"
)

// maxFrankLine is the longest line that is read, in octets.
const maxFrankLine = 8 << 20

// A frankCase is the values of one frank. Members that are not named here are
// ignored.
type frankCase struct {
	ID looseText `json:"id"` // the number of the line if there is none

	SenderURI         string     `json:"sender_uri"` // as the message says
	RoomURI           string     `json:"room_uri"`   // as the message says
	AcceptedTimestamp looseUint  `json:"accepted_timestamp"`
	Salt              string     `json:"salt"`             // 16 octets
	ApplicationData   string     `json:"application_data"` // what MLS encrypts, with its framing
	FrankingTag       string     `json:"franking_tag"`     // of the authenticated data
	ServerFrank       string     `json:"server_frank"`
	CipherSuite       looseSuite `json:"ciphersuite"` // of the frank
	Signature         string     `json:"signature"`
	AgentKey          string     `json:"franking_public_key"`

	// The names that the draft has for the same.
	DraftSuite     looseSuite `json:"franking_signature_ciphersuite"`
	DraftSignature string     `json:"franking_integrity_signature"`
	DraftKey       string     `json:"franking_signature_key"`
	Frank          string     `json:"frank"` // the struct: server_frank, cipher suite and signature

	// What the receiver knows; the default is what fits the values above.
	GroupSuite  looseSuite `json:"group_ciphersuite"`
	LeafUserURI string     `json:"leaf_user_uri"`
	GroupRoom   string     `json:"group_room_uri"`
	AgentDomain string     `json:"agent_domain"`

	// With the hub's key the frank is also judged as in a report of abuse.
	HubKey        string    `json:"hub_key"`
	HubKeyFrom    looseUint `json:"hub_key_from"` // in force from this time
	HubKeyTo      looseUint `json:"hub_key_to"`   // until before this time, if not 0
	AllegedAbuser string    `json:"alleged_abuser_uri"`

	Expect  looseVerdict `json:"expect"`  // or nothing
	Verdict looseVerdict `json:"verdict"` // the same
	Reason  string       `json:"reason"`  // of a refusal, or nothing
}

// errFrankCase reports values that are no frank at all.
var errFrankCase = errors.New("malformed")

// runFrank judges franks, one JSON object a line, in files or on standard
// input, as help/frank.txt says.
func runFrank(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		args = []string{standardInput}
	}
	files, ok := corpusFiles("frank", args, stderr)
	if !ok {
		return exitUsage
	}
	j := &frankJudge{stdout: stdout}
	for _, name := range files {
		if err := j.file(name, stdin); err != nil {
			fmt.Fprintf(stderr, "conformance frank: %s: %v\n", name, err)
			j.failed++
		}
	}
	if j.expected {
		fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", j.passed, j.failed, j.skipped)
	}
	if j.failed > 0 || j.refused {
		return exitFailed
	}
	return exitOK
}

type frankJudge struct {
	stdout                  io.Writer
	passed, failed, skipped int
	expected                bool // some line expects something
	refused                 bool // a line that expects nothing was refused
}

// file judges the lines of a file, of which there must be one.
func (j *frankJudge) file(name string, stdin io.Reader) error {
	f, err := openInput(name, stdin)
	if err != nil {
		return err
	}
	defer f.Close()
	lines, judged := bufio.NewReaderSize(f, 64<<10), 0
	for n := 1; ; n++ {
		line, err := readLine(lines, maxFrankLine)
		if err != nil && err != io.EOF && !errors.Is(err, errLongLine) {
			return err
		}
		if len(bytes.TrimSpace(line)) > 0 || errors.Is(err, errLongLine) {
			judged++
			j.line(n, line, err)
		}
		if err == io.EOF {
			break
		}
	}
	if judged == 0 {
		return errors.New("no line with a frank")
	}
	return nil
}

// line judges one line. One that cannot be read fails, whatever it expects.
func (j *frankJudge) line(n int, line []byte, err error) {
	var c frankCase
	if !errors.Is(err, errLongLine) {
		if err = json.Unmarshal(line, &c); err != nil {
			var named struct {
				ID looseText `json:"id"`
			}
			json.Unmarshal(line, &named) // it may be good so far
			c.ID = named.ID
		}
	}
	if c.ID == "" {
		c.ID = looseText(fmt.Sprint(n))
	}
	if err == nil {
		err = c.settle()
	}
	if err != nil {
		j.failed++
		fmt.Fprintf(j.stdout, "FAIL %s want=readable got=unread (%v)\n", c.ID, err)
		return
	}
	j.one(&c)
}

// settle brings what has several names under one, and takes from the message what
// it says of itself.
func (c *frankCase) settle() error {
	if c.Expect == "" {
		c.Expect = c.Verdict
	}
	if c.Reason != "" && c.Reason != "malformed" && !strings.HasPrefix(c.Reason, "frank-") {
		c.Reason = "frank-" + c.Reason
	}
	if c.CipherSuite == 0 {
		c.CipherSuite = c.DraftSuite
	}
	for _, v := range []struct{ to, from *string }{{&c.Signature, &c.DraftSignature}, {&c.AgentKey, &c.DraftKey}} {
		if *v.to == "" {
			*v.to = *v.from
		}
	}
	if err := c.openFrank(); err != nil {
		return err
	}
	if c.Salt == "" && c.SenderURI == "" && c.RoomURI == "" {
		return c.openContent()
	}
	return nil
}

// openFrank takes the values of the struct Frank apart.
func (c *frankCase) openFrank() error {
	if c.Frank == "" {
		return nil
	}
	b, err := looseOctets(c.Frank, -1)
	if err != nil {
		return fmt.Errorf("frank: %w", err)
	}
	f, err := mimi.ParseFrank(b)
	if err != nil {
		return fmt.Errorf("frank: %w", err)
	}
	c.ServerFrank, c.CipherSuite, c.Signature = hex.EncodeToString(f.ServerFrank[:]), looseSuite(f.CipherSuite), hex.EncodeToString(f.IntegritySignature)
	return nil
}

// openContent reads salt, sender and room out of the message, framed or not.
func (c *frankCase) openContent() error {
	data, err := looseOctets(c.ApplicationData, -1)
	if err != nil {
		return nil // which is a verdict
	}
	encoded := data
	m, err := content.Parse(encoded)
	if f, framing := mls.ParseApplicationFraming(data); err != nil && framing == nil {
		m, err = content.Parse(f.Content)
	}
	if err != nil {
		return nil
	}
	c.Salt = hex.EncodeToString(m.Salt[:])
	c.SenderURI, _ = m.Extensions.SenderURI()
	c.RoomURI, _ = m.Extensions.RoomURI()
	return nil
}

func (j *frankJudge) one(c *frankCase) {
	j.expected = j.expected || c.Expect != ""
	if c.CipherSuite != 0 && !mls.CipherSuite(c.CipherSuite).Supported() {
		fmt.Fprintf(j.stdout, "%s skip\n", c.ID)
		j.skipped++
		return
	}
	got, why := frankVerdict(c.verify())
	fmt.Fprintf(j.stdout, "%s %s\n", c.ID, withReason(got, why))
	switch {
	case c.Expect == "":
		j.refused = j.refused || got == "refuse"
	case string(c.Expect) != got || c.Reason != "" && c.Reason != why:
		j.failed++
		fmt.Fprintf(j.stdout, "FAIL %s want=%s got=%s\n", c.ID, withReason(string(c.Expect), c.Reason), withReason(got, why))
	default:
		j.passed++
	}
}

func withReason(verdict, why string) string {
	if why == "" {
		return verdict
	}
	return verdict + " (" + why + ")"
}

func frankVerdict(err error) (got, why string) {
	var e *mimi.FrankError
	switch {
	case err == nil:
		return "accept", ""
	case errors.As(err, &e):
		return "refuse", string(e.Reason)
	case errors.Is(err, errFrankCase):
		return "refuse", "malformed"
	}
	return "refuse", "error"
}

// verify judges the frank as a receiver and, with the hub's key, as the hub.
func (c *frankCase) verify() error {
	m, err := c.message()
	if err != nil {
		return err
	}
	if err := m.Verify(); err != nil || c.HubKey == "" {
		return err
	}
	return c.report(m)
}

func (c *frankCase) report(m *mimi.FrankedMessage) error {
	r := frankReader{}
	key := r.octets("hub_key", c.HubKey, 32)
	abuser := r.uri("alleged_abuser_uri", c.AllegedAbuser, c.SenderURI)
	if r.err != nil {
		return r.err
	}
	to := uint64(c.HubKeyTo)
	if to == 0 {
		to = mimi.MaxTimestamp
	}
	var keys mimi.FrankingKeys
	keys.AddMAC(uint64(c.HubKeyFrom), to, mimi.SoftwareMAC(key))
	keys.AddSignatureKey(0, mimi.MaxTimestamp, mls.CipherSuite(c.CipherSuite), m.AgentKey)
	return keys.VerifyReport(context.Background(), &mimi.FrankReport{
		Content: m.Content, Frank: m.Frank, AcceptedTimestamp: m.AcceptedTimestamp, RoomURI: m.RoomURI, AllegedAbuser: abuser,
	})
}

func (c *frankCase) message() (*mimi.FrankedMessage, error) {
	r := frankReader{}
	if c.CipherSuite == 0 {
		r.fail("ciphersuite", errors.New("there is none"))
	}
	m := &mimi.FrankedMessage{
		Content: mimi.FrankedContent{
			ApplicationData: r.octets("application_data", c.ApplicationData, -1),
			SenderURI:       r.uri("sender_uri", c.SenderURI, ""),
			RoomURI:         r.uri("room_uri", c.RoomURI, ""),
		},
		Frank:             &mimi.Frank{CipherSuite: mls.CipherSuite(c.CipherSuite), IntegritySignature: r.octets("signature", c.Signature, -1)},
		AcceptedTimestamp: uint64(c.AcceptedTimestamp),
		GroupSuite:        mls.CipherSuite(c.GroupSuite),
		AgentKey:          r.octets("franking_public_key", c.AgentKey, -1),
		AgentDomain:       c.AgentDomain,
		LeafUserURI:       r.uri("leaf_user_uri", c.LeafUserURI, c.SenderURI),
		RoomURI:           r.uri("group_room_uri", c.GroupRoom, c.RoomURI),
	}
	copy(m.Content.Salt[:], r.octets("salt", c.Salt, mimi.SaltSize))
	copy(m.Tag[:], r.octets("franking_tag", c.FrankingTag, mimi.FrankingTagSize))
	copy(m.Frank.ServerFrank[:], r.octets("server_frank", c.ServerFrank, mimi.ServerFrankSize))
	if m.GroupSuite == 0 {
		m.GroupSuite = mls.CipherSuite(c.CipherSuite)
	}
	if m.AgentDomain == "" {
		m.AgentDomain = m.RoomURI.Host()
	}
	return m, r.err
}

// A frankReader reads the members of a case and keeps the first error.
type frankReader struct{ err error }

func (r *frankReader) octets(name, s string, want int) []byte {
	b, err := looseOctets(s, want)
	r.fail(name, err)
	return b
}

func (r *frankReader) uri(name, s, otherwise string) mimi.URI {
	if s == "" {
		s = otherwise
	}
	u, err := mimi.ParseURI(s)
	r.fail(name, err)
	return u
}

func (r *frankReader) fail(name string, err error) {
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%w: %s: %w", errFrankCase, name, err)
	}
}
