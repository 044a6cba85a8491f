package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/tpm"
)

// An AttestationSection says which TPMs an issuer believes.
type AttestationSection struct {
	// EKRoots is a file with the roots of TPM makers, PEM, and
	// EKIntermediates one with the certificates below them.
	EKRoots         string `json:"ek_roots,omitempty"`
	EKIntermediates string `json:"ek_intermediates,omitempty"`
	// EKList is a file with the SHA-256 of the public areas (TPMT_PUBLIC) of
	// endorsement keys that the operator vouches for: one a line in
	// hexadecimal; text after it is a remark.
	EKList string `json:"ek_list,omitempty"`
}

// An ekPolicy judges endorsement keys.
type ekPolicy struct {
	roots, intermediates *x509.CertPool
	listed               map[[sha256.Size]byte]bool
}

// errNoEKs is returned where no TPM can be believed.
var errNoEKs = errors.New("no endorsement key is believed; give issuer.attestation its ek_roots or ek_list")

func loadEKPolicy(c *Config) (*ekPolicy, error) {
	s := c.issuer().Attestation
	if s == nil || s.EKRoots == "" && s.EKList == "" {
		return nil, errNoEKs
	}
	p := new(ekPolicy)
	var err error
	if p.roots, err = readPoolOf(c.dir, s.EKRoots); err != nil {
		return nil, err
	}
	if p.intermediates, err = readPoolOf(c.dir, s.EKIntermediates); err != nil {
		return nil, err
	}
	if s.EKList == "" {
		return p, nil
	}
	text, err := readBounded(resolve(c.dir, s.EKList), maxCredentialFile)
	if err != nil {
		return nil, err
	}
	p.listed, err = parseEKList(text)
	return p, err
}

// readPoolOf reads the certificates of a file; nil if there is none.
func readPoolOf(dir, name string) (*x509.CertPool, error) {
	if name == "" {
		return nil, nil
	}
	text, err := readBounded(resolve(dir, name), maxCredentialFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", name)
	}
	return pool, nil
}

func parseEKList(text []byte) (map[[sha256.Size]byte]bool, error) {
	listed := make(map[[sha256.Size]byte]bool)
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		words := strings.Fields(lines.Text())
		if len(words) == 0 || words[0][0] == '#' {
			continue
		}
		sum, err := hex.DecodeString(words[0])
		if err != nil || len(sum) != sha256.Size {
			return nil, fmt.Errorf("list of endorsement keys, line %d: want the SHA-256 of a public area in hexadecimal", n)
		}
		listed[[sha256.Size]byte(sum)] = true
	}
	return listed, lines.Err()
}

// judge says what is known of an endorsement key.
func (p *ekPolicy) judge(public []byte, chain [][]byte) (credentials.AttestationLevel, error) {
	var refused error
	if p.roots != nil && len(chain) > 0 {
		_, err := tpm.VerifyEKCertificate(public, chain, tpm.EKOptions{Roots: p.roots, Intermediates: p.intermediates})
		if err == nil {
			return credentials.AttestationCertified, nil
		}
		refused = err
	}
	sum := sha256.Sum256(public)
	if p.listed[sum] {
		return credentials.AttestationListed, nil
	}
	if refused == nil {
		refused = errors.New("it has no certificate of a believed maker")
	}
	return 0, refusedError{fmt.Errorf("endorsement key %x is not believed: %w", sum, refused)}
}

// attestTPM has our own TPM prove the key to us, as a remote one does when it
// enrols: the endorsement key by its certificate or the list, the attestation
// key by activating a credential, the key by the attestation key over our
// nonce.
func (w *wiring) attestTPM(ctx context.Context, key *signer.Key, proof *signer.Evidence, nonce []byte, p *possession) error {
	policy, err := loadEKPolicy(w.config)
	if err != nil {
		return err
	}
	e, err := tpm.ParseEvidence(proof.Proof.Statement)
	if err != nil {
		return err
	}
	level, err := policy.judge(e.EK, e.EKCertificates)
	if err != nil {
		return err
	}
	v := tpm.Verifier{Nonce: nonce}
	if v.AKName, err = w.activate(ctx, key.Active().Device, e); err != nil {
		return err
	}
	got, err := v.Verify(e)
	if err != nil {
		return err
	}
	if got.Key == nil || !credentials.SamePublicKey(got.Key, p.request.PublicKey()) {
		return refusedError{fmt.Errorf("the TPM certified another key than %s", key.ID)}
	}
	p.level, p.evidence = level, proof.Proof.Statement
	return nil
}

// activate has a TPM of ours open a credential that only the holder of both the
// endorsement key and the attestation key can open. It returns the Name of the
// attestation key, which is believed from then on.
func (w *wiring) activate(ctx context.Context, device string, e *tpm.Evidence) ([]byte, error) {
	challenge, credential, err := tpm.NewChallenge(e.EK, e.AK)
	if err != nil {
		return nil, err
	}
	answer, err := w.answerChallenge(ctx, device, credential)
	if err != nil {
		return nil, err
	}
	if !challenge.Check(answer) {
		return nil, refusedError{errors.New("the TPM answered the challenge wrongly")}
	}
	return challenge.AKName, nil
}

// answerChallenge opens a credential in one of our TPMs.
func (w *wiring) answerChallenge(ctx context.Context, name string, credential *tpm.Credential) ([]byte, error) {
	device, ok := w.devices[name].(*tpmDevice)
	if !ok {
		return nil, fmt.Errorf("device %s is no TPM", name)
	}
	ak, err := device.attestationKey(ctx)
	if err != nil {
		return nil, err
	}
	t, err := device.open(ctx)
	if err != nil {
		return nil, err
	}
	return t.ActivateCredential(ctx, endorsement(ctx, t), ak, credential)
}
