#!/bin/sh
# Boots a throw-away machine and runs steps.sh in it, to see that the unit and
# the commands of docs/operating.md work under systemd as process 1.
#
# The machine has namespaces of its own for mounts, processes, network, IPC, host
# name and control groups, and a root of its own in memory: /usr is this
# machine's with a layer in memory above it, all else is new. It sees nothing
# of /home, /root, /tmp, /run, /var and /dev/shm, and leaves nothing behind. Needs
# root, Linux with overlayfs and cgroup2, and the packages of scripts/deps.sh
# with systemd, dbus and sqlite3; no network. Takes about two minutes.
set -eu

src=$(cd "$(dirname "$0")/../.." && pwd)

if [ "${1:-}" != inside ]; then
	[ "$(id -u)" = 0 ] || { echo "unit: run this as root" >&2; exit 1; }
	[ -x "$src/bin/privyseal" ] || { echo "unit: bin/privyseal is missing; run: make build" >&2; exit 1; }
	for f in /lib/systemd/systemd /usr/bin/dbus-daemon /usr/bin/systemd-creds /usr/bin/softhsm2-util /usr/bin/swtpm \
		/usr/bin/unshare /usr/bin/openssl /usr/bin/curl /usr/bin/sqlite3; do
		[ -e "$f" ] || { echo "unit: $f is missing; run: make deps; apt-get install systemd dbus sqlite3 curl" >&2; exit 1; }
	done
	# A control group of its own, which is the root of those that it sees.
	cg=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/self/mounts)
	[ -n "$cg" ] || { echo "unit: no cgroup2 is mounted" >&2; exit 1; }
	group=$cg/privyseal-unit-$$
	mkdir "$group"
	trap 'find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true' EXIT
	status=0
	sh -c 'echo $$ >"$1/cgroup.procs" && exec unshare --mount --pid --ipc --uts --net --cgroup --fork --kill-child --propagation private \
		sh "$2" inside "$3" "$4"' - "$group" "$src/scripts/unit/machine.sh" \
		"$(readlink /proc/self/ns/mnt)" "$(readlink /proc/self/ns/pid)" || status=$?
	exit "$status"
fi

# From here on nothing reaches the machine outside. That is looked at first.
if [ "$(readlink /proc/self/ns/mnt)" = "$2" ] || [ $$ != 1 ] ||
	awk '/ shared:/ {found = 1} END {exit !found}' /proc/self/mountinfo; then
	echo "unit: this is not a mount namespace of its own" >&2
	exit 1
fi

root=/mnt
mount -t tmpfs -o mode=0755 machine "$root"
cd "$root"
mkdir -m 0755 usr etc var dev proc sys run mnt root home opt src old layer layer/upper layer/work
mkdir -m 1777 tmp
for d in bin sbin lib lib64; do ln -s "usr/$d" "$d"; done
mount -t overlay -o "lowerdir=/usr,upperdir=$root/layer/upper,workdir=$root/layer/work" usr usr
mount --bind "$src" src
mount -o remount,bind,ro src
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=0755 dev dev
mount -t tmpfs -o mode=0755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mknod -m 0666 dev/null c 1 3
mknod -m 0666 dev/zero c 1 5
mknod -m 0666 dev/full c 1 7
mknod -m 0666 dev/random c 1 8
mknod -m 0666 dev/urandom c 1 9
mknod -m 0666 dev/tty c 5 0
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mkdir -m 0755 dev/pts
mkdir -m 1777 dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=1777 shm dev/shm
mkdir -p var/lib var/log var/cache var/spool var/tmp etc/systemd/system
chmod 1777 var/tmp

# The least of /etc: users of the system, no service of this machine.
awk -F: '$3 < 1000 || $3 == 65534' /etc/passwd >etc/passwd
awk -F: '$3 < 1000 || $3 == 65534' /etc/group >etc/group
awk -F: 'BEGIN {OFS = ":"} {print $1, "*", "19000", "0", "99999", "7", "", "", ""}' etc/passwd >etc/shadow
chmod 0600 etc/shadow
sed -i '/^privyseal:/d' etc/passwd etc/group etc/shadow
cp /etc/ld.so.cache /etc/ld.so.conf /etc/nsswitch.conf /etc/login.defs etc/
cp -r /etc/ld.so.conf.d /etc/ssl /etc/pam.d /etc/alternatives /etc/security etc/ 2>/dev/null || true
rm -rf etc/ssl/private
printf '127.0.0.1 localhost machine\n' >etc/hosts
echo machine >etc/hostname
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >etc/machine-id
# No unit that reaches for the kernel, hardware or the network.
for u in systemd-udevd systemd-udev-trigger systemd-udev-settle systemd-sysctl systemd-modules-load systemd-resolved systemd-networkd \
	systemd-timesyncd systemd-logind systemd-binfmt systemd-hwdb-update modprobe@ \
	dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount; do
	case $u in *.*) ;; *) u=$u.service ;; esac
	ln -s /dev/null "etc/systemd/system/$u"
done
cat >etc/systemd/system/steps.service <<'UNIT'
[Unit]
Description=The steps
Requires=basic.target dbus.service
After=basic.target dbus.service
SuccessAction=exit
SuccessActionExitStatus=0
FailureAction=exit
[Service]
Type=oneshot
ExecStart=/bin/bash /src/scripts/unit/steps.sh
WorkingDirectory=/root
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
StandardOutput=append:/run/console
StandardError=inherit
TimeoutStartSec=600
UNIT
# What the steps print goes to us by a pipe, also after the root has changed.
mkfifo run/console
cat <run/console &

pivot_root . old
umount -l old
rmdir old
# Among the mounts of this machine only: systemd wants it, to hand over credentials.
mount --make-rshared /
exec </dev/null
exec env -i container=privyseal PATH=/usr/sbin:/usr/bin \
	setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-syslog,-sys_pacct,-mac_admin,-wake_alarm,-block_suspend \
	/lib/systemd/systemd --system --unit=steps.service --show-status=no --log-target=journal
