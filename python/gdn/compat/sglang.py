"""SGLang's names: ``sglang.kernels.ops.attention`` and ``sglang.kernels.ops.mamba`` of 0.5.23.

States lie ``[slots, HV, V, K]``, slots are int32, a negative one is padding and slot 0 an ordinary slot. Padded rows of
outputs are zeros.
"""

from .. import _ops
from . import _norm
from ._common import (
    STATE_NAMES,
    check_is_kda,
    check_scale,
    check_tokens,
    drop_in,
    norm_eps,
    of_tree,
    packed_decode,
    recurrent_of_gates,
    refuse,
    refuse_rest,
    rows,
    torch,
)

__all__ = [
    "causal_conv1d_update",
    "fused_recurrent_gated_delta_rule",
    "fused_recurrent_gated_delta_rule_packed_decode",
    "fused_recurrent_gated_delta_rule_update",
    "fused_recurrent_kda",
    "fused_recurrent_kda_packed_decode",
    "fused_sigmoid_gating_delta_rule_update",
    "layernorm_fn",
    "rms_norm_gated",
]

_POOL = {
    "state": "initial_state_source",
    "slots": "initial_state_indices",
    "intermediate": "intermediate_states_buffer",
    "intermediate_rows": "intermediate_state_indices",
    "parents": "retrieve_parent_token",
}


@drop_in(_POOL)
def fused_sigmoid_gating_delta_rule_update(
    A_log,
    a,
    dt_bias,
    softplus_beta,
    softplus_threshold,
    q,
    k,
    v,
    b,
    initial_state_source,
    initial_state_indices,
    scale=None,
    use_qk_l2norm_in_kernel=False,
    cu_seqlens=None,
    is_kda=False,
    lower_bound=None,
    disable_state_update=False,
    intermediate_states_buffer=None,
    intermediate_state_indices=None,
    cache_steps=None,
    retrieve_parent_token=None,
    cache_ring=False,
    replayssm_rawv=None,
    replayssm_rawk=None,
    replayssm_g=None,
    replayssm_beta=None,
    match_cutedsl_decode=False,
):
    """Decode, and verification of drafts; returns o, of v's shape and q's type. The pool is updated in place.

    One token a sequence without ``cu_seqlens`` is the fastest. ``cache_steps`` says nothing that the buffer does not.
    """
    name = "fused_sigmoid_gating_delta_rule_update"
    refuse(name, cache_ring=cache_ring, replayssm_rawv=replayssm_rawv, replayssm_rawk=replayssm_rawk)
    refuse(name, replayssm_g=replayssm_g, replayssm_beta=replayssm_beta)
    check_tokens(q, cu_seqlens)
    check_is_kda(is_kda, a, b)
    options = dict(
        scale=check_scale(scale),
        l2norm=norm_eps(use_qk_l2norm_in_kernel),
        lower_bound=lower_bound,
        softplus_beta=softplus_beta,
        softplus_threshold=softplus_threshold,
    )
    if match_cutedsl_decode:  # b is beta itself then, and a 16-bit state is rounded after every token.
        b, options["beta"] = None, b
    q, k, v = rows(q), rows(k), rows(v)
    several = cu_seqlens is not None or q.shape[1] > 1 or intermediate_states_buffer is not None
    if initial_state_source is not None and not several and not disable_state_update:
        return _ops.decode(q, k, v, a, b, A_log, dt_bias, initial_state_source, initial_state_indices, **options)
    round_state = match_cutedsl_decode and (
        initial_state_source is None or initial_state_source.dtype == torch.bfloat16
    )
    return _ops.recurrent(
        q,
        k,
        v,
        a,
        b,
        A_log,
        dt_bias,
        initial_state_source,
        initial_state_indices if initial_state_source is not None else None,
        cu_seqlens=cu_seqlens,
        update=not disable_state_update,
        intermediate=of_tree(intermediate_states_buffer, retrieve_parent_token),
        intermediate_rows=intermediate_state_indices if intermediate_states_buffer is not None else None,
        parents=retrieve_parent_token,
        round_state=round_state,
        **options,
    )


