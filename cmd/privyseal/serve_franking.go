package main

import (
	"context"
	"fmt"
	"time"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mimi/hub/provider"
	"github.com/privyseal/privyseal/mls"
	"github.com/privyseal/privyseal/signer"
)

// A FrankKeyBefore is a franking key that another has replaced. Rooms are franked
// with it until their members have committed the new one, and franks that it has
// made may be reported.
type FrankKeyBefore struct {
	FrankKey         signer.KeyID `json:"frank_key"` // purpose frank-sign
	FrankCertificate string       `json:"frank_certificate"`
	// Until is when the key made its last frank, RFC 3339: it vouches for nothing
	// later. Without it the key is still in use.
	Until string `json:"until,omitempty"`
}

// A MACKeyBefore is a MAC key that another has replaced.
type MACKeyBefore struct {
	MACKey signer.KeyID `json:"mac_key"` // purpose frank-mac
	// Until is when the other took its place, RFC 3339: it vouches for nothing
	// later. Required.
	Until string `json:"until"`
}

// untilTime reads when a key ceased to make franks, in milliseconds.
func untilTime(s string) (uint64, error) {
	if s == "" {
		return mimi.MaxTimestamp, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UnixMilli() < 0 {
		return 0, fmt.Errorf("until %q is no time such as 2026-11-28T06:00:00Z", s)
	}
	return uint64(t.UnixMilli()), nil
}

func (p *ProviderSection) checkFranking(at string) error {
	for i, k := range p.MACKeysBefore {
		if _, err := untilTime(k.Until); err != nil || k.Until == "" || k.MACKey == "" || k.MACKey == p.MACKey {
			return configErrorf(fmt.Sprintf("%s.mac_keys_before[%d]", at, i), "needs a mac_key other than the one in force, and until when it was that, in RFC 3339")
		}
	}
	for i := range p.Keys {
		for j, k := range p.Keys[i].Before {
			if _, err := untilTime(k.Until); err != nil || k.FrankKey == "" || k.FrankCertificate == "" || k.FrankKey == p.Keys[i].FrankKey {
				return configErrorf(fmt.Sprintf("%s.keys[%d].before[%d]", at, i, j), "needs a frank_key other than the one in force, with its frank_certificate; until is in RFC 3339")
			}
		}
	}
	return nil
}

// franksBefore adds to keys, and to those that verify reports, what other keys
// made before.
func (p *providerComponent) franksBefore(ctx context.Context, k *ProviderKeys, keys *provider.Keys, franks *mimi.FrankingKeys) error {
	ctx, suite := context.WithoutCancel(ctx), mls.CipherSuite(k.Suite)
	for _, old := range k.Before {
		until, err := untilTime(old.Until)
		if err != nil {
			return err
		}
		key, err := p.wiring.ring.Signer(ctx, old.FrankKey, signer.PurposeFrankSign)
		if err != nil {
			return fmt.Errorf("the franking key of before: %w", err)
		}
		public, _, err := p.hubCredential(old.FrankCertificate, key, suite)
		if err != nil {
			return err
		}
		keys.Before = append(keys.Before, provider.FrankKey{Public: public, Signer: key})
		franks.AddSignatureKey(0, until, suite, public)
	}
	return nil
}

// macsBefore adds the MAC keys of before to those that verify reports.
func (p *providerComponent) macsBefore(ctx context.Context, franks *mimi.FrankingKeys) error {
	for _, old := range p.config.MACKeysBefore {
		until, err := untilTime(old.Until)
		if err != nil {
			return err
		}
		mac, err := p.wiring.ring.MAC(context.WithoutCancel(ctx), old.MACKey, signer.PurposeFrankMAC)
		if err != nil {
			return fmt.Errorf("the MAC key of before: %w", err)
		}
		franks.AddMAC(0, until, mac)
	}
	return nil
}
