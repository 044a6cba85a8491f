package hub

import (
	"context"
	"crypto/x509"
	"slices"

	"github.com/privyseal/privyseal/mimi"
	"github.com/privyseal/privyseal/mls"
)

// senderHost is the provider that an entry of external_senders names, or "". It
// is not judged: whoever acts by the entry is.
func senderHost(s *mls.ExternalSender) string {
	var names []string
	switch s.Credential.Type {
	case mls.CredentialBasic:
		names = append(names, string(s.Credential.Identity()))
	case mls.CredentialX509:
		chain, err := s.Credential.Certificates()
		if err != nil || len(chain) == 0 {
			return ""
		}
		c, err := x509.ParseCertificate(chain[0])
		if err != nil {
			return ""
		}
		for _, u := range c.URIs {
			names = append(names, u.String())
		}
	}
	for _, name := range names {
		if u, err := mimi.ParseURI(name); err == nil && u.Kind() == mimi.KindProvider {
			return u.Host()
		}
	}
	return ""
}

// Senders returns the entries of external_senders of other providers, by host.
func (r *Room) Senders() map[string][]mls.ExternalSender {
	gc := r.group.Current().Context()
	list, err := gc.Extensions.ExternalSenders()
	if err != nil || len(list) < 2 {
		return nil
	}
	other := make(map[string][]mls.ExternalSender)
	for i := range list {
		if host := senderHost(&list[i]); host != "" && host != r.uri.Host() && !r.ownSender(list[i]) {
			other[host] = append(other[host], list[i])
		}
	}
	return other
}

// Departed returns the providers that external_senders lists whose last
// participant was among users, who are not in the room any more.
func (r *Room) Departed(users []mimi.URI) map[string][]mls.ExternalSender {
	if len(users) == 0 {
		return nil
	}
	senders := r.Senders()
	for host := range senders {
		if r.From(host) || !slices.ContainsFunc(users, func(u mimi.URI) bool { return u.Host() == host }) {
			delete(senders, host)
		}
	}
	return senders
}

// From reports whether users of a provider participate who are not banned.
func (r *Room) From(host string) bool {
	return slices.ContainsFunc(r.state.ParticipantList().Participants, func(p mimi.UserRolePair) bool {
		return p.Role > mimi.RoleBanned && p.User.Host() == host
	})
}

// extending reports whether a GroupContextExtensions proposal is pending. A
// commit can have one.
func (r *Room) extending() bool {
	return slices.ContainsFunc(r.group.PendingProposals(), func(v *mls.VerifiedProposal) bool {
		_, ok := v.Proposal().(*mls.GroupContextExtensions)
		return ok
	})
}

// ProposeSenders proposes, as the hub, to take the entries of providers off
// external_senders that gone lists, and to list those of back
// (draft-ietf-mimi-protocol-06, "Authenticating proposals": the entry of a
// provider goes when its last participant leaves). Without need, or while other
// extensions are being proposed, the outcome has no events.
func (r *Room) ProposeSenders(ctx context.Context, gone []string, back []mls.ExternalSender) (*Outcome, error) {
	gc := r.group.Current().Context()
	list, err := gc.Extensions.ExternalSenders()
	if err != nil || r.extending() {
		return new(Outcome), err
	}
	next := slices.DeleteFunc(slices.Clone(list), func(s mls.ExternalSender) bool {
		return !r.ownSender(s) && slices.Contains(gone, senderHost(&s))
	})
	changed := len(next) < len(list)
	for _, s := range back {
		if !slices.ContainsFunc(next, func(t mls.ExternalSender) bool { return sameSender(&s, &t) }) {
			next, changed = append(next, s), true
		}
	}
	if !changed {
		return new(Outcome), nil
	}
	e := mls.ExternalSendersExtension(next...)
	return r.proposeEvent(ctx, []mls.Proposal{&mls.GroupContextExtensions{Extensions: gc.Extensions.With(e.Type, e.Data)}})
}

func sameSender(a, b *mls.ExternalSender) bool {
	return string(a.SignatureKey) == string(b.SignatureKey) && a.Credential.Equal(&b.Credential)
}
