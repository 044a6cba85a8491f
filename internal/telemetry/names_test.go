package telemetry

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	metricName = regexp.MustCompile(`privyseal_[a-z0-9_]+[a-z0-9]`)
	fqName     = regexp.MustCompile(`fqName: "(\w+)"`)
)

// TestNames holds the page for operators and the alerts to the metrics that
// there are, and the page to all of them.
func TestNames(t *testing.T) {
	m := NewMetrics(BuildInfo{})
	m.Queues(func() map[string]int { return nil })
	if err := m.StatusListAge("1", func() time.Duration { return 0 }); err != nil {
		t.Fatal(err)
	}
	descs := make(chan *prometheus.Desc)
	go func() {
		m.registry.Describe(descs)
		close(descs)
	}()
	// The issuer of privyseal serve adds one of its own.
	known := map[string]bool{"privyseal_revocation_lag_seconds": true}
	for d := range descs {
		known[fqName.FindStringSubmatch(d.String())[1]] = true
	}
	named := func(path ...string) map[string]bool {
		b, err := os.ReadFile(filepath.Join(append([]string{"..", ".."}, path...)...))
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[string]bool)
		for _, name := range metricName.FindAllString(string(b), -1) {
			found[name] = true
			if !known[name] {
				t.Errorf("%s names %s, which is not there", filepath.Join(path...), name)
			}
		}
		return found
	}
	if len(named("packaging", "prometheus", "privyseal.rules.yml")) < 8 {
		t.Error("the alerts look at little")
	}
	page := named("docs", "operating.md")
	for name := range known {
		if strings.HasPrefix(name, prefix) && !page[name] {
			t.Errorf("docs/operating.md does not name %s", name)
		}
	}
}
