package main

import (
	"context"
	"crypto/hpke"

	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// receiverKeys are the keys with which the hub reads SemiPrivateMessages, by
// their public keys. They are in devices.
type receiverKeys map[string]*signer.KeyExchanger

// find implements mls.ReceiverKeyFunc.
func (r receiverKeys) find(ctx context.Context, public []byte) (hpke.PrivateKey, error) {
	x := r[string(public)]
	if x == nil {
		return nil, nil
	}
	return hpke.NewDHKEMPrivateKey(x.WithContext(ctx))
}

// receiver is the hub's entry in external_receivers, nil if it has no key for
// one. Its credential is that of the sender key.
func (p *providerComponent) receiver(ctx context.Context, k *ProviderKeys, keys *provider.Keys, all receiverKeys) (*mls.ExternalReceiver, error) {
	if k.ReceiverKey == "" {
		return nil, nil
	}
	x, err := p.wiring.ring.KeyExchanger(context.WithoutCancel(ctx), k.ReceiverKey, signer.PurposeMLSInit)
	if err != nil {
		return nil, err
	}
	if _, err := hpke.NewDHKEMPrivateKey(x); err != nil {
		return nil, err
	}
	public := x.PublicKey().Bytes()
	all[string(public)] = x
	return &mls.ExternalReceiver{PublicKey: public, Credential: keys.Sender.Credential}, nil
}
