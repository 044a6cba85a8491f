package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os/exec"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
	"github.com/privyseal/privyseal/credentials/sdjwt"
	"github.com/privyseal/privyseal/signer"
)

// certificate makes the CA and a certificate for the device, and has it judged
// by us and by openssl.
func (d *demo) certificate(ctx context.Context) error {
	if _, err := d.createCA(ctx, &caOptions{key: "root", name: "Demo Root"}); err != nil {
		return err
	}
	if _, err := d.createCA(ctx, &caOptions{key: "issuing-ca", issuer: "root", name: "Demo Device CA", hosts: []string{"a.example"},
		crl: []string{d.site.url + "/ca/devices.crl"}, ocsp: []string{d.site.url + "/ocsp/devices"}}); err != nil {
		return err
	}
	p, err := d.possession(ctx)
	if err != nil {
		return err
	}
	if err := d.proveToIssuer(ctx, &p); err != nil {
		return err
	}
	o := &issueOptions{kind: typeX509, issuerKey: "issuing-ca", lifetime: time.Hour}
	made, err := issueX509(ctx, d.wiring, o, p)
	if err != nil {
		return err
	}
	d.did("certificate for the TPM's key", "%s, serial %.12s…, %s", made.Client, made.Serial, made.Level)
	if err := d.saveChain(made.Credential); err != nil {
		return err
	}
	r, err := d.judgeChain(ctx, time.Now(), d.leafChain, nil)
	if err != nil {
		return err
	}
	d.did("our verifier", "accepted for %s", r.User)
	out, err := d.openssl("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "issuing-ca.pem", "device.pem")
	if err != nil {
		return err
	}
	d.did("openssl verify", "%s", out)
	return nil
}

// saveChain writes the certificates of the run.
func (d *demo) saveChain(chain string) error {
	sent, err := parseCertificates([]byte(chain))
	if err != nil {
		return err
	}
	for _, c := range sent {
		d.leafChain = append(d.leafChain, c.Raw)
	}
	_, above, err := loadCA(d.config, "root")
	if err != nil {
		return err
	}
	files := map[string]*x509.Certificate{"device.pem": sent[0], "issuing-ca.pem": sent[1], "root.pem": above[0]}
	for name, c := range files {
		if _, err := d.save(name, []byte(pemChain([]*x509.Certificate{c})[0])); err != nil {
			return err
		}
	}
	return nil
}

// judgeChain judges a chain at a time, for a key or, with nil, for its own.
func (d *demo) judgeChain(ctx context.Context, at time.Time, chain [][]byte, key crypto.PublicKey) (*certs.Result, error) {
	_, above, err := loadCA(d.config, "root")
	if err != nil {
		return nil, err
	}
	v, err := certs.NewVerifier(0, certs.Entry{Name: "demo", Anchors: above[:1]})
	if err != nil {
		return nil, err
	}
	check := certs.Check{Certificates: chain, At: at, AnyKey: key == nil}
	if key != nil {
		if check.Scheme, err = credentials.SchemeOf(key); err != nil {
			return nil, err
		}
		if check.SignatureKey, err = credentials.MLSPublicKey(key); err != nil {
			return nil, err
		}
	}
	return v.Verify(ctx, check)
}

// openssl runs openssl in the folder of the run and returns the last line that
// it prints.
func (d *demo) openssl(args ...string) (string, error) {
	cmd := exec.Command("openssl", args...)
	cmd.Dir = d.dir
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("openssl is not installed; run: make deps")
	}
	if err != nil {
		return "", fmt.Errorf("openssl %s: %w: %s", args[0], err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], nil
}

// token issues an SD-JWT for the device, presents it with a KB-JWT signed by
// the TPM, and has both signatures judged by us and by openssl.
func (d *demo) token(ctx context.Context) error {
	p, err := d.possession(ctx)
	if err != nil {
		return err
	}
	claims, err := d.save("claims.json", []byte(`{"department": "research", "badge": 4711}`))
	if err != nil {
		return err
	}
	made, err := issueSDJWT(ctx, d.wiring, &issueOptions{
		kind: typeSDJWT, issuerKey: "issuer", iss: demoIssuer, lifetime: time.Hour,
		claims: claims, redact: []string{`["department"]`, `["badge"]`},
	}, p)
	if err != nil {
		return err
	}
	if _, err := d.save("credential.sd-jwt", []byte(made.Credential)); err != nil {
		return err
	}
	d.did("SD-JWT with cnf = the TPM's key", "two claims selectively disclosable")
	if err := d.present(ctx, made.Credential); err != nil {
		return err
	}
	d.tokenNonce = new(sdjwt.MemoryNonces)
	r, err := d.judgeToken(ctx, time.Now(), nil)
	if err != nil {
		return err
	}
	claimed, _ := r.Claims.Get("department")
	_, badge := r.Claims.Get("badge")
	d.did("our verifier", "accepted; department %s, badge shown %v", claimed, badge)
	return d.opensslTokens(ctx)
}

func (d *demo) present(ctx context.Context, credential string) error {
	key, err := d.holderSigner(ctx, "alice-laptop")
	if err != nil {
		return err
	}
	d.nonce = sdjwt.NewNonce()
	d.presented, err = presentSDJWT(ctx, &presentOptions{
		audience: demoVerifier, nonce: d.nonce, disclose: []string{`["department"]`},
	}, []byte(credential), key)
	if err != nil {
		return err
	}
	_, err = d.save("presentation.sd-jwt", []byte(d.presented))
	d.did("presented with a KB-JWT signed by the TPM", "one claim disclosed, for %s", demoVerifier)
	return err
}

// judgeToken judges the presentation at a time, for a holder's key or for the
// one in cnf.
func (d *demo) judgeToken(ctx context.Context, at time.Time, holder crypto.PublicKey) (*sdjwt.Verified, error) {
	key, err := d.ring.Signer(ctx, "issuer", signer.PurposeCredentialIssuer)
	if err != nil {
		return nil, err
	}
	v, err := sdjwt.NewVerifier(sdjwt.Policy{
		Issuers: sdjwt.IssuerTable{demoIssuer: sdjwt.StaticKeys{{Public: key.Public()}}}, VC: true,
		Required: []string{"iat", "exp", claimClient, claimUser}, Audiences: []string{demoVerifier},
		Status: d.site.jwtStatus(d.statusKeys(ctx)), Nonces: d.tokenNonce, Now: func() time.Time { return at },
	})
	if err != nil {
		return nil, err
	}
	return v.Verify(ctx, d.presented, sdjwt.Expect{Nonce: d.nonce, HolderKey: holder})
}

// opensslTokens has openssl verify the signatures of issuer and holder.
func (d *demo) opensslTokens(ctx context.Context) error {
	t, err := sdjwt.Parse(d.presented, sdjwt.Limits{})
	if err != nil {
		return err
	}
	issuer, err := d.ring.Signer(ctx, "issuer", signer.PurposeCredentialIssuer)
	if err != nil {
		return err
	}
	holder, err := d.holderSigner(ctx, "alice-laptop")
	if err != nil {
		return err
	}
	for _, c := range []struct {
		name, jwt string
		key       crypto.PublicKey
	}{{"issuer", t.IssuerJWT(), issuer.Public()}, {"holder", t.KeyBindingJWT(), holder.Public()}} {
		out, err := d.opensslJWT(c.name, c.jwt, c.key)
		if err != nil {
			return err
		}
		d.did("openssl dgst, signature of the "+c.name, "%s", out)
	}
	return nil
}

// opensslJWT writes a JWT's signing input, its signature in DER and the key, and
// has openssl verify them.
func (d *demo) opensslJWT(name, jwt string, key crypto.PublicKey) (string, error) {
	dot := strings.LastIndexByte(jwt, '.')
	raw, err := base64.RawURLEncoding.DecodeString(jwt[dot+1:])
	if err != nil || len(raw)%2 != 0 {
		return "", fmt.Errorf("signature of the %s has %d octets", name, len(raw))
	}
	half := len(raw) / 2
	sig, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
	if err != nil {
		return "", err
	}
	pub, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	for file, content := range map[string][]byte{
		name + ".input": []byte(jwt[:dot]), name + ".sig": sig,
		name + ".pub.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}),
	} {
		if _, err := d.save(file, content); err != nil {
			return "", err
		}
	}
	return d.openssl("dgst", "-sha256", "-verify", name+".pub.pem", "-signature", name+".sig", name+".input")
}

// refusals shows what does not pass, and why.
func (d *demo) refusals(ctx context.Context) error {
	stranger, err := d.holderSigner(ctx, "stranger")
	if err != nil {
		return err
	}
	later := time.Now().Add(48 * time.Hour)
	for _, c := range []struct {
		what string
		want credentials.Code
		try  func() error
	}{
		{"the same presentation again (replayed nonce)", credentials.CodeNonce, func() error {
			_, err := d.judgeToken(ctx, time.Now(), nil)
			return err
		}},
		{"the SD-JWT for another device's key (wrong cnf)", credentials.CodeCnfLeafMismatch, func() error {
			_, err := d.judgeToken(ctx, time.Now(), stranger.Public())
			return err
		}},
		{"the SD-JWT two days later", credentials.CodeExpired, func() error {
			_, err := d.judgeToken(ctx, later, nil)
			return err
		}},
		{"the certificate for another device's key", credentials.CodeCnfLeafMismatch, func() error {
			_, err := d.judgeChain(ctx, time.Now(), d.leafChain, stranger.Public())
			return err
		}},
		{"the certificate two days later", credentials.CodeExpired, func() error {
			_, err := d.judgeChain(ctx, later, d.leafChain, nil)
			return err
		}},
		{"a device name of another provider", credentials.CodeNameConstraint, func() error { return d.foreignName(ctx) }},
	} {
		err := c.try()
		if credentials.CodeOf(err) != c.want {
			return fmt.Errorf("%s, want %s: %w", c.what, c.want, errAccepted(err))
		}
		d.did(c.what, "%s", c.want)
	}
	return d.wrongPurpose(ctx)
}

// foreignName asks the CA for a name that it may not serve.
func (d *demo) foreignName(ctx context.Context) error {
	names, err := certs.DeviceNames("mimi://b.example/d/bob/phone", "mimi://b.example/u/bob")
	if err != nil {
		return err
	}
	p, err := d.provePossession(ctx, nil, &issueOptions{requestOptions: requestOptions{holder: "stranger"}}, names)
	if err != nil {
		return err
	}
	_, err = issueX509(ctx, d.wiring, &issueOptions{issuerKey: "issuing-ca", lifetime: time.Hour}, p)
	return err
}

// wrongPurpose asks the issuer's key for a signature that its purpose does not
// permit: one that would pass as an MLS credential binding.
func (d *demo) wrongPurpose(ctx context.Context) error {
	key, err := d.ring.Signer(ctx, "issuer", signer.PurposeCredentialIssuer)
	if err != nil {
		return err
	}
	message := append([]byte{byte(len("MLS 1.0 CredentialBindingTBS"))}, "MLS 1.0 CredentialBindingTBS\x00"...)
	_, err = key.SignMessage(nil, message, nil)
	var refusal *signer.Refusal
	if !errors.As(err, &refusal) {
		return fmt.Errorf("an MLS signature by the issuer's key: %w", errAccepted(err))
	}
	d.did("an MLS signature by the issuer's key", "%s", refusal.Reason)
	return nil
}

// tpmIntermediates returns the certificates between the TPM maker's root and
// the endorsement certificate.
func (d *demo) tpmIntermediates() (*x509.CertPool, error) {
	text, err := d.tpm.Issuer()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("the TPM maker's certificate is unreadable")
	}
	return pool, nil
}
