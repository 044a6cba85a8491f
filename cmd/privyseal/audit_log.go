package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/internal/durable"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/translog"
)

func isPostgres(source string) bool {
	return strings.HasPrefix(source, "postgres://") || strings.HasPrefix(source, "postgresql://")
}

func newAuditVerify(a *app) *cobra.Command {
	f := &auditFlags{}
	var alone bool
	c := &cobra.Command{Use: "verify", Short: "Check every row of the journal, and the journal against the transparency log", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withJournal(cmd.Context(), f, func(j *journal.Journal) error { return auditVerify(cmd.Context(), a, j, f, alone) })
		}}
	f.journalFlag(c)
	f.logFlags(c)
	c.Flags().BoolVar(&alone, "journal-only", false, "do not look at the log; rows cut off at the end then show only in the head's count")
	return c
}

type verifyView struct {
	Entries    uint64 `json:"entries"`
	Chain      string `json:"chain"`
	Checkpoint uint64 `json:"checkpoint_size,omitempty"`
	Root       string `json:"root,omitempty"`
	Unlogged   uint64 `json:"unlogged,omitempty"`
}

func auditVerify(ctx context.Context, a *app, j *journal.Journal, f *auditFlags, alone bool) error {
	var v verifyView
	if alone {
		h, err := j.Verify(ctx, nil)
		if err != nil {
			return err
		}
		v.Entries, v.Chain = h.Entries, hex.EncodeToString(h.Chain)
	} else {
		src, keys, err := a.openLog(f)
		if err != nil {
			return err
		}
		r, err := translog.Audit(ctx, j, src, keys)
		if err != nil {
			return err
		}
		v = verifyView{r.Head.Entries, hex.EncodeToString(r.Head.Chain), r.Checkpoint.Size, hex.EncodeToString(r.Checkpoint.Root), r.Unlogged}
	}
	return a.print(&v, func(w io.Writer) {
		fmt.Fprintf(w, "the journal's %d entries are whole\n", v.Entries)
		if v.Root != "" {
			fmt.Fprintf(w, "the log's checkpoint of %d entries is of this journal; %d entries are newer\n", v.Checkpoint, v.Unlogged)
		}
	})
}

func newAuditProve(a *app) *cobra.Command {
	f := &auditFlags{}
	var out string
	c := &cobra.Command{Use: "prove SIGNATURE", Short: "Write a proof that a signature's entry is in the log (C2SP tlog-proof)", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withJournal(cmd.Context(), f, func(j *journal.Journal) error { return auditProve(cmd.Context(), a, j, f, args[0], out) })
		}}
	f.journalFlag(c)
	f.logFlags(c)
	c.Flags().StringVar(&out, "out", "", "file to write (default: standard output)")
	return c
}

func auditProve(ctx context.Context, a *app, j *journal.Journal, f *auditFlags, arg, out string) error {
	e, err := findEntry(ctx, j, arg)
	if err != nil {
		return err
	}
	src, keys, err := a.openLog(f)
	if err != nil {
		return err
	}
	proof, err := translog.Prove(ctx, src, keys, e)
	if err != nil {
		return err
	}
	if out == "" {
		_, err = a.out.Write(proof)
		return err
	}
	return durable.WriteFile(out, proof, 0o644)
}

func newAuditVerifyProof(a *app) *cobra.Command {
	f := &auditFlags{}
	var signature string
	c := &cobra.Command{Use: "verify-proof FILE", Short: "Check a proof with nothing but the log's verifier key", Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return auditVerifyProof(a, f, args[0], signature) }}
	f.keyFlags(c)
	c.Flags().StringVar(&signature, "signature", "", "the signature that the proof must be of: a file, hexadecimal or base64")
	return c
}

func auditVerifyProof(a *app, f *auditFlags, path, signature string) error {
	text, err := readBounded(path, maxCredentialFile)
	if err != nil {
		return err
	}
	keys, err := a.logKeys(f)
	if err != nil {
		return err
	}
	p, err := translog.VerifyProof(text, keys)
	if err != nil {
		return refusedError{err}
	}
	if signature != "" {
		sig, err := readSignature(signature)
		if err != nil {
			return err
		}
		if !p.Entry.Signs(sig) {
			return refusedError{errors.New("the proof is of another signature")}
		}
	}
	return a.print(viewEntry(p.Entry), func(w io.Writer) {
		fmt.Fprintf(w, "in the log %s of %d entries\n", p.Checkpoint.Origin, p.Checkpoint.Size)
		printEntry(w, p.Entry)
	})
}

