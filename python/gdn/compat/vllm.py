"""vLLM's names: ``vllm.third_party.flash_linear_attention.ops`` and ``vllm.model_executor.layers.mamba.ops`` of 0.33.

States lie ``[blocks, HV, V, K]``. Block 0 is the null block: it marks padding, as negative indices do. Padded rows of outputs
are zeros.
"""

from .. import _ops
from . import _norm
from ._common import (
    STATE_NAMES,
    beta_or_ones,
    check_gate,
    check_is_kda,
    check_scale,
    check_tokens,
    drop_in,
    norm_eps,
    packed_decode,
    refuse,
    refuse_rest,
    rows,
    table,
    torch,
)
from .sglang import convolve

__all__ = [
    "causal_conv1d_update",
    "fused_recurrent_gated_delta_rule",
    "fused_recurrent_gated_delta_rule_packed_decode",
    "fused_recurrent_kda",
    "fused_sigmoid_gating_delta_rule_update",
    "layernorm_fn",
    "rmsnorm_fn",
]

_NAMES = {**STATE_NAMES, "accepted": "num_accepted_tokens", "write_slots": "ssm_state_indices"}
#: Block 0.
_NULL = 0


def _step(name, q, k, v, a, b, A_log, dt_bias, state, inplace, cu_seqlens, indices, accepted, out, **options):
    """Tokens of a pool: where each sequence starts is a column of its row of blocks, and the state after token t goes to block t."""
    check_tokens(q, cu_seqlens)
    refuse(name, **({} if inplace else {"inplace_final_state": "False"}))
    if state is None:
        raise _ops.ArgumentError("initial_state: None is not taken, the state is updated in place")
    q, k, v = rows(q), rows(k), rows(v)
    null_slot = None if indices is None else _NULL
    single = cu_seqlens is None and q.shape[1] == 1 and accepted is None
    if single:
        out = _ops.decode(
            q, k, v, a, b, A_log, dt_bias, state, table(indices), out=out, null_slot=null_slot, **options
        )
    else:
        several = indices is not None and indices.ndim == 2
        out = _ops.recurrent(
            q,
            k,
            v,
            a,
            b,
            A_log,
            dt_bias,
            state,
            indices if accepted is not None else table(indices),
            cu_seqlens=cu_seqlens,
            accepted=accepted,
            write_slots=indices if several else None,
            null_slot=null_slot,
            out=out,
            **options,
        )
    return out, state


@drop_in(_NAMES)
def fused_sigmoid_gating_delta_rule_update(
    A_log,
    a,
    b,
    dt_bias,
    q,
    k,
    v,
    beta=1.0,
    threshold=20.0,
    scale=None,
    initial_state=None,
    inplace_final_state=True,
    cu_seqlens=None,
    ssm_state_indices=None,
    num_accepted_tokens=None,
    use_qk_l2norm_in_kernel=False,
    is_kda=False,
):
    """Decode, and verification of drafts; returns (o, pool). o is in float32 where the state is, else of q's type."""
    check_is_kda(is_kda, a, b)
    wide = initial_state is not None and initial_state.dtype == torch.float32
    out = torch.empty(v.shape, dtype=torch.float32 if wide else q.dtype, device=q.device)
    return _step(
        "fused_sigmoid_gating_delta_rule_update",
        q,
        k,
        v,
        a.contiguous(),
        b.contiguous(),
        A_log,
        dt_bias,
        initial_state,
        inplace_final_state,
        cu_seqlens,
        ssm_state_indices,
        num_accepted_tokens,
        out,
        scale=check_scale(scale),
        l2norm=norm_eps(use_qk_l2norm_in_kernel),
        softplus_beta=beta,
        softplus_threshold=threshold,
    )


@drop_in(_NAMES)
def fused_recurrent_gated_delta_rule(
    q,
    k,
    v,
    g,
    beta=None,
    scale=None,
    initial_state=None,
    inplace_final_state=True,
    cu_seqlens=None,
    ssm_state_indices=None,
    num_accepted_tokens=None,
    use_qk_l2norm_in_kernel=False,
):
    """Tokens with the gates given; returns (o, pool). g is the log decay."""
    return _given(
        "fused_recurrent_gated_delta_rule",
        q,
        k,
        v,
        g,
        beta,
        scale,
        initial_state,
        inplace_final_state,
        cu_seqlens,
        ssm_state_indices,
        num_accepted_tokens,
        use_qk_l2norm_in_kernel,
    )


