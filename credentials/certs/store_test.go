package certs_test

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/certs"
)

var errFault = errors.New("the disk is gone")

// A faultyStore makes its nth call fail, before or after it took effect.
type faultyStore struct {
	certs.Store
	fail  int
	after bool
	calls int
}

func (f *faultyStore) call(do func() error) error {
	f.calls++
	if f.calls != f.fail {
		return do()
	}
	if f.after {
		if err := do(); err != nil {
			return err
		}
	}
	return errFault
}

func (f *faultyStore) PutIntent(ctx context.Context, in certs.Intent) error {
	return f.call(func() error { return f.Store.PutIntent(ctx, in) })
}

func (f *faultyStore) PutCertificate(ctx context.Context, issuer certs.KeyID, serial *big.Int, der []byte, at time.Time) error {
	return f.call(func() error { return f.Store.PutCertificate(ctx, issuer, serial, der, at) })
}

func (f *faultyStore) PutIssued(ctx context.Context, in certs.Intent, der []byte, at time.Time) error {
	return f.call(func() error { return f.Store.PutIssued(ctx, in, der, at) })
}

// TestCrash fails each write in both ways. Nothing is released. In two steps what
// may have been signed is on record, and nothing is signed without a record; in one
// there is a certificate with its record or neither.
func TestCrash(t *testing.T) { onBoth(t, testCrash) }

func testCrash(t *testing.T) {
	for _, tt := range []struct {
		inOne                       bool
		fail                        int
		after                       bool
		wantSigned                  int
		wantRecords, wantUnfinished int
	}{
		{fail: 1, after: false, wantSigned: 0, wantRecords: 0, wantUnfinished: 0},
		{fail: 1, after: true, wantSigned: 0, wantRecords: 1, wantUnfinished: 1},
		{fail: 2, after: false, wantSigned: 1, wantRecords: 1, wantUnfinished: 1},
		{fail: 2, after: true, wantSigned: 1, wantRecords: 1, wantUnfinished: 0},
		{inOne: true, fail: 1, after: false, wantSigned: 1, wantRecords: 0, wantUnfinished: 0},
		{inOne: true, fail: 1, after: true, wantSigned: 1, wantRecords: 1, wantUnfinished: 0},
	} {
		t.Run(fmt.Sprintf("in one %t, write %d, effect %t", tt.inOne, tt.fail, tt.after), func(t *testing.T) {
			ca := newTestCA(t, credentials.Ed25519, openStore(t), at(t0))
			path := source(t)
			store, err := certs.OpenSQLStore(t.Context(), path)
			must(t, err)
			signed := 0
			i, err := certs.NewIssuer(certs.Config{Key: spySigner{ca.key, func([]byte) { signed++ }}, Certificate: ca.cert, Now: at(t0), Store: &faultyStore{Store: store, fail: tt.fail, after: tt.after}})
			must(t, err)
			order := certs.Order{Request: request(t, p256(t), deviceNames(t), nil), Names: deviceNames(t)}
			var cert *x509.Certificate
			if tt.inOne {
				cert, err = i.Certify(t.Context(), order)
			} else if p, e := i.Prepare(t.Context(), order); e != nil {
				err = e
			} else {
				cert, err = i.Issue(t.Context(), p)
			}
			if cert != nil {
				t.Error("a certificate was released")
			}
			if !errors.Is(err, errFault) || signed != tt.wantSigned {
				t.Errorf("error %v, signed %d times", err, signed)
			}
			must(t, store.Close())
			checkAfterCrash(t, path, tt.wantRecords, tt.wantUnfinished)
		})
	}
}

func checkAfterCrash(t *testing.T, path string, wantRecords, wantUnfinished int) {
	t.Helper()
	store, err := certs.OpenSQLStore(t.Context(), path)
	must(t, err)
	defer store.Close()
	records := 0
	must(t, store.Records(t.Context(), func(r *certs.Record) error {
		records++
		if r.Kind != certs.KindDevice || len(r.Names) != 2 || r.Names[0] != clientURI || !r.Prepared.Equal(t0) || r.NotAfter.Before(r.NotBefore) {
			t.Errorf("record %+v", r)
		}
		return nil
	}))
	if n := len(unfinished(t, store)); records != wantRecords || n != wantUnfinished {
		t.Errorf("%d records, %d unfinished; want %d and %d", records, n, wantRecords, wantUnfinished)
	}
}

func testIntent(serial int64) certs.Intent {
	return certs.Intent{
		Issuer: certs.KeyID{1}, Serial: big.NewInt(serial), Kind: certs.KindDevice, Names: []string{clientURI, userURI}, Key: certs.KeyID{2},
		TBS: [32]byte{3}, NotBefore: t0, NotAfter: t0.Add(time.Hour), Prepared: t0,
	}
}

func TestStore(t *testing.T) { onBoth(t, testStore) }

