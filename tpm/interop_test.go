package tpm_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// tool runs another program on the TPM, while nobody else is connected.
func tool(t *testing.T, s *swtpm.Server, name string, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is not installed; run: make deps", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "TPM2OPENSSL_TCTI="+s.TCTI(), "TPM2TOOLS_TCTI="+s.TCTI())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s (the provider is in the package tpm2-openssl; run: make deps)", name, args, err, &stderr)
	}
	return out
}

var provider = []string{"-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2"}

// TestOpenSSLMakesOurKey: a TSS2 file of openssl's provider is a key of ours.
func TestOpenSSLMakesOurKey(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	folder := t.TempDir()
	tests := map[string][]string{
		"plain.pem":     {"-pkeyopt", "group:P-256"},
		"p384.pem":      {"-pkeyopt", "group:P-384"},
		"protected.pem": {"-pkeyopt", "group:P-256", "-pkeyopt", "user-auth:correct horse"},
	}
	for name, options := range tests {
		args := append([]string{"genpkey"}, provider...)
		args = append(args, "-algorithm", "EC", "-out", filepath.Join(folder, name))
		tool(t, s, "openssl", append(args, options...)...)
	}
	if err := os.WriteFile(filepath.Join(folder, "protected.pem.auth"), []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	for name := range tests {
		k, err := d.OpenKey(t.Context(), tpm.KeyURI{File: filepath.Join(folder, name)}.String())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		digest := make([]byte, k.Public().(*ecdsa.PublicKey).Params().BitSize/8)
		sig, err := k.Sign(nil, digest, nil)
		if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest, sig) {
			t.Errorf("%s: signature %x, %v", name, sig, err)
		}
	}
	content, err := os.ReadFile(filepath.Join(folder, "protected.pem"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := tpm.ParseKeyFile(content)
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.LoadKey(t.Context(), f, tpm.Auth{})
	wantError(t, err, tpm.ClassInput, tpm.ErrAuth)
}

// TestOpenSSLUsesOurKey: openssl signs with a key of ours, its authorization
// value read from the file beside it.
func TestOpenSSLUsesOurKey(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	folder := t.TempDir()
	message := []byte("signed by openssl with a key of ours")
	if err := os.WriteFile(filepath.Join(folder, "message"), message, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := tpm.Open(t.Context(), tpm.Config{Address: s.Address()})
	if err != nil {
		t.Fatal(err)
	}
	public := make(map[string]*ecdsa.PublicKey)
	for name, spec := range map[string]tpm.KeySpec{"plain.pem": {NoAuth: true}, "protected.pem": {}} {
		k := generate(t, d, spec)
		if err := tpm.SaveKeyFile(filepath.Join(folder, name), k, ""); err != nil {
			t.Fatal(err)
		}
		public[name] = k.Public().(*ecdsa.PublicKey)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for name, key := range public {
		path := filepath.Join(folder, name)
		args := append([]string{"pkeyutl"}, provider...)
		args = append(args, "-sign", "-inkey", path, "-rawin", "-digest", "sha256", "-in", filepath.Join(folder, "message"))
		if name == "protected.pem" {
			args = append(args, "-passin", "file:"+path+".auth")
		}
		digest := sha256.Sum256(message)
		if sig := tool(t, s, "openssl", args...); !ecdsa.VerifyASN1(key, digest[:], sig) {
			t.Errorf("%s: openssl's signature does not verify", name)
		}
		args = append([]string{"pkey"}, provider...)
		args = append(args, "-in", path, "-pubout")
		if name == "protected.pem" {
			args = append(args, "-passin", "file:"+path+".auth")
		}
		block, _ := pem.Decode(tool(t, s, "openssl", args...))
		if block == nil {
			t.Fatal("openssl wrote no PEM")
		}
		if k, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil || !key.Equal(k) {
			t.Errorf("%s: openssl has another public key: %v, %v", name, k, err)
		}
	}
}

// TestTPM2ToolsKey: a key that tpm2-tools made under a persistent parent and
// encoded as a TSS2 file is a key of ours.
func TestTPM2ToolsKey(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	folder := t.TempDir()
	in := func(name string) string { return filepath.Join(folder, name) }
	tool(t, s, "tpm2_createprimary", "-Q", "-C", "o", "-G", "ecc", "-c", in("primary.ctx"))
	tool(t, s, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", in("primary.ctx"), "0x81000010")
	tool(t, s, "tpm2_flushcontext", "-t")
	tool(t, s, "tpm2_create", "-Q", "-C", "0x81000010", "-G", "ecc256:ecdsa-sha256", "-p", "correct horse", "-u", in("k.pub"), "-r", in("k.priv"))
	tool(t, s, "tpm2_flushcontext", "-t")
	tool(t, s, "tpm2_encodeobject", "-C", "0x81000010", "-u", in("k.pub"), "-r", in("k.priv"), "-p", "-o", in("k.pem"))
	if err := os.WriteFile(in("k.pem.auth"), []byte("correct horse"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()})
	k, err := d.OpenKey(t.Context(), tpm.KeyURI{File: in("k.pem")}.String())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		mustSign(t, k)
	}
	if err := tpm.SaveKeyFile(in("again.pem"), k, ""); err != nil {
		t.Fatal(err)
	}
	if err := d.CheckLoaded(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestTPM2ToolsVerify: tpm2-tools believe our quote and see our persistent key.
func TestTPM2ToolsVerify(t *testing.T) {
	s := tpmtest.Start(t, swtpm.Config{})
	folder := t.TempDir()
	d, err := tpm.Open(t.Context(), tpm.Config{Address: s.Address()})
	if err != nil {
		t.Fatal(err)
	}
	ak := generate(t, d, tpm.KeySpec{Kind: tpm.AttestP256})
	q, err := d.Quote(t.Context(), ak, []byte("0123456789abcdef"), 0, 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Persist(t.Context(), ak, 0x81000020); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(ak.Public())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"ak.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}),
		"quote":  q.Statement,
		"sig":    q.Signature,
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tool(t, s, "tpm2_checkquote", "-u", filepath.Join(folder, "ak.pem"), "-m", filepath.Join(folder, "quote"),
		"-s", filepath.Join(folder, "sig"), "-g", "sha256", "-q", "30313233343536373839616263646566")
	if out := tool(t, s, "tpm2_getcap", "handles-persistent"); !bytes.Contains(out, []byte("0x81000020")) {
		t.Errorf("tpm2_getcap: %s", out)
	}
}
