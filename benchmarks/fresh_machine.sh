#!/usr/bin/env bash
# The README's first commands, as they stand in it, by a new user of a fresh Debian. As root:
#
#     bash benchmarks/fresh_machine.sh SUITE [FURTHER COMMAND]     # bookworm, trixie, sid, …
#
# The machine is a tree that debootstrap makes in $FRESH (/var/tmp/fresh-SUITE) unless one is there;
# Ubuntu's needs --components=main,universe. The further command runs last, in the same shell. The
# tree stays; the user is made anew.
set -euo pipefail
suite=$1 further=${2:-}
tree=${FRESH:-/var/tmp/fresh-$suite}
cd "$(dirname "$0")/.."

[ -d "$tree" ] || debootstrap --variant=minbase "$suite" "$tree" > "$tree.log"
if [ ! -f "$tree/etc/sudoers.d/newcomer" ]; then
  cat > "$tree/etc/apt/apt.conf.d/fresh" << 'END'
quiet "2"; Dpkg::Use-Pty "0"; APT::Get::Assume-Yes "true";
Acquire::Check-Valid-Until "false";  // a mirror may be some days behind
END
  chroot "$tree" apt-get update
  chroot "$tree" apt-get install sudo ca-certificates > "$tree.log" 2>&1
  cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"  # a proxy's too
  echo 'newcomer ALL=(ALL) NOPASSWD: ALL' > "$tree/etc/sudoers.d/newcomer"
fi
chroot "$tree" userdel --remove newcomer 2> /dev/null || true
chroot "$tree" useradd --create-home --shell /bin/bash newcomer
home=$tree/home/newcomer
mkdir "$home/project"
git archive HEAD | tar --extract --directory "$home/project"
{
  cat << 'END'
set -e
cd ~/project
timed() {
  echo "\$ $1"
  local begin=$SECONDS
  eval "$1"
  echo "[$((SECONDS - begin)) s]"
}
END
  # The first block of commands, less the line for tests.
  sed -n '/^```bash$/,/^```$/p' README.md | sed '1d;/^```$/,$d' |
    grep -v requirements-dev.txt | while read -r line; do printf 'timed %q\n' "$line"; done
  [ -z "$further" ] || printf 'timed %q\n' "$further"
  echo 'python --version; g++ --version | head -1'
  echo 'pip list 2> /dev/null | grep -E "^(jittor|numpy|pillow) "'
} > "$home/commands.sh"
chroot "$tree" chown --recursive newcomer: /home/newcomer

mapfile -t kept < <(env | grep -E '^(PIP|SSL_CERT)_')  # of this machine's environment, pip's alone
tree=$tree exec unshare --mount bash -c '
  mount -t proc proc "$tree/proc" && mount --rbind /dev "$tree/dev" &&
  exec env -i PATH=/usr/bin:/bin:/usr/sbin LANG=C.UTF-8 "$@" chroot "$tree" \
    su newcomer -c "bash ~/commands.sh"' bash "${kept[@]}"
