package journal

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/privyseal/privyseal/internal/jose"
	"github.com/privyseal/privyseal/signer"
)

// statusClaims reads a Status List Token (draft-ietf-oauth-status-list section
// 5). One date of one list has one content, in whichever of the two forms.
func statusClaims(tenant string, r *signer.Request) ([]Claim, error) {
	var list *statusList
	var err error
	switch in := r.Parsed().(type) {
	case *signer.JWSInput:
		if in.Typ != "statuslist+jwt" {
			return nil, nil
		}
		list, err = statusJWT(in.Payload)
	case *signer.COSEInput:
		if in.Typ != "statuslist+cwt" {
			return nil, nil
		}
		list, err = statusCWT(in.Payload)
	}
	if err != nil {
		return nil, fmt.Errorf("status list token: %w", err)
	}
	return []Claim{{Kind: KindStatusList, Name: list.uri, Scope: scope(KindStatusList, tenant, list.uri),
		Number: Uint(list.issued), Content: digest([]byte(strconv.FormatUint(list.bits, 10)), list.lst)}}, nil
}

type statusList struct {
	uri    string // sub
	issued uint64 // iat, Unix seconds
	bits   uint64
	lst    []byte // compressed
}

var (
	errSub  = errors.New("sub is not a URI")
	errDate = errors.New("iat is not a date in whole seconds")
	errList = errors.New("status_list has not bits and lst")
)

const jsonDepth = 32

func statusJWT(payload string) (*statusList, error) {
	o, err := jose.ParseObject(payload, jsonDepth)
	if err != nil {
		return nil, err
	}
	l := &statusList{}
	var ok bool
	if l.uri, _, ok = o.Text("sub"); !ok || l.uri == "" {
		return nil, errSub
	}
	if l.issued, ok = whole(o, "iat"); !ok {
		return nil, errDate
	}
	inner, _ := o.Get("status_list")
	list, ok := inner.(*jose.Object)
	if !ok {
		return nil, errList
	}
	lst, there, _ := list.Text("lst")
	bits, ok := whole(list, "bits")
	l.bits = bits
	if l.lst, err = jose.DecodeBase64(lst); err != nil || !there || !ok {
		return nil, errList
	}
	return l, nil
}

func whole(o *jose.Object, name string) (uint64, bool) {
	v, _ := o.Get(name)
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	u, err := strconv.ParseUint(string(n), 10, 64)
	return u, err == nil
}

// Claims of a CWT (RFC 8392 section 4, draft-ietf-oauth-status-list section 5.2).
type statusCBOR struct {
	Sub  *string `cbor:"2,keyasint"`
	IAT  *uint64 `cbor:"6,keyasint"`
	List *struct {
		Bits *uint64 `cbor:"bits"`
		Lst  []byte  `cbor:"lst"`
	} `cbor:"65533,keyasint"`
}

var cborMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxNestedLevels: 32, UTF8: cbor.UTF8RejectInvalid,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

func statusCWT(payload []byte) (*statusList, error) {
	var c statusCBOR
	if err := cborMode.Unmarshal(payload, &c); err != nil {
		return nil, err
	}
	switch {
	case c.Sub == nil || *c.Sub == "":
		return nil, errSub
	case c.IAT == nil:
		return nil, errDate
	case c.List == nil || c.List.Bits == nil || c.List.Lst == nil:
		return nil, errList
	}
	return &statusList{*c.Sub, *c.IAT, *c.List.Bits, c.List.Lst}, nil
}

// Extensions of a CRL (RFC 5280 sections 5.2.4 and 5.2.5).
var (
	oidDelta = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidScope = asn1.ObjectIdentifier{2, 5, 29, 28}
)

// crlClaims guards the numbers of one issuer's CRLs of one scope. A delta CRL
// shares the numbers of the complete one and may have the same (RFC 5280
// section 5.2.3), so the two are guarded apart.
func crlClaims(tenant string, r *signer.Request) ([]Claim, error) {
	crl := r.Parsed().(*x509.RevocationList)
	if crl.Number == nil {
		return nil, errors.New("the CRL has no number (RFC 5280 section 5.2.3)")
	}
	n, err := bigNumber(crl.Number)
	if err != nil {
		return nil, err
	}
	if crl.ThisUpdate.Unix() < 0 {
		return nil, errors.New("thisUpdate is before 1970")
	}
	names := []string{tenant, string(crl.RawIssuer), "complete", ""}
	for _, e := range crl.Extensions {
		switch {
		case e.Id.Equal(oidDelta):
			names[2] = "delta"
		case e.Id.Equal(oidScope):
			names[3] = string(e.Value)
		}
	}
	name := strings.ToValidUTF8(crl.Issuer.String(), "?")
	return []Claim{
		{Kind: KindCRL, Name: name, Scope: scope(KindCRL, names...), Number: n, Content: sha(r.Octets())},
		{Kind: KindCRLTime, Name: name, Scope: scope(KindCRLTime, names...), Number: Uint(uint64(crl.ThisUpdate.Unix()))},
	}, nil
}
