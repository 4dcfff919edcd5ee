#!/bin/sh
# Install a wheel without torch in a clean environment away from the checkout, and run the smoke tests there.
# usage: tests/wheel.sh python3 build/wheel/edgebench-0.1.0-py3-none-any.whl
set -eu
python=$1
wheel=$(realpath "$2")
here=$(cd "$(dirname "$0")/.." && pwd)
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
"$python" -m venv "$away/venv"
"$away/venv/bin/python" -m pip --quiet --disable-pip-version-check install -c "$here/constraints.txt" "$wheel" pytest
cp -R "$here/tests" "$away/tests"
cd "$away"
venv/bin/pytest -m smoke -o addopts= --import-mode=importlib -o pythonpath=tests -o 'markers=smoke:' --rootdir . \
    -p no:cacheprovider tests/test_run.py tests/test_structure.py