@drop_in(STATE_NAMES)
def fused_recurrent_gated_delta_rule(
    q,
    k,
    v,
    g,
    beta=None,
    scale=None,
    initial_state=None,
    output_final_state=False,
    cu_seqlens=None,
    use_qk_l2norm_in_kernel=False,
):
    """States by sequence, ``[N, HV, V, K]``; returns (o, final state in float32, or None). g is the log decay."""
    count = q.shape[0] if cu_seqlens is None else len(cu_seqlens) - 1
    state = initial_state if initial_state is None else initial_state.float().contiguous()
    shape = (count, v.shape[2], v.shape[3], k.shape[3])
    final = torch.empty(shape, dtype=torch.float32, device=q.device) if output_final_state else None
    o = recurrent_of_gates(
        q,
        k,
        v,
        g,
        beta,
        state,
        update=False,
        final_state=final,
        scale=scale,
        use_l2norm=use_qk_l2norm_in_kernel,
        cu_seqlens=cu_seqlens,
    )
    return o, final


@drop_in(_POOL)
def fused_recurrent_gated_delta_rule_update(
    q,
    k,
    v,
    g,
    beta=None,
    scale=None,
    initial_state_source=None,
    initial_state_indices=None,
    cu_seqlens=None,
    use_qk_l2norm_in_kernel=False,
    disable_state_update=False,
    disable_output_calculation=False,
    intermediate_states_buffer=None,
    intermediate_state_indices=None,
    cache_steps=None,
    retrieve_parent_token=None,
):
    """Drafts of a pool with the gates given; returns o. Without an output it returns a tensor of one element, as SGLang does."""
    o = recurrent_of_gates(
        q,
        k,
        v,
        g,
        beta,
        initial_state_source,
        initial_state_indices,
        cu_seqlens=cu_seqlens,
        update=not disable_state_update,
        output=not disable_output_calculation,
        intermediate=of_tree(intermediate_states_buffer, retrieve_parent_token),
        intermediate_rows=intermediate_state_indices if intermediate_states_buffer is not None else None,
        parents=retrieve_parent_token,
        scale=scale,
        use_l2norm=use_qk_l2norm_in_kernel,
    )
    return q.new_empty(1, 1, 1, 1) if o is None else o


@drop_in(STATE_NAMES)
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
    """One token, q, k and v side by side; returns (out, pool). beta is rounded to b's type, as there."""
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
        round_beta=True,
    )


@drop_in(STATE_NAMES)
def fused_recurrent_kda_packed_decode(
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
    lower_bound=None,
):
    """One token of KDA, q, k and v side by side; returns (out, pool). beta stays in float32."""
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
        lower_bound=lower_bound,
    )


@drop_in(STATE_NAMES)
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
    **kwargs,
):
    """KDA with states by sequence and the log decay given by key head, ``[B, T, H, K]``; returns (o, final state)."""
    refuse_rest("fused_recurrent_kda", kwargs)
    if initial_state is None:
        raise _ops.ArgumentError("initial_state: None is not taken: the final state has its type, and may take its place")
    final = initial_state if inplace_final_state else torch.empty_like(initial_state)
    o = recurrent_of_gates(
        q,
        k,
        v,
        g,
        beta,
        initial_state,
        update=inplace_final_state,
        final_state=None if inplace_final_state else final,
        scale=scale,
        use_l2norm=use_qk_l2norm_in_kernel,
        cu_seqlens=cu_seqlens,
        is_kda=True,
    )
    return o, final


def parents_of(next_token, next_sibling):
    """The parent of each token of a draft's tree, ``[N, T]``, from its first child and its next sibling; -1 has none."""
    count, tokens = next_token.shape
    parents = torch.full((count, tokens + 1), -1, dtype=next_token.dtype, device=next_token.device)
    nowhere = torch.full((count,), tokens, dtype=torch.int64, device=next_token.device)
    for token in range(tokens):
        for to, parent in ((next_token, torch.full_like(next_token[:, 0], token)), (next_sibling, parents[:, token].clone())):
            child = to[:, token].long()
            at = torch.where((child < 0) | (child >= tokens), nowhere, child)
            parents.scatter_(1, at[:, None], parent[:, None])
    return parents[:, :tokens]


