package content

import "github.com/privyseal/privyseal/internal/dcbor"

// A Status is what became of a message at a receiver
// (draft-mahy-mimi-message-status-01). Values above StatusError are unknown
// and ignored.
type Status uint8

// The registered statuses.
const (
	StatusUnread    Status = 0
	StatusDelivered Status = 1
	StatusRead      Status = 2
	StatusExpired   Status = 3
	StatusDeleted   Status = 4
	StatusHidden    Status = 5
	StatusError     Status = 6
)

// StatusMediaType is the media type of a status report.
const StatusMediaType = "application/mimi-message-status"

// MaxStatuses is the most messages that one report may speak of.
const MaxStatuses = 1024

// A MessageStatus is one row of a report. A later report on the same message
// replaces an earlier one.
type MessageStatus struct {
	ID     MessageID
	Status Status
}

// EncodeStatusReport returns a report: [ * [ messageId, status: 0..255 ] ].
func EncodeStatusReport(report []MessageStatus) ([]byte, error) {
	if len(report) > MaxStatuses {
		return nil, refuse(CodeTooLarge, "status report", "%d messages, want at most %d", len(report), MaxStatuses)
	}
	rows := make([]dcbor.Value, len(report))
	for i := range report {
		rows[i] = dcbor.NewArray(report[i].ID.value(), dcbor.NewUint(uint64(report[i].Status)))
	}
	return dcbor.Encode(dcbor.NewArray(rows...)), nil
}

// ParseStatusReport decodes a report. Message IDs and statuses that the
// receiver does not know are no error.
func ParseStatusReport(encoded []byte) ([]MessageStatus, error) {
	v, err := dcbor.Limits{Size: MaxMessage, Deterministic: true}.Decode(encoded)
	if err != nil {
		return nil, &Error{Code: syntaxCode(err), Where: "status report", Detail: err.Error(), Err: err}
	}
	rows, ok := v.Elements()
	if !ok {
		return nil, refuse(CodeShape, "status report", "%s, want an array", v.Kind())
	}
	if len(rows) > MaxStatuses {
		return nil, refuse(CodeTooLarge, "status report", "%d messages, want at most %d", len(rows), MaxStatuses)
	}
	report := make([]MessageStatus, len(rows))
	p := parser{}
	for i, row := range rows {
		items, err := arrayOf(row, "status report row", 2)
		if err != nil {
			return nil, err
		}
		id := p.messageID(items[0], "messageId")
		if id == nil {
			p.fail(CodeMessageID, "messageId", "null")
		}
		status := p.uint(items[1], "status", CodeRange, 255)
		if p.err != nil {
			return nil, p.err
		}
		report[i] = MessageStatus{*id, Status(status)}
	}
	return report, nil
}
