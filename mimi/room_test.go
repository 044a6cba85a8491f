package mimi_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mimi"
)

// The list and the update of the digest's computed values, in the encoding of
// draft-ietf-mimi-protocol-06 section 7.4.
const (
	listHex   = "38186d696d693a2f2f612e6578616d706c652f752f616c69636500000003166d696d693a2f2f622e6578616d706c652f752f626f6200000002"
	updateHex = "080000000100000001001d186d696d693a2f2f632e6578616d706c652f752f636174687900000002"
)

func list(t testing.TB) *mimi.ParticipantListData {
	return &mimi.ParticipantListData{Participants: []mimi.UserRolePair{
		{User: mustURI(t, "mimi://a.example/u/alice"), Role: 3},
		{User: mustURI(t, "mimi://b.example/u/bob"), Role: 2},
	}}
}

func cathyJoins(t testing.TB) *mimi.ParticipantListUpdate {
	return &mimi.ParticipantListUpdate{
		ChangedRoleParticipants: []mimi.UserIndexRolePair{{UserIndex: 1, Role: 1}},
		AddedParticipants:       []mimi.UserRolePair{{User: mustURI(t, "mimi://c.example/u/cathy"), Role: 2}},
	}
}

func metadata(t testing.TB) *mimi.RoomMetaData {
	return &mimi.RoomMetaData{
		RoomURI:          mustURI(t, "mimi://a.example/r/clubhouse"),
		RoomName:         "Clubhouse",
		RoomDescriptions: []mimi.RichDescription{{LanguageTag: "en", Content: []byte("a room")}, {MediaType: "text/html", Content: []byte("<b>")}},
		RoomAvatar:       "https://a.example/club.png",
		RoomSubject:      "pizza",
		RoomMood:         "hungry",
	}
}

// A codec is a struct's two directions.
type codec struct {
	name    string
	encoded []byte
	parse   func([]byte) (interface{ Marshal() []byte }, error)
}

func roomCodecs(t testing.TB) []codec {
	return []codec{
		{"ParticipantListData", list(t).Marshal(), func(b []byte) (interface{ Marshal() []byte }, error) { return mimi.ParseParticipantListData(b) }},
		{"ParticipantListUpdate", cathyJoins(t).Marshal(), func(b []byte) (interface{ Marshal() []byte }, error) { return mimi.ParseParticipantListUpdate(b) }},
		{"RoomMetaData", metadata(t).Marshal(), func(b []byte) (interface{ Marshal() []byte }, error) { return mimi.ParseRoomMetaData(b) }},
	}
}

func TestRoomCodecs(t *testing.T) { checkCodecs(t, roomCodecs(t)) }

// checkCodecs round-trips each encoding, and refuses each of its proper
// prefixes and a further octet.
func checkCodecs(t *testing.T, codecs []codec) {
	t.Helper()
	for _, c := range codecs {
		v, err := c.parse(c.encoded)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if !bytes.Equal(v.Marshal(), c.encoded) {
			t.Errorf("%s encodes to other octets", c.name)
		}
		for n := range c.encoded {
			if _, err := c.parse(c.encoded[:n]); err == nil {
				t.Errorf("%s: the first %d octets were accepted", c.name, n)
			}
		}
		if _, err := c.parse(append(bytes.Clone(c.encoded), 0)); err == nil {
			t.Errorf("%s: a trailing octet was accepted", c.name)
		}
	}
}

func TestRoomValues(t *testing.T) {
	if got := hex.EncodeToString(list(t).Marshal()); got != listHex {
		t.Errorf("list %s", got)
	}
	if got := hex.EncodeToString(cathyJoins(t).Marshal()); got != updateHex {
		t.Errorf("update %s", got)
	}
}

