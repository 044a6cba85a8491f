package main

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// TestServeFrankingBefore replaces both keys that frank, in a token: franks of
// the old ones go on to be verified until the time that the configuration says,
// and rooms may still be franked with the old signature key.
func TestServeFrankingBefore(t *testing.T) {
	const suite = mls.P256AES128SHA256P256
	w := newProviderTest(t)
	turn := time.Now().Truncate(time.Second).Add(time.Hour)
	uri := func(s string) mimi.URI {
		u, err := mimi.ParseURI(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	content := mimi.FrankedContent{ApplicationData: []byte("hello"), SenderURI: uri("mimi://a.example/u/alice"), RoomURI: uri("mimi://a.example/r/clubhouse")}
	frank := func(mac, key signer.KeyID, at time.Time) *mimi.FrankReport {
		m, err := w.ring.MAC(t.Context(), mac, signer.PurposeFrankMAC)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.ring.Signer(t.Context(), key, signer.PurposeFrankSign)
		if err != nil {
			t.Fatal(err)
		}
		c := mimi.ServerFrankingContext{SenderURI: content.SenderURI, RoomURI: content.RoomURI, AcceptedTimestamp: uint64(at.UnixMilli())}
		f, err := (&mimi.Franker{CipherSuite: suite, MAC: m, Signer: s}).Frank(t.Context(), mimi.ComputeFrankingTag(content.Salt, content.ApplicationData), &c)
		if err != nil {
			t.Fatal(err)
		}
		return &mimi.FrankReport{Content: content, Frank: f, AcceptedTimestamp: c.AcceptedTimestamp, RoomURI: content.RoomURI, AllegedAbuser: content.SenderURI}
	}
	old := frank("mac", "frank", turn.Add(-time.Minute))
	for id, purpose := range map[signer.KeyID]signer.Purpose{"frank-2": signer.PurposeFrankSign, "mac-2": signer.PurposeFrankMAC} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: purpose, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	p := w.config.Serve.Provider
	k := &p.Keys[0]
	k.Before = []FrankKeyBefore{{FrankKey: "frank", FrankCertificate: k.FrankCertificate, Until: turn.Format(time.RFC3339)}}
	k.FrankKey, k.FrankCertificate = "frank-2", certifyHub(t, w.wiring, w.ca, "a.example", "frank-2", signer.PurposeFrankSign)
	p.MACKeysBefore = []MACKeyBefore{{MACKey: "mac", Until: turn.Format(time.RFC3339)}}
	p.MACKey = "mac-2"
	if err := w.config.check(); err != nil {
		t.Fatal(err)
	}
	component, err := newProviderComponent(t.Context(), w.wiring, w.config.Serve, deps{log: slog.New(slog.DiscardHandler), metrics: telemetry.NewMetrics(buildInfo())})
	if err != nil {
		t.Fatal(err)
	}
	provider := component.(*providerComponent)
	defer provider.close()
	cfg, err := provider.serviceConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys := cfg.Keys(suite)
	if len(keys.Before) != 1 || string(keys.Before[0].Public) == string(keys.Franking.SignatureKey) {
		t.Errorf("keys of before: %+v", keys.Before)
	}
	for name, c := range map[string]struct {
		report *mimi.FrankReport
		stands bool
	}{
		"of before":           {old, true},
		"of now":              {frank("mac-2", "frank-2", turn), true},
		"of now, signed once": {frank("mac-2", "frank", turn.Add(-time.Second)), true}, // a room that has not committed the new key
		"of before, too late": {frank("mac", "frank", turn), false},                    // whoever has the old keys makes no more franks
		"old MAC, too late":   {frank("mac", "frank-2", turn), false},
		"old key, too late":   {frank("mac-2", "frank", turn), false},
	} {
		err := cfg.Franks.VerifyReport(t.Context(), c.report)
		if why := new(mimi.FrankError); c.stands && err != nil || !c.stands && !errors.As(err, &why) {
			t.Errorf("a frank %s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(){
		"a MAC key without an end":   func() { p.MACKeysBefore = []MACKeyBefore{{MACKey: "mac"}} },
		"the MAC key in force":       func() { p.MACKeysBefore = []MACKeyBefore{{MACKey: "mac-2", Until: "2026-01-01T00:00:00Z"}} },
		"a time that is none":        func() { p.MACKeysBefore, k.Before[0].Until = nil, "yesterday" },
		"a key without certificate":  func() { k.Before[0].Until, k.Before[0].FrankCertificate = "", "" },
		"the franking key in force ": func() { k.Before[0] = FrankKeyBefore{FrankKey: "frank-2", FrankCertificate: k.FrankCertificate} },
	} {
		macs, before := p.MACKeysBefore, k.Before[0]
		spoil()
		if err := w.config.check(); err == nil {
			t.Errorf("%s is accepted", name)
		}
		p.MACKeysBefore, k.Before[0] = macs, before
	}
}

// TestServeFrankingReload replaces the keys that frank while the process serves:
// the room gets the new one, every message is franked, and reports of all of them
// stand. What would leave a message without a frank that can be verified is not
// taken.
func TestServeFrankingReload(t *testing.T) {
	w := newProviderTest(t)
	file, err := json.Marshal(w.config)
	if err != nil {
		t.Fatal(err)
	}
	next := new(Config)
	if err := json.Unmarshal(file, next); err != nil {
		t.Fatal(err)
	}
	s := serveFile(t, w.wiring, func() (*Config, error) { return next, nil })
	s.eventually("ready", func() bool { code, _ := s.page("/health/ready"); return code == http.StatusOK })
	alice, _ := member(t, w.ca, s, w.judge, deviceTLS(t, w.roots), "alice")
	bob, _ := member(t, w.ca, s, w.judge, deviceTLS(t, w.roots), "bob")
	room, err := alice.CreateRoom(t.Context(), parseURI(t, "mimi://a.example/r/clubhouse"), client.RoomOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := room.Add(t.Context(), bob.User(), client.AddOptions{}); err != nil {
		t.Fatal(err)
	}
	say := func(text string) content.MessageID {
		t.Helper()
		sent, err := room.Text(t.Context(), text)
		if err != nil || sent.NotFranked != "" {
			t.Fatalf("%s: %+v %v", text, sent, err)
		}
		return sent.ID
	}
	agent := func() string {
		t.Helper()
		v, err := room.Component(t.Context(), policy.ComponentFrankingAgent)
		if err != nil {
			t.Fatal(err)
		}
		return string(v.([]byte))
	}
	ids, before := []content.MessageID{say("one")}, agent()
	for id, purpose := range map[signer.KeyID]signer.Purpose{"frank-2": signer.PurposeFrankSign, "mac-2": signer.PurposeFrankMAC} {
		if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: id, Purpose: purpose, Device: "softhsm"}); err != nil {
			t.Fatal(err)
		}
	}
	p, old := next.Serve.Provider, next.Serve.Provider.Keys[0].FrankCertificate
	k := &p.Keys[0]
	k.FrankKey, k.FrankCertificate = "frank-2", certifyHub(t, w.wiring, w.ca, "a.example", "frank-2", signer.PurposeFrankSign)
	p.MACKey = "mac-2"
	late := time.Now().Add(-time.Second).Format(time.RFC3339)
	for name, spoil := range map[string]func(){
		"neither key of before": func() {},
		"no signature key of before": func() {
			p.MACKeysBefore = []MACKeyBefore{{MACKey: "mac", Until: time.Now().Add(time.Hour).Format(time.RFC3339)}}
		},
		"a MAC key that has ended": func() {
			p.MACKeysBefore = []MACKeyBefore{{MACKey: "mac", Until: late}}
			k.Before = []FrankKeyBefore{{FrankKey: "frank", FrankCertificate: old}}
		},
	} {
		p.MACKeysBefore, k.Before = nil, nil
		spoil()
		if err := s.daemon.Reload(t.Context()); exitCode(err) == 0 {
			t.Errorf("with %s the keys are taken", name)
		}
	}
	ids = append(ids, say("two")) // nothing has changed
	p.MACKeysBefore = []MACKeyBefore{{MACKey: "mac", Until: time.Now().Add(time.Hour).Format(time.RFC3339)}}
	k.Before = []FrankKeyBefore{{FrankKey: "frank", FrankCertificate: old}}
	if err := s.daemon.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	ids = append(ids, say("three")) // with the old key, until it is committed
	s.eventually("the room has the new key", func() bool {
		if err := alice.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i, err := room.Info(t.Context()); err != nil || i.Pending > 0 {
			if _, err := room.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return agent() != before
	})
	ids = append(ids, say("four"))
	if err := bob.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	his, err := bob.Room(t.Context(), room.URI())
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := his.ReportAbuse(t.Context(), ids, "")
	if err != nil || len(verdicts) != len(ids) {
		t.Fatalf("%v %v", verdicts, err)
	}
	for i, v := range verdicts {
		if !v.Accepted {
			t.Errorf("message %d: %s", i+1, v.Reason)
		}
	}
}

// TestRotateSaysHow has "key rotate" refuse keys that frank, and takes the steps
// that it names: the hub would take up what comes of them at a reload.
func TestRotateSaysHow(t *testing.T) {
	w := newProviderTest(t)
	if _, err := w.ring.Create(t.Context(), signer.NewKey{ID: "mac-2", Purpose: signer.PurposeFrankMAC, Device: "softhsm"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id, next  signer.KeyID
		where     string
		says      []string
		wantSteps int
	}{
		{"frank", "frank-2", "keys[0]", []string{"key create frank-2 --purpose frank-sign --device softhsm", "--provider mimi://a.example", `an "until"`}, 6},
		{"mac", "mac-3", "", []string{"key create mac-3 --purpose frank-mac --device softhsm"}, 3}, // mac-2 is taken
	} {
		err := w.mayRotate(t.Context(), c.id)
		if exitCode(err) != exitRefused {
			t.Fatalf("%s: %v", c.id, err)
		}
		says(t, err.Error(), append(c.says, "SIGHUP")...)
		if n := strings.Count(err.Error(), "\n  "); n != c.wantSteps {
			t.Errorf("%s: %d steps, want %d:\n%v", c.id, n, c.wantSteps, err)
		}
		mark := "in serve.provider" + c.where + ": "
		if c.where != "" {
			mark = "in serve.provider." + c.where + ": "
		}
		_, members, ok := strings.Cut(err.Error(), mark)
		members, _, _ = strings.Cut(members, "\n")
		if !ok {
			t.Fatalf("no %q in:\n%v", mark, err)
		}
		next := *w.config.Serve.Provider
		next.Keys = slices.Clone(next.Keys)
		into := any(&next)
		if c.where != "" {
			into = &next.Keys[0]
		}
		if err := json.Unmarshal([]byte("{"+members+"}"), into); err != nil {
			t.Fatalf("%s: %v", members, err)
		}
		if err := next.checkFranking("serve.provider"); err != nil {
			t.Errorf("%s: %v", members, err)
		}
		changed, differs := w.config.Serve.Provider.withFranking(&next)
		if err := w.config.Serve.Provider.checkSuccession(changed, time.Now()); err != nil || !differs {
			t.Errorf("%s: %v, differs: %v", members, err, differs)
		}
		if changed.MACKey != c.next && changed.Keys[0].FrankKey != c.next {
			t.Errorf("%s does not follow: %s", c.next, members)
		}
	}
	if err := w.mayRotate(t.Context(), "web"); err != nil {
		t.Errorf("a key that does not frank: %v", err)
	}
}
