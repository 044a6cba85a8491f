package mls

import (
	"context"
	"errors"
	"testing"
)

// Some engines leave the group's cipher suite out of their capabilities, and
// the extensions of their KeyPackages too. Config.AdmitUnlisted takes them.
func TestAdmitUnlisted(t *testing.T) {
	ctx, suite := context.Background(), P384AES256SHA384P384
	sloppy := newTestClient(t, suite, "bob", func(c *Config) {
		c.AdmitUnlisted = true
		c.Capabilities = DefaultCapabilities()
		c.Capabilities.CipherSuites = []CipherSuite{X25519AES128SHA256Ed25519}
	})
	for _, c := range []struct {
		ext  Extensions
		rule Rule
	}{{nil, RuleLeafVersion}, {Extensions{{0xF001, nil}}, RuleKeyPackageExtensions}} {
		e, err := sloppy.NewKeyPackage(ctx, KeyPackageOptions{Extensions: c.ext})
		if err != nil {
			t.Fatal(err)
		}
		for _, admit := range []bool{false, true} {
			alice := newTestClient(t, suite, "alice", func(c *Config) { c.AdmitUnlisted = admit })
			g, err := alice.CreateGroup(ctx, nil, GroupOptions{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = g.Commit(ctx, CommitOptions{Proposals: []Proposal{&Add{e.KeyPackage}}})
			if broke, ok := errors.AsType[*ValidationError](err); admit && err != nil || !admit && (!ok || broke.Rule != c.rule) {
				t.Errorf("admit %v: %v, want rule %v", admit, err, c.rule)
			}
		}
	}
}
