#!/usr/bin/env bash
# Make an arm64 Debian 12 (Python 3.11, as on a Raspberry Pi) with an SSH server: tests/arm64.sh FOLDER
# The tests run it under QEMU as a device. Needs root, debootstrap, qemu-user-static; takes some minutes, once.
# Packages come from the mirror that this machine's apt is set up with, and stay in FOLDER/packages for another try.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd) root=$(cd "$1" && pwd)/root suite=bookworm binfmt=/proc/sys/fs/binfmt_misc
include=python3,openssh-server,ca-certificates
say() { printf 'arm64: %s (%s s)\n' "$1" "$SECONDS"; }
fail() {
    printf 'arm64: %s\n' "$1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "making a foreign system needs root; run it with sudo"
for program in debootstrap qemu-aarch64-static unshare; do
    command -v "$program" >/dev/null || fail "$program is missing; apt-get install debootstrap qemu-user-static util-linux"
done

# The kernel starts arm64 programs by QEMU; F keeps QEMU open, so that it is found inside the other system too.
if [ "$(uname -m)" != aarch64 ] && [ ! -e "$binfmt/qemu-aarch64" ]; then
    say "teaching the kernel to start arm64 programs"
    [ -e "$binfmt/register" ] || mount -t binfmt_misc binfmt_misc "$binfmt" || fail "this kernel lacks binfmt_misc"
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >"$binfmt/register"
fi

if [ -e "$folder/.done" ]; then
    say "there already"
    exit
fi

if [ ! -e "$folder/.unpacked" ]; then
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: $suite" | head -n 1)
    [ -n "$mirror" ] || fail "apt knows no mirror of Debian $suite here; add one to /etc/apt/sources.list"
    say "fetching Debian $suite for arm64"
    rm -rf "$root"
    mkdir -p "$folder/packages" "$root/etc/dpkg/dpkg.cfg.d"
    printf '%s\n' force-unsafe-io path-exclude=/usr/share/{doc,man,locale}/* >"$root/etc/dpkg/dpkg.cfg.d/small"
    debootstrap --arch=arm64 --foreign --variant=minbase --include="$include" --cache-dir="$folder/packages" \
        "$suite" "$root" "$mirror" >"$folder/first.log" 2>&1 || fail "debootstrap failed: $(tail -n 3 "$folder/first.log")"
    touch "$folder/.unpacked"
fi

say "setting the packages up, under QEMU"
if ! unshare --mount --propagation private chroot "$root" /debootstrap/debootstrap --second-stage >"$folder/second.log" 2>&1; then
    rm -f "$folder/.unpacked"
    fail "the second stage failed, see $folder/second.log; run this again: $(tail -n 3 "$folder/second.log")"
fi
[ "$(chroot "$root" /bin/uname -m)" = aarch64 ] || fail "the system does not say that it is aarch64"
touch "$folder/.done"
say "done: $(chroot "$root" /usr/bin/python3 --version), $(du -sm "$root" | cut -f 1) MiB in $root"
