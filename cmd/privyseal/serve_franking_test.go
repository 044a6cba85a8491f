package main

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/privyseal/privyseal/internal/telemetry"
	"github.com/privyseal/privyseal/mimi"
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
