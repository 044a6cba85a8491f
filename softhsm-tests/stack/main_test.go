//go:build soak

package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/privyseal/privyseal/internal/pgtest"
)

// partyEnv has the path of the settings of a party, which the test binary then
// is.
const partyEnv = "PRIVYSEAL_TEST_PARTY"

func TestMain(m *testing.M) {
	if path := os.Getenv(partyEnv); path != "" {
		if err := runParty(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m)
}

// runParty is the main function of a party. It ends with its standard input.
func runParty(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s := new(settings)
	if err := json.Unmarshal(text, s); err != nil {
		return err
	}
	if s.Source != "" {
		return runProvider(context.Background(), s)
	}
	return runClient(context.Background(), s)
}

// An order is a line on a party's standard input.
type order struct {
	Do   string
	Room string `json:",omitempty"`
	User string `json:",omitempty"`
	Run  int    `json:",omitempty"` // tells the texts of one run from those of others
}

// A line is one on a party's standard output: an answer to an order, or what a
// client has to tell of its load.
type line struct {
	Answer bool            `json:",omitempty"`
	Err    string          `json:",omitempty"` // of an answer
	Value  json.RawMessage `json:",omitempty"`

	Ack      *ack   `json:",omitempty"`
	Commit   bool   `json:",omitempty"` // a commit was acknowledged
	Open     bool   `json:",omitempty"` // an outcome is not known for now
	Surprise string `json:",omitempty"` // an error that faults do not explain
}

// An ack is a message that the hub acknowledged to its sender.
type ack struct{ Room, Text, ID string }

// obey answers orders until there are no more.
func obey(out *json.Encoder, do func(*order) (any, error)) error {
	in := json.NewDecoder(os.Stdin)
	for {
		o := new(order)
		if err := in.Decode(o); err != nil {
			return nil // the test is over, or dead
		}
		v, err := do(o)
		a := &line{Answer: true}
		if err != nil {
			a.Err = err.Error()
		} else if a.Value, err = json.Marshal(v); err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}
