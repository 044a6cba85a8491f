package provider

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/peer"
	"github.com/privyseal/privyseal/mls"
)

// Granted notes the KeyPackages that a client of ours gives away with a consent
// (draft-ietf-mimi-protocol-06 section 5.7): no hub has asked for them, and a
// Welcome for one must find its client. They must be of clients of the caller's
// user, and are handed out to nobody else.
func (s *Service) Granted(ctx context.Context, c *Caller, e *mimi.ConsentEntry) error {
	if len(e.ClientKeyPackages) == 0 {
		return nil
	}
	return s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		for i, k := range e.ClientKeyPackages {
			client, err := s.grantable(ctx, tx, c, k)
			if err != nil {
				return clientapi.Problemf(clientapi.CodeMalformed, "KeyPackage %d: %w", i, err)
			}
			_, err = tx.Exec(ctx, `INSERT INTO key_package (ref, client, suite, last_resort, not_after, data, taken, requester, room) VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?)
				ON CONFLICT (ref) DO UPDATE SET taken = coalesce(key_package.taken, excluded.taken)`,
				k.Ref(), client, int64(k.CipherSuite), int64(min(k.LeafNode.Lifetime.NotAfter, 1<<62)), k.Message(), s.nowMS(), e.RequesterURI.String(), e.RoomID.String())
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// grantable returns the client of a KeyPackage that a user gives away.
func (s *Service) grantable(ctx context.Context, tx *sqldb.Tx, c *Caller, k *mls.KeyPackage) (client string, err error) {
	leaf := k.LeafNode
	err = tx.QueryRow(ctx, `SELECT client FROM device WHERE user_uri = ? AND signature_key = ? AND credential_type = ? AND credential = ?`,
		c.User.String(), leaf.SignatureKey, int64(leaf.Credential.Type), leaf.Credential.Body).Scan(&client)
	if errors.Is(err, sql.ErrNoRows) {
		return "", errors.New("it is of no client that is registered for the user")
	}
	if err != nil {
		return "", err
	}
	return client, k.Validate(mls.LeafPolicy{Now: s.cfg.Now()})
}

// low is how few KeyPackages are left when a client is told to upload more.
const low = 5

// Upload takes KeyPackages of a client.
func (s *Service) Upload(ctx context.Context, c *Caller, u *clientapi.KeyPackageUpload) (counts clientapi.KeyPackageCounts, err error) {
	for i, k := range u.KeyPackages {
		if err := s.uploadable(c, k); err != nil {
			return nil, clientapi.Problemf(clientapi.CodeMalformed, "KeyPackage %d: %w", i, err)
		}
	}
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		if u.Replace {
			if err := retire(ctx, tx, `client = ?`, c.Client.String()); err != nil {
				return err
			}
		}
		for _, k := range u.KeyPackages {
			if err := putKeyPackage(ctx, tx, c.Client, k); err != nil {
				return err
			}
		}
		if counts, err = s.counts(ctx, tx, c.Client); err != nil {
			return err
		}
		for _, n := range counts {
			if n.Left > clientapi.MaxStoredPackages {
				return clientapi.Problemf(clientapi.CodeTooLarge, "%d KeyPackages of one suite, at most %d", n.Left, clientapi.MaxStoredPackages)
			}
		}
		return nil
	})
	return counts, err
}

func (s *Service) uploadable(c *Caller, k *mls.KeyPackage) error {
	leaf := k.LeafNode
	if !bytes.Equal(leaf.SignatureKey, c.Key) || !leaf.Credential.Equal(&c.Credential) {
		return errors.New("it has another signature key or credential than the client registered; register again first")
	}
	return k.Validate(mls.LeafPolicy{Now: s.cfg.Now()})
}

func putKeyPackage(ctx context.Context, tx *sqldb.Tx, client mimi.URI, k *mls.KeyPackage) error {
	resort := 0
	if k.LastResort() {
		resort = 1
		if err := retire(ctx, tx, `client = ? AND suite = ? AND last_resort = 1 AND ref <> ?`, client.String(), int64(k.CipherSuite), k.Ref()); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO key_package (ref, client, suite, last_resort, not_after, data) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (ref) DO UPDATE SET last_resort = excluded.last_resort WHERE key_package.client = excluded.client`,
		k.Ref(), client.String(), int64(k.CipherSuite), resort, int64(min(k.LeafNode.Lifetime.NotAfter, 1<<62)), k.Message())
	return err
}

// retire hands out no KeyPackage any more that the condition names. Those that
// were handed out stay known: a Welcome for them may be on its way.
func retire(ctx context.Context, tx *sqldb.Tx, where string, args ...any) error {
	if _, err := tx.Exec(ctx, `DELETE FROM key_package WHERE taken IS NULL AND `+where, args...); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE key_package SET last_resort = 0 WHERE last_resort = 1 AND `+where, args...)
	return err
}

