package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/tpm"
)

// helpErrors prints the tables of what devices answer and what helps.
func helpErrors(a *app) *cobra.Command {
	c := &cobra.Command{Use: "errors", Short: "What the return values of devices mean, and what helps"}
	c.SetHelpFunc(func(*cobra.Command, []string) { printErrors(a.out) })
	return c
}

// An errorRow is one return value.
type errorRow struct{ code, where, class, remedy, advice string }

// errorRows lists the return values of PKCS#11, then those of TPMs.
func errorRows() (rows []errorRow) {
	for _, v := range hsm.Verdicts() {
		where := "PKCS#11"
		if v.Kind != "" {
			where = string(v.Kind)
		}
		rows = append(rows, errorRow{v.Code.String(), where, v.Class.String(), remedyOfClass(v.Class.Retryable(), v.Class == hsm.ClassLogin, v.Class == hsm.ClassOperator), v.Advice})
	}
	for _, m := range tpm.Meanings() {
		retry := m.Class == tpm.ClassRetry || m.Class == tpm.ClassGone
		rows = append(rows, errorRow{fmt.Sprintf("%v (0x%03x)", m.RC, uint32(m.RC)), "TPM", m.Class.String(), remedyOfClass(retry, false, m.Class == tpm.ClassOperator), m.Advice})
	}
	return rows
}

// remedyOfClass is one word of what the caller is to do.
func remedyOfClass(retry, login, operator bool) string {
	switch {
	case operator:
		return "operator"
	case login:
		return "login"
	case retry:
		return "retry"
	}
	return "request"
}

const errorsText = `What devices answer, and what helps. The driver has already repaired and tried
again when a caller sees one of these. Remedies:

  retry     the same call may succeed later by itself
  login     the login was lost and could not be renewed: check the PIN source
  operator  a person has to act first
  request   the request, or the choice of the device or key, is wrong

A code of PKCS#11 that is not listed is the request's; a module of a kind that
is named differs from the rest.
`

func printErrors(out io.Writer) {
	fmt.Fprint(out, errorsText, "\n")
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CODE\tFROM\tCLASS\tREMEDY\tADVICE")
	for _, r := range errorRows() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.code, r.where, r.class, r.remedy, r.advice)
	}
	t.Flush()
}
