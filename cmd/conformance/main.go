// Command conformance judges inputs from outside with the public packages of
// this module: token corpora, MLS vectors, and an MLS peer on standard input
// and output. It needs no network.
//
// Results go to standard output and diagnostics to standard error. The exit
// status is 0 when nothing failed, 1 when something failed, and 2 for bad
// usage.
package main

import (
	"embed"
	"fmt"
	"io"
	"os"
	"slices"
)

// The exit statuses of every subcommand.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// A subcommand is a function of its arguments and the three streams; it
// returns the exit status.
type subcommand func(args []string, stdin io.Reader, stdout, stderr io.Writer) int

// help says for each subcommand what it takes and gives.
//
//go:embed help
var help embed.FS

// subcommands is the whole surface: one line each.
var subcommands = map[string]subcommand{
	"mls":          runMLS,         // mls [-v] FILE...
	"mls-peer":     runMLSPeer,     // mls-peer [--key software|pkcs11:URI|tpm:ADDRESS]
	"frank":        runFrank,       // frank [FILE...], or lines of JSON on standard input
	"mimi-content": runMIMIContent, // mimi-content [--sender URI --room URI] [--reencode] FILE...
	"policy":       runPolicy,      // policy FILE...
	"sdjwt":        runSDJWT,       // sdjwt FILE...
	"sdcwt":        runSDCWT,       // sdcwt FILE...
	"statuslist":   runStatusList,  // statuslist FILE...
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		return usage(stderr)
	}
	if wantsHelp(args[0]) {
		usage(stdout)
		return exitOK
	}
	cmd, ok := subcommands[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "conformance: no subcommand %q\n", args[0])
		return usage(stderr)
	}
	if len(args) > 1 && wantsHelp(args[1]) {
		text, err := help.ReadFile("help/" + args[0] + ".txt")
		if err != nil {
			fmt.Fprintf(stderr, "conformance %s: %v\n", args[0], err)
			return exitFailed
		}
		stdout.Write(text)
		return exitOK
	}
	return cmd(args[1:], stdin, stdout, stderr)
}

func wantsHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

func usage(w io.Writer) int {
	names := make([]string, 0, len(subcommands))
	for name := range subcommands {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(w, "usage: conformance SUBCOMMAND [ARGUMENT...]\nsubcommands: %v\nconformance SUBCOMMAND --help says what one takes and gives.\nA file named - is standard input; one whose name ends in .gz is inflated.\n", names)
	return exitUsage
}
