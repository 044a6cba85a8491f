#!/bin/bash
# What machine.sh runs in its machine: the blocks of docs/operating.md, and then
# what the unit promises, looked at from outside and from within.
set -euo pipefail
trap 'status=$?; echo "unit: failed at line $LINENO: $BASH_COMMAND" >&2; journalctl --no-pager -o cat -u privyseal -n 40 >&2 || true; exit $status' ERR

say() { printf '== %s\n' "$*"; }

# chapter NAME writes the shell blocks of a chapter of docs/operating.md.
chapter() {
	awk -v name="## $1" '
		/^## / {in_it = ($0 == name)}
		/^```/ {if (in_block) {in_block = 0; next} in_block = ($0 == "```sh"); next}
		in_block && in_it {print; n++}
		END {exit n == 0}' /src/docs/operating.md
}

mkdir -p /root/clone/bin
cp /src/bin/privyseal /root/clone/bin/
cp -r /src/packaging /root/clone/
cd /root/clone

for c in Install "First keys" Start "The PIN sealed"; do
	say "docs/operating.md: $c"
	chapter "$c" >/root/block.sh
	bash -euxo pipefail /root/block.sh
done

export PRIVYSEAL_HOME=/root/clone/caller
operator=http://127.0.0.1:9090

fail() {
	echo "unit: $*" >&2
	journalctl --no-pager -o cat -u privyseal -n 30 >&2
	exit 1
}

# signs makes a signature with a key through the service, and finds it in the journal.
signs() {
	local n
	for n in 1 2 3 4 5 6 7 8 9 10; do
		if privyseal remote sign "$1" content.txt --digest >content.sig; then
			privyseal-admin audit find "$(cat content.sig)" >found.txt
			grep -q 'result *signed' found.txt || fail "the journal has no entry of a signature of $1"
			return
		fi
		sleep 1
	done
	fail "no signature with $1"
}

main_pid() { systemctl show -P MainPID privyseal; }
pids() { cat "/sys/fs/cgroup/system.slice/privyseal.service/cgroup.procs" 2>/dev/null || true; }

# until_new_main PID waits for another main process that is ready.
until_new_main() {
	local n
	for n in $(seq 1 240); do
		if [ "$(systemctl show -P ActiveState privyseal)" = active ] && [ "$(main_pid)" != "$1" ] &&
			curl -sf -o /dev/null "$operator/health/ready"; then
			return
		fi
		sleep 0.25
	done
	fail "there is no new process after $1"
}

say "what its processes may do"
[ "$(pids | wc -l)" = 3 ] || fail "not a process and two workers: $(pids)"
uid=$(id -u privyseal)
for p in $(pids); do
	for want in "Uid:	$uid	$uid	$uid	$uid" "NoNewPrivs:	1" "Seccomp:	2" "CapBnd:	0000000000000000" "CapEff:	0000000000000000"; do
		grep -qx "$want" "/proc/$p/status" || fail "process $p is without $want"
	done
	if grep -qF "$(systemd-creds --name=pin decrypt /etc/privyseal/pin.cred)" "/proc/$p/environ" "/proc/$p/cmdline"; then
		fail "the PIN is in the environment or the arguments of $p"
	fi
done
if runuser -u nobody -- cat /run/credentials/privyseal.service/pin 2>/dev/null; then
	fail "others can read the PIN"
fi

say "what the sandbox refuses"
mkdir /home/operator /var/lib/other
echo secret >/home/operator/file
echo secret >/root/file
echo marker >/tmp/marker
chmod 0777 /var/lib/other /home/operator
install -m 4755 /usr/bin/id /usr/local/bin/suid-id
mknod -m 0666 /dev/tpmrm0 c 10 183 # a node to ask for, with no device behind it
cp /src/scripts/unit/probe.sh /usr/local/bin/probe.sh
# probes runs the probe in the unit's sandbox.
probes() {
	sed -e 's|^ExecStart=.*|ExecStart=/bin/bash /usr/local/bin/probe.sh '"$1"'|' -e 's|^Type=.*|Type=oneshot|' \
		-e '/^\(ExecReload\|Restart\|RestartSec\|WatchdogSec\|NotifyAccess\)=/d' /etc/systemd/system/privyseal.service \
		>/etc/systemd/system/probe.service
	# With an encrypted credential systemd lets a unit open the TPM unasked.
	printf '[Service]\nLoadCredential=\nLoadCredential=pin:/root/pin\nStandardOutput=append:/run/console\nStandardError=inherit\n' \
		>/etc/systemd/system/probe.service.d/probe.conf
	systemctl daemon-reload
	systemctl start probe || fail "the sandbox is not what it says"
}
mkdir /etc/systemd/system/probe.service.d
systemd-creds --name=pin decrypt /etc/privyseal/pin.cred >/root/pin
probes without-tpm
getent group tss >/dev/null || groupadd --system tss
cp packaging/privyseal.service.d/tpm.conf /etc/systemd/system/probe.service.d/
probes with-tpm
rm -f /dev/tpmrm0

