package mimi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

const (
	aliceURI  = "mimi://a.example/u/alice"
	bobURI    = "mimi://b.example/u/bob"
	bobClient = "mimi://b.example/d/bob/phone"
	roomURI   = "mimi://a.example/r/clubhouse"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) (ed25519.PrivateKey, []byte) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key, public
}

// A groupTrace is a little of a group's life: real messages of every kind.
type groupTrace struct {
	keyPackage          *mls.KeyPackage
	welcome             *mls.Welcome
	info                *mls.GroupInfo
	partial             *mls.PartialGroupInfo
	tree                *mls.RatchetTreeOption
	commit, application *mimi.MLSMessage
	proposals           []*mimi.MLSMessage // of the epoch after commit
	welcomeMessage      *mimi.MLSMessage
}

func parsed(t testing.TB, b []byte) *mimi.MLSMessage {
	t.Helper()
	m, err := mimi.ParseMLSMessage(b)
	must(t, err)
	if !bytes.Equal(m.Bytes(), b) || !bytes.Equal(m.Marshal(), b) {
		t.Fatal("an MLSMessage changed its octets")
	}
	return m
}

func newClient(t testing.TB, name string) *mls.Client {
	t.Helper()
	key, _ := newKey(t)
	c, err := mls.NewClient(mls.Config{
		CipherSuite: mls.X25519AES128SHA256Ed25519, Signer: key,
		Credential: mls.BasicCredential([]byte(name)), Storage: mls.NewMemoryStorage(),
	})
	must(t, err)
	return c
}

func trace(t testing.TB) *groupTrace {
	t.Helper()
	ctx := context.Background()
	alice, bob := newClient(t, "mimi://a.example/d/alice/1"), newClient(t, bobClient)
	entry, err := bob.NewKeyPackage(ctx, mls.KeyPackageOptions{})
	must(t, err)
	g, err := alice.CreateGroup(ctx, []byte("group"), mls.GroupOptions{})
	must(t, err)
	public := mls.ProposeOptions{WireFormat: mls.WirePublicMessage}
	pending, err := g.Commit(ctx, mls.CommitOptions{
		Proposals:  []mls.Proposal{&mls.Add{KeyPackage: entry.KeyPackage}},
		WireFormat: mls.WirePublicMessage, GroupInfo: &mls.GroupInfoOptions{ExternalPub: true},
	})
	must(t, err)
	tr := &groupTrace{keyPackage: entry.KeyPackage, commit: parsed(t, pending.Message), welcomeMessage: parsed(t, pending.Welcome)}
	tr.welcome, err = mls.ParseWelcome(pending.Welcome)
	must(t, err)
	tr.info, err = mls.ParseGroupInfo(pending.GroupInfo)
	must(t, err)
	tr.partial, err = tr.info.Partial()
	must(t, err)
	must(t, g.MergePending(ctx))
	tr.tree = mls.FullTree(g.RatchetTree())
	application, err := g.Send(ctx, []byte("hello"), nil)
	must(t, err)
	tr.application = parsed(t, application)
	third, err := newClient(t, "mimi://c.example/d/cathy/1").NewKeyPackage(ctx, mls.KeyPackageOptions{})
	must(t, err)
	for _, p := range []mls.Proposal{
		&mls.Remove{Removed: 1},
		&mls.Add{KeyPackage: third.KeyPackage},
		&mls.GroupContextExtensions{},
		&mls.ReInit{GroupID: []byte("next"), Version: mls.MLS10, CipherSuite: 1},
		g.ResumptionPSK(1),
		g.ExternalPSK([]byte("psk")),
	} {
		b, err := g.Propose(ctx, p, public)
		must(t, err)
		tr.proposals = append(tr.proposals, parsed(t, b))
	}
	update, err := g.ProposeUpdate(ctx, nil, public)
	must(t, err)
	tr.proposals = append(tr.proposals, parsed(t, update))
	return tr
}

func vec(b ...byte) []byte { return append([]byte{byte(len(b))}, b...) }

// semiPrivate is the framing of a SemiPrivateMessage of the group in epoch 0.
func semiPrivate(t testing.TB, content mls.ContentType) *mimi.MLSMessage {
	t.Helper()
	key := append(vec(1, 2), append(vec(3), vec(4)...)...)
	b := []byte{0, 1, 0xf0, 0x51}
	b = append(append(b, vec([]byte("group")...)...), 0, 0, 0, 0, 0, 0, 0, 0, byte(content))
	for _, v := range [][]byte{nil, make([]byte, 32), key, make([]byte, 32), {5}, {6}} {
		b = append(b, vec(v...)...)
	}
	return parsed(t, b)
}

