package tpm_test

import (
	"testing"

	"github.com/privyseal/privyseal/tpm"
	"github.com/privyseal/privyseal/tpm/swtpm"
	"github.com/privyseal/privyseal/tpm/tpmtest"
)

func TestDevice(t *testing.T) {
	tests := map[string]swtpm.Config{
		"unix socket":          {},
		"tcp":                  {TCP: true},
		"with EK certificates": {Endorsement: true},
	}
	for name, config := range tests {
		t.Run(name, func(t *testing.T) {
			s := tpmtest.Start(t, config)
			tpmtest.TestDevice(t, tpmtest.OpenConfig(t, tpm.Config{Address: s.Address()}))
		})
	}
}