func testStore(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	in := testIntent(0x7f01)
	must(t, s.PutIntent(ctx, in))
	if err := s.PutIntent(ctx, in); !errors.Is(err, certs.ErrSerialTaken) {
		t.Errorf("the same serial number again: %v", err)
	}
	other := in
	other.Issuer = certs.KeyID{9}
	must(t, s.PutIntent(ctx, other)) // another issuer's numbers are its own
	if err := s.PutCertificate(ctx, in.Issuer, big.NewInt(5), []byte("x"), t0); !errors.Is(err, certs.ErrNoIntent) {
		t.Errorf("a certificate without an intent: %v", err)
	}
	must(t, s.PutCertificate(ctx, in.Issuer, in.Serial, []byte("der"), t0.Add(time.Minute)))
	must(t, s.PutCertificate(ctx, in.Issuer, in.Serial, []byte("der"), t0.Add(time.Hour))) // the same again
	if err := s.PutCertificate(ctx, in.Issuer, in.Serial, []byte("other"), t0); !errors.Is(err, certs.ErrSerialTaken) {
		t.Errorf("another certificate for one intent: %v", err)
	}
	r, err := s.Record(ctx, in.Issuer, in.Serial)
	must(t, err)
	if string(r.Certificate) != "der" || !r.Issued.Equal(t0.Add(time.Minute)) || r.Key != in.Key || r.TBS != in.TBS || r.Serial.Cmp(in.Serial) != 0 || r.Revocation != nil {
		t.Errorf("record %+v", r)
	}
	atOnce := testIntent(0x7f02)
	must(t, s.PutIssued(ctx, atOnce, []byte("whole"), t0.Add(time.Minute)))
	if r, err = s.Record(ctx, in.Issuer, atOnce.Serial); err != nil || string(r.Certificate) != "whole" || !r.Issued.Equal(t0.Add(time.Minute)) || r.TBS != in.TBS {
		t.Errorf("in one step: %+v, %v", r, err)
	}
	for _, serial := range []int64{0x7f01, 0x7f02} {
		if err := s.PutIssued(ctx, testIntent(serial), []byte("another"), t0); !errors.Is(err, certs.ErrSerialTaken) {
			t.Errorf("the serial number %x again, in one step: %v", serial, err)
		}
	}
	if _, err := s.Record(ctx, in.Issuer, big.NewInt(1)); !errors.Is(err, certs.ErrNoIntent) {
		t.Errorf("an unknown record: %v", err)
	}
	stop := errors.New("stop")
	if err := s.Records(ctx, func(*certs.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Records = %v", err)
	}
}

// Writes of many callers share commits; each gets its own outcome.
func TestStoreConcurrent(t *testing.T) { onBoth(t, testStoreConcurrent) }

func testStoreConcurrent(t *testing.T) {
	s, ctx := openStore(t), t.Context()
	const callers, each = 16, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := 0
	for range callers {
		wg.Go(func() {
			for n := range int64(each) {
				switch err := s.PutIntent(ctx, testIntent(n+1)); {
				case errors.Is(err, certs.ErrSerialTaken):
					mu.Lock()
					taken++
					mu.Unlock()
				case err != nil:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(unfinished(t, s)); got != each || taken != (callers-1)*each {
		t.Errorf("%d intents, %d refused", got, taken)
	}
}

func TestStoreOpenAndClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "certs #?%.db")
	s, err := certs.OpenSQLStore(t.Context(), path)
	must(t, err)
	must(t, s.PutIntent(t.Context(), testIntent(1)))
	second, err := certs.OpenSQLStore(t.Context(), path) // another process would do the same
	must(t, err)
	must(t, second.PutIntent(t.Context(), testIntent(2)))
	must(t, second.Close())
	must(t, s.Close())
	if err := s.PutIntent(t.Context(), testIntent(3)); err == nil {
		t.Error("a closed store took a write")
	}
	s, err = certs.OpenSQLStore(t.Context(), path)
	must(t, err)
	if got := len(unfinished(t, s)); got != 2 {
		t.Errorf("%d intents after reopening", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.PutIntent(ended, testIntent(4)); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	must(t, s.Close())
}

// A store of the first schema, written before it shared its database, opens.
func TestStoreAdoptsItsFirstSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "certs.db")
	must(t, os.WriteFile(path, nil, 0o600))
	db, err := sql.Open("sqlite", path)
	must(t, err)
	text, err := os.ReadFile("migrations/0001_certs.sql")
	must(t, err)
	_, err = db.Exec(string(text) + `
		CREATE TABLE certs_migration (version INTEGER PRIMARY KEY, applied INTEGER NOT NULL) STRICT;
		INSERT INTO crl VALUES (x'0100000000000000000000000000000000000000000000000000000000000000', 7, NULL, 100, 200, x'30');
		INSERT INTO crl VALUES (x'0100000000000000000000000000000000000000000000000000000000000000', 8, 7, 110, 200, NULL);`)
	must(t, err)
	must(t, db.Close())
	s, err := certs.OpenSQLStore(t.Context(), path)
	must(t, err)
	defer s.Close()
	if der, err := s.CRL(t.Context(), certs.KeyID{1}, false); err != nil || string(der) != "0" {
		t.Errorf("CRL %q, %v", der, err)
	}
	at := time.Unix(150, 0)
	r, err := s.ReserveCRL(t.Context(), certs.KeyID{1}, certs.FullAndDelta, at, at.Add(time.Hour))
	if err != nil || len(r) != 2 || r[0].Number != 9 || r[1].Number != 9 || r[1].Base != 7 {
		t.Errorf("reserved %+v, %v", r, err)
	}
}
