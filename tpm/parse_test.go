package tpm_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

var addresses = []string{"device:/dev/tpmrm0", "unix:/run/tpm.sock", "unix:/a b", "tcp:127.0.0.1:2321", "tcp:[::1]:1", "tcp:tpm-1.example.org:65535", "tcp:localhost:80"}

func TestParseAddress(t *testing.T) {
	for _, s := range addresses {
		a, err := tpm.ParseAddress(s)
		if err != nil || a.String() != s {
			t.Errorf("%s: %v, %v", s, a, err)
		}
	}
	bad := []string{"", "unix", "unix:", "unix:relative", "unix:/", "unix:/a/", "unix:/a\nb", "unix:/" + strings.Repeat("a", 107),
		"/dev/tpmrm0", "file:/dev/tpmrm0", "UNIX:/a", "device:", "device:tpm0", "tcp:", "tcp:host", "tcp:host:", "tcp:host:0",
		"tcp:host:65536", "tcp:host:080", "tcp:host:+80", "tcp:host:80 ", "tcp::80", "tcp:::1:80", "tcp:[host]:80", "tcp:-a:80",
		"tcp:a..b:80", "tcp:a b:80", "tcp:a/b:80", "tcp:[::1]", " unix:/a", "unix:/" + strings.Repeat("a", 2000)}
	for _, s := range bad {
		if a, err := tpm.ParseAddress(s); !errors.Is(err, tpm.ErrAddress) {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range addresses {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := tpm.ParseAddress(s)
		if err != nil && !errors.Is(err, tpm.ErrAddress) {
			t.Errorf("%q: error without a type: %v", s, err)
		}
		if err == nil && a.String() != s {
			t.Errorf("%q came back as %q", s, a)
		}
	})
}

var keyURIs = map[string]tpm.KeyURI{
	"tpm2:0x81000001":                {Handle: 0x81000001},
	"tpm2:0x81ffffff;auth=/run/a":    {Handle: 0x81ffffff, Auth: "/run/a"},
	"tpm2:file=/var/lib/key.pem":     {File: "/var/lib/key.pem"},
	"tpm2:file=relative~1":           {File: "relative~1"},
	"tpm2:file=/a%20b%3Bc%25;auth=d": {File: "/a b;c%", Auth: "d"},
	"tpm2:file=/%C3%BC":              {File: "/ü"},
}

func TestParseKeyURI(t *testing.T) {
	for s, want := range keyURIs {
		u, err := tpm.ParseKeyURI(s)
		if err != nil || u != want || u.String() != s {
			t.Errorf("%s: %+v, %v", s, u, err)
		}
	}
	bad := []string{"", "tpm2:", "tpm2:81000001", "tpm2:0x80000001", "tpm2:0x81", "tpm2:0x8100000A", "tpm2:0X81000001", "tpm2:0x810000010",
		"TPM2:0x81000001", "tpm2:file=", "tpm2:file=a b", "tpm2:file=%4", "tpm2:file=%zz", "tpm2:file=%61", "tpm2:file=%2f", "tpm2:file=a%00",
		"tpm2:file=a;auth=", "tpm2:file=a;auth=b;auth=c", "tpm2:file=a;x=b", "tpm2:file=a?b", "pkcs11:token=a", "tpm2:0x+1000001", "tpm2:file=" + strings.Repeat("a", 5000)}
	for _, s := range bad {
		if u, err := tpm.ParseKeyURI(s); !errors.Is(err, tpm.ErrKeyURI) {
			t.Errorf("%q: %+v, %v", s, u, err)
		}
	}
}

func FuzzParseKeyURI(f *testing.F) {
	for s := range keyURIs {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := tpm.ParseKeyURI(s)
		if err != nil && !errors.Is(err, tpm.ErrKeyURI) {
			t.Errorf("%q: error without a type: %v", s, err)
		}
		if err == nil && u.String() != s {
			t.Errorf("%q came back as %q", s, u)
		}
	})
}

