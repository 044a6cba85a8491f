package mls

import (
	"bytes"
	"errors"
	"testing"
)

func seedMediaTypes() MediaTypeList {
	return MediaTypeList{{Type: "application/mimi-content"}, {"text/plain", []MediaParameter{{"charset", "UTF-8"}}}}
}

func FuzzAppDataDictionary(f *testing.F) {
	d := mustDictionary(f, ComponentData{1, ComponentsList{1, 2}.Bytes()}, ComponentData{2, nil})
	f.Add(encode(&d))
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(AppDataDictionary)
	})
}

func FuzzSafeAAD(f *testing.F) {
	f.Add(SafeAAD{{0x20, make([]byte, 32)}, {0x40, []byte("x")}}.Bytes())
	f.Add(emptySafeAAD)
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(SafeAAD)
	})
}

func FuzzMediaTypeList(f *testing.F) {
	f.Add(seedMediaTypes().Bytes())
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(MediaTypeList)
	})
}

func FuzzApplicationFraming(f *testing.F) {
	f.Add((&ApplicationFraming{seedMediaTypes()[1], []byte("hello")}).Bytes())
	f.Add((&ApplicationFraming{MediaType{}, []byte("hello")}).Bytes())
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(ApplicationFraming)
	})
}

func FuzzAppAck(f *testing.F) {
	f.Add((&AppAck{[]MessageRange{{0, 1, 1}, {0, 3, 9}, {2, 0, 4}}}).Proposal().Data)
	fuzzCodec(f, func() interface {
		marshaler
		unmarshaler
	} {
		return new(AppAck)
	})
}

// A ComponentsList is read in any order and written sorted.
func FuzzComponentsList(f *testing.F) {
	f.Add(ComponentsList{1, 2, 0x22}.Bytes())
	f.Add([]byte{4, 0, 2, 0, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := ParseComponentsList(in)
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		again, err := ParseComponentsList(list.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), list.Bytes()) {
			t.Fatalf("%v read again as %v, %v", list, again, err)
		}
	})
}

func FuzzCredentialBindings(f *testing.F) {
	c, _ := boundClient(f, "seed", false, CredentialBasic, CredentialX509)
	f.Add(c.cfg.Credential.Body)
	f.Fuzz(func(t *testing.T, in []byte) {
		c := Credential{CredentialMulti, bytes.Clone(in)}
		list, err := c.Bindings()
		if err != nil {
			if !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
			return
		}
		var back []*CredentialBinding
		for i := range list {
			back = append(back, &list[i])
			if err := list[i].Verify([]byte("leaf")); !errors.Is(err, ErrBadSignature) && !errors.Is(err, ErrUnsupported) {
				t.Fatalf("binding %d: %v", i, err)
			}
		}
		if out := MultiCredential(back...); !bytes.Equal(out.Body, in) {
			t.Fatalf("%x re-encoded as %x", in, out.Body)
		}
	})
}

// A leaf's or GroupContext's lists never panic and name their rule.
func FuzzExtensionLists(f *testing.F) {
	f.Add(uint16(ExtensionAppDataDictionary), encodeExtension(mustDictionary(f, ComponentData{ComponentContentMediaTypes, seedMediaTypes().Bytes()}).Extension())[3:])
	f.Add(uint16(ExtensionRequiredWireFormats), []byte{2, 0xF0, 2})
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		ext := Extensions{{ExtensionType(typ), data}}
		for _, err := range []error{ext.checkKnown(), ext.checkAAD(data)} {
			if err != nil && !typed(err) {
				t.Fatalf("untyped: %v", err)
			}
		}
	})
}

