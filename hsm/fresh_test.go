package hsm_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/privyseal/privyseal/hsm"
	"github.com/privyseal/privyseal/hsm/hsmtest"
)

// A new key is used by the worker that made it, without a search, and by all
// when they have looked once.
func TestFreshKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "uses")
	tok := hsmtest.SoftHSM(t).Open(t, hsmtest.Workers(2), env(mischiefEnv+"=uses:"+file))
	uses := func(what string) (pids []string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if pid, did, _ := strings.Cut(strings.TrimSpace(line), " "); did == what {
				pids = append(pids, pid)
			}
		}
		return pids
	}
	waitFor(t, "both workers", func() bool {
		h, err := tok.Health(t.Context())
		return err == nil && h.WorkersUp == 2
	})
	opening := len(uses("searches for all"))
	var keys []*hsm.Key
	for range 4 {
		info := generate(t, tok, hsm.P256, hsm.UseSign)
		key, err := tok.Signer(t.Context(), tok.KeyURI(info))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	sign := func() {
		t.Helper()
		for _, key := range keys {
			if err := signAll(key, 8, 4); err != nil {
				t.Error(err)
			}
		}
	}
	sign()
	if signs := slices.Compact(slices.Sorted(slices.Values(uses("signs")))); len(signs) != 1 && len(uses("searches for all")) == opening {
		t.Errorf("workers %v sign with new keys before they looked", signs)
	}
	waitFor(t, "the other worker's look for new keys", func() bool { return len(uses("searches for all")) > opening })
	waitFor(t, "signatures of the other worker", func() bool {
		sign()
		return len(slices.Compact(slices.Sorted(slices.Values(uses("signs"))))) == 2
	})
	if n := len(uses("searches for one")); n > 0 {
		t.Errorf("%d searches for a new key", n)
	}
	if err := tok.Destroy(t.Context(), keys[0].URI()); err != nil {
		t.Fatal(err)
	}
	if err := signOnce(t.Context(), keys[1]); err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// A worker that is lost takes nothing with it: what it made is found by the
// other.
func TestFreshKeysOfALostWorker(t *testing.T) {
	tok, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(2))
	for range 3 {
		killWorkers(t)
		if err := signAll(key, 4, 2); err != nil && !hsm.Retryable(err) {
			t.Error(err)
		}
		info := generateSoon(t, tok)
		next, err := tok.Signer(t.Context(), tok.KeyURI(info))
		if err != nil {
			t.Fatal(err)
		}
		key = next
	}
	if err := signAll(key, 4, 2); err != nil {
		t.Error(err)
	}
}

// generateSoon makes a key when a worker is up again.
func generateSoon(t *testing.T, tok *hsm.Token) hsm.KeyInfo {
	t.Helper()
	var made hsm.KeyInfo
	waitFor(t, "a key", func() bool {
		var err error
		made, err = tok.Generate(t.Context(), hsm.KeySpec{Type: hsm.P256, Use: hsm.UseSign, Label: "again"})
		if err != nil && !hsm.Retryable(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	return made
}

// A searching counts searches.
type searching struct {
	hsm.API
	searches int
}

func (s *searching) FindObjectsInit(sh pkcs11.SessionHandle, template []*pkcs11.Attribute) error {
	s.searches++
	return s.API.FindObjectsInit(sh, template)
}

// A token is healthy without a search as long as its keys answer, and still when
// another program destroyed one of them.
func TestHealthSearchesOnlyAfterAKey(t *testing.T) {
	m := hsmtest.SoftHSM(t)
	var layer *searching
	tok := m.Open(t, hsmtest.Wrap(func(a hsm.API) hsm.API { layer = &searching{API: a}; return layer }))
	keys := []hsm.KeyInfo{generate(t, tok, hsm.P256, hsm.UseSign), generate(t, tok, hsm.P256, hsm.UseSign)}
	before := layer.searches
	healthy := func(want int) {
		t.Helper()
		h, err := tok.Health(t.Context())
		if err != nil || h.Keys > want {
			t.Fatalf("%d keys: %v", h.Keys, err)
		}
	}
	for range 10 {
		healthy(2)
	}
	if n := layer.searches - before; n > 0 {
		t.Errorf("%d searches", n)
	}
	other := m.Open(t, hsmtest.Workers(1))
	if err := other.Destroy(t.Context(), keys[0].URI()); err != nil {
		t.Fatal(err)
	}
	for range 100 { // each looks at one of the two
		healthy(2)
	}
	healthy(1)
	if n := layer.searches - before; n != 1 {
		t.Errorf("%d searches after a key was destroyed, want one", n)
	}
}

// While keys are made, the other worker is left alone: it would have to read the
// token again for whatever it is asked.
func TestMakingKeysLeavesOthersAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "uses")
	tok, key := openKey(t, hsmtest.SoftHSM(t), hsmtest.Workers(2), env(mischiefEnv+"=uses:"+file))
	waitFor(t, "both workers", func() bool {
		h, err := tok.Health(t.Context())
		return err == nil && h.WorkersUp == 2
	})
	var made atomic.Int64 // when the last key was made
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 40 {
			generate(t, tok, hsm.P256, hsm.UseSign)
			made.Store(time.Now().UnixNano())
		}
	}()
	waitFor(t, "the first key", func() bool { return made.Load() > 0 })
	checked := 0
	for making := true; making; {
		select {
		case <-done:
			making = false
		default:
		}
		last := time.Unix(0, made.Load())
		before := fileSize(t, file)
		if _, err := tok.Health(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := signOnce(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if time.Since(last) > 500*time.Millisecond {
			continue // the machine is slow, and the other worker may be asked
		}
		checked++
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		pids := make(map[string]bool)
		for line := range strings.Lines(string(text[before:])) {
			if pid, did, _ := strings.Cut(strings.TrimSpace(line), " "); did != "searches for all" {
				pids[pid] = true
			}
		}
		if len(pids) != 1 {
			t.Errorf("workers %v were asked while one made keys:\n%s", pids, text[before:])
		}
	}
	t.Logf("%d times", checked)
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
