package main

import (
	"flag"
	"fmt"
	"io"

	"github.com/privyseal/privyseal/mls/vectors"
)

// runMLS checks files of test vectors in the formats of the MLS working group.
func runMLS(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("mls", flag.ContinueOnError)
	flags.SetOutput(stderr)
	verbose := flags.Bool("v", false, "name each failing case and check")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(stderr, "usage: conformance mls [-v] FILE...")
		return exitUsage
	}
	var total vectors.Report
	for _, file := range flags.Args() {
		r := checkVectors(file, stdin, stderr)
		fmt.Fprintf(stdout, "%s passed=%d failed=%d skipped=%d\n", vectors.Name(file), r.Passed, r.Failed, r.Skipped)
		if *verbose {
			for _, f := range r.Failures {
				fmt.Fprintf(stdout, "  case %d: %s\n", f.Case, f.Check)
			}
		}
		total.Passed += r.Passed
		total.Failed += r.Failed
		total.Skipped += r.Skipped
	}
	fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped\n", total.Passed, total.Failed, total.Skipped)
	if total.Failed > 0 {
		return exitFailed
	}
	return exitOK
}

// checkVectors counts a file that cannot be read, or holds no case, as one
// failure.
func checkVectors(file string, stdin io.Reader, stderr io.Writer) *vectors.Report {
	r, err := func() (*vectors.Report, error) {
		format, err := vectors.Format(file)
		if err != nil {
			return nil, err
		}
		raw, err := readCorpusFile(file, stdin)
		if err != nil {
			return nil, err
		}
		return vectors.Check(format, raw, vectors.Options{})
	}()
	if err != nil {
		fmt.Fprintf(stderr, "conformance mls: %s: %v\n", file, err)
		return &vectors.Report{Failed: 1}
	}
	return r
}
