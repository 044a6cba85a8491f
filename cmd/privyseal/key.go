package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer"
)

func newKey(a *app) *cobra.Command {
	return group("key", "Keys and their versions",
		newKeyCreate(a), newKeyList(a), newKeyShow(a), newKeyPublic(a), newKeyRequest(a), newKeyAttest(a), newKeyRotate(a), newKeyDestroy(a), newKeySet(a), newKeyReplica(a))
}

// createOptions are the flags of key create.
type createOptions struct {
	purpose, algorithm, device string
	labels                     map[string]string
	unverified                 bool
}

func newKeyCreate(a *app) *cobra.Command {
	var o createOptions
	c := &cobra.Command{
		Use: "create ID", Short: "Make a key in a device", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return keyCreate(cmd.Context(), a, args[0], o) },
	}
	c.Flags().StringVar(&o.purpose, "purpose", "", "the one purpose of the key (required): "+purposeNames())
	c.Flags().StringVar(&o.algorithm, "alg", "", "algorithm; default P-256, ECDH-P-256 or HMAC-SHA256 by the purpose")
	c.Flags().StringVar(&o.device, "device", "", "device of the configuration; default default_device")
	c.Flags().StringToStringVar(&o.labels, "label", nil, "labels, as name=value")
	c.Flags().BoolVar(&o.unverified, "unverified", false, "release signatures without verifying them first; recorded in the key's history")
	return c
}

func purposeNames() string {
	var names []string
	for _, p := range signer.Purposes() {
		names = append(names, string(p))
	}
	return strings.Join(names, ", ")
}

// keyCreate is "privyseal key create".
func keyCreate(ctx context.Context, a *app, id string, o createOptions) error {
	n := signer.NewKey{ID: signer.KeyID(id), Device: o.device, Labels: o.labels, Unverified: o.unverified}
	var err error
	if n.Purpose, err = signer.ParsePurpose(o.purpose); err != nil {
		return err
	}
	if o.algorithm != "" {
		if n.Algorithm, err = signer.ParseAlgorithm(o.algorithm); err != nil {
			return err
		}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		if n.Device == "" {
			if n.Device, err = w.config.defaultDevice(); err != nil {
				return err
			}
		}
		key, err := w.ring.Create(ctx, n)
		if err != nil {
			w.notePending(ctx, a, n.ID)
			return err
		}
		return a.printKey(key)
	})
}

func newKeyList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the keys; needs no device", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return keyList(cmd.Context(), a) },
	}
}

// keyList is "privyseal key list".
func keyList(ctx context.Context, a *app) error {
	var keys []*signer.Key
	err := a.withWiring(ctx, func(w *wiring) (err error) {
		keys, err = w.store.Keys(ctx)
		return err
	})
	if err != nil {
		return err
	}
	views := []keyView{}
	for _, k := range keys {
		v, err := viewKey(k)
		if err != nil {
			return err
		}
		views = append(views, *v)
	}
	return a.print(views, func(w io.Writer) { printKeys(w, keys) })
}

func printKeys(w io.Writer, keys []*signer.Key) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tPURPOSE\tALGORITHM\tVERSION\tSTATE\tDEVICE\tEVIDENCE\tKID")
	for _, k := range keys {
		v := k.Versions[len(k.Versions)-1]
		if active := k.Active(); active != nil {
			v = *active
		}
		state := string(v.State)
		if v.Destroying {
			state = "destroying"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", k.ID, k.Purpose, k.Algorithm, v.Number, state, v.Device, dash(v.Evidence.Kind()), dash(v.KID))
	}
	t.Flush()
}

func newKeyRotate(a *app) *cobra.Command {
	var device string
	c := &cobra.Command{
		Use: "rotate ID", Short: "Make a new version; the old one only verifies from then on", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return keyRotate(cmd.Context(), a, args[0], device) },
	}
	c.Flags().StringVar(&device, "device", "", "device of the new version; default that of the newest one")
	return c
}

// keyRotate is "privyseal key rotate".
func keyRotate(ctx context.Context, a *app, id, device string) error {
	return a.withWiring(ctx, func(w *wiring) error {
		if err := w.mayRotate(ctx, signer.KeyID(id)); err != nil {
			return err
		}
		key, err := w.ring.Rotate(ctx, signer.KeyID(id), device)
		if err != nil {
			w.notePending(ctx, a, signer.KeyID(id))
			return err
		}
		return a.printKey(key)
	})
}

