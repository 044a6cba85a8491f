package hsm

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
)

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, 1, askOperate, bytes.Repeat([]byte{7}, operateHeader+32)))
	f.Add(appendFrame(nil, 0, wantPIN, []byte("\x00\x00\x00\x01name")))
	f.Add(appendFrame(nil, 9, answerOK))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 1})
	f.Add([]byte{0, 0, 0, 4, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		var header [frameHeader]byte
		in := bytes.NewReader(p)
		got, err := readFrame(in, &header)
		if err != nil {
			if !errors.Is(err, errFrame) && !(err == io.EOF && len(p) == 0) {
				t.Fatalf("an error without its type: %v", err)
			}
			return
		}
		used := p[:len(p)-in.Len()]
		if again := appendFrame(nil, got.call, got.kind, got.payload); !bytes.Equal(again, used) {
			t.Fatalf("%x became %x", used, again)
		}
		for n := 1; n < len(used); n++ {
			if _, err := readFrame(bytes.NewReader(used[:n]), &header); !errors.Is(err, errFrame) {
				t.Fatalf("a frame cut after %d bytes: %v", n, err)
			}
		}
	})
}

func FuzzPayload(f *testing.F) {
	operate := operateRequest{token: 1, op: opSign}
	f.Add(append(operate.appendHeader(nil), "digest"...))
	f.Add(openRequest{2, true, URI{Token: "a", ID: []byte{1}}}.bytes())
	f.Add(pinAnswer{token: 3, pin: NewPIN([]byte("1234"))}.bytes())
	f.Add(pinAnswer{token: 3, why: pinUnread, text: "no file"}.bytes())
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, err := parseOperate(p); err == nil {
			if !bytes.Equal(append(r.appendHeader(nil), r.in...), p) {
				t.Fatalf("operate %x became %+v", p, r)
			}
		} else if !errors.Is(err, errFrame) {
			t.Fatal(err)
		}
		if r, err := parseOpen(p); err == nil {
			again, err := parseOpen(r.bytes())
			if err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("open %x became %+v, %v", p, again, err)
			}
		} else if !errors.Is(err, errFrame) {
			t.Fatal(err)
		}
		if a, err := parsePINAnswer(p); err == nil {
			if !bytes.Equal(a.bytes(), p) {
				t.Fatalf("PIN answer %x became %x", p, a.bytes())
			}
		} else if !errors.Is(err, errFrame) {
			t.Fatal(err)
		}
	})
}

func FuzzPoint(f *testing.F) {
	for _, c := range curves {
		point := bytes.Repeat([]byte{9}, c.point)
		if c.nist != nil {
			k, err := ecdsa.GenerateKey(c.nist, rand.Reader)
			if err != nil {
				f.Fatal(err)
			}
			if point, err = k.PublicKey.Bytes(); err != nil {
				f.Fatal(err)
			}
		}
		wrapped, err := asn1.Marshal(point)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.oid, point)
		f.Add(c.oid, wrapped)
	}
	f.Add([]byte{0x13, 12, 'e', 'd', 'w', 'a', 'r', 'd', 's', '2', '5', '5', '1', '9'}, []byte{4, 0x20})
	f.Fuzz(func(t *testing.T, params, value []byte) {
		c := curveFromParams(params)
		if c == nil {
			return
		}
		point, err := c.parsePoint(value)
		if err != nil {
			if !errors.Is(err, ErrBadPoint) {
				t.Fatalf("an error without its type: %v", err)
			}
			return
		}
		wrapped, err := asn1.Marshal(point)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(value, point) && !bytes.Equal(value, wrapped) {
			t.Fatalf("%x was read as %x, which is neither the point nor its DER", value, point)
		}
		again, err := c.parsePoint(wrapped)
		if err != nil || !bytes.Equal(again, point) {
			t.Fatalf("its DER: %x, %v", again, err)
		}
	})
}

