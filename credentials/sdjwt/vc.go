package sdjwt

import (
	"slices"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/internal/jose"
)

// checkVC applies the rules of SD-JWT VC to the claims and returns the vct.
// plainSD says that the token has _sd without a digest anywhere.
func (v *Verifier) checkVC(claims *jose.Object, plainSD bool) (string, error) {
	if plainSD {
		return "", credentials.Errorf(credentials.CodeHashShape, "payload", "an SD-JWT VC without selectively disclosable claims must not have _sd")
	}
	vct, there, err := textClaim(claims, "vct")
	if err != nil {
		return "", err
	}
	if !there || vct == "" {
		return "", credentials.Errorf(credentials.CodeClaimMissing, "payload", `"vct" is required in an SD-JWT VC`)
	}
	if len(v.policy.VCTs) > 0 && !slices.Contains(v.policy.VCTs, vct) {
		return "", credentials.Errorf(credentials.CodePolicy, "payload.vct", "%q is not one of %q", vct, v.policy.VCTs)
	}
	if _, _, err := textClaim(claims, "vct#integrity"); err != nil {
		return "", err
	}
	if status, there := claims.Get("status"); there {
		if _, ok := status.(*jose.Object); !ok {
			return "", credentials.Errorf(credentials.CodeClaimType, "payload.status", "not an object")
		}
	}
	return vct, checkAkaVCTs(claims, vct)
}

// checkAkaVCTs checks that aka_vcts, if there, is a non-empty array of strings
// without vct itself.
func checkAkaVCTs(claims *jose.Object, vct string) error {
	const where = "payload.aka_vcts"
	aka, there := claims.Get("aka_vcts")
	if !there {
		return nil
	}
	list, ok := aka.([]any)
	if !ok || len(list) == 0 {
		return credentials.Errorf(credentials.CodeClaimType, where, "not a non-empty array")
	}
	for _, e := range list {
		switch s, ok := e.(string); {
		case !ok:
			return credentials.Errorf(credentials.CodeClaimType, where, "not an array of strings")
		case s == vct:
			return credentials.Errorf(credentials.CodeClaimsConflict, where, "the vct itself is in it")
		}
	}
	return nil
}
