package mimi_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// The values below are computed from original.cbor of
// draft-ietf-mimi-content-08 with hub_key 00..1f, the example's timestamp,
// suite 1 and the key of RFC 8032 section 7.1, test 1.
const (
	originalCBOR = "87505eed9406c2545547ab6f09f20a18b003f640f6f6a20178206d696d693a2f2f6578616d706c652e636f6d2f752f616c6963652d736d6974680278256d696d693a2f2f6578616d706c652e636f6d2f722f656e67696e656572696e675f7465616d85016001781e746578742f6d61726b646f776e3b76617269616e743d47464d2d4d494d49583948692065766572796f6e652c207765206a75737420736869707065642072656c6561736520322e302e205f5f476f6f642020776f726b5f5f21"
	originalTime = 1644387225019
	wantTag      = "a9a69f1d2fe6f37984190c093ecb8a10d647093db735fb7ba926bfdccff4c2bf"
	wantFrank    = "395d272f8a11846200e6c5cece361210556ac6981b2f6462c29ad92bbcba8609"
	wantSig      = "c8ec90f743b2e84b16f2f58d7ed584ac0fa8fe679daa50069c7627bbf35276020da7bc42ec63b493c9e6cae35e8b183d16419b09ff2b13e818692d344d87d801"
	seedRFC8032  = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hubKey() mimi.SoftwareMAC {
	k := make(mimi.SoftwareMAC, 32)
	for i := range k {
		k[i] = byte(i)
	}
	return k
}

// franked returns the published message, its frank and the hub's key.
func franked(t testing.TB) (mimi.FrankedMessage, ed25519.PrivateKey) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(unhex(t, seedRFC8032))
	sender, room := mimi.URI{}, mimi.URI{}
	for u, s := range map[*mimi.URI]string{&sender: "mimi://example.com/u/alice-smith", &room: "mimi://example.com/r/engineering_team"} {
		var err error
		if *u, err = mimi.ParseURI(s); err != nil {
			t.Fatal(err)
		}
	}
	m := mimi.FrankedMessage{
		Content: mimi.FrankedContent{
			ApplicationData: unhex(t, originalCBOR),
			Salt:            [16]byte(unhex(t, "5eed9406c2545547ab6f09f20a18b003")),
			SenderURI:       sender, RoomURI: room,
		},
		AcceptedTimestamp: originalTime,
		GroupSuite:        1,
		AgentKey:          key.Public().(ed25519.PublicKey),
		AgentDomain:       "example.com",
		LeafUserURI:       sender,
		RoomURI:           room,
	}
	m.Tag = mimi.ComputeFrankingTag(m.Content.Salt, m.Content.ApplicationData)
	hub := mimi.Franker{CipherSuite: 1, MAC: hubKey(), Signer: key}
	var err error
	m.Frank, err = hub.Frank(context.Background(), m.Tag, &mimi.ServerFrankingContext{SenderURI: sender, RoomURI: room, AcceptedTimestamp: originalTime})
	if err != nil {
		t.Fatal(err)
	}
	return m, key
}

func TestFrankValues(t *testing.T) {
	m, _ := franked(t)
	if got := hex.EncodeToString(m.Tag[:]); got != wantTag {
		t.Errorf("tag %s", got)
	}
	if got := hex.EncodeToString(m.Frank.ServerFrank[:]); got != wantFrank {
		t.Errorf("server frank %s", got)
	}
	if got := hex.EncodeToString(m.Frank.IntegritySignature); got != wantSig {
		t.Errorf("signature %s", got)
	}
	wire := m.Frank.Marshal()
	if want := wantFrank + "0001" + "4040" + wantSig; hex.EncodeToString(wire) != want {
		t.Errorf("frank %x", wire)
	}
	framed := append(unhex(t, "18"+hex.EncodeToString([]byte("application/mimi-content"))+"0040c1"), m.Content.ApplicationData...)
	if tag := mimi.ComputeFrankingTag(m.Content.Salt, framed); hex.EncodeToString(tag[:]) != "cac50818a758d500a44109d35073e0ce59d35c81f68eaf911c5b930d014034d0" {
		t.Errorf("tag of framed content %x", tag)
	}
	if err := m.Verify(); err != nil {
		t.Errorf("Verify: %v", err)
	}
}

func TestFrankPrefixes(t *testing.T) {
	m, _ := franked(t)
	wire := m.Frank.Marshal()
	for n := range wire {
		if _, err := mimi.ParseFrank(wire[:n]); err == nil {
			t.Errorf("the first %d octets were accepted", n)
		}
	}
	if _, err := mimi.ParseFrank(append(wire, 0)); err == nil {
		t.Error("a trailing octet was accepted")
	}
	long := mimi.Frank{IntegritySignature: make([]byte, 300)}
	if _, err := mimi.ParseFrank(long.Marshal()); err == nil {
		t.Error("a signature of 300 octets was accepted")
	}
}

