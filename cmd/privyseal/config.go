package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/tpm"
)

// A Config is the configuration file: one JSON object, decoded strictly. Every
// member that is not marked required may be left out. It holds no secret.
type Config struct {
	// Version is the version of this format: 1. Required.
	Version int `json:"version"`

	// State is the folder of the key store and of TPM key files, relative to
	// the folder of the configuration file; by default that folder itself.
	State string `json:"state,omitempty"`

	// DefaultDevice is where keys are made when --device is not given. It
	// may be left out when there is one device.
	DefaultDevice string `json:"default_device,omitempty"`

	// Devices are the tokens and TPMs, by names of your choice: 1 to 32 of
	// a-z, 0-9 and '-'. Keys remember the name of their device.
	Devices map[string]*DeviceConfig `json:"devices"`

	// Database is a URL postgres://... without a password, where several nodes
	// share their state; by default each service has a SQLite file in the state
	// folder. The password comes from the file that passfile= names.
	Database string `json:"database,omitempty"`

	// Issuer is what we are as an issuer of credentials.
	Issuer *IssuerSection `json:"issuer,omitempty"`

	// Serve is what "privyseal serve" does.
	Serve *ServeConfig `json:"serve,omitempty"`

	// Trust is the file of the trust configuration: whose credentials are
	// believed for which names. See: privyseal help trust.
	Trust string `json:"trust,omitempty"`

	dir string // absolute folder of the file
}

// A DeviceConfig is one token or TPM.
type DeviceConfig struct {
	// Kind is "pkcs11" or "tpm". Required.
	Kind string `json:"kind"`

	// PKCS#11

	// Module is the path of the module's shared object. Required.
	Module string `json:"module,omitempty"`
	// Token is the pkcs11: URI (RFC 7512) that chooses the token by token,
	// serial or slot-id. Required.
	Token string `json:"token,omitempty"`
	// PINSource says where the PIN comes from: file:PATH, fd:N,
	// credential:NAME (systemd) or prompt. A file must have mode 0600.
	PINSource string `json:"pin_source,omitempty"`
	// Env is what the module reads from the environment.
	Env map[string]string `json:"env,omitempty"`
	// InitArgs is the string that NSS wants at C_Initialize.
	InitArgs string `json:"init_args,omitempty"`
	// Workers is the number of processes that host the module; 0 hosts it in
	// this process.
	Workers int `json:"workers,omitempty"`
	// Sessions bounds the sessions used at once.
	Sessions int `json:"sessions,omitempty"`
	// StartTimeout is how long a worker may take to load the module or to open the
	// token, such as "1m", which is the default: without a sign that it goes on, as
	// it has when it reads the token's objects one by one, or computes.
	StartTimeout Duration `json:"start_timeout,omitzero"`
	// AdmitWeak lists attributes whose absence is accepted, such as
	// "CKA_NEVER_EXTRACTABLE". Keys show it all the same.
	AdmitWeak []string `json:"admit_weak,omitempty"`

	// TPM

	// Address is device:/dev/tpmrm0, unix:/path or tcp:host:port. Required.
	Address string `json:"address,omitempty"`
	// SRKName, in hexadecimal, is the Name of the storage root key that the
	// TPM must have.
	SRKName string `json:"srk_name,omitempty"`

	// Timeout bounds one call of the device, such as "30s", the default of PKCS#11.
	Timeout Duration `json:"timeout,omitzero"`
}

// The kinds of DeviceConfig.
const (
	kindPKCS11 = "pkcs11"
	kindTPM    = "tpm"
)

// A Duration is written as Go writes it: "1m30s".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration that is not negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err == nil && v < 0 {
		err = errors.New("a timeout cannot be negative")
	}
	*d = Duration(v)
	return err
}

// Bounds of the configuration.
const (
	maxConfig      = 1 << 20
	maxConfigDepth = 16
	maxDevices     = 64
)

var deviceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// A ConfigError says where the configuration is wrong.
type ConfigError struct {
	Path string // of the file
	At   string // of the member, such as "devices.token.module"
	Err  error
}

