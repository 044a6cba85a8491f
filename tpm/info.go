package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// Info is what a TPM says about itself.
type Info struct {
	Address      string    `json:"address"`
	Manufacturer string    `json:"manufacturer"` // four letters, e.g. "IBM"
	VendorString string    `json:"vendorString"`
	Firmware     string    `json:"firmware"`     // two words in hexadecimal
	SpecRevision string    `json:"specRevision"` // e.g. "1.64"
	SRKName      []byte    `json:"srkName"`      // for Config.SRKName
	PCRBanks     []string  `json:"pcrBanks"`     // banks with PCRs in them, e.g. "sha256"
	Curves       []string  `json:"curves"`       // of those we can use
	Transient    int       `json:"transientSlots"`
	Persistent   int       `json:"persistentKeys"`
	Lockout      Lockout   `json:"lockout"`
	Endorsement  []EKInfo  `json:"endorsement"`
	Permanent    Permanent `json:"permanent"`
}

// Lockout is the state of the protection against dictionary attacks (Part 1,
// 19.8).
type Lockout struct {
	Locked   bool          `json:"locked"`
	Failures uint32        `json:"failures"` // counted now
	Max      uint32        `json:"max"`      // locks at this many
	Interval time.Duration `json:"interval"` // after which one failure is forgotten
	Recovery time.Duration `json:"recovery"` // after a wrong lockout authorization
}

// Permanent says which hierarchies have an authorization value (Part 2, 8.6).
type Permanent struct {
	OwnerAuthSet       bool `json:"ownerAuthSet"`
	EndorsementAuthSet bool `json:"endorsementAuthSet"`
	LockoutAuthSet     bool `json:"lockoutAuthSet"`
}

// EKInfo names an endorsement key.
type EKInfo struct {
	Algorithm   string `json:"algorithm"`
	Handle      string `json:"handle,omitempty"`
	Certificate bool   `json:"certificate"` // the TPM holds one for it
}

// Info asks the TPM about itself.
func (d *Device) Info(ctx context.Context) (*Info, error) {
	info, err := perform(ctx, d, func(_ context.Context, a *attachment) (*Info, error) {
		return a.info()
	})
	if err != nil {
		return nil, err
	}
	handles, err := d.PersistentHandles(ctx)
	if err != nil {
		return nil, err
	}
	info.Persistent = len(handles)
	keys, err := d.EndorsementKeys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		e := EKInfo{Algorithm: k.Algorithm, Certificate: len(k.Certificate) > 0}
		if k.Handle != 0 {
			e.Handle = fmt.Sprintf("%#x", k.Handle)
		}
		info.Endorsement = append(info.Endorsement, e)
	}
	return info, nil
}

func (a *attachment) info() (*Info, error) {
	p, err := a.properties()
	if err != nil {
		return nil, err
	}
	info := &Info{
		Address:      a.address,
		Manufacturer: letters(p, tpm2.TPMPTManufacturer),
		VendorString: letters(p, tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4),
		Firmware:     fmt.Sprintf("%08x.%08x", p[tpm2.TPMPTFirmwareVersion1], p[tpm2.TPMPTFirmwareVersion2]),
		SpecRevision: fmt.Sprintf("%d.%02d", p[tpm2.TPMPTRevision]/100, p[tpm2.TPMPTRevision]%100),
		SRKName:      bytes.Clone(a.srk.name.Buffer),
		Transient:    a.limits.transient,
		Lockout:      lockoutOf(p),
		Permanent:    permanentOf(p[tpm2.TPMPTPermanent]),
	}
	if info.PCRBanks, err = a.pcrBanks(); err != nil {
		return nil, err
	}
	info.Curves, err = a.curves()
	return info, err
}

// Bits of TPMA_PERMANENT (Part 2, 8.6).
const (
	ownerAuthSet       = 1 << 0
	endorsementAuthSet = 1 << 1
	lockoutAuthSet     = 1 << 2
	inLockout          = 1 << 9
)

func permanentOf(bits uint32) Permanent {
	return Permanent{
		OwnerAuthSet:       bits&ownerAuthSet != 0,
		EndorsementAuthSet: bits&endorsementAuthSet != 0,
		LockoutAuthSet:     bits&lockoutAuthSet != 0,
	}
}

func lockoutOf(p map[tpm2.TPMPT]uint32) Lockout {
	return Lockout{
		Locked:   p[tpm2.TPMPTPermanent]&inLockout != 0,
		Failures: p[tpm2.TPMPTLockoutCounter],
		Max:      p[tpm2.TPMPTMaxAuthFail],
		Interval: time.Duration(p[tpm2.TPMPTLockoutInterval]) * time.Second,
		Recovery: time.Duration(p[tpm2.TPMPTLockoutRecovery]) * time.Second,
	}
}

