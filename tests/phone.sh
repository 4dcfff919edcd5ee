#!/usr/bin/env bash
# Make what a phone looks like from a computer: tests/phone.sh FOLDER [x86_64|aarch64]
# A real adbd, as Android starts it, in a system that has no /lib, no /usr and no /tmp: its programs are one busybox.
# Needs root, adb, util-linux and iproute2; the system of the other architecture runs under QEMU.
# Packages come from the mirror that this machine's apt is set up with.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd) machine=${2:-$(uname -m)} suite=trixie
root=$folder/$machine/root native=$(dpkg --print-architecture)
say() { printf 'phone: %s (%s s)\n' "$1" "$SECONDS"; }
fail() {
    printf 'phone: %s\n' "$1" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "a phone has processes of another user in namespaces of their own; run this as root"
for program in adb unshare nsenter taskset ip; do
    PATH=$PATH:/usr/sbin command -v "$program" >/dev/null || fail "$program is missing; apt-get install adb util-linux iproute2"
done
case $machine in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) fail "$machine: x86_64 or aarch64" ;;
esac
if [ -e "$folder/$machine/.done" ]; then
    say "there already"
    exit
fi

. "$(dirname "$0")/debian.sh"
apt_of "$folder/apt" "$suite" "$native" "$architecture"
say "fetching adbd"
mkdir -p "$folder/packages"
adbd=(adbd android-libbase android-libboringssl android-libcutils android-liblog libbrotli1 liblz4-1 libprotobuf32t64 libsystemd0
    libcap2 libc6 libgcc-s1 libstdc++6 zlib1g libzstd1 libxxhash0 libgcrypt20 libgpg-error0)
(cd "$folder/packages" && apt-get download -qq "${adbd[@]/%/:$native}" "busybox-static:$architecture")

say "laying the system out"
rm -rf "$folder/${machine:?}" "$folder/busybox"
mkdir -p "$root"/{system/bin,apex/adbd,data/local/tmp,proc,sys,dev,sdcard} "$folder/busybox"
for package in "$folder"/packages/*_"$native".deb; do
    case $package in */busybox*) ;; *) dpkg-deb -x "$package" "$root/apex/adbd" ;; esac
done
rm -rf "$root"/apex/adbd/usr/share
dpkg-deb -x "$folder"/packages/busybox-static_*_"$architecture".deb "$folder/busybox"
cp "$(find "$folder/busybox" -path "*/bin/busybox" -type f | head -n 1)" "$root/system/bin/busybox"
for name in sh cat ls cp mv rm rmdir mkdir chmod chown ln readlink uname echo df du find id ps kill sleep sed grep head tail stat sync \
    test '[' touch true false sha256sum wc printf env expr tr cut dd date sort xargs taskset nohup setsid which dirname basename; do
    ln -sf busybox "$root/system/bin/$name"
done
ln -s system/bin "$root/bin"
touch "$folder/$machine/.done"
say "done: $(du -sm "$root" | cut -f 1) MiB in $root"
