package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/privyseal/privyseal/internal/durable"
)

// maxNodeID bounds the file of a node's name.
const maxNodeID = 128

// nodeID is the name of this node among those that share a database. It is made
// once and kept in the state directory, so that a node that ended at any point
// finds what it was doing.
func nodeID(c *Config) (string, error) {
	path := filepath.Join(c.stateDir(), "node-id")
	b, err := readBounded(path, maxNodeID)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(c.stateDir(), 0o700); err != nil {
			return "", err
		}
		b = []byte(rand.Text() + "\n")
		err = durable.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("the name of this node: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%s has no name of a node; delete it, and a new one is made", path)
	}
	return id, nil
}
