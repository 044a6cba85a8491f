package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/signer/access"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	"github.com/privyseal/privyseal/signer/service"
)

type callers struct{ h *handler }

func (a callers) Enroll(ctx context.Context, r *connect.Request[signerv1.EnrollRequest]) (*connect.Response[signerv1.Certificate], error) {
	issued, err := a.h.c.Authority.Enroll(ctx, r.Msg.GetToken(), r.Msg.GetCsr())
	return a.certificate(ctx, issued, err)
}

func (a callers) Renew(ctx context.Context, r *connect.Request[signerv1.RenewRequest]) (*connect.Response[signerv1.Certificate], error) {
	issued, err := a.h.c.Authority.Renew(ctx, caller(ctx), r.Msg.GetCsr())
	return a.certificate(ctx, issued, err)
}

func (a callers) certificate(ctx context.Context, i *access.Issued, err error) (*connect.Response[signerv1.Certificate], error) {
	if err != nil {
		return nil, a.h.fail(ctx, err)
	}
	return connect.NewResponse(&signerv1.Certificate{Chain: i.Chain, NotAfter: timestamp(i.NotAfter), RenewAfter: timestamp(i.RenewAfter)}), nil
}

func (a callers) WhoAmI(ctx context.Context, _ *connect.Request[signerv1.WhoAmIRequest]) (*connect.Response[signerv1.Caller], error) {
	return connect.NewResponse(viewCaller(caller(ctx))), nil
}

func viewCaller(c *access.Caller) *signerv1.Caller {
	out := &signerv1.Caller{Tenant: c.Tenant, Name: c.Name, Role: string(c.Role), State: string(c.State),
		CreateTime: timestamp(c.Created), NotAfter: timestamp(c.NotAfter)}
	for _, g := range c.Grants {
		grant := &signerv1.Grant{Key: g.Key}
		for _, u := range g.Uses {
			grant.Uses = append(grant.Uses, string(u))
		}
		out.Grants = append(out.Grants, grant)
	}
	return out
}

// need refuses a caller that has none of the roles.
func need(ctx context.Context, roles ...access.Role) error {
	if c := caller(ctx); !c.Is(roles...) {
		return &service.Forbidden{Why: fmt.Sprintf("caller %s has role %s; this needs %v", c.Name, c.Role, roles)}
	}
	return nil
}

func (a callers) InviteCaller(ctx context.Context, r *connect.Request[signerv1.InviteCallerRequest]) (*connect.Response[signerv1.InviteCallerResponse], error) {
	if err := need(ctx, access.Admin); err != nil {
		return nil, a.h.fail(ctx, err)
	}
	m := r.Msg
	in := access.Invitation{Tenant: caller(ctx).Tenant, Name: m.GetName(), Role: access.Role(m.GetRole()), Lifetime: lifetime(m.GetLifetimeSeconds())}
	for _, g := range m.GetGrants() {
		grant := access.Grant{Key: g.GetKey()}
		for _, u := range g.GetUses() {
			grant.Uses = append(grant.Uses, access.Use(u))
		}
		in.Grants = append(in.Grants, grant)
	}
	token, expires, err := a.h.c.Access.Invite(ctx, in)
	if err != nil {
		return nil, a.h.fail(ctx, err)
	}
	root, err := a.h.c.Authority.Root(ctx)
	if err != nil {
		return nil, a.h.fail(ctx, err)
	}
	a.h.c.Log.InfoContext(ctx, "a caller was invited", "tenant", in.Tenant, "name", in.Name, "role", in.Role, "by", caller(ctx).Name)
	sum := sha256.Sum256(root.Raw)
	return connect.NewResponse(&signerv1.InviteCallerResponse{Token: token.Reveal(), ExpireTime: timestamp(expires), CaSha256: sum[:]}), nil
}

// lifetime keeps a number of seconds from overflowing; Invite refuses it then.
func lifetime(seconds int64) time.Duration {
	if seconds < 0 || seconds > 1<<31 {
		return -1
	}
	return time.Duration(seconds) * time.Second
}

func (a callers) ListCallers(ctx context.Context, _ *connect.Request[signerv1.ListCallersRequest]) (*connect.Response[signerv1.ListCallersResponse], error) {
	if err := need(ctx, access.Admin, access.Auditor); err != nil {
		return nil, a.h.fail(ctx, err)
	}
	all, err := a.h.c.Access.Callers(ctx, caller(ctx).Tenant)
	out := &signerv1.ListCallersResponse{}
	for _, c := range all {
		out.Callers = append(out.Callers, viewCaller(c))
	}
	return answer(ctx, a.h, out, err)
}

func (a callers) RevokeCaller(ctx context.Context, r *connect.Request[signerv1.RevokeCallerRequest]) (*connect.Response[signerv1.Caller], error) {
	if err := need(ctx, access.Admin); err != nil {
		return nil, a.h.fail(ctx, err)
	}
	c, err := a.h.c.Access.Revoke(ctx, caller(ctx).Tenant, r.Msg.GetName(), r.Msg.GetReason())
	if err != nil {
		return nil, a.h.fail(ctx, err)
	}
	a.h.c.Log.InfoContext(ctx, "a caller was revoked", "tenant", c.Tenant, "name", c.Name, "by", caller(ctx).Name)
	return connect.NewResponse(viewCaller(c)), nil
}
