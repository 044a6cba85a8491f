package provider_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/hpke"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
	"github.com/privyseal/privyseal/mimi/peer"
	rooms "github.com/privyseal/privyseal/mimi/room"
	"github.com/privyseal/privyseal/mls"
)

// later is a clock that a test moves on.
type later struct{ by atomic.Int64 }

func (l *later) now() time.Time      { return time.Now().Add(time.Duration(l.by.Load())) }
func (l *later) set(d time.Duration) { l.by.Store(int64(d)) }

// Whatever a hub may send us, a client of ours can read: one event that it cannot
// would keep all that come after it.
func TestEventsHoldWhatHubsSend(t *testing.T) {
	const begin = "mimi://a.example/r/"
	room := uri(t, begin+strings.Repeat("x", mimi.MaxURI-len(begin)))
	e := clientapi.Event{Seq: 1<<63 - 1, Time: 1<<63 - 1, Kind: clientapi.EventFanout, Room: room}
	const vector = 3 // octets by which a long vector's header is longer than that of an empty one
	if n := len(e.Marshal()) + vector + peer.MaxNotify; n > clientapi.MaxEvent {
		t.Errorf("an event may have %d octets, and clients read %d", n, clientapi.MaxEvent)
	}
	if peer.MaxNotify > clientapi.MaxResponse {
		t.Errorf("clients read answers of %d octets", clientapi.MaxResponse)
	}
}

// Who asks for rooms that are not there drives none out of memory.
func TestInventedRoomsDriveNobodyOut(t *testing.T) {
	w := knownWorld(t, false, "a.example")
	w.mods = append(w.mods, func(c *provider.Config) { c.MaxRooms = 2 })
	n := w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
	w.hubs["a.example"] = n
	alice := w.person("alice/phone@a.example")
	alice.create(clubhouse)
	room := uri(t, clubhouse)
	if !n.InMemory(room) {
		t.Fatal("the room is not in memory to begin with")
	}
	for i := range 10 {
		_, err := n.Inspect(t.Context(), uri(t, fmt.Sprintf("mimi://a.example/r/made-up-%d", i)))
		if !errors.Is(err, provider.ErrNoRoom) {
			t.Fatalf("a room that is not there: %v", err)
		}
	}
	if !n.InMemory(room) {
		t.Error("rooms that are not there drove one out that is")
	}
	alice.create(clubhouse + "2")
	alice.create(clubhouse + "3")
	if n.InMemory(room) {
		t.Error("three rooms are in memory, want 2")
	}
	alice.say(clubhouse, "still here")
}

// What is kept of abuse reports is bounded: by reporter, so that others go on.
func TestReportsAreBounded(t *testing.T) {
	var at later
	w := knownWorld(t, false, "a.example")
	w.mods = append(w.mods, func(c *provider.Config) { c.Now = at.now })
	n := w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
	w.hubs["a.example"] = n
	alice, adam := w.person("alice/phone@a.example"), w.person("adam/phone@a.example")
	alice.create(clubhouse, adam)
	report := func(p *person) error {
		q := &mimi.AbuseReport{ReportingUser: p.User(), AllegedAbuserURI: adam.User(), Note: "again"}
		_, err := n.ReportAbuse(t.Context(), hub.From{Provider: "a.example", Client: p.URI()}, uri(t, clubhouse), q)
		return err
	}
	for range 100 {
		ok(t, report(alice))
	}
	if err := report(alice); status(err) != http.StatusTooManyRequests {
		t.Errorf("the hundred-first report of a day: %v", err)
	}
	ok(t, report(adam))
	at.set(25 * time.Hour)
	ok(t, report(alice))
}

// A note is text of anybody: what a database does not take as text, it is given
// in another form.
func TestReportWithOddNote(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example")
		alice := w.person("alice/phone@a.example")
		alice.create(clubhouse)
		q := &mimi.AbuseReport{ReportingUser: alice.User(), AllegedAbuserURI: alice.User(), Note: "a\x00b"}
		q = must[*mimi.AbuseReport](t)(mimi.ParseAbuseReport(q.Marshal()))
		if _, err := w.hubs["a.example"].ReportAbuse(t.Context(), hub.From{Provider: "a.example", Client: alice.URI()}, uri(t, clubhouse), q); err != nil {
			t.Error(err)
		}
	})
}

