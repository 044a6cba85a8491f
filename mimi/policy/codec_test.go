package policy_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/policy"
)

type value interface{ Marshal() []byte }

// A codec is a struct's two directions, and some values of it.
type codec struct {
	name   string
	parse  func([]byte) (value, error)
	values []value
}

func of[T any, P interface {
	*T
	value
}](name string, parse func([]byte) (P, error), values ...P) codec {
	c := codec{name: name, parse: func(b []byte) (value, error) { return parse(b) }}
	for _, v := range values {
		c.values = append(c.values, v)
	}
	return c
}

func ptr[T any](v T) *T { return &v }

func sampleCapabilities() policy.ExtendedCapabilities {
	return policy.ExtendedCapabilities{
		Versions: []uint16{1}, CipherSuites: []uint16{1, 2}, Extensions: []uint16{6}, Proposals: []uint16{8, 9, 10},
		Credentials: []uint16{2}, WireFormats: []uint16{0xF051}, ComponentIDs: []policy.ComponentID{0x22, 0x25}, SafeAADTypes: []policy.ComponentID{0x20},
		MediaTypes: []policy.MediaType{{Type: "text/plain", Parameters: []policy.Parameter{{Name: "charset", Value: "UTF-8"}}}}, ContentTypes: []uint8{1, 2, 3},
	}
}

func user2() *policy.Role {
	return &policy.Role{Index: 2, Name: "user", Capabilities: []policy.Capability{policy.CanAddOwnClient, policy.CanSendMessage},
		AuthorizedRoleChanges: []policy.SingleSourceRoleChangeTargets{{From: 2, Targets: []mimi.RoleIndex{0}}}}
}

