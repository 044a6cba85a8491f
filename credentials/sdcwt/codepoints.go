package sdcwt

// Every number of the draft, and every choice that a later version of it may
// change, stands in this file: draft-ietf-spice-sd-cwt-08 section 17.
const (
	headerSDClaims    = 17  // sd_claims: unprotected, array of bstr
	headerSDAlg       = 170 // sd_alg: protected, int
	headerSDEncrypted = 171 // sd_aead_encrypted_claims: unprotected, array
	headerSDAEAD      = 172 // sd_aead: protected, uint of the IANA AEAD registry

	simpleRedactedKeys = 59 // map key redacted_claim_keys
	tagToBeRedacted    = 58 // holder to issuer only
	tagRedacted        = 60 // redacted array element
	tagToBeDecoy       = 62 // holder to issuer only

	contentFormatSDCWT = 293
	contentFormatKBT   = 294
	contentFormatCWT   = 61
	mediaTypeSDCWT     = "application/sd-cwt"
	mediaTypeKBT       = "application/kb+cwt"
	mediaTypeCWT       = "application/cwt"
	suffixSDCWT        = "+sd-cwt"

	// An encrypted disclosure is [nonce, ciphertext, tag] with, since -08, an
	// optional fourth member that helps to find the key. Both are accepted; the
	// fourth is written when the holder names a context.
	encryptedMembersMin = 3
	encryptedMembersMax = 4
)

// Claims of a CWT (RFC 8392, RFC 8747, RFC 9597 registry, Token Status List).
const (
	ClaimIssuer    = 1
	ClaimSubject   = 2
	ClaimAudience  = 3
	ClaimExpires   = 4
	ClaimNotBefore = 5
	ClaimIssuedAt  = 6
	ClaimCWTID     = 7
	ClaimCnf       = 8
	ClaimVCT       = 11
	ClaimCNonce    = 39
	ClaimStatus    = 65535 // provisional, draft-ietf-oauth-status-list
)

// neverRedacted are the claims that stand in the clear at the top level.
var neverRedacted = []int64{ClaimIssuer, ClaimAudience, ClaimExpires, ClaimNotBefore, ClaimIssuedAt, ClaimCWTID, ClaimCnf, ClaimCNonce, ClaimStatus}

// Limits of a token. The size of a salt is fixed by the draft's CDDL; the rest
// are ours, inside what the draft lets a verifier refuse.
const (
	saltSize       = 16
	maxKeyText     = 255
	maxDepth       = 16
	maxToken       = 64 << 10
	maxDisclosures = 256
)
