package signer

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// selfTestPrefix begins the octets of a self-test. 0xfe begins nothing that
// anybody verifies: no vector length of MLS, no CBOR data item, no DER type, no
// text, and not the 0xff that a TPM's own statements begin with.
const selfTestPrefix = "\xfeprivyseal self-test 1\n"

// maxSelfTest bounds the octets of a self-test.
const maxSelfTest = 1024

// A SelfTest is what a key answers to show that its device works. The octets
// say what they are for, so the answer is of no other use: ParseRequest knows
// them, and no purpose permits a caller to have them signed.
type SelfTest struct {
	Key     KeyID
	Version int
	Purpose Purpose
	Device  string
	At      time.Time // in microseconds
	Nonce   [16]byte
}

func newSelfTest(key *Key, v *Version, device string) *SelfTest {
	t := &SelfTest{Key: key.ID, Version: v.Number, Purpose: key.Purpose, Device: device, At: time.Now().UTC().Truncate(time.Microsecond)}
	rand.Read(t.Nonce[:])
	return t
}

const selfTestTime = "2006-01-02T15:04:05.000000Z"

// Octets returns the to-be-signed octets.
func (t *SelfTest) Octets() []byte {
	return fmt.Appendf(nil, "%skey %s\nversion %d\npurpose %s\ndevice %s\ntime %s\nnonce %x\n", selfTestPrefix,
		t.Key, t.Version, t.Purpose, t.Device, t.At.Format(selfTestTime), t.Nonce)
}

// ParseSelfTest is the inverse of Octets.
func ParseSelfTest(b []byte) (*SelfTest, error) {
	r, err := parseSelfTest(b)
	if err != nil {
		return nil, err
	}
	return r.parsed.(*SelfTest), nil
}

func parseSelfTest(b []byte) (*Request, error) {
	text, ok := strings.CutPrefix(string(b[:min(len(b), maxSelfTest+1)]), selfTestPrefix)
	fields := strings.Split(text, "\n")
	names := []string{"key ", "version ", "purpose ", "device ", "time ", "nonce "}
	if !ok || len(fields) != len(names)+1 {
		return nil, refuse(ShapeSelfTest, "the octets are no self-test")
	}
	for i, name := range names {
		if fields[i], ok = strings.CutPrefix(fields[i], name); !ok {
			return nil, refuse(ShapeSelfTest, "line %d is not %q", i+2, strings.TrimSpace(name))
		}
	}
	t := &SelfTest{Key: KeyID(fields[0]), Purpose: Purpose(fields[2]), Device: fields[3]}
	t.Version, _ = strconv.Atoi(fields[1])
	t.At, _ = time.Parse(selfTestTime, fields[4])
	nonce, _ := hex.DecodeString(fields[5])
	copy(t.Nonce[:], nonce)
	if !bytes.Equal(t.Octets(), b) {
		return nil, refuse(ShapeSelfTest, "a field is not in its one form")
	}
	return &Request{shape: ShapeSelfTest, typ: string(t.Purpose), parsed: t}, nil
}

// A SelfTestJournal keeps that a self-test was asked for and how it ended, as
// it does for every signature. Begin is called before the device is; when it
// fails nothing is signed. end is told the signature's octets (nil for a MAC
// key and for key agreement) and the error.
type SelfTestJournal interface {
	BeginSelfTest(ctx context.Context, t *SelfTest) (end func(ctx context.Context, signature []byte, err error) error, err error)
}

// SetSelfTestJournal installs the journal. It is called before the Keyring is
// used; without one self-tests are only counted.
func (k *Keyring) SetSelfTestJournal(j SelfTestJournal) { k.journal = j }

// A SelfTestResult is how one device did with one key.
type SelfTestResult struct {
	Key     KeyID         `json:"key"`
	Version int           `json:"version"`
	Device  string        `json:"device"`
	Took    time.Duration `json:"took"`
	Err     error         `json:"-"`
}

// SelfTest has each device that serves the active version of a key answer a
// self-test, and verifies what they answer. A device that passes is taken in
// again if it was left out; one that answers wrongly is marked suspect.
func (k *Keyring) SelfTest(ctx context.Context, id KeyID) ([]SelfTestResult, error) {
	return k.selfTests(ctx, id, func(*place) bool { return true })
}