// Requests have no more octets than their route takes, of whoever knocks.
func TestRequestsAreBounded(t *testing.T) {
	w := newWorld(t, false, "a.example")
	alice := w.person("alice/phone@a.example")
	big := make([]byte, 300<<10)
	post := func(path string, body []byte, length int64) int {
		t.Helper()
		c := http.Client{Transport: &http.Transport{TLSClientConfig: alice.cfg.TLS, ForceAttemptHTTP2: true}}
		defer c.CloseIdleConnections()
		r := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), "POST", w.hubs["a.example"].url+path, bytes.NewReader(body)))
		r.ContentLength = length
		resp := must[*http.Response](t)(c.Do(r))
		resp.Body.Close()
		return resp.StatusCode
	}
	room := uri(t, clubhouse)
	for path, want := range map[string]int{
		clientapi.PathDevice: 413, clientapi.PathKeyMaterial: 413, clientapi.GroupInfoPath(room): 413, clientapi.MessagesPath(room): 413,
		clientapi.PathKeyPackages: 400, clientapi.UpdatePath(room): 400,
	} {
		for _, length := range []int64{int64(len(big)), -1} {
			if got := post(path, big, length); got != want {
				t.Errorf("POST %s of %d octets (said %d): %d, want %d", path, len(big), length, got, want)
			}
		}
	}
}

