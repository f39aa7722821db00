"""Recorded cases (``tests/golden``; its README has the format), as arrays of numpy or tensors of torch."""

import json
import os
import struct
from pathlib import Path

FOLDER = Path(os.environ.get("GDN_GOLDEN", Path(__file__).parents[2] / "tests" / "golden"))
_WIDTH = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "I64": 8, "U8": 1}


def names(*ops):
    """Cases of some operations; a case is called after its operation."""
    found = sorted(path.stem for path in FOLDER.glob("*.safetensors"))
    chosen = [name for name in found if name.split("__")[0] in ops]
    assert chosen, f"no recorded case of {ops} in {FOLDER}"
    return chosen


class Case:
    """Inputs and outputs of another project's kernel."""

    def __init__(self, name, kind):
        self.name, self.kind = name, kind
        data = (FOLDER / f"{name}.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        self.meta = header.pop("__metadata__")
        self._tensors = {}
        for key, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            self._tensors[key] = (entry["dtype"], entry["shape"], data[start:end])

    def __contains__(self, key):
        return key in self._tensors

    def __getitem__(self, key):
        dtype, shape, data = self._tensors[key]
        return self.kind.array(dtype, shape, data)

    def get(self, key):
        return self[key] if key in self else None

    def number(self, key):
        value = float(self.meta[key])
        return int(value) if value.is_integer() else value

    def flag(self, key):
        return self.meta.get(key) == "1"

    def padded(self, key):
        """States as they were recorded: slots a pitch apart. Returns the pool, and the memory that it is a view of."""
        dense, pitch = self[key], self.number("slot_pitch")
        return self.kind.padded(dense, pitch)


class Numpy:
    """numpy arrays, on the CPU."""

    name = "numpy"

    def array(self, dtype, shape, data):
        import ml_dtypes
        import numpy

        types = {"F32": "f4", "BF16": ml_dtypes.bfloat16, "F16": "f2", "I32": "i4", "I64": "i8", "U8": "u1"}
        return numpy.frombuffer(data, types[dtype]).reshape(shape).copy()

    def padded(self, dense, pitch):
        import numpy

        memory = numpy.zeros((dense.shape[0], pitch), dense.dtype)
        pool = memory[:, : dense[0].size].reshape(dense.shape) if pitch == dense[0].size else None
        if pool is None:
            inner = [dense.itemsize * int(numpy.prod(dense.shape[i + 1 :])) for i in range(1, dense.ndim)]
            pool = numpy.lib.stride_tricks.as_strided(memory, dense.shape, (memory.strides[0], *inner))
        pool[...] = dense
        return pool, memory

    def f32(self, x):
        import numpy

        return numpy.asarray(x).astype(numpy.float32)

    def full(self, shape, value, like):
        import numpy

        return numpy.full(shape, value, like.dtype)

    def int32(self, values):
        import numpy

        return numpy.array(values, numpy.int32)


class Torch:
    """torch tensors, on a device."""

    def __init__(self, device):
        self.name, self.device = f"torch-{device}", device

    def array(self, dtype, shape, data):
        import torch

        types = dict(F32="float32", BF16="bfloat16", F16="float16", I32="int32", I64="int64", U8="uint8")
        count = len(data) // _WIDTH[dtype]
        if count == 0:
            return torch.empty(shape, dtype=getattr(torch, types[dtype]), device=self.device)
        flat = torch.frombuffer(bytearray(data), dtype=getattr(torch, types[dtype]), count=count)
        return flat.reshape(shape).to(self.device)

    def padded(self, dense, pitch):
        import torch

        memory = torch.zeros(dense.shape[0], pitch, dtype=dense.dtype, device=self.device)
        pool = memory[:, : dense[0].numel()].unflatten(1, dense.shape[1:])
        pool.copy_(dense)
        return pool, memory

    def f32(self, x):
        return x.float().cpu().numpy()

    def full(self, shape, value, like):
        import torch

        return torch.full(shape, value, dtype=like.dtype, device=self.device)

    def int32(self, values):
        import torch

        return torch.tensor(values, dtype=torch.int32, device=self.device)


def kinds():
    """Kinds of arrays there are here, and why there are not the others."""
    found, missing = [], []
    try:
        import ml_dtypes  # noqa: F401
        import numpy  # noqa: F401

        found.append(Numpy())
    except ImportError as problem:
        missing.append(f"numpy arrays: {problem}")
    try:
        import torch
    except Exception as problem:
        return found, [*missing, f"torch tensors: {problem}"]
    found.append(Torch("cpu"))
    if torch.cuda.is_available():
        found.append(Torch("cuda"))
    else:
        missing.append("torch tensors on a GPU: there is none here")
    return found, missing


def relative(have, want):
    """Relative L2 error of two f32 arrays of numpy."""
    import numpy

    have, want = (numpy.asarray(x, dtype=numpy.float64).ravel() for x in (have, want))
    assert have.shape == want.shape, (have.shape, want.shape)
    norm = numpy.linalg.norm(want)
    return numpy.linalg.norm(have - want) / norm if norm > 0 else numpy.linalg.norm(have)


#: What a result may differ by, by its type: tests/golden/README.md, "Choosing tolerances".
OUT = {"F32": 1e-5, "BF16": 1e-3, "F16": 1e-3}
STATE = {"F32": 1e-5, "BF16": 2e-3, "F16": 2e-3}


def agrees(case, key, have, limits):
    """Holds a result against what was recorded."""
    error = relative(case.kind.f32(have), case.kind.f32(case[key]))
    limit = limits[case._tensors[key][0]]
    assert error <= limit, f"{case.name}: {key} is off by {error:.2e}, more than {limit:.0e}"
