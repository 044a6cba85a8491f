package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func digits(n int) string { return strconv.Itoa(n) }

// Text writes the report for a terminal.
func Text(w io.Writer, r *Report) error {
	if err := r.check(); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s, %s, took %s\n%s\n", plain(r.Title), plain(r.Version), r.Began.UTC().Format(time.RFC3339), duration(r.Took), r.summary())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(r.Parties) > 0 {
		fmt.Fprint(t, "\nWho\tURI\tProvider\tKey\tProof\n")
	}
	for _, p := range r.Parties {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", plain(p.Name), plain(p.URI), plain(p.Provider), plain(p.Key), plain(p.Proof))
	}
	t.Flush()
	if len(r.Steps) > 0 {
		fmt.Fprint(t, "\nVerdict\tTook\tWhat\tChecked\n")
	}
	for _, s := range r.Steps {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Verdict, duration(s.Took), plain(s.What), plain(s.Checked))
	}
	t.Flush()
	if len(r.Notes) > 0 {
		b.WriteByte('\n')
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s\n", plain(n))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
