package translog

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
)

// Signature types of C2SP signed-note.
const algECDSA = 0x02

// VerifierKey returns the vkey of C2SP signed-note for a log's key: type 0x01
// for Ed25519, type 0x02 for ECDSA on P-256, whose key ID is the hash of the
// SubjectPublicKeyInfo.
func VerifierKey(origin string, pub crypto.PublicKey) (string, error) {
	switch pub := pub.(type) {
	case ed25519.PublicKey:
		return note.NewEd25519VerifierKey(origin, pub)
	case *ecdsa.PublicKey:
		if pub.Curve != elliptic.P256() {
			return "", errors.New("a checkpoint is signed with Ed25519 or with ECDSA on P-256")
		}
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			return "", err
		}
		id := sha256.Sum256(der)
		return fmt.Sprintf("%s+%x+%s", origin, id[:4], base64.StdEncoding.EncodeToString(append([]byte{algECDSA}, der...))), nil
	}
	return "", fmt.Errorf("a %T cannot sign checkpoints", pub)
}

// maxVKey bounds a vkey.
const maxVKey = 1024

// Keys are who must have signed a checkpoint: the log, with one of the keys
// that it has had, and a quorum of witnesses if there is one.
type Keys struct {
	Origin    string
	log       []note.Verifier
	witnesses Quorum
}

// ParseKeys reads vkeys of one origin, one a line; lines that are empty or
// begin with # are passed over.
func ParseKeys(text string) (*Keys, error) {
	k := &Keys{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if len(line) > maxVKey {
			return nil, errors.New("a verifier key is too long")
		}
		v, err := fnote.NewVerifier(line)
		if err != nil {
			return nil, fmt.Errorf("verifier key: %w", err)
		}
		if k.Origin != "" && v.Name() != k.Origin {
			return nil, fmt.Errorf("verifier keys of two logs, %s and %s", k.Origin, v.Name())
		}
		k.Origin, k.log = v.Name(), append(k.log, v)
	}
	if k.log == nil {
		return nil, errors.New("there is no verifier key; it is of the form NAME+ID+BASE64")
	}
	return k, nil
}

// checkpointSigner is a note.Signer by a function.
type checkpointSigner struct {
	origin string
	hash   uint32
	sign   func(text []byte) ([]byte, error)
}

func (s *checkpointSigner) Name() string                     { return s.origin }
func (s *checkpointSigner) KeyHash() uint32                  { return s.hash }
func (s *checkpointSigner) Sign(text []byte) ([]byte, error) { return s.sign(text) }

// NewSigner returns a note.Signer that has sign make the signatures: DER for
// ECDSA.
func NewSigner(origin string, pub crypto.PublicKey, sign func(text []byte) ([]byte, error)) (note.Signer, error) {
	vkey, err := VerifierKey(origin, pub)
	if err != nil {
		return nil, err
	}
	v, err := fnote.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", origin, err)
	}
	return &checkpointSigner{origin, v.KeyHash(), sign}, nil
}

// NewJournalSigner returns a note.Signer whose every signature is reserved in
// the journal, made by key and completed there. ctx governs them all. When the
// key is rotated it must be made anew.
func NewJournalSigner(ctx context.Context, j *journal.Journal, key *signer.Signer, origin string) (note.Signer, error) {
	return NewSigner(origin, key.Public(), func(text []byte) ([]byte, error) {
		return signCheckpoint(ctx, j, key, text)
	})
}

func signCheckpoint(ctx context.Context, j *journal.Journal, key *signer.Signer, text []byte) ([]byte, error) {
	r, err := signer.ParseRequest(text)
	if err != nil {
		return nil, err
	}
	res, err := j.Reserve(ctx, journal.Intent{Caller: "transparency log", Key: key.Key().ID, Version: key.Version(),
		Purpose: key.Key().Purpose, Request: r, Rule: "built in"})
	if err != nil {
		return nil, err
	}
	out, err := sign(ctx, key, r)
	// The outcome is written even if ctx has ended meanwhile.
	if end := res.Complete(context.WithoutCancel(ctx), out); end != nil {
		return nil, errors.Join(err, end)
	}
	return out.Signature, err
}

// sign has a device sign, and says for the journal which one did or failed.
func sign(ctx context.Context, key *signer.Signer, r *signer.Request) (journal.Outcome, error) {
	sig, err := key.Issue(ctx, r)
	if err == nil {
		return journal.Outcome{Result: journal.Signed, Device: sig.Device, Signature: sig.Octets}, nil
	}
	var out journal.Outcome
	out.Result, out.ErrorClass = failure(err)
	if d, ok := errors.AsType[*signer.DeviceError](err); ok {
		out.Device = d.Device
	}
	return out, err
}

// failure says whether a device may have signed.
func failure(err error) (journal.Result, string) {
	var refused *signer.Refusal
	switch {
	case errors.As(err, &refused):
		return journal.NotSigned, "refused"
	case errors.Is(err, signer.ErrKeyState):
		return journal.NotSigned, "key-state"
	}
	return journal.Unknown, "device"
}
