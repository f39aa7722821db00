#!/usr/bin/env bash
# Everything about the wheel that needs a GPU: installs it beside the machine's torch, runs all tests, and measures.
#   bash python/tests/on_gpu.sh WHEEL [PEERS]
# PEERS: a folder that the wheels of SGLang, flash-linear-attention and FlashInfer are unpacked in; FlashInfer's kernels also need their
# compiler, CuTe-DSL (`cutlass`), in PYTHONPATH. Results go to $OUT, or to the
# current folder: python.txt, and python-host.json and python-tokens.json for docs/benchmarks. Nothing is downloaded.
set -uo pipefail
wheel=$1
export GDN_PEERS=${2:+$(realpath "$2")}
tests=$(cd "$(dirname "$0")" && pwd)
out=$(realpath "${OUT:-.}")
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --target "$site" "$wheel" || exit 1
export PYTHONPATH=$site:$tests${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
{
  python3 -m gdn
  python3 -c 'import torch, transformers, triton; print("transformers", transformers.__version__, "triton", triton.__version__)'
  python3 -m pytest -q -p no:cacheprovider "$tests" --maxfail=40
  status=$?
  python3 "$tests/../benchmarks/host_cost.py" "$out/python-host.json"
  python3 "$tests/../benchmarks/tokens_per_second.py" "$out/python-tokens.json" 2>&1 | grep -v "falling back\|Loading weights"
  echo "tests: exit status $status"
} 2>&1 | tee "$out/python.txt"
grep -q "tests: exit status 0" "$out/python.txt"
