package tpm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// A KeySpec says what key to make. Its zero value is a P-256 signing key with
// a random authorization value.
type KeySpec struct {
	Kind Kind

	// Auth is the authorization value; one is drawn if it is empty.
	Auth Auth

	// NoAuth makes a key that anybody who reaches the TPM may use.
	NoAuth bool

	// PCRs binds the key to the values that these PCRs of the SHA-256 bank
	// have when the key is made.
	PCRs []int
}

// A Key is a key in a TPM, loaded when it is needed. It may be used by any
// number of goroutines at once. Two *Key are the same key if their Names are
// equal.
type Key struct {
	d        *Device
	object   *object
	kind     Kind
	public   *ecdsa.PublicKey // nil for a MAC key
	auth     Auth
	policy   policy
	creation *creation // what TPM2_Create said, for a key made by this Device
}

// creation is the TPM's record of how a key came to be (Part 1, 30.6).
type creation struct {
	data   []byte // TPMS_CREATION_DATA
	hash   []byte
	ticket tpm2.TPMTTKCreation
}

// GenerateKey makes a key under the storage root key. It is nowhere but in the
// value returned until it is saved (SaveKeyFile, Key.File) or made persistent
// (Persist).
func (d *Device) GenerateKey(ctx context.Context, spec KeySpec) (*Key, error) {
	auth := spec.Auth
	if auth.IsEmpty() && !spec.NoAuth {
		auth = RandomAuth()
	}
	selection, err := newPCRSelection(spec.PCRs)
	if err != nil {
		return nil, d.inputError(err, "")
	}
	return perform(ctx, d, func(ctx context.Context, a *attachment) (*Key, error) {
		p, digest, err := a.bindPolicy(ctx, selection, !auth.IsEmpty())
		if err != nil {
			return nil, err
		}
		template, err := spec.Kind.template(digest)
		if err != nil {
			return nil, d.inputError(err, "")
		}
		return d.create(ctx, a, template, auth, p)
	})
}

func (d *Device) create(ctx context.Context, a *attachment, template tpm2.TPMTPublic, auth Auth, p policy) (*Key, error) {
	sessions, giveBack, err := a.borrow(ctx, 1)
	if err != nil {
		return nil, err
	}
	defer giveBack()
	l, err := a.slots.lease(ctx, 1, a.srk)
	if err != nil {
		return nil, err
	}
	defer l.release()
	rsp, err := run(a, tpm2.Create{
		ParentHandle: l.authHandle(0, sessions[0].with(nil, inOut)),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: auth.Bytes()},
		}},
		InPublic: tpm2.New2B(template),
	})
	if err != nil {
		return nil, err
	}
	o, err := a.created(template, rsp)
	if err != nil {
		return nil, err
	}
	k, err := d.newKey(o, auth, p)
	if err != nil {
		return nil, err
	}
	k.creation = &creation{
		data:   bytes.Clone(rsp.CreationData.Bytes()),
		hash:   bytes.Clone(rsp.CreationHash.Buffer),
		ticket: rsp.CreationTicket,
	}
	return k, nil
}

// created checks that the TPM made what it was asked for.
func (a *attachment) created(template tpm2.TPMTPublic, rsp *tpm2.CreateResponse) (*object, error) {
	public, name, err := readPublicArea(rsp.OutPublic.Bytes())
	if err != nil {
		return nil, a.malformed("TPM2_Create", "%v", err)
	}
	same := *public
	same.Unique = template.Unique
	if !bytes.Equal(marshalWithoutUnique(same), marshalWithoutUnique(template)) {
		return nil, a.malformed("TPM2_Create", "another kind of key than was asked for")
	}
	if len(rsp.OutPrivate.Buffer) == 0 {
		return nil, a.malformed("TPM2_Create", "no private area")
	}
	hash := sha256.Sum256(rsp.CreationData.Bytes())
	if !bytes.Equal(hash[:], rsp.CreationHash.Buffer) {
		return nil, a.malformed("TPM2_Create", "a creation hash that is not that of the creation data")
	}
	return &object{public: public, name: *name, private: rsp.OutPrivate.Buffer, parent: a.srk}, nil
}

// marshalWithoutUnique encodes what a template fixes.
func marshalWithoutUnique(t tpm2.TPMTPublic) []byte {
	t.Unique = tpm2.TPMUPublicID{}
	return tpm2.Marshal(t)
}

