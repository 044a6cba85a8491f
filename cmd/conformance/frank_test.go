package main

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/mls"
)

// goodFrank is computed from original.cbor of draft-ietf-mimi-content-08 with
// hub_key 00..1f, the example's timestamp, suite 1 and the key of RFC 8032
// section 7.1, test 1.
func goodFrank() map[string]any {
	return map[string]any{
		"id": "original", "sender_uri": "mimi://example.com/u/alice-smith", "room_uri": "mimi://example.com/r/engineering_team",
		"accepted_timestamp":  1644387225019,
		"salt":                "5eed9406c2545547ab6f09f20a18b003",
		"application_data":    "87505eed9406c2545547ab6f09f20a18b003f640f6f6a20178206d696d693a2f2f6578616d706c652e636f6d2f752f616c6963652d736d6974680278256d696d693a2f2f6578616d706c652e636f6d2f722f656e67696e656572696e675f7465616d85016001781e746578742f6d61726b646f776e3b76617269616e743d47464d2d4d494d49583948692065766572796f6e652c207765206a75737420736869707065642072656c6561736520322e302e205f5f476f6f642020776f726b5f5f21",
		"franking_tag":        "a9a69f1d2fe6f37984190c093ecb8a10d647093db735fb7ba926bfdccff4c2bf",
		"server_frank":        "395d272f8a11846200e6c5cece361210556ac6981b2f6462c29ad92bbcba8609",
		"ciphersuite":         1,
		"signature":           "c8ec90f743b2e84b16f2f58d7ed584ac0fa8fe679daa50069c7627bbf35276020da7bc42ec63b493c9e6cae35e8b183d16419b09ff2b13e818692d344d87d801",
		"franking_public_key": "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
		"hub_key":             "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
		"expect":              "accept",
	}
}

