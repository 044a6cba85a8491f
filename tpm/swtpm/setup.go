package swtpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// endorse makes the state with endorsement keys and their certificates, from a
// CA of its own so that nothing outside the folder is read or written.
func (s *Server) endorse(ctx context.Context) error {
	if _, err := exec.LookPath("swtpm_setup"); err != nil {
		return ErrMissing
	}
	localca, err := exec.LookPath("swtpm_localca")
	if err != nil {
		return ErrMissing
	}
	ca := s.caDir()
	if err := os.MkdirAll(ca, 0o700); err != nil {
		return err
	}
	files := map[string]string{
		"localca.conf":    fmt.Sprintf("statedir = %s\nsigningkey = %s/signkey.pem\nissuercert = %s/issuercert.pem\ncertserial = %s/certserial\n", ca, ca, ca, ca),
		"localca.options": "--platform-manufacturer Privyseal\n--platform-version 1\n--platform-model test\n",
		"setup.conf":      fmt.Sprintf("create_certs_tool = %s\ncreate_certs_tool_config = %s/localca.conf\ncreate_certs_tool_options = %s/localca.options\n", localca, ca, ca),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(ca, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "swtpm_setup", "--tpm2", "--tpmstate", s.stateDir(),
		"--config", filepath.Join(ca, "setup.conf"), "--createek", "--create-ek-cert", "--overwrite")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("swtpm_setup: %w: %s", err, out)
	}
	return nil
}

// The dictionary attack parameters of a TPM under test: defaults lock it for
// 1000 seconds after three unclean stops.
const (
	maxTries        = 31
	recoveryTime    = 10 // seconds
	lockoutRecovery = 1  // second
)

// relaxLockout sends TPM2_DictionaryAttackParameters (Part 3, 25.3), with the
// empty lockout authorization of a new TPM.
func (s *Server) relaxLockout(ctx context.Context) error {
	return s.SetLockout(ctx, maxTries, recoveryTime, lockoutRecovery)
}

// SetLockout sets the number of failed authorizations that lock the TPM and
// the seconds after which one of them is forgotten. No other client may be
// connected.
func (s *Server) SetLockout(ctx context.Context, tries, recovery, lockout uint32) error {
	const code = 0x0000013a
	parms := binary.BigEndian.AppendUint32(nil, tries)
	parms = binary.BigEndian.AppendUint32(parms, recovery)
	parms = binary.BigEndian.AppendUint32(parms, lockout)
	return s.send(ctx, lockoutCommand(code, parms))
}

// ClearLockout sends TPM2_DictionaryAttackLockReset (Part 3, 25.2). No other
// client may be connected.
func (s *Server) ClearLockout(ctx context.Context) error {
	const code = 0x00000139
	return s.send(ctx, lockoutCommand(code, nil))
}

// lockoutCommand is a command authorized by TPM_RH_LOCKOUT with an empty
// password.
func lockoutCommand(code uint32, parms []byte) []byte {
	body := binary.BigEndian.AppendUint32(nil, 0x4000000a)                         // TPM_RH_LOCKOUT
	body = append(body, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0 /* attributes */, 0, 0) // TPM_RS_PW
	body = append(body, parms...)
	cmd := binary.BigEndian.AppendUint16(nil, 0x8002)
	cmd = binary.BigEndian.AppendUint32(cmd, uint32(10+len(body)))
	cmd = binary.BigEndian.AppendUint32(cmd, code)
	return append(cmd, body...)
}

func (s *Server) send(ctx context.Context, cmd []byte) error {
	c, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	if _, err := c.Write(cmd); err != nil {
		return err
	}
	var header [10]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		return err
	}
	if rc := binary.BigEndian.Uint32(header[6:]); rc != 0 {
		return fmt.Errorf("swtpm refused a command: response code %#x", rc)
	}
	return nil
}
