package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// ModuleInfo is what C_GetInfo says.
type ModuleInfo struct {
	Path         string `json:"path"`
	Kind         Kind   `json:"kind"`
	Manufacturer string `json:"manufacturer"`
	Description  string `json:"description"`
	Version      string `json:"version"`  // of the library
	Cryptoki     string `json:"cryptoki"` // of the interface
}

// TokenInfo is what C_GetTokenInfo and C_GetSlotInfo say.
type TokenInfo struct {
	Module           ModuleInfo `json:"module"`
	Slot             uint       `json:"slot"`
	SlotDescription  string     `json:"slotDescription"`
	SlotManufacturer string     `json:"slotManufacturer"`
	Label            string     `json:"label"`
	Serial           string     `json:"serial"`
	Manufacturer     string     `json:"manufacturer"`
	Model            string     `json:"model"`
	Hardware         string     `json:"hardware"`
	Firmware         string     `json:"firmware"`

	Initialized     bool `json:"initialized"`     // CKF_TOKEN_INITIALIZED
	WriteProtected  bool `json:"writeProtected"`  // CKF_WRITE_PROTECTED
	LoginRequired   bool `json:"loginRequired"`   // CKF_LOGIN_REQUIRED
	ProtectedPath   bool `json:"protectedPath"`   // CKF_PROTECTED_AUTHENTICATION_PATH
	UserPINSet      bool `json:"userPINSet"`      // CKF_USER_PIN_INITIALIZED
	UserPINCountLow bool `json:"userPINCountLow"` // CKF_USER_PIN_COUNT_LOW
	UserPINFinalTry bool `json:"userPINFinalTry"` // CKF_USER_PIN_FINAL_TRY
	UserPINLocked   bool `json:"userPINLocked"`   // CKF_USER_PIN_LOCKED

	MinPIN uint `json:"minPIN"`
	MaxPIN uint `json:"maxPIN"`
	// MaxSessions and MaxRWSessions are 0 where the token does not say.
	MaxSessions   uint `json:"maxSessions"`
	MaxRWSessions uint `json:"maxRWSessions"`

	KeyTypes []KeyType `json:"keyTypes"` // what Generate can make here
}

// URI names the token by label and serial number, which survive a restart;
// slot numbers do not.
func (t TokenInfo) URI() URI {
	return URI{Token: t.Label, Serial: t.Serial, Manufacturer: t.Manufacturer, Model: t.Model}
}

func moduleInfo(path string, i pkcs11.Info) ModuleInfo {
	m := ModuleInfo{
		Path:         path,
		Manufacturer: trimPad(i.ManufacturerID),
		Description:  trimPad(i.LibraryDescription),
		Version:      version(i.LibraryVersion),
		Cryptoki:     version(i.CryptokiVersion),
	}
	m.Kind = kindOf(path, m)
	return m
}

func tokenInfo(m ModuleInfo, slot uint, s pkcs11.SlotInfo, t pkcs11.TokenInfo) TokenInfo {
	return TokenInfo{
		Module:           m,
		Slot:             slot,
		SlotDescription:  trimPad(s.SlotDescription),
		SlotManufacturer: trimPad(s.ManufacturerID),
		Label:            trimPad(t.Label),
		Serial:           trimPad(t.SerialNumber),
		Manufacturer:     trimPad(t.ManufacturerID),
		Model:            trimPad(t.Model),
		Hardware:         version(t.HardwareVersion),
		Firmware:         version(t.FirmwareVersion),
		Initialized:      t.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0,
		WriteProtected:   t.Flags&pkcs11.CKF_WRITE_PROTECTED != 0,
		LoginRequired:    t.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0,
		ProtectedPath:    t.Flags&pkcs11.CKF_PROTECTED_AUTHENTICATION_PATH != 0,
		UserPINSet:       t.Flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0,
		UserPINCountLow:  t.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0,
		UserPINFinalTry:  t.Flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0,
		UserPINLocked:    t.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0,
		MinPIN:           t.MinPinLen,
		MaxPIN:           t.MaxPinLen,
		MaxSessions:      knownCount(t.MaxSessionCount),
		MaxRWSessions:    knownCount(t.MaxRwSessionCount),
	}
}

// knownCount turns CK_UNAVAILABLE_INFORMATION and CK_EFFECTIVELY_INFINITE into 0.
func knownCount(n uint) uint {
	if n == ^uint(0) {
		return 0
	}
	return n
}

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// trimPad removes the blanks, and the NULs of careless modules, that pad the
// fixed fields of PKCS#11.
func trimPad(s string) string {
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == 0) {
		s = s[:len(s)-1]
	}
	return s
}
