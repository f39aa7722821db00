"""torch: how an operation runs on its tensors, eagerly, in a captured graph, and compiled.

Eager calls go straight to the extension, which costs the host least. Whatever traces (``torch.compile``, fake tensors, ``make_fx``)
sees a custom operator ``gdn::<name>`` with the schema of ``_schemas.py``.
"""

import torch

from . import _gdn
from ._errors import ArgumentError, Error
from ._schemas import SCHEMAS

_PLAIN = (torch.Tensor, torch.nn.Parameter)
_is_compiling = torch.compiler.is_compiling
_grad_enabled = torch.is_grad_enabled

_gdn.torch_types({str(getattr(torch, name)).removeprefix("torch."): getattr(torch, name)
                  for name in ("float32", "bfloat16", "float16", "int32", "uint32", "int64", "uint8", "bool")
                  if hasattr(torch, name)}, _PLAIN)

try:  # The handle alone, without a Python object around it.
    _raw_stream = torch._C._cuda_getCurrentRawStream
except AttributeError:  # A build of torch without CUDA.
    def _raw_stream(device):
        return torch.cuda.current_stream(device).cuda_stream


def stream_of(tensor):
    """The current stream of the tensor's device, as a number; 0 on the CPU."""
    device = tensor.get_device()
    return _raw_stream(device) if device >= 0 else 0


def _tensors(args):
    """The tensors among arguments, those of lists too."""
    for arg in args:
        if isinstance(arg, torch.Tensor):
            yield arg
        elif isinstance(arg, (list, tuple)):
            yield from _tensors(arg)


def _refuse_grad(name, args):
    for tensor in _tensors(args):
        if tensor.requires_grad:
            raise Error(
                f"gdn.{name} is forward only, and one of its tensors requires a gradient: call it under torch.no_grad() or "
                "torch.inference_mode()"
            )


def _refuse_memory(operator, args):
    """All tensors are on the device "meta", or none."""
    for argument, value in zip(operator._schema.arguments, args):
        elsewhere = next((tensor for tensor in _tensors([value]) if not tensor.is_meta), None)
        if elsewhere is not None:
            raise ArgumentError(f"{argument.name}: it is on {elsewhere.device}, and another tensor of the call is on meta")


_library = torch.library.Library("gdn", "DEF")


def _register(name, schema):
    kernel = getattr(_gdn, name)
    _library.define(name + schema)

    def run(*args):
        kernel(*args, stream_of(next(_tensors(args))))

    def autograd(*args):
        if _grad_enabled():
            _refuse_grad(name, args)
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*args)

    operator = getattr(torch.ops.gdn, name).default
    for key in ("CPU", "CUDA"):
        _library.impl(name, run, key)
    _library.impl(name, autograd, "Autograd")
    torch.library.register_fake(f"gdn::{name}", lambda *args: None, lib=_library)
    return operator


_OPERATORS = {name: _register(name, schema) for name, schema in SCHEMAS.items()}


def runner(name):
    """The function that runs an operation: the tensor that says where, and the arguments of its schema."""
    kernel, operator = getattr(_gdn, name), _OPERATORS[name]

    def run(tensor, args):
        if _is_compiling() or type(tensor) not in _PLAIN:
            operator(*args)
            return
        if _grad_enabled():
            _refuse_grad(name, args)
        device = tensor.get_device()
        if device < 0 and tensor.is_meta:  # Shapes without memory.
            _refuse_memory(operator, args)
            operator(*args)
            return
        if device >= 0 and not tensor.is_cuda:
            raise Error(f"gdn.{name}: tensors are on {tensor.device}, NVIDIA GPUs and the CPU are taken")
        kernel(*args, _raw_stream(device) if device >= 0 else 0)

    return run
