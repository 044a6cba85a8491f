package signer_test

import (
	"errors"
	"testing"
	"time"

	"github.com/privyseal/privyseal/signer"
)

// TestBurstSeesWhatChanged: after its time at the latest, and after a failure,
// a burst knows what happened to the key.
func TestBurstSeesWhatChanged(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, signer.P256)
	message := samples(t)[signer.ShapeMLS]
	s := b.signer("leaf", signer.PurposeMLSLeaf).Burst()
	for range 3 {
		sig, err := s.SignMessage(nil, message, nil)
		if err != nil || !s.Scheme().Verify(s.Public(), message, sig) {
			t.Fatalf("a signature of the burst: %v", err)
		}
	}
	if _, err := b.ring.Rotate(t.Context(), "leaf", ""); err != nil {
		t.Fatal(err)
	}
	time.Sleep(signer.BurstTime + time.Millisecond)
	if _, err := s.SignMessage(nil, message, nil); !errors.Is(err, signer.ErrKeyState) {
		t.Errorf("with a version that is active no more: %v", err)
	}
}

// TestBurstForgetsAfterFailure: a device that answered wrongly is not asked
// again by those who looked before.
func TestBurstForgetsAfterFailure(t *testing.T) {
	b := newBench(t)
	b.create("leaf", signer.PurposeMLSLeaf, signer.P256)
	message := samples(t)[signer.ShapeMLS]
	s := b.signer("leaf", signer.PurposeMLSLeaf).Burst()
	if _, err := s.SignMessage(nil, message, nil); err != nil {
		t.Fatal(err)
	}
	b.device.Garble = func(sig []byte) []byte {
		b.device.Garble = nil
		return append(sig[:len(sig)-1:len(sig)-1], sig[len(sig)-1]^1)
	}
	if _, err := s.SignMessage(nil, message, nil); !errors.Is(err, signer.ErrBadSignature) {
		t.Fatalf("a wrong signature: %v", err)
	}
	if _, err := s.SignMessage(nil, message, nil); !errors.Is(err, signer.ErrDeviceSuspect) {
		t.Errorf("from a device that is suspect: %v", err)
	}
}
