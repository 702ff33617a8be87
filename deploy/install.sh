#!/usr/bin/env bash
# install.sh install|uninstall: what `make install` and `make uninstall` do. DESTDIR, PREFIX (/usr); PURGE=1 takes state along.
# Python packages go, pinned, into a directory of their own, without a venv: so the tree may be moved to where DESTDIR is not.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly DESTDIR=${DESTDIR:-} PREFIX=${PREFIX:-/usr}
readonly LIB=$PREFIX/lib/sluice BIN=$PREFIX/bin DOC=$PREFIX/share/doc/sluice
readonly UNITS=/usr/lib/systemd/system SYSUSERS=/usr/lib/sysusers.d CONFIG=/etc/sluice STATE=/var/lib/sluice
readonly BCC=/usr/lib/python3/dist-packages/bcc PINS=/sys/fs/bpf/sluice

die() {
    printf 'install: %s\n' "$1" >&2
    exit 1
}

on_this_machine() { [[ -z $DESTDIR ]]; }

systemd_runs() { [[ -d /run/systemd/system ]]; }

install_packages() {
    local fresh=$DESTDIR$LIB/python.new
    rm -rf "$fresh"
    mkdir -p "$fresh"
    # setuptools builds in here, and would install what an earlier build has left, modules that are no more included.
    rm -rf build/lib build/bdist.*
    .venv/bin/pip --disable-pip-version-check -qq install --no-compile --no-build-isolation --upgrade \
        --constraint deploy/constraints.txt --target "$fresh" .
    rm -rf "$fresh/bin" build/lib build/bdist.*
    cp -r xdp "$fresh/"
    ln -s "$BCC" "$fresh/bcc"
    rm -rf "$DESTDIR$LIB/python"
    mv "$fresh" "$DESTDIR$LIB/python"
    # Who runs it may not write there, and would compile it at every start.
    /usr/bin/python3 -m compileall -q -x '/tests/' -s "$DESTDIR" "$DESTDIR$LIB/python"
}

# Of the system's own Python packages none is seen but bcc, so that nothing is there by chance, or too old.
install_command() {
    local command=$DESTDIR$BIN/sluice
    install -d "$DESTDIR$BIN"
    cat >"$command.new" <<PYTHON
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "$LIB/python")

from lb.cli.main import main

main()
PYTHON
    chmod 755 "$command.new"
    mv "$command.new" "$command"
}

install_files() {
    install -D -m 755 deploy/prepare-bpffs "$DESTDIR$LIB/prepare-bpffs"
    install -d "$DESTDIR$UNITS"
    sed "s|/usr/bin/|$BIN/|; s|/usr/lib/sluice/|$LIB/|; s|/usr/share/doc/|$PREFIX/share/doc/|" deploy/sluice.service >"$DESTDIR$UNITS/sluice.service"
    install -D -m 644 deploy/sysusers.conf "$DESTDIR$SYSUSERS/sluice.conf"
    [[ -e $DESTDIR$CONFIG/sluice.env ]] || install -D -m 640 deploy/sluice.env "$DESTDIR$CONFIG/sluice.env"
    install -d "$DESTDIR$DOC"
    cp -r README.md CHANGELOG.md docs "$DESTDIR$DOC/"
    sed "s|/usr/bin/|$BIN/|" deploy/fail2ban/sluice.conf | install -D -m 644 /dev/stdin "$DESTDIR$DOC/fail2ban-sluice.conf"
}

make_user() {
    getent passwd sluice >/dev/null && return
    useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin sluice
}

do_install() {
    umask 022
    [[ -x .venv/bin/pip ]] || die 'there is no .venv yet: run make setup first'
    install_packages
    install_command
    install_files
    if on_this_machine; then
        [[ $EUID == 0 ]] || die 'needs root, or a DESTDIR'
        make_user
        if systemd_runs; then systemctl daemon-reload; fi
        echo "Installed. Name the interface in $CONFIG/sluice.env, then: systemctl enable --now sluice"
    fi
}

do_uninstall() {
    if on_this_machine; then
        local pins
        pins=$(compgen -G "$PINS/*/program" || true)
        if [[ -n $pins ]]; then
            local interface
            interface=$(basename "$(dirname "$(head -n 1 <<<"$pins")")" | tr : .)
            die "$interface is still served: systemctl disable --now sluice; sluice detach --interface $interface"
        fi
        if systemd_runs; then systemctl disable --now sluice || true; fi
    fi
    rm -rf "$DESTDIR$LIB" "$DESTDIR$DOC"
    rm -f "$DESTDIR$BIN/sluice" "$DESTDIR$UNITS/sluice.service" "$DESTDIR$SYSUSERS/sluice.conf"
    if on_this_machine && systemd_runs; then systemctl daemon-reload; fi
    if [[ ${PURGE:-} == 1 ]]; then
        rm -rf "$DESTDIR$STATE" "$DESTDIR$CONFIG"
        if on_this_machine && getent passwd sluice >/dev/null; then userdel sluice; fi
    else
        echo "Left: $STATE and $CONFIG, and user sluice; PURGE=1 removes them too"
    fi
}

case ${1:-} in
install) do_install ;;
uninstall) do_uninstall ;;
*) die 'usage: install.sh install, or install.sh uninstall' ;;
esac
