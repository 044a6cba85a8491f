#!/bin/bash
# Runs in the sandbox of the unit, and tries what it must not let through.
# Its argument says whether the unit has the drop-in for a TPM.
set -u
bad=0

may() {
	local what=$1
	shift
	"$@" >/dev/null 2>&1 || { echo "probe: cannot $what"; bad=1; }
}
never() {
	local what=$1
	shift
	if "$@" >/dev/null 2>&1; then
		echo "probe: can $what"
		bad=1
	fi
}
# filtered CALL...: the system call of that number and arguments fails with EPERM,
# which without the filter it would not.
filtered() {
	local list
	list=$(printf '%s,' "$@")
	perl -e "exit(syscall(${list%,}) == -1 && 0 + \$! == 1 ? 0 : 1)" || { echo "probe: the system call $* is not filtered"; bad=1; }
}
# opens NODE says what comes of opening it.
opens() { LC_ALL=C dd if="$1" count=0 2>&1 || true; }

may "write into its state" sh -c 'echo x >/var/lib/privyseal/probe && rm /var/lib/privyseal/probe'
may "write into its runtime folder" sh -c 'echo x >/run/privyseal/probe'
may "read its configuration" cat /etc/privyseal/privyseal.json
may "read its PIN" cat "$CREDENTIALS_DIRECTORY/pin"
may "write into its own /tmp" sh -c 'echo x >/tmp/probe'
never "see the /tmp of others" test -e /tmp/marker
never "write into another's state" sh -c 'echo x >/var/lib/other/probe'
never "write into /etc" sh -c 'echo x >/etc/privyseal/probe'
never "write into /usr" sh -c 'echo x >/usr/probe'
never "read /home" cat /home/operator/file
never "write into /home" sh -c 'echo x >/home/operator/probe'
never "read /root" cat /root/file
never "see process 1" test -e /proc/1/status
never "see the kernel's settings" test -e /proc/sys/kernel/hostname
never "write to control groups" mkdir /sys/fs/cgroup/probe
never "make a user namespace" unshare --user true
never "make a mount namespace" unshare --mount true
never "mount" mount -t tmpfs probe /tmp
never "make a setuid file" sh -c 'cp /usr/bin/id /var/lib/privyseal/id && trap "rm /var/lib/privyseal/id" EXIT && chmod u+s /var/lib/privyseal/id'
never "become root by a setuid file" sh -c 'test "$(/usr/local/bin/suid-id -u)" = 0'
never "run in real time" chrt -f 1 true
never "choose its processor" taskset -c 0 true
never "change its personality" setarch -R true
never "open a packet socket" perl -MSocket -e 'socket(my $s, 17, SOCK_RAW, 0) or exit 1'
never "open a netlink socket" perl -MSocket -e 'socket(my $s, 16, SOCK_RAW, 0) or exit 1'
may "open a socket" perl -MSocket -e 'socket(my $s, AF_INET, SOCK_STREAM, 0) or exit 1'
case $(uname -m) in
x86_64)
	filtered 9 0 4096 7 34 -1 0 # mmap, writable and executable
	filtered 165 0 0 0 0 0      # mount
	filtered 169 0 0 0          # reboot
	filtered 101 -1 0 0 0       # ptrace
	filtered 321 -1 0 0         # bpf
	filtered 246 0 0 0 0        # kexec_load
	filtered 155 0 0            # pivot_root
	;;
esac
# "Operation not permitted" is the answer of the rule about devices; any other is the driver's.
case $1/$(opens /dev/tpmrm0) in
without-tpm/*"Operation not permitted"*) ;;
without-tpm/* | with-tpm/*"Operation not permitted"* | with-tpm/*"Permission denied"*)
	echo "probe: /dev/tpmrm0 $1: $(opens /dev/tpmrm0)"
	bad=1
	;;
esac
may "open /dev/null" sh -c ': >/dev/null'
exit $bad
