package hsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is what passes between the program and a worker:
//
//	uint32 length;            of what follows
//	uint32 call;              number of the call, the same in question and answer
//	uint8  kind;
//	opaque payload[length-5];
//
// Integers are big-endian.
type frame struct {
	call    uint32
	kind    frameKind
	payload []byte
}

type frameKind uint8

// Frames to a worker.
const (
	askHello    frameKind = 1  // JSON helloConfig
	askTokens   frameKind = 2  // empty
	askOpen     frameKind = 3  // tokenNumber, lazy, URI
	askHealth   frameKind = 4  // tokenNumber
	askKeys     frameKind = 5  // tokenNumber
	askFind     frameKind = 6  // tokenNumber, URI
	askGenerate frameKind = 7  // tokenNumber, JSON KeySpec
	askDestroy  frameKind = 8  // tokenNumber, JSON KeyInfo
	askOperate  frameKind = 9  // tokenNumber, operation, Fingerprint, input
	askKnow     frameKind = 10 // tokenNumber, JSON KeyInfo: the key of a later askOperate
	askClose    frameKind = 11 // tokenNumber
	askQuit     frameKind = 12 // empty
	tellPIN     frameKind = 13 // pinAnswer; answers wantPIN
	askLook     frameKind = 14 // tokenNumber: find the keys that other processes made
)

// Frames from a worker.
const (
	answerOK      frameKind = 64 // what was asked for
	answerError   frameKind = 65 // JSON wireError
	answerUnknown frameKind = 66 // empty: the key of askOperate is not known here
	wantPIN       frameKind = 67 // tokenNumber, name of the token in the memory of refused PINs
	tellVerdict   frameKind = 68 // tokenNumber, 1 when the PIN was refused, else 0
	tellEvent     frameKind = 69 // JSON wireEvent
	tellProgress  frameKind = 70 // empty: the call of this number goes on
)

// slow reports questions that take as long as the token has keys. They have
// Config.StartTimeout, the others Config.CallTimeout.
func (k frameKind) slow() bool { return k == askHello || k == askOpen || k == askLook }

func (k frameKind) valid() bool {
	return k >= askHello && k <= askLook || k >= answerOK && k <= tellProgress
}

const (
	frameHeader = 9        // length, call and kind
	maxFrame    = 64 << 20 // 10,000 keys in JSON are 6 MiB
)

// errFrame is found in every error about a frame.
var errFrame = errors.New("hsm: bad frame")

