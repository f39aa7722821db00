#!/usr/bin/env python3
"""Decodes from Python with nothing but ctypes, numpy and the driver's library.

  python3 examples/python/decode.py          in the repository, or in the folder that `cargo xtask dist` lays out

The manifest says which file, entry and geometry there are. Machine code for this GPU is taken where there is some, else
PTX, which the driver compiles. The struct below is gdn_kernels.h's GdnDecodeParams. With PyTorch, `tensor.data_ptr()` and
`torch.cuda.current_stream().cuda_stream` take the place of upload() and 0.
"""
import ctypes as C
import hashlib
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve()
FOLDERS = (HERE.parents[2] / "kernels", HERE.parents[2] / "gdn-host" / "ptx")
PTX = next(folder for folder in FOLDERS if (folder / "manifest.json").is_file())
F32, I32, L2NORM = 0, 1, 1  # GDN_DTYPE_F32, GDN_ENTRY_I32, GDN_FLAG_L2NORM
REFUSES_IMAGE = {200, 209, 218, 222}  # INVALID_IMAGE, NO_BINARY_FOR_GPU, INVALID_PTX, UNSUPPORTED_PTX_VERSION


def struct(name, fields):
    kinds = {"Q": C.c_uint64, "I": C.c_uint32, "i": C.c_int32, "f": C.c_float}
    return type(name, (C.Structure,), {"_fields_": [(n, kinds.get(k, k)) for n, k in fields]})


Inputs = struct("Inputs", [(n, "Q") for n in ("q", "k", "v")]
                + [(n, "I") for n in ("q_stride", "k_stride", "v_stride")]
                + [("scale", "f"), ("eps", "f"), ("reserved", "I")])
Gate = struct("Gate", [(n, "Q") for n in ("a", "b", "a_log", "dt_bias")]
              + [(n, "I") for n in ("a_stride", "b_stride", "a_dtype", "b_dtype", "a_log_dtype", "dt_bias_dtype")]
              + [(n, "f") for n in ("softplus_threshold", "softplus_beta", "lower_bound", "beta_scale")])
Table = struct("Table", [("address", "Q"), ("stride", "I"), ("entry", "I")])
Pool = struct("Pool", [("slot", Table), ("state", "Q"), ("pitch", "I"), ("slots", "I"), ("null_slot", "i"), ("ahead", "I"),
                       ("reset", Table), ("write_slot", Table)])
Layer = struct("Layer", [(n, "I") for n in ("h", "hv", "v", "tiles_reciprocal", "head_reciprocal", "flags")])
DecodeParams = struct("DecodeParams", [("layer", Layer), ("n", "I"), ("out_stride", "I"), ("pool", Pool), ("out", "Q"),
                                       ("inputs", Inputs), ("gate", Gate)])

try:
    cuda = C.CDLL("libcuda.so.1")
except OSError as error:
    sys.exit(f"this example needs a GPU and its driver: {error}")


def call(name, *args):
    code = getattr(cuda, name)(*args)
    if code:
        raise RuntimeError(f"{name} failed with {code}")


def upload(array):
    array, address = np.ascontiguousarray(array), C.c_uint64()
    call("cuMemAlloc_v2", C.byref(address), C.c_size_t(array.nbytes))
    call("cuMemcpyHtoD_v2", address, array.ctypes.data_as(C.c_void_p), C.c_size_t(array.nbytes))
    return address.value


def download(address, shape):
    array = np.empty(shape, np.float32)
    call("cuMemcpyDtoH_v2", array.ctypes.data_as(C.c_void_p), C.c_uint64(address), C.c_size_t(array.nbytes))
    return array


def load(manifest, name, major, minor):
    """The module's files, best first: machine code for this GPU, then PTX of the highest target that it runs."""
    target = lambda arch: int(arch[3:])
    fits = [m for m in manifest["modules"] if m["name"] == name and target(m["arch"]) <= 10 * major + minor]
    ptx = max(fits, key=lambda m: target(m["arch"]))
    same = lambda b: target(b["gpu"]) // 10 == major and target(b["gpu"]) % 10 <= minor
    entry = min(ptx["entries"], key=lambda e: e["rows"])
    for file in [b for b in ptx["binaries"] if same(b)] + [ptx]:
        image, module = (PTX / file["file"]).read_bytes(), C.c_void_p()
        assert hashlib.sha256(image).hexdigest() == file["sha256"], f"{file['file']} is not the one the manifest names"
        code = cuda.cuModuleLoadData(C.byref(module), image + b"\0")
        if code == 0:
            return module, file["file"], entry
        if code not in REFUSES_IMAGE:  # otherwise the driver is older than the machine code: it compiles the PTX
            break
    raise RuntimeError(f"cuModuleLoadData failed with {code}")