// notePending says what to do where a failure left a version pending.
func (w *wiring) notePending(ctx context.Context, a *app, id signer.KeyID) {
	key, err := w.store.Key(context.WithoutCancel(ctx), id)
	if err == nil && key.Versions[len(key.Versions)-1].State == signer.StatePending && !a.json {
		a.note("key %s is pending: when the device is back, run: privyseal token doctor --repair", id)
	}
}

// destroyOptions are the flags of key destroy.
type destroyOptions struct {
	version int
	all     bool
	yes     bool
}

func newKeyDestroy(a *app) *cobra.Command {
	var o destroyOptions
	c := &cobra.Command{
		Use: "destroy ID", Short: "Remove versions of a key from their devices for good", Args: exactArgs(1),
		Long: "Removes the device objects of one version, or of all. There is no way back. The\nrecord of the key stays, with its history.",
		RunE: func(cmd *cobra.Command, args []string) error { return keyDestroy(cmd.Context(), a, args[0], o) },
	}
	c.Flags().IntVar(&o.version, "version", 0, "the version to destroy")
	c.Flags().BoolVar(&o.all, "all", false, "destroy all versions")
	c.Flags().BoolVar(&o.yes, "yes", false, "confirm; without it nothing is destroyed")
	return c
}

// keyDestroy is "privyseal key destroy".
func keyDestroy(ctx context.Context, a *app, id string, o destroyOptions) error {
	if (o.version > 0) == o.all {
		return usageError{errors.New("choose either --version N or --all")}
	}
	if !o.yes {
		return usageError{errors.New("destroying a key cannot be undone; confirm with --yes")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.store.Key(ctx, signer.KeyID(id))
		if err != nil {
			return err
		}
		for _, n := range o.chosen(key) {
			if err := w.ring.Destroy(ctx, key.ID, n); err != nil {
				return err
			}
		}
		if key, err = w.store.Key(ctx, key.ID); err != nil {
			return err
		}
		return a.printKey(key)
	})
}

// chosen returns the numbers of the versions that are to go.
func (o destroyOptions) chosen(key *signer.Key) (numbers []int) {
	if !o.all {
		return []int{o.version}
	}
	for _, v := range key.Versions {
		if v.State == signer.StateActive || v.State == signer.StateVerifyOnly {
			numbers = append(numbers, v.Number)
		}
	}
	return numbers
}

// setOptions are the flags of key set.
type setOptions struct {
	labels map[string]string
	verify string
	reason string
}

func newKeySet(a *app) *cobra.Command {
	var o setOptions
	c := &cobra.Command{
		Use: "set ID", Short: "Change the labels of a key, or whether its signatures are verified before release", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return keySet(cmd.Context(), a, args[0], o) },
	}
	c.Flags().StringToStringVar(&o.labels, "label", nil, "replace the labels, as name=value")
	c.Flags().StringVar(&o.verify, "verify-before-release", "", "on or off; recorded in the key's history")
	c.Flags().StringVar(&o.reason, "reason", "", "why; required to turn verification off")
	return c
}

// keySet is "privyseal key set".
func keySet(ctx context.Context, a *app, id string, o setOptions) error {
	switch {
	case o.verify == "" && o.labels == nil:
		return usageError{errors.New("nothing to set; give --label or --verify-before-release")}
	case o.verify != "" && o.verify != "on" && o.verify != "off":
		return usageError{fmt.Errorf("--verify-before-release is on or off, not %q", o.verify)}
	case o.verify == "off" && strings.TrimSpace(o.reason) == "":
		return usageError{errors.New("say with --reason why signatures shall be released without verifying them")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		if o.labels != nil {
			if err := w.store.SetLabels(ctx, signer.KeyID(id), o.labels); err != nil {
				return err
			}
		}
		if o.verify != "" {
			if err := w.store.SetUnverified(ctx, signer.KeyID(id), o.verify == "off", o.reason); err != nil {
				return err
			}
		}
		key, err := w.store.Key(ctx, signer.KeyID(id))
		if err != nil {
			return err
		}
		return a.printKey(key)
	})
}
