"""The gated norm, as two of SGLang's and FLA's functions have it."""

from .. import _ops
from .._errors import Error
from ._common import aligned, refuse, torch


def gated(function, x, z, weight, bias, eps, activation, **refused):
    """``rmsnorm(x) * weight * act(z)``, of x's type."""
    refuse(function, bias=bias, **refused)
    if z is None:
        raise Error(f"{function}: z = None is not taken by gdn: the norm has a gate")
    if activation not in ("swish", "silu", "sigmoid"):
        raise Error(f"{function}: activation = {activation!r} is not taken by gdn, 'swish', 'silu' and 'sigmoid' are")
    out = None if x.dtype == z.dtype else torch.empty(x.shape, dtype=z.dtype, device=x.device)
    x = aligned(x if x.stride(-1) == 1 else x.contiguous())
    z = z if z.stride(-1) == 1 else z.contiguous()
    out = _ops.gated_rmsnorm(x, z, aligned(weight), eps=eps, activation="sigmoid" if activation == "sigmoid" else "silu", out=out)
    return out.to(x.dtype)


def check_groups(function, x, group_size, norm_before_gate, is_rms_norm):
    """Only the norm that these models have: over the whole head, before the gate, without a mean."""
    if group_size is not None and group_size != x.shape[-1]:
        raise Error(f"{function}: group_size = {group_size} is not taken by gdn, the norm is over all {x.shape[-1]} elements")
    if not norm_before_gate:
        raise Error(f"{function}: norm_before_gate = False is not taken by gdn")
    if not is_rms_norm:
        raise Error(f"{function}: is_rms_norm = False is not taken by gdn")
