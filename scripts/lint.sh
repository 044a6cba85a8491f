#!/bin/sh
# Runs gofmt and staticcheck.
set -eu
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "lint: not formatted by gofmt:" $unformatted >&2
	exit 1
fi
go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 -tags soak "${@:-./...}"