func (k *Keyring) selfTests(ctx context.Context, id KeyID, want func(*place) bool) ([]SelfTestResult, error) {
	key, v, err := k.versionOf(ctx, id, 0)
	if err != nil {
		return nil, err
	}
	places, err := k.knownPlaces(ctx, key, v)
	if err != nil {
		return nil, err
	}
	var results []SelfTestResult
	for _, p := range places {
		if want(p) {
			results = append(results, k.selfTest(ctx, key, v, p))
		}
	}
	return results, nil
}

// knownPlaces returns the places of a version, which need not be open.
func (k *Keyring) knownPlaces(ctx context.Context, key *Key, v *Version) ([]*place, error) {
	ref := versionRef{key.ID, v.Number}
	k.mu.Lock()
	open := k.open[ref]
	k.mu.Unlock()
	if open == nil {
		public, err := publicOf(key, v)
		if err != nil {
			return nil, err
		}
		fresh := &openVersion{public: public, scheme: key.Algorithm.Scheme()}
		fresh.set.Store(&placeSet{revision: v.revision, places: k.placesFrom(v, nil)})
		k.mu.Lock()
		if open = k.open[ref]; open == nil {
			k.open[ref], open = fresh, fresh
		}
		k.mu.Unlock()
	}
	return k.placesOf(ctx, key, v, open, v.revision)
}

// selfTestTimeout bounds one self-test.
const selfTestTimeout = 15 * time.Second

func (k *Keyring) selfTest(parent context.Context, key *Key, v *Version, p *place) SelfTestResult {
	ctx, cancel := context.WithTimeout(parent, selfTestTimeout)
	defer cancel()
	t := newSelfTest(key, v, p.device)
	start := time.Now()
	err := k.journalled(ctx, t, func(ctx context.Context) (sig []byte, err error) {
		own, end := k.hooks.call(ctx, DeviceCall{Key: key.ID, Algorithm: key.Algorithm, Device: p.device, Op: opOf(key), SelfTest: true})
		defer func() { end(err) }()
		if err = k.openPlace(own, key, v, p); err != nil {
			return nil, err
		}
		return k.answer(own, key, v, p, t)
	})
	r := SelfTestResult{Key: key.ID, Version: v.Number, Device: p.device, Took: time.Since(start), Err: err}
	if err == nil {
		k.answers(p)
	} else {
		r.Err = k.failed(parent, parent, "self-test", p, err) // our own time-out counts
	}
	k.hooks.selfTest(r)
	return r
}

func opOf(key *Key) string {
	switch key.Algorithm.Use() {
	case UseMAC:
		return "mac"
	case UseAgree:
		return "ecdh"
	}
	return "sign"
}

func (k *Keyring) journalled(ctx context.Context, t *SelfTest, f func(context.Context) ([]byte, error)) error {
	if k.journal == nil {
		_, err := f(ctx)
		return err
	}
	end, err := k.journal.BeginSelfTest(ctx, t)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotJournalled, err)
	}
	sig, err := f(ctx)
	if kept := end(context.WithoutCancel(ctx), sig, err); kept != nil && err == nil {
		return fmt.Errorf("%w: %w", errNotJournalled, kept)
	}
	return err
}

// errNotJournalled is a failure of ours, not of a device.
var errNotJournalled = fmt.Errorf("%w: the self-test could not be journalled", ErrUsage)

// answer has a place answer a self-test, and verifies it.
func (k *Keyring) answer(ctx context.Context, key *Key, v *Version, p *place, t *SelfTest) ([]byte, error) {
	switch key.Algorithm.Use() {
	case UseMAC:
		return nil, answerMAC(ctx, p, t)
	case UseAgree:
		_, ok, err := tryAgreement(ctx, key, v, p)
		if err == nil && !ok {
			err = k.markSuspect(ctx, key, v, p.device, "self-test")
		}
		return nil, err
	}
	pub, err := v.PublicKey()
	if err != nil {
		return nil, err
	}
	digest, hash := hashFor(key.Algorithm.Scheme(), t.Octets())
	sig, err := p.sign(ctx, bytes.Clone(digest), hash)
	if err == nil && !verify(pub, digest, sig) {
		return nil, k.markSuspect(ctx, key, v, p.device, "self-test")
	}
	return sig, err
}

// answerMAC asks twice: there is nothing else to hold a tag to.
func answerMAC(ctx context.Context, p *place, t *SelfTest) error {
	first, err := p.mac(ctx, t.Octets())
	if err != nil {
		return err
	}
	second, err := p.mac(ctx, t.Octets())
	if err != nil {
		return err
	}
	if len(first) != 32 || !hmac.Equal(first, second) {
		return fmt.Errorf("%w: two tags of one message differ", ErrBadSignature)
	}
	return nil
}
