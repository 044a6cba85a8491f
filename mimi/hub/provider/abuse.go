package provider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/privyseal/privyseal/internal/sqldb"
	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
	"github.com/privyseal/privyseal/mimi/hub"
	"github.com/privyseal/privyseal/mimi/policy"
	"github.com/privyseal/privyseal/mls"
)

// ReportAbuse takes a report about a room of ours, judges each of its messages
// and keeps it all for the operator (section 5.9).
func (s *Service) ReportAbuse(ctx context.Context, from hub.From, room mimi.URI, q *mimi.AbuseReport) (clientapi.AbuseVerdicts, error) {
	if !q.ReportingUser.IsZero() && q.ReportingUser.Host() != from.Provider {
		return nil, fmt.Errorf("%w: reportingUser is %s", hub.ErrForeign, q.ReportingUser)
	}
	if len(q.Messages) > clientapi.MaxAbuseVerdicts {
		return nil, fmt.Errorf("%w: %d messages in a report, at most %d", hub.ErrMalformed, len(q.Messages), clientapi.MaxAbuseVerdicts)
	}
	if err := s.mayReport(ctx, room, q.ReportingUser); err != nil {
		return nil, err
	}
	body := q.Marshal()
	if err := s.db.Read(ctx, func(tx *sqldb.Tx) error { return s.roomForReport(ctx, tx, from.Provider, q.ReportingUser, len(body)) }); err != nil {
		return nil, err // before the device is asked
	}
	verdicts := make(clientapi.AbuseVerdicts, len(q.Messages))
	for i := range q.Messages {
		reason, err := s.judgeReport(ctx, room, q.AllegedAbuserURI, &q.Messages[i])
		if err != nil {
			return nil, err
		}
		verdicts[i] = clientapi.AbuseVerdict{Accepted: reason == "", Reason: reason}
	}
	return verdicts, s.db.Batch(ctx, func(tx *sqldb.Tx) error {
		ctx := context.WithoutCancel(ctx) // a query that is broken off takes the batch of all with it
		if err := s.roomForReport(ctx, tx, from.Provider, q.ReportingUser, len(body)); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `INSERT INTO abuse_report (room, at, provider, reporter, accused, note, body, verdicts) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			room.String(), s.nowMS(), from.Provider, q.ReportingUser.String(), q.AllegedAbuserURI.String(), strings.ReplaceAll(q.Note, "\x00", "\uFFFD"), body, verdicts.Marshal())
		return err
	})
}

// What is kept of the reports of one day: of a user, and of a provider. Those of
// our own that name nobody count as one provider's.
const (
	maxReports         = 100
	maxReportOctets    = 64 << 20
	maxProviderReports = 1000
	maxProviderOctets  = 512 << 20
)

// roomForReport refuses a report beyond what is kept of its reporter in a day.
func (s *Service) roomForReport(ctx context.Context, tx *sqldb.Tx, provider string, reporter mimi.URI, size int) error {
	since := s.cfg.Now().Add(-24 * time.Hour).UnixMilli()
	check := func(most, octets int64, where string, args ...any) error {
		var n, sum int64
		err := tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(length(body)), 0) FROM abuse_report WHERE provider = ? AND at > ?`+where, append([]any{provider, since}, args...)...).Scan(&n, &sum)
		if err == nil && (n >= most || sum+int64(size) > octets) {
			err = clientapi.Problemf(clientapi.CodeTooMany, "there are %d reports of %d octets of one day already", n, sum).After(time.Hour)
		}
		return err
	}
	if !reporter.IsZero() {
		err := check(maxReports, maxReportOctets, ` AND reporter = ?`, reporter.String())
		if err != nil || provider == s.cfg.Domain {
			return err
		}
		return check(maxProviderReports, maxProviderOctets, ``)
	}
	return check(maxProviderReports, maxProviderOctets, ` AND reporter = ''`)
}

// mayReport lets those report who hold canReportAbuse, and those who had a
// client in the room and are gone: nobody is to be silenced by a removal. A
// report that names nobody is its provider's to answer for.
func (s *Service) mayReport(ctx context.Context, room, user mimi.URI) error {
	return s.decideAlone(ctx, room, func(e *entry) error {
		if user.IsZero() {
			return nil
		}
		if leaves := e.room.State().LeavesOf(user); len(leaves) > 0 {
			_, err := policy.Authorize(e.room.State(), &policy.Deed{Actor: policy.Actor{Sender: policy.Member, Leaf: leaves[0]}, Needs: []policy.Capability{policy.CanReportAbuse}})
			return err
		}
		var was int64
		err := s.db.Read(ctx, func(tx *sqldb.Tx) error {
			return tx.QueryRow(ctx, `SELECT count(*) FROM member WHERE room = ? AND user_uri = ?`, e.id, user.String()).Scan(&was)
		})
		if err == nil && was == 0 {
			return fmt.Errorf("%w: %s was never in the room", hub.ErrForeign, user)
		}
		return err
	})
}

// judgeReport returns why a reported message does not stand, or "" if the hub
// accepted exactly it. An error means that the hub could not find out.
func (s *Service) judgeReport(ctx context.Context, room, accused mimi.URI, m *mimi.AbusiveMessage) (mimi.FrankReason, error) {
	c, err := frankedContent(m.MessageContent)
	if err != nil {
		return mimi.FrankTag, nil // it is no message that could have had a tag
	}
	report := mimi.FrankReport{Content: *c, Frank: &m.Frank, AcceptedTimestamp: m.AcceptedTimestamp, RoomURI: room, AllegedAbuser: accused}
	err = s.secrets.Load().Franks.VerifyReport(ctx, &report)
	var why *mimi.FrankError
	switch {
	case err == nil:
		return "", nil
	case errors.As(err, &why):
		return why.Reason, nil
	}
	return "", err
}

// frankedContent opens what was decrypted: application_data with its framing,
// which every room has, and the MIMI content in it.
func frankedContent(data []byte) (*mimi.FrankedContent, error) {
	f, err := mls.ParseApplicationFraming(data)
	if err != nil {
		return nil, err
	}
	m, err := content.Parse(f.Content)
	if err != nil {
		return nil, err
	}
	c := &mimi.FrankedContent{ApplicationData: data, Salt: m.Salt}
	sender, _ := m.Extensions.SenderURI()
	if c.SenderURI, err = mimi.ParseURI(sender); err != nil {
		return nil, err
	}
	where, _ := m.Extensions.RoomURI()
	c.RoomURI, err = mimi.ParseURI(where)
	return c, err
}
