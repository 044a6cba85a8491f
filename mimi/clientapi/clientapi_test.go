package clientapi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/problem"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mls"
)

func uri(t testing.TB, s string) mimi.URI {
	t.Helper()
	u, err := mimi.ParseURI(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A codec is one struct of the API: a value's encoding and its decoder.
type codec struct {
	name   string
	octets []byte
	again  func([]byte) ([]byte, error)
}

func codecOf[T interface{ Marshal() []byte }](name string, v T, parse func([]byte) (T, error)) codec {
	return codec{name, v.Marshal(), func(b []byte) ([]byte, error) {
		v, err := parse(b)
		if err != nil {
			return nil, err
		}
		return v.Marshal(), nil
	}}
}

func newClient(t testing.TB) (*mls.Client, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c, err := mls.NewClient(mls.Config{
		CipherSuite: mls.P256AES128SHA256P256, Signer: key, Credential: mls.BasicCredential([]byte("mimi://a.example/d/alice/1")),
	})
	must(t, err)
	return c, key
}

func registration(t testing.TB) *clientapi.RegisterRequest {
	t.Helper()
	c, key := newClient(t)
	q := &clientapi.RegisterRequest{
		Provider: uri(t, "mimi://a.example"), Time: 1_800_000_000_000, TLSKeyHash: [32]byte{1}, Invitation: []byte("invitation"),
		CipherSuite: mls.P256AES128SHA256P256, SignatureKey: c.SignatureKey(), Credential: mls.BasicCredential([]byte("mimi://a.example/d/alice/1")),
	}
	must(t, q.Sign(context.Background(), key))
	return q
}

func codecs(t testing.TB) []codec {
	t.Helper()
	ctx := context.Background()
	c, _ := newClient(t)
	entry, err := c.NewKeyPackage(ctx, mls.KeyPackageOptions{})
	must(t, err)
	g, err := c.CreateGroup(ctx, nil, mls.GroupOptions{})
	must(t, err)
	info, err := g.GroupInfo(ctx, mls.GroupInfoOptions{ExternalPub: true})
	must(t, err)
	room := uri(t, "mimi://a.example/r/clubhouse")
	counts := clientapi.KeyPackageCounts{{CipherSuite: 2, Left: 7, LastResort: true}}
	return []codec{
		codecOf("RegisterRequest", registration(t), clientapi.ParseRegisterRequest),
		codecOf("Registration", &clientapi.Registration{
			Client: uri(t, "mimi://a.example/d/alice/1"), User: uri(t, "mimi://a.example/u/alice"), Cursor: 9, Oldest: 3, KeyPackages: counts,
		}, clientapi.ParseRegistration),
		codecOf("KeyPackageUpload", &clientapi.KeyPackageUpload{Replace: true, KeyPackages: []*mls.KeyPackage{entry.KeyPackage}}, clientapi.ParseKeyPackageUpload),
		codecOf("KeyPackageCounts", counts, clientapi.ParseKeyPackageCounts),
		codecOf("CreateRoomRequest", &clientapi.CreateRoomRequest{RoomID: room, GroupInfo: info, RatchetTree: mls.FullTree(g.RatchetTree())}, clientapi.ParseCreateRoomRequest),
		codecOf("HubKeys", &clientapi.HubKeys{CipherSuite: 2, HubSender: mls.ExternalSender{SignatureKey: []byte{4}, Credential: mls.BasicCredential([]byte("mimi://a.example"))}, FrankingAgent: []byte{1, 2}}, clientapi.ParseHubKeys),
		codecOf("HubKeys with a receiver", &clientapi.HubKeys{
			CipherSuite: 2, HubSender: mls.ExternalSender{SignatureKey: []byte{4}, Credential: mls.BasicCredential([]byte("mimi://a.example"))}, FrankingAgent: []byte{1},
			HubReceiver: &mls.ExternalReceiver{PublicKey: []byte{4, 5}, Credential: mls.BasicCredential([]byte("mimi://a.example"))},
		}, clientapi.ParseHubKeys),
		codecOf("RoomList", clientapi.RoomList{{RoomID: room, GroupID: []byte("g"), Epoch: 4, Role: 2, Since: 5}}, clientapi.ParseRoomList),
		codecOf("JoinCodeRequest", &clientapi.JoinCodeRequest{Role: 2, Lifetime: 3600, Uses: 1}, clientapi.ParseJoinCodeRequest),
		codecOf("JoinCode", &clientapi.JoinCode{Code: []byte("code"), Expires: 1}, clientapi.ParseJoinCode),
		codecOf("AbuseVerdicts", clientapi.AbuseVerdicts{{Accepted: true}, {Reason: mimi.FrankMAC}}, clientapi.ParseAbuseVerdicts),
		codecOf("ConsentList", clientapi.ConsentList{
			{ConsentScope: mimi.ConsentScope{RequesterURI: uri(t, "mimi://b.example/u/bob"), TargetURI: uri(t, "mimi://a.example/u/alice"), RoomID: room}, State: clientapi.ConsentAsked, At: 7},
			{ConsentScope: mimi.ConsentScope{RequesterURI: uri(t, "mimi://a.example/u/alice"), TargetURI: uri(t, "mimi://b.example/p/x")}, State: clientapi.ConsentRevoked},
		}, clientapi.ParseConsentList),
		codecOf("Profile", &clientapi.Profile{SearchableURI: true, Fields: []clientapi.ProfileField{
			{Source: clientapi.ProfileOIDC, Name: "name", Value: "Alice", Searchable: true}, {Source: clientapi.ProfileHandle, Value: "im:alice", Disclosable: true},
		}}, clientapi.ParseProfile),
		codecOf("Event", &clientapi.Event{Seq: 1, Time: 2, Kind: clientapi.EventFanout, Room: room, Payload: []byte("x")}, clientapi.ParseEvent),
	}
}

// TestCodecs has each decoder take its own encoding, refuse each proper prefix
// and a trailing octet, and write again what it read.
func TestCodecs(t *testing.T) {
	for _, c := range codecs(t) {
		again, err := c.again(c.octets)
		if err != nil || !bytes.Equal(again, c.octets) {
			t.Errorf("%s: round trip: %v", c.name, err)
		}
		for n := range c.octets {
			if _, err := c.again(c.octets[:n]); err == nil {
				t.Errorf("%s: a prefix of %d of %d octets is accepted", c.name, n, len(c.octets))
				break
			}
		}
		if _, err := c.again(append(bytes.Clone(c.octets), 0)); err == nil {
			t.Errorf("%s: a trailing octet is accepted", c.name)
		}
	}
}

// FuzzDecoders gives every decoder any octets; what one accepts it must write
// again as it was.
func FuzzDecoders(f *testing.F) {
	all := codecs(f)
	for i, c := range all {
		f.Add(i, c.octets)
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		c := all[uint(i)%uint(len(all))]
		if again, err := c.again(b); err == nil && !bytes.Equal(again, b) {
			t.Errorf("%s: %x became %x", c.name, b, again)
		}
	})
}

func TestRegistrationSignature(t *testing.T) {
	q := registration(t)
	must(t, q.Verify())
	for name, change := range map[string]func(*clientapi.RegisterRequest){
		"TLS key":    func(q *clientapi.RegisterRequest) { q.TLSKeyHash[0]++ },
		"provider":   func(q *clientapi.RegisterRequest) { q.Provider = uri(t, "mimi://b.example") },
		"time":       func(q *clientapi.RegisterRequest) { q.Time++ },
		"invitation": func(q *clientapi.RegisterRequest) { q.Invitation = nil },
		"credential": func(q *clientapi.RegisterRequest) {
			q.Credential = mls.BasicCredential([]byte("mimi://a.example/d/bob/1"))
		},
	} {
		changed := *q
		change(&changed)
		if changed.Verify() == nil {
			t.Errorf("a registration with another %s verifies", name)
		}
	}
}

func TestEventStream(t *testing.T) {
	room := uri(t, "mimi://a.example/r/clubhouse")
	var stream bytes.Buffer
	for _, e := range []*clientapi.Event{{Seq: 5, Kind: clientapi.EventRoomClosed, Room: room}, nil, {Seq: 9, Kind: clientapi.EventKeyPackagesLow, Payload: []byte{0}}} {
		must(t, clientapi.WriteEvent(&stream, e))
	}
	whole := bytes.Clone(stream.Bytes())
	r := clientapi.NewEventReader(&stream, &clientapi.EventQuery{After: 4})
	var got []uint64
	for {
		e, err := r.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if e == nil {
			got = append(got, 0)
			continue
		}
		got = append(got, e.Seq)
	}
	if want := []uint64{5, 0, 9}; !equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	if _, err := clientapi.NewEventReader(bytes.NewReader(whole[:len(whole)-1]), &clientapi.EventQuery{After: 5}).Next(); err == nil {
		t.Error("an event that does not come after the cursor is accepted")
	}
	r = clientapi.NewEventReader(bytes.NewReader(whole[:9]), &clientapi.EventQuery{})
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a broken frame gives %v", err)
	}
	r = clientapi.NewEventReader(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff}), &clientapi.EventQuery{})
	if _, err := r.Next(); err == nil {
		t.Error("an event of 4 GiB is read")
	}
}

func equal(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestEventQuery(t *testing.T) {
	q := &clientapi.EventQuery{After: 12, Wait: 30 * time.Second, Follow: true}
	back, err := clientapi.ParseEventQuery(q.Values())
	must(t, err)
	if *back != *q {
		t.Errorf("%+v became %+v", q, back)
	}
	for _, bad := range []string{"after=-1", "after=x", "after=1&after=2", "wait=1.5", "follow=maybe", "from=1", "after=9223372036854775808"} {
		v, err := url.ParseQuery(bad)
		must(t, err)
		if _, err := clientapi.ParseEventQuery(v); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func TestProblem(t *testing.T) {
	p := clientapi.Problemf(clientapi.CodeTooMany, "wait a little").After(7 * time.Second)
	w := httptest.NewRecorder()
	p.Write(w)
	got := problem.Read(w.Result(), time.Now())
	if !clientapi.CodeTooMany.Is(got) || clientapi.CodeRefused.Is(got) || got.RetryAfter != 7*time.Second || !clientapi.Temporary(got) {
		t.Errorf("read %+v", got)
	}
	if clientapi.Temporary(clientapi.Problemf(clientapi.CodeRefused, "no")) {
		t.Error("a refusal is temporary")
	}
}