func codecs() []codec {
	claim := policy.Claim{CredentialType: 2, ID: []byte{0x55, 0x1d, 0x11}, Value: []byte("mimi://a.example/u/alice")}
	bounded := *user2()
	bounded.MinimumParticipants, bounded.MaximumParticipants, bounded.MaximumActiveParticipants = 1, ptr[uint32](9), ptr[uint32](0)
	return []codec{
		of("Role", policy.ParseRole, user2(), &bounded),
		of("RoleData", policy.ParseRoleData, policy.CooperativeRoles(), policy.StrictRoles(), policy.ModeratedRoles(), policy.MultiOrganizationRoles(), &policy.RoleData{}),
		of("PreAuthData", policy.ParsePreAuthData, &policy.PreAuthData{}, &policy.PreAuthData{PreauthorizedEntries: []policy.PreAuthRoleEntry{
			{Claimset: []policy.Claim{claim, claim}, TargetRole: *user2()}, {Claimset: []policy.Claim{claim}, TargetRole: bounded}}}),
		of("BaseRoomPolicy", policy.ParseBaseRoomPolicy, &policy.BaseRoomPolicy{MultiDevice: true},
			&policy.BaseRoomPolicy{FixedMembership: true, ParentDependant: true, ParentRoom: "mimi://a.example/r/parent", MaxClients: ptr[uint32](9), MaxUsers: ptr[uint32](4),
				PseudonymsAllowed: true, PersistentRoom: true, Discoverable: true, PolicyComponentIDs: []policy.ComponentID{0x25, 0x26}}),
		of("StatusNotificationPolicy", policy.ParseStatusNotificationPolicy, &policy.StatusNotificationPolicy{DeliveryNotifications: policy.Required, ReadReceipts: policy.Forbidden}),
		of("JoinLinkPolicy", policy.ParseJoinLinkPolicy, &policy.JoinLinkPolicy{OnRequest: true, JoinLink: "https://a.example/join", Multiuser: true, Expiration: 3600}, &policy.JoinLinkPolicy{}),
		of("JoinLinksData", policy.ParseJoinLinksData, &policy.JoinLinksData{Links: []string{"https://a.example/1", "https://a.example/2"}}, &policy.JoinLinksData{}),
		of("JoinLinksUpdate", policy.ParseJoinLinksUpdate, &policy.JoinLinksUpdate{RemovedIndices: []uint32{1}, AddedLinks: []string{"https://a.example/3"}}),
		of("LinkPreviewPolicy", policy.ParseLinkPreviewPolicy, &policy.LinkPreviewPolicy{LinkPreviewProxyUse: policy.Required, LinkPreviewProxy: "https://a.example/proxy"},
			&policy.LinkPreviewPolicy{AutodetectHyperlinksInText: policy.Forbidden, SendLinkPreviews: policy.Required, LinkPreviewProxyUse: policy.Forbidden}),
		of("AssetPolicy", policy.ParseAssetPolicy, sampleAssets(), &policy.AssetPolicy{PermittedMediaTypes: &[]policy.MediaType{}}, &policy.AssetPolicy{}),
		of("LoggingPolicy", policy.ParseLoggingPolicy, &policy.LoggingPolicy{Logging: policy.Required, LoggingClients: []string{"mimi://a.example/d/log/1"}, MachineReadablePolicy: "https://a.example/p"},
			&policy.LoggingPolicy{}, &policy.LoggingPolicy{Logging: policy.Forbidden}),
		of("HistoryPolicy", policy.ParseHistoryPolicy, &policy.HistoryPolicy{RolesThatCanShare: []mimi.RoleIndex{2, 3}, AutomaticallyShare: true, MaxTimePeriod: 86400},
			&policy.HistoryPolicy{HistorySharing: policy.Forbidden}),
		of("BotPolicy", policy.ParseBotPolicy, &policy.BotPolicy{AllowedBots: []policy.Bot{{Name: "poker", Description: "deals", Homepage: "https://a.example/bot", RoleIndex: 2, CanTargetMessageInGroup: true, PerUserContent: true},
			{Name: "local", LocalClientBot: true}}}, &policy.BotPolicy{}),
		of("MessageExpiration", policy.ParseMessageExpiration, &policy.MessageExpiration{ExpiringMessages: policy.Required, MinExpirationDuration: 1, MaxExpirationDuration: 60, DefaultExpirationDuration: ptr[uint32](30)},
			&policy.MessageExpiration{MaxExpirationDuration: 5}, &policy.MessageExpiration{ExpiringMessages: policy.Forbidden}),
		of("OperationalParameters", policy.ParseOperationalParameters, sampleOperational(), &policy.OperationalParameters{}),
		of("PendingProposalPreference", policy.ParsePendingProposalPreference, &policy.PendingProposalPreference{Strategy: policy.PreferenceWheel, MinimumDelayMS: 5, MaximumDelayMS: 500},
			&policy.PendingProposalPreference{Strategy: policy.DesignatedCommitter, Committers: []mimi.URI{uri("alice"), uri("bob")}}),
		of("SelfRoleChanges", policy.ParseSelfRoleChanges, &policy.SelfRoleChanges{Changes: []policy.SingleSourceRoleChangeTargets{{From: 2, Targets: []mimi.RoleIndex{3}}}}),
	}
}

func sampleAssets() *policy.AssetPolicy {
	return &policy.AssetPolicy{
		AssetUploadLocation: policy.UploadLocalProvider,
		UploadDomains: []policy.ProviderAssetUploadDomains{
			{Provider: "a.example", Destinations: []string{"assets.a.example", "cdn.example"}}, {Provider: "b.example"}},
		DownloadPrivacy: policy.DownloadPrivacy{Forbidden: []policy.DownloadPrivacyType{policy.DownloadDirect}, Default: policy.DownloadOHTTP},
		MaxImage:        1, MaxAudio: 2, MaxVideo: 3, MaxAttachment: 1 << 40,
		ForbiddenMediaTypes: []policy.MediaType{{Type: "application/x-msdownload"}},
		PermittedMediaTypes: &[]policy.MediaType{{Type: "text/markdown", Parameters: []policy.Parameter{{Name: "variant", Value: "GFM-MIMI"}}}, {Type: "image/png"}},
	}
}