// keptExpired is for how long a KeyPackage is known that nobody may use any more: a
// Welcome for it may be on its way.
const keptExpired = 7 * 24 * time.Hour

func (s *Service) counts(ctx context.Context, tx *sqldb.Tx, client mimi.URI) (clientapi.KeyPackageCounts, error) {
	rows, err := tx.Query(ctx, `SELECT suite, sum(CASE WHEN last_resort = 0 AND taken IS NULL THEN 1 ELSE 0 END), max(last_resort)
		FROM key_package WHERE client = ? AND not_after > ? GROUP BY suite ORDER BY suite`, client.String(), s.cfg.Now().Unix())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var counts clientapi.KeyPackageCounts
	for rows.Next() {
		var suite, left, resort int64
		if err := rows.Scan(&suite, &left, &resort); err != nil {
			return nil, err
		}
		counts = append(counts, clientapi.KeyPackageCount{CipherSuite: mls.CipherSuite(suite), Left: uint32(left), LastResort: resort == 1})
	}
	return counts, rows.Err()
}

// KeyMaterial answers a request of a client of ours: at the room's hub, which
// asks the target's provider.
func (s *Service) KeyMaterial(ctx context.Context, from hub.From, q *mimi.KeyMaterialRequest) (*mimi.KeyMaterialResponse, error) {
	if q.RequestingUser.Host() != from.Provider {
		return nil, fmt.Errorf("%w: requestingUser is %s", hub.ErrForeign, q.RequestingUser)
	}
	if q.RoomID.IsZero() || q.RoomID.Host() == s.cfg.Domain {
		return s.asHub(ctx, q)
	}
	return s.relayKeyMaterial(ctx, q.RoomID.Host(), q)
}

// PeerKeyMaterial answers another provider: as the hub of the room, or as the
// target's provider.
func (s *Service) PeerKeyMaterial(ctx context.Context, domain string, q *mimi.KeyMaterialRequest) (*mimi.KeyMaterialResponse, error) {
	ours := !q.RoomID.IsZero() && q.RoomID.Host() == s.cfg.Domain
	switch {
	case q.RoomID.IsZero():
		return nil, fmt.Errorf("%w: a request that comes from another provider names a room", hub.ErrMalformed)
	case ours && q.RequestingUser.Host() == domain:
		in, err := s.participates(ctx, q.RoomID, q.RequestingUser)
		if err != nil {
			return nil, err
		}
		if !in { // others are asked in our name for who may add to the room
			return refusedMaterial(q, mimi.KeyMaterialNoConsent), nil
		}
		return s.asHub(ctx, q)
	case ours:
		return nil, fmt.Errorf("%w: requestingUser is %s", hub.ErrForeign, q.RequestingUser)
	case q.RoomID.Host() != domain:
		return nil, fmt.Errorf("%w: only the room's hub asks for it", hub.ErrForeign)
	}
	return s.asTarget(ctx, domain, q)
}

// participates reports whether a user is in a room of ours and not banned.
func (s *Service) participates(ctx context.Context, room, user mimi.URI) (in bool, err error) {
	err = s.decideAlone(ctx, room, func(e *entry) error {
		in = e.room.State().RoleOf(user) > mimi.RoleBanned
		return nil
	})
	if errors.Is(err, ErrNoRoom) {
		return false, nil
	}
	return in, err
}

func (s *Service) asHub(ctx context.Context, q *mimi.KeyMaterialRequest) (*mimi.KeyMaterialResponse, error) {
	if q.TargetUser.Host() == s.cfg.Domain {
		return s.asTarget(ctx, s.cfg.Domain, q)
	}
	return s.relayKeyMaterial(ctx, q.TargetUser.Host(), q)
}

func (s *Service) relayKeyMaterial(ctx context.Context, provider string, q *mimi.KeyMaterialRequest) (*mimi.KeyMaterialResponse, error) {
	body, err := s.ask(ctx, provider, peer.KeyMaterial, q.TargetUser.String(), q.Marshal())
	if err != nil {
		return nil, err
	}
	p, err := mimi.ParseKeyMaterialResponse(body)
	if err != nil {
		return nil, badAnswer(provider, err)
	}
	if p.UserURI != q.TargetUser {
		return nil, badAnswer(provider, fmt.Errorf("the answer is about %s", p.UserURI))
	}
	return p, nil
}

