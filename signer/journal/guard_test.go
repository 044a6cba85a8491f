package journal_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
	"github.com/privyseal/privyseal/signer/journal"
	"github.com/privyseal/privyseal/signer/signertest"
)

// A step is a request and whether the guard lets it pass.
type step struct {
	name string
	r    *signer.Request
	want string // "", "behind" or "fork"
}

func run(t *testing.T, j *journal.Journal, steps []step) {
	t.Helper()
	for _, s := range steps {
		err := sign(t.Context(), j, intent(s.r), "sig of "+s.name)
		got := ""
		var guard *journal.GuardError
		switch {
		case errors.As(err, &guard) && guard.Fork:
			got = "fork"
		case errors.As(err, &guard):
			got = "behind"
		case err != nil:
			t.Fatalf("%s: %v", s.name, err)
		}
		if got != s.want {
			t.Errorf("%s: %q (%v), want %q", s.name, got, err, s.want)
		}
	}
}

func TestGuardMLS(t *testing.T) {
	info := func(epoch uint64) *signer.Request {
		return must[*signer.Request](t)(signer.MLSRequest("GroupInfoTBS", signertest.GroupInfoTBS("g", epoch)))
	}
	databases(t, func(t *testing.T, source string) {
		run(t, open(t, source), []step{
			{"message in 5", message(t, "g", 5, "hello"), ""},
			{"another in 5", message(t, "g", 5, "again"), ""},
			{"GroupInfo of 6 beside the Commit", info(6), ""},
			{"Commit of 5", commit(t, "g", 5, "a"), ""},
			{"same Commit", commit(t, "g", 5, "a"), ""},
			{"other Commit", commit(t, "g", 5, "b"), "fork"},
			{"message in 5 while it is pending", message(t, "g", 5, "still"), ""},
			{"other group", commit(t, "h", 5, "b"), ""},
			{"Commit of 6", commit(t, "g", 6, "c"), ""},
			{"message in 5 now", message(t, "g", 5, "late"), "behind"},
			{"GroupInfo of 5", info(5), "behind"},
			{"Commit of 5 now", commit(t, "g", 5, "a"), "behind"},
			{"Commit of 9", commit(t, "g", 9, "d"), ""},
		})
	})
}

func TestGuardRejection(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		a, b := commit(t, "g", 5, "a"), commit(t, "g", 5, "b")
		report := func(r *signer.Request) error {
			d := sha256.Sum256(r.Octets())
			return j.ReportRejected(ctx, journal.Rejection{Tenant: "acme", Caller: "app", Key: "k1",
				Group: []byte("g"), Epoch: 5, Digest: d[:], Reason: "wrongEpoch"})
		}
		if err := report(a); !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("of a Commit that was never signed: %v", err)
		}
		r := must[*journal.Reservation](t)(j.Reserve(ctx, intent(a)))
		if err := report(a); !errors.Is(err, journal.ErrInFlight) {
			t.Errorf("of a Commit that may still be signed: %v", err)
		}
		if err := r.Complete(ctx, journal.Outcome{Result: journal.Signed, Signature: []byte("s")}); err != nil {
			t.Fatal(err)
		}
		run(t, j, []step{{"before the report", b, "fork"}})
		if err := report(b); !errors.Is(err, journal.ErrNotFound) {
			t.Errorf("of another Commit: %v", err)
		}
		if err := report(a); err != nil {
			t.Fatal(err)
		}
		run(t, j, []step{{"after the report", b, ""}, {"the rejected one again", a, "fork"}})
		e := must[*journal.Entry](t)(j.Entry(ctx, 1))
		if e.Intent.Operation != journal.OpReject || e.Intent.Claims[0].Number != "5" {
			t.Errorf("the report is not in the journal: %+v", e.Intent)
		}
	})
}

func TestGuardTakesBackWhatWasNotSigned(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		ctx, j := t.Context(), open(t, source)
		fail := func(r *signer.Request) {
			t.Helper()
			res := must[*journal.Reservation](t)(j.Reserve(ctx, intent(r)))
			if err := res.Complete(ctx, journal.Outcome{Result: journal.NotSigned, ErrorClass: "device-absent"}); err != nil {
				t.Fatal(err)
			}
		}
		fail(commit(t, "g", 1000, "a"))
		run(t, j, []step{{"an earlier epoch", commit(t, "g", 5, "b"), ""}})
		fail(commit(t, "g", 6, "c"))
		run(t, j, []step{
			{"the epoch before", message(t, "g", 5, "m"), ""},
			{"the Commit before", commit(t, "g", 5, "x"), "fork"},
			{"another Commit of the same", commit(t, "g", 6, "d"), ""},
		})
		first := must[*journal.Reservation](t)(j.Reserve(ctx, intent(commit(t, "g", 7, "e"))))
		run(t, j, []step{{"the same while the first is under way", commit(t, "g", 7, "e"), ""}})
		if err := first.Complete(ctx, journal.Outcome{Result: journal.NotSigned}); err != nil {
			t.Fatal(err)
		}
		run(t, j, []step{{"another, when one of two signed", commit(t, "g", 7, "f"), "fork"}})
	})
}

