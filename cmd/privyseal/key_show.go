package main

import (
	"context"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

// A keyView is a key as key show prints it. It has nothing secret.
type keyView struct {
	ID                  signer.KeyID      `json:"id"`
	Purpose             signer.Purpose    `json:"purpose"`
	Algorithm           signer.Algorithm  `json:"algorithm"`
	Labels              map[string]string `json:"labels"`
	VerifyBeforeRelease bool              `json:"verify_before_release"`
	CreatedAt           time.Time         `json:"created_at"`
	Versions            []versionView     `json:"versions"`
	History             []signer.Event    `json:"history,omitempty"`
}

// A versionView is one version. Evidence is under "claim" or under "proof",
// and the two never share a name.
type versionView struct {
	Version     int                    `json:"version"`
	State       signer.State           `json:"state"`
	Destroying  bool                   `json:"destroying,omitempty"`
	Device      string                 `json:"device"`
	URI         string                 `json:"uri,omitempty"`
	ObjectID    string                 `json:"object_id"`
	KID         string                 `json:"kid,omitempty"` // JWK thumbprint, RFC 7638
	CKT         string                 `json:"ckt,omitempty"` // COSE key thumbprint, RFC 9679
	PEM         string                 `json:"public_key_pem,omitempty"`
	JWK         json.RawMessage        `json:"jwk,omitempty"`
	COSEKey     string                 `json:"cose_key,omitempty"` // hexadecimal
	Claim       *signer.AttributeClaim `json:"claim,omitempty"`
	Proof       *signer.Certification  `json:"proof,omitempty"`
	Weaknesses  []string               `json:"weaknesses,omitempty"`
	CreatedAt   time.Time              `json:"created_at"`
	ActivatedAt time.Time              `json:"activated_at,omitzero"`
	RetiredAt   time.Time              `json:"retired_at,omitzero"`
	DestroyedAt time.Time              `json:"destroyed_at,omitzero"`
}

func newKeyShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a key: its public key, evidence and history; needs no device", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return keyShow(cmd.Context(), a, args[0]) },
	}
}

// keyShow is "privyseal key show".
func keyShow(ctx context.Context, a *app, id string) error {
	return a.withWiring(ctx, func(w *wiring) error {
		key, err := w.store.Key(ctx, signer.KeyID(id))
		if err != nil {
			return err
		}
		v, err := viewKey(key)
		if err != nil {
			return err
		}
		if v.History, err = w.store.History(ctx, key.ID); err != nil {
			return err
		}
		return a.print(v, v.text)
	})
}

// printKey prints a key without its history.
func (a *app) printKey(key *signer.Key) error {
	v, err := viewKey(key)
	if err != nil {
		return err
	}
	return a.print(v, v.text)
}

func viewKey(k *signer.Key) (*keyView, error) {
	view := &keyView{ID: k.ID, Purpose: k.Purpose, Algorithm: k.Algorithm, Labels: k.Labels,
		VerifyBeforeRelease: !k.Unverified, CreatedAt: k.CreatedAt, Versions: []versionView{}}
	for i := range k.Versions {
		v, err := viewVersion(&k.Versions[i])
		if err != nil {
			return nil, err
		}
		view.Versions = append(view.Versions, *v)
	}
	return view, nil
}

func viewVersion(v *signer.Version) (*versionView, error) {
	view := &versionView{Version: v.Number, State: v.State, Destroying: v.Destroying, Device: v.Device, URI: v.URI,
		ObjectID: v.ObjectID.String(), KID: v.KID, CreatedAt: v.CreatedAt, ActivatedAt: v.ActivatedAt,
		RetiredAt: v.RetiredAt, DestroyedAt: v.DestroyedAt}
	if e := v.Evidence; e != nil {
		view.Claim, view.Proof = e.Claim, e.Proof
	}
	if v.URI != "" {
		view.Weaknesses = v.Evidence.Weaknesses()
	}
	if v.Public == nil {
		return view, nil
	}
	return view, view.addPublic(v)
}