// letters joins properties that hold four characters each.
func letters(p map[tpm2.TPMPT]uint32, names ...tpm2.TPMPT) string {
	var b []byte
	for _, n := range names {
		b = binary.BigEndian.AppendUint32(b, p[n])
	}
	var printable []byte
	for _, c := range b {
		if c >= 0x20 && c < 0x7f {
			printable = append(printable, c)
		}
	}
	return string(bytes.TrimSpace(printable))
}

// maxProperties bounds the properties a TPM may give us.
const maxProperties = 512

// properties reads the fixed and the variable properties.
func (a *attachment) properties() (map[tpm2.TPMPT]uint32, error) {
	all := make(map[tpm2.TPMPT]uint32)
	for _, group := range []tpm2.TPMPT{0x100, 0x200} { // PT_FIXED, PT_VAR
		for next, more := group, true; more && len(all) < maxProperties; {
			var err error
			if next, more, err = a.someProperties(all, next); err != nil {
				return nil, err
			}
			more = more && next&^0xff == group
		}
	}
	return all, nil
}

// someProperties reads the properties from next on, as many as the TPM gives
// at once.
func (a *attachment) someProperties(all map[tpm2.TPMPT]uint32, next tpm2.TPMPT) (tpm2.TPMPT, bool, error) {
	rsp, err := run(a, tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(next), PropertyCount: 64})
	if err != nil {
		return 0, false, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, false, a.malformed("TPM2_GetCapability", "%v", err)
	}
	for _, p := range list.TPMProperty {
		if p.Property < next {
			return 0, false, a.malformed("TPM2_GetCapability", "property %#x where %#x.. was asked for", uint32(p.Property), uint32(next))
		}
		all[p.Property] = p.Value
		next = p.Property + 1
	}
	return next, bool(rsp.MoreData) && len(list.TPMProperty) > 0, nil
}

// pcrBanks lists the banks in which PCRs are allocated.
func (a *attachment) pcrBanks() ([]string, error) {
	rsp, err := run(a, tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1})
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.AssignedPCR()
	if err != nil {
		return nil, a.malformed("TPM2_GetCapability", "%v", err)
	}
	var banks []string
	for _, s := range list.PCRSelections {
		if name, ok := bankNames[s.Hash]; ok && !bytes.Equal(s.PCRSelect, make([]byte, len(s.PCRSelect))) {
			banks = append(banks, name)
		}
	}
	return banks, nil
}

var bankNames = map[tpm2.TPMIAlgHash]string{
	tpm2.TPMAlgSHA1:   "sha1",
	tpm2.TPMAlgSHA256: "sha256",
	tpm2.TPMAlgSHA384: "sha384",
	tpm2.TPMAlgSHA512: "sha512",
}

func (a *attachment) curves() ([]string, error) {
	rsp, err := run(a, tpm2.GetCapability{Capability: tpm2.TPMCapECCCurves, PropertyCount: 64})
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.ECCCurves()
	if err != nil {
		return nil, a.malformed("TPM2_GetCapability", "%v", err)
	}
	var curves []string
	for _, c := range list.ECCCurves {
		if curve := curveOf(c); curve != nil {
			curves = append(curves, curve.Params().Name)
		}
	}
	return curves, nil
}

// ErrUnhealthy is wrapped by the error of Health when the TPM answers but
// cannot be worked with.
var ErrUnhealthy = errors.New("the TPM cannot be worked with")

// Health checks that the TPM answers, draws random octets, and is not locked.
// It changes nothing and authorizes nothing, so it can be asked often.
func (d *Device) Health(ctx context.Context) error {
	_, err := perform(ctx, d, func(_ context.Context, a *attachment) (struct{}, error) {
		return struct{}{}, a.health()
	})
	return err
}

func (a *attachment) health() error {
	rsp, err := run(a, tpm2.GetRandom{BytesRequested: 16})
	if err != nil {
		return err
	}
	if len(rsp.RandomBytes.Buffer) != 16 || bytes.Equal(rsp.RandomBytes.Buffer, make([]byte, 16)) {
		return &Error{Command: "TPM2_GetRandom", Address: a.address, Class: ClassOperator,
			Err: fmt.Errorf("%w: its random number generator does not work", ErrUnhealthy), Advice: "restart the TPM"}
	}
	permanent, err := a.property(tpm2.TPMPTPermanent)
	if err != nil {
		return err
	}
	if permanent&inLockout != 0 {
		m := rcMeanings[tpm2.TPMRCLockout]
		return &Error{Address: a.address, Class: m.class, Advice: m.advice, Err: ErrLockout}
	}
	return nil
}