func (e *ConfigError) Error() string {
	s := "configuration"
	if e.Path != "" {
		s += " " + e.Path
	}
	if e.At != "" {
		s += ", " + e.At
	}
	return s + ": " + e.Err.Error()
}

func (e *ConfigError) Unwrap() error { return e.Err }

func configErrorf(at, format string, args ...any) *ConfigError {
	return &ConfigError{At: at, Err: fmt.Errorf(format, args...)}
}

// ParseConfig decodes a configuration and checks it. Unknown members, members
// that occur twice, and members in the wrong case are errors.
func ParseConfig(b []byte) (*Config, error) {
	if len(b) > maxConfig {
		return nil, configErrorf("", "more than %d octets", maxConfig)
	}
	o, err := jose.ParseObject(string(b), maxConfigDepth)
	if err != nil {
		return nil, configErrorf("", "%w", err)
	}
	if err := checkMembers(o, ""); err != nil {
		return nil, err
	}
	c := new(Config)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(c); err != nil {
		return nil, decodeError(err)
	}
	if c.Devices == nil {
		c.Devices = make(map[string]*DeviceConfig)
	}
	return c, c.check()
}

// decodeError names the member that encoding/json could not decode.
func decodeError(err error) error {
	wrong := new(json.UnmarshalTypeError)
	if errors.As(err, &wrong) {
		return configErrorf(wrong.Field, "a JSON %s, want %v", wrong.Value, wrong.Type)
	}
	return configErrorf("", "%w", err)
}

func (c *Config) check() error {
	if c.Version != 1 {
		return configErrorf("version", "this release reads version 1, not %d", c.Version)
	}
	if len(c.Devices) > maxDevices {
		return configErrorf("devices", "more than %d", maxDevices)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Devices)) {
		at := "devices." + name
		if !deviceName.MatchString(name) {
			return configErrorf("devices", "%q is no device name; use 1 to 32 of a-z, 0-9 and '-'", name)
		}
		if c.Devices[name] == nil {
			return configErrorf(at, "null")
		}
		if err := c.Devices[name].check(at); err != nil {
			return err
		}
	}
	if c.DefaultDevice != "" && c.Devices[c.DefaultDevice] == nil {
		return configErrorf("default_device", "there is no device %q", c.DefaultDevice)
	}
	if err := checkDatabase(c.Database); err != nil {
		return err
	}
	if err := c.Issuer.check(); err != nil {
		return err
	}
	if c.Serve == nil {
		return nil
	}
	if err := c.Serve.check(); err != nil {
		return err
	}
	if s := c.Serve.Signer; s != nil {
		for i, name := range s.Devices {
			if c.Devices[name] == nil {
				return configErrorf(fmt.Sprintf("serve.signer.devices[%d]", i), "there is no device %q", name)
			}
		}
	}
	return nil
}

// checkDatabase refuses a password in the URL before anything prints it.
func checkDatabase(source string) error {
	if source == "" {
		return nil
	}
	u, err := url.Parse(source)
	if err != nil || u.Scheme != "postgres" { // the parser's words may repeat a password
		return configErrorf("database", "is a URL postgres://...; leave it out for SQLite in the state folder")
	}
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return configErrorf("database", "has a password in it; put it into a file of mode 0600 and name that with passfile=")
	}
	return nil
}

func (d *DeviceConfig) check(at string) error {
	switch d.Kind {
	case kindPKCS11:
		return d.checkPKCS11(at)
	case kindTPM:
		return d.checkTPM(at)
	}
	return configErrorf(at+".kind", "%q; use %q or %q", d.Kind, kindPKCS11, kindTPM)
}

