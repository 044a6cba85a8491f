package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/privyseal/privyseal/credentials"
	"github.com/privyseal/privyseal/credentials/statuslist"
)

func runStatusList(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return runCorpus("statuslist", args, judgeStatusList, stdin, stdout, stderr)
}

func judgeStatusList(c *corpusCase) error {
	uri, err := c.text("uri")
	if err != nil {
		return err
	}
	now, err := c.now()
	if err != nil {
		return err
	}
	key, err := c.publicKey("issuer_jwk")
	if err != nil {
		return err
	}
	format, token, err := c.statusListToken()
	if err != nil {
		return err
	}
	rules := statuslist.Rules{Keys: statuslist.StaticKeys{key}, Now: func() time.Time { return now }}
	_, list, err := rules.Verify(context.Background(), format, token, uri)
	if err != nil {
		return err
	}
	return c.lookUp(list)
}

// statusListToken returns the token: text for a JWT, hex for a CWT.
func (c *corpusCase) statusListToken() (statuslist.Format, []byte, error) {
	format, err := c.text("format")
	if err != nil {
		return 0, nil, err
	}
	text, err := c.text("token")
	if err != nil {
		return 0, nil, err
	}
	if format == "jwt" || format != "cwt" && strings.Contains(text, ".") {
		return statuslist.JWT, []byte(text), nil
	}
	token, _, err := c.hex("token")
	return statuslist.CWT, token, err
}

// lookUp looks every index up and compares the statuses, if the case has them.
func (c *corpusCase) lookUp(list *statuslist.List) error {
	var indices oneOrMore[json.Number]
	if _, err := c.decode("idx", &indices); err != nil {
		return err
	}
	got := make([]int, len(indices))
	for i, text := range indices {
		index, err := strconv.ParseInt(string(text), 10, 64)
		status, ok := list.Get(index)
		if err != nil || !ok {
			return credentials.Errorf(credentials.CodeStatusInvalid, "idx", "%s is out of range", text)
		}
		got[i] = int(status)
	}
	var want oneOrMore[int]
	if there, err := c.decode("statuses", &want); err != nil {
		return err
	} else if there && !slices.Equal(got, want) {
		return &errClaims{fmt.Sprintf("statuses %v", got)}
	}
	return nil
}