func TestParticipantListApply(t *testing.T) {
	known := func(r mimi.RoleIndex) bool { return r <= 4 }
	next, err := list(t).Apply(known, cathyJoins(t))
	if err != nil {
		t.Fatal(err)
	}
	cathy, bob := mustURI(t, "mimi://c.example/u/cathy"), mustURI(t, "mimi://b.example/u/bob")
	if len(next.Participants) != 3 || next.RoleOf(cathy) != 2 || next.RoleOf(bob) != mimi.RoleBanned {
		t.Errorf("list is %v", next)
	}
	if next.RoleOf(mustURI(t, "mimi://d.example/u/dan")) != mimi.RoleNone {
		t.Error("a stranger has a role")
	}
	// Indices of a second update still mean the list as it was.
	next, err = list(t).Apply(known,
		&mimi.ParticipantListUpdate{RemovedIndices: []uint32{0}},
		&mimi.ParticipantListUpdate{ChangedRoleParticipants: []mimi.UserIndexRolePair{{UserIndex: 1, Role: 4}}})
	if err != nil || len(next.Participants) != 1 || next.RoleOf(bob) != 4 {
		t.Errorf("two updates: %v, %v", next, err)
	}
}

func TestParticipantListRefuses(t *testing.T) {
	alice := mustURI(t, "mimi://a.example/u/alice")
	dan := mustURI(t, "mimi://d.example/u/dan")
	change := func(i uint32, r mimi.RoleIndex) *mimi.ParticipantListUpdate {
		return &mimi.ParticipantListUpdate{ChangedRoleParticipants: []mimi.UserIndexRolePair{{UserIndex: i, Role: r}}}
	}
	remove := func(i ...uint32) *mimi.ParticipantListUpdate { return &mimi.ParticipantListUpdate{RemovedIndices: i} }
	add := func(u ...mimi.UserRolePair) *mimi.ParticipantListUpdate {
		return &mimi.ParticipantListUpdate{AddedParticipants: u}
	}
	for name, updates := range map[string][]*mimi.ParticipantListUpdate{
		"empty":                       {{}},
		"index out of range":          {change(2, 4)},
		"index far out of range":      {remove(1 << 31)},
		"role 0":                      {change(0, 0)},
		"unknown role":                {change(0, 9)},
		"no change":                   {change(0, 3)},
		"changed twice":               {change(0, 4), change(0, 2)},
		"changed and removed":         {change(0, 4), remove(0)},
		"removed twice":               {remove(1, 1)},
		"present user added":          {add(mimi.UserRolePair{User: alice, Role: 2})},
		"removed and added again":     {remove(0), add(mimi.UserRolePair{User: alice, Role: 2})},
		"added twice":                 {add(mimi.UserRolePair{User: dan, Role: 2}), add(mimi.UserRolePair{User: dan, Role: 2})},
		"added without a role":        {add(mimi.UserRolePair{User: dan})},
		"one good and one bad update": {add(mimi.UserRolePair{User: dan, Role: 2}), change(7, 2)},
	} {
		before := list(t)
		if next, err := before.Apply(func(r mimi.RoleIndex) bool { return r <= 4 }, updates...); !errors.Is(err, mimi.ErrParticipantUpdate) || next != nil {
			t.Errorf("%s: %v, %v", name, next, err)
		}
		if !slices.Equal(before.Participants, list(t).Participants) {
			t.Errorf("%s changed the list", name)
		}
		if next, err := mimi.UpdateParticipants(before.Marshal(), func(r mimi.RoleIndex) bool { return r <= 4 }, updates...); !errors.Is(err, mimi.ErrParticipantUpdate) || next != nil {
			t.Errorf("%s, encoded: %x, %v", name, next, err)
		}
	}
}