// public frames octets of a content as a PublicMessage of the group in epoch 0.
// Only a member's message has a membership tag.
func public(t testing.TB, sender mls.SenderType, content mls.ContentType, body []byte) *mimi.MLSMessage {
	t.Helper()
	b := append([]byte{0, 1, 0, 1}, vec([]byte("group")...)...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, byte(sender))
	if sender == mls.SenderMember || sender == mls.SenderExternal {
		b = append(b, 0, 0, 0, 7)
	}
	b = append(append(b, 0, byte(content)), body...)
	b = append(b, vec(make([]byte, 32)...)...)
	if content == mls.ContentCommit {
		b = append(b, vec(1, 2, 3)...)
	}
	if sender == mls.SenderMember {
		b = append(b, vec(4, 5)...)
	}
	return parsed(t, b)
}

// framed are messages that the life of a small group does not bring.
func framed(t testing.TB) (list []*mimi.MLSMessage) {
	t.Helper()
	for _, p := range []mls.Proposal{
		mls.UpdateAppData(0x22, unhex(t, updateHex)),
		mls.RemoveAppData(0x30),
		&mls.AppEphemeral{Component: 0x8001, Data: []byte{0xaa, 0xbb}},
		&mls.SelfRemove{},
		&mls.PreSharedKey{PSK: mls.PreSharedKeyID{Type: mls.PSKApplication, Component: 0x8001, ID: []byte("psk"), Nonce: make([]byte, 32)}},
		&mls.CustomProposal{Type: 0xf123, Data: []byte("x")},
	} {
		for _, sender := range []mls.SenderType{mls.SenderMember, mls.SenderExternal, mls.SenderNewMemberProposal} {
			list = append(list, public(t, sender, mls.ContentProposal, mls.MarshalProposal(p)))
		}
	}
	init := append([]byte{1}, mls.MarshalProposal(&mls.ExternalInit{KEMOutput: make([]byte, 32)})...)
	return append(list, public(t, mls.SenderNewMemberCommit, mls.ContentCommit, append(vec(init...), 0)))
}

func keyMaterialRequest(t testing.TB) (*mimi.KeyMaterialRequest, ed25519.PrivateKey) {
	t.Helper()
	key, public := newKey(t)
	q := &mimi.KeyMaterialRequest{
		Protocol: mimi.ProtocolMLS10, RequestingUser: mustURI(t, aliceURI), TargetUser: mustURI(t, bobURI), RoomID: mustURI(t, roomURI),
		AcceptableSuites:     []mls.CipherSuite{1, 2},
		RequiredCapabilities: mls.RequiredCapabilities{Extensions: []mls.ExtensionType{6}, Proposals: []mls.ProposalType{8, 9}},
		RequesterKey:         public, RequesterCredential: mls.X509Credential([][]byte{{1, 2}, {3}}),
	}
	must(t, q.Sign(t.Context(), key))
	return q, key
}

// tokenBodies are the two forms of an sd_jwt credential, the one that is not one
// vector.
func tokenBodies() [][]byte {
	return [][]byte{append([]byte{0}, vec([]byte("jwt~kb")...)...), append([]byte{1}, bytes.Join([][]byte{vec([]byte("head")...), vec([]byte("payload")...), vec([]byte("signature")...), vec(vec([]byte("disclosure")...)...), vec([]byte("kb")...)}, nil)...)}
}

// tokenClients are a request for KeyPackages and a KeyPackage, of clients with
// tokens.
func tokenClients(t testing.TB, body []byte) (*mimi.KeyMaterialRequest, *mls.KeyPackage) {
	t.Helper()
	key, public := newKey(t)
	credential := mls.Credential{Type: mls.CredentialSDJWT, Body: body}
	able := mls.ExtendedCapabilities()
	able.Credentials = []mls.CredentialType{mls.CredentialSDJWT}
	c, err := mls.NewClient(mls.Config{CipherSuite: mls.X25519AES128SHA256Ed25519, Signer: key, Credential: credential, Capabilities: able, Storage: mls.NewMemoryStorage()})
	must(t, err)
	entry, err := c.NewKeyPackage(t.Context(), mls.KeyPackageOptions{})
	must(t, err)
	q, _ := keyMaterialRequest(t)
	q.RequesterKey, q.RequesterCredential = public, credential
	must(t, q.Sign(t.Context(), key))
	return q, entry.KeyPackage
}

func groupInfoRequest(t testing.TB) (*mimi.GroupInfoRequest, ed25519.PrivateKey) {
	t.Helper()
	key, public := newKey(t)
	q := &mimi.GroupInfoRequest{
		Protocol: mimi.ProtocolMLS10, CipherSuite: 1, RequestingKey: public, RequestingCredential: mls.BasicCredential([]byte(bobClient)),
		GroupInfoPublicKey: make([]byte, 32), JoiningCode: []byte("code"),
	}
	must(t, q.Sign(t.Context(), key))
	return q, key
}

