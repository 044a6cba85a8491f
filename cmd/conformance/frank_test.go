package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
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
