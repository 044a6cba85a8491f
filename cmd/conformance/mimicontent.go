package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/privyseal/privyseal/mimi/content"
)

// runMIMIContent judges files that are one MIMI content message each.
func runMIMIContent(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("mimi-content", flag.ContinueOnError)
	flags.SetOutput(stderr)
	sender := flags.String("sender", "", "user `URI` of the sender, for the message ID")
	room := flags.String("room", "", "room `URI`, for the message ID")
	reencode := flags.Bool("reencode", false, "also check that encoding what was decoded gives the same octets")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if flags.NArg() == 0 || (*sender == "") != (*room == "") {
		fmt.Fprintln(stderr, "usage: conformance mimi-content [--sender URI --room URI] [--reencode] FILE...")
		return exitUsage
	}
	status := exitOK
	for _, name := range flags.Args() {
		verdict, err := judgeContent(name, stdin, *sender, *room, *reencode)
		if err != nil {
			status = exitFailed
			fmt.Fprintln(stderr, err)
			verdict = fmt.Sprintf("refused (%s)", contentErrorName(err))
		}
		fmt.Fprintf(stdout, "%s %s\n", name, verdict)
	}
	return status
}

func judgeContent(name string, stdin io.Reader, sender, room string, reencode bool) (string, error) {
	encoded, err := readBounded(name, stdin, content.MaxMessage)
	if err != nil {
		return "", err
	}
	m, err := content.Parse(encoded)
	if err != nil {
		return "", err
	}
	if reencode {
		again, err := m.Encode()
		if err != nil {
			return "", err
		}
		if !bytes.Equal(again, encoded) {
			return "", errReencode
		}
	}
	if sender == "" {
		return "ok", nil
	}
	id, err := content.ComputeID(sender, room, encoded, m.Salt)
	if err != nil {
		return "", err
	}
	return "ok id=" + id.String(), nil
}

var errReencode = errors.New("encoding what was decoded gives other octets")

// readBounded reads a file of at most one octet more than limit, so that the
// decoder can say that it is too large.
func readBounded(name string, stdin io.Reader, limit int64) ([]byte, error) {
	f, err := openInput(name, stdin)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

func contentErrorName(err error) string {
	var e *content.Error
	switch {
	case errors.As(err, &e):
		return string(e.Code)
	case errors.Is(err, errReencode):
		return "reencode"
	}
	return "unreadable"
}
