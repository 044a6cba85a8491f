package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "What this binary was built from", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return version(a) },
	}
}

// A build is what this binary was built from.
type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func thisBuild() build {
	v := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Version = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	return v
}

// version is "privyseal version".
func version(a *app) error {
	v := thisBuild()
	return a.print(v, func(w io.Writer) {
		fmt.Fprintf(w, "privyseal %s\n", v.Version)
		if v.Revision != "" {
			fmt.Fprintf(w, "revision  %s (modified: %v)\n", v.Revision, v.Modified)
		}
		fmt.Fprintf(w, "go        %s %s\n", v.Go, v.Platform)
	})
}