func newAuditExport(a *app) *cobra.Command {
	f := &auditFlags{}
	var from uint64
	c := &cobra.Command{Use: "export", Short: "Write the journal's entries, one JSON object a line", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withJournal(cmd.Context(), f, func(j *journal.Journal) error { return auditExport(cmd.Context(), a, j, from) })
		}}
	f.journalFlag(c)
	c.Flags().Uint64Var(&from, "from", 0, "index of the first entry")
	return c
}

func auditExport(ctx context.Context, a *app, j *journal.Journal, from uint64) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	for e, err := range j.Entries(ctx, from) {
		if err != nil {
			return err
		}
		if err := enc.Encode(viewEntry(e)); err != nil {
			return err
		}
	}
	return nil
}

func newAuditMonitor(a *app) *cobra.Command {
	f := &auditFlags{}
	var state string
	var every, maxAge time.Duration
	c := &cobra.Command{Use: "monitor", Short: "Follow a log: tell when it is cut off, rewritten, forked or stale", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 0 || maxAge < 0 {
				return usageError{errors.New("--every and --max-age cannot be negative")}
			}
			src, keys, err := a.openLog(f)
			if err != nil {
				return err
			}
			m := &translog.Monitor{Source: src, Keys: keys, State: state, MaxAge: maxAge}
			return auditMonitor(cmd.Context(), a, m, every)
		}}
	f.logFlags(c)
	c.Flags().StringVar(&state, "state", "", "file with the newest checkpoint seen; made at the first look")
	c.Flags().DurationVar(&every, "every", 0, "look again and again, this far apart (default: look once)")
	c.Flags().DurationVar(&maxAge, "max-age", 0, "how old a checkpoint may be; 0 for any age")
	c.MarkFlagRequired("state")
	return c
}

type monitorView struct {
	First bool   `json:"first,omitempty"`
	From  uint64 `json:"from"`
	Size  uint64 `json:"size"`
	Root  string `json:"root"`
}

// auditMonitor ends with the first fault. A log that cannot be reached is
// asked again as long as --every is given.
func auditMonitor(ctx context.Context, a *app, m *translog.Monitor, every time.Duration) error {
	for {
		st, err := m.Check(ctx)
		var fault *translog.FaultError
		switch {
		case errors.As(err, &fault):
			return errors.Join(err, keepEvidence(m.State, fault))
		case err != nil && every == 0:
			return remoteError{err}
		case err != nil:
			a.note("the log cannot be read: %v", err)
		default:
			err = a.print(monitorView{st.First, st.From, st.Size, hex.EncodeToString(st.Root)}, func(w io.Writer) {
				fmt.Fprintf(w, "%d entries, were %d; root %x\n", st.Size, st.From, st.Root)
			})
			if err != nil || every == 0 {
				return err
			}
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil
		}
	}
}

// keepEvidence writes both checkpoints beside the state.
func keepEvidence(state string, f *translog.FaultError) error {
	text := fmt.Sprintf("%s\n\n%s\n%s", f.Error(), f.Old, f.New)
	return durable.WriteFile(state+"."+string(f.Fault), []byte(text), 0o600)
}

func newAuditKey(a *app) *cobra.Command {
	var origin string
	c := &cobra.Command{Use: "key ID", Short: "Print the verifier key (vkey) of a log's checkpoint key", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return auditKey(cmd.Context(), a, args[0], origin) }}
	c.Flags().StringVar(&origin, "origin", "", "the log's name, such as signer.example.com/log")
	c.MarkFlagRequired("origin")
	return c
}

// auditKey prints the keys of all versions: older checkpoints are by older keys.
func auditKey(ctx context.Context, a *app, id, origin string) error {
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.store.Key(ctx, signer.KeyID(id))
		if err != nil {
			return err
		}
		var vkeys []string
		for _, v := range key.Versions {
			pub, err := v.PublicKey()
			if err != nil {
				return err
			}
			vkey, err := translog.VerifierKey(origin, pub)
			if err != nil {
				return err
			}
			vkeys = append(vkeys, vkey)
		}
		return a.print(vkeys, func(w io.Writer) { fmt.Fprintln(w, strings.Join(vkeys, "\n")) })
	})
}