func frankLine(t *testing.T, change map[string]any) string {
	t.Helper()
	c := goodFrank()
	for k, v := range change {
		c[k] = v
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

func TestFrank(t *testing.T) {
	var lines, want strings.Builder
	add := func(id, verdict string, change map[string]any) {
		change["id"] = id
		lines.WriteString(frankLine(t, change))
		fmt.Fprintf(&want, "%s %s\n", id, verdict)
	}
	const otherKey = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c" // RFC 8032 section 7.1, test 2
	add("good", "accept", map[string]any{})
	add("receiver only", "accept", map[string]any{"hub_key": ""})
	for reason, change := range map[string]map[string]any{
		"frank-suite":     {"group_ciphersuite": 3},
		"frank-agent":     {"agent_domain": "evil.example"},
		"frank-signature": {"franking_public_key": otherKey},
		"frank-tag":       {"franking_tag": otherKey},
		"frank-sender":    {"leaf_user_uri": "mimi://example.com/u/mallory"},
		"frank-room":      {"group_room_uri": "mimi://example.com/r/other"},
		"frank-key":       {"hub_key_from": 1644387225020},
		"frank-mac":       {"hub_key": otherKey},
		"malformed":       {"salt": "5eed"},
	} {
		change["expect"], change["reason"] = "refuse", reason
		add(reason, "refuse ("+reason+")", change)
	}
	add("back-dated", "refuse (frank-signature)", map[string]any{"accepted_timestamp": 1644387225018, "expect": "refuse"})
	add("another accused", "refuse (frank-sender)", map[string]any{"alleged_abuser_uri": "mimi://example.com/u/bob", "expect": "refuse"})
	add("expired key", "refuse (frank-key)", map[string]any{"hub_key_to": 1644387225019, "expect": "refuse"})
	add("unknown suite", "skip", map[string]any{"ciphersuite": 0x4242})
	want.WriteString("14 passed, 0 failed, 1 skipped\n")

	var stdout, stderr bytes.Buffer
	if status := run([]string{"frank"}, strings.NewReader(lines.String()), &stdout, &stderr); status != exitOK {
		t.Errorf("exit status %d: %s", status, &stderr)
	}
	if stdout.String() != want.String() {
		t.Errorf("printed\n%s\nwant\n%s", &stdout, &want)
	}
}

func TestFrankFails(t *testing.T) {
	wrong := filepath.Join(t.TempDir(), "franks.jsonl")
	lines := frankLine(t, map[string]any{"franking_tag": strings.Repeat("00", 32)}) +
		"\n" + frankLine(t, map[string]any{"id": "2", "expect": "refuse"}) +
		frankLine(t, map[string]any{"id": "3", "salt": "", "expect": "refuse", "reason": "frank-tag"})
	if err := os.WriteFile(wrong, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	const want = "original refuse (frank-tag)\nFAIL original want=accept got=refuse (frank-tag)\n" +
		"2 accept\nFAIL 2 want=refuse got=accept\n" +
		"3 refuse (malformed)\nFAIL 3 want=refuse (frank-tag) got=refuse (malformed)\n" +
		"0 passed, 3 failed, 0 skipped\n"
	for _, c := range []struct {
		name  string
		args  []string
		stdin string
		want  string
	}{
		{"wrong verdicts", []string{wrong}, "", want},
		{"refused without an expectation", nil, frankLine(t, map[string]any{"expect": "", "franking_tag": strings.Repeat("00", 32)}), "original refuse (frank-tag)\n"},
		{"not JSON", nil, "{\n" + frankLine(t, nil), "FAIL 1 want=readable got=unread (unexpected end of JSON input)\noriginal accept\n1 passed, 1 failed, 0 skipped\n"},
		{"no line", nil, "", ""},
		{"no frank in a line", nil, " \n\n", ""},
		{"a line that is too long", nil, strings.Repeat(" ", maxFrankLine) + "{}\n" + frankLine(t, nil), "FAIL 1 want=readable got=unread (the line is too long: more than 8388608 octets)\noriginal accept\n1 passed, 1 failed, 0 skipped\n"},
		{"the last line is too long", nil, frankLine(t, nil) + strings.Repeat(" ", maxFrankLine+1), "original accept\nFAIL 2 want=readable got=unread (the line is too long: more than 8388608 octets)\n1 passed, 1 failed, 0 skipped\n"},
		{"no cipher suite", nil, frankLine(t, map[string]any{"ciphersuite": 0}), "original refuse (malformed)\nFAIL original want=accept got=refuse (malformed)\n0 passed, 1 failed, 0 skipped\n"},
		{"no such file", []string{wrong + "x"}, "", ""},
	} {
		var stdout, stderr bytes.Buffer
		if status := run(append([]string{"frank"}, c.args...), strings.NewReader(c.stdin), &stdout, &stderr); status != exitFailed {
			t.Errorf("%s: exit status %d", c.name, status)
		}
		if stdout.String() != c.want {
			t.Errorf("%s printed\n%s\nwant\n%s", c.name, &stdout, c.want)
		}
	}
}

// Inputs are files or inflated files, and a flag is none.
func TestFrankInputs(t *testing.T) {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte(frankLine(t, nil))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "franks.json.gz")
	if err := os.WriteFile(name, z.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if got := run([]string{"frank", name}, nil, &stdout, &stderr); got != exitOK || stdout.String() != "original accept\n1 passed, 0 failed, 0 skipped\n" {
		t.Errorf("%d: %s%s", got, &stdout, &stderr)
	}
	if got := run([]string{"frank", "--no-such-flag"}, nil, &stdout, &stderr); got != exitUsage {
		t.Errorf("a flag: exit status %d, want %d", got, exitUsage)
	}
}

// A frank is read in every form that means the same.
func TestFrankForms(t *testing.T) {
	good := goodFrank()
	hexOf := func(name string) string { return good[name].(string) }
	octets := func(name string) []byte {
		b, err := hex.DecodeString(hexOf(name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	base64s := map[string]any{}
	for _, name := range []string{"salt", "application_data", "franking_tag", "server_frank", "signature", "franking_public_key", "hub_key"} {
		base64s[name] = base64.StdEncoding.EncodeToString(octets(name))
	}
	urls := map[string]any{"salt": base64.RawURLEncoding.EncodeToString(octets("salt")), "signature": "base64:" + base64.RawURLEncoding.EncodeToString(octets("signature"))}
	encoded := hexOf("server_frank") + "0001" + "4040" + hexOf("signature")
	for name, change := range map[string]map[string]any{
		"numbers as text":    {"accepted_timestamp": "1644387225019", "ciphersuite": "0x0001", "id": 7},
		"a suite's name":     {"ciphersuite": "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"},
		"upper case":         {"salt": strings.ToUpper(hexOf("salt"))},
		"0x and spaces":      {"salt": "0x" + hexOf("salt"), "franking_tag": hexOf("franking_tag")[:20] + " \n" + hexOf("franking_tag")[20:]},
		"base64":             base64s,
		"base64url":          urls,
		"the draft's names":  {"ciphersuite": nil, "franking_signature_ciphersuite": 1, "signature": nil, "franking_integrity_signature": hexOf("signature"), "franking_public_key": nil, "franking_signature_key": hexOf("franking_public_key")},
		"the struct":         {"ciphersuite": nil, "signature": nil, "server_frank": nil, "frank": encoded},
		"out of the content": {"salt": nil, "sender_uri": nil, "room_uri": nil},
		"a verdict":          {"expect": nil, "verdict": true},
		"unknown members":    {"comment": []int{1}, "context": map[string]any{}},
	} {
		var stdout, stderr bytes.Buffer
		status := run([]string{"frank"}, strings.NewReader(frankLine(t, change)), &stdout, &stderr)
		if status != exitOK || !strings.HasSuffix(stdout.String(), " accept\n1 passed, 0 failed, 0 skipped\n") {
			t.Errorf("%s: status %d\n%s%s", name, status, &stdout, &stderr)
		}
	}
	// A framed message says as much of itself, and has another tag.
	framed := (&mls.ApplicationFraming{MediaType: mls.MediaType{Type: "application/mimi-content"}, Content: octets("application_data")}).Bytes()
	change := map[string]any{"salt": nil, "sender_uri": nil, "room_uri": nil, "application_data": hex.EncodeToString(framed), "expect": "invalid", "reason": "tag"}
	var stdout, stderr bytes.Buffer
	if status := run([]string{"frank"}, strings.NewReader(frankLine(t, change)), &stdout, &stderr); status != exitOK {
		t.Errorf("framed: %s%s", &stdout, &stderr)
	}
	for name, change := range map[string]map[string]any{
		"a slip in hexadecimal": {"signature": "zzzz"}, "half an octet": {"franking_public_key": "abc"},
		"base64 of another length": {"franking_tag": base64.StdEncoding.EncodeToString(octets("signature"))}, "bad base64": {"signature": "base64:***"},
	} {
		change["expect"], change["reason"] = "refuse", "malformed"
		stdout.Reset()
		if status := run([]string{"frank"}, strings.NewReader(frankLine(t, change)), &stdout, &stderr); status != exitOK {
			t.Errorf("%s: %s", name, &stdout)
		}
	}
	for name, change := range map[string]map[string]any{
		"an odd verdict": {"expect": "maybe"}, "an odd suite": {"ciphersuite": "MLS_0"}, "an odd time": {"accepted_timestamp": "noon"}, "half a struct": {"frank": encoded[:40]},
	} {
		stdout.Reset()
		if status := run([]string{"frank"}, strings.NewReader(frankLine(t, change)), &stdout, &stderr); status != exitFailed || !strings.HasPrefix(stdout.String(), "FAIL original want=readable got=unread (") {
			t.Errorf("%s: status %d, %s", name, status, &stdout)
		}
	}
}
