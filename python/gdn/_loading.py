"""Loading kernels before they are needed, plans, and what is here."""

from . import _gdn, _ops
from ._errors import ArgumentError
from ._options import is_kv

_OPS = ("decode", "recurrent", "conv1d_update", "gated_rmsnorm", "unpack_qkvz", "copy_state", "convert_layout")
_NAMES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "f32": "f32", "bf16": "bf16", "f16": "f16"}


def _dtype(field, dtype):
    name = str(getattr(dtype, "name", dtype)).removeprefix("torch.")
    if name not in _NAMES:
        raise ArgumentError(f"{field}: type {name} is not taken, expected float32, bfloat16 or float16")
    return _NAMES[name]


def torch_dtype(field, dtype):
    """A type of torch, by itself or by its name; one that the kernels take."""
    return {"f32": _ops.torch.float32, "bf16": _ops.torch.bfloat16, "f16": _ops.torch.float16}[_dtype(field, dtype)]


def module_names(model=None, *, family="gdn", state="float32", dtype="bfloat16", k=128, v=128, layout="VK", ops=_OPS):
    """Names of the modules that a model needs."""
    if model is not None:
        found = [m for m in _gdn.models() if m[0] == model]
        if not found:
            raise ArgumentError(f"model: {model!r} is not known, there are {', '.join(m[0] for m in _gdn.models())}")
        _, is_kda, _, _, k, v = found[0]
        family = "kda" if is_kda else "gdn"
    kda, kv = "kda_" if family == "kda" else "", "_kv" if is_kv(layout) else ""
    st, io = _dtype("state", state), _dtype("dtype", dtype)
    of_op = {
        "decode": [f"{kda}decode{kv}_{st}_{io}_k{k}"],
        "recurrent": [f"{kda}recurrent{kv}_{st}_{io}_k{k}"],
        "conv1d_update": [f"conv1d_update_{io}_{io}"],
        "gated_rmsnorm": [f"gated_rmsnorm_{io}_{io}" + (f"_k{v}" if v in (64, 128) else "")],
        "unpack_qkvz": ["unpack_qkvz"],
        "copy_state": ["copy_state"],
        "convert_layout": [f"convert_layout_{st}"],
    }
    unknown = [op for op in ops if op not in of_op]
    if unknown:
        raise ArgumentError(f"ops: {unknown[0]!r} is not an operation, there are {', '.join(of_op)}")
    return [name for op in ops for name in of_op[op]]


def replay_module_names(family, state, dtype, k, drafts):
    """Names of the modules that states with rings need; of verification only with drafts."""
    kda = "kda_" if family == "kda" else ""
    types = f"{_dtype('state', state)}_{_dtype('dtype', dtype)}_k{k}"
    steps = ["replay_decode", "replay_fold", *(["replay_verify"] if drafts else [])]
    return [*(f"{kda}{step}_{types}" for step in steps), "replay_advance", *(["replay_commit"] if drafts else [])]


def _ordinal(device):
    """The number of a GPU, by default torch's current one; None for the CPU."""
    kind, _, number = str(device).partition(":") if device is not None else ("cuda", "", "")
    if isinstance(device, int) and not isinstance(device, bool) and device >= 0:
        return device
    if kind == "cpu":
        return None
    if kind != "cuda" or not (number.isdecimal() or number == ""):
        raise ArgumentError(f"device: {device!r} is not a GPU: give its number, 'cuda:1' or a torch.device")
    if number:
        return int(number)
    torch = _ops.torch
    return torch.cuda.current_device() if torch is not None and torch.cuda.is_available() else 0


def load(model=None, *, device=None, modules=None, **choice):
    """Loads the kernels of a model on a GPU: once, at the start, and before a CUDA graph is captured.

    Without it the first call of each kind loads what it needs, which takes milliseconds (on GPUs before and after Hopper the
    driver compiles, a tenth of a second and more), and is refused while a stream is captured.

    Args:
        model: one of ``gdn.models()``, ``"Qwen3-Next-80B-A3B"`` say; or ``family`` ("gdn", "kda"), ``k`` and ``v``.
        device: the GPU, its number or a ``torch.device``; by default torch's current one. On the CPU there is nothing to load.
        modules: names of ``gdn.modules()`` instead of a model, or one name.
        state, dtype: types of states and of inputs, by default float32 and bfloat16. layout: "VK" or "KV".
        ops: names of operations; all by default.
    """
    if modules is None:
        modules = module_names(model, **choice)
    names = [modules] if isinstance(modules, str) else list(modules)
    ordinal = _ordinal(device)
    if ordinal is not None:
        _gdn.load(ordinal, names)


def plan(operation, *args, caps=None, **kwargs):
    """How a call would be launched: kernel, rows of V a block, grid. Nothing is computed and nothing written.

    ``gdn.plan(gdn.decode, q, k, v, ...)`` takes the arguments of the operation. For tensors on the CPU ``caps`` says of what
    GPU, ``gdn.Caps(sms=132, compute=90, memory_gbps=4800)``.

    Returns:
        A Plan that prints as one line; of an operation that is several launches a list of them.
    """
    _gdn.begin_planning(caps)
    try:
        operation(*args, **kwargs)
    finally:
        plans = _gdn.end_planning()
    if not plans:
        raise ArgumentError(f"operation: {operation!r} makes no call of gdn, give gdn.decode and its arguments, say")
    return plans[0] if len(plans) == 1 else plans


def models():
    """Names of the models whose heads are known."""
    return [model[0] for model in _gdn.models()]


def modules():
    """Names of the modules of kernels in this wheel."""
    return _gdn.modules()


def loaded(device=None):
    """Files that were loaded on a GPU (:func:`load` says which): machine code (``.cubin``), or PTX that the driver compiled."""
    ordinal = _ordinal(device)
    return [] if ordinal is None else _gdn.loaded(ordinal)


def status():
    """What is here, line by line: what ``python -m gdn`` prints."""
    lines = [f"gdn {_gdn.__version__}: {len(_gdn.modules())} modules of kernels"]
    try:
        (major, minor), count = _gdn.driver()
        lines.append(f"driver: CUDA {major}.{minor}, {count} GPU{'' if count == 1 else 's'}")
        for device in range(count):
            sms, compute, gbps = _gdn.caps(device)
            covered = "" if compute >= 80 else ": not covered, kernels need 8.0"
            lines.append(f"  GPU {device}: compute capability {compute // 10}.{compute % 10}, {sms} multiprocessors, {gbps} GB/s{covered}")
    except Exception as problem:  # Whatever it is, it is the answer.
        lines.append(f"driver: {problem}")
        lines.append("  without one, tensors on the CPU compute a reference in f64, which is slow and exact")
    if _ops.torch is None:
        lines.append(f"torch: not usable ({_ops.missing_torch}); numpy arrays work, gdn.compat does not")
    else:
        lines.append(f"torch: {_ops.torch.__version__}")
    try:
        import numpy

        lines.append(f"numpy: {numpy.__version__}")
    except ImportError:
        lines.append("numpy: not installed")
    return "\n".join(lines)
