package hsm_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/hsm"
)

func slot(n uint) *uint { return &n }

func TestParseURI(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     hsm.URI
	}{
		{"empty", "pkcs11:", hsm.URI{}},
		{"scheme in capitals", "PKCS11:token=a", hsm.URI{Token: "a"}},
		{"token and object", "pkcs11:token=The%20Software%20PKCS%2311%20Softtoken;object=my-certificate;type=cert",
			hsm.URI{Token: "The Software PKCS#11 Softtoken", Object: "my-certificate", Type: "cert"}},
		{"id of any bytes", "pkcs11:id=%00%ff%69%95%3e%5c;serial=0001", hsm.URI{ID: []byte{0, 0xff, 0x69, 0x95, 0x3e, 0x5c}, Serial: "0001"}},
		{"slot number", "pkcs11:slot-id=327", hsm.URI{SlotID: slot(327)}},
		{"ampersand in the path", "pkcs11:token=a&b", hsm.URI{Token: "a&b"}},
		{"library", "pkcs11:library-manufacturer=Snake%20Oil,%20Inc.;library-description=Soft%20Token;library-version=3.1",
			hsm.URI{LibraryManufacturer: "Snake Oil, Inc.", LibraryDescription: "Soft Token", LibraryVersion: "3.1"}},
		{"slot", "pkcs11:slot-description=Sun%20Metaslot;slot-manufacturer=x", hsm.URI{SlotDescription: "Sun Metaslot", SlotManufacturer: "x"}},
		{"query", "pkcs11:token=a?pin-source=file:/etc/token_pin&module-path=/usr/lib/p.so&module-name=softhsm2",
			hsm.URI{Token: "a", PINSource: "file:/etc/token_pin", ModulePath: "/usr/lib/p.so", ModuleName: "softhsm2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := hsm.ParseURI(c.in)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Fatalf("got %+v, %v; want %+v", got, err, c.want)
			}
			again, err := hsm.ParseURI(got.String())
			if err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%s does not parse back: %+v, %v", got, again, err)
			}
		})
	}
}

func TestParseURIRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, says string }{
		{"another scheme", "tpm2:token=a", "pkcs11:"},
		{"nothing", "", "pkcs11:"},
		{"an unknown attribute", "pkcs11:label=a", "unknown attribute"},
		{"an attribute twice", "pkcs11:token=a;token=b", "twice"},
		{"an empty value", "pkcs11:token=", "empty"},
		{"no value", "pkcs11:token", "name=value"},
		{"an empty attribute", "pkcs11:token=a;", "name=value"},
		{"an empty query", "pkcs11:token=a?", "empty query"},
		{"a query attribute in the path", "pkcs11:module-path=%2Fx", "after the question mark"},
		{"a path attribute in the query", "pkcs11:?token=x", "before the question mark"},
		{"a blank", "pkcs11:token=a b", "percent-encoded"},
		{"a slash in the path", "pkcs11:token=a/b", "percent-encoded"},
		{"a broken percent", "pkcs11:token=a%2", "percent"},
		{"a percent without digits", "pkcs11:token=a%zz", "percent"},
		{"a label that is not UTF-8", "pkcs11:token=%ff", "UTF-8"},
		{"a NUL in a label", "pkcs11:token=a%00", "UTF-8"},
		{"a slot with a zero in front", "pkcs11:slot-id=01", "decimal"},
		{"a negative slot", "pkcs11:slot-id=-1", "decimal"},
		{"an unknown type", "pkcs11:type=key", "secret-key"},
		{"a bad version", "pkcs11:library-version=3.x", "major.minor"},
		{"too long a value", "pkcs11:token=" + strings.Repeat("a", 1025), "longer"},
		{"too long a URI", "pkcs11:" + strings.Repeat("a", 5000), "longer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := hsm.ParseURI(c.in)
			if !errors.Is(err, hsm.ErrURI) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a bad URI with %q", err, c.says)
			}
		})
	}
}

func TestParseURIRefusesPINs(t *testing.T) {
	for _, in := range []string{
		"pkcs11:token=a?pin-value=s3cret", "pkcs11:token=a;pin-value=s3cret", "pkcs11:pin-value=s3cret", "pkcs11:token=a?pin-value",
		"pkcs11:token=a?pin-source=s3 cret",
	} {
		_, err := hsm.ParseURI(in)
		if err == nil || strings.Contains(err.Error(), "s3") {
			t.Errorf("%s: %v", in, err)
		}
	}
	if _, err := hsm.ParseURI("pkcs11:?pin-value=1"); !errors.Is(err, hsm.ErrPINValue) || !strings.Contains(err.Error(), "pin-source") {
		t.Errorf("pin-value: %v, want a message with the way out", err)
	}
}

func TestMatchesToken(t *testing.T) {
	token := hsm.TokenInfo{
		Label: "a", Serial: "1", Manufacturer: "m", Model: "v2", Slot: 7, SlotDescription: "d", SlotManufacturer: "s",
		Module: hsm.ModuleInfo{Manufacturer: "lm", Description: "ld", Version: "2.0"},
	}
	for in, want := range map[string]bool{
		"pkcs11:": true, "pkcs11:token=a": true, "pkcs11:token=b": false, "pkcs11:serial=1;token=a": true, "pkcs11:serial=2;token=a": false,
		"pkcs11:manufacturer=m;model=v2": true, "pkcs11:model=v3": false, "pkcs11:slot-id=7": true, "pkcs11:slot-id=8": false,
		"pkcs11:slot-description=d;slot-manufacturer=s": true, "pkcs11:slot-manufacturer=x": false,
		"pkcs11:library-version=2": true, "pkcs11:library-version=2.0": true, "pkcs11:library-version=2.1": false,
		"pkcs11:library-manufacturer=lm;library-description=ld": true,
	} {
		u, err := hsm.ParseURI(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.MatchesToken(token); got != want {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func FuzzParseURI(f *testing.F) {
	for _, s := range []string{
		"pkcs11:", "pkcs11:token=a;id=%00%FF;object=k;type=private?pin-source=file:/x&module-name=s",
		"pkcs11:slot-id=18446744073709551615", "pkcs11:token=a;token=a", "pkcs11:token=%", "pkcs11:?pin-value=1",
		"pkcs11:library-version=1.2;slot-manufacturer=a%3Bb", "PkCs11:model=&",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := hsm.ParseURI(s)
		if err != nil {
			if !errors.Is(err, hsm.ErrURI) {
				t.Fatalf("an error without its type: %v", err)
			}
			return
		}
		written := u.String()
		again, err := hsm.ParseURI(written)
		if err != nil || !reflect.DeepEqual(u, again) || again.String() != written {
			t.Fatalf("%q became %q, which became %+v, %v", s, written, again, err)
		}
	})
}
