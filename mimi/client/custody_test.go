package client_test

import (
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mls"
)

// softAgreements keeps ECDH keys outside of the state, as a device does, and
// fails on demand.
type softAgreements struct {
	mu   sync.Mutex // guards keys and fail
	keys map[string]*ecdh.PrivateKey
	fail bool
}

var errDevice = errors.New("the device is gone")

type softKey struct {
	*ecdh.PrivateKey
	of *softAgreements
}

func (k softKey) ECDH(remote *ecdh.PublicKey) ([]byte, error) {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	if k.of.fail {
		return nil, errDevice
	}
	return k.PrivateKey.ECDH(remote)
}

func (a *softAgreements) Generate(_ context.Context, name string) (ecdh.KeyExchanger, error) {
	k, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys[name] = k
	return softKey{k, a}, nil
}

func (a *softAgreements) Open(_ context.Context, name string) (ecdh.KeyExchanger, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.keys[name]; k != nil {
		return softKey{k, a}, nil
	}
	return nil, errors.New("no such key")
}

func (a *softAgreements) Destroy(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.keys, name)
	return nil
}

func (a *softAgreements) setFail(fail bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fail = fail
}

// A provider that takes no KeyPackages for a while does not fill the device with
// init keys: those that were made are uploaded when it takes them.
func TestKeyPackagesThatAreNotTaken(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	device := &softAgreements{keys: make(map[string]*ecdh.PrivateKey)}
	var refuses atomic.Bool
	bob := newPerson(t, h, "bob/tablet@a.example", func(c *client.Config) {
		c.Custody.Agreements = device
		c.Wrap = func(rt http.RoundTripper) http.RoundTripper {
			return roundTrip(func(q *http.Request) (*http.Response, error) {
				if refuses.Load() && q.Method == http.MethodPost && q.URL.Path == clientapi.PathKeyPackages {
					return &http.Response{StatusCode: http.StatusForbidden, Body: http.NoBody, Header: http.Header{}, Request: q}, nil
				}
				return rt.RoundTrip(q)
			})
		}
	})
	ok(t, bob.Client.Close())
	bob.cfg.KeyPackages = 10
	bob.open()
	refuses.Store(true)
	for range 3 {
		if _, err := bob.KeyPackages(t.Context()); err == nil {
			t.Fatal("the KeyPackages were taken")
		}
	}
	refuses.Store(false)
	counts := must[clientapi.KeyPackageCounts](t)(bob.KeyPackages(t.Context()))
	if len(counts) != 1 || counts[0].Left != 10 || len(device.keys) != 11 {
		t.Errorf("the provider has %+v and the device %d init keys, want 10 and one of last resort", counts, len(device.keys))
	}
}

// roundTrip is a function that is a http.RoundTripper.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// A Welcome is opened with the init key in the device, which is destroyed when
// it is used up; a device that is gone for a while loses no Welcome.
func TestInitKeysInADevice(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	device := &softAgreements{keys: make(map[string]*ecdh.PrivateKey)}
	alice := newPerson(t, h, "alice/phone@a.example")
	bob := newPerson(t, h, "bob/tablet@b.example", func(c *client.Config) { c.Custody.Agreements = device })
	if len(device.keys) != 4 { // 3 and that of last resort
		t.Fatalf("the device has %d init keys, want 4", len(device.keys))
	}
	device.setFail(true)
	alice.create(clubhouse)
	must[any](t)(alice.room(clubhouse).Add(t.Context(), bob.User(), client.AddOptions{}))
	if err := bob.Sync(t.Context()); !errors.Is(err, errDevice) {
		t.Fatalf("with a device that is gone: %v", err)
	}
	device.setFail(false)
	bob.restart()
	bob.sync()
	bob.wantStatus(clubhouse, client.RoomMember)
	bob.nothingRefused()
	if n := must[int](t)(bob.DeviceKeys()); n != len(device.keys) || n != 4 {
		t.Errorf("the state knows %d init keys and the device has %d, want 4", n, len(device.keys))
	}
}

// In mode bound the leaf key is software. It is replaced in every room before
// its time is over, and the sender stays who it is.
func TestBound(t *testing.T) {
	h := clienttest.NewHub(t, "a.example", "b.example")
	var mu sync.Mutex
	offset := time.Duration(0)
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(offset) }
	alice := newPerson(t, h, "alice/phone@a.example")
	bob := newPerson(t, h, "bob/tablet@b.example", func(c *client.Config) { c.Custody.Mode, c.Now = client.Bound, clock })
	if bob.Self().Type != mls.CredentialMulti || bob.Self().Issuer == "" {
		t.Errorf("bob is %+v", bob.Self().Identity)
	}
	alice.create(clubhouse, bob)
	bob.say(clubhouse, "with the first key")
	mu.Lock()
	offset = 17 * time.Hour
	mu.Unlock()
	epoch := must[*client.Info](t)(bob.room(clubhouse).Info(t.Context())).Epoch
	bob.sync()
	if n := must[int](t)(bob.LeafKeys()); n != 2 {
		t.Errorf("bob has %d leaf keys, want 2", n)
	}
	if now := must[*client.Info](t)(bob.room(clubhouse).Info(t.Context())).Epoch; now != epoch+1 {
		t.Errorf("the new key began epoch %d, want %d", now, epoch+1)
	}
	bob.restart()
	bob.say(clubhouse, "with the second key")
	alice.sync()
	alice.wantTexts(clubhouse, "message:with the first key message:with the second key")
	alice.nothingRefused()
	for _, m := range must[[]*client.Message](t)(alice.room(clubhouse).Messages(t.Context(), noTime)) {
		if m.Client != bob.URI() || m.Issuer == "" {
			t.Errorf("the message is of %s, issuer %q", m.Client, m.Issuer)
		}
	}
	agree(t, h, clubhouse, alice, bob)
}

