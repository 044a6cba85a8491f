// Package mlscred is the form that SD-JWT and SD-CWT have as credentials of MLS
// (draft-mahy-mls-sd-cwt-credential-02): the framing of a leaf's credential, and
// the making of one from a holder's credential and the key of the leaf.
//
//	case sd_cwt: opaque sd_kbt<V>;
//	case sd_jwt: SdJwt sd_jwt;
//
//	struct {
//	  Bool compacted;
//	  select (compacted) {
//	    case true:  opaque protected<V>; opaque payload<V>; opaque signature<V>;
//	                SdJwtDisclosure disclosures<V>; opaque sd_jwt_key_binding<V>;
//	    case false: opaque sd_jwt_kb<V>;
//	  };
//	} SdJwt;
//	struct { opaque disclosure<V>; } SdJwtDisclosure;
//
// The compacted form has the parts of the issuer's JWT and the disclosures
// without base64url, and the KB-JWT as it stands; the draft says that the KB-JWT
// is decoded too, which three parts in one field cannot be.
//
// It knows neither MLS nor trust: what comes out is judged by package trust.
package mlscred
