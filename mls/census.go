package mls

import "slices"

// A census counts what the leaves of a tree support and indexes the public
// keys of its nodes, so that the rules of section 7.3 cost a look-up and not
// a walk over the group. The census of a staged commit holds differences from
// its base only; absorb makes them the base's own.
type census struct {
	base   *census
	keys   map[string]bool // false: gone, in a difference
	counts map[capability]int
	inUse  map[CredentialType]int  // leaves whose credential has the type
	kinds  map[string]*bindingKind // of credentials with bindings, by name
}

// A capability is one value of one list of Capabilities.
type capability struct {
	list  capabilityList
	value uint16
}

type capabilityList uint8

const (
	capExtension capabilityList = iota
	capProposal
	capCredential
)

func newCensus(base *census) *census {
	return &census{base, map[string]bool{}, map[capability]int{}, map[CredentialType]int{}, map[string]*bindingKind{}}
}

// takeCensus reads a whole tree and refuses duplicate keys.
func takeCensus(t *ratchetTree) (*census, error) {
	c := newCensus(nil)
	for x, n := range t.nodes() {
		if n.leaf != nil {
			if err := c.addLeaf(n.leaf, x.firstLeaf()); err != nil {
				return nil, err
			}
		}
		if n.parent != nil && !c.addKey('e', n.parent.EncryptionKey) {
			return nil, broken(RuleTreeParentKeyUnique, "encryption key of parent node %d appears twice", x)
		}
	}
	return c, nil
}

// absorb applies a difference to its base, of which it returns the address.
func (c *census) absorb() *census {
	base := c.base
	if base == nil {
		return c
	}
	for k, present := range c.keys {
		if present {
			base.keys[k] = true
		} else {
			delete(base.keys, k)
		}
	}
	for k, n := range c.counts {
		base.counts[k] += n
	}
	for k, n := range c.inUse {
		base.inUse[k] += n
	}
	for name, kind := range c.kinds {
		base.addKind(name, kind, kind.leaves)
	}
	return base
}

func keyName(kind byte, key []byte) string { return string(kind) + string(key) }

func (c *census) hasKey(kind byte, key []byte) bool {
	name := keyName(kind, key)
	if present, known := c.keys[name]; known || c.base == nil {
		return present
	}
	return c.base.keys[name]
}

// addKey reports whether the key was new.
func (c *census) addKey(kind byte, key []byte) bool {
	if c.hasKey(kind, key) {
		return false
	}
	c.keys[keyName(kind, key)] = true
	return true
}

func (c *census) removeKey(kind byte, key []byte) {
	if c.base == nil {
		delete(c.keys, keyName(kind, key))
		return
	}
	c.keys[keyName(kind, key)] = false
}

// addLeaf counts a new leaf; its keys must be unique (section 7.3).
func (c *census) addLeaf(l *LeafNode, at LeafIndex) error {
	if !c.addKey('s', l.SignatureKey) {
		return broken(RuleLeafSignatureKey, "signature_key of leaf %d is in use", at)
	}
	if !c.addKey('e', l.EncryptionKey) {
		return broken(RuleLeafEncryptionKey, "encryption_key of leaf %d is in use", at)
	}
	c.count(l, 1)
	return nil
}

func (c *census) removeLeaf(l *LeafNode) {
	c.removeKey('s', l.SignatureKey)
	c.removeKey('e', l.EncryptionKey)
	c.count(l, -1)
}

func (c *census) count(l *LeafNode, n int) {
	c.inUse[l.Credential.Type] += n
	c.countBindings(l, n)
	countList(c, capExtension, l.Capabilities.Extensions, n)
	countList(c, capProposal, l.Capabilities.Proposals, n)
	countList(c, capCredential, l.Capabilities.Credentials, n)
}

// countList counts each distinct value of a list once.
func countList[T ~uint16](c *census, list capabilityList, values []T, n int) {
	if len(values) > 32 {
		values = slices.Clone(values)
		slices.Sort(values)
		values = slices.Compact(values)
		for _, v := range values {
			c.counts[capability{list, uint16(v)}] += n
		}
		return
	}
	for i, v := range values {
		if !slices.Contains(values[:i], v) {
			c.counts[capability{list, uint16(v)}] += n
		}
	}
}

// supporting returns how many leaves list a value.
func (c *census) supporting(list capabilityList, value uint16) int {
	n := c.counts[capability{list, value}]
	if c.base != nil {
		n += c.base.counts[capability{list, value}]
	}
	return n
}

// credentialsInUse lists the credential types that leaves have.
func (c *census) credentialsInUse() []CredentialType {
	var types []CredentialType
	for t, n := range c.inUse {
		if c.base != nil {
			n += c.base.inUse[t]
		}
		if n > 0 {
			types = append(types, t)
		}
	}
	if c.base != nil {
		for t, n := range c.base.inUse {
			if _, seen := c.inUse[t]; !seen && n > 0 {
				types = append(types, t)
			}
		}
	}
	return types
}

// checkGroup checks that all of a number of members support what the group
// uses: its extensions, its required capabilities and each other's
// credentials (sections 7.3, 11.1, 13.4).
func (c *census) checkGroup(ext Extensions, members int) error {
	for i := range ext {
		if t := ext[i].Type; !t.isDefault() && c.supporting(capExtension, uint16(t)) != members {
			return broken(RuleGroupExtensions, "GroupContext extension 0x%04x is not supported by all members", uint16(t))
		}
	}
	for _, t := range c.credentialsInUse() {
		if c.supporting(capCredential, uint16(t)) != members {
			return broken(RuleLeafCredentialCommon, "credential type 0x%04x is in use but not supported by all members", uint16(t))
		}
	}
	required, err := ext.RequiredCapabilities()
	if err != nil || required == nil {
		return err
	}
	return c.checkRequired(required, members)
}

func (c *census) checkRequired(required *RequiredCapabilities, members int) error {
	for _, t := range required.Extensions {
		if !t.isDefault() && c.supporting(capExtension, uint16(t)) != members {
			return broken(RuleGroupRequired, "required extension 0x%04x is not supported by all members", uint16(t))
		}
	}
	for _, t := range required.Proposals {
		if !t.isDefault() && c.supporting(capProposal, uint16(t)) != members {
			return broken(RuleGroupRequired, "required proposal 0x%04x is not supported by all members", uint16(t))
		}
	}
	for _, t := range required.Credentials {
		if c.supporting(capCredential, uint16(t)) != members {
			return broken(RuleGroupRequired, "required credential 0x%04x is not supported by all members", uint16(t))
		}
	}
	return nil
}
