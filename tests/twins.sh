#!/bin/sh
# Make an environment with an old Python and the runtime that a real board has.
# usage: tests/twins.sh 3.6 build/twins/py36 onnxruntime==1.10.0
set -eu
version=$1 folder=$2 requirement=$3
for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python; do
    if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
        rm -rf "$folder"
        "$python" -m venv "$folder"
        "$folder/bin/python" -m pip --quiet install --upgrade 'pip<22'
        "$folder/bin/python" -m pip --quiet install "$requirement" 'numpy<1.22'
        touch "$folder/.done"
        exit 0
    fi
done
echo "no Python $version found: install it (pyenv install $version), or go without these tests" >&2
exit 1
