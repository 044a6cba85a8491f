package report_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/mimi/report"
)

func sample() *report.Report {
	return &report.Report{
		Title: "Three providers, one room", Version: "privyseal devel", Began: time.Date(2026, 11, 28, 1, 2, 3, 0, time.UTC), Took: 42*time.Second + 123*time.Millisecond,
		Parties: []report.Party{
			{"Alice", "mimi://a.example/d/alice/laptop", "a.example", "SoftHSM token, P-256", "the module's claim"},
			{"Bob", "mimi://b.example/d/bob/phone", "b.example", "TPM 2.0, P-256", "certified by the TPM (TPM2_Certify)"},
			{"Cathy", "mimi://c.example/d/cathy/desk", "c.example", "signing service", "journal entry and inclusion proof"},
		},
		Steps: []report.Step{
			{"Alice makes the room", "GroupInfo signature, components, external senders", 12345678 * time.Nanosecond, report.Verified},
			{"Bob joins by Welcome", "credential under the anchor of b.example", 800 * time.Microsecond, report.Verified},
			{"A forged abuse report", "frank-mac: the hub's MAC is of another message", 90 * time.Microsecond, report.Refused},
		},
		Notes: []string{"The devices are software and protect nothing; everything else is what runs in production."},
	}
}

func render(t *testing.T, f func(*bytes.Buffer) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func html(t *testing.T, r *report.Report) string {
	return render(t, func(b *bytes.Buffer) error { return report.HTML(b, r) })
}

func text(t *testing.T, r *report.Report) string {
	return render(t, func(b *bytes.Buffer) error { return report.Text(b, r) })
}

func TestText(t *testing.T) {
	want := `Three providers, one room
privyseal devel, 2026-11-28T01:02:03Z, took 42.12s
2 steps verified, 1 attempt refused as it must be, none failed

Who    URI                              Provider   Key                   Proof
Alice  mimi://a.example/d/alice/laptop  a.example  SoftHSM token, P-256  the module's claim
Bob    mimi://b.example/d/bob/phone     b.example  TPM 2.0, P-256        certified by the TPM (TPM2_Certify)
Cathy  mimi://c.example/d/cathy/desk    c.example  signing service       journal entry and inclusion proof

Verdict   Took    What                   Checked
verified  12.3ms  Alice makes the room   GroupInfo signature, components, external senders
verified  800µs   Bob joins by Welcome   credential under the anchor of b.example
refused   90µs    A forged abuse report  frank-mac: the hub's MAC is of another message

The devices are software and protect nothing; everything else is what runs in production.
`
	if got := text(t, sample()); got != want {
		t.Errorf("got\n%s", got)
	}
}

// A failure is never hidden: neither a verdict that is missing nor an empty
// report passes.
func TestFailuresShow(t *testing.T) {
	r := sample()
	if !r.OK() || strings.Contains(html(t, r), "sum bad") {
		t.Error("a good report is shown as bad")
	}
	for _, v := range []report.Verdict{report.Failed, 0, 9} {
		r.Steps[1].Verdict = v
		if h := html(t, r); r.OK() || !strings.Contains(h, "sum bad") || !strings.Contains(h, "1 FAILED") || !strings.Contains(text(t, r), "1 FAILED") {
			t.Errorf("verdict %d is not shown", v)
		}
	}
	if (&report.Report{}).OK() {
		t.Error("a report of nothing is good")
	}
}

func TestNamesDoNothing(t *testing.T) {
	r := sample()
	evil := "<script>alert(1)</script>\x1b[31m\u202e\n\"'&" + strings.Repeat("x", 300)
	r.Title, r.Version, r.Notes[0] = evil, evil, evil
	r.Parties[0] = report.Party{Name: evil, URI: evil, Provider: evil, Key: evil, Proof: evil}
	r.Steps[0].What, r.Steps[0].Checked = evil, evil
	for _, s := range []string{html(t, r), text(t, r)} {
		if strings.ContainsAny(s, "\x1b\u202e") || strings.Contains(s, strings.Repeat("x", 111)) {
			t.Error("a control character or an endless name got through")
		}
	}
	h := html(t, r)
	if strings.Contains(h, "<script") {
		t.Error("markup got through")
	}
	if m := regexp.MustCompile(`(?i)(src|href|url\(|@import|<script|<link|<img|<iframe)`).FindString(strings.NewReplacer("style-src", "", "default-src", "").Replace(h)); m != "" {
		t.Errorf("the page has %q", m)
	}
}

func TestOnePageOnly(t *testing.T) {
	for _, r := range []*report.Report{
		{Steps: make([]report.Step, report.MaxSteps+1)}, {Parties: make([]report.Party, report.MaxParties+1)}, {Notes: make([]string, report.MaxNotes+1)},
	} {
		if err := report.HTML(new(bytes.Buffer), r); !errors.Is(err, report.ErrTooLong) {
			t.Errorf("HTML: %v", err)
		}
		if err := report.Text(new(bytes.Buffer), r); !errors.Is(err, report.ErrTooLong) {
			t.Errorf("text: %v", err)
		}
	}
}

// fullest is as much as fits.
func fullest() *report.Report {
	r := sample()
	long := strings.Repeat("a long text ", 12)
	for len(r.Parties) < report.MaxParties {
		r.Parties = append(r.Parties, report.Party{Name: long, URI: "mimi://" + long, Provider: long, Key: long, Proof: long})
	}
	for i := len(r.Steps); i < report.MaxSteps; i++ {
		r.Steps = append(r.Steps, report.Step{What: fmt.Sprint(i, " ", long), Checked: long, Took: time.Duration(i) * 37 * time.Millisecond, Verdict: report.Verdict(i%3 + 1)})
	}
	for len(r.Notes) < report.MaxNotes {
		r.Notes = append(r.Notes, long)
	}
	return r
}

func chromium(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	home := t.TempDir()
	cmd := exec.CommandContext(ctx, "chromium", append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + home}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
}

var pdfPage = regexp.MustCompile(`/Type\s*/Page\b`)

// The real browser prints the fullest report on one page, and shows it.
func TestInTheBrowser(t *testing.T) {
	dir := t.TempDir()
	file, pdf, shot := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.pdf"), filepath.Join(dir, "report.png")
	if err := os.WriteFile(file, []byte(html(t, fullest())), 0o600); err != nil {
		t.Fatal(err)
	}
	chromium(t, "--no-pdf-header-footer", "--print-to-pdf="+pdf, "file://"+file)
	b, err := os.ReadFile(pdf)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(pdfPage.FindAll(b, -1)); n != 1 {
		t.Errorf("it prints on %d pages, want 1", n)
	}
	chromium(t, "--window-size=1000,1000", "--hide-scrollbars", "--screenshot="+shot, "file://"+file)
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	if colours := count(img); colours < 50 {
		t.Errorf("the page shows %d colours: it is not there", colours)
	}
	if to := os.Getenv("REPORT_SCREENSHOT"); to != "" {
		shown, err := os.ReadFile(shot)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, shown, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// count returns how many colours a picture has.
func count(img image.Image) int {
	seen := make(map[[3]uint32]bool)
	b := img.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y += 2 {
		for x := b.Min.X; x < b.Max.X; x += 2 {
			r, g, bl, _ := img.At(x, y).RGBA()
			seen[[3]uint32{r, g, bl}] = true
		}
	}
	return len(seen)
}
