#!/usr/bin/env bash
# The README's first commands, as they stand in it, by a new user of a fresh Debian or Ubuntu. As root:
#
#     bash benchmarks/fresh_machine.sh SUITE [FURTHER COMMAND]     # bookworm, trixie, sid, noble, …
#
# The machine is a tree that debootstrap makes in $FRESH, /var/tmp/fresh-SUITE if unset, unless it is
# there already (of Ubuntu it needs --components=main,universe). The further command runs after
# them, in the same shell. The tree stays, the new user's home in it is made anew.
set -euo pipefail
suite=$1 further=${2:-}
tree=${FRESH:-/var/tmp/fresh-$suite}
cd "$(dirname "$0")/.."

[ -d "$tree" ] || debootstrap --variant=minbase "$suite" "$tree" > "$tree.log"
if [ ! -f "$tree/etc/sudoers.d/newcomer" ]; then
  echo 'APT::Get::Assume-Yes "true";' > "$tree/etc/apt/apt.conf.d/yes"
  chroot "$tree" apt-get -qq update
  DEBIAN_FRONTEND=noninteractive chroot "$tree" apt-get -qq install sudo ca-certificates > "$tree.log"
  cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"  # a proxy's too
  echo 'newcomer ALL=(ALL) NOPASSWD: ALL' > "$tree/etc/sudoers.d/newcomer"
fi
chroot "$tree" userdel --remove newcomer 2> /dev/null || true
chroot "$tree" useradd --create-home --shell /bin/bash newcomer
home=$tree/home/newcomer
mkdir "$home/project"
git archive HEAD | tar --extract --directory "$home/project"
{
  echo 'cd ~/project; set -e; export DEBIAN_FRONTEND=noninteractive; timed() {'
  echo '  echo "\$ $1"; local begin=$SECONDS; eval "$1"; echo "[$((SECONDS - begin)) s] ${1%% *} …"; }'
  # The first block of commands, less the line for tests.
  sed -n '/^```bash/,/^```/{/^```/!p};/^```bash/,/^```/{/^```$/q}' README.md |
    grep -v requirements-dev.txt | while read -r line; do printf 'timed %q\n' "$line"; done
  echo 'python --version; g++ --version | head -1; pip list 2> /dev/null | grep -iE "^(jittor|numpy|pillow) "'
  [ -z "$further" ] || printf 'timed %q\n' "$further"
} > "$home/commands.sh"
chroot "$tree" chown --recursive newcomer: /home/newcomer

# Of this machine's environment the user has pip's settings alone.
kept=(); while IFS= read -r variable; do kept+=("$variable"); done < <(env | grep -E '^(PIP|SSL_CERT)_' || true)
export tree
exec unshare --mount bash -c 'mount -t proc proc "$tree/proc" && mount --rbind /dev "$tree/dev" &&
  exec env -i PATH=/usr/bin:/bin LANG=C.UTF-8 "$@" chroot "$tree" su newcomer -c "bash ~/commands.sh"' \
  bash "${kept[@]}"