// appendFrame encodes a frame whose payload is given in parts.
func appendFrame(out []byte, call uint32, kind frameKind, parts ...[]byte) []byte {
	n := frameHeader - 4
	for _, p := range parts {
		n += len(p)
	}
	out = binary.BigEndian.AppendUint32(out, uint32(n))
	out = binary.BigEndian.AppendUint32(out, call)
	out = append(out, byte(kind))
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// readFrame reads one frame. The payload is the caller's. An end of the stream
// between two frames is io.EOF.
func readFrame(r io.Reader, header *[frameHeader]byte) (frame, error) {
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if err == io.ErrUnexpectedEOF {
			err = fmt.Errorf("%w: %w", errFrame, err)
		}
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(header[:4])
	f := frame{call: binary.BigEndian.Uint32(header[4:8]), kind: frameKind(header[8])}
	switch {
	case n < frameHeader-4 || n > maxFrame:
		return frame{}, fmt.Errorf("%w: %d bytes long", errFrame, n)
	case !f.kind.valid():
		return frame{}, fmt.Errorf("%w: of kind %d", errFrame, f.kind)
	}
	payload, err := readPayload(r, int(n)-(frameHeader-4))
	if err != nil {
		return frame{}, fmt.Errorf("%w: cut short: %w", errFrame, err)
	}
	f.payload = payload
	return f, nil
}

// readPayload reads n bytes. A long payload is given memory as it arrives, so
// that a length alone costs nothing.
func readPayload(r io.Reader, n int) ([]byte, error) {
	const step = 1 << 20
	p := make([]byte, min(n, step))
	if _, err := io.ReadFull(r, p); err != nil {
		return nil, err
	}
	for len(p) < n {
		more := min(n-len(p), len(p))
		p = append(p, make([]byte, more)...)
		if _, err := io.ReadFull(r, p[len(p)-more:]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// A tokenNumber names a token between the program and its workers.
type tokenNumber uint32

const tokenNumberSize = 4

func (n tokenNumber) bytes() []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// cutTokenNumber takes the number off the front of a payload.
func cutTokenNumber(p []byte) (tokenNumber, []byte, error) {
	if len(p) < tokenNumberSize {
		return 0, nil, fmt.Errorf("%w: no token number", errFrame)
	}
	return tokenNumber(binary.BigEndian.Uint32(p)), p[tokenNumberSize:], nil
}

// An operateRequest is the payload of askOperate, the frame of every signature.
type operateRequest struct {
	token tokenNumber
	op    operation
	key   Fingerprint
	in    []byte
}

const operateHeader = tokenNumberSize + 1 + len(Fingerprint{})

func (r *operateRequest) appendHeader(out []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(r.token))
	out = append(out, byte(r.op))
	return append(out, r.key[:]...)
}

func parseOperate(p []byte) (operateRequest, error) {
	var r operateRequest
	if len(p) < operateHeader {
		return r, fmt.Errorf("%w: operate with %d bytes", errFrame, len(p))
	}
	r.token = tokenNumber(binary.BigEndian.Uint32(p))
	r.op = operation(p[tokenNumberSize])
	copy(r.key[:], p[tokenNumberSize+1:])
	r.in = p[operateHeader:]
	switch {
	case !r.op.valid():
		return r, fmt.Errorf("%w: operation %d", errFrame, r.op)
	case len(r.in) > maxMessage:
		return r, fmt.Errorf("%w: input of %d bytes", errFrame, len(r.in))
	}
	return r, nil
}

// An openRequest is the payload of askOpen. A lazy one succeeds while the token
// is away and is repaired by the calls that need it.
type openRequest struct {
	token tokenNumber
	lazy  bool
	uri   URI
}

func (r openRequest) bytes() []byte {
	p := append(r.token.bytes(), 0)
	if r.lazy {
		p[tokenNumberSize] = 1
	}
	return append(p, r.uri.String()...)
}

func parseOpen(p []byte) (openRequest, error) {
	n, rest, err := cutTokenNumber(p)
	if err != nil {
		return openRequest{}, err
	}
	if len(rest) < 1 || rest[0] > 1 {
		return openRequest{}, fmt.Errorf("%w: open without its flag", errFrame)
	}
	u, err := ParseURI(string(rest[1:]))
	if err != nil {
		return openRequest{}, fmt.Errorf("%w: %w", errFrame, err)
	}
	return openRequest{n, rest[0] == 1, u}, nil
}

// A pinAnswer is the payload of tellPIN: the PIN, or why there is none.
type pinAnswer struct {
	token tokenNumber
	pin   PIN
	why   pinRefusal
	text  string
}

type pinRefusal uint8

const (
	pinGiven   pinRefusal = 0
	pinRefused pinRefusal = 1 // this token has refused this PIN
	pinUnread  pinRefusal = 2 // the source cannot be read
)

func (a pinAnswer) bytes() []byte {
	p := append(a.token.bytes(), byte(a.why))
	if a.why == pinGiven {
		return append(p, a.pin.value()...)
	}
	return append(p, a.text...)
}

func parsePINAnswer(p []byte) (pinAnswer, error) {
	n, rest, err := cutTokenNumber(p)
	if err != nil {
		return pinAnswer{}, err
	}
	if len(rest) < 1 || rest[0] > byte(pinUnread) || len(rest) > 1+4*maxURI {
		return pinAnswer{}, fmt.Errorf("%w: PIN answer", errFrame)
	}
	a := pinAnswer{token: n, why: pinRefusal(rest[0])}
	if a.why != pinGiven {
		a.text = string(rest[1:])
		return a, nil
	}
	if len(rest)-1 > maxPIN {
		return pinAnswer{}, fmt.Errorf("%w: PIN answer", errFrame)
	}
	a.pin = NewPIN(rest[1:])
	return a, nil
}