func dictionary() mls.AppDataDictionary {
	return mls.AppDataDictionary{{ID: 0x0a0a, Data: []byte{1}}, {ID: 0x8001, Data: nil}}
}

func abuseReport(t testing.TB) *mimi.AbuseReport {
	m, _ := franked(t)
	return &mimi.AbuseReport{
		ReportingUser: mustURI(t, bobURI), AllegedAbuserURI: m.LeafUserURI, Note: "rude",
		Messages: []mimi.AbusiveMessage{{MessageContent: m.Content.ApplicationData, Frank: *m.Frank, AcceptedTimestamp: m.AcceptedTimestamp}},
	}
}

func retracted(t testing.TB) (*mimi.HubRetracted, *mimi.HubRetractedRange, []byte) {
	t.Helper()
	key, public := newKey(t)
	reason, start := mimi.AbuseType(0), uint64(5)
	one := &mimi.HubRetracted{Timestamp: 7, RemoverURI: mustURI(t, "mimi://a.example"), Reason: &reason, Messages: [][32]byte{{1}, {2}}}
	must(t, one.Sign(t.Context(), 1, key))
	all := &mimi.HubRetractedRange{Timestamp: 7, RemoverURI: mustURI(t, aliceURI), AbusiveSenderURI: mustURI(t, bobURI), Start: &start}
	must(t, all.Sign(t.Context(), 1, key))
	return one, all, public
}

