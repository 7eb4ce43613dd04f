#!/usr/bin/env bash
# Makes .venv with kdsearch and everything it can use. Run by `make install`; running it again is cheap.
#
# PYTHON       the interpreter to use (default: the first of python3, python3.13, .12, .11 that fits)
# TORCH_INDEX  where torch comes from (default: PyTorch's CPU index where no NVIDIA GPU is found).
#              Empty means pip's own settings, which is also the fall-back where the index cannot be reached.
set -euo pipefail
cd "$(dirname "$0")/.."
readonly cpu_index=https://download.pytorch.org/whl/cpu
readonly extras=local,onnx,dashboard,hf,zh,dev

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() {
  local candidate without_venv=
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    fits "$candidate" || continue
    if has_venv "$candidate"; then
      echo "$candidate"
      return
    fi
    without_venv=${without_venv:-$candidate}
  done
  if [[ -n $without_venv ]]; then
    echo "kdsearch: $without_venv cannot make virtual environments: its venv module is not installed." >&2
    echo "  On Debian and Ubuntu: sudo apt-get install python3-venv" >&2
  else
    echo "kdsearch: no Python 3.11, 3.12 or 3.13 was found${PYTHON:+ under the name $PYTHON}." >&2
    echo "  Install one, or name it: make install PYTHON=/path/to/python3.12" >&2
  fi
  return 1
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

reachable() {
  .venv/bin/python - "$1" <<'PROBE' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/", timeout=5).read(1)
PROBE
}

install_torch() {
  local wanted index
  wanted=$(grep '^torch==' constraints.txt)
  if .venv/bin/python -c "
import importlib.metadata as m, sys
sys.exit('torch==' + m.version('torch').split('+')[0] != '$wanted')" 2>/dev/null; then
    return
  fi
  if has_gpu; then index=${TORCH_INDEX-}; else index=${TORCH_INDEX-$cpu_index}; fi
  if [[ -n $index ]]; then
    if reachable "$index" && .venv/bin/pip install --quiet --no-deps --index-url "$index" "$wanted"; then
      return
    fi
    echo "kdsearch: $index does not answer; torch comes from where pip is set up to look." >&2
  fi
  .venv/bin/pip install --quiet --constraint constraints.txt "$wanted"
}

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  echo "kdsearch: making .venv with $("$python" --version)" >&2
  "$python" -m venv --clear .venv
fi
echo "kdsearch: installing into .venv (the first time takes some minutes)" >&2
install_torch
.venv/bin/pip install --quiet --constraint constraints.txt --editable ".[$extras]"
.venv/bin/kdsearch --help >/dev/null