func mustURI(t testing.TB, s string) mimi.URI {
	t.Helper()
	u, err := mimi.ParseURI(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestReceiverRefuses(t *testing.T) {
	bob := mustURI(t, "mimi://example.com/u/bob")
	other := mustURI(t, "mimi://example.com/r/other")
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*mimi.FrankedMessage)
		want   mimi.FrankReason
	}{
		{"suite of another group", func(m *mimi.FrankedMessage) { m.GroupSuite = 2 }, mimi.FrankSuite},
		{"no agent", func(m *mimi.FrankedMessage) { m.AgentKey = nil }, mimi.FrankAgent},
		{"agent of another domain", func(m *mimi.FrankedMessage) { m.AgentDomain = "evil.example" }, mimi.FrankAgent},
		{"another agent's key", func(m *mimi.FrankedMessage) { m.AgentKey = stranger.Public().(ed25519.PublicKey) }, mimi.FrankSignature},
		{"an agent key that is none", func(m *mimi.FrankedMessage) { m.AgentKey = []byte{1} }, mimi.FrankSignature},
		{"mauled server frank", func(m *mimi.FrankedMessage) { m.Frank.ServerFrank[3] ^= 1 }, mimi.FrankSignature},
		{"mauled signature", func(m *mimi.FrankedMessage) { m.Frank.IntegritySignature[3] ^= 1 }, mimi.FrankSignature},
		{"back-dated", func(m *mimi.FrankedMessage) { m.AcceptedTimestamp-- }, mimi.FrankSignature},
		{"claims another sender", func(m *mimi.FrankedMessage) { m.Content.SenderURI = bob }, mimi.FrankSignature},
		{"claims another room", func(m *mimi.FrankedMessage) { m.Content.RoomURI = other }, mimi.FrankSignature},
		{"another salt", func(m *mimi.FrankedMessage) { m.Content.Salt[0] ^= 1 }, mimi.FrankTag},
		{"another text", func(m *mimi.FrankedMessage) {
			m.Content.ApplicationData = append(bytes.Clone(m.Content.ApplicationData), '!')
		}, mimi.FrankTag},
		{"a tag swapped in", func(m *mimi.FrankedMessage) { m.Tag[0] ^= 1 }, mimi.FrankTag},
		{"sent by another leaf", func(m *mimi.FrankedMessage) { m.LeafUserURI = bob }, mimi.FrankSender},
		{"sent to another room", func(m *mimi.FrankedMessage) { m.RoomURI = other }, mimi.FrankRoom},
	} {
		m, _ := franked(t)
		c.change(&m)
		if err := m.Verify(); !errors.Is(err, &mimi.FrankError{Reason: c.want}) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

func report(m *mimi.FrankedMessage) *mimi.FrankReport {
	return &mimi.FrankReport{Content: m.Content, Frank: m.Frank, AcceptedTimestamp: m.AcceptedTimestamp,
		RoomURI: m.RoomURI, AllegedAbuser: m.Content.SenderURI}
}

// keysUntil returns the hub's keys, rotated at a time.
func keysUntil(m *mimi.FrankedMessage, rotated uint64) *mimi.FrankingKeys {
	var k mimi.FrankingKeys
	k.AddMAC(0, rotated, hubKey())
	k.AddMAC(rotated, mimi.MaxTimestamp, mimi.SoftwareMAC(make([]byte, 32)))
	k.AddSignatureKey(0, mimi.MaxTimestamp, 1, m.AgentKey)
	return &k
}

func TestAbuseReport(t *testing.T) {
	m, _ := franked(t)
	if err := keysUntil(&m, originalTime+1).VerifyReport(context.Background(), report(&m)); err != nil {
		t.Errorf("a true report: %v", err)
	}
	bob, other := mustURI(t, "mimi://example.com/u/bob"), mustURI(t, "mimi://example.com/r/other")
	for _, c := range []struct {
		name    string
		rotated uint64
		change  func(*mimi.FrankReport)
		want    mimi.FrankReason
	}{
		{"text put into a mouth", originalTime + 1, func(r *mimi.FrankReport) {
			r.Content.ApplicationData = append(bytes.Clone(r.Content.ApplicationData), '!')
		}, mimi.FrankMAC},
		{"another accused", originalTime + 1, func(r *mimi.FrankReport) { r.AllegedAbuser = bob }, mimi.FrankSender},
		{"another sender and accused", originalTime + 1, func(r *mimi.FrankReport) { r.AllegedAbuser, r.Content.SenderURI = bob, bob }, mimi.FrankMAC},
		{"another room", originalTime + 1, func(r *mimi.FrankReport) { r.RoomURI = other }, mimi.FrankRoom},
		{"another room in both places", originalTime + 1, func(r *mimi.FrankReport) { r.RoomURI, r.Content.RoomURI = other, other }, mimi.FrankMAC},
		{"back-dated", originalTime + 1, func(r *mimi.FrankReport) { r.AcceptedTimestamp-- }, mimi.FrankMAC},
		{"key of another time", originalTime, func(*mimi.FrankReport) {}, mimi.FrankMAC},
		{"frank forged without the key", originalTime + 1, func(r *mimi.FrankReport) { r.Frank.ServerFrank = [32]byte{} }, mimi.FrankMAC},
		{"signature swapped", originalTime + 1, func(r *mimi.FrankReport) { r.Frank.IntegritySignature[0] ^= 1 }, mimi.FrankSignature},
		{"suite without a key", originalTime + 1, func(r *mimi.FrankReport) { r.Frank.CipherSuite = 2 }, mimi.FrankKey},
	} {
		m, _ := franked(t)
		r := report(&m)
		c.change(r)
		if err := keysUntil(&m, c.rotated).VerifyReport(context.Background(), r); !errors.Is(err, &mimi.FrankError{Reason: c.want}) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	var none mimi.FrankingKeys
	if err := none.VerifyReport(context.Background(), report(&m)); !errors.Is(err, &mimi.FrankError{Reason: mimi.FrankKey}) {
		t.Errorf("a hub without keys: %v", err)
	}
}

func TestFrankWithOtherSuites(t *testing.T) {
	for suite, curve := range map[mls.CipherSuite]elliptic.Curve{2: elliptic.P256(), 7: elliptic.P384(), 5: elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := franked(t)
		c := mimi.ServerFrankingContext{SenderURI: m.Content.SenderURI, RoomURI: m.RoomURI, AcceptedTimestamp: originalTime}
		m.Frank, err = (&mimi.Franker{CipherSuite: suite, MAC: hubKey(), Signer: key}).Frank(context.Background(), m.Tag, &c)
		if err != nil {
			t.Fatal(err)
		}
		m.GroupSuite = suite
		if m.AgentKey, err = key.PublicKey.Bytes(); err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(); err != nil {
			t.Errorf("suite %d: %v", suite, err)
		}
	}
}

type brokenMAC struct{ size int }

func (b brokenMAC) MAC(context.Context, []byte) ([]byte, error) {
	if b.size < 0 {
		return nil, errors.New("the device is gone")
	}
	return make([]byte, b.size), nil
}

func TestFrankerFails(t *testing.T) {
	m, key := franked(t)
	c := mimi.ServerFrankingContext{SenderURI: m.Content.SenderURI, RoomURI: m.RoomURI}
	for _, mac := range []mimi.MAC{brokenMAC{-1}, brokenMAC{31}, brokenMAC{33}, mimi.SoftwareMAC("short")} {
		if f, err := (&mimi.Franker{CipherSuite: 1, MAC: mac, Signer: key}).Frank(context.Background(), m.Tag, &c); err == nil || f != nil {
			t.Errorf("%v made a frank", mac)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (&mimi.Franker{CipherSuite: 1, MAC: hubKey(), Signer: key}).Frank(ctx, m.Tag, &c); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	if s := strings.TrimSpace(hubKey().String()); s != "[MAC key]" {
		t.Errorf("a MAC key prints as %q", s)
	}
}

func FuzzParseFrank(f *testing.F) {
	m, _ := franked(f)
	f.Add(m.Frank.Marshal())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		frank, err := mimi.ParseFrank(b)
		if err == nil && !bytes.Equal(frank.Marshal(), b) {
			t.Fatal("accepted octets have another encoding")
		}
	})
}

// BenchmarkFrank measures a frank and its checks beside the primitives that
// they cannot avoid.
func BenchmarkFrank(b *testing.B) {
	m, key := franked(b)
	hub := mimi.Franker{CipherSuite: 1, MAC: hubKey(), Signer: key}
	c := mimi.ServerFrankingContext{SenderURI: m.Content.SenderURI, RoomURI: m.RoomURI, AcceptedTimestamp: originalTime}
	ctx := context.Background()
	b.Run("Primitives", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			hubKey().MAC(ctx, m.Content.ApplicationData)
			ed25519.Sign(key, m.Content.ApplicationData)
		}
	})
	b.Run("Frank", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			hub.Frank(ctx, m.Tag, &c)
		}
	})
	b.Run("VerifyPrimitives", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			hubKey().MAC(ctx, m.Content.ApplicationData)
			ed25519.Verify(m.AgentKey, m.Content.ApplicationData, m.Frank.IntegritySignature)
		}
	})
	b.Run("Verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Verify()
		}
	})
}