// structCodecs has every protocol struct, and every arm of those that select.
func structCodecs(t testing.TB) []codec {
	t.Helper()
	tr := trace(t)
	frank, _ := franked(t)
	request, _ := keyMaterialRequest(t)
	join, _ := groupInfoRequest(t)
	plain := *join
	plain.JoiningCode = nil
	alice, bob, room := mustURI(t, aliceURI), mustURI(t, bobURI), mustURI(t, roomURI)
	one, all, _ := retracted(t)
	var codecs []codec
	add := func(name string, parse func([]byte) (marshaler, error), values ...marshaler) {
		for _, v := range values {
			codecs = append(codecs, codec{name, v.Marshal(), parse})
		}
	}
	add("MLSMessage", as(mimi.ParseMLSMessage), tr.commit, tr.application, tr.welcomeMessage, parsed(t, tr.info.Message()), parsed(t, tr.keyPackage.Message()), semiPrivate(t, mls.ContentCommit))
	for _, p := range append(framed(t), tr.proposals...) {
		add("MLSMessage", as(mimi.ParseMLSMessage), p)
	}
	add("KeyMaterialRequest", as(mimi.ParseKeyMaterialRequest), request)
	add("KeyMaterialResponse", as(mimi.ParseKeyMaterialResponse),
		&mimi.KeyMaterialResponse{Protocol: 1, UserStatus: mimi.KeyMaterialNoConsent, UserURI: bob},
		&mimi.KeyMaterialResponse{Protocol: 1, UserStatus: mimi.KeyMaterialPartialSuccess, UserURI: bob, Clients: []mimi.ClientKeyMaterial{
			{ClientURI: mustURI(t, bobClient), KeyPackage: tr.keyPackage},
			{ClientURI: mustURI(t, "mimi://b.example/d/bob/2"), Status: mimi.KeyMaterialExhausted},
			{ClientURI: mustURI(t, "mimi://b.example/d/bob/3"), Status: mimi.KeyMaterialNothingCompatible, Capabilities: &tr.keyPackage.LeafNode.Capabilities},
			{ClientURI: mustURI(t, "mimi://b.example/d/bob/4"), Status: mimi.KeyMaterialNothingCompatible},
		}})
	for _, body := range tokenBodies() {
		q, k := tokenClients(t, body)
		add("KeyMaterialRequest", as(mimi.ParseKeyMaterialRequest), q)
		add("KeyMaterialResponse", as(mimi.ParseKeyMaterialResponse), &mimi.KeyMaterialResponse{
			Protocol: 1, UserURI: bob, Clients: []mimi.ClientKeyMaterial{{ClientURI: mustURI(t, bobClient), KeyPackage: k}},
		})
		add("MLSMessage", as(mimi.ParseMLSMessage), parsed(t, k.Message()))
	}
	add("HandshakeBundle", as(mimi.ParseHandshakeBundle),
		&mimi.HandshakeBundle{ProposalOrCommit: tr.commit, Welcome: tr.welcome, GroupInfo: mimi.GroupInfoOption{Full: tr.info}, RatchetTree: tr.tree},
		&mimi.HandshakeBundle{ProposalOrCommit: semiPrivate(t, mls.ContentCommit), GroupInfo: mimi.GroupInfoOption{Partial: tr.partial}},
		&mimi.HandshakeBundle{ProposalOrCommit: tr.proposals[0], MoreProposals: tr.proposals[1:]},
		&mimi.HandshakeBundle{ProposalOrCommit: semiPrivate(t, mls.ContentProposal)})
	add("UpdateRoomResponse", as(mimi.ParseUpdateRoomResponse),
		&mimi.UpdateRoomResponse{AcceptedTimestamp: originalTime},
		&mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateWrongEpoch, CurrentEpoch: 9, ErrorDescription: "late"},
		&mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateNotAllowed, ErrorDescription: mimi.PendingProposals},
		&mimi.UpdateRoomResponse{ResponseCode: mimi.UpdateInvalidProposal, InvalidProposals: [][]byte{{1}, make([]byte, 32)}})
	add("SubmitMessageRequest", as(mimi.ParseSubmitMessageRequest), &mimi.SubmitMessageRequest{Protocol: 1, AppMessage: tr.application, SendingURI: alice})
	add("SubmitMessageResponse", as(mimi.ParseSubmitMessageResponse),
		&mimi.SubmitMessageResponse{Protocol: 1, AcceptedTimestamp: originalTime, Frank: frank.Frank},
		&mimi.SubmitMessageResponse{Protocol: 1, AcceptedTimestamp: originalTime},
		&mimi.SubmitMessageResponse{Protocol: 1, StatusCode: mimi.SubmitNotAllowed},
		&mimi.SubmitMessageResponse{Protocol: 1, StatusCode: mimi.SubmitEpochTooOld, CurrentEpoch: 3})
	for _, m := range []*mimi.FanoutMessage{
		{Timestamp: 1, Message: tr.application, Frank: frank.Frank},
		{Timestamp: 2, Message: tr.application},
		{Timestamp: 3, Message: tr.welcomeMessage, RatchetTree: tr.tree},
		{Timestamp: 4, Message: tr.proposals[0], MoreProposals: tr.proposals[1:3]},
		{Timestamp: 5, Message: tr.commit, ExternalProposals: tr.proposals[:1]},
	} {
		add("FanoutMessage", as(mimi.ParseFanout), mimi.Fanout{m})
	}
	add("GroupInfoRequest", as(mimi.ParseGroupInfoRequest), join, &plain)
	add("GroupInfoRatchetTreeTBE", as(mimi.ParseGroupInfoRatchetTree),
		&mimi.GroupInfoRatchetTree{GroupInfo: tr.info, RatchetTree: tr.tree, PendingProposals: []mimi.PendingProposal{{Proposal: tr.proposals[0], HubAcceptedTime: 8}}},
		&mimi.GroupInfoRatchetTree{GroupInfo: tr.info, RatchetTree: &mls.RatchetTreeOption{Representation: mls.TreeHTTPS, URL: "https://a.example/t", Signature: []byte{1}}})
	add("GroupInfoResponse", as(mimi.ParseGroupInfoResponse),
		&mimi.GroupInfoResponse{Version: 1, RoomID: room, Status: mimi.GroupInfoNotAuthorized},
		&mimi.GroupInfoResponse{Version: 1, RoomID: room, Status: mimi.GroupInfoSuccess, CipherSuite: 1,
			HubSender: mls.ExternalSender{SignatureKey: make([]byte, 32), Credential: mls.BasicCredential([]byte("mimi://a.example"))},
			Encrypted: mls.HPKECiphertext{KEMOutput: make([]byte, 32), Ciphertext: make([]byte, 80)}, Signature: make([]byte, 64)})
	scope := mimi.ConsentScope{RequesterURI: alice, TargetURI: bob, RoomID: room}
	anyRoom := mimi.ConsentScope{RequesterURI: alice, TargetURI: bob}
	add("ConsentEntry", as(mimi.ParseConsentEntry),
		&mimi.ConsentEntry{Operation: mimi.ConsentCancel, ConsentScope: anyRoom},
		&mimi.ConsentEntry{Operation: mimi.ConsentRequest, ConsentScope: scope, Extensions: dictionary()},
		&mimi.ConsentEntry{Operation: mimi.ConsentGrant, ConsentScope: anyRoom, ClientKeyPackages: []*mls.KeyPackage{tr.keyPackage}},
		&mimi.ConsentEntry{Operation: mimi.ConsentRevoke, ConsentScope: scope})
	add("IdentifierRequest", as(mimi.ParseIdentifierRequest), &mimi.IdentifierRequest{}, &mimi.IdentifierRequest{
		QueryElements: []mimi.QueryElement{
			{SearchType: mimi.SearchHandle, SearchValue: "im:bob@b.example"},
			{SearchType: mimi.SearchOIDCStdClaim, FieldName: "family_name", SearchValue: "Smith"},
			{SearchType: mimi.SearchVCardField, FieldName: "ORG", SearchValue: "IETF"},
		}, Extensions: dictionary()})
	add("IdentifierResponse", as(mimi.ParseIdentifierResponse),
		&mimi.IdentifierResponse{ResponseCode: mimi.QueryAmbiguous},
		&mimi.IdentifierResponse{URIs: []mimi.URI{alice, bob}, FoundProfiles: []mimi.UserProfile{{StableURI: bob, Fields: []mimi.ProfileField{{Source: mimi.FieldVCard, Name: "FN", Value: []byte("Bob")}}}}, Extensions: dictionary()})
	anonymous := abuseReport(t)
	anonymous.ReportingUser = mimi.URI{}
	add("AbuseReport", as(mimi.ParseAbuseReport), abuseReport(t), anonymous)
	add("HubRetractedComponent", as(mimi.ParseHubRetracted), one)
	add("HubRetractedRangeComponent", as(mimi.ParseHubRetractedRange), all)
	return codecs
}

