package signer_test

import (
	"encoding/base64"
	"testing"

	"github.com/privyseal/privyseal/signer"
)

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// TestPermits is the table of design: which purpose signs what, and that it
// signs nothing else of the list.
func TestPermits(t *testing.T) {
	type kind struct {
		shape signer.Shape
		typ   string
	}
	const component = "\x0dMLS Component\x00\x21\x04test" // draft-ietf-mls-extensions-10
	kinds := []kind{
		{signer.ShapeCertificate, ""}, {signer.ShapeCRL, ""}, {signer.ShapeOCSP, ""}, {signer.ShapeCSR, ""},
		{signer.ShapeJWS, "dc+sd-jwt"}, {signer.ShapeJWS, "example+sd-jwt"}, {signer.ShapeJWS, "jwt"}, {signer.ShapeJWS, ""},
		{signer.ShapeJWS, "kb+jwt"}, {signer.ShapeJWS, "openid4vci-proof+jwt"}, {signer.ShapeJWS, "statuslist+jwt"}, {signer.ShapeJWS, "dpop+jwt"},
		{signer.ShapeJWS, "credential-export+jwt"}, {signer.ShapeJWS, "key-statement+jwt"},
		{signer.ShapeCOSE, "sd-cwt"}, {signer.ShapeCOSE, "x+sd-cwt"}, {signer.ShapeCOSE, "kb+cwt"}, {signer.ShapeCOSE, "statuslist+cwt"},
		{signer.ShapeMLS, "FramedContentTBS"}, {signer.ShapeMLS, "LeafNodeTBS"}, {signer.ShapeMLS, "KeyPackageTBS"}, {signer.ShapeMLS, "GroupInfoTBS"},
		{signer.ShapeMLS, "KeyMaterialRequestTBS"}, {signer.ShapeMLS, "GroupInfoRequestTBS"}, {signer.ShapeMLS, "GroupInfoResponseTBS"},
		{signer.ShapeMLS, "CredentialBindingTBS"}, {signer.ShapeMLS, "PseudonymousCredentialTBS"}, {signer.ShapeMLS, "FrankingIntegrityTBS"},
		{signer.ShapeMLS, "HubRetractedComponentTBS"}, {signer.ShapeMLS, "HubRetractedRangeComponentTBS"}, {signer.ShapeMLS, component}, {signer.ShapeMLS, "Other"},
		{signer.ShapeTLS13, "server"}, {signer.ShapeTLS13, "client"}, {signer.ShapeCheckpoint, "log"}, {signer.ShapeDigest, ""}, {signer.ShapeUnknown, ""},
	}
	mls := func(labels ...string) (out []kind) {
		for _, l := range labels {
			out = append(out, kind{signer.ShapeMLS, l})
		}
		return out
	}
	csr := kind{signer.ShapeCSR, ""}
	holder := []kind{csr, {signer.ShapeJWS, "kb+jwt"}, {signer.ShapeJWS, "openid4vci-proof+jwt"}, {signer.ShapeCOSE, "kb+cwt"}}
	want := map[signer.Purpose][]kind{
		signer.PurposeX509CA: {{signer.ShapeCertificate, ""}, {signer.ShapeCRL, ""}, {signer.ShapeOCSP, ""}, csr},
		signer.PurposeCredentialIssuer: {csr, {signer.ShapeJWS, "dc+sd-jwt"}, {signer.ShapeJWS, "example+sd-jwt"}, {signer.ShapeJWS, "jwt"}, {signer.ShapeJWS, ""},
			{signer.ShapeJWS, "credential-export+jwt"}, {signer.ShapeJWS, "key-statement+jwt"}, {signer.ShapeCOSE, "sd-cwt"}, {signer.ShapeCOSE, "x+sd-cwt"}},
		signer.PurposeStatus: {csr, {signer.ShapeOCSP, ""}, {signer.ShapeJWS, "statuslist+jwt"}, {signer.ShapeCOSE, "statuslist+cwt"}},
		signer.PurposeCredentialConfirmation: append(mls("CredentialBindingTBS", "PseudonymousCredentialTBS"),
			holder...),
		signer.PurposeMLSLeaf: append(mls("FramedContentTBS", "LeafNodeTBS", "KeyPackageTBS", "GroupInfoTBS",
			"KeyMaterialRequestTBS", "GroupInfoRequestTBS", "PseudonymousCredentialTBS", component), holder...),
		signer.PurposeMLSInit:       nil,
		signer.PurposeHubSender:     append(mls("FramedContentTBS", "GroupInfoResponseTBS", "HubRetractedComponentTBS", "HubRetractedRangeComponentTBS"), csr),
		signer.PurposeFrankSign:     append(mls("FrankingIntegrityTBS"), csr),
		signer.PurposeFrankMAC:      nil,
		signer.PurposeLogCheckpoint: {{signer.ShapeCheckpoint, "log"}},
		signer.PurposeTLS:           {csr, {signer.ShapeTLS13, "server"}, {signer.ShapeTLS13, "client"}},
		signer.PurposeRaw:           {{signer.ShapeDigest, ""}},
	}
	if len(want) != len(signer.Purposes()) {
		t.Fatalf("the table has %d purposes, there are %d", len(want), len(signer.Purposes()))
	}
	for _, p := range signer.Purposes() {
		allowed := make(map[kind]bool)
		for _, k := range want[p] {
			allowed[k] = true
		}
		for _, k := range kinds {
			if got := p.Permits(k.shape, k.typ); got != allowed[k] {
				t.Errorf("%s permits %s %q: %v, want %v", p, k.shape, k.typ, got, allowed[k])
			}
		}
	}
}

// TestDigestNeedsRaw shows that no other purpose has a row for digests.
func TestDigestNeedsRaw(t *testing.T) {
	for p, rows := range signer.Permits {
		if p != signer.PurposeRaw && p.Permits(signer.ShapeDigest, "") {
			t.Errorf("%s signs digests", p)
		}
		if len(rows) == 0 {
			t.Errorf("%s has an empty row", p)
		}
	}
}

func TestPurposeAlgorithms(t *testing.T) {
	for _, p := range signer.Purposes() {
		if got, err := signer.ParsePurpose(string(p)); err != nil || got != p {
			t.Errorf("ParsePurpose(%s) = %s, %v", p, got, err)
		}
		if p.DefaultAlgorithm().Use() != p.Use() {
			t.Errorf("%s: default algorithm %s cannot %s", p, p.DefaultAlgorithm(), p.Use())
		}
	}
	if _, err := signer.ParsePurpose("anything"); err == nil {
		t.Error("an unknown purpose was accepted")
	}
	for _, a := range signer.Algorithms() {
		if (a.Scheme() != nil) != (a.Use() == signer.UseSign) {
			t.Errorf("%s has scheme %v and use %s", a, a.Scheme(), a.Use())
		}
	}
	if a, err := signer.ParseAlgorithm("p-256"); err != nil || a != signer.P256 {
		t.Errorf("p-256 = %s, %v", a, err)
	}
}
