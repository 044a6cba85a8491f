package mls

import "github.com/privyseal/privyseal/internal/tlsvec"

// confirmedTranscript is the confirmed transcript hash after a commit
// (section 8.2).
//
//	struct {
//	    WireFormat wire_format;
//	    FramedContent content; /* with content_type == commit */
//	    opaque signature<V>;
//	} ConfirmedTranscriptHashInput;
func (s *suite) confirmedTranscript(interim []byte, m *AuthenticatedContent) []byte {
	b := tlsvec.NewBuilder(len(m.Content.body) + 256)
	b.Uint16(uint16(m.WireFormat))
	m.Content.marshal(b)
	b.Vector(m.Auth.Signature)
	return s.sum(interim, b.Bytes())
}

// interimTranscript adds the confirmation tag.
//
//	struct {
//	    MAC confirmation_tag;
//	} InterimTranscriptHashInput;
func (s *suite) interimTranscript(confirmed, confirmationTag []byte) []byte {
	var b tlsvec.Builder
	b.Vector(confirmationTag)
	return s.sum(confirmed, b.Bytes())
}
