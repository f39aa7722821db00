"""What the drop-ins share."""

import functools
import inspect

try:
    import torch
except Exception as problem:
    raise ImportError(f"gdn.compat needs torch, which cannot be imported: {problem}") from None

from .. import _ops
from .._errors import ArgumentError, Error

#: Names of gdn's arguments, where most packages have others.
STATE_NAMES = {"state": "initial_state", "slots": "ssm_state_indices"}


def drop_in(names=None):
    """Marks a function that stands for another package's, whose arguments are called `names` where gdn's are others."""
    names = names or {}

    def mark(function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except ArgumentError as problem:
                field, colon, rest = str(problem).partition(": ")
                raise ArgumentError(f"{names.get(field, field)}{colon}{rest}") from None
            except AttributeError:
                _refuse_arrays(function, args, kwargs)
                raise

        return call

    return mark


def _refuse_arrays(function, args, kwargs):
    """Refuses arrays of numpy, which have not all that the drop-ins ask of tensors."""
    for name, value in inspect.signature(function).bind(*args, **kwargs).arguments.items():
        if hasattr(value, "__array_interface__") and not isinstance(value, torch.Tensor):
            raise ArgumentError(f"{name}: a torch tensor is wanted, not {type(value).__name__}") from None


def refuse(function, **arguments):
    """Refuses arguments that were given and are not taken."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            shown = tuple(value.shape) if isinstance(value, torch.Tensor) else value
            raise Error(f"{function}: {name} = {shown} is not taken by gdn; see docs/MIGRATING.md")


def refuse_rest(function, kwargs):
    """Refuses keywords that a function takes by ``**kwargs``."""
    for name in kwargs:
        raise Error(f"{function}: {name} is not taken by gdn; see docs/MIGRATING.md")


def check_scale(scale):
    if scale is not None and not scale > 0:
        raise ArgumentError(f"scale: {scale} is not allowed, it must be positive")
    return scale


def rows(x):
    """x itself where the kernels take it, else a copy: the elements of a token's heads lie behind one another, 16-byte aligned."""
    if x.is_contiguous():
        return aligned(x)
    strides, shape = x.stride(), x.shape
    packed = strides[-1] == 1 and (len(shape) < 3 or shape[-2] == 1 or strides[-2] == shape[-1])
    if not packed or len(shape) > 3 and shape[0] > 1 and shape[1] > 1 and strides[0] != strides[1] * shape[1]:
        return x.contiguous()
    return aligned(x)


def aligned(x):
    """x itself, or a copy where it is not 16-byte aligned, as weights in a mapped file may not be."""
    if torch.compiler.is_compiling() or x.data_ptr() % 16 == 0:
        return x
    return x.clone(memory_format=torch.contiguous_format)


def norm_eps(use_l2norm):
    """The eps of the l2norm, or None for none."""
    return 1e-6 if use_l2norm else None


def table(indices):
    """Indices as the kernels take them: column 0 of a wider table is a view."""
    return indices[:, 0] if indices is not None and indices.ndim == 2 else indices


def check_tokens(q, cu_seqlens):
    if cu_seqlens is not None and q.shape[0] != 1:
        raise ArgumentError(f"q: the batch is {q.shape[0]}, with cu_seqlens it must be 1: tokens lie one behind the other")


def check_is_kda(is_kda, a, b):
    if is_kda != (a.numel() != b.numel()):
        raise ArgumentError(f"is_kda: {is_kda} does not fit a of shape {tuple(a.shape)} beside b of {tuple(b.shape)}")


def check_gate(g, v, width=None, name="g"):
    """Of GDN a decay is for the head, ``[.., HV]``; of KDA it has a width, ``[.., H or HV, K]``."""
    want = v.ndim - 1 if width is None else v.ndim
    if g.ndim != want or width is not None and g.shape[-1] != width:
        form = "[B, T, HV]" if width is None else f"[B, T, heads, {width}]"
        raise ArgumentError(f"{name}: shape {list(g.shape)} does not fit, expected {form}")


def beta_or_ones(beta, q, v):
    """beta, or ones of each token and value head where it is not given."""
    return torch.ones(v.shape[:-1], dtype=q.dtype, device=q.device) if beta is None else beta


def recurrent_of_gates(q, k, v, g, beta, state, slots=None, *, scale, use_l2norm, cu_seqlens, is_kda=False, **options):
    """Any number of tokens with the log decay and beta itself given, beta 1 without; returns what :func:`gdn.recurrent` does."""
    check_tokens(q, cu_seqlens)
    check_gate(g, v, k.shape[-1] if is_kda else None)
    return _ops.recurrent(
        rows(q),
        rows(k),
        rows(v),
        None,
        None,
        None,
        None,
        state,
        slots,
        g=g.contiguous(),
        beta=beta_or_ones(beta, q, v).contiguous(),
        cu_seqlens=cu_seqlens,
        scale=check_scale(scale),
        l2norm=norm_eps(use_l2norm),
        **options,
    )


def packed_decode(mixed_qkv, a, b, A_log, dt_bias, scale, state, out, slots, use_l2norm, **options):
    """One token, q, k and v side by side; returns (out, state)."""
    _ops.decode_packed(
        mixed_qkv,
        a,
        b,
        A_log,
        dt_bias,
        state,
        slots,
        out=out,
        scale=check_scale(scale),
        l2norm=norm_eps(use_l2norm),
        **options,
    )
    return out, state


def of_tree(buffer, parents):
    """The buffer as long as the table of parents, which may be shorter than what was allocated."""
    if parents is None or buffer is None or parents.shape[1] == buffer.shape[1]:
        return buffer
    return buffer[:, : parents.shape[1]]
