#!/usr/bin/env bash
# Fetch the real llama-bench of Debian, with every library that it needs, as FOLDER/llama-bench: tests/llama.sh FOLDER
# Nothing is installed. Needs no root; packages come from the mirror that this machine's apt is set up with.
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd) suite=forky native=$(dpkg --print-architecture)
root=$folder/root
say() { printf 'llama: %s (%s s)\n' "$1" "$SECONDS"; }
fail() {
    printf 'llama: %s\n' "$1" >&2
    exit 1
}

if [ -e "$folder/.done" ]; then
    say "there already"
    exit
fi
. "$(dirname "$0")/debian.sh"
apt_of "$folder/apt" "$suite" "$native"

say "fetching llama-bench"
wanted=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces --no-enhances llama.cpp-tools |
    grep -E '^(llama\.cpp-tools|lib(llama|ggml|mtmd|c6|gcc-s|gomp|stdc\+\+|ssl3|zstd|curl4)[a-z0-9.+-]*|zlib1g)$' | grep -v backend)
rm -rf "$folder/packages" "$root"
mkdir -p "$folder/packages" "$root"
# shellcheck disable=SC2086  # one word for each package
(cd "$folder/packages" && apt-get download -qq $wanted)
for package in "$folder"/packages/*.deb; do
    dpkg-deb -x "$package" "$root"
done

# It is started by its own release's loader, and told where the kernels are that run on any processor of this architecture.
libraries=$(dirname "$(find "$root/usr/lib" -name 'libllama.so*' | head -n 1)")
loader=$(find "$libraries" -maxdepth 1 -name 'ld-linux-*' | head -n 1)
kernels=$(find "$libraries/ggml" -name 'libggml-cpu-x64.so' -o -name 'libggml-cpu-armv8.0_1.so' | head -n 1)
[ -n "$loader" ] && [ -n "$kernels" ] || fail "the packages are laid out otherwise than was expected; see $root"
cat >"$folder/llama-bench" <<END
#!/bin/sh
export GGML_BACKEND_PATH='$kernels'
exec '$loader' --library-path '$libraries:$libraries/llama' '$root/usr/bin/llama-bench' "\$@"
END
chmod +x "$folder/llama-bench"
"$folder/llama-bench" --help >"$folder/help.txt" 2>&1 || fail "it does not start: $(tail -n 1 "$folder/help.txt")"
touch "$folder/.done"
say "done: $(dpkg-deb -f "$folder"/packages/llama.cpp-tools_*.deb Version), $(du -sm "$root" | cut -f 1) MiB in $root"
