package policy

import "time"

// An Input is what rules see. Each field is a variable of the name in its tag.
type Input struct {
	Request     Request     `json:"request"`
	Caller      Caller      `json:"caller"`
	Key         Key         `json:"key"`
	Now         time.Time   `json:"now"`
	MLS         MLS         `json:"mls"`
	Header      Map         `json:"header"`
	Claims      Map         `json:"claims"`
	JWS         JWS         `json:"jws"`
	COSE        COSE        `json:"cose"`
	Certificate Certificate `json:"certificate"`
	CRL         CRL         `json:"crl"`
	OCSP        OCSP        `json:"ocsp"`
	CSR         CSR         `json:"csr"`
	TLS         TLS         `json:"tls"`
	Checkpoint  Checkpoint  `json:"checkpoint"`
}

// Request is what is asked for.
type Request struct {
	Operation string `json:"operation" cel:"operation"` // "sign", "agree", "mac"
	Shape     string `json:"shape" cel:"shape"`         // as signer.Shape: "mls", "jws", "cose-sign1", "certificate", …
	Type      string `json:"type" cel:"type"`           // label, typ or the like within the shape
	Size      int64  `json:"size" cel:"size"`           // octets that are to be signed
	Hash      string `json:"hash" cel:"hash"`           // of a bare digest, such as "SHA-256"
}

// Caller is who asks.
type Caller struct {
	Tenant string `json:"tenant" cel:"tenant"`
	Name   string `json:"name" cel:"name"`
	Role   string `json:"role" cel:"role"` // "admin", "operator", "auditor", "client"
}

// Key is what would sign.
type Key struct {
	Name      string            `json:"name" cel:"name"` // within the tenant
	Purpose   string            `json:"purpose" cel:"purpose"`
	Algorithm string            `json:"algorithm" cel:"algorithm"`
	Version   int64             `json:"version" cel:"version"`
	Device    string            `json:"device" cel:"device"`
	Labels    map[string]string `json:"labels" cel:"labels"`
}

// MLS is a SignContent of RFC 9420 section 5.1.2, with the fields of the
// content as signer.MLSFields.
type MLS struct {
	Label          string `json:"label" cel:"label"`
	Group          []byte `json:"group" cel:"group"`
	HasEpoch       bool   `json:"has_epoch" cel:"has_epoch"`
	Epoch          uint64 `json:"epoch" cel:"epoch"`
	CipherSuite    int64  `json:"cipher_suite" cel:"cipher_suite"`
	WireFormat     int64  `json:"wire_format" cel:"wire_format"`
	Sender         string `json:"sender" cel:"sender"`
	SenderIndex    int64  `json:"sender_index" cel:"sender_index"`
	ContentType    string `json:"content_type" cel:"content_type"`
	ProposalType   int64  `json:"proposal_type" cel:"proposal_type"`
	HasPath        bool   `json:"has_path" cel:"has_path"`
	Leaf           string `json:"leaf" cel:"leaf"`
	CredentialType int64  `json:"credential_type" cel:"credential_type"` // 0 where there is none
	Identity       []byte `json:"identity" cel:"identity"`               // of a basic credential
	NotBefore      int64  `json:"not_before" cel:"not_before"`           // Unix seconds, of a KeyPackage's leaf
	NotAfter       int64  `json:"not_after" cel:"not_after"`
}

// Map is the protected header, or the payload, of a JWS or COSE_Sign1. The keys
// of JSON are strings, those of CBOR int or string. Claims are empty where the
// payload of a COSE_Sign1 is no CBOR map.
type Map map[any]any

// JWS is a JWS Signing Input.
type JWS struct {
	Alg string `json:"alg" cel:"alg"`
	Typ string `json:"typ" cel:"typ"`
}

// COSE is a Sig_structure.
type COSE struct {
	Alg  int64  `json:"alg" cel:"alg"`
	Typ  string `json:"typ" cel:"typ"`
	Size int64  `json:"size" cel:"size"` // of the payload
}

// Certificate is a TBSCertificate.
type Certificate struct {
	Serial      string    `json:"serial" cel:"serial"` // hexadecimal
	Subject     string    `json:"subject" cel:"subject"`
	CommonName  string    `json:"common_name" cel:"common_name"`
	Issuer      string    `json:"issuer" cel:"issuer"`
	NotBefore   time.Time `json:"not_before" cel:"not_before"`
	NotAfter    time.Time `json:"not_after" cel:"not_after"`
	IsCA        bool      `json:"is_ca" cel:"is_ca"`
	MaxPathLen  int64     `json:"max_path_len" cel:"max_path_len"` // -1 for none
	DNSNames    []string  `json:"dns_names" cel:"dns_names"`
	Emails      []string  `json:"emails" cel:"emails"`
	URIs        []string  `json:"uris" cel:"uris"`
	IPs         []string  `json:"ips" cel:"ips"`
	KeyUsage    []string  `json:"key_usage" cel:"key_usage"`         // "digitalSignature", "keyCertSign", …
	ExtKeyUsage []string  `json:"ext_key_usage" cel:"ext_key_usage"` // "serverAuth", … or an OID
	KeyType     string    `json:"key_type" cel:"key_type"`           // of the subject: "P-256", "Ed25519", "RSA-2048"
}

// CRL is a TBSCertList.
type CRL struct {
	Issuer     string    `json:"issuer" cel:"issuer"`
	Number     string    `json:"number" cel:"number"` // decimal
	ThisUpdate time.Time `json:"this_update" cel:"this_update"`
	NextUpdate time.Time `json:"next_update" cel:"next_update"`
	Revoked    int64     `json:"revoked" cel:"revoked"` // how many
}

// OCSP is a ResponseData.
type OCSP struct {
	Serial     string    `json:"serial" cel:"serial"` // hexadecimal
	Status     string    `json:"status" cel:"status"` // "good", "revoked", "unknown"
	ThisUpdate time.Time `json:"this_update" cel:"this_update"`
	NextUpdate time.Time `json:"next_update" cel:"next_update"`
}

// CSR is a CertificationRequestInfo.
type CSR struct {
	Subject    string   `json:"subject" cel:"subject"`
	CommonName string   `json:"common_name" cel:"common_name"`
	DNSNames   []string `json:"dns_names" cel:"dns_names"`
	Emails     []string `json:"emails" cel:"emails"`
	URIs       []string `json:"uris" cel:"uris"`
	IPs        []string `json:"ips" cel:"ips"`
}

// TLS is the content of a CertificateVerify.
type TLS struct {
	Role string `json:"role" cel:"role"` // "server" or "client"
}

// Checkpoint is the text of a transparency log's checkpoint.
type Checkpoint struct {
	Origin string `json:"origin" cel:"origin"`
	Size   uint64 `json:"size" cel:"size"`
}
