package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer"
)

// A problem is one finding of a check, with the next step.
type problem struct {
	Device  string `json:"device,omitempty"`
	Key     string `json:"key,omitempty"`
	Code    string `json:"code"` // stable, for scripts
	Problem string `json:"problem"`
	Next    string `json:"next"`
}

func printProblems(w io.Writer, problems []problem) {
	for _, p := range problems {
		where := p.Device
		if p.Key != "" {
			where += " key " + p.Key
		}
		if where != "" {
			where += ": "
		}
		fmt.Fprintf(w, "problem  %s%s\n   next  %s\n", where, p.Problem, p.Next)
	}
}

// A doctor collects problems.
type doctor struct {
	config   *Config
	login    bool // log in even where a wrong PIN was counted before
	problems []problem
	healthy  []string
}

func (d *doctor) add(device, key, code, next, format string, args ...any) {
	d.problems = append(d.problems, problem{Device: device, Key: key, Code: code, Problem: fmt.Sprintf(format, args...), Next: next})
}

// doctorOptions are the flags of token doctor.
type doctorOptions struct {
	repair bool
	age    time.Duration
	login  bool
}

func newDoctor(a *app) *cobra.Command {
	var o doctorOptions
	c := &cobra.Command{
		Use: "doctor", Short: "Look for problems and name the next step for each", Args: noArgs,
		Long: `Looks at the files, the devices and the keys. It changes nothing, except that
--repair settles what a crash left between two steps: a pending key that the
device has made is taken into use, one that it has not made is dropped, and a
destruction is finished.

The exit code is 5 when problems were found.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return tokenDoctor(cmd.Context(), a, o) },
	}
	c.Flags().BoolVar(&o.repair, "repair", false, "settle keys that are pending or half destroyed")
	c.Flags().DurationVar(&o.age, "older-than", time.Minute, "leave younger steps alone: another process may be at work")
	c.Flags().BoolVar(&o.login, "login", false, "log in even to a token that has counted a wrong PIN")
	return c
}

// tokenDoctor is "privyseal token doctor".
func tokenDoctor(ctx context.Context, a *app, o doctorOptions) error {
	path, err := a.configFile()
	if err != nil {
		return err
	}
	config, err := a.loadConfig()
	if err != nil {
		return err
	}
	d := &doctor{config: config, login: o.login}
	d.problems = checkFiles(path, config)
	repaired, err := d.examine(ctx, o)
	if err != nil {
		return err
	}
	result := struct {
		Healthy  []string         `json:"healthy"`
		Repaired []signer.Finding `json:"repaired"`
		Problems []problem        `json:"problems"`
	}{nonNil(d.healthy), nonNil(repaired), nonNil(d.problems)}
	err = a.print(result, func(w io.Writer) {
		for _, name := range d.healthy {
			fmt.Fprintf(w, "healthy  %s\n", name)
		}
		for _, f := range repaired {
			fmt.Fprintf(w, "settled  %s version %d: %s\n", f.Key, f.Version, f.Result)
		}
		printProblems(w, d.problems)
	})
	if len(d.problems) > 0 {
		err = errors.Join(err, problemError{len(d.problems)})
	}
	return err
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// names returns the names of the devices in order.
func (c *Config) names() []string { return slices.Sorted(maps.Keys(c.Devices)) }

// checkFiles looks at the files that the configuration names.
func checkFiles(path string, c *Config) []problem {
	d := &doctor{config: c}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o022 != 0 {
		d.add("", "", "config-writable", "chmod 600 "+path, "others may change %s (mode %04o)", path, info.Mode().Perm())
	}
	if err := checkPrivateDir(c.stateDir()); err != nil {
		d.add("", "", "state-folder", "make the folder with mode 0700, or run: privyseal init", "%v", err)
	}
	if len(c.Devices) == 0 {
		d.add("", "", "no-device", "add a token or TPM (see: privyseal help config)", "the configuration has no device")
	}
	for _, name := range c.names() {
		d.checkDeviceFiles(name)
	}
	for _, f := range c.files() {
		d.checkFile(f)
	}
	return nonNil(d.problems)
}

func (d *doctor) checkDeviceFiles(name string) {
	c := d.config.Devices[name]
	if c.Kind != kindPKCS11 {
		return
	}
	module := resolve(d.config.dir, c.Module)
	if _, err := os.Stat(module); err != nil {
		d.add(name, "", "module-missing", "install the module's package, or correct devices."+name+".module", "%v", err)
	}
	if pin, ok := pinFile(c, d.config.dir); ok {
		d.checkPINFile(name, pin)
	}
}

func (d *doctor) checkPINFile(name, path string) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.add(name, "", "pin-file-missing", "write the PIN to "+path+" and run: chmod 600 "+path, "the PIN file is missing: %v", err)
	case err != nil:
		d.add(name, "", "pin-file-unreadable", "let this user read "+path, "%v", err)
	case info.Mode().Perm()&0o077 != 0:
		d.add(name, "", "pin-file-open", "chmod 600 "+path+"; then consider the PIN known and change it", "others may read the PIN file (mode %04o)", info.Mode().Perm())
	}
}

// examine looks at the devices and at the keys in them.
func (d *doctor) examine(ctx context.Context, o doctorOptions) ([]signer.Finding, error) {
	if _, err := os.Stat(filepath.Join(d.config.stateDir(), storeName)); err != nil && d.config.Database == "" {
		d.add("", "", "key-store-missing", "restore it from your backup, or run: privyseal init", "%v", err)
		return nil, nil
	}
	w, err := newWiring(ctx, d.config)
	if err != nil {
		d.add("", "", "key-store", "see the message", "%v", err)
		return nil, nil
	}
	reachable := make(map[string]bool)
	for _, name := range d.config.names() {
		before := len(d.problems)
		reachable[name] = d.examineOpen(ctx, w.devices[name], name)
		if len(d.problems) == before {
			d.healthy = append(d.healthy, name)
		}
	}
	repaired, err := d.examineKeys(ctx, w, reachable, o)
	return repaired, errors.Join(err, w.Close(ctx))
}

// examineDevice looks at one device without the key store.
func (d *doctor) examineDevice(ctx context.Context, name string) {
	device := newDevice(name, d.config.Devices[name], d.config)
	d.checkDeviceFiles(name)
	d.examineOpen(ctx, device, name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if err := device.Close(ctx); err != nil {
		d.add(name, "", "close", "see the message", "%v", err)
	}
}

// examineOpen reports whether the device can be used.
func (d *doctor) examineOpen(ctx context.Context, device openDevice, name string) bool {
	switch device := device.(type) {
	case *pkcs11Device:
		return d.examinePKCS11(ctx, device)
	case *tpmDevice:
		return d.examineTPM(ctx, device)
	}
	d.add(name, "", "unknown-kind", "correct devices."+name+".kind", "this release does not know the device's kind")
	return false
}

// examineKeys looks at what the store says about keys.
func (d *doctor) examineKeys(ctx context.Context, w *wiring, reachable map[string]bool, o doctorOptions) ([]signer.Finding, error) {
	repaired, err := d.settle(ctx, w, o)
	if err != nil {
		return nil, err
	}
	suspects, err := w.store.Suspects(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range suspects {
		d.add(s.Device, string(s.Key), "device-suspect", "look into the device; then run: privyseal token trust "+s.Device+" --reason …",
			"the device returned a wrong signature at %s and signs nothing: %s", s.Since.Format(time.RFC3339), s.Reason)
	}
	keys, err := w.store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		d.examineKey(ctx, w, k, reachable)
	}
	return repaired, nil
}

// settle lists, or with --repair settles, what a crash left behind.
func (d *doctor) settle(ctx context.Context, w *wiring, o doctorOptions) (settled []signer.Finding, err error) {
	find := w.ring.Unsettled
	if o.repair {
		find = w.ring.Reconcile
	}
	findings, err := find(ctx, time.Now(), o.age)
	for _, f := range findings {
		if o.repair && f.Err == nil {
			settled = append(settled, f)
			continue
		}
		d.add(f.Device, string(f.Key), "key-unsettled", "privyseal token doctor --repair",
			"version %d is between two steps (%s) since %s: %s", f.Version, f.State, f.Since.Format(time.RFC3339), f.Result)
	}
	return settled, err
}

// examineKey opens the active version, and names weak evidence.
func (d *doctor) examineKey(ctx context.Context, w *wiring, k *signer.Key, reachable map[string]bool) {
	if k.Unverified {
		d.add("", string(k.ID), "key-unverified", "privyseal key set "+string(k.ID)+" --verify-before-release=on", "signatures are released without being verified, as somebody chose")
	}
	v := k.Active()
	if v == nil {
		return
	}
	if w.devices[v.Device] == nil {
		d.add(v.Device, string(k.ID), "device-unknown", "add the device to the configuration again, or rotate the key into another", "the key is in a device that is not configured")
		return
	}
	for _, weak := range v.Evidence.Weaknesses() {
		d.add(v.Device, string(k.ID), "key-weak", "privyseal key rotate "+string(k.ID)+" on a device that keeps keys better, or accept it", "version %d: %s", v.Number, weak)
	}
	if !reachable[v.Device] {
		return
	}
	opened, err := w.devices[v.Device].Open(ctx, v.URI, k.Algorithm)
	if err != nil {
		d.add(v.Device, string(k.ID), "key-missing", "restore the device from its backup, or run: privyseal key rotate "+string(k.ID), "version %d cannot be opened: %v", v.Number, err)
		return
	}
	opened.Close()
}
