package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/privyseal/privyseal/signer"
)

// mayRotate refuses keys that frank: rooms need the version before until their
// members have committed the next, and reports of abuse need it for longer. It
// says what to do instead, command by command.
func (w *wiring) mayRotate(ctx context.Context, id signer.KeyID) error {
	key, err := w.store.Key(ctx, id)
	if err != nil {
		return err
	}
	if key.Purpose != signer.PurposeFrankSign && key.Purpose != signer.PurposeFrankMAC {
		return nil
	}
	next, err := w.successor(ctx, id)
	if err != nil {
		return err
	}
	steps, err := w.succession(key, next)
	if err != nil {
		return err
	}
	return refusedError{fmt.Errorf("key %s franks messages, and a version before could neither frank for the rooms that have it nor verify; have another key follow it (docs/operating.md):\n%s", id, strings.Join(steps, "\n"))}
}

// maxSuccessors bounds the search for a name that is free.
const maxSuccessors = 1000

// successor is the name of the key that follows: frank-2 after frank, frank-3
// after frank-2.
func (w *wiring) successor(ctx context.Context, id signer.KeyID) (signer.KeyID, error) {
	base, n := string(id), 2
	if at := strings.LastIndexByte(base, '-'); at > 0 {
		if v, err := strconv.Atoi(base[at+1:]); err == nil && v > 0 && v < maxSuccessors {
			base, n = base[:at], v+1
		}
	}
	for ; n <= 2*maxSuccessors; n++ {
		next := signer.KeyID(fmt.Sprintf("%s-%d", base, n))
		switch _, err := w.store.Key(ctx, next); {
		case errors.Is(err, signer.ErrNoKey):
			return next, nil
		case err != nil:
			return "", err
		}
	}
	return "", fmt.Errorf("there is no free name after key %s", id)
}

// macOverlap is for how long a MAC key of before vouches for what nodes frank
// that have not been reloaded yet.
const macOverlap = time.Hour

// succession are the steps by which next follows a key.
func (w *wiring) succession(key *signer.Key, next signer.KeyID) ([]string, error) {
	create := fmt.Sprintf("  privyseal key create %s --purpose %s", next, key.Purpose)
	if v := key.Active(); v != nil {
		create += " --device " + v.Device
	}
	if key.Algorithm != key.Purpose.DefaultAlgorithm() {
		create += " --alg " + string(key.Algorithm)
	}
	steps := []string{create}
	if key.Purpose == signer.PurposeFrankMAC {
		change, err := w.macChange(key.ID, next)
		return append(steps, change...), err
	}
	change, err := w.frankChange(key.ID, next)
	return append(steps, change...), err
}

const reloadStep = "  then: privyseal config check, and reload every node (systemctl reload privyseal, or SIGHUP)"

func (w *wiring) macChange(id, next signer.KeyID) ([]string, error) {
	before := []MACKeyBefore{{MACKey: id, Until: time.Now().Add(macOverlap).UTC().Format(time.RFC3339)}}
	if p := w.provider(); p != nil && p.MACKey == id {
		before = append(before, p.MACKeysBefore...)
	}
	text, err := json.Marshal(before)
	return []string{fmt.Sprintf("  in serve.provider: \"mac_key\": %q, \"mac_keys_before\": %s", next, text), reloadStep}, err
}

func (w *wiring) frankChange(id, next signer.KeyID) ([]string, error) {
	at, domain, old, before := "keys[...]", "DOMAIN", FrankKeyBefore{FrankKey: id, FrankCertificate: "FILE"}, []FrankKeyBefore(nil)
	if p := w.provider(); p != nil {
		domain = p.Domain
		for i, k := range p.Keys {
			if k.FrankKey == id {
				at, old.FrankCertificate, before = fmt.Sprintf("keys[%d]", i), k.FrankCertificate, k.Before
			}
		}
	}
	text, err := json.Marshal(append([]FrankKeyBefore{old}, before...))
	cert := filepath.Join(filepath.Dir(old.FrankCertificate), string(next)+".pem")
	return []string{
		fmt.Sprintf("  privyseal credential request --holder %s --provider mimi://%s --out %s.csr, for the CA of the hub; or, if that is here:", next, domain, next),
		fmt.Sprintf("  privyseal credential issue --type x509 --issuer-key CA --holder %s --provider mimi://%s --out %s", next, domain, cert),
		fmt.Sprintf("  in serve.provider.%s: \"frank_key\": %q, \"frank_certificate\": %q, \"before\": %s", at, next, cert, text),
		reloadStep,
		fmt.Sprintf("  when all rooms have the new key: give %s an \"until\" in \"before\", and reload", id),
	}, err
}

// provider is the section of the provider, or nil.
func (w *wiring) provider() *ProviderSection {
	if w.config.Serve == nil {
		return nil
	}
	return w.config.Serve.Provider
}
