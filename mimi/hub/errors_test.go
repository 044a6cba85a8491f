package hub_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/mimi/hub"
)

// TestCredentialErrorTold: who is refused learns the code, and no address of what
// the hub asked.
func TestCredentialErrorTold(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 443}, Err: errors.New("refused")}
	for _, c := range []struct {
		err     error
		want    string
		without string
	}{
		{credentials.Errorf(credentials.CodeStatusUnavailable, "status", "https://status.inside/1: %w", dial), "status-unavailable", "inside"},
		{credentials.Errorf(credentials.CodeStatusUnavailable, "status", "https://status.inside/1 answers 500"), "status-unavailable", "inside"},
		{credentials.Errorf(credentials.CodeIssuerUnknown, "iss", "https://keys.inside/jwks: %w", dial), "issuer-unknown", "inside"},
		{dial, "cannot be had", "10.1.2.3"},
		{credentials.Errorf(credentials.CodeExpired, "exp", "at 12:00"), "expired in exp: at 12:00", "cannot"},
	} {
		told := (&hub.CredentialError{Err: c.err}).Told()
		if !strings.Contains(told, c.want) || strings.Contains(told, c.without) {
			t.Errorf("%v is told as %q", c.err, told)
		}
	}
}
