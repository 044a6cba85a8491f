package mls

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"slices"
	"strings"
	"testing"
)

// A boundClient has a software leaf key and a credential key of another
// scheme, such as a token's.
func boundClient(t testing.TB, name string, weak bool, inner ...CredentialType) (*Client, []CredentialBinding) {
	t.Helper()
	leafKey := newSigner(t, suites[X25519AES128SHA256Ed25519])
	public, err := sigEd25519.encodePublicKey(leafKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	var bindings []*CredentialBinding
	for _, typ := range inner {
		credential := Credential{typ, token(typ, "device of "+name)}
		if typ == CredentialX509 {
			credential = X509Credential([][]byte{[]byte("device of " + name)})
		}
		b, err := BindCredential(t.Context(), P256AES128SHA256P256, credential, newSigner(t, suites[P256AES128SHA256P256]), public)
		if err != nil {
			t.Fatal(err)
		}
		bindings = append(bindings, b)
	}
	c := newTestClient(t, X25519AES128SHA256Ed25519, name, func(c *Config) {
		c.Signer = leafKey
		c.Credential = MultiCredential(bindings...)
		if weak {
			c.Credential = WeakMultiCredential(bindings...)
		}
		multiCapable(c, inner...)
	})
	list, err := c.cfg.Credential.Bindings()
	if err != nil {
		t.Fatal(err)
	}
	return c, list
}

func multiCapable(c *Config, inner ...CredentialType) {
	c.Capabilities = ExtendedCapabilities()
	c.Capabilities.Credentials = append(c.Capabilities.Credentials, CredentialMulti, CredentialWeakMulti)
	for _, t := range inner {
		if !slices.Contains(c.Capabilities.Credentials, t) {
			c.Capabilities.Credentials = append(c.Capabilities.Credentials, t)
		}
	}
}

func keyPackageOf(t testing.TB, c *Client) *KeyPackageEntry {
	t.Helper()
	e, err := c.NewKeyPackage(t.Context(), KeyPackageOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestMultiCredentialGroup(t *testing.T) {
	var judged []CredentialBinding
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, func(c *Config) {
		multiCapable(c)
		c.Judge = func(_ context.Context, j *Judgement) error { judged = append(judged, j.Bindings...); return nil }
	})
	bob, bindings := boundClient(t, "bob", false, CredentialBasic, CredentialX509)
	e := keyPackageOf(t, bob)
	p := r.commit("alice", CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	if len(judged) != 2 || !bytes.Equal(judged[0].CredentialKey, bindings[0].CredentialKey) || !judged[1].Credential.Equal(&bindings[1].Credential) {
		t.Errorf("the judge saw %v", judged)
	}
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	r.groups["bob"], err = bob.Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{})
	r.must(err)
	r.check()
	r.commit("bob", CommitOptions{})
	r.chat()

	// A new leaf key needs new bindings.
	next := newSigner(t, suites[r.suite])
	_, err = r.groups["bob"].Commit(r.ctx, CommitOptions{Leaf: &LeafChange{Signer: next}})
	wantRule(t, err, RuleBindingSignature)
	r.groups["bob"].client.cfg.Judge = func(context.Context, *Judgement) error { return nil }
	rebound := rebind(t, next, "bob")
	r.commit("bob", CommitOptions{Leaf: &LeafChange{Signer: next, Credential: &rebound}})
	r.chat()

	// Whoever cannot support a member's binding does not come in.
	_, err = r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{r.keyPackage("carol", nil).KeyPackage}}})
	wantRule(t, err, RuleLeafCredentialCommon)
	lacking := r.keyPackage("dave", func(c *Config) { multiCapable(c); c.Capabilities.CipherSuites = []CipherSuite{r.suite} })
	_, err = r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{lacking.KeyPackage}}})
	wantRule(t, err, RuleBindingSupport)
}