func sampleOperational() *policy.OperationalParameters {
	times := policy.MinDefaultMaxTime{Minimum: 1, Default: 2, Maximum: 3}
	return &policy.OperationalParameters{
		MandatoryCapabilities: sampleCapabilities(), ForbiddenCapabilities: sampleCapabilities(), HandshakeFormats: []uint16{1, 0xF051},
		ExternalProposalAllowed: true, ExternalCommitAllowed: true,
		PendingProposalPolicy: policy.PendingProposalPolicy{Strategy: policy.StrategyRandomDelay, MinimumDelayMS: 10, MaximumDelayMS: 100},
		LeafNodeUpdateTime:    times, AppMessagePolicy: policy.AppMessagePolicy{EpochTolerance: 3, PadToSize: 512, MaxGenerationsSkipahead: 1000},
		MaxKPLifetime: 1, MaxCredentialLifetime: 2, ResumptionPSKLifetime: 3, SenderNonceKeypairLifetime: times, MaxKeypairs: 4,
		BufferIncomingMessageTime: times, MaxBufferedMessages: 5,
	}
}

func TestCodecs(t *testing.T) {
	for _, c := range codecs() {
		for i, v := range c.values {
			checkCodec(t, c, i, v.Marshal())
		}
	}
}

func checkCodec(t *testing.T, c codec, i int, encoded []byte) {
	t.Helper()
	v, err := c.parse(encoded)
	if err != nil {
		t.Errorf("%s %d: %v", c.name, i, err)
		return
	}
	if !bytes.Equal(v.Marshal(), encoded) {
		t.Errorf("%s %d encodes to other octets", c.name, i)
	}
	for n := range encoded {
		if _, err := c.parse(encoded[:n]); err == nil {
			t.Errorf("%s %d: the first %d octets were accepted", c.name, i, n)
		}
	}
	if _, err := c.parse(append(bytes.Clone(encoded), 0)); err == nil {
		t.Errorf("%s %d: a trailing octet was accepted", c.name, i)
	}
}

// roleHex is Role {2,"user","",[0x0002,0x0100],0,-,0,-,[(2,[0])]}, computed by
// hand from the notation of section 3.
const roleHex = "00000002" + "0475736572" + "00" + "0400020100" + "00000000" + "00" + "00000000" + "00" + "09" + "00000002" + "0400000000"

func TestRoleValue(t *testing.T) {
	if got := hex.EncodeToString(user2().Marshal()); got != roleHex {
		t.Errorf("got  %s\nwant %s", got, roleHex)
	}
}

func TestRegistry(t *testing.T) {
	n, reserved := 0, 0
	for c := range policy.FirstPrivateCapability {
		if !c.Registered() {
			continue
		}
		n++
		if c.Reserved() {
			reserved++
		}
		if back, ok := policy.ParseCapability(c.String()); !ok || back != c {
			t.Errorf("%s is 0x%04x and found as 0x%04x", c, uint16(c), uint16(back))
		}
	}
	if n != 77 || reserved != 18 {
		t.Errorf("%d capabilities, %d reserved, want 77 and 18", n, reserved)
	}
	if c, ok := policy.ParseCapability("canUnban"); !ok || c != policy.CanUnBan {
		t.Error("the draft's other spelling of canUnBan is unknown")
	}
	for c, want := range map[policy.Capability]string{0x0000: "canAddParticipant", 0x010f: "canEditOtherTopic", 0x0605: "canSendMLSExternalCommit", 0xF123: "capability 0xf123"} {
		if c.String() != want {
			t.Errorf("0x%04x is %s, want %s", uint16(c), c, want)
		}
	}
}

