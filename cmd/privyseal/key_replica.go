package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer"
)

// replicaOptions are the flags of key replica.
type replicaOptions struct {
	version     int
	device, uri string
	destroy     bool
	yes         bool
}

func newKeyReplica(a *app) *cobra.Command {
	var o replicaOptions
	add := &cobra.Command{
		Use: "add ID", Short: "Let another device that holds the key serve it too", Args: exactArgs(1),
		Long: `The device must hold the same key already: its token was cloned by the vendor's
means, or the key was wrapped to it. It is given a challenge, and its answer is
kept with the key. From then on requests go to the device that is well and least
busy, and one that fails is left out until it passes a self-test.

Without --uri the object is the one with the id that the key's own object has.`,
		RunE: func(cmd *cobra.Command, args []string) error { return replicaAdd(cmd.Context(), a, args[0], o) },
	}
	list := &cobra.Command{
		Use: "list ID", Short: "List the devices that serve a key", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return replicaList(cmd.Context(), a, args[0]) },
	}
	remove := &cobra.Command{
		Use: "remove ID", Short: "Have a device serve a key no more", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return replicaRemove(cmd.Context(), a, args[0], o) },
	}
	for _, c := range []*cobra.Command{add, remove} {
		c.Flags().StringVar(&o.device, "device", "", "device of the configuration (required)")
		c.Flags().IntVar(&o.version, "version", 0, "version of the key; default the active one")
	}
	add.Flags().StringVar(&o.uri, "uri", "", "where the object is, such as pkcs11:id=%01;object=name")
	remove.Flags().BoolVar(&o.destroy, "destroy", false, "destroy the object in the device too")
	remove.Flags().BoolVar(&o.yes, "yes", false, "confirm --destroy")
	return group("replica", "Further devices that hold a key", add, list, remove)
}

var errNoReplicaDevice = usageError{errors.New("--device is required")}

// replicaAdd is "privyseal key replica add".
func replicaAdd(ctx context.Context, a *app, id string, o replicaOptions) error {
	if o.device == "" {
		return errNoReplicaDevice
	}
	return a.withWiring(ctx, func(w *wiring) error {
		r, err := w.ring.AddReplica(ctx, signer.KeyID(id), o.version, o.device, o.uri)
		if err != nil {
			return err
		}
		return a.print(r, func(out io.Writer) { fmt.Fprintf(out, "replica  %s  %s\n", r.Device, r.URI) })
	})
}

// A placeView is one device that serves a version.
type placeView struct {
	Version int             `json:"version"`
	State   signer.State    `json:"state"`
	Replica *signer.Replica `json:"replica,omitempty"` // nil for the version's own object
	Device  string          `json:"device"`
	URI     string          `json:"uri"`
}

// replicaList is "privyseal key replica list".
func replicaList(ctx context.Context, a *app, id string) error {
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.store.Key(ctx, signer.KeyID(id))
		if err != nil {
			return err
		}
		views := []placeView{}
		for _, v := range key.Versions {
			views = append(views, placeView{Version: v.Number, State: v.State, Device: v.Device, URI: v.URI})
			for _, r := range v.Replicas {
				views = append(views, placeView{v.Number, v.State, &r, r.Device, r.URI})
			}
		}
		return a.print(views, func(out io.Writer) { printPlaces(out, views) })
	})
}

func printPlaces(out io.Writer, views []placeView) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tSTATE\tDEVICE\tKIND\tURI")
	for _, v := range views {
		kind := "own"
		if v.Replica != nil {
			kind = "replica"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\n", v.Version, v.State, v.Device, kind, v.URI)
	}
	t.Flush()
}

// replicaRemove is "privyseal key replica remove".
func replicaRemove(ctx context.Context, a *app, id string, o replicaOptions) error {
	switch {
	case o.device == "":
		return errNoReplicaDevice
	case o.destroy && !o.yes:
		return usageError{errors.New("--destroy cannot be undone; confirm with --yes")}
	}
	return a.withWiring(ctx, func(w *wiring) error {
		if err := w.ring.RemoveReplica(ctx, signer.KeyID(id), o.version, o.device, o.destroy); err != nil {
			return err
		}
		return a.print(map[string]any{"key": id, "device": o.device, "destroyed": o.destroy}, func(out io.Writer) {
			fmt.Fprintf(out, "removed  %s  %s\n", id, o.device)
		})
	})
}
