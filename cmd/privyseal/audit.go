package main

import (
	"context"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/translog"
)

// auditFlags say where the journal and the log are. Without them they are
// those of the configuration.
type auditFlags struct {
	journal, log, vkey, witnesses string
}

func (f *auditFlags) journalFlag(c *cobra.Command) {
	c.Flags().StringVar(&f.journal, "journal", "", "SQLite file or postgres:// URL of the journal (default: as configured)")
}

func (f *auditFlags) logFlags(c *cobra.Command) {
	c.Flags().StringVar(&f.log, "log", "", "folder or http(s):// URL of the transparency log (default: as configured)")
	f.keyFlags(c)
}

func (f *auditFlags) keyFlags(c *cobra.Command) {
	c.Flags().StringVar(&f.vkey, "vkey", "", "file with the log's verifier keys, one a line (default: as configured)")
	c.Flags().StringVar(&f.witnesses, "witnesses", "", "file with witnesses and their quorum (C2SP tlog-policy), whose cosignatures are wanted")
}

func newAudit(a *app) *cobra.Command {
	return group("audit", "Look into the journal of signatures, and check it against the transparency log",
		newAuditStatus(a), newAuditVerify(a), newAuditFind(a), newAuditProve(a), newAuditVerifyProof(a),
		newAuditExport(a), newAuditMonitor(a), newAuditKey(a), newAuditWitness(a))
}

// isLogFault reports whether a journal, log or proof did not pass its checks.
func isLogFault(err error) bool {
	return is[*journal.TamperError](err) || is[*translog.FaultError](err) || is[*translog.SignatureError](err) ||
		errors.Is(err, translog.ErrDiverged)
}

// openJournal opens the journal that the flags or the configuration name. It
// makes none: a wrong path must not look like an empty journal.
func (a *app) openJournal(ctx context.Context, f *auditFlags) (*journal.Journal, error) {
	source := f.journal
	if source == "" {
		c, err := a.loadConfig()
		if err != nil {
			return nil, err
		}
		source = c.databaseSource("journal")
	}
	if !isPostgres(source) {
		if _, err := os.Stat(source); err != nil {
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	return journal.Open(ctx, source, nil)
}

func (a *app) withJournal(ctx context.Context, f *auditFlags, use func(*journal.Journal) error) error {
	j, err := a.openJournal(ctx, f)
	if err != nil {
		return err
	}
	return errors.Join(use(j), j.Close())
}

// openLog returns the log and its keys.
func (a *app) openLog(f *auditFlags) (*translog.Source, *translog.Keys, error) {
	at := f.log
	if at == "" {
		c, err := a.loadConfig()
		if err != nil {
			return nil, nil, err
		}
		at = c.logDir()
	}
	src, err := translog.NewSource(at, nil)
	if err != nil {
		return nil, nil, usageError{err}
	}
	keys, err := a.logKeys(f)
	return src, keys, err
}

func (a *app) logKeys(f *auditFlags) (*translog.Keys, error) {
	path := f.vkey
	if path == "" {
		c, err := a.loadConfig()
		if err != nil {
			return nil, err
		}
		path = c.vkeyPath()
	}
	text, err := readBounded(path, maxCredentialFile)
	if err != nil {
		return nil, fmt.Errorf("the log's verifier key: %w", err)
	}
	keys, err := translog.ParseKeys(string(text))
	if err != nil || f.witnesses == "" {
		return keys, err
	}
	policy, err := readBounded(f.witnesses, maxCredentialFile)
	if err != nil {
		return nil, err
	}
	return keys.WithWitnesses(policy)
}

// mostSignature bounds the file of a signature.
const mostSignature = 4096

// looksSigned reports whether octets have the form of a signature or MAC that a
// key of ours makes: one of the lengths of HMAC-SHA256, Ed25519 and ECDSA (P-256,
// P-384, P-521) in octets, or ECDSA in DER.
func looksSigned(b []byte) bool {
	if slices.Contains([]int{32, 64, 96, 132}, len(b)) {
		return true
	}
	var pair struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(b, &pair)
	return err == nil && len(rest) == 0
}

// readSignature takes a file, or hexadecimal or base64 octets. Of what is none of
// them it says so: to look it up would say of a mistyped name of a file that it
// was not signed here.
func readSignature(arg string) ([]byte, error) {
	b, err := readBounded(arg, mostSignature)
	switch {
	case err == nil:
		return b, nil
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENAMETOOLONG):
		return nil, err
	}
	decoders := []func(string) ([]byte, error){hex.DecodeString, base64.RawURLEncoding.DecodeString, base64.StdEncoding.DecodeString}
	for _, decode := range decoders {
		if b, err := decode(arg); err == nil && looksSigned(b) {
			return b, nil
		}
	}
	return nil, usageError{fmt.Errorf("%.100q is no signature in hexadecimal or base64, nor a file with one: %w", arg, err)}
}

// An entryView is an entry as it is printed.
type entryView struct {
	Index      uint64          `json:"index"`
	Commitment string          `json:"commitment"`
	Entry      json.RawMessage `json:"entry"`
}

func viewEntry(e *journal.Entry) *entryView {
	c := e.Commitment()
	return &entryView{e.Index, hex.EncodeToString(c[:]), e.Octets}
}

func printEntry(w io.Writer, e *journal.Entry) {
	fmt.Fprintf(w, "index      %d\ntime       %s\n", e.Index, e.Intent.Time)
	for _, f := range []struct{ name, value string }{
		{"tenant", e.Intent.Tenant}, {"caller", e.Intent.Caller}, {"node", e.Intent.Node},
		{"key", fmt.Sprintf("%s, version %d, %s", e.Intent.Key, e.Intent.Version, e.Intent.Purpose)},
		{"operation", string(e.Intent.Operation)}, {"shape", e.Intent.Shape}, {"type", e.Intent.Type},
		{"digest", e.Intent.Digest}, {"rule", e.Intent.Rule}, {"policy", e.Intent.PolicyVersion},
		{"result", string(e.Outcome.Result)}, {"signature", e.Outcome.Signature}, {"device", e.Outcome.Device},
		{"error", e.Outcome.ErrorClass}, {"summary", string(e.Intent.Summary)},
	} {
		if f.value != "" {
			fmt.Fprintf(w, "%-10s %s\n", f.name, f.value)
		}
	}
}

func newAuditFind(a *app) *cobra.Command {
	f := &auditFlags{}
	c := &cobra.Command{Use: "find SIGNATURE", Short: "Show the journal's entry of a signature: a file, hexadecimal or base64", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJournal(cmd.Context(), f, func(j *journal.Journal) error {
				e, err := findEntry(cmd.Context(), j, args[0])
				if err != nil {
					return err
				}
				return a.print(viewEntry(e), func(w io.Writer) { printEntry(w, e) })
			})
		}}
	f.journalFlag(c)
	return c
}