def reference(q, k, v, a, b, a_log, dt_bias, state):
    """One sequence, float64; q and k of the value head's key head."""
    q, k = (x / np.sqrt((x * x).sum() + 1e-6) for x in (q, k))
    g = -np.exp(a_log) * np.log1p(np.exp(a + dt_bias))
    h = np.exp(g) * state
    h = h + np.outer((v - h @ k) / (1 + np.exp(-b)), k)
    return h @ q * len(q) ** -0.5, h


def main():
    n, h, hv, k, v, slots, warps = 2, 2, 4, 128, 128, 3, 4
    if cuda.cuInit(0) != 0:
        sys.exit("this example needs a GPU: the driver finds none that it can use")
    device, context = C.c_int(), C.c_void_p()
    call("cuDeviceGet", C.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", C.byref(context), device)
    call("cuCtxSetCurrent", context)
    major, minor = C.c_int(), C.c_int()
    call("cuDeviceGetAttribute", C.byref(major), 75, device)
    call("cuDeviceGetAttribute", C.byref(minor), 76, device)

    manifest = json.loads((PTX / "manifest.json").read_text())
    assert manifest["abi_version"] == 2, "the struct is not the one of this manifest"
    module, loaded, entry = load(manifest, "decode_f32_f32_k128", major.value, minor.value)
    assert entry["params_size"] == C.sizeof(DecodeParams), "the struct is not the one of this manifest"
    assert 32 * warps <= entry["max_threads"]
    kernel = C.c_void_p()
    call("cuModuleGetFunction", C.byref(kernel), module, entry["name"].encode())

    rng = np.random.default_rng(1)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    q, key, val, a, b = normal(n, h, k), normal(n, h, k), normal(n, hv, v), normal(n, hv), normal(n, hv)
    a_log, dt_bias, state, slot = normal(hv), normal(hv), normal(slots, hv, v, k), np.array([2, 0], np.int32)
    out, pool = upload(np.full((n, hv, v), np.nan, np.float32)), upload(state)
    bv = entry["rows"] * (256 // k) * warps
    p = DecodeParams(
        inputs=Inputs(q=upload(q), k=upload(key), v=upload(val), q_stride=h * k, k_stride=h * k, v_stride=hv * v,
                      scale=k**-0.5, eps=1e-6),
        gate=Gate(a=upload(a), b=upload(b), a_log=upload(a_log), dt_bias=upload(dt_bias), a_stride=hv, b_stride=hv,
                  a_dtype=F32, b_dtype=F32, a_log_dtype=F32, dt_bias_dtype=F32, softplus_threshold=20.0,
                  softplus_beta=1.0, beta_scale=1.0),
        pool=Pool(state=pool, slot=Table(upload(slot), slot.itemsize, I32), pitch=hv * v * k, slots=slots, null_slot=-1),
        out=out, out_stride=hv * v, n=n,
        layer=Layer(h=h, hv=hv, v=v, tiles_reciprocal=-(-(2**31) // (v // bv)),
                    head_reciprocal=-(-(2**31) // (hv // h)), flags=L2NORM))
    arguments = (C.c_void_p * 1)(C.addressof(p))
    call("cuLaunchKernel", kernel, hv * v // bv, n, 1, 32 * warps, 1, 1, 0, None, arguments, None)

    got_out, got_state = download(out, (n, hv, v)), download(pool, state.shape)
    worst = 0.0
    for i in range(n):
        for j in range(hv):
            wide = lambda x: x.astype(np.float64)
            o, s = reference(wide(q[i, j * h // hv]), wide(key[i, j * h // hv]), wide(val[i, j]), a[i, j], b[i, j],
                             a_log[j], dt_bias[j], wide(state[slot[i], j]))
            worst = max(worst, abs(got_out[i, j] - o).max(), abs(got_state[slot[i], j] - s).max())
    assert (got_state[1] == state[1]).all(), "an unused slot was touched"
    print(f"{entry['name']} from {loaded}: largest difference from float64 {worst:.1e}")
    assert worst < 2e-5


if __name__ == "__main__":
    main()
