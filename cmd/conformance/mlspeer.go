package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/privyseal/privyseal/mls"
)

// Limits on what a driver of the peer can ask for.
const (
	maxRequest = 64 << 20 // octets of a line
	maxHandles = 1 << 20  // clients and states made in one run
)

// The codes of error responses.
const (
	codeUnsupported = "unsupported" // we do not have that
	codeFailed      = "failed"      // refused, or it did not work
	codeParse       = "parse"       // a request or MLS structure cannot be read
)

// runMLSPeer is an MLS client under remote control: one JSON request a line in,
// one JSON response a line out, in order.
func runMLSPeer(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("mls-peer", flag.ContinueOnError)
	flags.SetOutput(stderr)
	key := flags.String("key", "software", "where keys are made: software, pkcs11:URI or tpm:ADDRESS")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if flags.NArg() != 0 {
		fmt.Fprintln(stderr, "usage: conformance mls-peer [--key software|pkcs11:URI|tpm:ADDRESS]")
		return exitUsage
	}
	ctx := context.Background()
	keys, err := openKeys(ctx, *key)
	if err != nil {
		fmt.Fprintf(stderr, "conformance mls-peer: %v\n", err)
		if errors.Is(err, errKeyUsage) {
			return exitUsage
		}
		return exitFailed
	}
	p := newPeer(keys)
	err = p.serve(ctx, stdin, stdout)
	if err := errors.Join(err, keys.close(ctx)); err != nil {
		fmt.Fprintf(stderr, "conformance mls-peer: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// A peer holds everything that the driver has made, by handle.
type peer struct {
	keys    keySource
	clients map[string]*peerClient
	states  map[string]*peerState
	handles struct{ clients, states int }
	done    bool // shutdown was asked for
}

func newPeer(keys keySource) *peer {
	return &peer{keys: keys, clients: map[string]*peerClient{}, states: map[string]*peerState{}}
}

type peerRequest struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

type peerResponse struct {
	ID     json.RawMessage `json:"id"`
	Result any             `json:"result,omitempty"`
	Error  *peerError      `json:"error,omitempty"`
}

// A peerError is an error response.
type peerError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *peerError) Error() string { return e.Message }

func unsupported(format string, args ...any) error {
	return &peerError{codeUnsupported, fmt.Sprintf(format, args...)}
}

func failed(format string, args ...any) error {
	return &peerError{codeFailed, fmt.Sprintf(format, args...)}
}

func malformed(format string, args ...any) error {
	return &peerError{codeParse, fmt.Sprintf(format, args...)}
}

// asPeerError gives every error its code.
func asPeerError(err error) *peerError {
	if e, ok := errors.AsType[*peerError](err); ok {
		return e
	}
	code := codeFailed
	if _, ok := errors.AsType[*mls.ParseError](err); ok {
		code = codeParse
	} else if errors.Is(err, mls.ErrUnsupported) || errors.Is(err, errNoSuchKey) {
		code = codeUnsupported
	}
	return &peerError{code, err.Error()}
}

// serve answers requests until the input ends or shutdown is asked for.
func (p *peer) serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReaderSize(in, 64<<10)
	w := bufio.NewWriter(out)
	for !p.done {
		line, err := readLine(lines, maxRequest)
		if len(bytes.TrimSpace(line)) > 0 || errors.Is(err, errLongLine) {
			if werr := writeResponse(w, p.answer(ctx, line, err)); werr != nil {
				return werr
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil && !errors.Is(err, errLongLine):
			return err
		}
	}
	return nil
}

var errLongLine = errors.New("the line is too long")

// readLine reads a line of at most most octets. One that is longer is read to its
// end and dropped.
func readLine(r *bufio.Reader, most int) ([]byte, error) {
	var line []byte
	var long error
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > most {
			line, long = nil, fmt.Errorf("%w: more than %d octets", errLongLine, most)
		}
		if long == nil {
			line = append(line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if long != nil && (err == nil || err == io.EOF) {
			err = long // the end of the input is found again
		}
		return line, err
	}
}

func writeResponse(w *bufio.Writer, r *peerResponse) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	w.Write(b)
	w.WriteByte('\n')
	return w.Flush()
}

func (p *peer) answer(ctx context.Context, line []byte, long error) *peerResponse {
	var q peerRequest
	r := &peerResponse{ID: json.RawMessage("null")}
	if errors.Is(long, errLongLine) {
		r.Error = &peerError{codeParse, long.Error()}
		return r
	}
	err := json.Unmarshal(line, &q)
	if q.ID != nil {
		r.ID = q.ID // read even where another member has the wrong type
	}
	if err != nil {
		r.Error = &peerError{codeParse, "request: " + err.Error()}
		return r
	}
	result, err := p.call(ctx, &q)
	if err != nil {
		r.Error = asPeerError(err)
		return r
	}
	if r.Result = result; result == nil {
		r.Result = struct{}{}
	}
	return r
}

// call turns a panic, which is our fault, into an error response.
func (p *peer) call(ctx context.Context, q *peerRequest) (result any, err error) {
	defer func() {
		if x := recover(); x != nil {
			result, err = nil, failed("internal error: %v", x)
		}
	}()
	if q.Method == "" {
		return nil, malformed("request: method is needed")
	}
	m := peerMethods[q.Method]
	if m == nil {
		return nil, unsupported("no method %q", q.Method)
	}
	return m(p, ctx, q.Params)
}

// A peerMethod answers one request.
type peerMethod func(*peer, context.Context, json.RawMessage) (any, error)

// peerMethods is the whole surface.
var peerMethods = map[string]peerMethod{
	"info":                 method((*peer).info),
	"create_client":        method((*peer).createClient),
	"create_key_package":   method((*peer).createKeyPackage),
	"import_key_package":   method((*peer).importKeyPackage),
	"store_psk":            method((*peer).storePSK),
	"create_group":         method((*peer).createGroup),
	"create_successor":     method((*peer).createSuccessor),
	"commit":               method((*peer).commit),
	"merge_pending":        method((*peer).mergePending),
	"discard_pending":      method((*peer).discardPending),
	"clear_proposals":      method((*peer).clearProposals),
	"propose":              method((*peer).propose),
	"propose_external_add": method((*peer).proposeExternalAdd),
	"propose_external":     method((*peer).proposeExternal),
	"join":                 method((*peer).join),
	"external_join":        method((*peer).externalJoin),
	"process":              method((*peer).process),
	"send":                 method((*peer).send),
	"group_info":           method((*peer).groupInfo),
	"export":               method((*peer).export),
	"state":                method((*peer).state),
	"clone":                method((*peer).clone),
	"free":                 method((*peer).free),
	"shutdown":             method((*peer).shutdown),
	"decode":               method((*peer).decode),
}

// method decodes the parameters of a method.
func method[T any](f func(*peer, context.Context, *T) (any, error)) peerMethod {
	return func(p *peer, ctx context.Context, params json.RawMessage) (any, error) {
		q := new(T)
		if len(params) > 0 {
			if err := json.Unmarshal(params, q); err != nil {
				return nil, malformed("params: %v", err)
			}
		}
		return f(p, ctx, q)
	}
}

// octets are binary data, in hexadecimal on the line.
type octets []byte

// MarshalJSON writes lower-case hexadecimal.
func (o octets) MarshalJSON() ([]byte, error) {
	return json.Marshal(hex.EncodeToString(o))
}

// UnmarshalJSON reads hexadecimal; null is absent.
func (o *octets) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	if err != nil {
		return fmt.Errorf("hexadecimal: %w", err)
	}
	*o = v
	return nil
}

type noParams struct{}

type infoResult struct {
	Name     string   `json:"name"`
	Library  string   `json:"library"`
	Version  string   `json:"version"`
	Suites   []int    `json:"suites"`
	Features []string `json:"features"`
}

func (p *peer) info(context.Context, *noParams) (any, error) {
	r := &infoResult{Name: "privyseal", Library: "github.com/privyseal/privyseal/mls", Version: "devel", Features: peerFeatures}
	for _, s := range p.keys.suites() {
		r.Suites = append(r.Suites, int(s))
	}
	return r, nil
}

// peerFeatures names what a driver may use.
var peerFeatures = []string{
	"add", "remove", "update", "psk", "resumption_psk", "gce", "reinit", "branch", "external_join", "resync",
	"external_senders", "external_add", "private_handshake", "tree_out_of_band", "x509",
	"custom_credentials", "custom_proposals", "required_capabilities", "authenticated_data",
	"self_remove", "app_data_update", "clone",
}

func (p *peer) shutdown(context.Context, *noParams) (any, error) {
	p.done = true
	return nil, nil
}

type freeParams struct {
	Client string `json:"client"`
	State  string `json:"state"`
}

func (p *peer) free(_ context.Context, q *freeParams) (any, error) {
	if q.Client == "" && q.State == "" {
		return nil, malformed("params: client or state is needed")
	}
	if q.Client != "" {
		if _, err := p.client(q.Client); err != nil {
			return nil, err
		}
	}
	if q.State != "" {
		if _, err := p.group(q.State); err != nil {
			return nil, err
		}
	}
	delete(p.clients, q.Client)
	delete(p.states, q.State)
	return nil, nil
}

func (p *peer) client(handle string) (*peerClient, error) {
	if handle == "" {
		return nil, malformed("params: client is needed")
	}
	if c := p.clients[handle]; c != nil {
		return c, nil
	}
	return nil, failed("no client %q", handle)
}

// group returns a state as it is.
func (p *peer) group(handle string) (*peerState, error) {
	if handle == "" {
		return nil, malformed("params: state is needed")
	}
	if s := p.states[handle]; s != nil {
		return s, nil
	}
	return nil, failed("no state %q", handle)
}

func (p *peer) addClient(c *peerClient) (string, error) {
	if p.handles.clients >= maxHandles {
		return "", failed("%d clients were made", maxHandles)
	}
	p.handles.clients++
	h := fmt.Sprintf("c%d", p.handles.clients)
	p.clients[h] = c
	return h, nil
}

func (p *peer) addState(s *peerState) (string, error) {
	if p.handles.states >= maxHandles {
		return "", failed("%d states were made", maxHandles)
	}
	p.handles.states++
	h := fmt.Sprintf("s%d", p.handles.states)
	s.order = p.handles.states
	p.states[h] = s
	return h, nil
}
