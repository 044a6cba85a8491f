package hsm

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// A Class says what a failed call means for the caller.
type Class uint8

// The classes, from harmless to hopeless.
const (
	ClassCaller      Class = iota + 1 // the request is wrong; the same one fails again
	ClassUnsupported                  // this token does not do it
	ClassRetry                        // try again on another Session
	ClassSession                      // the Session is lost: open a new one
	ClassLogin                        // the login is lost: log in again
	ClassKeyGone                      // the handle names nothing: find the key again
	ClassModule                       // only C_Finalize and C_Initialize help
	ClassOperator                     // a person has to do something
)

var classNames = [...]string{"", "caller", "unsupported", "retry", "session", "login", "key gone", "module", "operator"}

func (c Class) String() string {
	if int(c) < len(classNames) && c > 0 {
		return classNames[c]
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Retryable reports whether the same call may succeed later without anybody
// changing anything. The driver has already tried when a caller sees it.
func (c Class) Retryable() bool {
	return c == ClassRetry || c == ClassSession || c == ClassLogin || c == ClassModule
}

// A CKR is a PKCS#11 return value.
type CKR uint32

func (c CKR) String() string {
	if name, ok := ckrNames[c]; ok {
		return name
	}
	return fmt.Sprintf("CKR_0x%X", uint32(c))
}

// ckrNames are the names of PKCS#11 2.40 section 11.1 that the table uses, and
// those that modules are known to give.
var ckrNames = map[CKR]string{
	pkcs11.CKR_HOST_MEMORY:                    "CKR_HOST_MEMORY",
	pkcs11.CKR_SLOT_ID_INVALID:                "CKR_SLOT_ID_INVALID",
	pkcs11.CKR_GENERAL_ERROR:                  "CKR_GENERAL_ERROR",
	pkcs11.CKR_FUNCTION_FAILED:                "CKR_FUNCTION_FAILED",
	pkcs11.CKR_ARGUMENTS_BAD:                  "CKR_ARGUMENTS_BAD",
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:            "CKR_ATTRIBUTE_READ_ONLY",
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:            "CKR_ATTRIBUTE_SENSITIVE",
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:         "CKR_ATTRIBUTE_TYPE_INVALID",
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:        "CKR_ATTRIBUTE_VALUE_INVALID",
	pkcs11.CKR_DATA_INVALID:                   "CKR_DATA_INVALID",
	pkcs11.CKR_DATA_LEN_RANGE:                 "CKR_DATA_LEN_RANGE",
	pkcs11.CKR_DEVICE_ERROR:                   "CKR_DEVICE_ERROR",
	pkcs11.CKR_DEVICE_MEMORY:                  "CKR_DEVICE_MEMORY",
	pkcs11.CKR_DEVICE_REMOVED:                 "CKR_DEVICE_REMOVED",
	pkcs11.CKR_FUNCTION_CANCELED:              "CKR_FUNCTION_CANCELED",
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:         "CKR_FUNCTION_NOT_SUPPORTED",
	pkcs11.CKR_KEY_HANDLE_INVALID:             "CKR_KEY_HANDLE_INVALID",
	pkcs11.CKR_KEY_SIZE_RANGE:                 "CKR_KEY_SIZE_RANGE",
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:          "CKR_KEY_TYPE_INCONSISTENT",
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:     "CKR_KEY_FUNCTION_NOT_PERMITTED",
	pkcs11.CKR_KEY_UNEXTRACTABLE:              "CKR_KEY_UNEXTRACTABLE",
	pkcs11.CKR_MECHANISM_INVALID:              "CKR_MECHANISM_INVALID",
	pkcs11.CKR_MECHANISM_PARAM_INVALID:        "CKR_MECHANISM_PARAM_INVALID",
	pkcs11.CKR_OBJECT_HANDLE_INVALID:          "CKR_OBJECT_HANDLE_INVALID",
	pkcs11.CKR_OPERATION_ACTIVE:               "CKR_OPERATION_ACTIVE",
	pkcs11.CKR_OPERATION_NOT_INITIALIZED:      "CKR_OPERATION_NOT_INITIALIZED",
	pkcs11.CKR_PIN_INCORRECT:                  "CKR_PIN_INCORRECT",
	pkcs11.CKR_PIN_INVALID:                    "CKR_PIN_INVALID",
	pkcs11.CKR_PIN_LEN_RANGE:                  "CKR_PIN_LEN_RANGE",
	pkcs11.CKR_PIN_EXPIRED:                    "CKR_PIN_EXPIRED",
	pkcs11.CKR_PIN_LOCKED:                     "CKR_PIN_LOCKED",
	pkcs11.CKR_SESSION_CLOSED:                 "CKR_SESSION_CLOSED",
	pkcs11.CKR_SESSION_COUNT:                  "CKR_SESSION_COUNT",
	pkcs11.CKR_SESSION_HANDLE_INVALID:         "CKR_SESSION_HANDLE_INVALID",
	pkcs11.CKR_SESSION_READ_ONLY:              "CKR_SESSION_READ_ONLY",
	pkcs11.CKR_SESSION_EXISTS:                 "CKR_SESSION_EXISTS",
	pkcs11.CKR_TEMPLATE_INCOMPLETE:            "CKR_TEMPLATE_INCOMPLETE",
	pkcs11.CKR_TEMPLATE_INCONSISTENT:          "CKR_TEMPLATE_INCONSISTENT",
	pkcs11.CKR_TOKEN_NOT_PRESENT:              "CKR_TOKEN_NOT_PRESENT",
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:           "CKR_TOKEN_NOT_RECOGNIZED",
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:          "CKR_TOKEN_WRITE_PROTECTED",
	pkcs11.CKR_USER_ALREADY_LOGGED_IN:         "CKR_USER_ALREADY_LOGGED_IN",
	pkcs11.CKR_USER_NOT_LOGGED_IN:             "CKR_USER_NOT_LOGGED_IN",
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED:       "CKR_USER_PIN_NOT_INITIALIZED",
	pkcs11.CKR_USER_TYPE_INVALID:              "CKR_USER_TYPE_INVALID",
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
	pkcs11.CKR_USER_TOO_MANY_TYPES:            "CKR_USER_TOO_MANY_TYPES",
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:          "CKR_DOMAIN_PARAMS_INVALID",
	pkcs11.CKR_BUFFER_TOO_SMALL:               "CKR_BUFFER_TOO_SMALL",
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:       "CKR_CRYPTOKI_NOT_INITIALIZED",
	pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED:   "CKR_CRYPTOKI_ALREADY_INITIALIZED",
	pkcs11.CKR_MUTEX_BAD:                      "CKR_MUTEX_BAD",
	pkcs11.CKR_MUTEX_NOT_LOCKED:               "CKR_MUTEX_NOT_LOCKED",
	pkcs11.CKR_FUNCTION_REJECTED:              "CKR_FUNCTION_REJECTED",
	pkcs11.CKR_RANDOM_NO_RNG:                  "CKR_RANDOM_NO_RNG",
}

// A verdict is one line of the table: what a code means and what to do.
type verdict struct {
	class  Class
	advice string
}

// verdicts is the table for every module; kindVerdicts holds what a kind does
// differently.
var verdicts = map[CKR]verdict{
	pkcs11.CKR_HOST_MEMORY:       {ClassRetry, "the module is out of memory"},
	pkcs11.CKR_GENERAL_ERROR:     {ClassRetry, "the module gives no reason; look at its own log"},
	pkcs11.CKR_FUNCTION_FAILED:   {ClassRetry, "the module gives no reason; a full disk is one"},
	pkcs11.CKR_FUNCTION_CANCELED: {ClassRetry, "the module broke the call off"},
	pkcs11.CKR_DEVICE_MEMORY:     {ClassRetry, "the device is out of memory: destroy keys that nobody needs, or use fewer Sessions"},

	pkcs11.CKR_SESSION_CLOSED:            {ClassSession, "a Session was closed by somebody else"},
	pkcs11.CKR_SESSION_HANDLE_INVALID:    {ClassSession, "a Session was closed by somebody else"},
	pkcs11.CKR_OPERATION_ACTIVE:          {ClassRetry, "a Session was left in the middle of an operation"},
	pkcs11.CKR_OPERATION_NOT_INITIALIZED: {ClassRetry, "a Session lost its operation"},
	pkcs11.CKR_SESSION_COUNT:             {ClassRetry, "the token has no Session left: lower Config.Sessions or stop other programs that use it"},

	pkcs11.CKR_USER_NOT_LOGGED_IN: {ClassLogin, "the login was lost"},

	pkcs11.CKR_OBJECT_HANDLE_INVALID: {ClassKeyGone, "the key is not on the token: it was destroyed, or the token was re-initialised or taken away"},
	pkcs11.CKR_KEY_HANDLE_INVALID:    {ClassKeyGone, "the key is not on the token: it was destroyed, or the token was re-initialised or taken away"},

	pkcs11.CKR_DEVICE_ERROR:             {ClassModule, "the device or the daemon in front of it does not answer: see that it runs"},
	pkcs11.CKR_DEVICE_REMOVED:           {ClassModule, "put the token back"},
	pkcs11.CKR_TOKEN_NOT_PRESENT:        {ClassModule, "put the token back"},
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:     {ClassModule, "the module does not know this token: initialise it, or see that the right module is configured"},
	pkcs11.CKR_SLOT_ID_INVALID:          {ClassModule, "slot numbers have changed"},
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED: {ClassModule, "the module was finalised by somebody else"},

	pkcs11.CKR_PIN_INCORRECT:            {ClassOperator, "the token refused the PIN, which is not tried again until it changes: correct the PIN source"},
	pkcs11.CKR_PIN_INVALID:              {ClassOperator, "the PIN has characters that the token does not take: correct the PIN source"},
	pkcs11.CKR_PIN_LEN_RANGE:            {ClassOperator, "the PIN has a length that the token does not take: correct the PIN source"},
	pkcs11.CKR_PIN_EXPIRED:              {ClassOperator, "set a new PIN with the vendor's tool"},
	pkcs11.CKR_PIN_LOCKED:               {ClassOperator, "the PIN is locked: the security officer must set a new one"},
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: {ClassOperator, "the security officer must set the user PIN"},
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:    {ClassOperator, "the token is write-protected"},

	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: {ClassOperator, "the security officer is logged in from this program; end that login"},
	pkcs11.CKR_USER_TOO_MANY_TYPES:            {ClassOperator, "too many users are logged in"},

	pkcs11.CKR_FUNCTION_NOT_SUPPORTED: {ClassUnsupported, "choose another token or another kind of key"},
	pkcs11.CKR_MECHANISM_INVALID:      {ClassUnsupported, "choose another token or another kind of key"},

	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED: {ClassCaller, "the key was made for another use"},
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:      {ClassCaller, "the key is of another type"},
	pkcs11.CKR_KEY_SIZE_RANGE:             {ClassCaller, "the key is too short or too long for the mechanism"},
}

// kindVerdicts holds measured deviations: the same loss has another code in
// each module.
var kindVerdicts = map[Kind]map[CKR]verdict{
	KindNSS: {
		pkcs11.CKR_HOST_MEMORY: {ClassLogin, "NSS says this when the login was lost"},
	},
	KindTPM2: {
		pkcs11.CKR_GENERAL_ERROR: {ClassModule, "the TPM does not answer, or is out of memory until the module starts anew"},
	},
	KindOpenCK: {
		pkcs11.CKR_HOST_MEMORY: {ClassOperator, "openCryptoki says this when pkcsslotd does not run: start it"},
	},
}

// judge looks a code up. A code that is not in the table is the caller's.
func judge(kind Kind, code CKR) verdict {
	if v, ok := kindVerdicts[kind][code]; ok {
		return v
	}
	if v, ok := verdicts[code]; ok {
		return v
	}
	return verdict{ClassCaller, "the token does not accept the request"}
}