// refused are encodings that break a rule, most of them a rule of one struct.
func TestRefused(t *testing.T) {
	role := func(change func(*policy.Role)) *policy.RoleData {
		r := *user2()
		change(&r)
		return &policy.RoleData{Roles: []policy.Role{r}}
	}
	entry := func(change func(*policy.PreAuthRoleEntry)) *policy.PreAuthData {
		e := policy.PreAuthRoleEntry{Claimset: []policy.Claim{{CredentialType: 2, ID: []byte{1}}}, TargetRole: *user2()}
		change(&e)
		return &policy.PreAuthData{PreauthorizedEntries: []policy.PreAuthRoleEntry{e}}
	}
	for name, c := range map[string]struct {
		codec string
		v     value
	}{
		"role twice":          {"RoleData", &policy.RoleData{Roles: []policy.Role{*user2(), *user2()}}},
		"role 1 not banned":   {"RoleData", role(func(r *policy.Role) { r.Index = 1 })},
		"banned not role 1":   {"RoleData", role(func(r *policy.Role) { r.Name = "banned" })},
		"open join in role 2": {"RoleData", role(func(r *policy.Role) { r.Capabilities = []policy.Capability{policy.CanOpenJoin} })},
		"preauth in role 0":   {"RoleData", role(func(r *policy.Role) { r.Index, r.Capabilities = 0, []policy.Capability{policy.CanJoinIfPreauthorized} })},
		"from twice": {"RoleData", role(func(r *policy.Role) {
			r.AuthorizedRoleChanges = append(r.AuthorizedRoleChanges, r.AuthorizedRoleChanges[0])
		})},
		"to itself":                    {"RoleData", role(func(r *policy.Role) { r.AuthorizedRoleChanges[0].Targets = []mimi.RoleIndex{2} })},
		"to an unknown role":           {"RoleData", role(func(r *policy.Role) { r.AuthorizedRoleChanges[0].Targets = []mimi.RoleIndex{7} })},
		"maximum below minimum":        {"RoleData", role(func(r *policy.Role) { r.MinimumParticipants, r.MaximumParticipants = 2, ptr[uint32](1) })},
		"active maximum below minimum": {"RoleData", role(func(r *policy.Role) { r.MinimumActiveParticipants, r.MaximumActiveParticipants = 2, ptr[uint32](1) })},
		"name not UTF-8":               {"Role", &policy.Role{Index: 2, Name: "\xff"}},
		"no claims":                    {"PreAuthData", entry(func(e *policy.PreAuthRoleEntry) { e.Claimset = nil })},
		"claim without a name":         {"PreAuthData", entry(func(e *policy.PreAuthRoleEntry) { e.Claimset[0].ID = nil })},
		"preauthorised for role 0":     {"PreAuthData", entry(func(e *policy.PreAuthRoleEntry) { e.TargetRole.Index = 0 })},
		"preauthorised for role 1":     {"PreAuthData", entry(func(e *policy.PreAuthRoleEntry) { e.TargetRole.Index, e.TargetRole.Name = 1, "banned" })},
		"parent without dependence":    {"BaseRoomPolicy", &policy.BaseRoomPolicy{ParentRoom: "mimi://a.example/r/x"}},
		"dependence without parent":    {"BaseRoomPolicy", &policy.BaseRoomPolicy{ParentDependant: true}},
		"parent is a user":             {"BaseRoomPolicy", &policy.BaseRoomPolicy{ParentDependant: true, ParentRoom: "mimi://a.example/u/x"}},
		"component listed twice":       {"BaseRoomPolicy", &policy.BaseRoomPolicy{PolicyComponentIDs: []policy.ComponentID{5, 5}}},
		"optionality 3":                {"StatusNotificationPolicy", &policy.StatusNotificationPolicy{ReadReceipts: 3}},
		"join link not a URI":          {"JoinLinkPolicy", &policy.JoinLinkPolicy{JoinLink: "elsewhere"}},
		"empty link":                   {"JoinLinksData", &policy.JoinLinksData{Links: []string{""}}},
		"same link twice":              {"JoinLinksData", &policy.JoinLinksData{Links: []string{"x", "x"}}},
		"empty links update":           {"JoinLinksUpdate", &policy.JoinLinksUpdate{}},
		"autodetection required":       {"LinkPreviewPolicy", &policy.LinkPreviewPolicy{AutodetectHyperlinksInText: policy.Required, LinkPreviewProxyUse: policy.Forbidden}},
		"proxy use without a proxy":    {"LinkPreviewPolicy", &policy.LinkPreviewPolicy{}},
		"upload location 3":            {"AssetPolicy", &policy.AssetPolicy{AssetUploadLocation: 3}},
		"default forbidden":            {"AssetPolicy", &policy.AssetPolicy{DownloadPrivacy: policy.DownloadPrivacy{Forbidden: []policy.DownloadPrivacyType{0}}}},
		"default not allowed":          {"AssetPolicy", &policy.AssetPolicy{DownloadPrivacy: policy.DownloadPrivacy{Allowed: []policy.DownloadPrivacyType{1}}}},
		"hub without its domains":      {"AssetPolicy", &policy.AssetPolicy{AssetUploadLocation: policy.UploadHub}},
		"media type without a slash":   {"AssetPolicy", &policy.AssetPolicy{ForbiddenMediaTypes: []policy.MediaType{{Type: "text"}}}},
		"upper-case domain":            {"AssetPolicy", &policy.AssetPolicy{UploadDomains: []policy.ProviderAssetUploadDomains{{Provider: "A.example"}}}},
		"provider twice":               {"AssetPolicy", &policy.AssetPolicy{UploadDomains: []policy.ProviderAssetUploadDomains{{Provider: "a.example"}, {Provider: "a.example"}}}},
		"logging without a client":     {"LoggingPolicy", &policy.LoggingPolicy{Logging: policy.Required}},
		"the banned share history":     {"HistoryPolicy", &policy.HistoryPolicy{RolesThatCanShare: []mimi.RoleIndex{1}}},
		"local bot with a role":        {"BotPolicy", &policy.BotPolicy{AllowedBots: []policy.Bot{{LocalClientBot: true, RoleIndex: 2}}}},
		"expiration backwards":         {"MessageExpiration", &policy.MessageExpiration{MinExpirationDuration: 2, MaxExpirationDuration: 1}},
		"default out of range":         {"MessageExpiration", &policy.MessageExpiration{MaxExpirationDuration: 1, DefaultExpirationDuration: ptr[uint32](2)}},
		"strategy 3":                   {"OperationalParameters", &policy.OperationalParameters{PendingProposalPolicy: policy.PendingProposalPolicy{Strategy: 3}}},
		"times out of order":           {"OperationalParameters", &policy.OperationalParameters{LeafNodeUpdateTime: policy.MinDefaultMaxTime{Minimum: 2}}},
		"strategy 2 as a preference":   {"PendingProposalPreference", &policy.PendingProposalPreference{Strategy: 2}},
		"nobody designated":            {"PendingProposalPreference", &policy.PendingProposalPreference{Strategy: policy.DesignatedCommitter}},
		"lifting one's own ban":        {"SelfRoleChanges", &policy.SelfRoleChanges{Changes: []policy.SingleSourceRoleChangeTargets{{From: 1, Targets: []mimi.RoleIndex{2}}}}},
	} {
		i := slices.IndexFunc(codecs(), func(known codec) bool { return known.name == c.codec })
		_, err := codecs()[i].parse(c.v.Marshal())
		checkParseError(t, name, err)
	}
}

