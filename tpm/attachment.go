package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// An attachment is everything that is true only as long as one connection to
// one run of the TPM lasts: the connection, the sessions and what is loaded.
// When the TPM goes away the whole attachment is thrown away and a new one is
// made, so no handle outlives the TPM that gave it out.
type attachment struct {
	address   string
	conn      *conn
	transport Transport // conn behind the seam of Config.Wrap and the retries
	srk       *object
	slots     *slots
	sessions  *sessionPool
	limits    limits
}

// limits are what the TPM says about itself (Part 2, 6.13).
type limits struct {
	transient   int // TPM_PT_HR_TRANSIENT_MIN
	inputBuffer int // TPM_PT_INPUT_BUFFER
}

// attach connects and brings the TPM into a known state: started, with
// nothing loaded, the storage root key made.
func (d *Device) attach(ctx context.Context) (*attachment, error) {
	w, err := dial(ctx, d.address)
	if err != nil {
		return nil, &Error{Address: d.address.String(), Class: ClassGone, Err: fmt.Errorf("%w: %w", ErrGone, err),
			Advice: "check that the TPM (or swtpm) runs and that this user may open it"}
	}
	c := &conn{w: w, timeout: d.config.CommandTimeout}
	// A cancelled caller gives up the connection that it is making.
	stop := context.AfterFunc(ctx, func() { c.w.Close() })
	a := &attachment{address: d.address.String(), conn: c, sessions: newSessionPool()}
	a.transport = d.transportOver(c)
	err = d.prepare(ctx, a)
	if !stop() && err == nil {
		err = a.waitError(ctx.Err())
	}
	if err != nil {
		c.close()
		if ctx.Err() != nil {
			err = a.waitError(ctx.Err())
		}
		return nil, err
	}
	return a, nil
}

func (d *Device) transportOver(c *conn) Transport {
	var t Transport = c
	if d.config.Wrap != nil {
		t = d.config.Wrap(t)
	}
	return &patient{next: t, sleep: d.config.sleep}
}

func (d *Device) prepare(ctx context.Context, a *attachment) error {
	if d.address.exclusive() {
		if err := a.startup(); err != nil {
			return err
		}
	}
	if err := a.flushLeftovers(d.address.exclusive()); err != nil {
		return err
	}
	var err error
	if a.limits, err = a.readLimits(); err != nil {
		return err
	}
	a.slots = newSlots(a, a.limits.transient)
	return d.makeSRK(ctx, a)
}

// startup sends TPM2_Startup; a TPM that is running already says so.
func (a *attachment) startup() error {
	_, err := run(a, tpm2.Startup{StartupType: tpm2.TPMSUClear})
	if errors.Is(err, tpm2.TPMRCInitialize) {
		return nil
	}
	return err
}

// The handle ranges of what a client may leave behind (Part 2, 7.2).
const (
	firstLoadedSession tpm2.TPMHandle = 0x02000000
	firstSavedSession  tpm2.TPMHandle = 0x03000000
	firstTransient     tpm2.TPMHandle = 0x80000000
	firstPersistent    tpm2.TPMHandle = 0x81000000
	firstNV            tpm2.TPMHandle = 0x01000000
)

