package hsmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

// Names, attributes and the life of keys.

func testBadSpecs(t *testing.T, c contract) {
	tok := c.open(t)
	k := c.m.Deviations.keyTypes()[0]
	use := k.Uses()[0]
	for name, spec := range map[string]hsm.KeySpec{
		"no label":         {Type: k, Use: use},
		"a long label":     {Type: k, Use: use, Label: strings.Repeat("x", 300)},
		"a short drawn id": {Type: k, Use: use, Label: "x", ID: make([]byte, 15), FreshID: true},
		"a long id":        {Type: k, Use: use, Label: "x", ID: make([]byte, 65)},
		"no type":          {Use: use, Label: "x"},
		"unknown type":     {Type: "RSA-512", Use: use, Label: "x"},
		"unknown use":      {Type: k, Use: "wrap", Label: "x"},
		"a use too much":   {Type: hsm.HMACSHA256, Use: hsm.UseSign, Label: "x"},
	} {
		if info, err := tok.Generate(t.Context(), spec); err == nil {
			t.Errorf("%s: made %+v", name, info)
		}
	}
	keys, err := tok.Keys(t.Context())
	if err != nil || slices.ContainsFunc(keys, func(k hsm.KeyInfo) bool { return k.Label == "x" || k.Label == "" }) {
		t.Errorf("a refused specification left a key: %v", err)
	}
}

func testUses(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range c.m.Deviations.keyTypes()[:1] {
		info := generate(t, tok, k, "")
		u := tok.KeyURI(info)
		for use, give := range map[hsm.Use]func() error{
			hsm.UseSign:  func() error { _, err := tok.Signer(t.Context(), u); return err },
			hsm.UseAgree: func() error { _, err := tok.Agreement(t.Context(), u); return err },
			hsm.UseMAC:   func() error { _, err := tok.MAC(t.Context(), u); return err },
		} {
			if err := give(); info.Allows(use) != (err == nil) || err != nil && !errors.Is(err, hsm.ErrKeyUse) {
				t.Errorf("a key for %v given for %s: %v", info.Uses(), use, err)
			}
		}
	}
	for _, k := range c.agreementTypes() {
		u := tok.KeyURI(generate(t, tok, k, hsm.UseAgree))
		_, err := tok.Signer(t.Context(), u)
		wantError(t, fmt.Sprintf("an agreement key %s that signs", k), err, hsm.ErrKeyUse)
	}
}

func testAttributes(t *testing.T, c contract) {
	tok := c.open(t)
	for _, k := range c.m.Deviations.keyTypes() {
		use := k.Uses()[0]
		if use == hsm.UseAgree && c.m.Deviations.NoAgreement {
			continue
		}
		info := generate(t, tok, k, use)
		a := info.Attributes
		if !a.Token || !a.Private || !a.Sensitive || a.Extractable || !a.AlwaysSensitive || !a.NeverExtractable {
			t.Errorf("%s: %+v", k, a)
		}
		if a.Sign != (use != hsm.UseAgree) {
			t.Errorf("%s for %s: CKA_SIGN is %v", k, use, a.Sign)
		}
		if !slices.Equal(info.Weak, c.m.Deviations.Weak) {
			t.Errorf("%s lacks %v, Deviations say %v", k, info.Weak, c.m.Deviations.Weak)
		}
		checkEvidence(t, info)
	}
	if len(c.m.Deviations.Weak) > 0 {
		refusesWeakKeys(t, c)
	}
}

// checkEvidence reads the description back from the JSON in which it is kept.
func checkEvidence(t *testing.T, info hsm.KeyInfo) {
	t.Helper()
	text, err := json.Marshal(info)
	if err != nil {
		t.Fatal(err)
	}
	var back hsm.KeyInfo
	if err := json.Unmarshal(text, &back); err != nil || back.Fingerprint != info.Fingerprint || back.Attributes != info.Attributes {
		t.Errorf("%s reads back as %+v (%v)", text, back, err)
	}
}

// refusesWeakKeys opens the token without admitting what its keys lack.
func refusesWeakKeys(t *testing.T, c contract) {
	t.Run("refused where not admitted", func(t *testing.T) {
		tok := c.open(t, func(config *hsm.Config) { config.AdmitWeak = nil })
		k := c.m.Deviations.keyTypes()[0]
		label := newLabel()
		_, err := tok.Generate(t.Context(), hsm.KeySpec{Type: k, Use: k.Uses()[0], Label: label})
		wantError(t, "a key without "+strings.Join(c.m.Deviations.Weak, ", "), err, hsm.ErrWeakKey)
		for _, name := range c.m.Deviations.Weak {
			if err != nil && !strings.Contains(err.Error(), name) {
				t.Errorf("%q does not name %s", err, name)
			}
		}
		if _, err := tok.Find(t.Context(), hsm.URI{Object: label}); !errors.Is(err, hsm.ErrKeyNotFound) {
			t.Errorf("the refused key is still there: %v", err)
		}
	})
}