func checkParseError(t *testing.T, name string, err error) {
	t.Helper()
	var parse *policy.ParseError
	var syntax *tlsvec.Error
	var rule *policy.InvalidError
	if !errors.As(err, &parse) || !errors.As(err, &syntax) && !errors.As(err, &rule) {
		t.Errorf("%s: %v", name, err)
	}
}

func TestTooLarge(t *testing.T) {
	_, err := policy.ParseRoleData(make([]byte, policy.MaxComponent+1))
	checkParseError(t, "more than the limit", err)
	many := &policy.JoinLinksUpdate{RemovedIndices: make([]uint32, 5000)}
	_, err = policy.ParseJoinLinksUpdate(many.Marshal())
	checkParseError(t, "too many elements", err)
}

func TestComponents(t *testing.T) {
	for id, v := range map[policy.ComponentID]value{
		policy.ComponentRoles: policy.StrictRoles(), policy.ComponentOperational: sampleOperational(), policy.ComponentAssets: sampleAssets(),
	} {
		got, err := policy.ParseComponent(id, v.Marshal())
		if err != nil || !bytes.Equal(got.(value).Marshal(), v.Marshal()) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := policy.ParseComponent(0x9999, nil); err == nil {
		t.Error("an unknown component was decoded")
	}
}

// FuzzComponents decodes hostile octets as every struct: what is accepted
// re-encodes to the same octets, what is refused has a typed error.
func FuzzComponents(f *testing.F) {
	for i, c := range codecs() {
		for _, v := range c.values {
			f.Add(uint8(i), v.Marshal())
		}
	}
	all := codecs()
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := all[int(which)%len(all)]
		v, err := c.parse(b)
		if err != nil {
			checkParseError(t, c.name, err)
		} else if !bytes.Equal(v.Marshal(), b) {
			t.Fatalf("%s: accepted octets have another encoding", c.name)
		}
	})
}
