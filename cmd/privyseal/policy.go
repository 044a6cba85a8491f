package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer/policy"
)

func newPolicy(a *app) *cobra.Command {
	return group("policy", "Rules about what keys may sign", newPolicyCheck(a), newPolicyTest(a))
}

func newPolicyCheck(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "check POLICY", Short: "Compile a policy file", Args: exactArgs(1),
		Long: "Compile a policy file: find unknown members, misspelled fields and wrong types before the signing service does. Print its version, which is the SHA-256 of the file.",
		RunE: func(_ *cobra.Command, args []string) error { return policyCheck(a, args[0]) },
	}
}

func policyCheck(a *app, path string) error {
	p, err := loadPolicy(path)
	if err != nil {
		return err
	}
	view := struct {
		Version string `json:"version"`
		Rules   int    `json:"rules"`
	}{p.Version(), p.Rules()}
	return a.print(view, func(w io.Writer) { fmt.Fprintf(w, "%d rule(s), version %s\n", view.Rules, view.Version) })
}

func newPolicyTest(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "test POLICY CASES", Short: "Ask a policy about example requests", Args: exactArgs(2),
		Long: `Ask a policy about example requests and compare with what they expect.

CASES is a JSON file:

  {"version": 1, "cases": [
    {"name": "a bot sends a message",
     "input": {"caller": {"tenant": "acme", "name": "bot-1", "role": "client"},
               "key": {"name": "leaf", "purpose": "mls-leaf"},
               "mls": {"label": "FramedContentTBS", "content_type": "application"}},
     "expect": "allow", "rule": "bots-sign-messages"}
  ]}

The members of "input" are the variables of the rules. In place of the fields of
a request, "octets" may hold the to-be-signed octets in base64. The command ends
with status 5 if a case does not come out as expected.`,
		RunE: func(_ *cobra.Command, args []string) error { return policyTest(a, args[0], args[1]) },
	}
}

// policyTest is "privyseal policy test".
func policyTest(a *app, policyPath, casesPath string) error {
	p, err := loadPolicy(policyPath)
	if err != nil {
		return err
	}
	b, err := readBounded(casesPath, policy.MaxFile)
	if err != nil {
		return err
	}
	cases, err := policy.ParseCases(b)
	if err != nil {
		return fmt.Errorf("%s: %w", casesPath, err)
	}
	failed := 0
	results := make([]policy.Result, len(cases))
	for i := range cases {
		results[i] = cases[i].Run(p, time.Now())
		if !results[i].Passed {
			failed++
		}
	}
	if err := a.print(results, func(w io.Writer) { printResults(w, cases, results) }); err != nil || failed == 0 {
		return err
	}
	return problemError{failed}
}

func printResults(w io.Writer, cases []policy.Case, results []policy.Result) {
	for i, r := range results {
		if r.Passed {
			fmt.Fprintf(w, "ok    %s: %s (%s)\n", r.Name, r.Effect, dash(r.Rule))
			continue
		}
		want := string(cases[i].Expect)
		if cases[i].Rule != "" {
			want += " by " + cases[i].Rule
		}
		fmt.Fprintf(w, "FAIL  %s: %s by %s, want %s\n", r.Name, r.Effect, dash(r.Rule), want)
		if r.Detail != "" {
			fmt.Fprintf(w, "      %s\n", r.Detail)
		}
	}
}

func loadPolicy(path string) (*policy.Policy, error) {
	b, err := readBounded(path, policy.MaxFile)
	if err != nil {
		return nil, err
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}
