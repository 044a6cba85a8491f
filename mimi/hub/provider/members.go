package provider

import (
	"context"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/identity"
	"github.com/privyseal/privyseal/mls"
)

func readMembers(ctx context.Context, tx *sqldb.Tx, room int64) (members []hub.Member, err error) {
	rows, err := tx.Query(ctx, `SELECT m.leaf, m.client, m.user_uri, m.credential, m.type, m.level, m.issuer, m.not_after, coalesce(h.suspended, 0)
		FROM member m LEFT JOIN held h ON h.credential = m.credential WHERE m.room = ? AND m.until IS NULL ORDER BY m.leaf`, room)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var m hub.Member
		var client, user string
		var credential []byte
		var kind, level, notAfter, suspended int64
		if err := rows.Scan(&m.Leaf, &client, &user, &credential, &kind, &level, &m.Issuer, &notAfter, &suspended); err != nil {
			return nil, err
		}
		if m.Client, err = mimi.ParseURI(client); err != nil {
			return nil, fmt.Errorf("member: %w", err)
		}
		if m.User, err = mimi.ParseURI(user); err != nil {
			return nil, fmt.Errorf("member: %w", err)
		}
		copy(m.Credential[:], credential)
		m.Type, m.Level, m.NotAfter = mls.CredentialType(kind), identity.Level(level), fromUnix(notAfter)
		m.Suspended = suspended != 0
		members = append(members, m)
	}
	return members, rows.Err()
}

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func fromUnix(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

// writeMembers notes who came and who went with a commit that begins an epoch.
func writeMembers(ctx context.Context, tx *sqldb.Tx, room int64, out *hub.Outcome, epoch uint64, at int64) error {
	for _, m := range out.Went {
		_, err := tx.Exec(ctx, `UPDATE member SET until = ?, gone_at = ? WHERE room = ? AND leaf = ? AND until IS NULL`, int64(epoch), at, room, m.Leaf)
		if err != nil {
			return err
		}
	}
	for i, m := range out.Came {
		if err := hold(ctx, tx, m, out.Leaves[i], out.Suite); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO member (room, leaf, since, client, user_uri, credential, type, level, issuer, not_after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			room, m.Leaf, int64(epoch), m.Client.String(), m.User.String(), m.Credential[:], int64(m.Type), int64(m.Level), m.Issuer, toUnix(m.NotAfter))
		if err != nil {
			return err
		}
	}
	return nil
}

// hold keeps a credential that a leaf of a room has, to ask again whether it is
// believed.
func hold(ctx context.Context, tx *sqldb.Tx, m hub.Member, leaf *mls.LeafNode, suite mls.CipherSuite) error {
	_, err := tx.Exec(ctx, `INSERT INTO held (credential, host, suite, key, type, body) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (credential) DO NOTHING`,
		m.Credential[:], m.Client.Host(), int64(suite), leaf.SignatureKey, int64(leaf.Credential.Type), leaf.Credential.Body)
	return err
}

// subscribe lets clients of ours hear the room from after from on, and those who
// went up to seq.
func (s *Service) subscribe(ctx context.Context, tx *sqldb.Tx, room, seq, from int64, out *hub.Outcome) error {
	stay := make(map[mimi.URI]bool)
	for _, m := range out.Went {
		stay[m.Client] = true
	}
	gone := make(map[mimi.URI]bool)
	for _, m := range out.Went {
		gone[m.Client] = true
	}
	for _, m := range out.Came {
		if m.Client.Host() != s.cfg.Domain {
			continue
		}
		if stay[m.Client] { // another leaf, or another credential, of a client that was there
			delete(gone, m.Client)
			continue
		}
		if err := hear(ctx, tx, m.Client, room, from); err != nil {
			return err
		}
	}
	for client := range gone {
		if client.Host() != s.cfg.Domain {
			continue
		}
		_, err := tx.Exec(ctx, `UPDATE subscription SET until_seq = ? WHERE client = ? AND room = ? AND until_seq IS NULL`, seq, client.String(), room)
		if err != nil {
			return err
		}
	}
	return nil
}

// hear begins a subscription, unless there is one. One that ended where it began,
// as with a join that the hub refused, goes on.
func hear(ctx context.Context, tx *sqldb.Tx, client mimi.URI, room, seq int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO subscription (client, room, from_seq)
		SELECT ?, CAST(? AS BIGINT), CAST(? AS BIGINT) WHERE NOT EXISTS (SELECT 1 FROM subscription WHERE client = ? AND room = ? AND until_seq IS NULL)
		ON CONFLICT (client, room, from_seq) DO UPDATE SET until_seq = NULL, muted_seq = NULL`, client.String(), room, seq, client.String(), room)
	return err
}

// mute keeps application messages after seq from the clients of users, or lets
// them have those again.
func mute(ctx context.Context, tx *sqldb.Tx, room, seq int64, clients []mimi.URI, on bool) error {
	for _, c := range clients {
		var err error
		if on {
			_, err = tx.Exec(ctx, `UPDATE subscription SET muted_seq = ? WHERE client = ? AND room = ? AND until_seq IS NULL AND muted_seq IS NULL`, seq, c.String(), room)
		} else {
			_, err = tx.Exec(ctx, `UPDATE subscription SET muted_seq = NULL WHERE client = ? AND room = ? AND until_seq IS NULL`, c.String(), room)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
