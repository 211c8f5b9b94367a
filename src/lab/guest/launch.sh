#!/usr/bin/env bash
# In mount and process namespaces of its own: boots the guest, lets its output through, and ends with its exit code (99: none came).
# Usage: launch.sh KERNEL CORE MEMORY_MB INIT CWD COMMAND...
set -u
kernel=$1 core=$2 memory=$3 init=$4 cwd=$5
shift 5
mount -t tmpfs -o mode=755 run /run || exit 99
mount -t tmpfs -o size=$((memory + 64))m shm /dev/shm 2>/dev/null || true
mkdir -p /run/out /run/uml
: >/run/out/stdout
: >/run/out/stderr
{
  printf 'cd %q\n' "$cwd"
  for name in PATH CI NO_COLOR BERTH_FUZZ_CASES; do [ -n "${!name-}" ] && printf 'export %s=%q\n' "$name" "${!name}"; done
  printf 'export BERTH_GUEST=1 HOME=/root LC_ALL=C\n'
  printf '%q ' "$@"
  printf '\n'
} >/run/out/command
printf '%s' "$cwd" >/run/out/cwd
cp "$init" /run/out/init.sh
chmod +x /run/out/init.sh
tail -n +1 -s 0.2 -f /run/out/stdout &
out=$!
tail -n +1 -s 0.2 -f /run/out/stderr >&2 &
err=$!
TMPDIR=/dev/shm taskset -c "$core" "$kernel" mem="${memory}M" root=/dev/root rootfstype=hostfs rootflags=/ ro init=/run/out/init.sh \
  uml_dir=/run/uml umid=guest con=null con0=null,fd:1 quiet panic=-1 </dev/null >/run/console 2>&1
sleep 0.5 # The tails' last look.
kill "$out" "$err" 2>/dev/null
wait "$out" "$err" 2>/dev/null
if [ -s /run/out/rc ]; then exit "$(cat /run/out/rc)"; fi
tail -c 4000 /run/console >&2
exit 99
