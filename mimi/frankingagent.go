package mimi

import (
	"github.com/privyseal/privyseal/internal/tlsvec"
	"github.com/privyseal/privyseal/mls"
)

// A FrankingAgent is the value of the component franking_agent (0x0021,
// section 5.4.1): the key under which the hub's franks verify, and the
// credential that says that it is the hub's.
//
//	struct {
//	    SignaturePublicKey franking_signature_key;
//	    Credential credential;
//	} FrankingAgentData;
type FrankingAgent struct {
	SignatureKey []byte // of the scheme of the group's cipher suite
	Credential   mls.Credential
}

func (a *FrankingAgent) append(b *tlsvec.Builder) {
	b.Vector(a.SignatureKey)
	appendCredential(b, a.Credential)
}

func (a *FrankingAgent) read(r *tlsvec.Reader) {
	a.SignatureKey = readBounded(r, "franking_signature_key", maxPublicKey)
	a.Credential = readCredential(r)
}

// Marshal returns the component's value.
func (a *FrankingAgent) Marshal() []byte { return marshal(a) }

// ParseFrankingAgent decodes the component's value.
func ParseFrankingAgent(b []byte) (*FrankingAgent, error) {
	a := new(FrankingAgent)
	return a, parse("FrankingAgent", b, a)
}