def _given(name, q, k, v, g, beta, scale, state, inplace, cu_seqlens, indices, accepted, l2norm, is_kda=False):
    check_gate(g, v, k.shape[-1] if is_kda else None)
    beta = beta_or_ones(beta, q, v)
    return _step(
        name,
        q,
        k,
        v,
        None,
        None,
        None,
        None,
        state,
        inplace,
        cu_seqlens,
        indices,
        accepted,
        torch.empty(v.shape, dtype=q.dtype, device=q.device),
        g=g.contiguous(),
        beta=beta.contiguous(),
        scale=check_scale(scale),
        l2norm=norm_eps(l2norm),
    )


@drop_in(_NAMES)
def fused_recurrent_kda(
    q,
    k,
    v,
    g,
    beta=None,
    scale=None,
    initial_state=None,
    inplace_final_state=True,
    use_qk_l2norm_in_kernel=True,
    cu_seqlens=None,
    ssm_state_indices=None,
    **kwargs,
):
    """KDA with the gates given, g by value head, ``[B, T, HV, K]``; returns (o, pool)."""
    refuse_rest("fused_recurrent_kda", kwargs)
    return _given(
        "fused_recurrent_kda",
        q,
        k,
        v,
        g,
        beta,
        scale,
        initial_state,
        inplace_final_state,
        cu_seqlens,
        ssm_state_indices,
        None,
        use_qk_l2norm_in_kernel,
        is_kda=True,
    )


@drop_in(_NAMES)
def fused_recurrent_gated_delta_rule_packed_decode(
    mixed_qkv,
    a,
    b,
    A_log,
    dt_bias,
    scale,
    initial_state,
    out,
    ssm_state_indices,
    use_qk_l2norm_in_kernel=False,
):
    """One token, q, k and v side by side; returns (out, pool). beta stays in float32."""
    return packed_decode(
        mixed_qkv,
        a,
        b,
        A_log,
        dt_bias,
        scale,
        initial_state,
        out,
        ssm_state_indices,
        use_qk_l2norm_in_kernel,
        null_slot=_NULL,
    )


@drop_in({"slots": "conv_state_indices", "accepted": "num_accepted_tokens", "cu_seqlens": "query_start_loc", "null_slot": "pad_slot_id"})
def causal_conv1d_update(
    x,
    conv_state,
    weight,
    bias=None,
    activation=None,
    conv_state_indices=None,
    num_accepted_tokens=None,
    query_start_loc=None,
    max_query_len=-1,
    pad_slot_id=-1,
    block_idx_last_scheduled_token=None,
    initial_state_idx=None,
    retrieve_parent_token=None,
    validate_data=False,
):
    """The convolution; x is ``[batch, dim]``, ``[batch, dim, seqlen]``, or ``[tokens, dim]`` with ``query_start_loc``."""
    refuse(
        "causal_conv1d_update",
        block_idx_last_scheduled_token=block_idx_last_scheduled_token,
        initial_state_idx=initial_state_idx,
    )
    return convolve(
        x,
        conv_state,
        weight,
        bias,
        activation,
        slots=table(conv_state_indices),
        accepted=num_accepted_tokens,
        cu_seqlens=query_start_loc,
        parents=retrieve_parent_token,
        null_slot=pad_slot_id if pad_slot_id is not None and pad_slot_id >= 0 else None,
    )


@drop_in()
def layernorm_fn(
    x,
    weight,
    bias,
    z=None,
    eps=1e-6,
    group_size=None,
    norm_before_gate=True,
    is_rms_norm=False,
    activation="swish",
):
    """``x * rsqrt(mean(x^2) + eps) * weight * act(z)``."""
    _norm.check_groups("layernorm_fn", x, group_size, norm_before_gate, is_rms_norm)
    return _norm.gated("layernorm_fn", x, z, weight, bias, eps, activation)


@drop_in()
def rmsnorm_fn(x, weight, bias, z=None, eps=1e-6, group_size=None, norm_before_gate=True, activation="swish"):
    """``x * rsqrt(mean(x^2) + eps) * weight * act(z)``."""
    _norm.check_groups("rmsnorm_fn", x, group_size, norm_before_gate, True)
    return _norm.gated("rmsnorm_fn", x, z, weight, bias, eps, activation)