// flushLeftovers empties the TPM of what a client that crashed left in it.
//
// Behind the kernel's resource manager the objects listed are our own, but the
// sessions are everybody's; there only objects are flushed, and the kernel
// takes care of the sessions when the device is closed.
func (a *attachment) flushLeftovers(exclusive bool) error {
	ranges := []tpm2.TPMHandle{firstTransient}
	if exclusive {
		ranges = append(ranges, firstLoadedSession, firstSavedSession)
	}
	for _, first := range ranges {
		handles, err := a.handles(first)
		if err != nil {
			return err
		}
		for _, h := range handles {
			if err := a.flush(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxHandles bounds a list of handles that a TPM gives us.
const maxHandles = 1024

// handles lists the handles in use from first to the end of its range.
func (a *attachment) handles(first tpm2.TPMHandle) ([]tpm2.TPMHandle, error) {
	var all []tpm2.TPMHandle
	for next := first; len(all) < maxHandles; {
		rsp, err := run(a, tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(next), PropertyCount: 64})
		if err != nil {
			return nil, err
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, a.malformed("TPM2_GetCapability", "%v", err)
		}
		for _, h := range list.Handle {
			if h&handleIndex < next&handleIndex || !sameRange(h, first) {
				return nil, a.malformed("TPM2_GetCapability", "handle %#x where %#x.. was asked for", uint32(h), uint32(next))
			}
			all = append(all, h)
			next = first | (h+1)&handleIndex
		}
		if !rsp.MoreData || len(list.Handle) == 0 {
			return all, nil
		}
	}
	return nil, a.malformed("TPM2_GetCapability", "more than %d handles", maxHandles)
}

const handleIndex tpm2.TPMHandle = 0x00ffffff

// sameRange reports whether a handle may be in the list that begins at first.
// The lists of loaded and of saved sessions have handles of both kinds of
// sessions in them (Part 2, 7.2).
func sameRange(h, first tpm2.TPMHandle) bool {
	kind, want := h&^handleIndex, first&^handleIndex
	if want == firstLoadedSession || want == firstSavedSession {
		return kind == firstLoadedSession || kind == firstSavedSession
	}
	return kind == want
}

// Bounds on what a TPM may claim about itself.
const (
	minTransient, maxTransient     = 3, 64
	minInputBuffer, maxInputBuffer = 256, 3072
)

func (a *attachment) readLimits() (limits, error) {
	transient, err := a.property(tpm2.TPMPTHRTransientMin)
	if err != nil {
		return limits{}, err
	}
	input, err := a.property(tpm2.TPMPTInputBuffer)
	if err != nil {
		return limits{}, err
	}
	return limits{
		transient:   int(min(max(transient, minTransient), maxTransient)),
		inputBuffer: int(min(max(input, minInputBuffer), maxInputBuffer)),
	}, nil
}

// property reads one TPM_PT.
func (a *attachment) property(pt tpm2.TPMPT) (uint32, error) {
	rsp, err := run(a, tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(pt), PropertyCount: 1})
	if err != nil {
		return 0, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil || len(list.TPMProperty) != 1 || list.TPMProperty[0].Property != pt {
		return 0, a.malformed("TPM2_GetCapability", "property %#x is missing", uint32(pt))
	}
	return list.TPMProperty[0].Value, nil
}

// srkTemplate is the ECC P-256 storage key template of the TCG, with an empty
// unique field: the one that a TSS2 file means by a parent of TPM_RH_OWNER.
var srkTemplate = func() *tpm2.TPMTPublic {
	t := tpm2.ECCSRKTemplate
	t.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return &t
}()

// makeSRK makes the storage root key again, which is deterministic, and checks
// that it is the one we know.
func (d *Device) makeSRK(ctx context.Context, a *attachment) error {
	srk := &object{hierarchy: tpm2.TPMRHOwner, template: srkTemplate}
	a.srk = srk
	l, err := a.slots.lease(ctx, 0, srk)
	if err != nil {
		return err
	}
	defer l.release()
	known := d.srk
	if known == nil {
		if want := d.config.SRKName; want != nil && !bytes.Equal(want, srk.name.Buffer) {
			return d.wrongTPM("its storage root key is %x, not %x", srk.name.Buffer, want)
		}
		d.srk = srk
		return nil
	}
	if !bytes.Equal(known.name.Buffer, srk.name.Buffer) {
		return d.wrongTPM("it came back with another storage root key; was it cleared or replaced?")
	}
	// Keys point at the object they were loaded under; keep it, and with it
	// the slot that was just filled.
	a.slots.rename(srk, known)
	a.srk = known
	return nil
}

func (s *slots) rename(from, to *object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sl := s.loaded[from]
	delete(s.loaded, from)
	sl.object = to
	s.loaded[to] = sl
}

func (d *Device) wrongTPM(format string, args ...any) *Error {
	return &Error{Address: d.address.String(), Class: ClassOperator,
		Err:    fmt.Errorf("%w: %s", ErrWrongTPM, fmt.Sprintf(format, args...)),
		Advice: "keys made in another TPM, or before it was cleared, are lost"}
}

// createPrimary makes a primary object from its template.
func (a *attachment) createPrimary(o *object) (tpm2.TPMHandle, error) {
	rsp, err := run(a, tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: o.hierarchy, Auth: tpm2.PasswordAuth(nil)},
		InPublic:      tpm2.New2B(*o.template),
	})
	if err != nil {
		return 0, hierarchyError(err)
	}
	handle, err := a.transient("TPM2_CreatePrimary", rsp.ObjectHandle)
	if err != nil {
		return 0, err
	}
	if err := a.adoptPrimary(o, rsp); err != nil {
		return 0, err
	}
	return handle, nil
}

// adoptPrimary takes the public area of a primary object that was made, or
// checks that it came out as before.
func (a *attachment) adoptPrimary(o *object, rsp *tpm2.CreatePrimaryResponse) error {
	public, name, err := readPublicArea(rsp.OutPublic.Bytes())
	if err != nil {
		return a.malformed("TPM2_CreatePrimary", "%v", err)
	}
	if !bytes.Equal(name.Buffer, rsp.Name.Buffer) {
		return a.malformed("TPM2_CreatePrimary", "the name is not that of the public area")
	}
	if public.ObjectAttributes != o.template.ObjectAttributes || public.Type != o.template.Type {
		return a.malformed("TPM2_CreatePrimary", "not the key that was asked for")
	}
	if o.public == nil {
		o.public, o.name = public, *name
		return nil
	}
	if !bytes.Equal(o.name.Buffer, name.Buffer) {
		return a.malformed("TPM2_CreatePrimary", "another key from the same template")
	}
	return nil
}

// transient checks that a handle we were given is one of a transient object.
func (a *attachment) transient(command string, h tpm2.TPMHandle) (tpm2.TPMHandle, error) {
	if h>>24 != firstTransient>>24 {
		return 0, a.malformed(command, "handle %#x", uint32(h))
	}
	return h, nil
}

// waitError is the error of a caller whose context ended before the TPM was
// free or had answered.
func (a *attachment) waitError(err error) error {
	return waitError(a.address, err)
}

func waitError(address string, err error) error {
	return &Error{Address: address, Class: ClassRetry, Err: err,
		Advice: "the TPM is busy or does not answer"}
}

// contextError: a saved context is refused after the TPM was reset (Part 1, 30.4).
func contextError(err error) error {
	var e *Error
	if errors.As(err, &e) && e.RC != 0 && (errors.Is(err, tpm2.TPMRCIntegrity) || errors.Is(err, tpm2.TPMRCHandle)) {
		gone := *e
		gone.Class, gone.Err = ClassGone, fmt.Errorf("%w: %w", ErrGone, e.RC)
		return &gone
	}
	return err
}

// loadError: a wrapped blob that is refused belongs to another TPM or is damaged.
func loadError(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.RC == 0 || e.Class != ClassInput {
		return err
	}
	wrong := *e
	wrong.Class, wrong.Err = ClassOperator, fmt.Errorf("%w: %w", ErrWrongKey, e.RC)
	wrong.Advice = "the key file was made in another TPM, under another parent, before the TPM was cleared, or was altered"
	return &wrong
}

// hierarchyError: the owner has set an authorization that we do not have.
func hierarchyError(err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Class != ClassAuth {
		return err
	}
	owner := *e
	owner.Class = ClassOperator
	owner.Advice = "the hierarchy has an authorization value; this driver works with TPMs whose owner and endorsement hierarchies have none"
	return &owner
}
