package signer_test

import (
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/privyseal/privyseal/internal/pgtest"
	"github.com/privyseal/privyseal/signer"
)

// TestKeysPageByIndex asks PostgreSQL how it would find a page.
func TestKeysPageByIndex(t *testing.T) {
	source := pgtest.Database(t)
	s, err := signer.OpenKeyStore(t.Context(), source, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := sql.Open("pgx", source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec(`SET LOCAL enable_seqscan = off`); err != nil { // the table is small
		t.Fatal(err)
	}
	rows, err := tx.Query(`EXPLAIN SELECT id FROM keys WHERE id COLLATE "C" >= 'acme.' AND id COLLATE "C" < 'acme.~' ORDER BY id COLLATE "C" LIMIT 10`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, line)
	}
	text := strings.Join(plan, "\n")
	if !strings.Contains(text, "keys_id_octets") {
		t.Errorf("the page is not read by its index:\n%s", text)
	}
}

// TestKeysPage walks through the keys of a prefix: all of them, once, in the
// order of their octets, and none of another.
func TestKeysPage(t *testing.T) {
	s, err := signer.OpenKeyStore(t.Context(), storeSource(t, t.TempDir()), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var want []signer.KeyID
	for _, name := range []string{"a", "a-b", "a_b", "ab", "b", "z9", "zz"} {
		want = append(want, signer.KeyID("acme."+name))
	}
	for i, id := range append([]signer.KeyID{"acme", "acme-2.a", "acme2.a", "ac", "zz.a"}, want...) {
		key := &signer.Key{ID: id, Purpose: signer.PurposeMLSLeaf, Algorithm: signer.P256}
		if err := s.Reserve(t.Context(), key, fmt.Sprintf("dev-%d", i), signer.NewObjectID()); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	for most := 1; most <= len(want)+1; most++ {
		var got []signer.KeyID
		for after, more := signer.KeyID(""), true; more; {
			page, err := s.KeysPage(t.Context(), "acme.", after, most)
			if err != nil || len(page) > most {
				t.Fatalf("%d keys of %d, %v", len(page), most, err)
			}
			for _, k := range page {
				got, after = append(got, k.ID), k.ID
			}
			more = len(page) == most
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", most, got)
		}
	}
}
