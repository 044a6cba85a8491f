package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// streams are the three standard streams of a subcommand. Results go to out,
// everything else to err.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// An app is one run of the program: its streams and the flags that every
// subcommand has.
type app struct {
	streams
	json       bool
	configPath string
}

// run runs the program with these arguments and returns its exit status.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	if err := root.ExecuteContext(ctx); err != nil {
		return a.fail(err)
	}
	return exitOK
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "privyseal",
		Short:         "Keys in hardware, and the credentials made with them",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print results, and errors, as JSON")
	root.PersistentFlags().StringVar(&a.configPath, "config", "", "configuration file (default $PRIVYSEAL_HOME/privyseal.json, then ~/.privyseal/privyseal.json)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(subcommands(a)...)
	return root
}

// subcommands are the children of the root. A file with a new subcommand adds
// its constructor here.
func subcommands(a *app) []*cobra.Command {
	return []*cobra.Command{
		newInit(a), newToken(a), newKey(a), newPolicy(a), newCA(a), newCredential(a), newTrust(a), newClientCommand(a), newDemo(a), newServe(a), newAudit(a), newConfigCommand(a), newVersion(a),
		newProvider(a), newCaller(a), newRemote(a),
		helpExitCodes(), helpErrors(a),
	}
}

// group returns a command that only has children.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(children...)
	return c
}

// noArgs and exactArgs say what is wrong as a usageError.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument %q; see: %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())}
	}
	return nil
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("%s takes %d argument(s), got %d; see: %s --help", cmd.CommandPath(), n, len(args), cmd.CommandPath())}
		}
		return nil
	}
}

// print writes a result: v as JSON with --json, otherwise what text writes. That
// a result could not be written is an error: whoever redirected it has nothing.
func (a *app) print(v any, text func(w io.Writer)) error {
	if a.json {
		return writeJSON(a.out, v)
	}
	var b bytes.Buffer
	text(&b)
	_, err := io.WriteString(a.out, harmless(b.String()))
	return err
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note writes a remark to standard error. It may repeat what another machine
// said.
func (a *app) note(format string, args ...any) {
	io.WriteString(a.err, harmless(fmt.Sprintf(format, args...))+"\n")
}

// harmless drops control characters other than line feeds and tabs, and what turns the
// direction of writing: text of others, such as a message, the name of a role or
// the words of a refusal, does not steer the terminal.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && (r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069) {
			return -1
		}
		return r
	}, s)
}
