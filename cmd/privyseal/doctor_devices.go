package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/tpm"
)

// pinFile returns the path of the PIN file, if the PIN comes from one.
func pinFile(c *DeviceConfig, dir string) (string, bool) {
	source := c.pinSource(dir)
	if path, ok := strings.CutPrefix(source, "file:"); ok {
		return strings.TrimPrefix(strings.TrimPrefix(path, "//localhost"), "//"), true
	}
	return source, strings.HasPrefix(source, "/")
}

// examinePKCS11 loads the module, looks for the token, reads its flags, and
// logs in unless that could lock the PIN.
func (d *doctor) examinePKCS11(ctx context.Context, device *pkcs11Device) bool {
	if _, err := os.Stat(resolve(device.dir, device.config.Module)); err != nil {
		return false // checkDeviceFiles has said so
	}
	infos, err := device.tokens(ctx)
	if err != nil {
		d.add(device.name, "", "module-broken", "check devices."+device.name+".env and init_args, and that the module's configuration names a folder that exists", "the module does not work: %v", err)
		return false
	}
	token, ok := d.chooseToken(device, infos)
	return ok && d.examineFlags(device.name, token) && d.tryLogin(ctx, device, token)
}

// chooseToken finds the one token that the configuration means.
func (d *doctor) chooseToken(device *pkcs11Device, infos []hsm.TokenInfo) (hsm.TokenInfo, bool) {
	u, _, err := device.uriAndPIN()
	if err != nil {
		d.add(device.name, "", "config", "correct devices."+device.name, "%v", err)
		return hsm.TokenInfo{}, false
	}
	var found []hsm.TokenInfo
	blank := false
	for _, i := range infos {
		blank = blank || !i.Initialized
		if u.MatchesToken(i) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], true
	case len(found) > 1:
		d.add(device.name, "", "token-ambiguous", "add serial=… to devices."+device.name+".token; see: privyseal token list", "%d tokens match %s", len(found), u)
	case blank:
		d.add(device.name, "", "token-uninitialised", "initialise the token with its vendor's tool (SoftHSM: softhsm2-util --init-token --free --label LABEL)", "no token matches %s, but there is one that is not initialised", u)
	default:
		d.add(device.name, "", "token-absent", "plug the token in, or correct devices."+device.name+".token; see: privyseal token list", "no token matches %s", u)
	}
	return hsm.TokenInfo{}, false
}

// examineFlags reports whether logging in makes sense and is safe.
func (d *doctor) examineFlags(name string, i hsm.TokenInfo) bool {
	switch {
	case !i.Initialized:
		d.add(name, "", "token-uninitialised", "initialise the token with its vendor's tool", "the token is not initialised")
	case i.UserPINLocked:
		d.add(name, "", "pin-locked", "have the security officer set a new user PIN", "the user PIN is locked after too many wrong ones")
	case i.UserPINFinalTry:
		d.add(name, "", "pin-final-try", "check the PIN by other means; one more wrong PIN locks the token, so nothing here sends one", "one try is left before the PIN locks")
	case !i.UserPINSet && i.LoginRequired:
		d.add(name, "", "pin-not-set", "have the security officer set the user PIN", "the user PIN is not set")
	case i.UserPINCountLow && !d.login:
		d.add(name, "", "pin-count-low", "check the PIN source; then run: privyseal token doctor --login", "a wrong PIN was counted since the last login, so no PIN was sent now")
	default:
		if i.WriteProtected {
			d.add(name, "", "token-read-only", "take the write protection off to make or destroy keys", "the token is write protected")
		}
		return true
	}
	return false
}

// tryLogin logs in and says what stands in the way.
func (d *doctor) tryLogin(ctx context.Context, device *pkcs11Device, i hsm.TokenInfo) bool {
	if i.LoginRequired && device.config.PINSource == "" && !i.ProtectedPath {
		d.add(device.name, "", "pin-source-missing", "set devices."+device.name+".pin_source", "the token wants a PIN and the configuration names no source of one")
		return false
	}
	_, err := device.open(ctx)
	if err == nil {
		return true
	}
	code, next := "login", "see the message"
	switch {
	case errors.Is(err, hsm.ErrPINSource):
		code, next = "pin-source", "correct devices."+device.name+".pin_source or the file that it names"
	case errors.Is(err, hsm.ErrPINLocked):
		code, next = "pin-locked", "have the security officer set a new user PIN"
	case errors.Is(err, hsm.ErrPINFinalTry):
		code, next = "pin-final-try", "check the PIN by other means; one more wrong PIN locks the token"
	case errors.Is(err, hsm.ErrPINRefused):
		code, next = "pin-refused", "put the right PIN where devices."+device.name+".pin_source points; it was sent once and will not be sent again by itself"
	}
	if !d.has(device.name, "pin-file-missing", "pin-file-open", "pin-file-unreadable") || code != "pin-source" {
		d.add(device.name, "", code, next, "cannot log in: %v", err)
	}
	return false
}

// has reports whether one of the codes was found for a device.
func (d *doctor) has(device string, codes ...string) bool {
	for _, p := range d.problems {
		for _, c := range codes {
			if p.Device == device && p.Code == c {
				return true
			}
		}
	}
	return false
}

// examineTPM connects, and has the TPM list its handles.
func (d *doctor) examineTPM(ctx context.Context, device *tpmDevice) bool {
	t, err := device.open(ctx)
	if err == nil {
		_, err = t.PersistentHandles(ctx)
	}
	if err == nil {
		return true
	}
	code, next := tpmAdvice(device.config.Address, err)
	d.add(device.name, "", code, next, "%v", err)
	return false
}

// tpmAdvice names the next step for a TPM that cannot be opened.
func tpmAdvice(address string, err error) (code, next string) {
	kind, path, _ := strings.Cut(address, ":")
	_, statErr := os.Stat(path)
	switch {
	case errors.Is(err, tpm.ErrLockout):
		return "tpm-lockout", "wait for the lockout to end, or have the owner clear it (tpm2_dictionarylockout --clear-lockout)"
	case errors.Is(err, tpm.ErrWrongTPM):
		return "tpm-other", "this is another TPM, or it was cleared: find out why before correcting srk_name"
	case kind == "device" && errors.Is(statErr, os.ErrNotExist):
		return "tpm-no-device", "switch the TPM on in the firmware and load its driver; " + path + " is made by the kernel"
	case errors.Is(err, os.ErrPermission):
		return "tpm-permission", fmt.Sprintf("let this user use %s (group tss on Debian)", path)
	case kind == "unix" && errors.Is(statErr, os.ErrNotExist):
		return "swtpm-absent", "start the software TPM: swtpm socket --tpm2 --tpmstate dir=STATE --server type=unixio,path=" + path + " --flags not-need-init"
	case kind != "device" && (errors.Is(err, tpm.ErrGone) || is[*net.OpError](err)):
		return "swtpm-absent", "nothing answers at " + address + ": start the software TPM, or correct the address"
	case tpm.ClassOf(err) == tpm.ClassRetry:
		return "tpm-busy", "try again"
	}
	return "tpm", "see the message"
}
