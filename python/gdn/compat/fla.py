"""flash-linear-attention's names: ``fla.ops.gated_delta_rule``, ``fla.ops.kda`` and ``fla.modules`` of 0.6.

States lie ``[N, HV, K, V]``, with ``state_v_first=True`` ``[N, HV, V, K]``, one a sequence. Forward only.
"""

from .. import _ops
from . import _norm
from ._common import (
    STATE_NAMES,
    beta_or_ones,
    check_gate,
    check_scale,
    check_tokens,
    drop_in,
    norm_eps,
    refuse,
    refuse_rest,
    rows,
    torch,
)

__all__ = ["fused_recurrent_gated_delta_rule", "fused_recurrent_kda", "rms_norm_gated"]


def _sequences(
    q,
    k,
    v,
    gate,
    beta,
    A_log,
    dt_bias,
    scale,
    initial_state,
    output_final_state,
    l2norm,
    gate_in_kernel,
    sigmoid_in_kernel,
    neg_eigval,
    lower_bound,
    v_first,
    cu_seqlens,
):
    check_tokens(q, cu_seqlens)
    if neg_eigval and not sigmoid_in_kernel:
        raise _ops.ArgumentError("allow_neg_eigval: True needs use_beta_sigmoid_in_kernel=True")
    count = q.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    inner = (v.shape[3], k.shape[3]) if v_first else (k.shape[3], v.shape[3])
    state = None if initial_state is None else initial_state.float().contiguous()
    final = None
    if output_final_state:
        final = torch.empty((count, v.shape[2], *inner), dtype=torch.float32, device=q.device)
    gate, beta = gate.contiguous(), beta.contiguous()
    o = _ops.recurrent(
        rows(q),
        rows(k),
        rows(v),
        gate if gate_in_kernel else None,
        beta if sigmoid_in_kernel else None,
        A_log if gate_in_kernel else None,
        dt_bias if gate_in_kernel else None,
        state,
        g=None if gate_in_kernel else gate,
        beta=None if sigmoid_in_kernel else beta,
        cu_seqlens=cu_seqlens,
        update=False,
        final_state=final,
        scale=check_scale(scale),
        l2norm=norm_eps(l2norm),
        lower_bound=lower_bound if gate_in_kernel else None,
        beta_scale=2.0 if neg_eigval else 1.0,
        layout="VK" if v_first else "KV",
    )
    return o, final


def _v_first(state_v_first, kwargs):
    """The layout's older name."""
    if "transpose_state_layout" in kwargs:
        if state_v_first:
            raise _ops.ArgumentError("state_v_first: it and transpose_state_layout say the same, give one of them")
        return kwargs.pop("transpose_state_layout")
    return state_v_first


@drop_in(STATE_NAMES)
def fused_recurrent_gated_delta_rule(
    q,
    k,
    v,
    g=None,
    gk=None,
    gv=None,
    beta=None,
    scale=None,
    initial_state=None,
    output_final_state=False,
    use_qk_l2norm_in_kernel=False,
    use_gate_in_kernel=False,
    A_log=None,
    dt_bias=None,
    use_beta_sigmoid_in_kernel=False,
    allow_neg_eigval=False,
    state_v_first=False,
    cu_seqlens=None,
    **kwargs,
):
    """Tokens of sequences with states of their own; returns (o, final state in float32, or None).

    A decay is for the head (g) or for each key (gk, ``[B, T, HV, K]``), not both.
    """
    name = "fused_recurrent_gated_delta_rule"
    state_v_first = _v_first(state_v_first, kwargs)
    refuse_rest(name, kwargs)
    refuse(name, gv=gv, **({"gk": gk} if g is not None or use_gate_in_kernel else {}))
    if use_gate_in_kernel and (g is None or A_log is None):
        raise _ops.ArgumentError("A_log: it and g are needed with use_gate_in_kernel=True")
    beta = beta_or_ones(beta, q, v)
    gate = g if g is not None else gk
    if gate is None:
        gate = torch.zeros(v.shape[:-1], dtype=torch.float32, device=q.device)
    elif gate is gk:
        check_gate(gk, v, k.shape[-1], "gk")
    else:
        check_gate(g, v)
    return _sequences(
        q,
        k,
        v,
        gate,
        beta,
        A_log,
        dt_bias,
        scale,
        initial_state,
        output_final_state,
        use_qk_l2norm_in_kernel,
        use_gate_in_kernel,
        use_beta_sigmoid_in_kernel,
        allow_neg_eigval,
        None,
        state_v_first,
        cu_seqlens,
    )


@drop_in(STATE_NAMES)
def fused_recurrent_kda(
    q,
    k,
    v,
    g,
    beta,
    A_log=None,
    dt_bias=None,
    scale=None,
    initial_state=None,
    output_final_state=False,
    use_qk_l2norm_in_kernel=False,
    use_gate_in_kernel=False,
    use_beta_sigmoid_in_kernel=False,
    allow_neg_eigval=False,
    lower_bound=None,
    state_v_first=False,
    cu_seqlens=None,
    **kwargs,
):
    """Tokens of KDA with states by sequence, g ``[B, T, HV, K]``; returns (o, final state in float32, or None)."""
    state_v_first = _v_first(state_v_first, kwargs)
    refuse_rest("fused_recurrent_kda", kwargs)
    check_gate(g, v, k.shape[-1])
    return _sequences(
        q,
        k,
        v,
        g,
        beta,
        A_log,
        dt_bias,
        scale,
        initial_state,
        output_final_state,
        use_qk_l2norm_in_kernel,
        use_gate_in_kernel,
        use_beta_sigmoid_in_kernel,
        allow_neg_eigval,
        lower_bound,
        state_v_first,
        cu_seqlens,
    )


@drop_in()
def rms_norm_gated(
    x,
    g,
    weight,
    bias,
    activation="swish",
    residual=None,
    prenorm=False,
    residual_in_fp32=False,
    eps=1e-6,
):
    """``x * rsqrt(mean(x^2) + eps) * weight * act(g)``."""
    refused = dict(residual=residual, prenorm=prenorm, residual_in_fp32=residual_in_fp32)
    return _norm.gated("rms_norm_gated", x, g, weight, bias, eps, activation, **refused)