// newKey makes a Key of an object, which must be of a kind we can use.
func (d *Device) newKey(o *object, auth Auth, p policy) (*Key, error) {
	k := &Key{d: d, object: o, kind: kindOf(o.public), auth: auth, policy: p}
	switch k.kind {
	case kindOther:
		return nil, d.inputError(ErrKeyUse, "it is neither an ECDSA, ECDH nor HMAC-SHA256 key")
	case MACSHA256:
		return k, nil
	}
	var err error
	if k.public, err = publicKey(o.public); err != nil {
		return nil, d.inputError(ErrWrongKey, "%v", err)
	}
	return k, nil
}

// Kind returns what the key is for.
func (k *Key) Kind() Kind { return k.kind }

// Name returns the TPM's Name of the key: the name algorithm and the digest of
// the public area (Part 1, 16).
func (k *Key) Name() []byte { return bytes.Clone(k.object.name.Buffer) }

// PublicArea returns the encoded TPMT_PUBLIC.
func (k *Key) PublicArea() []byte { return tpm2.Marshal(*k.object.public) }

// Auth returns the authorization value of the key.
func (k *Key) Auth() Auth { return k.auth }

// Public returns an *ecdsa.PublicKey, or nil for a MAC key.
func (k *Key) Public() crypto.PublicKey {
	if k.public == nil {
		return nil
	}
	return k.public
}

// String names the key by its kind and the start of its Name.
func (k *Key) String() string {
	return fmt.Sprintf("tpm key %s %s", k.kind, hex.EncodeToString(k.object.name.Buffer[2:10]))
}

// Attributes are what the TPM enforces about a key (Part 2, 8.3).
type Attributes struct {
	FixedTPM            bool `json:"fixedTPM"`            // cannot leave this TPM
	FixedParent         bool `json:"fixedParent"`         // cannot move to another parent
	SensitiveDataOrigin bool `json:"sensitiveDataOrigin"` // the TPM drew the private key
	UserWithAuth        bool `json:"userWithAuth"`        // the authorization value alone permits use
	NoDA                bool `json:"noDA"`                // failures do not count towards lockout
	Restricted          bool `json:"restricted"`          // signs or decrypts what the TPM made only
	Sign                bool `json:"sign"`
	Decrypt             bool `json:"decrypt"`
}

// Attributes returns the attributes of the key.
func (k *Key) Attributes() Attributes { return attributesOf(k.object.public) }

func attributesOf(public *tpm2.TPMTPublic) Attributes {
	a := public.ObjectAttributes
	return Attributes{
		FixedTPM: a.FixedTPM, FixedParent: a.FixedParent, SensitiveDataOrigin: a.SensitiveDataOrigin,
		UserWithAuth: a.UserWithAuth, NoDA: a.NoDA, Restricted: a.Restricted,
		Sign: a.SignEncrypt, Decrypt: a.Decrypt,
	}
}

// Close frees the slot that the key may occupy. It can still be used
// afterwards, at the price of being loaded again.
func (k *Key) Close() error {
	if a, err := k.d.attachment(); err != nil || a == nil || k.object.isPersistent() {
		return nil // nothing is loaded
	}
	_, err := perform(context.Background(), k.d, func(_ context.Context, a *attachment) (struct{}, error) {
		return struct{}{}, a.slots.forget(k.object)
	})
	return err
}

// authorize prepares the authorization of one command by the key: an HMAC
// session, or the policy session with the key's policy satisfied.
func (k *Key) authorize(ctx context.Context, a *attachment, d direction) (tpm2.Session, func(), error) {
	if len(k.policy) > 0 {
		return k.authorizeByPolicy(ctx, a, d)
	}
	if k.d.config.PlainSessions {
		return tpm2.PasswordAuth(k.auth.Bytes()), func() {}, nil
	}
	sessions, giveBack, err := a.borrow(ctx, 1)
	if err != nil {
		return nil, nil, err
	}
	return sessions[0].with(k.auth.Bytes(), d), giveBack, nil
}

// withKey authorizes and loads the key and runs f, which executes the command
// on the handle it is given.
func withKey[T any](ctx context.Context, k *Key, d direction, f func(*attachment, tpm2.AuthHandle) (T, error)) (T, error) {
	return withKeyAndSlots(ctx, k, d, func(*attachment) int { return 0 }, f)
}

// withKeyAndSlots is withKey for a command that makes so many objects of its own.
func withKeyAndSlots[T any](ctx context.Context, k *Key, d direction, extra func(*attachment) int, f func(*attachment, tpm2.AuthHandle) (T, error)) (T, error) {
	return perform(ctx, k.d, func(ctx context.Context, a *attachment) (T, error) {
		var zero T
		session, giveBack, err := k.authorize(ctx, a, d)
		if err != nil {
			return zero, err
		}
		defer giveBack()
		l, err := a.slots.lease(ctx, extra(a), k.object)
		if err != nil {
			return zero, err
		}
		defer l.release()
		return f(a, l.authHandle(0, session))
	})
}