func rebind(t testing.TB, leafKey crypto.Signer, name string) Credential {
	t.Helper()
	public, err := sigEd25519.encodePublicKey(leafKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	b, err := BindCredential(t.Context(), P256AES128SHA256P256, BasicCredential([]byte("device of "+name)), newSigner(t, suites[P256AES128SHA256P256]), public)
	if err != nil {
		t.Fatal(err)
	}
	return MultiCredential(b)
}

// Of a weak credential each member must support one binding, and those whom
// it joins need not support the same one.
func TestWeakMultiCredential(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, func(c *Config) {
		multiCapable(c)
		c.Capabilities.Credentials = []CredentialType{1, CredentialWeakMulti}
	})
	bob, _ := boundClient(t, "bob", true, CredentialBasic, CredentialSDJWT)
	e := keyPackageOf(t, bob)
	p := r.commit("alice", CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}, RatchetTree: true})
	w, err := ParseWelcome(p.Welcome)
	r.must(err)
	r.groups["bob"], err = bob.Join(r.ctx, w, []*KeyPackageEntry{e}, JoinOptions{})
	r.must(err)
	r.chat()
	stranger, _ := boundClient(t, "carol", true, CredentialSDJWT)
	_, err = r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{keyPackageOf(t, stranger).KeyPackage}}})
	wantRule(t, err, RuleBindingSupport)

	// A strong credential with the same bindings is refused.
	strong, _ := boundClient(t, "dave", false, CredentialBasic, CredentialSDJWT)
	_, err = r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{keyPackageOf(t, strong).KeyPackage}}})
	if err == nil {
		t.Error("a strong credential with an unsupported binding was accepted")
	}
}

func TestBindingRules(t *testing.T) {
	c, list := boundClient(t, "bob", false, CredentialBasic, CredentialX509)
	leaf := func(change func(l *LeafNode, list []CredentialBinding) Credential) *LeafNode {
		l := c.newLeaf(LeafFromKeyPackage, nil)
		l.Credential = change(l, slices.Clone(list))
		return l
	}
	point := func(list []CredentialBinding) (out []*CredentialBinding) {
		for i := range list {
			out = append(out, &list[i])
		}
		return out
	}
	for name, k := range map[string]struct {
		rule   Rule
		change func(l *LeafNode, list []CredentialBinding) Credential
	}{
		"none": {RuleBindingList, func(*LeafNode, []CredentialBinding) Credential { return MultiCredential() }},
		"truncated": {RuleBindingList, func(l *LeafNode, _ []CredentialBinding) Credential {
			return Credential{CredentialMulti, l.Credential.Body[:20]}
		}},
		"same key": {RuleBindingList, func(_ *LeafNode, b []CredentialBinding) Credential { return MultiCredential(&b[0], &b[0]) }},
		"nested": {RuleBindingList, func(_ *LeafNode, b []CredentialBinding) Credential {
			b[0].Credential = MultiCredential(&b[1])
			return MultiCredential(&b[0])
		}},
		"too many": {RuleBindingList, func(_ *LeafNode, b []CredentialBinding) Credential {
			var nine []*CredentialBinding
			for i := range 9 {
				x := b[0]
				x.CredentialKey = append(bytes.Clone(x.CredentialKey), byte(i))
				nine = append(nine, &x)
			}
			return WeakMultiCredential(nine...)
		}},
		"another leaf": {RuleBindingSignature, func(l *LeafNode, b []CredentialBinding) Credential {
			l.SignatureKey = []byte("another")
			return MultiCredential(point(b)...)
		}},
		"damaged": {RuleBindingSignature, func(_ *LeafNode, b []CredentialBinding) Credential {
			b[1].Signature = bytes.Clone(b[0].Signature)
			return MultiCredential(point(b)...)
		}},
		"type not listed": {RuleBindingSupport, func(l *LeafNode, b []CredentialBinding) Credential {
			l.Capabilities.Credentials = []CredentialType{CredentialMulti, CredentialBasic}
			return MultiCredential(point(b)...)
		}},
		"itself not listed": {RuleBindingSupport, func(l *LeafNode, b []CredentialBinding) Credential {
			l.Capabilities.Credentials = []CredentialType{CredentialX509, CredentialBasic}
			return MultiCredential(point(b)...)
		}},
		"none listed": {RuleBindingSupport, func(l *LeafNode, b []CredentialBinding) Credential {
			l.Capabilities.Credentials = []CredentialType{CredentialWeakMulti}
			return WeakMultiCredential(point(b)...)
		}},
	} {
		t.Run(name, func(t *testing.T) { wantRule(t, leaf(k.change).checkBindings(nil), k.rule) })
	}
	if err := leaf(func(*LeafNode, []CredentialBinding) Credential { return c.cfg.Credential }).checkBindings(nil); err != nil {
		t.Error(err)
	}
	// Of a weak credential, a client verifies what it supports.
	weak := leaf(func(_ *LeafNode, b []CredentialBinding) Credential {
		b[1].Signature = []byte("damaged")
		return WeakMultiCredential(point(b)...)
	})
	wantRule(t, weak.checkBindings(nil), RuleBindingSignature)
	only := DefaultCapabilities()
	only.Credentials = []CredentialType{CredentialBasic}
	if err := weak.checkBindings(&only); err != nil {
		t.Errorf("a binding that is not supported was judged: %v", err)
	}
	if b, err := new(BasicCredential(nil)).Bindings(); b != nil || err != nil {
		t.Errorf("a basic credential has bindings %v, %v", b, err)
	}
	dead := &brokenSigner{Signer: newSigner(t, suites[P256AES128SHA256P256]), failAt: 1}
	if _, err := BindCredential(t.Context(), P256AES128SHA256P256, BasicCredential(nil), dead, nil); !errors.Is(err, errDevice) {
		t.Errorf("broken device: %v", err)
	}
}

