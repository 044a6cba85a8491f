package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/daemon"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/service/servicetest"
	"github.com/privyseal/privyseal/signer/signertest"
)

// vaultEnv names the program of Vault, or of OpenBao, if it is not in PATH.
const vaultEnv = "PRIVYSEAL_BENCH_VAULT"

// BenchmarkVaultTransit is the rate of P-256 signatures, and the processor time of
// the server for each, beside the transit engine of Vault: 1, 16 and 64 callers
// with single requests, and batches of 64 from two. Each server is on loopback
// over TLS, its callers are in a process of their own, and all take turns.
//
// Ours has keys in SoftHSM (hsm) or in memory (soft), a policy of ten rules, and
// a journal whose entry is durable before the signature leaves; each signature is
// verified, by the service and by the caller. Its single calls share requests, as
// the client does by itself, but where it says apart. Vault has keys in memory, a
// policy that names the key, storage in raft, to which signing writes nothing, and
// its audit device "file", which is written before the answer and not synced.
// Its callers verify nothing. Without a vault or bao in PATH, or a program that
// PRIVYSEAL_BENCH_VAULT names, it measures ours alone.
func BenchmarkVaultTransit(b *testing.B) {
	hsm := newRemoteBench(b, initOptions{softHSM: true}, "softhsm", 1, false)
	soft := newSoftwareBench(b)
	vault := newVault(b)
	const n = 2048
	for _, shape := range []struct{ callers, batch int }{{1, 0}, {16, 0}, {64, 0}, {2, 64}} {
		name := fmt.Sprintf("callers=%d", shape.callers)
		if shape.batch > 0 {
			name += fmt.Sprintf("/batch=%d", shape.batch)
		}
		b.Run(name, func(b *testing.B) {
			count := n
			if shape.callers == 1 {
				count = n / 4
			}
			l := load{Callers: shape.callers, Count: count / max(1, shape.batch), Batch: shape.batch, Keys: 1}
			f := make(figures)
			for b.Loop() {
				var theirs, theirCPU float64
				if vault != nil {
					r, cpu := vault.sign(b, l)
					theirs, theirCPU = float64(count)/r.Seconds, float64(cpu.Microseconds())/float64(count)
					f.add("vault/s", theirs)
					f.add("vault-cpu-µs", theirCPU)
					f.add("vault-caller-cpu-µs", r.CPU*1e6/float64(count))
					f.add("vault-p50-ms", r.P50)
				}
				for _, of := range []struct {
					name  string
					bench *remoteBench
					apart bool
				}{{"hsm", hsm, false}, {"soft", soft, false}, {"hsm-apart", hsm, true}, {"soft-apart", soft, true}} {
					if of.apart && shape.callers != 16 {
						continue // the same or, of 64, more than the queue takes: some would be sent away
					}
					ours := l
					ours.Server, ours.Roots, ours.Identity, ours.Apart = of.bench.load.Server, of.bench.load.Roots, of.bench.load.Identity, of.apart
					r, cpu := of.bench.remote(b, ours)
					rate, each := float64(count)/r.Seconds, float64(cpu.Microseconds())/float64(count)
					f.add(of.name+"/s", rate)
					f.add(of.name+"-cpu-µs", each)
					f.add(of.name+"-caller-cpu-µs", r.CPU*1e6/float64(count))
					f.add(of.name+"-p50-ms", r.P50)
					if theirs > 0 {
						f.add("x-vault-rate-"+of.name, rate/theirs)
						f.add("x-vault-cpu-"+of.name, each/theirCPU)
					}
				}
			}
			f.report(b)
		})
	}
	if vault == nil {
		b.Logf("no vault or bao in PATH, and %s does not name one: see developer.hashicorp.com/vault/install or openbao.org", vaultEnv)
	}
}

// newSoftwareBench is a service whose keys are in memory.
func newSoftwareBench(t testing.TB) *remoteBench {
	t.Helper()
	house := servicetest.New(t, map[string]signer.Device{"soft": signertest.New()}, nil)
	house.Service.SetPolicy(benchPolicy(t))
	b := &remoteBench{device: "soft"}
	b.serve(t, house, 1)
	return b
}

// A vault is a running Vault, or OpenBao, with a transit key and a token that may
// sign with it.
type vault struct {
	url, roots, token string
	pid               int
	client            *http.Client
}

const vaultKey = "leaf-0"

// newVault starts Vault; nil where there is none.
func newVault(b *testing.B) *vault {
	b.Helper()
	path := findVault()
	if path == "" {
		return nil
	}
	dir := b.TempDir()
	v := &vault{roots: filepath.Join(dir, "roots.pem")}
	pool := v.certificate(b, dir)
	address, cluster := freeAddress(b), freeAddress(b)
	v.url = "https://" + address
	config := fmt.Sprintf(`disable_mlock = true
api_addr = %q
cluster_addr = %q
storage "raft" {
  path = %q
  node_id = "one"
}
listener "tcp" {
  address = %q
  cluster_address = %q
  tls_cert_file = %q
  tls_key_file = %q
}
`, v.url, "https://"+cluster, dir, address, cluster, v.roots, filepath.Join(dir, "key.pem"))
	file := filepath.Join(dir, "vault.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, "server", "-config="+file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	v.pid = cmd.Process.Pid
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
	})
	v.client = newCertClient(b, pool, 2)
	if err := v.prepare(filepath.Join(dir, "audit.log")); err != nil {
		text, _ := os.ReadFile(log.Name())
		b.Fatalf("%s: %v\n%s", path, err, text)
	}
	return v
}