type marshaler = interface{ Marshal() []byte }

// as forgets the type of what a parser returns.
func as[T marshaler](parse func([]byte) (T, error)) func([]byte) (marshaler, error) {
	return func(b []byte) (marshaler, error) { return parse(b) }
}

func TestStructCodecs(t *testing.T) { checkCodecs(t, structCodecs(t)) }

func FuzzProtocolStructs(f *testing.F) {
	codecs := structCodecs(f)
	for i, c := range codecs {
		f.Add(uint8(i), c.encoded)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := codecs[int(which)%len(codecs)]
		v, err := c.parse(b)
		if err == nil && !bytes.Equal(v.Marshal(), b) {
			t.Fatalf("%s: accepted octets have another encoding", c.name)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "mimi: ") {
			t.Fatalf("%s: error %q does not say whose it is", c.name, err)
		}
	})
}

// The computed values of the encodings that the draft leaves to be guessed.
func TestStructValues(t *testing.T) {
	// An IdentifierUri is opaque<V>; a user's consent of one operation shows it.
	c := mimi.ConsentEntry{Operation: mimi.ConsentRequest, ConsentScope: mimi.ConsentScope{RequesterURI: mustURI(t, aliceURI), TargetURI: mustURI(t, bobURI), RoomID: mustURI(t, "mimi://example.com/r/engineering_team")}}
	want := "01" + "18" + hex.EncodeToString([]byte(aliceURI)) + "16" + hex.EncodeToString([]byte(bobURI)) +
		"01" + "25" + hex.EncodeToString([]byte("mimi://example.com/r/engineering_team")) + "00"
	if got := hex.EncodeToString(c.Marshal()); got != want {
		t.Errorf("ConsentEntry\n%s, want\n%s", got, want)
	}
	p, err := mls.ParseProposal(unhex(t, "000800220128"+updateHex))
	must(t, err)
	u, ok := p.(*mls.AppDataUpdate)
	if !ok || u.Component != 0x22 {
		t.Fatalf("AppDataUpdate is %T", p)
	}
	list, err := mimi.ParseParticipantListUpdate(u.Update)
	must(t, err)
	if len(list.ChangedRoleParticipants) != 1 || list.AddedParticipants[0].User.String() != "mimi://c.example/u/cathy" {
		t.Errorf("update %v", list)
	}
	aad, err := mls.ParseSafeAAD(unhex(t, "23002020"+wantTag))
	must(t, err)
	if tag, ok := aad.Find(0x20); !ok || hex.EncodeToString(tag) != wantTag {
		t.Errorf("frank_aad %x", tag)
	}
}

func TestRequestSignatures(t *testing.T) {
	q, _ := keyMaterialRequest(t)
	q.TargetUser = mustURI(t, "mimi://b.example/u/carol")
	if err := q.Verify(); !errors.Is(err, mls.ErrBadSignature) {
		t.Errorf("KeyMaterialRequest for another user: %v", err)
	}
	q, key := keyMaterialRequest(t)
	q.AcceptableSuites = nil
	if q.Verify() == nil || q.Sign(t.Context(), key) == nil {
		t.Error("KeyMaterialRequest without a cipher suite was accepted")
	}
	q, _ = keyMaterialRequest(t)
	if _, stranger := newKey(t); q.Sign(t.Context(), key) == nil || bytes.Equal(stranger, q.RequesterKey) {
		t.Error("KeyMaterialRequest was signed with a key that it does not name")
	}
	j, _ := groupInfoRequest(t)
	j.JoiningCode = nil
	if err := j.Verify(); !errors.Is(err, mls.ErrBadSignature) {
		t.Errorf("GroupInfoRequest without its code: %v", err)
	}
	one, all, public := retracted(t)
	if err := errors.Join(one.Verify(1, public), all.Verify(1, public)); err != nil {
		t.Error(err)
	}
	one.Messages[0][0] ^= 1
	all.Start = nil
	if one.Verify(1, public) == nil || all.Verify(1, public) == nil {
		t.Error("a retraction of other messages was accepted")
	}
}

