package hsmtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// resources is the part of a TPM resource manager that the tests need: clients
// see handles of transient objects that never run out. When the TPM has no room
// for another, the one that was not named for the longest time is saved and
// leaves, and it comes back when it is named (TPM 2.0 part 1 section 30). One
// goroutine uses it.
type resources struct {
	tpm     io.ReadWriter
	counts  map[uint32]handleCount // by command code
	objects map[uint32]*resource   // transient objects, by the handle that clients see
	session map[uint32]*resource   // sessions, which keep their handle
	next    uint32
	clock   int
}

// A handleCount says how many handles a command and its response begin with.
type handleCount struct {
	command  int
	response bool
}

// A resource is a transient object or a session.
type resource struct {
	real  uint32 // its handle in the TPM, while it is loaded
	saved []byte // its context while it is not, nil otherwise
	used  int
}

// Command and response codes, part 2 sections 6.5.2 and 6.6.3.
const (
	ccContextLoad   = 0x161
	ccContextSave   = 0x162
	ccFlushContext  = 0x165
	ccGetCapability = 0x17a

	rcObjectMemory  = 0x902
	rcSessionMemory = 0x903

	firstTransient = 0x80000000
)

func newResources(tpm io.ReadWriter) (*resources, error) {
	r := &resources{
		tpm: tpm, next: firstTransient + 0x1000, counts: make(map[uint32]handleCount),
		objects: make(map[uint32]*resource), session: make(map[uint32]*resource),
	}
	// TPM2_GetCapability(TPM_CAP_COMMANDS): TPMA_CC of every command
	response, err := r.call(ccGetCapability, be32(2), be32(0), be32(1000))
	if err != nil {
		return nil, err
	}
	if responseCode(response) != 0 || len(response) < 19 {
		return nil, errors.New("the TPM does not list its commands")
	}
	for list := response[19:]; len(list) >= 4; list = list[4:] {
		cc := binary.BigEndian.Uint32(list)
		r.counts[cc&0xffff] = handleCount{command: int(cc >> 25 & 7), response: cc>>28&1 == 1}
	}
	return r, nil
}

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func responseCode(response []byte) uint32 { return binary.BigEndian.Uint32(response[6:]) }

// maxTPM bounds a command or a response; TPMs take 4,096 octets.
const maxTPM = 1 << 16

// readTPM reads a command or a response: tag, size of the whole, and the rest
// (part 1 section 18).
func readTPM(r io.Reader) ([]byte, error) {
	header := make([]byte, 10)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[2:])
	if size < 10 || size > maxTPM {
		return nil, errors.New("a TPM message of no sensible size")
	}
	message := append(header, make([]byte, size-10)...)
	_, err := io.ReadFull(r, message[10:])
	return message, err
}

func (r *resources) exchange(command []byte) ([]byte, error) {
	if _, err := r.tpm.Write(command); err != nil {
		return nil, err
	}
	return readTPM(r.tpm)
}

// call sends a command of our own, without sessions.
func (r *resources) call(cc uint32, parts ...[]byte) ([]byte, error) {
	body := bytes.Join(parts, nil)
	command := append([]byte{0x80, 0x01}, be32(uint32(10+len(body)))...)
	return r.exchange(append(append(command, be32(cc)...), body...))
}

// execute sends a client's command with the handles that the TPM knows, and
// again after each resource that left to make room.
func (r *resources) execute(command []byte) ([]byte, error) {
	r.clock++
	named, err := r.translate(command)
	if err != nil {
		return nil, err
	}
	for {
		response, err := r.exchange(command)
		if err != nil {
			return nil, err
		}
		room := false
		switch responseCode(response) {
		case rcObjectMemory:
			room, err = r.makeRoom(r.objects, named)
		case rcSessionMemory:
			room, err = r.makeRoom(r.session, named)
		}
		if err != nil {
			return nil, err
		}
		if !room {
			r.conclude(command, response)
			return response, nil
		}
	}
}

// translate replaces the handles of a command and loads what they name. The
// handle that TPM2_FlushContext names is a parameter in the same place.
func (r *resources) translate(command []byte) (named []*resource, err error) {
	cc := binary.BigEndian.Uint32(command[6:])
	count := r.counts[cc].command
	if cc == ccFlushContext {
		count = 1
	}
	for i := range count {
		place := 10 + 4*i
		if len(command) < place+4 {
			break
		}
		if x := r.objects[binary.BigEndian.Uint32(command[place:])]; x != nil {
			named = append(named, x)
			if err := r.load(x, named); err != nil {
				return nil, err
			}
			binary.BigEndian.PutUint32(command[place:], x.real)
		}
	}
	for handle, x := range r.session { // sessions stand among the authorisations
		if bytes.Contains(command, be32(handle)) {
			named = append(named, x)
			if err := r.load(x, named); err != nil {
				return nil, err
			}
		}
	}
	return named, nil
}

// load brings a resource back.
func (r *resources) load(x *resource, named []*resource) error {
	x.used = r.clock
	for x.saved != nil {
		response, err := r.call(ccContextLoad, x.saved)
		if err != nil {
			return err
		}
		room := false
		switch responseCode(response) {
		case 0:
			x.real, x.saved = binary.BigEndian.Uint32(response[10:]), nil
			return nil
		case rcObjectMemory:
			room, err = r.makeRoom(r.objects, named)
		case rcSessionMemory:
			room, err = r.makeRoom(r.session, named)
		}
		if err != nil || !room {
			return errors.Join(err, errors.New("a saved context cannot be loaded"))
		}
	}
	return nil
}

// makeRoom saves the resource that was not used for the longest time, except
// those that are named.
func (r *resources) makeRoom(among map[uint32]*resource, named []*resource) (bool, error) {
	var oldest *resource
	for _, x := range among {
		if x.saved == nil && !slices.Contains(named, x) && (oldest == nil || x.used < oldest.used) {
			oldest = x
		}
	}
	if oldest == nil {
		return false, nil
	}
	response, err := r.call(ccContextSave, be32(oldest.real))
	if err != nil || responseCode(response) != 0 {
		return false, errors.Join(err, errors.New("a context cannot be saved"))
	}
	oldest.saved = response[10:]
	if oldest.real >= firstTransient { // saving a session unloads it
		_, err = r.call(ccFlushContext, be32(oldest.real))
	}
	return true, err
}

// conclude books what a command made or flushed.
func (r *resources) conclude(command, response []byte) {
	if responseCode(response) != 0 {
		return
	}
	cc := binary.BigEndian.Uint32(command[6:])
	if cc == ccFlushContext {
		r.forget(binary.BigEndian.Uint32(command[10:]))
	}
	if !r.counts[cc].response || len(response) < 14 {
		return
	}
	made := binary.BigEndian.Uint32(response[10:])
	switch made >> 24 {
	case 0x80:
		r.objects[r.next] = &resource{real: made, used: r.clock}
		binary.BigEndian.PutUint32(response[10:], r.next)
		r.next++
	case 0x02, 0x03:
		r.session[made] = &resource{real: made, used: r.clock}
	}
}

// forget drops what has been flushed, by its handle in the TPM.
func (r *resources) forget(real uint32) {
	delete(r.session, real)
	for handle, x := range r.objects {
		if x.saved == nil && x.real == real {
			delete(r.objects, handle)
		}
	}
}