func findVault() string {
	if path := os.Getenv(vaultEnv); path != "" {
		return path
	}
	for _, name := range []string{"vault", "bao"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// certificate writes one for the listener, which signs itself.
func (v *vault) certificate(b *testing.B, dir string) *x509.CertPool {
	b.Helper()
	key := softwareKey(b)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		b.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"roots.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return pool
}

// prepare initialises Vault and makes the key and the token. What Vault does not
// answer yet is asked again for a minute.
func (v *vault) prepare(audit string) error {
	var begun struct {
		Token string   `json:"root_token"`
		Keys  []string `json:"keys_base64"`
	}
	end := time.Now().Add(time.Minute)
	retry := func(method, path string, in, out any) error {
		for {
			err := v.ask(method, path, in, out)
			if err == nil || time.Now().After(end) {
				return err
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	if err := retry("PUT", "sys/init", map[string]int{"secret_shares": 1, "secret_threshold": 1}, &begun); err != nil {
		return err
	}
	if err := retry("PUT", "sys/unseal", map[string]string{"key": begun.Keys[0]}, nil); err != nil {
		return err
	}
	v.token = begun.Token
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	for _, step := range []struct {
		path    string
		in, out any
	}{
		{"sys/mounts/transit", map[string]string{"type": "transit"}, nil},
		{"transit/keys/" + vaultKey, map[string]string{"type": "ecdsa-p256"}, nil},
		{"sys/policies/acl/bench", map[string]string{"policy": `path "transit/sign/` + vaultKey + `" { capabilities = ["update"] }`}, nil},
		{"sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": audit}}, nil},
		{"auth/token/create", map[string]any{"policies": []string{"bench"}, "no_default_policy": true}, &made},
	} {
		if err := retry("POST", step.path, step.in, step.out); err != nil {
			return err
		}
	}
	var key struct {
		Data struct {
			Keys map[string]struct {
				Public string `json:"public_key"`
			} `json:"keys"`
		} `json:"data"`
	}
	if err := v.ask("GET", "transit/keys/"+vaultKey, nil, &key); err != nil {
		return err
	}
	v.token = made.Auth.Token
	return v.check(key.Data.Keys["1"].Public)
}

// check verifies one signature with the public key, in PEM.
func (v *vault) check(public string) error {
	block, _ := pem.Decode([]byte(public))
	if block == nil {
		return fmt.Errorf("no public key: %q", public)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	message := loadMessage(1)
	sigs, err := (&vaultLoad{URL: v.url, Token: v.token}).sign(v.client, [][]byte{message})
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.DecodeString(sigs[0][strings.LastIndexByte(sigs[0], ':')+1:])
	if err != nil || !credentials.ECDSAP256.Verify(key, message, sig) {
		return fmt.Errorf("the signature %q does not verify (%v)", sigs[0], err)
	}
	return nil
}

func (v *vault) ask(method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return vaultCall(v.client, method, v.url+"/v1/"+path, v.token, body, out)
}

func vaultCall(c *http.Client, method, url, token string, body []byte, out any) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return err
	case res.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %s: %s", method, url, res.Status, answer)
	case out == nil:
		return nil
	}
	return json.Unmarshal(answer, out)
}

// sign runs the load, and returns what came of it and the processor time of Vault,
// to a hundredth of a second.
func (v *vault) sign(b *testing.B, l load) (loaded, time.Duration) {
	b.Helper()
	before := processCPU(b, v.pid)
	text, err := json.Marshal(map[string]any{"Vault": vaultLoad{URL: v.url, Roots: v.roots, Token: v.token, Callers: l.Callers, Count: l.Count, Batch: l.Batch}})
	if err != nil {
		b.Fatal(err)
	}
	r := runLoad(b, text)
	if r.Failed > 0 {
		b.Fatalf("%d calls of Vault failed", r.Failed)
	}
	return r, processCPU(b, v.pid) - before
}

// A vaultLoad is what a process of its own asks of Vault.
type vaultLoad struct {
	URL, Roots, Token     string
	Callers, Count, Batch int
}

func (l *vaultLoad) run() error {
	pool, err := daemon.ReadPool(l.Roots)
	if err != nil {
		return err
	}
	c := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 256}}
	return closed(l.Callers, l.Count, func(n int64) error {
		var messages [][]byte
		for k := range max(1, l.Batch) {
			messages = append(messages, loadMessage(n<<16|int64(k)))
		}
		_, err := l.sign(c, messages)
		return err
	})
}

// sign asks for one signature, or for several in a batch.
func (l *vaultLoad) sign(c *http.Client, messages [][]byte) ([]string, error) {
	type input struct {
		Input []byte `json:"input"`
	}
	var in any = input{messages[0]}
	if len(messages) > 1 {
		batch := make([]input, len(messages))
		for i, m := range messages {
			batch[i].Input = m
		}
		in = map[string]any{"batch_input": batch}
	}
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	var out struct {
		Data struct {
			Signature string `json:"signature"`
			Batch     []struct {
				Signature string `json:"signature"`
				Error     string `json:"error"`
			} `json:"batch_results"`
		} `json:"data"`
	}
	if err := vaultCall(c, "POST", l.URL+"/v1/transit/sign/"+vaultKey, l.Token, body, &out); err != nil {
		return nil, err
	}
	sigs := []string{out.Data.Signature}
	if len(messages) > 1 {
		sigs = sigs[:0]
		for _, one := range out.Data.Batch {
			sigs = append(sigs, one.Signature)
		}
	}
	if len(sigs) != len(messages) || slices.Contains(sigs, "") {
		return nil, fmt.Errorf("%d signatures for %d messages", len(sigs), len(messages))
	}
	return sigs, nil
}
