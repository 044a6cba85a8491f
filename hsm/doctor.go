package hsm

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// A Level says how bad a Finding is.
type Level string

// The levels.
const (
	LevelOK      Level = "ok"
	LevelNote    Level = "note"    // good to know
	LevelWarning Level = "warning" // works, but should not stay so
	LevelProblem Level = "problem" // does not work
)

// A Finding is one thing that Diagnose saw, and what to do next about it.
type Finding struct {
	Level    Level  `json:"level"`
	Subject  string `json:"subject"`
	Text     string `json:"text"`
	NextStep string `json:"nextStep,omitempty"`
}

// Diagnose looks at a module and its tokens and, when the URI names a token,
// logs in to that one and looks at its keys. It makes and changes nothing, and
// sends the PIN at most once.
func Diagnose(ctx context.Context, c Config, u URI, pin PINSource) []Finding {
	m, err := Open(ctx, c)
	if err != nil {
		return []Finding{problem("module "+c.Path, err)}
	}
	defer m.Close(ctx)
	tokens, err := m.Tokens(ctx)
	if err != nil {
		return []Finding{problem("module "+c.Path, err)}
	}
	found := diagnoseModule(ctx, m, tokens)
	for _, t := range tokens {
		found = append(found, diagnoseToken(t)...)
	}
	if u.NamesToken() {
		found = append(found, diagnoseLogin(ctx, m, u, pin)...)
	}
	return found
}

// problem turns an error into a finding with its next step.
func problem(subject string, err error) Finding {
	f := Finding{Level: LevelProblem, Subject: subject, Text: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		f.Text = e.Function + ": " + e.Code.String()
		if e.Cause != "" {
			f.Text = e.Function + ": " + e.Cause
		}
		f.NextStep = e.Advice
		return f
	}
	for _, s := range nextSteps {
		if errors.Is(err, s.err) {
			f.NextStep = s.step
			return f
		}
	}
	return f
}

// nextSteps are what to do about errors that are not a module's.
var nextSteps = []struct {
	err  error
	step string
}{
	{ErrAmbiguous, "add serial= to the URI; privyseal token list shows the serial numbers"},
	{ErrTokenGone, "compare the URI with privyseal token list, and see that the module's configuration (SOFTHSM2_CONF for SoftHSM) is the one under which the token was made"},
	{ErrPINLocked, "let the security officer set a new PIN: pkcs11-tool --module MODULE --token-label LABEL --login --login-type so --init-pin"},
	{ErrPINNotSet, "let the security officer set the PIN: pkcs11-tool --module MODULE --token-label LABEL --login --login-type so --init-pin"},
	{ErrPINFinalTry, "log in once by hand with the right PIN: pkcs11-tool --module MODULE --token-label LABEL --login --list-objects"},
	{ErrPINRefused, "correct the PIN source; it is not tried again until it changes"},
	{ErrPINSource, "write the PIN to a file, chmod 600 it, and name it with pin-source=file:/path"},
	{ErrURI, "write the URI as RFC 7512 has it: pkcs11:token=LABEL;serial=SERIAL"},
	{ErrModule, "give the path of the module's shared object; p11-kit list-modules shows those that are installed"},
	{ErrWorkerLost, "run the same with workers set to 0 to see the module's own error"},
}

func diagnoseModule(ctx context.Context, m *Module, tokens []TokenInfo) []Finding {
	info, err := m.Info(ctx)
	subject := "module " + m.config.Path
	if err != nil {
		return []Finding{problem(subject, err)}
	}
	found := []Finding{{Level: LevelOK, Subject: subject,
		Text: fmt.Sprintf("%s %s %s, Cryptoki %s", info.Manufacturer, info.Description, info.Version, info.Cryptoki)}}
	if note := kindNotes[info.Kind]; note.Text != "" {
		note.Level, note.Subject = LevelNote, subject
		found = append(found, note)
	}
	for _, t := range tokens {
		if t.Initialized {
			return found
		}
	}
	step := "initialise a token with the vendor's tool, or start the daemon that the module speaks to"
	if info.Kind == KindSoftHSM {
		step = "softhsm2-util --init-token --free --label NAME; SOFTHSM2_CONF must be the same as for this program"
	}
	return append(found, Finding{LevelProblem, subject, "no token is initialised", step})
}

