# Sourced by the scripts beside it: one virtual environment per purpose, made once and kept until pyproject.toml changes.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore

# Prints the first Python on the path that vramfit runs on; PYTHON=... names another one.
find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.11 python3.12 python3.13 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "scripts: no Python from 3.11 to 3.14 found on the path; install one, or name it: PYTHON=/path/to/python $0" >&2
    return 1
}

# ready FOLDER: true when the environment was finished for this very pyproject.toml and still runs.
ready() {
    [ "$(cat "$1/.made-for" 2>/dev/null)" = "$(cksum <pyproject.toml)" ] && "$1/bin/python" -c '' 2>/dev/null
}

# new_environment FOLDER: an empty virtual environment with a pip that reads dependency groups.
new_environment() {
    local python
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "scripts: $python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2
        return 1
    fi
    "$python" -m venv --clear "$1"
    "$1/bin/python" -m pip install --quiet --upgrade "pip>=25.1"
}

# finish FOLDER: remember for which pyproject.toml the environment was made.
finish() {
    cksum <pyproject.toml >"$1/.made-for"
}
