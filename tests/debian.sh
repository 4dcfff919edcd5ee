# An apt of its own, which knows another release than this machine; nothing of this machine's is changed. Read by other scripts.
# apt_of FOLDER SUITE ARCHITECTURE...: set it up, for this shell's apt-get and apt-cache. Wants `say` and `fail`.
apt_of() {
    local apt=$1 suite=$2 mirror architectures keys=/usr/share/keyrings/debian-archive-keyring.gpg
    shift 2
    architectures=$(printf '"%s"; ' "$@")
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | head -n 1)
    [ -n "$mirror" ] || fail "apt knows no mirror of Debian here; add one to /etc/apt/sources.list"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status"
    printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$mirror" "$suite" >"$apt/sources.list"
    cat >"$apt/conf" <<END
Dir::State "$apt";
Dir::State::Lists "$apt/lists";
Dir::State::Status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "root";
APT::Architectures { $architectures };
Acquire::Languages "none";
END
    export APT_CONFIG=$apt/conf
    say "reading what Debian $suite has"
    apt-get update -qq || fail "apt cannot read Debian $suite; see above"
}
