#!/usr/bin/env bash
# Lays out a CUDA toolkit that compiles nothing: an nvcc that writes empty files, and libraries whose functions do nothing. With
# it candle's `cuda` feature is type-checked, linked, and tested on the CPU, on machines without a toolkit.
#
#   gdn-candle/cuda/stub.sh target/cuda-stub
#   export CUDA_HOME=$PWD/target/cuda-stub CUDA_COMPUTE_CAP=90 PATH=$PWD/target/cuda-stub/bin:$PATH
#   cargo check -p gdn-candle --features cuda
#
# What is linked with it runs with LD_LIBRARY_PATH=$CUDA_HOME/lib64, and finds no GPU.
set -euo pipefail
to=${1:?where to}
mkdir -p "$to/bin" "$to/lib64" "$to/include"

cat > "$to/bin/nvcc" <<'NVCC'
#!/usr/bin/env bash
set -euo pipefail
out='' folder=. source='' what=object
while [ $# -gt 0 ]; do
  case $1 in
    --version)
      printf '%s\n' 'nvcc that compiles nothing' '' '' 'Cuda compilation tools, release 13.0, V13.0.0'
      exit ;;
    --list-gpu-code) echo sm_90; exit ;;
    --ptx) what=ptx ;;
    --lib) what=archive ;;
    -o) out=$2; shift ;;
    --output-directory) folder=$2; shift ;;
    *.cu) source=$1 ;;
  esac
  shift
done
case $what in
  ptx) : > "$folder/$(basename "$source" .cu).ptx" ;;
  object) : > "$out" ;;
  archive) rm -f "$out"; ar rcs "$out" ;;
esac
NVCC
chmod +x "$to/bin/nvcc"

# Each library has the functions that cudarc's source declares of it.
cudarc=$(cargo metadata --format-version 1 --all-features | tr ',' '\n' |
  sed -n 's/^"manifest_path":"\(.*\/cudarc-[^"]*\)\/Cargo.toml"$/\1/p' | sort -u | tail -n 1)
: "${cudarc:?cudarc is not among the dependencies}"
while read -r module library soname; do
  names=$(grep -ohE 'fn (cu|nvrtc)[A-Za-z0-9_]+' "$cudarc/src/$module/sys/mod.rs" | sed 's/^fn //' | sort -u)
  # shellcheck disable=SC2086
  printf 'int %s(void) { return 100; }\n' $names |
    cc -w -shared -fPIC -x c -o "$to/lib64/$soname" -Wl,-soname,"$soname" -
  ln -sf "$soname" "$to/lib64/lib$library.so"
done <<'LIBRARIES'
driver cuda libcuda.so.1
nvrtc nvrtc libnvrtc.so.13
curand curand libcurand.so.10
cublas cublas libcublas.so.13
cublaslt cublasLt libcublasLt.so.13
runtime cudart libcudart.so.13
LIBRARIES
