package main

import (
	"encoding/json"
	"encoding/pem"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/privyseal/privyseal/mimi/client/clienttest"
	"github.com/privyseal/privyseal/mimi/identity/identitytest"
)

// hubCAs has the CA of each script's hub, by the script's name.
var hubCAs sync.Map

// cmdHub is "hub ca FILE", which writes the certificate of the CA of a hub, and
// "hub start HOST TRUST CERT", which starts the hub of a host that believes a
// trust configuration, sets $PROVIDER to its URL and writes its TLS
// certificate.
func cmdHub(t *testing.T, ts *testscript.TestScript, neg bool, args []string) {
	switch {
	case !neg && len(args) == 2 && args[0] == "ca":
		ca := identitytest.NewCA(t, "Hub CA", nil)
		hubCAs.Store(ts.Name(), ca)
		writeCertificate(ts, args[1], ca.Certificate.Raw)
	case !neg && len(args) == 4 && args[0] == "start":
		ca, ok := hubCAs.Load(ts.Name())
		if !ok {
			ts.Fatalf("run hub ca first")
		}
		_, evaluator := identitytest.Open(t, ts.MkAbs(args[2]), nil)
		h := clienttest.NewHubOf(t, args[1], ca.(*identitytest.CA), evaluator)
		writeCertificate(ts, args[3], h.ServerCertificate())
		ts.Setenv("PROVIDER", h.URL)
	default:
		ts.Fatalf("usage: hub ca FILE, or: hub start HOST TRUST CERT")
	}
}

func writeCertificate(ts *testscript.TestScript, file string, der []byte) {
	ts.Check(os.WriteFile(ts.MkAbs(file), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
}

// cmdField is "field VARIABLE PATH": sets a variable to a member of the last
// JSON output, such as 0.id.
func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field VARIABLE PATH")
	}
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for name := range strings.SplitSeq(args[1], ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i >= len(at) {
				ts.Fatalf("no element %s", name)
			}
			v = at[i]
		}
	}
	text, ok := v.(string)
	if !ok {
		ts.Fatalf("%s is no string but %v", args[1], v)
	}
	ts.Setenv(args[0], text)
}