func statusJWT(t testing.TB, uri string, iat int64, lst string) *signer.Request {
	payload := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d,"status_list":{"bits":1,"lst":%q}}`, uri, iat, iat+int64(len(lst)), jose.EncodeBase64([]byte(lst)))
	return must[*signer.Request](t)(signer.JWSRequest([]byte(`{"alg":"ES256","typ":"statuslist+jwt"}`), []byte(payload)))
}

func statusCWT(t testing.TB, uri string, iat int64, lst string) *signer.Request {
	header := must[[]byte](t)(cbor.Marshal(map[int]any{1: -7, 16: "application/statuslist+cwt"}))
	payload := must[[]byte](t)(cbor.Marshal(map[int]any{2: uri, 6: iat, 65533: map[string]any{"bits": 1, "lst": []byte(lst)}}))
	return must[*signer.Request](t)(signer.COSERequest(header, nil, payload))
}

func TestGuardStatusList(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		run(t, open(t, source), []step{
			{"first", statusJWT(t, "https://a/1", 100, "L1"), ""},
			{"the same as CWT", statusCWT(t, "https://a/1", 100, "L1"), ""},
			{"another list of that date", statusCWT(t, "https://a/1", 100, "L2"), "fork"},
			{"next", statusCWT(t, "https://a/1", 101, "L2"), ""},
			{"the first again", statusJWT(t, "https://a/1", 100, "L1"), "behind"},
			{"another URI", statusJWT(t, "https://a/2", 50, "L1"), ""},
		})
	})
}

func checkpoint(t testing.TB, origin string, size uint64, root string) *signer.Request {
	h := sha256.Sum256([]byte(root))
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, size, base64.StdEncoding.EncodeToString(h[:]))
	return must[*signer.Request](t)(signer.ParseRequest([]byte(text)))
}

func TestGuardCheckpoint(t *testing.T) {
	databases(t, func(t *testing.T, source string) {
		run(t, open(t, source), []step{
			{"first", checkpoint(t, "log.example/a", 10, "r10"), ""},
			{"again", checkpoint(t, "log.example/a", 10, "r10"), ""},
			{"fork", checkpoint(t, "log.example/a", 10, "other"), "fork"},
			{"growth", checkpoint(t, "log.example/a", 12, "r12"), ""},
			{"cut off", checkpoint(t, "log.example/a", 11, "r11"), "behind"},
			{"another log", checkpoint(t, "log.example/b", 1, "r1"), ""},
		})
	})
}

func TestGuardIsPerKeyOrTenant(t *testing.T) {
	ctx, j := t.Context(), open(t, t.TempDir()+"/journal.db")
	run(t, j, []step{{"ours", commit(t, "g", 5, "a"), ""}, {"our list", statusJWT(t, "https://a/1", 100, "L"), ""}})
	in := intent(commit(t, "g", 5, "b"))
	in.Key = "k2"
	if err := sign(ctx, j, in, "s1"); err != nil {
		t.Errorf("another key in the group: %v", err)
	}
	in = intent(statusJWT(t, "https://a/1", 10, "M"))
	in.Tenant = "other"
	if err := sign(ctx, j, in, "s2"); err != nil {
		t.Errorf("another tenant's list: %v", err)
	}
}

func TestGuardRefusesWhatDoesNotSay(t *testing.T) {
	j := open(t, t.TempDir()+"/journal.db")
	for name, payload := range map[string]string{
		"no sub":  `{"iat":1,"status_list":{"bits":1,"lst":"AA"}}`,
		"no iat":  `{"sub":"u","status_list":{"bits":1,"lst":"AA"}}`,
		"iat 1.5": `{"sub":"u","iat":1.5,"status_list":{"bits":1,"lst":"AA"}}`,
		"no list": `{"sub":"u","iat":1}`,
		"no lst":  `{"sub":"u","iat":1,"status_list":{"bits":1}}`,
	} {
		if !json.Valid([]byte(payload)) {
			t.Fatal(name)
		}
		r := must[*signer.Request](t)(signer.JWSRequest([]byte(`{"alg":"ES256","typ":"statuslist+jwt"}`), []byte(payload)))
		var refusal *signer.Refusal
		if _, err := j.Reserve(t.Context(), intent(r)); !errors.As(err, &refusal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
