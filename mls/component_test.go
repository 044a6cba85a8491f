package mls

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if !bytes.Equal(got, unhex(t, want)) {
		t.Errorf("%s is %x, want %s", what, got, want)
	}
}

func encodeExtension(e Extension) []byte {
	ext := Extensions{e}
	b := encode(ext)
	return b[1:] // without the list's length
}

func mustDictionary(t testing.TB, entries ...ComponentData) AppDataDictionary {
	t.Helper()
	d, err := NewAppDataDictionary(entries...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The encodings below were computed by hand from the structures of
// draft-ietf-mls-extensions-10, which has no test vectors.
func TestExtensionEncodings(t *testing.T) {
	label := ComponentID(0x0021).operationLabel("test")
	wantHex(t, "ComponentOperationLabel", []byte(label), "0d 4d4c5320436f6d706f6e656e74 0021 04 74657374")
	wantHex(t, "SignContent", signContent(label, []byte{0xAA})[:1+8+len(label)], "1d 4d4c5320312e3020 0d4d4c5320436f6d706f6e656e7400210474657374")

	d := mustDictionary(t,
		ComponentData{ComponentSafeAAD, ComponentsList{0x20}.Bytes()},
		ComponentData{ComponentAppComponents, ComponentsList{0x22, 2, 1, 2}.Bytes()})
	wantHex(t, "dictionary", encodeExtension(d.Extension()), "0006 11 10 0001 07 06 0001 0002 0022 0002 03 02 0020")

	wantHex(t, "removal", MarshalProposal(RemoveAppData(0x0030)), "0008 0030 02")
	wantHex(t, "AppEphemeral", MarshalProposal(&AppEphemeral{0x8001, []byte{0xAA, 0xBB}}), "0009 8001 02 aabb")
	wantHex(t, "SelfRemove", MarshalProposal(&SelfRemove{}), "000a")
	wantHex(t, "update", MarshalProposal(UpdateAppData(0x0022, unhex(t, "080000000100000001001d186d696d693a2f2f632e6578616d706c652f752f636174687900000002"))),
		"0008 0022 01 28 08 00000001 00000001 00 1d 18 6d696d693a2f2f632e6578616d706c652f752f6361746879 00000002")
	wantHex(t, "empty Safe AAD", emptySafeAAD, "00")
	aad, err := NewSafeAAD(SafeAADItem{0x40, make([]byte, 32)}, SafeAADItem{0x20, bytes.Repeat([]byte{0xA9}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	wantHex(t, "one item", aad[:1].Bytes(), "23 0020 20"+strings.Repeat("a9", 32))
	wantHex(t, "two items", aad.Bytes(), "4046 0020 20"+strings.Repeat("a9", 32)+"0040 20"+strings.Repeat("00", 32))
	wantHex(t, "wire formats", encodeExtension(WireFormatsExtension(ExtensionSupportedWireFormats, 0xF002)), "0007 03 02 f002")
	media := MediaTypeList{{Type: "application/mimi-content"}, {"text/plain", []MediaParameter{{"charset", "UTF-8"}}}}
	wantHex(t, "media types", media.Bytes(), "34 18 6170706c69636174696f6e2f6d696d692d636f6e74656e74 00 0a 746578742f706c61696e 0e 07 63686172736574 05 5554462d38")
	wantHex(t, "framing", (&ApplicationFraming{MediaType{}, []byte{1}}).Bytes(), "00 00 01 01")
	wantHex(t, "last resort", encodeExtension(mustDictionary(t, ComponentData{ComponentLastResort, nil}).Extension()), "0006 04 03 0004 00")
	psk := &PreSharedKey{PreSharedKeyID{Type: PSKApplication, Component: 0x8001, ID: []byte{7}, Nonce: []byte{8}}}
	wantHex(t, "PSK", MarshalProposal(psk), "0004 03 8001 01 07 01 08")
	wantHex(t, "AppAck", MarshalProposal((&AppAck{[]MessageRange{{1, 2, 3}}}).Proposal()), "0009 0005 0d 0c 00000001 00000002 00000003")
}

func TestExtensionDecodersRefuse(t *testing.T) {
	dictionary := func(b []byte) error { var d AppDataDictionary; return decode("d", b, &d) }
	safe := func(b []byte) error { _, err := ParseSafeAAD(b); return err }
	list := func(b []byte) error { _, err := ParseComponentsList(b); return err }
	media := func(b []byte) error { _, err := ParseMediaTypeList(b); return err }
	framing := func(b []byte) error { _, err := ParseApplicationFraming(b); return err }
	ack := func(b []byte) error { _, err := ParseAppAck(b); return err }
	proposal := func(b []byte) error { _, err := ParseProposal(b); return err }
	for name, c := range map[string]struct {
		parse func([]byte) error
		hex   string
	}{
		"dictionary unsorted":       {dictionary, "06 0002 00 0001 00"},
		"dictionary duplicate":      {dictionary, "06 0001 00 0001 00"},
		"dictionary trailing":       {dictionary, "03 0001 00 00"},
		"Safe AAD unsorted":         {safe, "06 0002 00 0001 00"},
		"Safe AAD duplicate":        {safe, "06 0001 00 0001 00"},
		"Safe AAD trailing":         {safe, "00 00"},
		"Safe AAD absent":           {safe, ""},
		"list odd":                  {list, "03 0001 00"},
		"media list empty":          {media, "00"},
		"media type empty in list":  {media, "02 00 00"},
		"media type without slash":  {media, "03 01 61 00"},
		"media type, two slashes":   {media, "06 04 612f622f 00"},
		"parameters of empty type":  {framing, "00 04 01 61 01 62 00"},
		"too many parameters":       {framing, "03 612f62" + "22" + strings.Repeat("0000", 17) + "00"},
		"AppAck backwards":          {ack, "0c 00000001 00000003 00000002"},
		"AppAck overlapping":        {ack, "18 00000001 00000002 00000003 00000001 00000003 00000004"},
		"AppAck senders unsorted":   {ack, "18 00000002 00000002 00000003 00000001 00000003 00000004"},
		"AppDataUpdate operation 0": {proposal, "0008 0030 00"},
		"AppDataUpdate operation 3": {proposal, "0008 0030 03"},
		"SelfRemove with a body":    {proposal, "000a 00"},
	} {
		if err := c.parse(unhex(t, c.hex)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	long := &MediaType{Type: "a/b", Parameters: []MediaParameter{{"n", strings.Repeat("v", maxMediaType)}}}
	if err := media(MediaTypeList{*long}.Bytes()); err == nil {
		t.Error("a media type of more than 1 KiB was accepted")
	}
	if _, err := NewAppDataDictionary(ComponentData{1, nil}, ComponentData{1, nil}); err == nil {
		t.Error("a dictionary with a component twice was made")
	}
	if _, err := NewSafeAAD(SafeAADItem{1, nil}, SafeAADItem{1, nil}); err == nil {
		t.Error("a Safe AAD with a component twice was made")
	}
}

func TestMediaTypesCompared(t *testing.T) {
	a := &MediaType{"Text/Plain", []MediaParameter{{"Charset", "utf-8"}, {"x", "Y"}}}
	for _, c := range []struct {
		other MediaType
		equal bool
	}{
		{MediaType{"text/plain", []MediaParameter{{"X", "Y"}, {"charset", "UTF-8"}}}, true},
		{MediaType{"text/plain", []MediaParameter{{"x", "y"}, {"charset", "UTF-8"}}}, false},
		{MediaType{"text/plain", []MediaParameter{{"charset", "UTF-8"}}}, false},
		{MediaType{"text/html", a.Parameters}, false},
	} {
		if a.Equal(&c.other) != c.equal {
			t.Errorf("comparing with %v gave %v", c.other, !c.equal)
		}
	}
}

func TestDictionary(t *testing.T) {
	d := mustDictionary(t, ComponentData{5, []byte("five")}, ComponentData{2, []byte("two")})
	e := d.With(3, []byte("three")).With(5, []byte("FIVE")).Without(2)
	if v, ok := e.Find(5); !ok || string(v) != "FIVE" || len(e) != 2 {
		t.Errorf("changed dictionary is %v", e)
	}
	if v, ok := d.Find(5); !ok || string(v) != "five" || len(d) != 2 {
		t.Errorf("the original changed: %v", d)
	}
	if _, ok := d.Find(4); ok {
		t.Error("found a component that is not there")
	}
}

func TestSafeOperations(t *testing.T) {
	for _, c := range CipherSuites() {
		s := suites[c]
		signer := newSigner(t, s)
		public, err := s.sig.encodePublicKey(signer.Public())
		if err != nil {
			t.Fatal(err)
		}
		sig, err := SafeSignWithLabel(t.Context(), c, signer, 0x8001, "hello", []byte("content"))
		if err != nil {
			t.Fatal(err)
		}
		if err := SafeVerifyWithLabel(c, public, 0x8001, "hello", []byte("content"), sig); err != nil {
			t.Error(err)
		}
		for _, err := range []error{
			SafeVerifyWithLabel(c, public, 0x8002, "hello", []byte("content"), sig),
			SafeVerifyWithLabel(c, public, 0x8001, "other", []byte("content"), sig),
			SafeVerifyWithLabel(c, public, 0x8001, "hello", []byte("changed"), sig),
			VerifyWithLabel(c, public, "hello", []byte("content"), sig),
		} {
			if !errors.Is(err, ErrBadSignature) {
				t.Errorf("suite %d: %v", c, err)
			}
		}
		key, err := s.kem.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		ct, err := SafeEncryptWithLabel(c, key.PublicKey().Bytes(), 0x8001, "hello", []byte("ctx"), []byte("secret"))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := SafeDecryptWithLabel(c, key, 0x8001, "hello", []byte("ctx"), ct); err != nil || string(plain) != "secret" {
			t.Errorf("suite %d: %q, %v", c, plain, err)
		}
		if _, err := SafeDecryptWithLabel(c, key, 0x8002, "hello", []byte("ctx"), ct); !errors.Is(err, ErrDecrypt) {
			t.Errorf("suite %d: another component's ciphertext: %v", c, err)
		}
	}
	var failed *SignError
	dead := &brokenSigner{Signer: newSigner(t, suites[P256AES128SHA256P256]), failAt: 1}
	_, err := SafeSignWithLabel(t.Context(), P256AES128SHA256P256, dead, 0x8001, "hello", nil)
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), `"hello" of component 0x8001`) {
		t.Errorf("broken device: %v", err)
	}
	var _ crypto.Signer = dead
}

// Values computed from RFC 9420, section 9, with a root of 32 zero octets.
func TestExporterTree(t *testing.T) {
	s := suites[X25519AES128SHA256Ed25519]
	wantHex(t, "application_export", s.deriveSecret(make([]byte, 32), "application_export"), "1eda50bae7a95e5a306c48b926916b01f32c8f5566d845fb71306e0b2889cc5c")
	tree := newExporterTree(s, make([]byte, 32))
	for id, want := range map[LeafIndex]string{
		0x0001: "d790c3099cbf43ab173db88ea8cf083e5a36488e87350e370334854f28cc807d",
		0x0022: "7bf7748b2caf3bd51cdbeed1dcc045102a4f25fad45245825729f3708f974bea",
		0x8000: "14ac6e0bb1477f8a1e5237c7bb53690a30580609c8bee5c08b41e6dc57bc9d83",
		0xffff: "f89ab53314de47000ead79fd82db4faeb3ba7c78c67cdbf9caa207995e0fd3ef",
	} {
		secret, err := tree.takeLeaf(id)
		if err != nil {
			t.Fatal(err)
		}
		wantHex(t, "secret", secret, want)
		if _, err := tree.takeLeaf(id); !errors.Is(err, ErrConsumed) {
			t.Errorf("component %d a second time: %v", id, err)
		}
	}
}
