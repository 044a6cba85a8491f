package hsmtest

import (
	"slices"

	"github.com/privyseal/privyseal/hsm"
)

// Deviations are where a module leaves the contract of TestToken: what it
// cannot do, and what it claims wrongly. The zero value is a module that does
// everything and lies about nothing. Each is explained in
// docs/pkcs11-deviations.md and checked in both directions: a module that
// behaves better than its Deviations fails too.
type Deviations struct {
	// KeyTypes are those that the token makes; nil means all.
	KeyTypes []hsm.KeyType
	// NoAgreement: there are EC keys and no CKM_ECDH1_DERIVE.
	NoAgreement bool
	// Weak are the attributes that a key made in the token lacks, as
	// hsm.KeyInfo.Weak names them. They must be admitted to use the token.
	Weak []string
	// Broken are types that the token claims to make and makes unusable.
	Broken []hsm.KeyType
	// OneProcess: processes that use the token at the same time disturb each
	// other, so it has one worker.
	OneProcess bool
	// WorksWithoutDaemon: the daemon is needed to initialise the module only.
	WorksWithoutDaemon bool
}

// deviations returns those of a module by its name.
func deviations(name string) Deviations {
	switch name {
	case "p11-kit": // hands on 36 of SoftHSM's 70 mechanisms
		return Deviations{KeyTypes: []hsm.KeyType{hsm.P256, hsm.P384, hsm.P521, hsm.HMACSHA256}, NoAgreement: true}
	case "nss":
		return Deviations{
			KeyTypes: []hsm.KeyType{hsm.P256, hsm.P384, hsm.P521, hsm.HMACSHA256},
			Weak:     []string{"CKA_LOCAL"},
		}
	case "tpm2-pkcs11":
		return Deviations{
			KeyTypes: []hsm.KeyType{hsm.P256, hsm.P384}, Broken: []hsm.KeyType{hsm.P521},
			NoAgreement: true, OneProcess: true,
		}
	case "opencryptoki":
		return Deviations{KeyTypes: []hsm.KeyType{hsm.HMACSHA256}, NoAgreement: true, OneProcess: true, WorksWithoutDaemon: true}
	}
	return Deviations{}
}

// claimed lists the types that the token says it makes.
func (d Deviations) claimed() []hsm.KeyType { return slices.Concat(d.keyTypes(), d.Broken) }

// keyTypes lists the types that the token makes.
func (d Deviations) keyTypes() []hsm.KeyType {
	if d.KeyTypes == nil {
		return hsm.KeyTypes
	}
	return d.KeyTypes
}
