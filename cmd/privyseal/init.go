package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
)

// initOptions are the flags of init.
type initOptions struct {
	softHSM bool   // make a SoftHSM token
	tpm     string // address of a TPM
}

// An initResult says what init made.
type initResult struct {
	Config   string    `json:"config"`
	State    string    `json:"state"`
	Devices  []string  `json:"devices"`
	Next     []string  `json:"next"`
	Problems []problem `json:"problems"`
}

func newInit(a *app) *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use: "init", Short: "Make the state folder, the configuration and the key store", Args: noArgs,
		Long: `Makes the folder of the configuration (mode 0700), the key store in it and the
configuration file, and says what to do next. Nothing that exists is replaced.

--softhsm makes a SoftHSM token with random PINs in files of mode 0600. It keeps
keys in files of this machine: good for trying things, no protection.
--tpm adds the TPM at an address, such as device:/dev/tpmrm0.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return initialize(cmd.Context(), a, o) },
	}
	c.Flags().BoolVar(&o.softHSM, "softhsm", false, "make a SoftHSM token")
	c.Flags().StringVar(&o.tpm, "tpm", "", "add the TPM at this address")
	return c
}

// initialize is "privyseal init".
func initialize(ctx context.Context, a *app, o initOptions) error {
	path, err := a.configFile()
	if err != nil {
		return err
	}
	config, err := initState(ctx, path, o)
	if err != nil {
		return err
	}
	result := initResult{Config: path, State: config.stateDir(), Devices: []string{}}
	doctor := &doctor{config: config, login: true}
	for _, name := range config.names() {
		result.Devices = append(result.Devices, name)
		doctor.examineDevice(ctx, name)
	}
	result.Problems = doctor.problems
	result.Next = nextSteps(config, result.Problems)
	return a.print(result, result.text)
}

func (r *initResult) text(w io.Writer) {
	fmt.Fprintf(w, "configuration  %s\nstate          %s\n", r.Config, r.State)
	for _, d := range r.Devices {
		fmt.Fprintf(w, "device         %s\n", d)
	}
	printProblems(w, r.Problems)
	fmt.Fprintln(w, "\nNext:")
	for _, n := range r.Next {
		fmt.Fprintf(w, "  %s\n", n)
	}
}

func nextSteps(c *Config, problems []problem) []string {
	if len(c.Devices) == 0 {
		return []string{"add a token or TPM to " + filepath.Join(c.dir, configName) + " (see: privyseal help config)", "privyseal token doctor"}
	}
	if len(problems) > 0 {
		return []string{"solve the problems above", "privyseal token doctor"}
	}
	device := ""
	if len(c.Devices) > 1 {
		device = " --device NAME"
	}
	return []string{
		"privyseal key create ca --purpose x509-ca" + device,
		"privyseal key create issuer --purpose credential-issuer" + device,
		"privyseal token list",
	}
}

// initState makes the folder, the token, the key store and, last, the
// configuration file: when that is there, all is. It returns the
// configuration as newWiring takes it.
func initState(ctx context.Context, path string, o initOptions) (*Config, error) {
	dir := filepath.Dir(path)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s is there already and is not replaced; to add a device edit it (see: privyseal help config)", path)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := checkPrivateDir(dir); err != nil {
		return nil, err
	}
	config := &Config{Version: 1, Devices: make(map[string]*DeviceConfig), dir: dir}
	if o.tpm != "" {
		config.Devices["tpm"] = &DeviceConfig{Kind: kindTPM, Address: o.tpm}
	}
	if err := config.check(); err != nil {
		return nil, usageError{err}
	}
	if o.softHSM {
		d, err := makeSoftHSM(ctx, filepath.Join(dir, "softhsm"))
		if err != nil {
			return nil, err
		}
		config.Devices["softhsm"] = d
		config.DefaultDevice = "softhsm"
	}
	store, err := signer.OpenKeyStore(ctx, filepath.Join(config.stateDir(), storeName), nil)
	if err != nil {
		return nil, err
	}
	if err := store.Close(); err != nil {
		return nil, err
	}
	return config, writeConfig(path, config)
}

// writeConfig writes a new configuration file, complete or not at all.
func writeConfig(path string, c *Config) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return writeNew(path, append(b, '\n'))
}

// withNewSecret runs make with a file of mode 0600 beside the one that is to hold
// a secret, and gives it its name when the secret is on the disk. It fails before
// the secret is made where the file is there already or cannot be written: what
// is spent or given out once must not be lost.
func withNewSecret(path string, make func() (string, error)) (err error) {
	if err := checkNew(path); err != nil {
		return err
	}
	f, err := durable.Create(filepath.Dir(path), 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	secret, err := make()
	if err != nil {
		return err
	}
	if _, err := f.Write([]byte(secret + "\n")); err != nil {
		return err
	}
	return f.CommitNew(path)
}

// writeNew makes a file of mode 0600 that was not there. It is on the disk
// when writeNew returns; a crash leaves no half of it.
func writeNew(path string, content []byte) error {
	f, err := durable.Create(filepath.Dir(path), 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.CommitNew(path)
}
