#!/usr/bin/env bash
# Everything that only a GPU can tell, in under 8 minutes on an H200: the tests of the GPU's kernels and runner, compiled
# and on the device; then bench/gpu.py: exactness, steps against the roofline, throughput against transformers.
#
#   bench/gpu.sh [arguments of bench/gpu.py]
#
# Needs Python ≥ 3.11 with torch (CUDA), triton, transformers, safetensors, sentencepiece, psutil, prometheus-client,
# aiohttp, uvloop and pytest; nothing is installed or fetched. PYTHON names another interpreter than python3.
# The checkpoints of true shape are made from the bundled model on the way (5 GB under ~/.cache/nllbd-bench).
# Results: JSON and the tests' log, in $OUT if set, else in bench/results.
# Exit status: 3 without a CUDA device, 1 if a test or a phase failed.
set -uo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=${OUT:-bench/results}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  echo "no CUDA device: nothing measured" >&2
  exit 3
fi
mkdir -p "$out"

# The suite's own conftest wants the server's packages, which a GPU host may lack; these tests do without it.
tests=(tests/kernels tests/engine/test_gpu_runner.py tests/engine/test_graphs.py tests/engine/test_device_batch.py
  tests/engine/test_sources.py tests/engine/test_flight.py tests/model/test_paged.py)
# Triton's own deprecation warnings (-W ignore) would fill the screen; none of these tests judges a warning.
options=(-q --maxfail=30 --noconftest -p no:cacheprovider -o addopts=--import-mode=importlib -W ignore)
options+=(--deselect tests/kernels/test_compile_triton.py --ignore tests/kernels/test_native.py
  --ignore tests/kernels/test_int8_linear.py)
if "$python" -c 'import xdist' 2>/dev/null; then options+=(-n 8); fi
if ! "$python" -c 'import hypothesis' 2>/dev/null; then
  options+=(--ignore tests/engine/test_sources.py --ignore tests/engine/test_device_batch.py)
fi
TRITON_INTERPRET=0 timeout 150 "$python" -m pytest "${options[@]}" "${tests[@]}" 2>&1 | tee "$out/gpu-tests.log" | tail -n 30
tests_failed=${PIPESTATUS[0]}

timeout 390 "$python" -m bench.gpu "$@"
bench_failed=$?
if [ "$tests_failed" -ne 0 ]; then echo "the tests failed ($tests_failed); see $out/gpu-tests.log" >&2; fi
exit $((tests_failed != 0 || bench_failed != 0))