// kindNotes are what has been measured about modules that is worth knowing.
var kindNotes = map[Kind]Finding{
	KindSoftHSM: {Text: "keys are kept in files: a token for tests and for development", NextStep: "use a hardware module in production"},
	KindNSS:     {Text: "says CKA_LOCAL=false of keys that it made, and wraps keys that are not extractable", NextStep: "admit CKA_LOCAL, and do not count on its attributes"},
	KindP11Kit:  {Text: "hands on only some mechanisms: no Ed25519 and no key agreement", NextStep: "load the module behind it directly, in workers, for these"},
	KindTPM2:    {Text: "makes one key per start of the module, and accepts changes of attributes that it should refuse", NextStep: "drive the TPM directly instead of through PKCS#11"},
	KindOpenCK:  {Text: "has no elliptic curves, and calls imported keys never extractable", NextStep: "use it for HMAC keys only"},
}

func diagnoseToken(t TokenInfo) []Finding {
	if !t.Initialized {
		return nil
	}
	subject := fmt.Sprintf("token %q serial %s", t.Label, t.Serial)
	var found []Finding
	add := func(level Level, bad bool, text, step string) {
		if bad {
			found = append(found, Finding{level, subject, text, step})
		}
	}
	setPIN := fmt.Sprintf("pkcs11-tool --module %s --token-label '%s' --login --login-type so --init-pin", t.Module.Path, t.Label)
	add(LevelProblem, t.UserPINLocked, "the user PIN is locked", setPIN)
	add(LevelProblem, t.LoginRequired && !t.UserPINSet, "the user PIN is not set", setPIN)
	add(LevelProblem, t.UserPINFinalTry && !t.UserPINLocked, "one more wrong PIN locks it", "log in once by hand with the right PIN")
	add(LevelWarning, t.UserPINCountLow && !t.UserPINFinalTry, "a wrong PIN was given since the last login", "find out which program has the wrong PIN")
	add(LevelWarning, t.WriteProtected, "the token is write-protected", "keys cannot be made or destroyed until this is lifted")
	add(LevelWarning, len(t.KeyTypes) == 0, "none of this program's key types can be made here", "choose another token")
	if len(found) == 0 {
		add(LevelOK, true, "makes "+joinTypes(t.KeyTypes), "")
	}
	return found
}

func joinTypes(types []KeyType) string {
	var names []string
	for _, t := range types {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

func diagnoseLogin(ctx context.Context, m *Module, u URI, pin PINSource) []Finding {
	subject := u.TokenOnly().String()
	t, err := m.OpenToken(ctx, u, pin)
	if err != nil {
		return []Finding{problem(subject, err)}
	}
	defer t.Close(ctx)
	h, err := t.Health(ctx)
	if err != nil {
		return []Finding{problem(subject, err)}
	}
	keys, err := t.Keys(ctx)
	if err != nil {
		return []Finding{problem(subject, err)}
	}
	found := []Finding{{Level: LevelOK, Subject: subject, Text: fmt.Sprintf("logged in; %d keys; looked at in %v", len(keys), h.Took)}}
	return append(found, diagnoseKeys(t, keys)...)
}

func diagnoseKeys(t *Token, keys []KeyInfo) []Finding {
	var found []Finding
	ids := make(map[string]int)
	for _, k := range keys {
		ids[string(k.Class)+string(k.ID)]++
	}
	for _, k := range keys {
		subject := "key " + k.name()
		switch {
		case k.Problem != "":
			found = append(found, Finding{LevelWarning, subject, "cannot be used: " + k.Problem, "leave it to the program that made it, or destroy it with that program"})
		case len(k.ID) == 0:
			found = append(found, Finding{LevelWarning, subject, "has no CKA_ID, so a URI cannot name it with certainty", "give it one: pkcs11-tool --set-id"})
		case ids[string(k.Class)+string(k.ID)] > 1:
			found = append(found, Finding{LevelWarning, subject, "shares its CKA_ID with another key", "name it with object= as well, or destroy the other"})
		case !t.config.admits(k.Weak):
			found = append(found, Finding{LevelWarning, subject, "is refused: weak in " + strings.Join(k.Weak, ", "), "make a new key in the token, or admit these attributes in the configuration"})
		case len(k.Weak) > 0:
			found = append(found, Finding{LevelNote, subject, "is admitted although weak in " + strings.Join(k.Weak, ", "), "make a new key in the token when you can"})
		}
	}
	return found
}