func (d *DeviceConfig) checkPKCS11(at string) error {
	if d.Address != "" || d.SRKName != "" {
		return configErrorf(at, "address and srk_name are for kind %q", kindTPM)
	}
	if d.Module == "" {
		return configErrorf(at+".module", "is required: the path of the PKCS#11 module")
	}
	u, err := hsm.ParseURI(d.Token)
	switch {
	case err != nil:
		return configErrorf(at+".token", "%w", err)
	case !u.NamesToken():
		return configErrorf(at+".token", "must choose the token by token, serial or slot-id")
	case u.NamesObject():
		return configErrorf(at+".token", "names an object; leave id, object and type out")
	case u.PINSource != "" || u.ModulePath != "" || u.ModuleName != "":
		return configErrorf(at+".token", "has a query; use the members pin_source and module")
	}
	if d.PINSource != "" {
		if _, err := hsm.ParsePINSource(d.pinSource("/")); err != nil {
			return configErrorf(at+".pin_source", "%w", err)
		}
	}
	if d.Workers < 0 || d.Workers > 64 || d.Sessions < 0 || d.Sessions > 1024 {
		return configErrorf(at, "workers are 0 to 64 and sessions 0 to 1024")
	}
	return nil
}

func (d *DeviceConfig) checkTPM(at string) error {
	if d.Module != "" || d.Token != "" || d.PINSource != "" || d.InitArgs != "" || d.Env != nil || d.Workers != 0 || d.Sessions != 0 || d.StartTimeout != 0 || d.AdmitWeak != nil {
		return configErrorf(at, "has members that are for kind %q", kindPKCS11)
	}
	if _, err := tpm.ParseAddress(d.Address); err != nil {
		return configErrorf(at+".address", "%w", err)
	}
	if _, err := hex.DecodeString(d.SRKName); err != nil {
		return configErrorf(at+".srk_name", "is not hexadecimal")
	}
	return nil
}

// pinSource returns the PIN source with a relative file made absolute.
func (d *DeviceConfig) pinSource(dir string) string {
	if path, ok := strings.CutPrefix(d.PINSource, "file:"); ok && !strings.HasPrefix(path, "/") {
		return "file:" + filepath.Join(dir, path)
	}
	return d.PINSource
}

// stateDir returns the absolute folder of the state.
func (c *Config) stateDir() string { return resolve(c.dir, c.State) }

// databaseSource says where the service of that name keeps its state.
func (c *Config) databaseSource(service string) string {
	if c.Database != "" {
		return c.Database
	}
	return filepath.Join(c.stateDir(), service+".db")
}

// resolve makes a path absolute, from dir.
func resolve(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// defaultDevice returns the device for new keys.
func (c *Config) defaultDevice() (string, error) {
	names := slices.Sorted(maps.Keys(c.Devices))
	switch {
	case c.DefaultDevice != "":
		return c.DefaultDevice, nil
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", errors.New("the configuration has no device; see: privyseal help config")
	}
	return "", usageError{fmt.Errorf("there are several devices; choose one with --device: %s", strings.Join(names, ", "))}
}

// home returns the folder of the configuration when --config is not given.
func home() (string, error) {
	if dir := os.Getenv("PRIVYSEAL_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("%w; set PRIVYSEAL_HOME or give --config", err)
	}
	return filepath.Join(dir, ".privyseal"), nil
}

const configName = "privyseal.json"

// configFile returns the absolute path of the configuration file.
func (a *app) configFile() (string, error) {
	if a.configPath != "" {
		return filepath.Abs(a.configPath)
	}
	dir, err := home()
	return filepath.Join(dir, configName), err
}

// loadConfig reads the configuration.
func (a *app) loadConfig() (*Config, error) {
	path, err := a.configFile()
	if err != nil {
		return nil, err
	}
	return readConfig(path)
}

func readConfig(path string) (*Config, error) {
	b, err := readBounded(path, maxConfig)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &ConfigError{Path: path, Err: fmt.Errorf("%w; run: privyseal init", os.ErrNotExist)}
	}
	if err != nil {
		return nil, &ConfigError{Path: path, Err: err}
	}
	c, err := ParseConfig(b)
	if wrong := new(ConfigError); errors.As(err, &wrong) {
		wrong.Path = path
	}
	if err != nil {
		return nil, err
	}
	c.dir = filepath.Dir(path)
	return c, nil
}