// A client that is opened with a new credential has it in every room after the
// next Sync, also in one to which an old KeyPackage led, and nothing happens
// twice. In mode bound the leaf key is bound anew.
func TestNewCredential(t *testing.T) {
	for _, mode := range []client.Mode{client.Device, client.Bound} {
		t.Run(string(mode), func(t *testing.T) {
			h := clienttest.NewHub(t, "a.example", "b.example")
			alice := newPerson(t, h, "alice/phone@a.example")
			bob := newPerson(t, h, "bob/tablet@b.example", func(c *client.Config) { c.Custody.Mode = mode })
			r := alice.create(clubhouse, bob)
			other := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/other"), client.RoomOptions{}))
			must[any](t)(other.Add(t.Context(), bob.User(), client.AddOptions{})) // waits for bob
			ok(t, bob.Client.Close())
			before := make(map[*client.Room]hub.CredentialID)
			for _, room := range []*client.Room{r, other} {
				m, _ := h.Room(room.URI()).MemberOf(bob.URI())
				before[room] = m.Credential
			}
			bob.cfg.Custody.Credential = h.CA.Client(t, bob.cfg.Custody.Key.Public(), "mimi://b.example/d/bob/tablet", "mimi://b.example/u/bob")
			bob.open()
			for range 2 {
				bob.sync()
				alice.sync()
			}
			for _, room := range []*client.Room{r, other} {
				at := h.Room(room.URI())
				epoch := at.Epoch()
				bob.sync()
				if now := at.Epoch(); now != epoch {
					t.Errorf("%s went on to epoch %d by itself", room.URI(), now)
				}
				m, there := at.MemberOf(bob.URI())
				if !there || m.Credential == before[room] {
					t.Errorf("%s has the old credential of bob", room.URI())
				}
				public := must[[]byte](t)(bob.cfg.Custody.Key.Public().(*ecdsa.PublicKey).Bytes())
				if want := hub.CredentialIDOf(public, bob.cfg.Custody.Credential); mode == client.Device && m.Credential != want {
					t.Errorf("%s has another credential of bob", room.URI())
				}
				alice.say(room.URI().String(), "still here")
				bob.sync()
				bob.wantTexts(room.URI().String(), "message:still here")
			}
			bob.nothingRefused()
			alice.nothingRefused()
		})
	}
}

// The state opens only with the device that its key is encrypted to, and a
// file beside it only where nobody else reads it.
func TestSealedState(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	key := must[*ecdh.PrivateKey](t)(ecdh.P256().GenerateKey(rand.Reader))
	seal := must[hpke.PrivateKey](t)(hpke.NewDHKEMPrivateKey(key))
	alice := newPerson(t, h, "alice/phone@a.example", func(c *client.Config) { c.Custody.Seal = seal })
	if alice.SealedBy() != client.SealDevice {
		t.Errorf("sealed by %s", alice.SealedBy())
	}
	alice.create(clubhouse)
	alice.restart()
	alice.say(clubhouse, "a secret that must not be in the file")
	ok(t, alice.Client.Close())
	for _, name := range must[[]string](t)(filepath.Glob(alice.cfg.State + "*")) {
		if b := string(must[[]byte](t)(os.ReadFile(name))); contains(b, "must not be in the file") {
			t.Errorf("%s has the plaintext", name)
		}
	}
	other := alice.cfg
	other.Custody.Seal = must[hpke.PrivateKey](t)(hpke.NewDHKEMPrivateKey(must[*ecdh.PrivateKey](t)(ecdh.P256().GenerateKey(rand.Reader))))
	if _, err := client.Open(t.Context(), other); !errors.Is(err, client.ErrSeal) {
		t.Errorf("with another device: %v", err)
	}
	bob := newPerson(t, h, "bob/phone@a.example")
	ok(t, bob.Client.Close())
	ok(t, os.Chmod(bob.cfg.State+".key", 0o644))
	if _, err := client.Open(t.Context(), bob.cfg); err == nil {
		t.Error("the key may be read by others, and the state opens")
	}
}

// A state belongs to one client.
func TestStateOfAnother(t *testing.T) {
	h := clienttest.NewHub(t, "a.example")
	alice := newPerson(t, h, "alice/phone@a.example")
	ok(t, alice.Client.Close())
	key := identitytest.NewKey(t)
	alice.cfg.Custody.Key = key
	alice.cfg.Custody.Credential = h.CA.Client(t, &key.PublicKey, "mimi://a.example/d/mallory/phone", "mimi://a.example/u/mallory")
	if _, err := client.Open(t.Context(), alice.cfg); err == nil {
		t.Error("mallory opens the state of alice")
	}
}