// replay is how long a request is answered as before.
const replay = time.Minute

// asTarget hands out KeyPackages of a user of ours.
func (s *Service) asTarget(ctx context.Context, via string, q *mimi.KeyMaterialRequest) (*mimi.KeyMaterialResponse, error) {
	if q.TargetUser.Host() != s.cfg.Domain {
		return nil, fmt.Errorf("%w: %s is not of %s", hub.ErrMalformed, q.TargetUser, s.cfg.Domain)
	}
	if err := s.believesRequester(ctx, q); err != nil {
		return refusedMaterial(q, mimi.KeyMaterialNoConsent), nil
	}
	if s.cfg.Limiter != nil {
		if err := s.cfg.Limiter.KeyMaterial(ctx, via, mimi.ConsentScope{RequesterURI: q.RequestingUser, TargetURI: q.TargetUser, RoomID: q.RoomID}); err != nil {
			return nil, err
		}
	}
	if s.cfg.Consent != nil && q.RequestingUser != q.TargetUser {
		ok, err := s.cfg.Consent.Allowed(ctx, q.RequestingUser, q.TargetUser, q.RoomID)
		if err != nil {
			return nil, err
		}
		if !ok {
			return refusedMaterial(q, mimi.KeyMaterialNoConsent), nil
		}
	}
	return s.claim(ctx, q)
}

func (s *Service) believesRequester(ctx context.Context, q *mimi.KeyMaterialRequest) error {
	if err := q.Verify(); err != nil {
		return err
	}
	v, err := s.cfg.Evaluator.Evaluate(ctx, &hub.Question{
		Suite: q.AcceptableSuites[0], Credential: q.RequesterCredential, SignatureKey: q.RequesterKey, Room: q.RoomID, Voucher: q.RequestingUser.Host(),
	})
	if err != nil {
		return err
	}
	if v.Identity.User != q.RequestingUser {
		return fmt.Errorf("the credential is of %s", v.Identity.User)
	}
	return nil
}

func refusedMaterial(q *mimi.KeyMaterialRequest, code mimi.KeyMaterialUserCode) *mimi.KeyMaterialResponse {
	return &mimi.KeyMaterialResponse{Protocol: mimi.ProtocolMLS10, UserStatus: code, UserURI: q.TargetUser}
}

