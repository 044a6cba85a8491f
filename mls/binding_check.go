package mls

import "github.com/privyseal/privyseal/internal/tlsvec"

// A bindingKind is what matters of a multi or weak-multi credential to the
// other members: its type, and the cipher suites and types of its bindings.
type bindingKind struct {
	credential CredentialType
	bindings   []CredentialBinding
	leaves     int // that have such a credential
}

// bindingKindOf returns the kind of a leaf's credential and a name for it, or
// nil if it has no bindings that can be read.
func bindingKindOf(l *LeafNode) (string, *bindingKind) {
	if !l.Credential.isMulti() {
		return "", nil
	}
	bindings, err := l.Credential.Bindings()
	if err != nil {
		return "", nil // refused when the leaf is validated
	}
	var name tlsvec.Builder
	name.Uint16(uint16(l.Credential.Type))
	for i := range bindings {
		name.Uint16(uint16(bindings[i].CipherSuite))
		name.Uint16(uint16(bindings[i].Credential.Type))
	}
	return string(name.Bytes()), &bindingKind{credential: l.Credential.Type, bindings: bindings}
}

// countBindings adds n to the leaves of a kind.
func (c *census) countBindings(l *LeafNode, n int) {
	if name, kind := bindingKindOf(l); kind != nil {
		c.addKind(name, kind, n)
	}
}

func (c *census) addKind(name string, kind *bindingKind, n int) {
	have := c.kinds[name]
	if have == nil {
		have = &bindingKind{credential: kind.credential, bindings: kind.bindings}
		c.kinds[name] = have
	}
	if have.leaves += n; have.leaves == 0 {
		delete(c.kinds, name)
	}
}

// kindsInUse lists the kinds of bindings that leaves have, and those of them
// that no leaf of the base has.
func (c *census) kindsInUse() (all, fresh []*bindingKind) {
	if c.base != nil {
		for name, k := range c.base.kinds {
			if d := c.kinds[name]; d == nil || k.leaves+d.leaves > 0 {
				all = append(all, k)
			}
		}
	}
	for name, k := range c.kinds {
		if k.leaves > 0 && (c.base == nil || c.base.kinds[name] == nil) {
			all, fresh = append(all, k), append(fresh, k)
		}
	}
	return all, fresh
}

func supportsKinds(l *LeafNode, kinds []*bindingKind) error {
	for _, k := range kinds {
		if err := l.Capabilities.supportsCredential(k.credential, k.bindings); err != nil {
			return err
		}
	}
	return nil
}

// checkBindings checks that all members support each other's bindings (section
// 5.5.2): everybody those that are new to the group, and newcomers all. A
// census without a base is that of a group that is new.
func (c *census) checkBindings(t *ratchetTree, entered []*LeafNode) error {
	all, fresh := c.kindsInUse()
	if len(all) > maxBindingLists {
		return broken(RuleBindingSupport, "credentials with %d kinds of bindings, at most %d", len(all), maxBindingLists)
	}
	if len(fresh) > 0 {
		for _, leaf := range t.leaves() {
			if err := supportsKinds(leaf, fresh); err != nil {
				return err
			}
		}
	}
	for _, leaf := range entered {
		if err := supportsKinds(leaf, all); err != nil {
			return err
		}
	}
	return nil
}

// entered lists the leaves that a commit brings.
func (c *change) entered() []*LeafNode {
	var out []*LeafNode
	for _, a := range c.added {
		out = append(out, a.keyPackage.LeafNode)
	}
	for _, u := range c.updated {
		out = append(out, u.new)
	}
	if c.newCommitter != nil {
		out = append(out, c.newCommitter)
	}
	return out
}