// An update of the encoded list is the update of the list, whatever it does.
func TestUpdateParticipants(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	known := func(r mimi.RoleIndex) bool { return r <= 4 }
	user := func(i int) mimi.URI {
		return mustURI(t, "mimi://a.example/u/u"+strings.Repeat("x", i%3*30)+strconv.Itoa(i))
	}
	refused := 0
	for range 2000 {
		var l mimi.ParticipantListData
		for i := range 3 + r.IntN(5) {
			l.Participants = append(l.Participants, mimi.UserRolePair{User: user(i), Role: mimi.RoleIndex(1 + r.IntN(4))})
		}
		updates := make([]*mimi.ParticipantListUpdate, 1+r.IntN(2))
		for i := range updates {
			u := new(mimi.ParticipantListUpdate)
			for range r.IntN(3) {
				u.ChangedRoleParticipants = append(u.ChangedRoleParticipants, mimi.UserIndexRolePair{UserIndex: r.Uint32N(6), Role: mimi.RoleIndex(1 + r.IntN(4))})
			}
			for range r.IntN(3) {
				u.RemovedIndices = append(u.RemovedIndices, r.Uint32N(6))
			}
			for range r.IntN(3) {
				u.AddedParticipants = append(u.AddedParticipants, mimi.UserRolePair{User: user(3 + r.IntN(16)), Role: mimi.RoleIndex(r.IntN(6))})
			}
			updates[i] = u
		}
		want, wantErr := l.Apply(known, updates...)
		got, err := mimi.UpdateParticipants(l.Marshal(), known, updates...)
		if wantErr != nil {
			refused++
			if err == nil || err.Error() != wantErr.Error() {
				t.Fatalf("%v and %+v: %v, want %v", l, updates, err, wantErr)
			}
			continue
		}
		if err != nil || !bytes.Equal(got, want.Marshal()) {
			t.Fatalf("%v and %+v: %x %v, want %x", l, updates, got, err, want.Marshal())
		}
	}
	if refused < 200 || refused > 1800 {
		t.Errorf("%d of 2000 updates were refused", refused)
	}
	encoded := list(t).Marshal()
	for n := range encoded {
		if next, err := mimi.UpdateParticipants(encoded[:n], known, cathyJoins(t)); err == nil {
			t.Errorf("the first %d octets of a list were taken for %x", n, next)
		}
	}
}

func TestRoomDecodersRefuse(t *testing.T) {
	twice := list(t)
	twice.Participants = append(twice.Participants, twice.Participants[0])
	if _, err := mimi.ParseParticipantListData(twice.Marshal()); err == nil {
		t.Error("a user twice was accepted")
	}
	room := list(t)
	room.Participants[0].User = mustURI(t, "mimi://a.example/r/clubhouse")
	if _, err := mimi.ParseParticipantListData(room.Marshal()); err == nil {
		t.Error("a room as a participant was accepted")
	}
	for name, change := range map[string]func(*mimi.RoomMetaData){
		"user as the room":      func(m *mimi.RoomMetaData) { m.RoomURI = mustURI(t, "mimi://a.example/u/alice") },
		"no room":               func(m *mimi.RoomMetaData) { m.RoomURI = mimi.URI{} },
		"NUL in the name":       func(m *mimi.RoomMetaData) { m.RoomName = "a\x00" },
		"name not UTF-8":        func(m *mimi.RoomMetaData) { m.RoomName = "\xff" },
		"name too long":         func(m *mimi.RoomMetaData) { m.RoomName = strings.Repeat("x", 5000) },
		"avatar over http":      func(m *mimi.RoomMetaData) { m.RoomAvatar = "http://a.example/x" },
		"avatar is a script":    func(m *mimi.RoomMetaData) { m.RoomAvatar = "javascript:alert(1)" },
		"too many descriptions": func(m *mimi.RoomMetaData) { m.RoomDescriptions = make([]mimi.RichDescription, 65) },
		"description too long": func(m *mimi.RoomMetaData) {
			m.RoomDescriptions[0].Content = make([]byte, 64<<10+1)
		},
	} {
		m := metadata(t)
		change(m)
		if _, err := mimi.ParseRoomMetaData(m.Marshal()); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestMetadataChanges(t *testing.T) {
	next := metadata(t)
	if c := metadata(t).Changes(next); len(c) != 0 {
		t.Errorf("the same metadata differs in %v", c)
	}
	next.RoomMood, next.RoomDescriptions[1].Content = "sated", []byte("<i>")
	if c := metadata(t).Changes(next); !slices.Equal(c, []mimi.MetadataField{mimi.FieldDescriptions, mimi.FieldMood}) {
		t.Errorf("changes %v", c)
	}
}

func FuzzRoomStructs(f *testing.F) {
	for i, c := range roomCodecs(f) {
		f.Add(uint8(i), c.encoded)
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		codecs := roomCodecs(t)
		v, err := codecs[int(which)%len(codecs)].parse(b)
		if err == nil && !bytes.Equal(v.Marshal(), b) {
			t.Fatal("accepted octets have another encoding")
		}
	})
}
