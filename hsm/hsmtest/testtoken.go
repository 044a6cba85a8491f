package hsmtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

// TestToken is the contract of a token: what hsm.Token promises, on a real
// module. The changes say how it is hosted. It runs unchanged on every module;
// m.Deviations say what a module does otherwise.
func TestToken(t *testing.T, m *Module, changes ...Change) {
	c := contract{m: m, changes: changes}
	for _, s := range []struct {
		name string
		run  func(*testing.T, contract)
	}{
		{"describes itself", testInfo},
		{"signs", testSigns},
		{"refuses digests of other lengths", testDigestLength},
		{"signs messages", testSignMessage},
		{"agrees on secrets", testAgreement},
		{"authenticates", testMAC},
		{"refuses what it cannot make", testUnsupported},
		{"refuses bad specifications", testBadSpecs},
		{"keeps keys to their use", testUses},
		{"shows the attributes", testAttributes},
		{"finds and lists", testFind},
		{"refuses ambiguous names", testAmbiguous},
		{"refuses other tokens", testOtherToken},
		{"keeps ids unique", testUniqueID},
		{"destroys", testDestroy},
		{"notices what another login destroyed", testDestroyedElsewhere},
		{"notices a key that was replaced", testReplaced},
		{"serves many callers", testConcurrent},
		{"generates beside signatures", testGenerateBesideSignatures},
		{"obeys the context", testContext},
		{"sends a refused PIN once", testRefusedPIN},
		{"says no after closing", testClosed},
	} {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) { s.run(t, c) })
	}
}

// A contract is a module and how it is hosted.
type contract struct {
	m       *Module
	changes []Change
}

// open opens the token; the device behind it must be idle.
func (c contract) open(t *testing.T, more ...Change) *hsm.Token {
	t.Helper()
	return c.m.OpenTokenOf(t, c.openModule(t, more...))
}

func (c contract) openModule(t *testing.T, more ...Change) *hsm.Module {
	t.Helper()
	return c.m.OpenModule(t, slices.Concat(c.changes, more)...)
}

// inProcess reports whether the module is in this process, where a layer can
// be put around it.
func (c contract) inProcess() bool { return c.m.Config(c.changes...).Workers == 0 }

var labels atomic.Int64

// newLabel returns a label that no other key of this process has.
func newLabel() string { return fmt.Sprintf("key %d", labels.Add(1)) }

// generate makes a key with a label of its own. No use stands for the first of
// the type.
func generate(t testing.TB, tok *hsm.Token, k hsm.KeyType, use hsm.Use) hsm.KeyInfo {
	t.Helper()
	if use == "" {
		use = k.Uses()[0]
	}
	info, err := tok.Generate(t.Context(), hsm.KeySpec{Type: k, Use: use, Label: newLabel()})
	if err != nil {
		t.Fatalf("generate %s for %s: %v", k, use, err)
	}
	return info
}

func signer(t testing.TB, tok *hsm.Token, info hsm.KeyInfo) *hsm.Key {
	t.Helper()
	key, err := tok.Signer(t.Context(), tok.KeyURI(info))
	if err != nil {
		t.Fatalf("signer of %q: %v", info.Label, err)
	}
	return key
}

// signingTypes lists the types of the module that sign.
func (c contract) signingTypes() (types []hsm.KeyType) {
	for _, k := range c.m.Deviations.keyTypes() {
		if slices.Contains(k.Uses(), hsm.UseSign) {
			types = append(types, k)
		}
	}
	return types
}

// agreementTypes lists the types of the module that agree on secrets.
func (c contract) agreementTypes() (types []hsm.KeyType) {
	for _, k := range c.m.Deviations.keyTypes() {
		if slices.Contains(k.Uses(), hsm.UseAgree) && !c.m.Deviations.NoAgreement {
			types = append(types, k)
		}
	}
	return types
}

// anyKey makes a key of the first type that the module has, and returns a
// function that uses it and checks the result.
func (c contract) anyKey(t testing.TB, tok *hsm.Token) (hsm.KeyInfo, func() error) {
	t.Helper()
	info := generate(t, tok, c.m.Deviations.keyTypes()[0], "")
	return info, user(t, tok, info)
}

// user returns a function that uses the key and checks the result.
func user(t testing.TB, tok *hsm.Token, info hsm.KeyInfo) func() error {
	t.Helper()
	if info.Class == hsm.ClassPrivate {
		key := signer(t, tok, info)
		return func() error { return trySign(key, []byte("message")) }
	}
	return macUser(t, tok, info)
}

// wantError fails unless err is target.
func wantError(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: %v, want %v", what, err, target)
	}
}