// samples loads files that real programs and TPMs wrote; see testdata/README.
func samples(t testing.TB, pattern string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("no samples match %s: %v", pattern, err)
	}
	all := make(map[string][]byte)
	for _, name := range names {
		if all[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestParseKeyFile(t *testing.T) {
	for name, content := range samples(t, "*.pem") {
		f, err := tpm.ParseKeyFile(content)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkKeyFile(t, f)
		block, _ := pem.Decode(content)
		for cut := range block.Bytes {
			refused(t, name, block.Bytes[:cut])
		}
		refused(t, name, append(bytes.Clone(block.Bytes), 0))
	}
	for _, s := range []string{"", "text", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if _, err := tpm.ParseKeyFile([]byte(s)); !errors.Is(err, tpm.ErrKeyFile) {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, content := range samples(t, "*.pem") {
		for _, more := range []string{"x", string(content), strings.Repeat("\n", 20<<10)} {
			if _, err := tpm.ParseKeyFile(append(bytes.Clone(content), more...)); !errors.Is(err, tpm.ErrKeyFile) {
				t.Errorf("with something after it: %v", err)
			}
		}
	}
}

func refused(t *testing.T, name string, der []byte) {
	t.Helper()
	file := pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: der})
	if _, err := tpm.ParseKeyFile(file); !errors.Is(err, tpm.ErrKeyFile) {
		t.Errorf("%s: %d octets of it: %v", name, len(der), err)
	}
}

// checkKeyFile writes a file and reads it again.
func checkKeyFile(t *testing.T, f *tpm.KeyFile) {
	t.Helper()
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := tpm.ParseKeyFile(b)
	if err != nil {
		t.Fatalf("what was written is refused: %v", err)
	}
	if !reflect.DeepEqual(f, again) {
		t.Errorf("%+v came back as %+v", f, again)
	}
}

func FuzzParseKeyFile(f *testing.F) {
	for _, content := range samples(f, "*.pem") {
		block, _ := pem.Decode(content)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		file, err := tpm.ParseKeyFile(pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: der}))
		if err != nil {
			if !errors.Is(err, tpm.ErrKeyFile) {
				t.Errorf("error without a type: %v", err)
			}
			return
		}
		checkKeyFile(t, file)
	})
}

func FuzzParseEvidence(f *testing.F) {
	for _, content := range samples(f, "evidence*.json") {
		f.Add(content)
	}
	v := tpm.Verifier{Nonce: []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := tpm.ParseEvidence(b)
		if err != nil {
			if !errors.Is(err, tpm.ErrEvidence) {
				t.Errorf("error without a type: %v", err)
			}
			return
		}
		again, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if e, err := tpm.ParseEvidence(again); err != nil || e == nil {
			t.Errorf("what was written is refused: %v", err)
		}
		if _, err := v.Verify(e); err != nil && !errors.Is(err, tpm.ErrEvidence) {
			t.Errorf("verify: error without a type: %v", err)
		}
	})
}

// TestStoredEvidence: evidence that an earlier version stored is verified by
// this one.
func TestStoredEvidence(t *testing.T) {
	for name, content := range samples(t, "evidence*.json") {
		e, err := tpm.ParseEvidence(content)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		v := tpm.Verifier{Nonce: e.Nonce}
		if r, err := v.Verify(e); err != nil || !r.Created || r.AKTrusted {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func FuzzStatement(f *testing.F) {
	for _, content := range samples(f, "evidence*.json") {
		e, err := tpm.ParseEvidence(content)
		if err != nil {
			f.Fatal(err)
		}
		for _, b := range [][]byte{e.Certification.Statement, e.Creation.Statement, e.Quote.Statement, e.Key, e.AK} {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := tpm.ParseStatement(b); err != nil && !errors.Is(err, tpm.ErrEvidence) {
			t.Errorf("error without a type: %v", err)
		}
		if public, name, err := tpm.ReadPublicArea(b); err == nil && (public == nil || len(name.Buffer) < 34) {
			t.Error("a public area without a name")
		}
	})
}

// FuzzAnswer gives the driver answers of the fuzzer's making: a correct header
// in front of anything, to any command of opening a device and signing.
func FuzzAnswer(f *testing.F) {
	f.Add(uint8(0), uint16(0x8001), []byte{})
	f.Add(uint8(3), uint16(0x8001), []byte{0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x00, 0x00, 0x01})
	f.Add(uint8(7), uint16(0x8002), []byte{0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00})
	f.Add(uint8(9), uint16(0x8002), bytes.Repeat([]byte{0xff}, 200))
	d, layer := newFaulty(f)
	k := generate(f, d, tpm.KeySpec{})
	f.Fuzz(func(t *testing.T, n uint8, tag uint16, body []byte) {
		if len(body) > 4086 {
			body = body[:4086]
		}
		size := uint32(10 + len(body))
		answer := append([]byte{byte(tag >> 8), byte(tag), byte(size >> 24), byte(size >> 16), byte(size >> 8), byte(size), 0, 0, 0, 0}, body...)
		layer.At(1+int(n%12), tpmtest.Answer(answer))
		err := errors.Join(k.Close(), sign(t, t.Context(), k))
		layer.Clear()
		var e *tpm.Error
		if err != nil && !errors.As(err, &e) {
			t.Errorf("error without a type: %v", err)
		}
		if err := sign(t, t.Context(), k); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0})
	f.Add([]byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 1, 1})
	f.Add([]byte{0x80, 0x02, 0, 0, 0x10, 0, 0, 0, 0, 0})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		answer, err := tpm.ReadAnswer(bytes.NewReader(b), make([]byte, 4096))
		if err != nil {
			if werr := tpm.WireError(err); !errors.Is(werr, tpm.ErrMalformed) && !errors.Is(werr, tpm.ErrGone) {
				t.Errorf("error without a type: %v", err)
			}
			return
		}
		if !bytes.HasPrefix(b, answer) || len(answer) < 10 {
			t.Errorf("%x was read as %x", b, answer)
		}
	})
}
