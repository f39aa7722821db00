"""FlashInfer's names: ``flashinfer.gdn_decode`` of 0.7.2.

States lie ``[slots, HV, V, K]``, of :func:`gated_delta_rule_decode` ``[B, HV, K, V]``. A negative index is padding for every
type of state: its row is zeros, and slot 0 is an ordinary slot.
"""

import warnings

from .. import _ops
from .._errors import Error
from ._common import check_scale, drop_in, norm_eps, refuse, rows, torch

__all__ = ["gated_delta_rule_decode", "gated_delta_rule_decode_pretranspose", "gated_delta_rule_mtp"]

_NAMES = {
    "slots": "initial_state_indices",
    "write_slots": "output_state_indices",
    "intermediate": "intermediate_states_buffer",
    "out": "output",
}


def _check_backend(function, backend):
    if backend not in ("auto", "flashinfer"):
        raise Error(f"{function}: backend = {backend!r} is not taken by gdn: there is one")


def _output(output, q, v):
    return torch.empty(v.shape, dtype=q.dtype, device=q.device) if output is None else output


@drop_in({**_NAMES, "state": "state or initial_state"})
def gated_delta_rule_decode_pretranspose(
    q,
    k,
    v,
    state,
    A_log,
    a,
    dt_bias,
    b,
    scale=None,
    output=None,
    use_qk_l2norm=True,
    initial_state=None,
    initial_state_indices=None,
    output_state_indices=None,
    intermediate_states_buffer=None,
    disable_state_update=False,
    backend="auto",
):
    """One token, or with T > 1 several, of states ``[B, HV, V, K]`` or of a pool; returns (output, state)."""
    _check_backend("gated_delta_rule_decode_pretranspose", backend)
    if (state is None) == (initial_state is None):
        raise _ops.ArgumentError("initial_state: give it or state, one of them")
    if initial_state is not None and initial_state_indices is None:
        raise _ops.ArgumentError("initial_state_indices: they are needed with initial_state")
    if initial_state is None and output_state_indices is not None:
        raise _ops.ArgumentError("output_state_indices: they need initial_state")
    pool = state if initial_state is None else initial_state
    slots = None if initial_state is None else initial_state_indices
    options = dict(scale=check_scale(scale), l2norm=norm_eps(use_qk_l2norm), out=_output(output, q, v))
    q, k, v = rows(q), rows(k), rows(v)
    if q.shape[1] == 1:
        one = dict(intermediate_states_buffer=intermediate_states_buffer, disable_state_update=disable_state_update)
        refuse("gated_delta_rule_decode_pretranspose with T = 1", **one)
        out = _ops.decode(q, k, v, a, b, A_log, dt_bias, pool, slots, write_slots=output_state_indices, **options)
        return out, pool
    out = _ops.recurrent(
        q,
        k,
        v,
        a,
        b,
        A_log,
        dt_bias,
        pool,
        slots,
        update=not disable_state_update,
        write_slots=None if disable_state_update else output_state_indices,
        intermediate=intermediate_states_buffer,
        **options,
    )
    return out, pool


@drop_in(_NAMES)
def gated_delta_rule_decode(
    q,
    k,
    v,
    state,
    A_log,
    a,
    dt_bias,
    b,
    scale=None,
    output=None,
    use_qk_l2norm=True,
    backend="auto",
):
    """One token of states ``[B, HV, K, V]``; returns (output, state)."""
    _check_backend("gated_delta_rule_decode", backend)
    if q.ndim != 4 or q.shape[1] != 1:
        raise _ops.ArgumentError(f"q: shape {list(q.shape)} does not fit, expected [B, 1, H, K]")
    out = _ops.decode(
        rows(q),
        rows(k),
        rows(v),
        a,
        b,
        A_log,
        dt_bias,
        state,
        out=_output(output, q, v),
        scale=check_scale(scale),
        l2norm=norm_eps(use_qk_l2norm),
        layout="KV",
    )
    return out, state


@drop_in({**_NAMES, "state": "initial_state"})
def gated_delta_rule_mtp(
    q,
    k,
    v,
    initial_state,
    initial_state_indices,
    A_log,
    a,
    dt_bias,
    b,
    scale=None,
    output=None,
    intermediate_states_buffer=None,
    ssm_state_indices=None,
    disable_state_update=None,
    use_qk_l2norm=True,
    output_state_indices=None,
    cache_replayssm=False,
    replayssm_rawv=None,
    replayssm_rawk=None,
    replayssm_g=None,
    replayssm_beta=None,
):
    """T tokens of a pool; returns (output, pool). ``disable_state_update`` is True where it is not given, as there."""
    refuse("gated_delta_rule_mtp", cache_replayssm=cache_replayssm, replayssm_rawv=replayssm_rawv, replayssm_rawk=replayssm_rawk)
    refuse("gated_delta_rule_mtp", replayssm_g=replayssm_g, replayssm_beta=replayssm_beta)
    if disable_state_update is None:
        warnings.warn("disable_state_update: say it, FlashInfer's default of True is about to change", DeprecationWarning, stacklevel=3)
        disable_state_update = True
    if ssm_state_indices is not None and (disable_state_update or intermediate_states_buffer is not None):
        raise _ops.ArgumentError(
            "ssm_state_indices: they need disable_state_update=False and no intermediate_states_buffer"
        )
    write_slots = None
    if not disable_state_update:
        write_slots = output_state_indices if ssm_state_indices is None else ssm_state_indices
    out = _ops.recurrent(
        rows(q),
        rows(k),
        rows(v),
        a,
        b,
        A_log,
        dt_bias,
        initial_state,
        initial_state_indices,
        update=not disable_state_update,
        write_slots=write_slots,
        intermediate=intermediate_states_buffer,
        out=_output(output, q, v),
        scale=check_scale(scale),
        l2norm=norm_eps(use_qk_l2norm),
    )
    return out, initial_state