func FuzzWireError(f *testing.F) {
	e := newError("/m.so", KindSoftHSM, "C_Sign", pkcs11.Error(pkcs11.CKR_DEVICE_ERROR))
	f.Add(encodeJSON(toWire(e)))
	f.Add(encodeJSON(toWire(ErrAmbiguous)))
	f.Add([]byte(`{"sentinels":[99],"text":""}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		err := fromWire(p)
		if err == nil {
			t.Fatal("an error became none")
		}
		_ = err.Error()
	})
}

// The error of a worker must be as good as the module's own.
func TestErrorsCrossTheSocket(t *testing.T) {
	e := newError("/m.so", KindNSS, "C_Sign", pkcs11.Error(pkcs11.CKR_HOST_MEMORY))
	e.Slot, e.Token, e.Key = 3, "t", `"k" id 01`
	got := fromWire(encodeJSON(toWire(e)))
	var device *Error
	if !errors.As(got, &device) || got.Error() != e.Error() || !device.NeedsLogin() || !errors.Is(got, ErrNotLoggedIn) ||
		!errors.Is(got, pkcs11.Error(pkcs11.CKR_HOST_MEMORY)) {
		t.Errorf("got %#v", got)
	}
	for i, s := range wireSentinels {
		if got := fromWire(encodeJSON(toWire(s))); !errors.Is(got, s) || got.Error() != s.Error() {
			t.Errorf("sentinel %d became %v", i, got)
		}
	}
}

func TestDERSignature(t *testing.T) {
	for _, size := range []int{32, 48, 66} {
		for range 500 {
			raw := make([]byte, 2*size)
			rand.Read(raw)
			for range raw[0] % 4 { // leading zeros, also of whole numbers
				raw[0], raw[size] = 0, raw[size]&0x7f
			}
			got, err := derSignature(raw, size)
			want, _ := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:size]), new(big.Int).SetBytes(raw[size:])})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%x: got %x, %v; want %x", raw, got, err, want)
			}
		}
	}
	for _, raw := range [][]byte{nil, make([]byte, 64), append(make([]byte, 63), 1), append([]byte{1}, make([]byte, 63)...),
		bytes.Repeat([]byte{1}, 63), bytes.Repeat([]byte{1}, 65), bytes.Repeat([]byte{1}, 96)} {
		if sig, err := derSignature(raw, 32); err == nil {
			t.Errorf("%x became %x", raw, sig)
		}
	}
}

// devices.md, section 3: the same loss has another code in each module.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		code uint
		want Class
	}{
		{KindSoftHSM, pkcs11.CKR_OBJECT_HANDLE_INVALID, ClassKeyGone},
		{KindNSS, pkcs11.CKR_KEY_HANDLE_INVALID, ClassKeyGone},
		{KindNSS, pkcs11.CKR_HOST_MEMORY, ClassLogin},
		{KindSoftHSM, pkcs11.CKR_HOST_MEMORY, ClassRetry},
		{KindOpenCK, pkcs11.CKR_HOST_MEMORY, ClassOperator},
		{KindP11Kit, pkcs11.CKR_DEVICE_ERROR, ClassModule},
		{KindTPM2, pkcs11.CKR_GENERAL_ERROR, ClassModule},
		{KindSoftHSM, pkcs11.CKR_GENERAL_ERROR, ClassRetry},
		{KindOther, pkcs11.CKR_USER_NOT_LOGGED_IN, ClassLogin},
		{KindOther, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED, ClassModule},
		{KindOther, pkcs11.CKR_SESSION_HANDLE_INVALID, ClassSession},
		{KindOther, pkcs11.CKR_PIN_INCORRECT, ClassOperator},
		{KindOther, pkcs11.CKR_PIN_LOCKED, ClassOperator},
		{KindOther, pkcs11.CKR_MECHANISM_INVALID, ClassUnsupported},
		{KindOther, 0x80000001, ClassCaller},
	} {
		e := newError("/m.so", c.kind, "C_Sign", pkcs11.Error(c.code))
		if e.Class != c.want || e.Advice == "" || !strings.Contains(e.Error(), e.Code.String()) {
			t.Errorf("%s, %s: %s (%s)", c.kind, e.Code, e.Class, e)
		}
		if e.NeedsOperator() && e.Retryable() {
			t.Errorf("%s is both for an operator and to be tried again", e)
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		path string
		info ModuleInfo
		want Kind
	}{
		{"/usr/lib/softhsm/libsofthsm2.so", ModuleInfo{}, KindSoftHSM},
		{"/usr/lib/pkcs11/p11-kit-client.so", ModuleInfo{Manufacturer: "SoftHSM"}, KindP11Kit},
		{"/usr/lib/libsoftokn3.so", ModuleInfo{}, KindNSS},
		{"/usr/lib/pkcs11/libtpm2_pkcs11.so.0.0.0", ModuleInfo{}, KindTPM2},
		{"/opt/vendor.so", ModuleInfo{Manufacturer: "Mozilla Foundation"}, KindNSS},
		{"/opt/vendor.so", ModuleInfo{Manufacturer: "ACME"}, KindOther},
	} {
		if got := kindOf(c.path, c.info); got != c.want {
			t.Errorf("%s: %s", c.path, got)
		}
	}
}

func TestFingerprintCoversEverything(t *testing.T) {
	base := fingerprint(ClassPrivate, P256, []byte{1}, "a", []byte{2})
	for name, other := range map[string]Fingerprint{
		"class": fingerprint(ClassSecret, P256, []byte{1}, "a", []byte{2}),
		"type":  fingerprint(ClassPrivate, P384, []byte{1}, "a", []byte{2}),
		"id":    fingerprint(ClassPrivate, P256, []byte{3}, "a", []byte{2}),
		"label": fingerprint(ClassPrivate, P256, []byte{1}, "b", []byte{2}),
		"point": fingerprint(ClassPrivate, P256, []byte{1}, "a", []byte{4}),
		"shift": fingerprint(ClassPrivate, P256, []byte{1, 'a'}, "", []byte{2}),
	} {
		if other == base {
			t.Errorf("another %s gives the same fingerprint", name)
		}
	}
}

func TestGate(t *testing.T) {
	var g gate
	ctx := t.Context()
	if err := g.enter(ctx); err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancelCause(ctx)
	why := errors.New("enough")
	cancel(why)
	if err := g.shut(over); !errors.Is(err, why) {
		t.Fatalf("shutting a gate in use: %v", err)
	}
	if err := g.enter(ctx); err != nil {
		t.Fatalf("the gate stayed shut: %v", err)
	}
	g.leave()
	g.leave()
	if err := g.shut(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.enter(over); !errors.Is(err, why) {
		t.Errorf("a waiter whose context is over: %v", err)
	}
	g.reopen()
	testGateExcludes(t, &g)
}

// testGateExcludes counts who is inside while the gate is shut.
func testGateExcludes(t *testing.T, g *gate) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	inside, shut := 0, false
	for range 4 {
		wg.Go(func() {
			for range 300 {
				g.enter(t.Context())
				mu.Lock()
				inside++
				if shut {
					t.Error("inside while the gate is shut")
				}
				mu.Unlock()
				mu.Lock()
				inside--
				mu.Unlock()
				g.leave()
			}
		})
	}
	for range 50 {
		g.shut(t.Context())
		mu.Lock()
		if shut = true; inside != 0 {
			t.Errorf("%d are inside", inside)
		}
		mu.Unlock()
		mu.Lock()
		shut = false
		mu.Unlock()
		g.reopen()
	}
	wg.Wait()
}

func TestPoolWaitersObeyTheirContext(t *testing.T) {
	p := newPool(2)
	one, _ := p.take(t.Context())
	two, _ := p.take(t.Context())
	if one == two {
		t.Fatal("a place was given twice")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.take(over); !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter whose context is over: %v", err)
	}
	p.put(one)
	if _, err := p.drain(over); !errors.Is(err, context.Canceled) {
		t.Errorf("a drain whose context is over: %v", err)
	}
	p.put(two)
	all, err := p.drain(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d places, %v", len(all), err)
	}
	p.refill(all)
}

func TestRefusedPINs(t *testing.T) {
	var r refusals
	r.add("token a", NewPIN([]byte("1234")))
	if !r.has("token a", NewPIN([]byte("1234"))) || r.has("token a", NewPIN([]byte("12345"))) || r.has("token b", NewPIN([]byte("1234"))) {
		t.Error("the memory mixes up tokens or PINs")
	}
}

func TestMayLogIn(t *testing.T) {
	ready := TokenInfo{Initialized: true, LoginRequired: true, UserPINSet: true}
	locked, unset, last := ready, ready, ready
	locked.UserPINLocked, unset.UserPINSet, last.UserPINFinalTry = true, false, true
	careful := &localToken{}
	bold := &localToken{config: Config{AllowFinalTry: true}}
	for _, c := range []struct {
		name  string
		token *localToken
		info  TokenInfo
		want  error
	}{
		{"ready", careful, ready, nil}, {"locked", bold, locked, ErrPINLocked}, {"without a PIN", careful, unset, ErrPINNotSet},
		{"before the last try", careful, last, ErrPINFinalTry}, {"before the last try, if allowed", bold, last, nil},
	} {
		if err := c.token.mayLogIn(c.info); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestChooseToken(t *testing.T) {
	tokens := []TokenInfo{
		{Slot: 1, Label: "a", Serial: "1", Initialized: true}, {Slot: 2, Label: "a", Serial: "2", Initialized: true},
		{Slot: 3, Label: "b", Serial: "3", Initialized: true}, {Slot: 4},
	}
	for in, want := range map[string]error{
		"pkcs11:token=b": nil, "pkcs11:token=a;serial=2": nil, "pkcs11:slot-id=1": nil,
		"pkcs11:token=a": ErrAmbiguous, "pkcs11:token=c": ErrTokenGone, "pkcs11:slot-id=4": ErrTokenGone, "pkcs11:model=x": ErrURI,
	} {
		u, err := ParseURI(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chooseToken(u, tokens); !errors.Is(err, want) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestUlong(t *testing.T) {
	if n, ok := ulong(binary.NativeEndian.AppendUint64(nil, 5)); !ok || n != 5 {
		t.Error("8 bytes")
	}
	for _, p := range [][]byte{nil, {1}, make([]byte, 9)} {
		if _, ok := ulong(p); ok {
			t.Errorf("%x", p)
		}
	}
	if elliptic.P256() != curveOf(P256).nist {
		t.Error("curves are mixed up")
	}
}
