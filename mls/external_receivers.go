package mls

import (
	"bytes"
	"context"
	"crypto/hpke"
	"errors"
	"fmt"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// An ExternalReceiver reads the group's handshakes without being a member
// (draft-mahy-mls-semiprivatemessage-07, section 3).
//
//	struct {
//	  HPKEPublicKey external_receiver_public_key;
//	  Credential credential;
//	} ExternalReceiver;
type ExternalReceiver struct {
	PublicKey  []byte
	Credential Credential
}

func (e *ExternalReceiver) marshal(b *tlsvec.Builder) {
	b.Vector(e.PublicKey)
	e.Credential.marshal(b)
}

func (e *ExternalReceiver) unmarshal(r *tlsvec.Reader) {
	e.PublicKey = r.Vector()
	e.Credential.unmarshal(r)
}

// ref is the ExternalReceiverRef.
func (e *ExternalReceiver) ref(s *suite) []byte { return s.sum(encode(e)) }

// maxExternalReceivers bounds what one handshake costs its sender.
const maxExternalReceivers = 32

// ExternalReceiversExtension encodes a list of receivers for a GroupContext.
//
//	ExternalReceiver external_receivers<V>;
func ExternalReceiversExtension(receivers ...ExternalReceiver) Extension {
	var b tlsvec.Builder
	b.Nested(func(b *tlsvec.Builder) {
		for i := range receivers {
			receivers[i].marshal(b)
		}
	})
	return Extension{ExtensionExternalReceivers, b.Bytes()}
}

// ExternalReceivers decodes external_receivers, the extension or the component
// (see ComponentExternalReceivers); absent is empty.
func (e Extensions) ExternalReceivers() ([]ExternalReceiver, error) {
	data, ok := e.Find(ExtensionExternalReceivers)
	if ComponentExternalReceivers != 0 {
		d, err := e.AppData()
		if err != nil {
			return nil, err
		}
		data, ok = d.Find(ComponentExternalReceivers)
	}
	if !ok {
		return nil, nil
	}
	return parseExternalReceivers(data)
}

// updateReceivers replaces the component.
func updateReceivers(c *ComponentCall) ([]byte, error) {
	if len(c.Inputs) != 1 {
		return nil, errors.New("several updates replace the same data")
	}
	list, err := parseExternalReceivers(c.Inputs[0].Data)
	if err != nil {
		return nil, err
	}
	return c.Inputs[0].Data, checkReceivers(c.base.suite, list)
}

func parseExternalReceivers(data []byte) ([]ExternalReceiver, error) {
	var list []ExternalReceiver
	r := tlsvec.NewReader(data)
	r.Each(func(r *tlsvec.Reader) {
		var x ExternalReceiver
		x.unmarshal(r)
		if list = append(list, x); len(list) > maxExternalReceivers {
			r.Fail(fmt.Sprintf("more than %d external receivers", maxExternalReceivers))
		}
	})
	if err := r.Done(); err != nil {
		return nil, &ParseError{"external_receivers", err}
	}
	return list, nil
}

// checkReceivers refuses receivers to whom nobody could encrypt.
func (e Extensions) checkReceivers(s *suite) error {
	list, err := e.ExternalReceivers()
	if err != nil {
		return brokenBy(RuleExternalReceivers, err, "external_receivers")
	}
	return checkReceivers(s, list)
}

func checkReceivers(s *suite, list []ExternalReceiver) error {
	for i := range list {
		if err := s.checkPublicKey(list[i].PublicKey); err != nil {
			return brokenBy(RuleExternalReceivers, err, "external receiver %d", i)
		}
		for j := range list[:i] {
			if bytes.Equal(list[i].PublicKey, list[j].PublicKey) {
				return broken(RuleExternalReceivers, "external receivers %d and %d have one key", j, i)
			}
		}
	}
	return nil
}

// A ReceiverKeyFunc finds the HPKE private key of an external receiver, which
// a device may hold, by its public key. It returns nil for keys of others.
type ReceiverKeyFunc func(ctx context.Context, publicKey []byte) (hpke.PrivateKey, error)

func (f ReceiverKeyFunc) find(ctx context.Context, publicKey []byte) (hpke.PrivateKey, error) {
	if f == nil {
		return nil, nil
	}
	return f(ctx, publicKey)
}
