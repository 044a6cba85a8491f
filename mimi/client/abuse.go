package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/clientapi"
	"github.com/privyseal/privyseal/mimi/content"
)

// ReportAbuse shows messages of one user to the hub, which tells by its franks
// whether it accepted exactly these. A message without a good frank proves
// nothing and is not sent. The answer has a verdict for each message, in their
// order; the hub of another provider gives none.
func (r *Room) ReportAbuse(ctx context.Context, ids []content.MessageID, note string) (clientapi.AbuseVerdicts, error) {
	if len(ids) == 0 {
		return nil, errors.New("client: a report of no message")
	}
	report := &mimi.AbuseReport{ReportingUser: r.c.User(), Note: note}
	for _, id := range ids {
		m, err := r.Message(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("client: message %s: %w", id, err)
		}
		switch {
		case m.NotFranked != "":
			return nil, fmt.Errorf("client: message %s has no frank that verifies (%s): it proves nothing", id, m.NotFranked)
		case !report.AllegedAbuserURI.IsZero() && report.AllegedAbuserURI != m.Sender:
			return nil, fmt.Errorf("client: one report is about one user; message %s is of %s, others of %s", id, m.Sender, report.AllegedAbuserURI)
		}
		report.AllegedAbuserURI = m.Sender
		report.Messages = append(report.Messages, *m.Evidence())
	}
	return r.SendAbuseReport(ctx, report)
}

// Evidence returns what shows the hub that it accepted this message: its
// content as it was sent, the frank and the time. It is nil for a message
// without a frank.
func (m *Message) Evidence() *mimi.AbusiveMessage {
	if m.frank == nil {
		return nil
	}
	return &mimi.AbusiveMessage{MessageContent: m.data, Frank: *m.frank, AcceptedTimestamp: m.accepted}
}

// SendAbuseReport sends a report that was put together elsewhere, from the
// Evidence of several rooms' archives perhaps. The hub judges it alike.
func (r *Room) SendAbuseReport(ctx context.Context, report *mimi.AbuseReport) (clientapi.AbuseVerdicts, error) {
	return ask(ctx, r.c.provider, http.MethodPost, clientapi.AbuseReportsPath(r.uri), report.Marshal(), clientapi.ParseAbuseVerdicts)
}
