#!/usr/bin/env bash
# Lays out a CUDA toolkit from the packages that NVIDIA keeps on PyPI: enough to build candle for CUDA, about ten minutes of CPU
# time. libcublas and libcuda, which are large or belong to the driver, are stubs to link against; the machine that runs the
# program has the real ones (a Python with PyTorch has them in `nvidia/cu13/lib`).
#
#   gdn-candle/cuda/wheels.sh target/cuda
#   export CUDA_HOME=$PWD/target/cuda CUDA_COMPUTE_CAP=90 PATH=$PWD/target/cuda/bin:$PATH
#   cargo build --release --manifest-path examples/qwen3/Cargo.toml --features cuda
#
# CUDA_COMPUTE_CAP is that of the GPU. Needs python3 with venv, and a C++ compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
to=${1:?where to}
mkdir -p "$to"
to=$(cd "$to" && pwd)
python3 -m venv "$to/venv"
"$to/venv/bin/pip" install -q 'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-runtime==13.0.*' \
  'nvidia-cuda-cccl==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-curand==10.4.*'
site=$("$to/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia/cu13

# The stubs first, so that what is real takes their place.
"$here/stub.sh" "$to"
rm -f "$to/bin/nvcc"
for folder in bin include nvvm; do cp -rsf "$site/$folder/." "$to/$folder/"; done
for library in "$site"/lib/*; do ln -sf "$library" "$to/lib64/"; done
for library in "$to"/lib64/lib{cudart,nvrtc,curand}.so.*; do
  [ -e "$library" ] && ln -sf "$(basename "$library")" "${library%%.so.*}.so"
done
ln -sfn lib64 "$to/lib"
"$to/bin/nvcc" --version | tail -n 2
