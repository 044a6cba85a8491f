package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// softHSMModules are the places where distributions put the module.
var softHSMModules = []string{
	"/usr/lib/softhsm/libsofthsm2.so",
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
	"/usr/lib64/softhsm/libsofthsm2.so",
	"/usr/lib64/pkcs11/libsofthsm2.so",
	"/usr/local/lib/softhsm/libsofthsm2.so",
}

const softHSMLabel = "privyseal"

// errNoSoftHSM says what to install.
var errNoSoftHSM = errors.New("SoftHSM is not installed; run: apt-get install softhsm2")

func findSoftHSM() (module, tool string, err error) {
	tool, err = exec.LookPath("softhsm2-util")
	if err != nil {
		return "", "", errNoSoftHSM
	}
	for _, path := range softHSMModules {
		if _, err := os.Stat(path); err == nil {
			return path, tool, nil
		}
	}
	return "", "", errNoSoftHSM
}

// makeSoftHSM makes a token in a new folder and returns its configuration. The
// PINs are random and only in files of the folder; softhsm2-util reads them
// from a terminal of ours, never from its arguments or environment.
func makeSoftHSM(ctx context.Context, dir string) (*DeviceConfig, error) {
	module, tool, err := findSoftHSM()
	if err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			err = fmt.Errorf("%s is there already; if an init was interrupted, remove it and run init again", dir)
		}
		return nil, err
	}
	tokens, conf := filepath.Join(dir, "tokens"), filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", tokens)
	if err := writeNew(conf, []byte(text)); err != nil {
		return nil, err
	}
	so, user, err := writePINs(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, tool, "--init-token", "--free", "--label", softHSMLabel)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+conf)
	out, err := answerPrompts(cmd, "PIN", []string{so, so, user, user})
	if err != nil {
		return nil, fmt.Errorf("softhsm2-util --init-token: %w: %s", err, strings.TrimSpace(out))
	}
	return &DeviceConfig{
		Kind: kindPKCS11, Module: module, Token: "pkcs11:token=" + softHSMLabel,
		PINSource: "file:softhsm/pin", Env: map[string]string{"SOFTHSM2_CONF": conf},
	}, nil
}

// writePINs draws the PINs of the security officer and the user and writes
// them to files.
func writePINs(dir string) (so, user string, err error) {
	so, user = randomPIN(), randomPIN()
	return so, user, errors.Join(
		writeNew(filepath.Join(dir, "so-pin"), []byte(so+"\n")),
		writeNew(filepath.Join(dir, "pin"), []byte(user+"\n")))
}

// randomPIN returns 16 decimal digits, 53 bits of entropy.
func randomPIN() string {
	n, err := rand.Int(rand.Reader, big.NewInt(1e16))
	if err != nil {
		panic(err) // rand.Reader does not fail
	}
	return fmt.Sprintf("%016d", n)
}