func TestGroupInfoExchange(t *testing.T) {
	tr := trace(t)
	init, err := mls.CipherSuite(1).KEM().GenerateKey()
	must(t, err)
	key, public := newKey(t)
	q := &mimi.GroupInfoRequest{Protocol: 1, CipherSuite: 1, RequestingKey: public, GroupInfoPublicKey: init.PublicKey().Bytes(), RequestingCredential: mls.BasicCredential([]byte(bobClient))}
	must(t, q.Sign(t.Context(), key))
	hub, hubPublic := newKey(t)
	sender := mls.ExternalSender{SignatureKey: hubPublic, Credential: mls.BasicCredential([]byte("mimi://a.example"))}
	room := mustURI(t, roomURI)
	state := &mimi.GroupInfoRatchetTree{GroupInfo: tr.info, RatchetTree: tr.tree, PendingProposals: []mimi.PendingProposal{{Proposal: tr.proposals[0], HubAcceptedTime: 8}}}
	response := func() *mimi.GroupInfoResponse {
		p, err := q.Respond(t.Context(), room, state, sender, hub)
		must(t, err)
		return p
	}
	sent, err := mimi.ParseGroupInfoResponse(response().Marshal())
	must(t, err)
	got, err := sent.Open(q, room, init)
	must(t, err)
	if !bytes.Equal(got.Marshal(), state.Marshal()) {
		t.Error("the joiner sees another state")
	}
	if _, err := q.Respond(t.Context(), room, state, sender, key); err == nil {
		t.Error("a response signed with another key than its sender's went out")
	}
	other := mustURI(t, "mimi://a.example/r/other")
	stranger, err := mls.CipherSuite(1).KEM().GenerateKey()
	must(t, err)
	if _, err := sent.Open(q, other, init); !errors.Is(err, mimi.ErrGroupInfoResponse) {
		t.Errorf("response about another room: %v", err)
	}
	if _, err := sent.Open(q, room, stranger); err == nil {
		t.Error("a stranger opened the response")
	}
	for name, change := range map[string]func(*mimi.GroupInfoResponse){
		"another suite": func(p *mimi.GroupInfoResponse) { p.CipherSuite = 3 },
		"a refusal":     func(p *mimi.GroupInfoResponse) { p.Status = mimi.GroupInfoNoSuchRoom },
		"another hub":   func(p *mimi.GroupInfoResponse) { p.HubSender.SignatureKey = public },
		"mauled":        func(p *mimi.GroupInfoResponse) { p.Encrypted.Ciphertext[9] ^= 1 },
		"bound to another room": func(p *mimi.GroupInfoResponse) {
			p.RoomID = other
		},
	} {
		p := response()
		change(p)
		if _, err := p.Open(q, room, init); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestStructsRefuse(t *testing.T) {
	tr := trace(t)
	request, _ := keyMaterialRequest(t)
	bob := mustURI(t, bobURI)
	withTree := *tr.info
	withTree.Extensions = tr.info.Extensions.With(mls.ExtensionRatchetTree, tr.tree.Tree)
	other := *tr.proposals[0]
	foreign, err := mimi.ParseMLSMessage(bytes.Replace(other.Bytes(), []byte("group"), []byte("grout"), 1))
	must(t, err)
	tooMany := make([]mimi.QueryElement, 33)
	for i := range tooMany {
		tooMany[i].SearchType = mimi.SearchNick
	}
	client := mimi.ClientKeyMaterial{ClientURI: mustURI(t, bobClient), Status: mimi.KeyMaterialExhausted}
	for _, c := range []struct {
		name, why string
		value     marshaler
		parse     func([]byte) (marshaler, error)
	}{
		{"unknown protocol", "protocol 2 is unknown, want 1 (mls10)", func() marshaler { q := *request; q.Protocol = 2; return &q }(), as(mimi.ParseKeyMaterialRequest)},
		{"no cipher suite", "0 acceptable cipher suites, want 1 to 64", func() marshaler { q := *request; q.AcceptableSuites = nil; return &q }(), as(mimi.ParseKeyMaterialRequest)},
		{"room as a user", "URI of a room", func() marshaler { q := *request; q.TargetUser = q.RoomID; return &q }(), as(mimi.ParseKeyMaterialRequest)},
		{"user as a room", "URI of a user", func() marshaler { q := *request; q.RoomID = bob; return &q }(), as(mimi.ParseKeyMaterialRequest)},
		{"certificates cut short", "vector of 2 octets, 1 left", func() marshaler {
			q := *request
			q.RequesterCredential = mls.Credential{Type: mls.CredentialX509, Body: []byte{2, 0}}
			return &q
		}(), as(mimi.ParseKeyMaterialRequest)},
		{"clients without consent", "clients in a response with userStatus 5", &mimi.KeyMaterialResponse{Protocol: 1, UserStatus: mimi.KeyMaterialNoConsent, UserURI: bob, Clients: []mimi.ClientKeyMaterial{client}}, as(mimi.ParseKeyMaterialResponse)},
		{"client twice", "client is in the response twice", &mimi.KeyMaterialResponse{Protocol: 1, UserURI: bob, Clients: []mimi.ClientKeyMaterial{client, client}}, as(mimi.ParseKeyMaterialResponse)},
		{"unknown user code", "userStatus 8 is unknown", &mimi.KeyMaterialResponse{Protocol: 1, UserStatus: 8, UserURI: bob}, as(mimi.ParseKeyMaterialResponse)},
		{"GroupInfo with the tree", "the GroupInfo carries a ratchet_tree", &mimi.HandshakeBundle{ProposalOrCommit: tr.commit, GroupInfo: mimi.GroupInfoOption{Full: &withTree}}, as(mimi.ParseHandshakeBundle)},
		{"PartialGroupInfo with the tree", "ratchet_tree_presence 1, want 0", &mimi.HandshakeBundle{ProposalOrCommit: tr.commit, GroupInfo: mimi.GroupInfoOption{Partial: &mls.PartialGroupInfo{Presence: mls.TreePresent}}}, as(mimi.ParseHandshakeBundle)},
		{"bundle of application data", "message of wire format 0x0002 is neither a proposal nor a commit that a hub can read", &mimi.HandshakeBundle{ProposalOrCommit: tr.application}, as(mimi.ParseHandshakeBundle)},
		{"bundle of a Welcome", "message of wire format 0x0003 is neither a proposal nor a commit that a hub can read", &mimi.HandshakeBundle{ProposalOrCommit: tr.welcomeMessage}, as(mimi.ParseHandshakeBundle)},
		{"commit among proposals", "a message among the proposals is none", &mimi.HandshakeBundle{ProposalOrCommit: tr.proposals[0], MoreProposals: []*mimi.MLSMessage{tr.commit}}, as(mimi.ParseHandshakeBundle)},
		{"proposals of two groups", "a proposal is of another group or epoch", &mimi.HandshakeBundle{ProposalOrCommit: tr.proposals[0], MoreProposals: []*mimi.MLSMessage{foreign}}, as(mimi.ParseHandshakeBundle)},
		{"handshake submitted", "appMessage is not a PrivateMessage of application data", &mimi.SubmitMessageRequest{Protocol: 1, AppMessage: tr.commit, SendingURI: bob}, as(mimi.ParseSubmitMessageRequest)},
		{"client as the sender", "URI of a client", &mimi.SubmitMessageRequest{Protocol: 1, AppMessage: tr.application, SendingURI: mustURI(t, bobClient)}, as(mimi.ParseSubmitMessageRequest)},
		{"empty notification", "a notification without a FanoutMessage", mimi.Fanout{}, as(mimi.ParseFanout)},
		{"KeyPackage fanned out", "message of wire format 0x0005 and content type 0 cannot be fanned out", mimi.Fanout{{Message: parsed(t, tr.keyPackage.Message())}}, as(mimi.ParseFanout)},
		{"proposals of two epochs", "a proposal is of another group or epoch", mimi.Fanout{{Message: parsed(t, tr.proposals[0].Bytes()), MoreProposals: []*mimi.MLSMessage{semiPrivate(t, mls.ContentProposal)}}}, as(mimi.ParseFanout)},
		{"pending commit", "a pending proposal is not a proposal in a PublicMessage", &mimi.GroupInfoRatchetTree{GroupInfo: tr.info, PendingProposals: []mimi.PendingProposal{{Proposal: tr.commit}}}, as(mimi.ParseGroupInfoRatchetTree)},
		{"SemiPrivate proposal pending", "a pending proposal is not a proposal in a PublicMessage", &mimi.GroupInfoRatchetTree{GroupInfo: tr.info, PendingProposals: []mimi.PendingProposal{{Proposal: semiPrivate(t, mls.ContentProposal)}}}, as(mimi.ParseGroupInfoRatchetTree)},
		{"foreign proposal pending", "a pending proposal is of another group or epoch", &mimi.GroupInfoRatchetTree{GroupInfo: tr.info, PendingProposals: []mimi.PendingProposal{{Proposal: foreign}}}, as(mimi.ParseGroupInfoRatchetTree)},
		{"dictionary out of order", "component 0x0001 is not in strictly increasing order", &mimi.IdentifierRequest{Extensions: mls.AppDataDictionary{{ID: 2}, {ID: 1}}}, as(mimi.ParseIdentifierRequest)},
		{"too many elements", "more than 32 query elements", &mimi.IdentifierRequest{QueryElements: tooMany}, as(mimi.ParseIdentifierRequest)},
		{"reserved search type", "searchType 0 is unknown", &mimi.IdentifierRequest{QueryElements: []mimi.QueryElement{{}}}, as(mimi.ParseIdentifierRequest)},
		{"profile of a user who was not found", "foundProfiles are not users of uri in the same order", &mimi.IdentifierResponse{FoundProfiles: []mimi.UserProfile{{StableURI: bob}}}, as(mimi.ParseIdentifierResponse)},
		{"users of an ambiguous query", "users in a response with responseCode 2", &mimi.IdentifierResponse{ResponseCode: mimi.QueryAmbiguous, URIs: []mimi.URI{bob}}, as(mimi.ParseIdentifierResponse)},
		{"note not UTF-8", "note is not UTF-8", func() marshaler { a := abuseReport(t); a.Note = "\xff"; return a }(), as(mimi.ParseAbuseReport)},
		{"65 messages", "more than 64 messages", func() marshaler { a := abuseReport(t); a.Messages = make([]mimi.AbusiveMessage, 65); return a }(), as(mimi.ParseAbuseReport)},
		{"error description too long", "errorDescription of 1025 octets, want at most 1024", &mimi.UpdateRoomResponse{ErrorDescription: strings.Repeat("x", 1025)}, as(mimi.ParseUpdateRoomResponse)},
		{"no message retracted", "no message is retracted", &mimi.HubRetracted{RemoverURI: bob}, as(mimi.ParseHubRetracted)},
	} {
		if _, err := c.parse(c.value.Marshal()); err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: error %v, want %s", c.name, err, c.why)
		}
	}
}

func TestFanoutOfSeveral(t *testing.T) {
	tr := trace(t)
	f := mimi.Fanout{{Timestamp: 1, Message: tr.commit}, {Timestamp: 2, Message: tr.application}, {Timestamp: 1, Message: tr.welcomeMessage}}
	got, err := mimi.ParseFanout(f.Marshal())
	if err != nil || len(got) != 3 || got[1].Timestamp != 2 {
		t.Errorf("%d messages, %v", len(got), err)
	}
}

func TestConsents(t *testing.T) {
	alice, bob, room := mustURI(t, aliceURI), mustURI(t, bobURI), mustURI(t, roomURI)
	inRoom := mimi.ConsentScope{RequesterURI: alice, TargetURI: bob, RoomID: room}
	anywhere := mimi.ConsentScope{RequesterURI: alice, TargetURI: bob}
	c := mimi.Consents{}
	step := func(op mimi.ConsentOperation, s mimi.ConsentScope, wantRoom, wantAny bool) {
		t.Helper()
		c.Record(&mimi.ConsentEntry{Operation: op, ConsentScope: s})
		if c.Given(inRoom) != wantRoom || c.Given(anywhere) != wantAny {
			t.Errorf("after %d: room %t, any %t", op, c.Given(inRoom), c.Given(anywhere))
		}
	}
	step(mimi.ConsentRequest, anywhere, false, false)
	step(mimi.ConsentGrant, anywhere, true, true)
	step(mimi.ConsentRevoke, inRoom, false, true)
	step(mimi.ConsentRevoke, anywhere, false, false)
	step(mimi.ConsentGrant, inRoom, true, false)
	if c.Given(mimi.ConsentScope{RequesterURI: bob, TargetURI: alice, RoomID: room}) {
		t.Error("a consent works the other way round")
	}

	grant := &mimi.ConsentEntry{Operation: mimi.ConsentGrant, ConsentScope: anywhere}
	request := &mimi.ConsentEntry{Operation: mimi.ConsentRequest, ConsentScope: anywhere}
	if err := errors.Join(request.CheckRequest("a.example", "b.example"), grant.CheckUpdate("b.example", "a.example")); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"grant in requestConsent":         grant.CheckRequest("a.example", "b.example"),
		"request in updateConsent":        request.CheckUpdate("b.example", "a.example"),
		"request for another's user":      request.CheckRequest("c.example", "b.example"),
		"grant by the requester's domain": grant.CheckUpdate("a.example", "b.example"),
	} {
		if !errors.Is(err, mimi.ErrConsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A provider says who of its own users is found, and nobody else.
func TestIdentifierResponseHost(t *testing.T) {
	bob, err := mimi.ParseURI("mimi://b.example/u/bob")
	must(t, err)
	teller, err := mimi.ParseURI("mimi://bank.example/u/teller")
	must(t, err)
	p := &mimi.IdentifierResponse{URIs: []mimi.URI{bob}}
	must(t, p.CheckHost("b.example"))
	p.URIs = append(p.URIs, teller)
	if p.CheckHost("b.example") == nil {
		t.Error("a user of another provider is taken")
	}
}
