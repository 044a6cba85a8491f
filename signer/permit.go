package signer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/privyseal/privyseal/internal/tlsvec"
)

// A permit is one row of what a purpose may sign: a shape, and the types
// within it. No types means all.
type permit struct {
	shape Shape
	types []string
	match func(typ string) bool // nil, or in addition to types
}

// permits is purpose by shape. A CSR is a proof of possession of the key for
// itself (ParseRequest sees to that), so every key that may get a certificate
// has it. The purposes without a row sign nothing.
var permits = map[Purpose][]permit{
	PurposeX509CA: {{shape: ShapeCertificate}, {shape: ShapeCRL}, {shape: ShapeOCSP}, {shape: ShapeCSR}},
	PurposeCredentialIssuer: {
		{shape: ShapeJWS, types: []string{"jwt", "sd-jwt", "", "credential-export+jwt", "key-statement+jwt"}, match: suffix("+sd-jwt")},
		{shape: ShapeCOSE, types: []string{"cwt", "sd-cwt", ""}, match: suffix("+sd-cwt")},
		{shape: ShapeCSR},
	},
	PurposeStatus: {
		{shape: ShapeJWS, types: []string{"statuslist+jwt"}},
		{shape: ShapeCOSE, types: []string{"statuslist+cwt"}},
		{shape: ShapeOCSP},
		{shape: ShapeCSR},
	},
	PurposeCredentialConfirmation: {
		{shape: ShapeJWS, types: holderJWS},
		{shape: ShapeCOSE, types: holderCOSE},
		{shape: ShapeMLS, types: []string{"CredentialBindingTBS", "PseudonymousCredentialTBS"}},
		{shape: ShapeCSR},
	},
	PurposeMLSLeaf: {
		{shape: ShapeMLS, types: []string{
			"FramedContentTBS", "LeafNodeTBS", "KeyPackageTBS", "GroupInfoTBS", // RFC 9420
			"KeyMaterialRequestTBS", "GroupInfoRequestTBS", "PseudonymousCredentialTBS", // MIMI
		}, match: isComponentLabel},
		{shape: ShapeJWS, types: holderJWS},
		{shape: ShapeCOSE, types: holderCOSE},
		{shape: ShapeCSR},
	},
	PurposeHubSender: {
		{shape: ShapeMLS, types: []string{
			"FramedContentTBS", "GroupInfoResponseTBS", "HubRetractedComponentTBS", "HubRetractedRangeComponentTBS",
		}},
		{shape: ShapeCSR},
	},
	PurposeFrankSign:     {{shape: ShapeMLS, types: []string{"FrankingIntegrityTBS"}}, {shape: ShapeCSR}},
	PurposeLogCheckpoint: {{shape: ShapeCheckpoint}},
	PurposeTLS:           {{shape: ShapeTLS13}, {shape: ShapeCSR}},
	PurposeRaw:           {{shape: ShapeDigest}},
}

// What a holder signs: the key binding of RFC 9901 and of SD-CWT, and the
// proof of possession of OpenID4VCI.
var (
	holderJWS  = []string{"kb+jwt", "openid4vci-proof+jwt"}
	holderCOSE = []string{"kb+cwt"}
)

func suffix(s string) func(string) bool {
	return func(typ string) bool { return strings.HasSuffix(typ, s) }
}

// isComponentLabel reports whether an MLS label is a ComponentOperationLabel
// (draft-ietf-mls-extensions-10): opaque base_label<V> = "MLS Component",
// uint16 component, opaque label<V>.
func isComponentLabel(label string) bool {
	r := tlsvec.NewReader([]byte(label))
	base := r.Vector()
	r.Uint16()
	r.Vector()
	return r.Done() == nil && string(base) == "MLS Component"
}

// Permits reports whether a key of this purpose may sign octets of that shape
// and type.
func (p Purpose) Permits(shape Shape, typ string) bool {
	return slices.ContainsFunc(permits[p], func(row permit) bool {
		if row.shape != shape {
			return false
		}
		all := row.types == nil && row.match == nil
		return all || slices.Contains(row.types, typ) || row.match != nil && row.match(typ)
	})
}

// check refuses a request that key, with this public key, must not sign.
func (r *Request) check(key *Key, v *openVersion) error {
	refusal := &Refusal{Key: key.ID, Purpose: key.Purpose, Shape: r.shape, Type: r.typ}
	if !key.Purpose.Permits(r.shape, r.typ) {
		refusal.Reason = "the purpose does not permit it"
		return refusal
	}
	if r.suits == nil {
		return nil
	}
	if err := r.suits(key.Algorithm.Scheme(), v.public); err != nil {
		refusal.Reason, refusal.Err = err.Error(), err
		return refusal
	}
	return nil
}

// checkPurpose refuses a caller who wants the key for something else.
func checkPurpose(key *Key, want Purpose) error {
	if key.Purpose == want {
		return nil
	}
	return &Refusal{Key: key.ID, Purpose: key.Purpose, Shape: "as " + Shape(want),
		Reason: fmt.Sprintf("the key has purpose %s and was asked for as %s", key.Purpose, want)}
}