func testFind(t *testing.T, c contract) {
	tok := c.open(t)
	k := c.m.Deviations.keyTypes()[0]
	info := generate(t, tok, k, "")
	for name, u := range map[string]hsm.URI{
		"label": {Object: info.Label}, "id": {ID: info.ID}, "both": {ID: info.ID, Object: info.Label},
		"full": tok.KeyURI(info), "class": info.URI(),
	} {
		found, err := tok.Find(t.Context(), u)
		if err != nil || found.Fingerprint != info.Fingerprint {
			t.Errorf("by %s: %+v, %v", name, found, err)
		}
	}
	for name, u := range map[string]hsm.URI{
		"another label": {Object: info.Label + "x"}, "another id": {ID: append(bytes.Clone(info.ID), 1)},
		"id and another label": {ID: info.ID, Object: "x"}, "another class": {Object: info.Label, Type: "cert"},
	} {
		if _, err := tok.Find(t.Context(), u); !errors.Is(err, hsm.ErrKeyNotFound) {
			t.Errorf("by %s: %v", name, err)
		}
	}
	_, err := tok.Find(t.Context(), hsm.URI{})
	wantError(t, "by nothing", err, hsm.ErrURI)
	keys, err := tok.Keys(t.Context())
	if err != nil || !slices.ContainsFunc(keys, func(k hsm.KeyInfo) bool { return k.Fingerprint == info.Fingerprint }) {
		t.Errorf("Keys does not list it: %v", err)
	}
}

func testAmbiguous(t *testing.T, c contract) {
	tok := c.open(t)
	k := c.m.Deviations.keyTypes()[0]
	label := newLabel()
	var made []hsm.KeyInfo
	for range 2 {
		info, err := tok.Generate(t.Context(), hsm.KeySpec{Type: k, Use: k.Uses()[0], Label: label})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, info)
	}
	_, err := tok.Find(t.Context(), hsm.URI{Object: label})
	wantError(t, "one label of two keys", err, hsm.ErrAmbiguous)
	for _, info := range made {
		if found, err := tok.Find(t.Context(), hsm.URI{Object: label, ID: info.ID}); err != nil || found.Fingerprint != info.Fingerprint {
			t.Errorf("label and id: %v", err)
		}
	}
	wantError(t, "destroying by label", tok.Destroy(t.Context(), hsm.URI{Object: label}), hsm.ErrURI)
}

func testOtherToken(t *testing.T, c contract) {
	mod := c.openModule(t)
	for name, u := range map[string]hsm.URI{
		"another label": {Token: c.m.Label + "x"}, "another serial": {Token: c.m.Label, Serial: "no such serial"},
	} {
		if tok, err := mod.OpenToken(t.Context(), u, hsm.PINFile(c.m.PINFile)); !errors.Is(err, hsm.ErrTokenGone) {
			t.Errorf("%s: %v, %v", name, tok, err)
		} else if !strings.Contains(err.Error(), c.m.Label) {
			t.Errorf("%s: %q does not show what is there", name, err)
		}
	}
	_, err := mod.OpenToken(t.Context(), hsm.URI{Object: "x"}, nil)
	wantError(t, "no token named", err, hsm.ErrURI)
	tok := c.m.OpenTokenOf(t, mod)
	_, err = tok.Find(t.Context(), hsm.URI{Token: c.m.Label + "x", Object: "x"})
	wantError(t, "a key of another token", err, hsm.ErrKeyNotFound)
}

func testUniqueID(t *testing.T, c contract) {
	tok := c.open(t)
	k := c.m.Deviations.keyTypes()[0]
	info := generate(t, tok, k, "")
	if len(info.ID) < 16 {
		t.Errorf("a chosen id of %d octets", len(info.ID))
	}
	_, err := tok.Generate(t.Context(), hsm.KeySpec{Type: k, Use: k.Uses()[0], Label: newLabel(), ID: info.ID})
	wantError(t, "a second key of one id", err, hsm.ErrKeyExists)
	if err := user(t, tok, info)(); err != nil {
		t.Errorf("the first key after that: %v", err)
	}
}

func testDestroy(t *testing.T, c contract) {
	tok := c.open(t)
	info, use := c.anyKey(t, tok)
	if err := tok.Destroy(t.Context(), tok.KeyURI(info)); err != nil {
		t.Fatal(err)
	}
	err := use()
	wantError(t, "using a destroyed key", err, hsm.ErrKeyGone)
	checkErrorNames(t, c.m, err)
	_, err = tok.Find(t.Context(), tok.KeyURI(info))
	wantError(t, "finding a destroyed key", err, hsm.ErrKeyNotFound)
	wantError(t, "destroying it again", tok.Destroy(t.Context(), tok.KeyURI(info)), hsm.ErrKeyNotFound)
	keys, err := tok.Keys(t.Context())
	if err != nil || slices.ContainsFunc(keys, func(k hsm.KeyInfo) bool { return k.Fingerprint == info.Fingerprint }) {
		t.Errorf("Keys still lists it: %v", err)
	}
	again, err := tok.Generate(t.Context(), hsm.KeySpec{Type: info.Type, Use: info.Type.Uses()[0], Label: info.Label, ID: info.ID})
	if err != nil || again.Fingerprint == info.Fingerprint {
		t.Errorf("its name for a new key: %v", err)
	}
	// The old value must not use the new key, which has its name.
	if err := use(); err == nil {
		t.Error("the destroyed key works again: another key stands under its name")
	}
}

// checkErrorNames checks that a device error names module, slot, token,
// function and code.
func checkErrorNames(t *testing.T, m *Module, err error) {
	t.Helper()
	var e *hsm.Error
	if !errors.As(err, &e) {
		t.Errorf("%v is no *hsm.Error", err)
		return
	}
	text := e.Error()
	for _, want := range []string{m.Label, fmt.Sprint(e.Slot), "C_", "CKR_", e.Module} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not name %q", text, want)
		}
	}
	if string(e.Kind) != m.Name || e.Token != m.Label || e.Class == 0 || e.Advice == "" {
		t.Errorf("%+v is not complete", e)
	}
	if strings.Contains(text, UserPIN) {
		t.Error("an error holds the PIN")
	}
}