// A last resort that was handed out and then replaced is handed out no more, and
// a Welcome for it still finds its client.
func TestReplacedLastResortIsKnown(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		var at later
		w := knownWorld(t, pg, "a.example")
		w.mods = append(w.mods, func(c *provider.Config) { c.Now = at.now })
		n := w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
		key := identitytest.NewKey(t)
		caller := &provider.Caller{
			Client: uri(t, "mimi://a.example/d/bob/1"), User: uri(t, "mimi://a.example/u/bob"), Suite: suite,
			Key: publicKey(t, key), Credential: w.ca.Client(t, &key.PublicKey, "mimi://a.example/d/bob/1", "mimi://a.example/u/bob"),
		}
		c := must[*mls.Client](t)(mls.NewClient(mls.Config{CipherSuite: suite, Signer: key, Credential: caller.Credential, Capabilities: rooms.Capabilities(), Components: rooms.Components()}))
		resort := func() *mls.KeyPackage {
			return must[*mls.KeyPackageEntry](t)(c.NewKeyPackage(t.Context(), mls.KeyPackageOptions{LastResort: true})).KeyPackage
		}
		upload := func(replace bool, list ...*mls.KeyPackage) {
			t.Helper()
			counts := must[clientapi.KeyPackageCounts](t)(n.Upload(t.Context(), caller, &clientapi.KeyPackageUpload{Replace: replace, KeyPackages: list}))
			if len(counts) != 1 || !counts[0].LastResort {
				t.Errorf("after an upload: %+v", counts)
			}
		}
		rows := func(k *mls.KeyPackage) (known, resort int) {
			t.Helper()
			err := n.db.QueryRow(t.Context(), `SELECT count(*), coalesce(max(last_resort), 0) FROM key_package WHERE ref = ?`, k.Ref()).Scan(&known, &resort)
			ok(t, err)
			return known, resort
		}
		first, second, third := resort(), resort(), resort()
		upload(false, first)
		ok(t, n.db.Batch(context.Background(), func(tx *sqldb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE key_package SET taken = 1 WHERE ref = ?`, first.Ref())
			return err
		}))
		upload(false, second)
		if known, is := rows(first); known != 1 || is != 0 {
			t.Errorf("handed out and replaced: %d rows, last resort %d", known, is)
		}
		upload(true, third)
		if known, _ := rows(second); known != 0 {
			t.Error("one that nobody was given is kept")
		}
		if known, _ := rows(first); known != 1 {
			t.Error("a Welcome for what was handed out does not find its client any more")
		}
		upload(true, third) // again
		if known, is := rows(third); known != 1 || is != 1 {
			t.Errorf("uploaded again: %d rows, last resort %d", known, is)
		}
		at.set(400 * 24 * time.Hour)
		ok(t, n.Purge(t.Context()))
		if known, _ := rows(first); known != 0 {
			t.Error("a KeyPackage is kept after it is over")
		}
	})
}

// A hub asks in its own name for those only who are in the room.
func TestHubAsksForItsRooms(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example", "c.example")
	alice, bob, eve := w.person("alice/phone@a.example"), w.person("bob/tablet@b.example"), w.person("eve/phone@c.example")
	alice.create(clubhouse, bob)
	key := identitytest.NewKey(t)
	ask := func(p *person, room string) *mimi.KeyMaterialResponse {
		t.Helper()
		q := &mimi.KeyMaterialRequest{
			Protocol: mimi.ProtocolMLS10, RequestingUser: p.User(), TargetUser: bob.User(), RoomID: uri(t, room), AcceptableSuites: []mls.CipherSuite{suite},
			RequesterKey: publicKey(t, key), RequesterCredential: w.ca.Client(t, &key.PublicKey, p.URI().String(), p.User().String()),
		}
		ok(t, q.Sign(t.Context(), key))
		host := p.URI().Host()
		b, err := w.hubs[host].peer.Do(t.Context(), "a.example", peer.KeyMaterial, bob.User().String(), q.Marshal())
		ok(t, err)
		return must[*mimi.KeyMaterialResponse](t)(mimi.ParseKeyMaterialResponse(b))
	}
	if p := ask(bob, clubhouse); p.UserStatus != mimi.KeyMaterialSuccess {
		t.Errorf("a participant: %s", p.UserStatus)
	}
	for _, room := range []string{clubhouse, "mimi://a.example/r/made-up"} {
		if p := ask(eve, room); p.UserStatus != mimi.KeyMaterialNoConsent || len(p.Clients) > 0 {
			t.Errorf("a stranger for %s: %s", room, p.UserStatus)
		}
	}
}

// What a client says of a room of another hub is not noted, and one that the hub
// refuses hears nothing of it.
func TestClientsTellNothingOfFollowedRooms(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	alice, eve := w.person("alice/phone@a.example"), w.person("eve/phone@b.example")
	alice.create(clubhouse)
	key := identitytest.NewKey(t)
	c := must[*mls.Client](t)(mls.NewClient(mls.Config{CipherSuite: suite, Signer: key, Credential: w.ca.Client(t, &key.PublicKey, eve.URI().String(), eve.User().String())}))
	g := must[*mls.Group](t)(c.CreateGroup(t.Context(), []byte("another group"), mls.GroupOptions{}))
	pending := must[*mls.PendingCommit](t)(g.Commit(t.Context(), mls.CommitOptions{WireFormat: mls.WirePublicMessage}))
	u := &mimi.HandshakeBundle{
		ProposalOrCommit: must[*mimi.MLSMessage](t)(mimi.ParseMLSMessage(pending.Message)),
		GroupInfo:        mimi.GroupInfoOption{Full: must[*mls.GroupInfo](t)(g.GroupInfo(t.Context(), mls.GroupInfoOptions{}))},
	}
	b := w.hubs["b.example"]
	heard := func() int {
		t.Helper()
		return len(must[clientapi.RoomList](t)(b.Rooms(t.Context(), eve.URI(), eve.User())))
	}
	if p, err := b.RelayUpdate(t.Context(), eve.URI(), uri(t, clubhouse), u); err == nil && p.ResponseCode == mimi.UpdateSuccess {
		t.Fatal("a commit of another group was accepted")
	}
	if _, err := b.RelayUpdate(t.Context(), eve.URI(), uri(t, "mimi://a.example/r/made-up"), u); !clientapi.CodeNotFound.Is(err) {
		t.Errorf("a room that is not there: %v", err)
	}
	if n := heard(); n != 0 {
		t.Errorf("eve hears %d rooms", n)
	}
	var id []byte
	ok(t, b.db.QueryRow(t.Context(), `SELECT group_id FROM room WHERE uri = ?`, clubhouse).Scan(&id))
	if len(id) > 0 {
		t.Errorf("the room's group is %q, as a client says", id)
	}
}

// A KeyPackage that a user gives away with a consent is known, so that a Welcome
// for it finds its client, and nobody else is given it. Others' are refused.
func TestGrantedKeyPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		w := newWorld(t, pg, "a.example")
		alice := w.person("alice/phone@a.example")
		n := w.hubs["a.example"]
		key := alice.cfg.Custody.Key.(*ecdsa.PrivateKey)
		engine := func(key *ecdsa.PrivateKey, credential mls.Credential) *mls.KeyPackage {
			c := must[*mls.Client](t)(mls.NewClient(mls.Config{CipherSuite: suite, Signer: key, Credential: credential, Capabilities: rooms.Capabilities(), Components: rooms.Components()}))
			return must[*mls.KeyPackageEntry](t)(c.NewKeyPackage(t.Context(), mls.KeyPackageOptions{})).KeyPackage
		}
		own := engine(key, alice.cfg.Custody.Credential)
		caller := &provider.Caller{Client: alice.URI(), User: alice.User(), Suite: suite, Key: publicKey(t, key), Credential: alice.cfg.Custody.Credential}
		must[clientapi.KeyPackageCounts](t)(n.Upload(t.Context(), caller, &clientapi.KeyPackageUpload{KeyPackages: []*mls.KeyPackage{own}}))
		fresh := engine(key, alice.cfg.Custody.Credential)
		grant := &mimi.ConsentEntry{
			Operation: mimi.ConsentGrant, ConsentScope: mimi.ConsentScope{RequesterURI: uri(t, "mimi://b.example/u/bob"), TargetURI: alice.User()},
			ClientKeyPackages: []*mls.KeyPackage{own, fresh},
		}
		ok(t, n.Granted(t.Context(), caller, grant))
		ok(t, n.Granted(t.Context(), caller, grant)) // again
		for name, k := range map[string]*mls.KeyPackage{"uploaded": own, "fresh": fresh} {
			var free int
			var client string
			ok(t, n.db.QueryRow(t.Context(), `SELECT client, CASE WHEN taken IS NULL THEN 1 ELSE 0 END FROM key_package WHERE ref = ?`, k.Ref()).Scan(&client, &free))
			if client != alice.URI().String() || free != 0 {
				t.Errorf("%s: of %s, free %d", name, client, free)
			}
		}
		stranger := identitytest.NewKey(t)
		grant.ClientKeyPackages = []*mls.KeyPackage{engine(stranger, w.ca.Client(t, &stranger.PublicKey, alice.URI().String(), alice.User().String()))}
		if err := n.Granted(t.Context(), caller, grant); status(err) != 400 {
			t.Errorf("a KeyPackage of nobody's: %v", err)
		}
	})
}

// What the path is about decides nothing: the body does, and a path about somebody
// else is refused. A request of another provider names a room.
func TestKeyMaterialPath(t *testing.T) {
	w := newWorld(t, false, "a.example", "b.example")
	bob, adam := w.person("bob/tablet@b.example"), w.person("adam/phone@b.example")
	alice := w.person("alice/phone@a.example")
	alice.create(clubhouse, bob)
	key := identitytest.NewKey(t)
	ask := func(path mimi.URI, room mimi.URI) error {
		q := &mimi.KeyMaterialRequest{
			Protocol: mimi.ProtocolMLS10, RequestingUser: alice.User(), TargetUser: bob.User(), RoomID: room, AcceptableSuites: []mls.CipherSuite{suite},
			RequesterKey: publicKey(t, key), RequesterCredential: w.ca.Client(t, &key.PublicKey, alice.URI().String(), alice.User().String()),
		}
		ok(t, q.Sign(t.Context(), key))
		_, err := w.hubs["a.example"].peer.Do(t.Context(), "b.example", peer.KeyMaterial, path.String(), q.Marshal())
		return err
	}
	ok(t, ask(bob.User(), uri(t, clubhouse)))
	for name, err := range map[string]error{
		"a path about another user": ask(adam.User(), uri(t, clubhouse)),
		"no room":                   ask(bob.User(), mimi.URI{}),
	} {
		if status(err) != 400 {
			t.Errorf("%s: %v, want 400", name, err)
		}
	}
	if err := ask(bob.User(), uri(t, "mimi://b.example/r/x")); err != nil {
		t.Errorf("a room of the target's provider, in which alice is not: %v", err)
	}
}

// The same request gets the same KeyPackages, for a minute; the same HPKE key is
// answered once.
func TestRepeatedRequests(t *testing.T) {
	onBoth(t, func(t *testing.T, pg bool) {
		var at later
		w := knownWorld(t, pg, "a.example")
		w.mods = append(w.mods, func(c *provider.Config) { c.Now = at.now })
		n := w.start("a.example", w.source(), newHubKeys(t, w.ca, "a.example"))
		w.hubs["a.example"] = n
		alice, bob := w.person("alice/phone@a.example"), w.person("bob/tablet@a.example")
		alice.create(clubhouse)
		key := identitytest.NewKey(t)
		from := hub.From{Provider: "a.example", Client: alice.URI()}
		credential := w.ca.Client(t, &key.PublicKey, alice.URI().String(), alice.User().String())
		q := &mimi.KeyMaterialRequest{
			Protocol: mimi.ProtocolMLS10, RequestingUser: alice.User(), TargetUser: bob.User(), RoomID: uri(t, clubhouse), AcceptableSuites: []mls.CipherSuite{suite},
			RequesterKey: publicKey(t, key), RequesterCredential: credential,
		}
		ok(t, q.Sign(t.Context(), key))
		ask := func() []byte {
			t.Helper()
			return must[*mimi.KeyMaterialResponse](t)(n.KeyMaterial(t.Context(), from, q)).Marshal()
		}
		first := ask()
		if !bytes.Equal(ask(), first) {
			t.Error("the same request got other KeyPackages")
		}
		at.set(2 * time.Minute)
		if bytes.Equal(ask(), first) {
			t.Error("the same request got the same KeyPackages after a minute")
		}
		at.set(0)

		init := must[hpke.PrivateKey](t)(suite.KEM().GenerateKey())
		g := &mimi.GroupInfoRequest{
			Protocol: mimi.ProtocolMLS10, CipherSuite: suite, RequestingKey: publicKey(t, key), RequestingCredential: credential, GroupInfoPublicKey: init.PublicKey().Bytes(),
		}
		ok(t, g.Sign(t.Context(), key))
		for i, want := range []mimi.GroupInfoCode{mimi.GroupInfoSuccess, mimi.GroupInfoNotAuthorized} {
			if p, err := n.GroupInfo(t.Context(), from, uri(t, clubhouse), g); err != nil || p.Status != want {
				t.Errorf("time %d: %+v, %v, want %d", i, p, err, want)
			}
		}
	})
}

// A client that lacks what a room requires, which no request can name, does not
// keep its user's others out.
func TestMisfitsAreLeftOut(t *testing.T) {
	w := newWorld(t, false, "a.example")
	alice, phone, old := w.person("alice/phone@a.example"), w.person("bob/phone@a.example"), w.person("bob/old@a.example")
	key := old.cfg.Custody.Key.(*ecdsa.PrivateKey)
	caller := &provider.Caller{Client: old.URI(), User: old.User(), Suite: suite, Key: publicKey(t, key), Credential: old.cfg.Custody.Credential}
	for name, cfg := range map[string]mls.Config{
		"no media types": {Components: rooms.Components(), SafeAADItems: rooms.SafeAADItems()},
		"no components":  {SafeAADItems: rooms.SafeAADItems(), MediaTypes: rooms.MediaTypes()},
		"no Safe AAD":    {Components: rooms.Components(), MediaTypes: rooms.MediaTypes()},
	} {
		cfg.CipherSuite, cfg.Signer, cfg.Credential, cfg.Capabilities = suite, key, old.cfg.Custody.Credential, rooms.Capabilities()
		c := must[*mls.Client](t)(mls.NewClient(cfg))
		k := must[*mls.KeyPackageEntry](t)(c.NewKeyPackage(t.Context(), mls.KeyPackageOptions{})).KeyPackage
		must[clientapi.KeyPackageCounts](t)(w.hubs["a.example"].Upload(t.Context(), caller, &clientapi.KeyPackageUpload{Replace: true, KeyPackages: []*mls.KeyPackage{k}}))
		room := must[*client.Room](t)(alice.CreateRoom(t.Context(), uri(t, "mimi://a.example/r/"+strings.ReplaceAll(name, " ", "-")), client.RoomOptions{}))
		if _, err := room.Add(t.Context(), phone.User(), client.AddOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, p := range must[*client.Info](t)(room.Info(t.Context())).Participants {
			if p.User == phone.User() && (len(p.Clients) != 1 || p.Clients[0].Client != phone.URI()) {
				t.Errorf("%s: bob is in the room with %v", name, p.Clients)
			}
		}
	}
}
