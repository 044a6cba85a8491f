#!/bin/sh
# Installs the Debian packages that the demo and the tests need: software
# tokens, a software TPM and the tools that check our output. Does nothing, and
# says nothing, when all of them are there.
set -eu

packages="
chromium
gcc
libc6-dev
libnss3
libnss3-tools
libtpm2-pkcs11-1
libtpm2-pkcs11-tools
opencryptoki
opensc
openssl
p11-kit
p11-kit-modules
postgresql
softhsm2
swtpm
swtpm-tools
tpm2-openssl
tpm2-tools
"

missing=""
for p in $packages; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "deps: these Debian packages are missing and apt-get is not here:$missing" >&2
	exit 1
fi
if [ "$(id -u)" = 0 ]; then
	as_root=""
elif command -v sudo >/dev/null 2>&1; then
	as_root="sudo"
else
	echo "deps: run this as root, or install sudo; to be installed:$missing" >&2
	exit 1
fi

echo "deps: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # the list is meant to be split
if ! { $as_root apt-get update -qq &&
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
	cat "$log" >&2
	echo "deps: apt-get failed; see above" >&2
	exit 1
fi
echo "deps: done"
