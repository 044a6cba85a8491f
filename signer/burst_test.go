package signer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// Keys are looked at together; what is not fit for use is found out by itself.
func TestLookTogether(t *testing.T) {
	b := newBench(t)
	message := samples(t)[signer.ShapeMLS]
	var bursts []*signer.Signer
	for i := range 19 { // more than one statement reads
		name := signer.KeyID(fmt.Sprint("leaf-", i))
		b.create(name, signer.PurposeMLSLeaf, signer.P256)
		bursts = append(bursts, b.signer(name, signer.PurposeMLSLeaf).Burst())
	}
	if _, err := b.ring.Rotate(t.Context(), "leaf-1", ""); err != nil {
		t.Fatal(err)
	}
	b.ring.Look(t.Context(), bursts)
	known := 0
	for i, s := range bursts {
		if signer.BurstKnows(s) {
			known++
		}
		_, err := s.SignMessage(nil, message, nil)
		if i == 1 && !errors.Is(err, signer.ErrKeyState) || i != 1 && err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
	if known != len(bursts)-1 {
		t.Errorf("%d of %d keys were looked at", known, len(bursts))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	again := []*signer.Signer{b.signer("leaf-0", signer.PurposeMLSLeaf).Burst(), b.signer("leaf-2", signer.PurposeMLSLeaf).Burst()}
	b.ring.Look(ended, again)
	if signer.BurstKnows(again[0]) {
		t.Error("a look that failed was believed")
	}
	if _, err := again[0].SignMessage(nil, message, nil); err != nil {
		t.Error(err)
	}
}

// TestBurstOfMACs: MACs of a burst are those of the key, and know after its time at
// the latest that the key has another version.
func TestBurstOfMACs(t *testing.T) {
	b := newBench(t)
	b.create("mac", signer.PurposeFrankMAC, signer.HMACSHA256)
	single, err := b.ring.MAC(t.Context(), "mac", signer.PurposeFrankMAC)
	if err != nil {
		t.Fatal(err)
	}
	m := single.Burst()
	want, err := single.MAC(t.Context(), []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := m.MAC(t.Context(), []byte("m")); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("a MAC of the burst: %x %v, want %x", got, err, want)
		}
	}
	if _, err := b.ring.Rotate(t.Context(), "mac", ""); err != nil {
		t.Fatal(err)
	}
	time.Sleep(signer.BurstTime + time.Millisecond)
	if _, err := m.MAC(t.Context(), []byte("m")); !errors.Is(err, signer.ErrKeyState) {
		t.Errorf("with a version that is active no more: %v", err)
	}
}
