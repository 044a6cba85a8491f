package main

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/privyseal/privyseal/hsm/hsmtest"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

// The clients' keys are on SoftHSM: Ed25519, and ECDSA with an init key.
func TestPeerOnSoftHSM(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	m.Setenv(t)
	key := m.URI() + "&module-path=" + url.PathEscape(m.Path)
	for _, suite := range []int{1, 2, 7} {
		t.Run(fmt.Sprintf("suite %d", suite), func(t *testing.T) { testPeerGroup(t, suite, "--key", key) })
	}
}

// The clients' keys are in a TPM, the init key of suite 2 too.
func TestPeerOnTPM(t *testing.T) {
	for _, suite := range []int{2, 7} {
		t.Run(fmt.Sprintf("suite %d", suite), func(t *testing.T) {
			testPeerGroup(t, suite, "--key", "tpm:"+tpmtest.Start(t, swtpm.Config{}).Address())
		})
	}
	t.Run("suite 1", func(t *testing.T) {
		d := startPeer(t, "--key", "tpm:"+tpmtest.Start(t, swtpm.Config{}).Address())
		d.refuse(codeUnsupported, "create_client", fields{"suite": 1, "identity": "00"})
		if got := fmt.Sprint(d.do("info", nil)["suites"]); got != "[2 7]" {
			t.Errorf("suites %s", got)
		}
	})
}
