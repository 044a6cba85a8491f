package main

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"connectrpc.com/connect"

	"github.com/privyseal/privyseal/mimi/client"
	"github.com/privyseal/privyseal/signer"
	signerv1 "github.com/privyseal/privyseal/signer/api/privyseal/signer/v1"
	remote "github.com/privyseal/privyseal/signer/client"
)

// openSigner connects a client of mode remote with its signing service, as the
// caller that was enrolled there. The caller's certificate is renewed until
// done is called.
func openSigner(ctx context.Context, r *clientRecord) (_ *remote.Client, done func(), err error) {
	f := remoteFlags{dir: r.Identity, server: r.Signer}
	c, identity, err := f.open()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	go identity.KeepFresh(ctx, c, func(err error) { slog.Warn("the caller's certificate could not be renewed", "err", err) })
	return c, func() { cancel(); c.Close() }, nil
}

// remoteCustody has signature and init keys of a client in a signing service.
func remoteCustody(ctx context.Context, c *remote.Client, r *clientRecord) (*client.Custody, error) {
	key, err := remoteLeaf(ctx, c, string(r.Key))
	if err != nil {
		return nil, err
	}
	custody := &client.Custody{Mode: r.Mode, Key: key, Rejected: func(ctx context.Context, group []byte, epoch uint64, digest []byte, reason string) error {
		return c.ReportRejected(ctx, string(r.Key), group, epoch, digest, reason)
	}}
	if r.InitKeys {
		custody.Agreements = remoteAgreements{c}
	}
	return custody, nil
}

// remoteLeaf finds the key that signs for a client.
func remoteLeaf(ctx context.Context, c *remote.Client, name string) (*remote.Signer, error) {
	key, err := c.Signer(context.WithoutCancel(ctx), name) // used long after this call
	if err != nil {
		return nil, err
	}
	if p := key.Key().GetPurpose(); p != string(signer.PurposeMLSLeaf) {
		return nil, refusedError{fmt.Errorf("key %s of the signing service has purpose %s, and a client's has %s", name, p, signer.PurposeMLSLeaf)}
	}
	return key, nil
}

// completeRemote checks the options of mode remote.
func (o *registerOptions) completeRemote() (err error) {
	r := &o.record
	if r.Mode != client.Remote {
		if r.Signer != "" || r.Identity != "" {
			return usageError{errors.New("--signer and --identity are for --mode remote")}
		}
		return nil
	}
	o.stateKeyFile = true // no device is here
	f := remoteFlags{dir: r.Identity}
	r.Identity, err = f.folder()
	if err == nil {
		r.Identity, err = filepath.Abs(r.Identity)
	}
	return err
}

// remoteAgreements makes the init keys of a client in a signing service.
type remoteAgreements struct{ c *remote.Client }

func (r remoteAgreements) create(ctx context.Context, name string, purpose signer.Purpose) error {
	_, err := r.c.Keys().CreateKey(ctx, connect.NewRequest(&signerv1.CreateKeyRequest{Name: name, Purpose: string(purpose)}))
	return remote.Explain(err)
}

// Generate implements client.Agreements.
func (r remoteAgreements) Generate(ctx context.Context, name string) (ecdh.KeyExchanger, error) {
	if err := r.create(ctx, name, signer.PurposeMLSInit); err != nil {
		return nil, err
	}
	return r.Open(ctx, name)
}

// Open implements client.Agreements.
func (r remoteAgreements) Open(ctx context.Context, name string) (ecdh.KeyExchanger, error) {
	// The key is used long after this call.
	return r.c.KeyExchanger(context.WithoutCancel(ctx), name)
}

// Destroy implements client.Agreements.
func (r remoteAgreements) Destroy(ctx context.Context, name string) error {
	_, err := r.c.Keys().DestroyKeyVersion(ctx, connect.NewRequest(&signerv1.DestroyKeyVersionRequest{Name: name, Version: 1}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil
	}
	return remote.Explain(err)
}