// token frames a token as the body of a credential.
func token(typ CredentialType, text string) []byte {
	if typ != CredentialSDJWT {
		return []byte(text)
	}
	return slices.Concat([]byte{0, byte(len(text))}, []byte(text))
}

// Credentials of types that this package does not know are the judge's alone.
func TestOpaqueCredentials(t *testing.T) {
	for _, typ := range []CredentialType{CredentialSDCWT, CredentialSDJWT} {
		refuse := errors.New("expired")
		seen := 0
		with := func(c *Config) {
			c.Capabilities = DefaultCapabilities()
			c.Capabilities.Credentials = append(c.Capabilities.Credentials, typ)
			c.Judge = func(_ context.Context, j *Judgement) error {
				if j.Leaf.Credential.Type == typ {
					seen++
					if strings.HasSuffix(string(j.Leaf.Credential.Body), "bad token") {
						return refuse
					}
				}
				return nil
			}
		}
		r := newRoom(t, P256AES128SHA256P256, "alice", GroupOptions{}, with)
		good := r.keyPackage("bob", func(c *Config) { with(c); c.Credential = Credential{typ, token(typ, "good token")} })
		bad := r.keyPackage("carol", func(c *Config) { with(c); c.Credential = Credential{typ, token(typ, "bad token")} })
		r.must(func() error {
			_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{good.KeyPackage}}})
			return err
		}())
		r.must(r.groups["alice"].DiscardPending(r.ctx))
		_, err := r.groups["alice"].Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{bad.KeyPackage}}})
		wantRule(t, err, RuleLeafCredential)
		if !errors.Is(err, refuse) || seen != 2 {
			t.Errorf("%v after %d questions", err, seen)
		}
	}
}

// What the group knows of its bindings follows its members.
func TestBindingKinds(t *testing.T) {
	r := newRoom(t, X25519AES128SHA256Ed25519, "alice", GroupOptions{}, func(c *Config) { multiCapable(c) })
	alice := r.groups["alice"]
	bob, _ := boundClient(t, "bob", false, CredentialBasic, CredentialX509)
	carol, _ := boundClient(t, "carol", true, CredentialBasic)
	twin, _ := boundClient(t, "twin", true, CredentialBasic)
	for _, c := range []*Client{bob, carol, twin} {
		_, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{keyPackageOf(t, c).KeyPackage}}})
		r.must(err)
		r.must(alice.MergePending(r.ctx))
	}
	check := func(want int) {
		t.Helper()
		fresh, err := takeCensus(alice.public.tree)
		r.must(err)
		for name, k := range fresh.kinds {
			if have := alice.public.census.kinds[name]; have == nil || have.leaves != k.leaves {
				t.Errorf("kind %x has %+v, the tree %d leaves", name, have, k.leaves)
			}
		}
		if n := len(alice.public.census.kinds); n != want || len(fresh.kinds) != want {
			t.Errorf("%d kinds are known and %d in the tree, want %d", n, len(fresh.kinds), want)
		}
	}
	check(2)
	for i, want := range []int{1, 1, 0} {
		_, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Remove{LeafIndex(i + 1)}}})
		r.must(err)
		r.must(alice.MergePending(r.ctx))
		check(want)
	}
	// Without them, clients that know no bindings are welcome again.
	_, err := alice.Commit(r.ctx, CommitOptions{Proposals: []Proposal{&Add{r.keyPackage("dave", nil).KeyPackage}}})
	r.must(err)

	c := newCensus(nil)
	for i := range maxBindingLists + 1 {
		l := &LeafNode{Credential: WeakMultiCredential(&CredentialBinding{CipherSuite: CipherSuite(i)})}
		c.countBindings(l, 1)
	}
	wantRule(t, c.checkBindings(alice.public.tree, nil), RuleBindingSupport)
}
