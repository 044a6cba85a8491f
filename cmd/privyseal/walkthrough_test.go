package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

var (
	shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")
	refusedEnd = regexp.MustCompile(`(?m)^(.*\S)\s+# refused: (.+)$`)
)

// refusedFunction is what a line that ends in "# refused: REASON" is run by.
const refusedFunction = `refused() {
	local want=$1 out status=0
	shift
	out=$("$@" 2>&1) || status=$?
	if [[ $status != 3 || $out != *"$want"* ]]; then
		echo "want refusal ($want), got status $status: $*: $out" >&2
		exit 1
	fi
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
`

// cmdWalkthrough is "walkthrough FILE": it writes the shell blocks of a file in
// docs as one script.
func cmdWalkthrough(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: walkthrough FILE")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", args[0]))
	ts.Check(err)
	var script strings.Builder
	script.WriteString(refusedFunction)
	blocks := shellBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 8 {
		ts.Fatalf("docs/%s has only %d shell blocks", args[0], len(blocks))
	}
	for _, b := range blocks {
		script.WriteString(refusedEnd.ReplaceAllString(b[1], `refused "$2" $1`))
	}
	ts.Check(os.WriteFile(ts.MkAbs("walkthrough.sh"), []byte(script.String()), 0o600))
}
