package mimi

import (
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

const (
	maxAbuseNote     = 16 << 10
	maxAbuseMessages = 64
	maxAbuseContent  = 2 << 20 // one message with its framing
)

// An AbuseType is the kind of an alleged abuse. The draft has no list of them:
// 0 is sent, and any value is kept.
//
//	enum { reserved(0), (255) } AbuseType;
type AbuseType uint8

// An AbusiveMessage is a message that its hub can recognise by its frank.
//
//	struct {
//	    opaque message_content<V>;
//	    Frank frank;
//	    uint64 accepted_timestamp;
//	} AbusiveMessage;
//
// The franking tag is over MLS application_data, so that is what
// message_content holds: with ApplicationFraming where the room uses it.
type AbusiveMessage struct {
	MessageContent    []byte // exactly the octets that were decrypted
	Frank             Frank
	AcceptedTimestamp uint64 // as fanned out
}

func (m *AbusiveMessage) append(b *tlsvec.Builder) {
	b.Vector(m.MessageContent)
	m.Frank.append(b)
	b.Uint64(m.AcceptedTimestamp)
}

func readAbusiveMessage(r *tlsvec.Reader) (m AbusiveMessage) {
	m.MessageContent = readBounded(r, "message_content", maxAbuseContent)
	m.Frank.read(r)
	m.AcceptedTimestamp = r.Uint64()
	return m
}

// An AbuseReport shows messages to the hub that accepted them (section 5.9).
// An answer says that it was received, not what came of it.
//
//	struct {
//	    IdentifierUri reportingUser;
//	    IdentifierUri allegedAbuserUri;
//	    AbuseType reasonCode;
//	    opaque note<V>;
//	    AbusiveMessage messages<V>;
//	    AppDataDictionary abuse_extensions;
//	} AbuseReport;
type AbuseReport struct {
	ReportingUser    URI // zero if the reporter is not named
	AllegedAbuserURI URI
	ReasonCode       AbuseType
	Note             string
	Messages         []AbusiveMessage
	Extensions       mls.AppDataDictionary
}

func (a *AbuseReport) append(b *tlsvec.Builder) {
	appendURI(b, a.ReportingUser)
	appendURI(b, a.AllegedAbuserURI)
	b.Uint8(uint8(a.ReasonCode))
	b.String(a.Note)
	appendList(b, a.Messages, func(b *tlsvec.Builder, m AbusiveMessage) { m.append(b) })
	appendDictionary(b, a.Extensions)
}

func (a *AbuseReport) read(r *tlsvec.Reader) {
	a.ReportingUser = readURIOrNone(r, KindUser, KindPseudonym)
	a.AllegedAbuserURI = readUser(r)
	a.ReasonCode = AbuseType(r.Uint8())
	a.Note = readNote(r, "note", maxAbuseNote)
	a.Messages = readList(r, "messages", maxAbuseMessages, readAbusiveMessage)
	a.Extensions = readDictionary(r)
}

// Marshal returns the report's encoding.
func (a *AbuseReport) Marshal() []byte { return marshal(a) }

// ParseAbuseReport decodes a report. Each message is judged by
// FrankingKeys.VerifyReport; one that does not stand voids no other.
func ParseAbuseReport(b []byte) (*AbuseReport, error) {
	a := new(AbuseReport)
	return a, parse("AbuseReport", b, a)
}
