#!/usr/bin/env bash
# Makes this machine ready for Sluice: Debian packages, kernel headers, the venv in .venv, the BPF file system.
# With the argument `peers` also what `make bench` measures beside Sluice, as far as it is to be had; with `machine`
# what `make vm` runs a virtual machine with.
# Safe to repeat, to interrupt and to start twice at once. A second run finds the stamp of the first and ends at once.
set -euo pipefail
unset PYTHONHOME PYTHONPATH
PATH=$PATH:/usr/sbin:/sbin # `su` without a dash leaves them out
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly LOG=/var/log/sluice-setup.log
readonly LOCK=/run/sluice-setup.lock # machine-wide: apt and the merged headers are shared by all checkouts
readonly POLICY=/usr/sbin/policy-rc.d
readonly POLICY_MARK='# Written by the set-up of Sluice'
readonly BPFFS=/sys/fs/bpf
readonly BCC=/usr/lib/python3/dist-packages/bcc
readonly STAMP=.venv/sluice-setup.stamp # line 1: the venv it belongs to, line 2: what it was set up from

# package: a file that says it is there, however it was installed
readonly PACKAGES='
python3          /usr/bin/python3
python3-venv     /usr/lib/python3.*/ensurepip/__init__.py
python3-bpfcc    /usr/lib/python3/dist-packages/bcc/__init__.py
iproute2         ip
ethtool          ethtool
nginx-light      nginx
curl             curl
wrk              wrk
iperf3           iperf3
iputils-ping     ping
tcpdump          tcpdump
libpcap0.8       /usr/lib/*/libpcap.so.0.8
fail2ban         fail2ban-client
prometheus       promtool
shellcheck       shellcheck
gcc              gcc
libc6-dev        /usr/include/stdio.h
make             make
systemd          systemd-analyze
util-linux       setpriv
ca-certificates  /etc/ssl/certs/ca-certificates.crt
'

# command:package, for the tests of the page; they are skipped where there is no such package (Ubuntu has it as a snap only)
readonly BROWSER='chromium:chromium chromedriver:chromium-driver'

# command:package
readonly PEERS='xdp-filter:xdp-tools nft:nftables'
readonly MACHINE='qemu-system-x86_64:qemu-system-x86 mkfs.ext4:e2fsprogs'

say() { printf '%-9s %s\n' "$1" "$2"; }

die() {
    printf 'setup: %s\n' "$1" >&2
    exit 1
}

# logged STEP REMEDY COMMAND...: runs the command with its output in the log; on failure shows the end of it.
logged() {
    local step=$1 remedy=$2
    shift 2
    printf '\n$ %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 || {
        tail -n 15 "$LOG" | sed 's/^/  | /' >&2
        die "$step failed; $remedy (all output: $LOG)"
    }
}

headers() { /usr/bin/python3 -I lb/dataplane/headers.py "$@"; } # -I: nothing in that folder shadows the library

# ---- what is asked of the machine ----------------------------------------------------------------------------------

need_root() {
    [[ $EUID == 0 ]] || die 'needs root, to install packages and load BPF programs: run it with sudo or as root.'
}

need_bpf() {
    grep -qw bpf /proc/filesystems ||
        die "kernel $(uname -r) is built without BPF: boot the distribution's own kernel, Linux 5.15 or newer."
    [[ -x /usr/bin/python3 ]] || return 0
    local problem
    problem=$(/usr/bin/python3 -I deploy/probe.py kernel) || die "${problem:-deploy/probe.py could not ask the kernel for its BPF features.}"
}

need_python() {
    [[ ! -x /usr/bin/python3 ]] || /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$(/usr/bin/python3 -V) is too old, 3.11 is needed: use Debian 12, Ubuntu 24.04 or newer."
}

# ---- the fast path -------------------------------------------------------------------------------------------------

venv_identity() { echo "$PWD $(/usr/bin/python3 -V 2>&1)"; } # a venv works only where, and with what, it was made

inputs() {
    { cat pyproject.toml deploy/constraints.txt deploy/setup.sh deploy/probe.py lb/dataplane/{headers,kernel_probe,bcc_probe}.py && uname -r; } | sha256sum
}

bpffs_mounted() { grep -q " $BPFFS bpf " /proc/mounts; }

is_done() {
    [[ -f $STAMP && $(<"$STAMP") == "$(venv_identity)"$'\n'"$(inputs)" ]] &&
        [[ -x .venv/bin/python && -x .venv/bin/sluice && -z $(missing_packages) ]] && bpffs_mounted && headers &>/dev/null
}

# ---- Debian packages -----------------------------------------------------------------------------------------------

missing_packages() {
    local package proof
    while read -r package proof; do
        case $proof in
        '') ;;
        /*) compgen -G "$proof" >/dev/null || echo "$package" ;;
        *) command -v "$proof" >/dev/null || echo "$package" ;;
        esac
    done <<<"$PACKAGES"
}

# Those that an interrupted apt unpacked but did not configure: their files are there, and yet they are not.
unfinished_packages() {
    local names
    mapfile -t names < <(awk 'NF { print $1 }' <<<"$PACKAGES")
    { dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${names[@]}" 2>/dev/null || true; } |
        awk '$2 ~ /^(unpacked|half-|triggers-)/ { print $1 }'
}

# Packages such as nginx start their service when installed; a policy-rc.d that says 101 prevents it. Ours says so only
# while a set-up holds the lock, so one that is left behind by a killed run does no harm until the next run removes it.
forbid_services() {
    remove_policy
    [[ ! -e $POLICY ]] || return 0
    printf '#!/bin/sh\n%s\nflock -n %s true && exit 0\nexit 101\n' "$POLICY_MARK" "$LOCK" >"$POLICY"
    chmod 755 "$POLICY"
}

remove_policy() {
    if grep -qsF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
}

apt_ready() {
    [[ -z ${APT_READY:-} ]] || return 0
    command -v apt-get >/dev/null ||
        die "there is no apt-get here; install the equivalents of these Debian packages by hand, then repeat: $(missing_packages | xargs) and kernel headers."
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    forbid_services
    logged 'dpkg --configure -a' 'repair what it names' dpkg --configure -a # ends what a killed run left open
    logged 'apt-get update' 'check the network and /etc/apt/sources.list' apt-get -q -o DPkg::Lock::Timeout=300 update
    APT_READY=yes
}

apt_install() {
    apt_ready
    say packages "installing $*"
    logged "apt-get install $*" 'see the lines above' \
        apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "$@"
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages; unfinished_packages)
    if ((${#missing[@]})); then apt_install "${missing[@]}"; fi
    # Installed for the lab and the tests, which start their own: do not let them serve after the next boot either.
    local pair
    for pair in nginx-light:nginx fail2ban:fail2ban prometheus:prometheus; do
        if [[ " ${missing[*]} " == *" ${pair%:*} "* ]]; then
            logged "update-rc.d ${pair#*:} disable" 'see the lines above' update-rc.d "${pair#*:}" disable
        fi
    done
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} == 0)) || die "still missing after installing: ${missing[*]}; try apt-get install --reinstall ${missing[*]} (all output: $LOG)"
    say packages ok
}

# One apt for both, which takes half a minute.
install_browser() {
    local pair missing=()
    for pair in $BROWSER; do
        command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
    done
    ((${#missing[@]})) || return 0
    (apt_install "${missing[@]}") || say browser "going on without ${missing[*]}: the tests of the page will be skipped"
}

# The bench goes without a peer that cannot be had, and says so.
install_peers() {
    local pair
    for pair in $PEERS; do
        ! command -v "${pair%:*}" >/dev/null || continue
        take_lock
        (apt_install "${pair#*:}") || say peers "going on without ${pair#*:}"
    done
}

install_machine() {
    local pair
    for pair in $MACHINE; do
        ! command -v "${pair%:*}" >/dev/null || continue
        take_lock
        apt_install "${pair#*:}"
    done
}

# ---- kernel headers ------------------------------------------------------------------------------------------------

# In this order: those of the running kernel, trees that are in /usr/src already, those of any kernel from apt.
install_headers() {
    headers &>>"$LOG" || headers merge &>>"$LOG" || fetch_headers
    say headers "$(headers)"
}

fetch_headers() {
    apt_ready
    local package
    for package in "linux-headers-$(uname -r)" "linux-headers-$(dpkg --print-architecture)" linux-headers-generic; do
        apt-cache show "$package" &>>"$LOG" || continue
        apt_install "$package"
        if headers &>>"$LOG" || headers merge &>>"$LOG"; then return; fi
    done
    die 'apt has no kernel headers: add the main section to /etc/apt/sources.list, or set BCC_KERNEL_SOURCE to a header tree.'
}

# ---- the venv ------------------------------------------------------------------------------------------------------

# $1: the identity of the venv that was complete before this run, or nothing. Only an unfinished or foreign one is rebuilt.
build_venv() {
    if [[ $1 != "$(venv_identity)" ]]; then
        say venv 'building .venv'
        rm -rf .venv
        logged 'python3 -m venv' 'see the lines above' /usr/bin/python3 -m venv .venv
    fi
    local site remedy='check the network, or the package index in pip.conf'
    site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    ln -sfn "$BCC" "$site/bcc" # bcc alone; --system-site-packages would let in all the rest
    local pip=(.venv/bin/pip --disable-pip-version-check install --constraint deploy/constraints.txt)
    logged 'pip install' "$remedy" "${pip[@]}" setuptools
    logged 'pip install' "$remedy" "${pip[@]}" --no-build-isolation --editable '.[dev]'
    venv_identity >"$STAMP" # the venv is complete; a run that fails after this need not rebuild it
    say venv .venv
}

# ---- BPF -----------------------------------------------------------------------------------------------------------

mount_bpffs() {
    bpffs_mounted || logged 'mount' "is $BPFFS writable here?" mount -t bpf bpf "$BPFFS"
    say bpffs "$BPFFS"
}

verify_bcc() {
    local problem
    problem=$(.venv/bin/python deploy/probe.py bcc 2>>"$LOG") || die "${problem:-bcc crashed.} (all output: $LOG)"
    say bcc 'compiles and loads an XDP program'
}

# ---- all of it -----------------------------------------------------------------------------------------------------

take_lock() {
    exec 9>"$LOCK" # children inherit it: whoever waits also waits for an apt that outlived its set-up
    flock -n 9 || { say setup 'waiting for another set-up to end' && flock 9; }
    trap remove_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

set_up() {
    take_lock
    ! is_done || return 0
    : >"$LOG"
    local complete=
    if [[ -f $STAMP ]]; then complete=$(head -n 1 "$STAMP"); fi
    rm -f "$STAMP"

    need_python
    need_bpf
    install_packages
    install_browser
    need_python # again: without Python the first round could ask little
    need_bpf
    install_headers
    build_venv "$complete"
    mount_bpffs
    verify_bcc
    { venv_identity && inputs; } >"$STAMP.new"
    mv "$STAMP.new" "$STAMP"
}

main() {
    need_root
    is_done || set_up
    case ${1:-} in
    peers) install_peers ;;
    machine) install_machine ;;
    esac
}

main "$@"