func TestExtensionPrefixesRefused(t *testing.T) {
	c, _ := boundClient(t, "seed", false, CredentialBasic, CredentialX509)
	d := mustDictionary(t, ComponentData{1, []byte("x")})
	for name, k := range map[string]struct {
		encoded []byte
		parse   func([]byte) error
	}{
		"dictionary": {encode(&d), func(b []byte) error { return decode("d", b, new(AppDataDictionary)) }},
		"Safe AAD":   {SafeAAD{{1, []byte("x")}}.Bytes(), func(b []byte) error { _, err := ParseSafeAAD(b); return err }},
		"framing": {(&ApplicationFraming{seedMediaTypes()[1], []byte("x")}).Bytes(),
			func(b []byte) error { _, err := ParseApplicationFraming(b); return err }},
		"media types": {seedMediaTypes().Bytes(), func(b []byte) error { _, err := ParseMediaTypeList(b); return err }},
		"AppAck":      {(&AppAck{[]MessageRange{{1, 2, 3}}}).Proposal().Data, func(b []byte) error { _, err := ParseAppAck(b); return err }},
		"update":      {MarshalProposal(UpdateAppData(1, []byte("x"))), func(b []byte) error { _, err := ParseProposal(b); return err }},
		"ephemeral":   {MarshalProposal(&AppEphemeral{1, []byte("x")}), func(b []byte) error { _, err := ParseProposal(b); return err }},
		"SelfRemove":  {MarshalProposal(&SelfRemove{}), func(b []byte) error { _, err := ParseProposal(b); return err }},
		"bindings": {c.cfg.Credential.Body, func(b []byte) error {
			_, err := (&Credential{CredentialMulti, b}).Bindings()
			if len(b) == len(encodeBindings(firstBinding(c))) {
				return errors.New("a whole binding is no proper prefix")
			}
			return err
		}},
	} {
		if err := k.parse(k.encoded); err != nil && name != "bindings" {
			t.Errorf("%s: %v", name, err)
		}
		for i := range k.encoded {
			if k.parse(k.encoded[:i]) == nil {
				t.Errorf("%s: prefix of %d octets of %d was accepted", name, i, len(k.encoded))
			}
		}
	}
}

func firstBinding(c *Client) []*CredentialBinding {
	list, _ := c.cfg.Credential.Bindings()
	return []*CredentialBinding{&list[0]}
}

// FuzzLiveExtensions feeds damaged messages of a group with components, Safe
// AAD and framed content to a member, which must refuse them and stay as it
// is.
func FuzzLiveExtensions(f *testing.F) {
	media := seedMediaTypes()[:1]
	r := newExtRoom(f, []ComponentData{{ComponentSafeAAD, ComponentsList{testAADItem}.Bytes()}, {ComponentContentMediaTypes, media.Bytes()}}, "bob")
	alice, bob := r.groups["alice"], r.groups["bob"]
	var messages [][]byte
	keep := func(m []byte, err error) {
		r.must(err)
		messages = append(messages, m)
	}
	keep(alice.SendContent(r.ctx, &ApplicationFraming{Content: []byte("x")}, nil))
	public := ProposeOptions{WireFormat: WirePublicMessage}
	keep(alice.Propose(r.ctx, UpdateAppData(counterID, []byte{1}), public))
	keep(alice.Propose(r.ctx, &AppEphemeral{noteID, []byte("x")}, public))
	keep(alice.ProposeSelfRemove(r.ctx, nil))
	alice.ClearProposals()
	p, err := alice.Commit(r.ctx, CommitOptions{WireFormat: WirePublicMessage, Proposals: []Proposal{UpdateAppData(counterID, []byte{1})}})
	r.must(err)
	messages = append(messages, p.Message)
	for i := range messages {
		f.Add(uint8(i), uint16(9), uint8(1))
		f.Add(uint8(i), uint16(60), uint8(128))
	}
	auth := bob.EpochAuthenticator()
	f.Fuzz(func(t *testing.T, which uint8, at uint16, flip uint8) {
		raw := bytes.Clone(messages[int(which)%len(messages)])
		raw[int(at)%len(raw)] ^= flip
		m, err := ParseMessage(raw)
		if err != nil || flip == 0 {
			return
		}
		v, err := bob.Verify(m)
		if c, ok := v.(*VerifiedCommit); ok && err == nil {
			_, err = bob.Stage(t.Context(), c)
		}
		if err == nil {
			t.Fatalf("message %d with octet %d changed was accepted", which, at)
		}
		if !bytes.Equal(bob.EpochAuthenticator(), auth) || len(bob.PendingProposals()) > 0 {
			t.Fatal("the group changed")
		}
	})
}