// claim reserves one KeyPackage of each client of the user.
func (s *Service) claim(ctx context.Context, q *mimi.KeyMaterialRequest) (p *mimi.KeyMaterialResponse, err error) {
	hash := hashOf(q.Marshal())
	var short []mimi.URI
	err = s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		short = nil
		var before []byte
		err := tx.QueryRow(ctx, `SELECT response FROM key_answer WHERE hash = ? AND at > ?`, hash, s.nowMS()-replay.Milliseconds()).Scan(&before)
		if err == nil {
			p, err = mimi.ParseKeyMaterialResponse(before)
			return err
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if p, short, err = s.take(ctx, tx, q); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO key_answer (hash, at, response) VALUES (?, ?, ?) ON CONFLICT (hash) DO UPDATE SET at = excluded.at, response = excluded.response`,
			hash, s.nowMS(), p.Marshal())
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, c := range short {
		s.wake.client(c)
	}
	return p, nil
}

func (s *Service) take(ctx context.Context, tx *sqldb.Tx, q *mimi.KeyMaterialRequest) (*mimi.KeyMaterialResponse, []mimi.URI, error) {
	clients, err := clientsOf(ctx, tx, q.TargetUser)
	if err != nil {
		return nil, nil, err
	}
	if len(clients) == 0 {
		return refusedMaterial(q, mimi.KeyMaterialNoConsent), nil, nil // the same as for a user who is not there
	}
	p := &mimi.KeyMaterialResponse{Protocol: mimi.ProtocolMLS10, UserURI: q.TargetUser}
	var short []mimi.URI
	good := 0
	for _, c := range clients {
		m, few, err := s.takeOne(ctx, tx, c, q)
		if err != nil {
			return nil, nil, err
		}
		if m.Status == mimi.KeyMaterialClientSuccess {
			good++
		}
		if few {
			short = append(short, c)
			if err := s.tellShort(ctx, tx, c); err != nil {
				return nil, nil, err
			}
		}
		p.Clients = append(p.Clients, *m)
	}
	switch good {
	case len(clients):
		p.UserStatus = mimi.KeyMaterialSuccess
	case 0:
		p.UserStatus = mimi.KeyMaterialNoCompatible
	default:
		p.UserStatus = mimi.KeyMaterialPartialSuccess
	}
	return p, short, nil
}

func clientsOf(ctx context.Context, tx *sqldb.Tx, user mimi.URI) (clients []mimi.URI, err error) {
	rows, err := tx.Query(ctx, `SELECT client FROM device WHERE user_uri = ? ORDER BY client`, user.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			return nil, err
		}
		u, err := mimi.ParseURI(c)
		if err != nil {
			return nil, err
		}
		clients = append(clients, u)
	}
	return clients, rows.Err()
}

// takeOne reserves a KeyPackage of a client: the one that ends first in the
// best acceptable suite, else the last resort.
func (s *Service) takeOne(ctx context.Context, tx *sqldb.Tx, client mimi.URI, q *mimi.KeyMaterialRequest) (m *mimi.ClientKeyMaterial, few bool, err error) {
	m = &mimi.ClientKeyMaterial{Status: mimi.KeyMaterialExhausted, ClientURI: client}
	for _, suite := range q.AcceptableSuites {
		for resort := range 2 {
			k, err := s.next(ctx, tx, client, suite, resort, &q.RequiredCapabilities)
			switch {
			case err != nil:
				return nil, false, err
			case k == nil:
				continue
			case k.KeyPackage == nil:
				m.Status, m.Capabilities = mimi.KeyMaterialNothingCompatible, k.Capabilities
				continue
			}
			m.Status, m.KeyPackage, m.Capabilities = mimi.KeyMaterialClientSuccess, k.KeyPackage, nil
			_, err = tx.Exec(ctx, `UPDATE key_package SET taken = ?, requester = ?, room = ? WHERE ref = ?`, s.nowMS(), q.RequestingUser.String(), q.RoomID.String(), k.KeyPackage.Ref())
			if err != nil {
				return nil, false, err
			}
			return m, k.left < low, nil
		}
	}
	return m, true, nil
}

// An offer is a KeyPackage that could be handed out; without one, what the
// client is capable of.
type offer struct {
	*mls.KeyPackage
	Capabilities *mls.Capabilities
	left         int64
}

func (s *Service) next(ctx context.Context, tx *sqldb.Tx, client mimi.URI, suite mls.CipherSuite, resort int, needs *mls.RequiredCapabilities) (*offer, error) {
	var data []byte
	var left int64
	free := ` AND taken IS NULL`
	if resort == 1 {
		free = ``
	}
	err := tx.QueryRow(ctx, `SELECT data, (SELECT count(*) FROM key_package WHERE client = ? AND suite = ? AND last_resort = 0 AND taken IS NULL)
		FROM key_package WHERE client = ? AND suite = ? AND last_resort = ? AND not_after > ?`+free+` ORDER BY not_after LIMIT 1`+tx.ForUpdate(),
		client.String(), int64(suite), client.String(), int64(suite), resort, s.cfg.Now().Unix()).Scan(&data, &left)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	k, err := mls.ParseKeyPackage(data)
	if err != nil {
		return nil, fmt.Errorf("a stored KeyPackage of %s: %w", client, err)
	}
	if !capable(&k.LeafNode.Capabilities, needs) {
		return &offer{Capabilities: &k.LeafNode.Capabilities}, nil
	}
	return &offer{KeyPackage: k, left: left - 1}, nil
}

func capable(c *mls.Capabilities, needs *mls.RequiredCapabilities) bool {
	return within(needs.Extensions, c.Extensions, 5) && within(needs.Proposals, c.Proposals, 7) && within(needs.Credentials, c.Credentials, 0)
}

// within reports whether all that is needed is there. Values up to basic are
// those of RFC 9420 that every client has and none lists.
func within[T ~uint16](needed, have []T, basic T) bool {
	for _, v := range needed {
		if v > basic && !slices.Contains(have, v) {
			return false
		}
	}
	return true
}

// tellShort tells a client that few of its KeyPackages are left.
func (s *Service) tellShort(ctx context.Context, tx *sqldb.Tx, client mimi.URI) error {
	counts, err := s.counts(ctx, tx, client)
	if err != nil {
		return err
	}
	seq, err := advance(ctx, tx, 1)
	if err != nil {
		return err
	}
	return s.putDirect(ctx, tx, client, seq, clientapi.EventKeyPackagesLow, 0, 0, counts.Marshal())
}