say "reload"
signs doc-1
cp /etc/privyseal/policy.json policy.json
echo '{' >/etc/privyseal/policy.json
systemctl reload privyseal
for n in $(seq 1 40); do
	curl -sS "$operator/metrics" >metrics.txt
	grep -q '^privyseal_reloads_total{result="error"} 1$' metrics.txt && break
	sleep 0.25
done
grep -q '^privyseal_reloads_total{result="error"} 1$' metrics.txt || fail "a reload with a broken policy is not counted"
curl -sS "$operator/health/state" | grep -q '"error"' || fail "/health/state says nothing of it"
signs doc-1
sed "s/'raw'/'tls'/" policy.json >/etc/privyseal/policy.json
systemctl reload privyseal
for n in $(seq 1 40); do
	privyseal remote sign doc-1 content.txt --digest >/dev/null 2>refused.txt || break
	sleep 0.25
done
grep -q POLICY_DENIED refused.txt || fail "the new policy does not hold: $(cat refused.txt)"
cp policy.json /etc/privyseal/policy.json
systemctl reload privyseal
signs doc-1

say "restart"
before=$(main_pid)
journalctl --rotate --vacuum-time=1s --quiet
systemctl restart privyseal
until_new_main "$before"
journalctl --no-pager -o cat -u privyseal >journal.txt
if grep "worker was lost" journal.txt; then
	fail "its workers do not outlive its requests"
fi
signs doc-1

say "a worker is killed"
before=$(main_pid)
kill -KILL "$(pids | grep -vx "$before" | head -1)"
signs doc-1
[ "$(main_pid)" = "$before" ] || fail "the service was restarted for a worker"

say "the process is killed"
all=$(pids)
kill -KILL "$before"
until_new_main "$before"
for p in $all; do
	[ ! -e "/proc/$p" ] || fail "process $p outlived the service"
done
signs doc-1

say "the watchdog"
mkdir -p /run/systemd/system/privyseal.service.d
printf '[Service]\nWatchdogSec=3\n' >/run/systemd/system/privyseal.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart privyseal
until_new_main "$before"
before=$(main_pid)
sleep 7
[ "$(main_pid)" = "$before" ] || fail "the watchdog is not fed"
kill -STOP "$before"
until_new_main "$before"
journalctl --no-pager -o cat -u privyseal >journal.txt
grep -q "Watchdog timeout" journal.txt || fail "no word of the watchdog"
rm /run/systemd/system/privyseal.service.d/watchdog.conf
systemctl daemon-reload
signs doc-1

say "a TPM, on a socket"
install -d -o privyseal -m 0700 /var/lib/swtpm
systemd-run --quiet --unit=swtpm --uid=privyseal -p RuntimeDirectory=swtpm swtpm socket --tpm2 --tpmstate dir=/var/lib/swtpm \
	--server type=unixio,path=/run/swtpm/tpm --ctrl type=unixio,path=/run/swtpm/tpm.ctrl --flags not-need-init,startup-clear
for n in $(seq 1 40); do [ ! -S /run/swtpm/tpm ] || break; sleep 0.25; done
sed -i '/"devices": {/a \    "tpm": {"kind": "tpm", "address": "unix:/run/swtpm/tpm"},' /etc/privyseal/privyseal.json
before=$(main_pid)
# This socket serves one program at a time; /dev/tpmrm0 serves many.
systemctl stop privyseal
privyseal-admin key create acme.doc-2 --purpose raw --device tpm >created.txt
systemctl start privyseal
until_new_main "$before"
signs doc-2
grep -q 'device *tpm' found.txt || fail "the TPM did not sign: $(cat found.txt)"
signs doc-1

say "stop"
all=$(pids)
systemctl stop privyseal
[ "$(systemctl show -P Result privyseal)" = success ] || fail "it did not end well"
for p in $all; do
	[ ! -e "/proc/$p" ] || fail "process $p outlived the service"
done
privyseal-admin audit verify --journal-only
say "all is as docs/operating.md says"
