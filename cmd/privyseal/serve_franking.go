package main

import (
	"context"
	"fmt"
	"slices"
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
func (p *providerComponent) macsBefore(ctx context.Context, section *ProviderSection, franks *mimi.FrankingKeys) error {
	for _, old := range section.MACKeysBefore {
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

// reloadFranking reads which keys frank from the configuration as it is in its
// file now. The hub's other keys wait for a restart.
func (p *providerComponent) reloadFranking(ctx context.Context) (apply func(), err error) {
	if p.deps.reread == nil {
		return func() {}, nil
	}
	c, err := p.deps.reread()
	if err != nil {
		return nil, err
	}
	if c.Serve == nil || c.Serve.Provider == nil {
		return func() {}, nil
	}
	next, changed := p.config.withFranking(c.Serve.Provider)
	if !changed {
		return func() {}, nil
	}
	if err := p.config.checkSuccession(next, time.Now()); err != nil {
		return nil, err
	}
	secrets, err := p.secrets(ctx, next, make(receiverKeys))
	if err != nil {
		return nil, err
	}
	return func() {
		p.config.Keys, p.config.MACKey, p.config.MACKeysBefore = next.Keys, next.MACKey, next.MACKeysBefore
		p.service.Rekey(*secrets)
		p.deps.log.Info("the franking keys were read again; rooms get a new one when a member commits it")
	}, nil
}

// withFranking is the section with the franking keys of another, and whether they
// differ.
func (p *ProviderSection) withFranking(other *ProviderSection) (*ProviderSection, bool) {
	next := *p
	next.MACKey, next.MACKeysBefore = other.MACKey, other.MACKeysBefore
	changed := p.MACKey != next.MACKey || !slices.Equal(p.MACKeysBefore, next.MACKeysBefore)
	next.Keys = slices.Clone(p.Keys)
	for i := range next.Keys {
		k := &next.Keys[i]
		at := slices.IndexFunc(other.Keys, func(o ProviderKeys) bool { return o.Suite == k.Suite })
		if at < 0 {
			continue // to take no rooms of a suite any more takes a restart
		}
		o := &other.Keys[at]
		changed = changed || k.FrankKey != o.FrankKey || k.FrankCertificate != o.FrankCertificate || !slices.Equal(k.Before, o.Before)
		k.FrankKey, k.FrankCertificate, k.Before = o.FrankKey, o.FrankCertificate, o.Before
	}
	return &next, changed
}

// checkSuccession refuses keys in the place of which what was franked a moment
// before could not be verified, or rooms not be franked.
func (p *ProviderSection) checkSuccession(next *ProviderSection, now time.Time) error {
	const at = "serve.provider"
	stands := func(until string) bool {
		end, err := untilTime(until)
		return err == nil && end > uint64(now.UnixMilli())
	}
	if p.MACKey != next.MACKey && !slices.ContainsFunc(next.MACKeysBefore, func(k MACKeyBefore) bool { return k.MACKey == p.MACKey && stands(k.Until) }) {
		return configErrorf(at+".mac_keys_before", "needs mac_key %s, which franks until this moment, with an until that is yet to come", p.MACKey)
	}
	for i, k := range p.Keys {
		if o := &next.Keys[i]; k.FrankKey != o.FrankKey && !slices.ContainsFunc(o.Before, func(b FrankKeyBefore) bool { return b.FrankKey == k.FrankKey && stands(b.Until) }) {
			return configErrorf(fmt.Sprintf("%s.keys[%d].before", at, i), "needs frank_key %s, which rooms have until their members commit the next, without until", k.FrankKey)
		}
	}
	return nil
}