func findEntry(ctx context.Context, j *journal.Journal, arg string) (*journal.Entry, error) {
	sig, err := readSignature(arg)
	if err != nil {
		return nil, err
	}
	e, err := j.Find(ctx, sig)
	if errors.Is(err, journal.ErrNotFound) {
		return nil, refusedError{errors.New("the journal has no entry of this signature: it was not made here")}
	}
	return e, err
}

// newAuditStatus shows how far journal and guard have come.
func newAuditStatus(a *app) *cobra.Command {
	f := &auditFlags{}
	c := &cobra.Command{Use: "status", Short: "Show how far the journal is, what is unfinished, and what the guard has", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withJournal(cmd.Context(), f, func(j *journal.Journal) error { return auditStatus(cmd.Context(), a, j) })
		}}
	f.journalFlag(c)
	return c
}

type statusView struct {
	Entries      uint64           `json:"entries"`
	Reservations int64            `json:"reservations"`
	Chain        string           `json:"chain"`
	Unfinished   []unfinishedView `json:"unfinished"`
	Guard        []markView       `json:"guard"`
}

type unfinishedView struct {
	Reservation int64     `json:"reservation"`
	Time        time.Time `json:"time"`
	Key         string    `json:"key"`
	Caller      string    `json:"caller"`
}

type markView struct {
	Kind   journal.Kind `json:"kind"`
	Name   string       `json:"name"`
	Number string       `json:"number"`
}

func auditStatus(ctx context.Context, a *app, j *journal.Journal) error {
	h, err := j.Head(ctx)
	if err != nil {
		return err
	}
	open, err := j.Unfinished(ctx)
	if err != nil {
		return err
	}
	marks, err := j.Marks(ctx)
	if err != nil {
		return err
	}
	v := statusView{Entries: h.Entries, Reservations: h.Reservations, Chain: hex.EncodeToString(h.Chain),
		Unfinished: []unfinishedView{}, Guard: []markView{}}
	for _, u := range open {
		v.Unfinished = append(v.Unfinished, unfinishedView{u.Number, u.Time, u.Intent.Key, u.Intent.Caller})
	}
	for _, m := range marks {
		v.Guard = append(v.Guard, markView{m.Kind, m.Name, m.Number.String()})
	}
	return a.print(v, v.text)
}

func (v *statusView) text(w io.Writer) {
	fmt.Fprintf(w, "entries       %d\nreservations  %d\nunfinished    %d\nchain         %s\n", v.Entries, v.Reservations, len(v.Unfinished), v.Chain)
	for _, u := range v.Unfinished {
		fmt.Fprintf(w, "unfinished    %d, %s, key %s, caller %s\n", u.Reservation, u.Time.Format(time.RFC3339), u.Key, u.Caller)
	}
	for _, m := range v.Guard {
		fmt.Fprintf(w, "guard         %s %s: %s\n", m.Kind, m.Name, m.Number)
	}
}
