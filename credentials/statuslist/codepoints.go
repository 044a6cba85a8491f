package statuslist

// Numbers and names of the draft. 65533 to 65535 are requested from IANA and
// provisional, as are the CoAP content format and the EKU, which have no number
// yet and are not used.
const (
	claimSubject    = 2
	claimExpires    = 4
	claimNotBefore  = 5
	claimIssuedAt   = 6
	claimStatusList = 65533
	claimTTL        = 65534

	typJWT = "statuslist+jwt"

	// MediaTypeJWT and MediaTypeCWT are the media types of the two formats.
	MediaTypeJWT = "application/statuslist+jwt"
	MediaTypeCWT = "application/statuslist+cwt"
)

// Limits on what is taken from outside.
const (
	maxToken      = 6 << 20  // octets of a Status List Token
	maxCompressed = 4 << 20  // octets of lst
	maxInflated   = 16 << 20 // octets of the array
	maxIndex      = 1<<53 - 1
	maxURI        = 2048
	maxTTL        = 10 * 366 * 24 * 3600 // seconds; a longer one is cut
	jsonDepth     = 16
)
