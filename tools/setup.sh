#!/usr/bin/env bash
# Makes the virtual environment and installs pinned packages into it. `make` calls it; nothing else need.
#   setup.sh create PYTHON VENV
#   setup.sh install VENV REQUIREMENTS
set -euo pipefail

create() {
    local python=$1 venv=$2
    if [ -z "$python" ]; then
        echo "Python was not found: install Python 3.11 or later, or pass PYTHON=/path/to/python" >&2
        exit 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$python is too old: clustercore needs Python 3.11 or later (pass PYTHON=...)" >&2
        exit 1
    fi
    echo "creating $venv with $("$python" --version)"
    "$python" -m venv "$venv"
}

install() {
    local venv=$1 requirements=$2
    echo "installing $requirements"
    # uv installs in a second what takes pip a minute, but a machine may reach its packages only through pip's own
    # configuration. pip therefore fetches uv, and does the work itself whenever uv cannot.
    if [ ! -x "$venv/bin/uv" ]; then
        "$venv/bin/python" -m pip install --quiet uv || echo "uv is not available, going on with pip" >&2
    fi
    if [ -x "$venv/bin/uv" ]; then
        if "$venv/bin/uv" pip install --quiet --link-mode copy --python "$venv/bin/python" -r "$requirements"; then
            return
        fi
        echo "uv could not install $requirements, trying pip" >&2
    fi
    "$venv/bin/python" -m pip install --quiet -r "$requirements"
}

command=$1
shift
case $command in
    create | install) "$command" "$@" ;;
    *)
        echo "unknown command: $command" >&2
        exit 2
        ;;
esac
