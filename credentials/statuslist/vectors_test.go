package statuslist_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
	"github.com/privyseal/privyseal/internal/cose"
	"github.com/privyseal/privyseal/internal/dcbor"
	"github.com/privyseal/privyseal/internal/jose"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func unbase64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := jose.DecodeBase64(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Key "12" of the draft's examples, from src/util.py of its repository.
func exampleKey(t testing.TB) crypto.PublicKey {
	t.Helper()
	pub, err := credentials.ECDSAP256.PublicFromPoint(
		unbase64(t, "I3HWm_0Ds1dPMI-IWmf4mBmH-YaeAVbPVu7vB27CxXo"), unbase64(t, "6N_d5Elj9bs1htgV3okJKIdbHEpkgTmAluYKJemzn1M"))
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

const exampleURI = "https://example.com/statuslists/1"

var exampleNow = time.Unix(1700000000, 0)

func exampleRules(t testing.TB) *statuslist.Rules {
	return &statuslist.Rules{Keys: statuslist.StaticKeys{exampleKey(t)}, Now: func() time.Time { return exampleNow }}
}

// The CWT of section 5.2 and the JWT of section 5.1, of draft -21.
const exampleCWT = `d2845820a2012610781a6170706c69636174696f6e2f7374617475736c6973742b637774a1044231325850a502782168747470733a2f2f6578616d706c652e636f6d2f
	7374617475736c697374732f31061a648c5bea041a8898dfea19fffe19a8c019fffda2646269747301636c73744a78dadbb918000217015d584093fa4d01032b18c35e2fe1101b77fd6cc9440022
	caa4694450c4e4e9feab4e99d1fa6d9772ce2bf3a12e0323ded7c982c5e101a5e67f0cbc1e2b6f57ce99c279`

// The published text pads the signature with ==, against RFC 7515; they are
// left out here.
const exampleJWT = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEyIiwidHlwIjoic3RhdHVzbGlzdCtqd3QifQ.eyJleHAiOjIyOTE3MjAxNzAsImlhdCI6MTY4NjkyMDE3MCwiaXNzIjoiaHR0cHM6Ly9leGFtcGxlLmNvbSIsInN0YXR1c19saXN0Ijp7ImJpdHMiOjEsImxzdCI6ImVOcmJ1UmdBQWhjQlhRIn0sInN1YiI6Imh0dHBzOi8vZXhhbXBsZS5jb20vc3RhdHVzbGlzdHMvMSIsInR0bCI6NDMyMDB9.2lKUUNG503R9htu4aHAYi7vjmr3sgApbfoDvPrl65N3URUO1EYqqQl45Jfzd-Av4QzlKa3oVALpLwOEUOq-U_g"

var oneBit = []statuslist.Status{1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 1}

func TestPublishedTokens(t *testing.T) {
	for name, c := range map[string]struct {
		format statuslist.Format
		token  []byte
	}{"JWT": {statuslist.JWT, []byte(exampleJWT)}, "CWT": {statuslist.CWT, unhex(exampleCWT)}} {
		t.Run(name, func(t *testing.T) {
			token, list, err := exampleRules(t).Verify(context.Background(), c.format, c.token, exampleURI)
			if err != nil {
				t.Fatal(err)
			}
			if token.TTL != 43200*time.Second || token.IssuedAt.Unix() != 1686920170 || token.Expires.Unix() != 2291720170 || token.Subject != exampleURI {
				t.Errorf("got %+v", token)
			}
			wantList(t, list, oneBit)
		})
	}
}

func wantList(t *testing.T, list *statuslist.List, want []statuslist.Status) {
	t.Helper()
	if list.Len() != len(want) {
		t.Fatalf("%d entries, want %d", list.Len(), len(want))
	}
	for i, s := range want {
		if got, ok := list.Get(int64(i)); !ok || got != s {
			t.Errorf("entry %d is %d, want %d", i, got, s)
		}
	}
}

func TestPublishedArrays(t *testing.T) {
	for _, c := range []struct {
		bits       int
		statuses   []statuslist.Status
		array, lst string
	}{
		{1, oneBit, "b9a3", "78dadbb918000217015d"},
		{2, []statuslist.Status{1, 2, 0, 3, 0, 1, 0, 1, 1, 2, 3, 3}, "c944f9", "78da3be9f2130003df0207"},
	} {
		list, err := statuslist.Inflate(c.bits, unhex(c.lst))
		if err != nil {
			t.Fatal(err)
		}
		wantList(t, list, c.statuses)
		made, err := statuslist.NewList(c.bits, len(c.statuses))
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range c.statuses {
			if err := made.Set(int64(i), s); err != nil {
				t.Fatal(err)
			}
		}
		if got := hex.EncodeToString(made.Octets()); got != c.array {
			t.Errorf("%d bits: array %s, want %s", c.bits, got, c.array)
		}
		compressed, err := made.Compress()
		if err != nil {
			t.Fatal(err)
		}
		again, err := statuslist.Inflate(c.bits, compressed)
		if err != nil {
			t.Fatal(err)
		}
		wantList(t, again, c.statuses)
	}
}

var lstMember = regexp.MustCompile(`"lst":\s*"([^"]*)"`)

// The test vectors of 2^20 entries, as the draft prints them.
func TestPublishedLongLists(t *testing.T) {
	set := map[int][]int64{
		1: {0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345},
		2: {0, 1993, 25460, 159495, 495669, 554353, 645645, 723232, 854545, 934534, 1000345},
		4: {0, 1993, 35460, 459495, 595669, 754353, 845645, 923232, 924445, 934534, 1004534, 1000345, 1030203, 1030204, 1030205},
	}
	values := map[int][]statuslist.Status{
		1: {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
		2: {1, 2, 1, 3, 1, 1, 2, 1, 1, 2, 3},
		4: {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	}
	for bits, want := range map[int]string{
		1: "f2529d5d7b48665f8be86037b271b92a9cc7690a42688193d3c97baf2a1e4794",
		2: "89014d93753a4996780da9354a6ac298c4e4c571b9d7ef344c2aefdd494d898c",
		4: "7624b511c7462ca2e77514c416b5528b043d4333b5e0741494a4e21009241edb",
		8: "15aae678f848a96df0efaaead24c5356ed249c713fa292b04fd99d61db566743",
	} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", "draft-ietf-oauth-status-list", fmt.Sprintf("encoding%d.json", bits)))
			if err != nil {
				t.Fatal(err)
			}
			member := lstMember.FindSubmatch(text)
			list, err := statuslist.Inflate(bits, unbase64(t, strings.Join(strings.Fields(string(member[1])), "")))
			if err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(list.Octets()); hex.EncodeToString(sum[:]) != want || list.Len() != 1<<20 {
				t.Errorf("%d entries with sha256 %x, want %s", list.Len(), sum, want)
			}
			if set[bits] == nil {
				return
			}
			made, err := statuslist.NewList(bits, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for i, index := range set[bits] {
				if err := made.Set(index, values[bits][i]); err != nil {
					t.Fatal(err)
				}
			}
			if string(made.Octets()) != string(list.Octets()) {
				t.Error("our list of the same statuses is another")
			}
		})
	}
}

// The CWT of section 6.3 refers to entry 0 of the list, which is revoked.
const exampleReferenced = `d28443a10126a1044231325866a502653132333435017368747470733a2f2f6578616d706c652e636f6d061a648c5bea041a8898dfea19ffffa16b7374617475735f6c69
	7374a2636964780063757269782168747470733a2f2f6578616d706c652e636f6d2f7374617475736c697374732f315840340f7efea10f1a36dc4797636a17b4dd4848b68997d1d10e8cceb3a38ff33b3d
	da72964a83989f6cf98560c2fc97a08bc8977cc6b0f84cfedab93d3e4481e938`

func TestPublishedReference(t *testing.T) {
	s, err := cose.DecodeSign1(unhex(exampleReferenced), dcbor.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if !s.Verify(exampleKey(t)) {
		t.Fatal("the signature does not verify")
	}
	claims, err := dcbor.Decode(s.Payload)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := statuslist.ParseReferenceCBOR(claims.GetInt(65535).Raw())
	if want := (statuslist.Reference{URI: exampleURI}); err != nil || ref != want {
		t.Fatalf("got %v, %v", ref, err)
	}
	if again, err := statuslist.ParseReferenceJSON(ref.JSON()); err != nil || again != ref {
		t.Fatalf("got %v, %v", again, err)
	}
	_, list, err := exampleRules(t).Verify(context.Background(), statuslist.CWT, unhex(exampleCWT), exampleURI)
	if err != nil {
		t.Fatal(err)
	}
	if code := credentials.CodeOf(list.Judge(ref.Index)); code != credentials.CodeRevoked {
		t.Errorf("got %q, want revoked", code)
	}
}
