#!/bin/sh
# Runs every fuzz target of the tree in turn, FUZZTIME each. What is found
# interesting is made smaller for ten tries: by default one input may take a
# minute of that, in which nothing else is tried.
set -eu
: "${GO:=go}" "${FUZZTIME:=10m}" "${FUZZPARALLEL:=1}"

failed=0 count=0
for pkg in $($GO list "${@:-./...}"); do
	for target in $($GO test -list '^Fuzz' "$pkg" 2>/dev/null | grep '^Fuzz' || true); do
		count=$((count + 1))
		echo "fuzz $pkg $target $FUZZTIME"
		$GO test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 10x -parallel "$FUZZPARALLEL" "$pkg" || failed=$((failed + 1))
	done
done
echo "fuzz: $count targets, $failed failed"
[ "$count" -gt 0 ] && [ "$failed" = 0 ]