@drop_in(
    {
        "slots": "conv_state_indices",
        "accepted": "num_accept_tokens",
        "intermediate": "intermediate_conv_window",
        "intermediate_rows": "intermediate_state_indices",
        "parents": "retrieve_parent_token",
        "null_slot": "pad_slot_id",
    }
)
def causal_conv1d_update(
    x,
    conv_state,
    weight,
    bias=None,
    activation=None,
    cache_seqlens=None,
    conv_state_indices=None,
    num_accept_tokens=None,
    intermediate_conv_window=None,
    intermediate_state_indices=None,
    retrieve_next_token=None,
    retrieve_next_sibling=None,
    retrieve_parent_token=None,
    pad_slot_id=-1,
    metadata=None,
    validate_data=False,
):
    """The convolution, x being ``[batch, dim]`` or ``[batch, dim, seqlen]``; returns its output in x's shape.

    Products are rounded to x's type where x and weight are of 16 bits, as there. Of a tree the parents are worked out from
    ``retrieve_next_token`` and ``retrieve_next_sibling``, and written to ``retrieve_parent_token`` if it is given.
    """
    refuse("causal_conv1d_update", cache_seqlens=cache_seqlens)
    parents = retrieve_parent_token
    if retrieve_next_token is not None:
        parents = parents_of(retrieve_next_token, retrieve_next_sibling)
        if retrieve_parent_token is not None:
            retrieve_parent_token.copy_(parents)
    return convolve(
        x,
        conv_state,
        weight,
        bias,
        activation,
        slots=conv_state_indices,
        accepted=num_accept_tokens,
        intermediate=intermediate_conv_window,
        intermediate_rows=intermediate_state_indices if intermediate_conv_window is not None else None,
        parents=parents,
        null_slot=pad_slot_id if pad_slot_id is not None and pad_slot_id >= 0 else None,
    )


def convolve(x, conv_state, weight, bias, activation, *, accepted=None, cu_seqlens=None, **options):
    """The convolution of SGLang and vLLM: channels come second in x, and a state that is longer than its window keeps it in front."""
    if activation not in (None, True, False, "silu", "swish"):
        raise _ops.ArgumentError(f"activation: {activation!r} is not allowed, it must be None, True, 'silu' or 'swish'")
    by_channel = x.ndim == 3 and cu_seqlens is None
    tokens = x.transpose(1, 2) if by_channel else x
    if tokens.stride(-1) != 1 or by_channel and tokens.stride(0) != tokens.stride(1) * tokens.shape[1]:
        tokens = tokens.contiguous()
    width = weight.shape[1]
    if accepted is None and conv_state.shape[-1] > width - 1:
        conv_state = conv_state[..., : width - 1]
    out = torch.empty(tokens.shape, dtype=x.dtype, device=x.device)
    out = _ops.causal_conv1d_update(
        tokens,
        conv_state,
        weight if weight.is_contiguous() else weight.contiguous(),
        bias,
        out=out,
        activation="silu" if activation else None,
        accepted=accepted,
        cu_seqlens=cu_seqlens,
        round_products=weight.dtype == x.dtype == conv_state.dtype != torch.float32,
        **options,
    )
    return out.transpose(1, 2) if by_channel else out


@drop_in()
def rms_norm_gated(
    *,
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
    """``x * rsqrt(mean(x^2) + eps) * weight * act(z)``, as ``fla.layernorm_gated`` has it."""
    _norm.check_groups("rms_norm_gated", x, group_size, norm_before_gate, is_rms_norm)
    return _norm.gated("rms_norm_gated", x, z, weight, bias, eps, activation)


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
    """The same as :func:`rms_norm_gated`, by place."""
    _norm.check_groups("layernorm_fn", x, group_size, norm_before_gate, is_rms_norm)
    return _norm.gated("layernorm_fn", x, z, weight, bias, eps, activation)