// addPublic adds the public key in each encoding that there is for it.
func (view *versionView) addPublic(v *signer.Version) error {
	view.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.Public}))
	pub, err := v.PublicKey()
	if err != nil {
		return err
	}
	jwk, err := signer.JWK(pub)
	if err != nil {
		return err
	}
	view.JWK = jose.AppendJSON(nil, jwk)
	var cose []byte
	if agrees, ok := pub.(*ecdh.PublicKey); ok {
		cose, err = credentials.FormatCOSEAgreementKey(agrees)
	} else {
		cose, err = credentials.FormatCOSEKey(pub)
	}
	if err != nil {
		return err
	}
	ckt := sha256.Sum256(cose) // RFC 9679 section 3: of the required members, deterministically
	view.COSEKey, view.CKT = hex.EncodeToString(cose), base64.RawURLEncoding.EncodeToString(ckt[:])
	return nil
}

func (view *keyView) text(w io.Writer) {
	fmt.Fprintf(w, "key        %s\npurpose    %s\nalgorithm  %s\n", view.ID, view.Purpose, view.Algorithm)
	for _, name := range slices.Sorted(maps.Keys(view.Labels)) {
		fmt.Fprintf(w, "label      %s=%s\n", name, view.Labels[name])
	}
	if !view.VerifyBeforeRelease {
		fmt.Fprintln(w, "warning    signatures are released without being verified first")
	}
	for i := range view.Versions {
		view.Versions[i].text(w)
	}
	for _, e := range view.History {
		fmt.Fprintf(w, "%s  version %d  %s  %s\n", e.At.Format(time.RFC3339), e.Version, e.Event, e.Detail)
	}
}

func (v *versionView) text(w io.Writer) {
	fmt.Fprintf(w, "\nversion    %d, %s\ndevice     %s\n", v.Version, v.State, v.Device)
	for _, f := range [][2]string{{"uri", v.URI}, {"kid", v.KID}, {"ckt", v.CKT}} {
		if f[1] != "" {
			fmt.Fprintf(w, "%-9s  %s\n", f[0], f[1])
		}
	}
	v.evidence(w)
	if v.PEM != "" {
		fmt.Fprint(w, v.PEM)
	}
}

// evidence says what is known, and whose word it is.
func (v *versionView) evidence(w io.Writer) {
	switch {
	case v.Proof != nil:
		fmt.Fprintf(w, "proof      %s by attestation key %s: %s\n", v.Proof.Format, clip(v.Proof.AttestationKey), strings.Join(set(
			"fixedTPM", v.Proof.FixedTPM, "fixedParent", v.Proof.FixedParent, "sensitiveDataOrigin", v.Proof.SensitiveDataOrigin), ", "))
		fmt.Fprintln(w, "           (signed by the TPM and verified; that the TPM is genuine is for its endorsement certificate to prove)")
	case v.Claim != nil:
		fmt.Fprintf(w, "claim      %s\n", strings.Join(set("sensitive", v.Claim.Sensitive, "always sensitive", v.Claim.AlwaysSensitive,
			"not extractable", !v.Claim.Extractable, "never extractable", v.Claim.NeverExtractable, "made in the token", v.Claim.Local), ", "))
		fmt.Fprintln(w, "           (the module's own word about its object; it proves nothing)")
	case v.URI != "":
		fmt.Fprintln(w, "evidence   none")
	}
	for _, weak := range v.Weaknesses {
		fmt.Fprintf(w, "weak       %s\n", weak)
	}
}

// set returns the names that are followed by true.
func set(pairs ...any) (names []string) {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			names = append(names, pairs[i].(string))
		}
	}
	if names == nil {
		return []string{"none of the attributes"}
	}
	return names
}

func clip(s string) string {
	if len(s) > 20 {
		return s[:20] + "…"
	}
	return s
}
