"""The operations, on torch tensors and numpy arrays.

Names of dimensions: N sequences, T tokens of each, H key heads, HV value heads, K and V elements of a head. Strides are taken
as they are: views of a packed row and padded pools are not copied.
"""

from . import _gdn
from ._errors import ArgumentError
from ._options import beta_of, gate_of, is_kv, is_tiled, start_of
from ._schemas import SCHEMAS

try:
    import torch
except Exception as _problem:  # Not installed, or broken: numpy arrays still work.
    torch, missing_torch = None, _problem
else:
    missing_torch = None

if torch is not None:
    from ._torch import runner as _torch_runner

    _RUNNERS = {name: _torch_runner(name) for name in SCHEMAS}
else:
    _RUNNERS = {}
_KERNELS = {name: getattr(_gdn, name) for name in SCHEMAS}


def _run(name, tensor, args):
    """Runs an operation where its tensors are."""
    if torch is not None and isinstance(tensor, torch.Tensor):
        _RUNNERS[name](tensor, args)
    else:
        _KERNELS[name](*args, 0)


def _shape(field, array):
    """The shape of an argument that tells the output's."""
    if not hasattr(array, "shape"):
        raise ArgumentError(f"{field}: a torch tensor or a numpy array is wanted, not {type(array).__name__}")
    return array.shape


def _empty(like, shape):
    """Memory of a shape, of the kind, the device and the type of an array."""
    if torch is not None and isinstance(like, torch.Tensor):
        return like.new_empty(shape)
    import numpy

    return numpy.empty(shape, like.dtype)


def _empty_like(field, like):
    """Memory like an argument, contiguous."""
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.empty_like(like, memory_format=torch.contiguous_format)
    return _empty(like, _shape(field, like))


def decode(
    q,
    k,
    v,
    a,
    b,
    A_log,
    dt_bias,
    state,
    slots=None,
    *,
    g=None,
    beta=None,
    out=None,
    write_slots=None,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    scale=None,
    l2norm=1e-6,
    lower_bound=None,
    softplus_beta=1.0,
    softplus_threshold=20.0,
    beta_scale=1.0,
    round_beta=False,
    layout="VK",
    head_map="grouped",
    bv=None,
    early=False,
):
    """One token for each of N sequences. ``state`` is updated in place.

    Args:
        q, k: ``[N, H, K]`` (or ``[.., H, K]``, or ``[N, H * K]``), f32, bf16 or f16, before normalisation. 16-byte aligned.
        v: ``[N, HV, V]``, of the type of q.
        a: gate input, ``[N, HV]`` for GDN, ``[N, HV, K]`` or ``[N, HV * K]`` for KDA: the width says which it is.
        b: beta's logits, ``[N, HV]``.
        A_log: ``[HV]``, or None for a decay rate of 1.
        dt_bias: ``[HV]`` (KDA ``[HV, K]``), or None.
        state: pool ``[slots, HV, V, K]`` (``layout="KV"``: ``[slots, HV, K, V]``), slots any distance apart; f32, bf16 or f16.
        slots: ``[N]`` int32, int64 or uint32, the slot of each sequence. A negative index, ``null_slot``, or one past the pool
            is a padded row: its state is not touched and its output is zeros. Without a table sequence n is in slot n.
        g: the log decay itself instead of a, of a's shapes (KDA also by key head, ``[N, H, K]``). a is None then.
        beta: beta itself instead of b, ``[N, HV]`` or ``[N, HV, V]``. b is None then.
        out: where the output goes, ``[N, HV, V]`` of the type of q or f32. Allocated of the type of q without.
        write_slots: ``[N]``, where new states go, if not where they came from.
        null_slot: an index that marks padding besides negative ones (vLLM: 0).
        reset: ``[N]`` bool, uint8 or int32: sequences that start from zeros. ``has_initial_state`` is its contrary.
        scale: factor on q, by default ``K ** -0.5``.
        l2norm: eps of the normalisation of q and k, None for none.
        lower_bound: the gate is ``lower_bound * sigmoid(exp(A_log) * (a + dt_bias))`` then (Kimi-K3: -5).
        softplus_beta, softplus_threshold: of the gate ``-exp(A_log) * softplus(a + dt_bias)``.
        beta_scale: factor on ``sigmoid(b)``: 2 where negative eigenvalues are allowed.
        round_beta: round beta through the type of b, as SGLang's packed decode and Hugging Face do.
        head_map: ``"grouped"``, key head ``hv // (HV // H)``; ``"tiled"``, ``hv % H`` (GGUF).
        bv: rows of V a block works on, instead of the measured choice. It changes the time, never the result.
        early: let the kernel start before its predecessor in the stream has ended (programmatic dependent launch). It is a
            wish, followed on Hopper and later where it was measured to pay; ``gdn.plan(...).early`` says whether. Before its
            predecessor has ended the kernel reads slots, write_slots and reset: nothing directly in front may write them, nor
            may anything further in front that can still run.

    Returns:
        out, of v's shape where it was not given.

    Raises:
        ArgumentError: an argument that is not taken; nothing was launched. Error: no driver, no kernel, or a refused launch.
    """
    gate, kind, bound = gate_of(a, g, lower_bound)
    logits, given_beta = beta_of(b, beta)
    start, inverted = start_of(reset, has_initial_state)
    if out is None:
        out = _empty_like("v", v)
    args = (
        state, q, k, v, gate, logits, A_log, dt_bias, kind, given_beta, None, is_kv(layout), is_tiled(head_map), round_beta,
        scale, l2norm, softplus_beta, softplus_threshold, bound, beta_scale, slots, write_slots, start, out, inverted,
        null_slot, bv, early,
    )  # fmt: skip
    _run("decode", q, args)
    return out


def decode_packed(
    mixed_qkv,
    a,
    b,
    A_log,
    dt_bias,
    state,
    slots=None,
    *,
    heads=None,
    g=None,
    beta=None,
    out=None,
    write_slots=None,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    scale=None,
    l2norm=1e-6,
    lower_bound=None,
    softplus_beta=1.0,
    softplus_threshold=20.0,
    beta_scale=1.0,
    round_beta=False,
    layout="VK",
    head_map="grouped",
    bv=None,
    early=False,
):
    """:func:`decode` with q, k and v side by side, as the convolution leaves them.

    Args:
        mixed_qkv: ``[N, 2 * H * K + HV * V]``, rows any distance apart. Rows may be wider; then ``heads`` is needed.
        heads: H. Without it the rows' width says it.

    Every other argument is :func:`decode`'s. Returns out, ``[N, HV, V]``.
    """
    gate, kind, bound = gate_of(a, g, lower_bound)
    logits, given_beta = beta_of(b, beta)
    start, inverted = start_of(reset, has_initial_state)
    kv = is_kv(layout)
    if out is None:
        packed, pool = _shape("mixed_qkv", mixed_qkv), _shape("state", state)
        if len(packed) < 2:
            raise ArgumentError(f"mixed_qkv: shape {list(packed)} does not fit, expected [N, 2 * H * K + HV * V]")
        if len(pool) != 4:
            raise ArgumentError(f"state: shape {list(pool)} does not fit, expected [slots, HV, V, K]")
        out = _empty(mixed_qkv, (packed[0], pool[1], pool[3 if kv else 2]))
    args = (
        state, mixed_qkv, None, None, gate, logits, A_log, dt_bias, kind, given_beta, heads, kv, is_tiled(head_map), round_beta,
        scale, l2norm, softplus_beta, softplus_threshold, bound, beta_scale, slots, write_slots, start, out, inverted,
        null_slot, bv, early,
    )  # fmt: skip
    _run("decode", mixed_qkv, args)
    return out


def recurrent(
    q,
    k,
    v,
    a,
    b,
    A_log,
    dt_bias,
    state=None,
    slots=None,
    *,
    g=None,
    beta=None,
    cu_seqlens=None,
    accepted=None,
    update=True,
    write_slots=None,
    final_state=None,
    intermediate=None,
    intermediate_rows=None,
    parents=None,
    out=None,
    output=True,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    round_state=False,
    scale=None,
    l2norm=1e-6,
    lower_bound=None,
    softplus_beta=1.0,
    softplus_threshold=20.0,
    beta_scale=1.0,
    round_beta=False,
    layout="VK",
    head_map="grouped",
    bv=None,
):
    """Any number of tokens for each of N sequences: verification of drafts, short prompts.

    Args:
        q, k: ``[N, T, H, K]``, or ``[.., H, K]`` with ``cu_seqlens``. v: the same with HV and V. a, b, A_log, dt_bias, g, beta,
            scale, l2norm, the gates' options, layout, head_map, bv: as in :func:`decode`, a row for each token.
        state: where states come from, as in :func:`decode`. None: every sequence starts from zeros.
        slots: ``[N]``, or ``[N, S]`` with ``accepted``: the sequence starts from ``slots[n, accepted[n] - 1]`` (vLLM).
        cu_seqlens: ``[N + 1]`` int32 or int64: sequences of different lengths, 0 among them, one behind the other.
        update: write last states back to the slots they came from. Without effect where another target is named.
        write_slots: ``[N]``: the slots that last states go to. ``[N, S]``: the state after token t goes to ``write_slots[n, t]``.
        final_state: ``[N, HV, V, K]``: another tensor that last states go to, sequence n's to slot n.
        intermediate: buffer ``[rows, steps, HV, V, K]`` for the state after each token; of the state's type, or any beside f32.
        intermediate_rows: ``[N]``, the buffer's row of each sequence; an index that names no row stores nothing.
        parents: ``[N, steps]``: drafts are trees, and token t starts from the state after token ``parents[n, t]``.
        out: where the output goes; allocated of the type of q without. output=False: states advance, nothing is put out.
        reset, has_initial_state: as in :func:`decode`. null_slot: an index that marks padding besides negative ones.
        round_state: round the state to its type after every token, so that T tokens give the bits of T decodes.

    Returns:
        out, of v's shape where it was not given; None with output=False.
    """
    gate, kind, bound = gate_of(a, g, lower_bound)
    logits, given_beta = beta_of(b, beta)
    start, inverted = start_of(reset, has_initial_state)
    if out is None and output:
        out = _empty_like("v", v)
    args = (
        state, final_state, q, k, v, gate, logits, A_log, dt_bias, kind, given_beta, None, is_kv(layout), is_tiled(head_map),
        round_beta, scale, l2norm, softplus_beta, softplus_threshold, bound, beta_scale, slots, accepted, write_slots, start,
        intermediate, intermediate_rows, parents, cu_seqlens, out, update, round_state, inverted, null_slot, bv,
    )  # fmt: skip
    _run("recurrent", q, args)
    return out


def causal_conv1d_update(
    x,
    conv_state,
    weight,
    bias=None,
    *,
    slots=None,
    out=None,
    activation="silu",
    cu_seqlens=None,
    accepted=None,
    update=True,
    write_slots=None,
    intermediate=None,
    intermediate_rows=None,
    parents=None,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    round_products=False,
    early=False,
):
    """The causal depthwise convolution of a decode step. ``conv_state`` is updated in place.

    Args:
        x: ``[N, dim]``, ``[N, T, dim]``, or ``[total, dim]`` with ``cu_seqlens``; f32, bf16 or f16.
        conv_state: ``[slots, dim, L]``, L at least width - 1, of the type of x or f32. Channels or entries are contiguous; a
            pool ``[slots, L, dim]`` is handed over transposed.
        weight: ``[dim, width]``, oldest tap first, width 2 to 4. bias: ``[dim]``.
        slots: ``[N]``, as in :func:`decode`. ``[N, S]`` with ``accepted``: the slot is ``slots[n, accepted[n] - 1]``.
        out: of x's shape and type; may be x, unless there are parents.
        activation: ``"silu"``, or None.
        accepted: ``[N]``, accepted tokens of the last draft: where the window begins, or (``slots`` being ``[N, S]``) the slot.
        update, write_slots: where new windows go, as in :func:`recurrent`.
        intermediate: ``[rows, steps, dim, width - 1]`` for the window after each token. intermediate_rows: ``[N]``.
        parents: ``[N, T]``: drafts are trees.
        round_products: round each product to the type of x, as Triton kernels with 16-bit weights do.
        early: start before the predecessor in the stream has ended, as in :func:`decode`; everything is read behind it.

    Returns:
        out.
    """
    if activation not in ("silu", "swish", None):
        raise ArgumentError(f"activation: {activation!r} is not allowed, it must be 'silu' or None")
    start, inverted = start_of(reset, has_initial_state)
    if out is None:
        out = _empty_like("x", x)
    args = (
        x, conv_state, weight, bias, out, slots, write_slots, start, accepted, intermediate, intermediate_rows, parents,
        cu_seqlens, activation is not None, round_products, update, inverted, null_slot,
        early,
    )  # fmt: skip
    _run("conv1d_update", x, args)
    return out


def gated_rmsnorm(x, z, weight, *, eps=1e-6, activation="silu", out=None, early=False):
    """``x * rsqrt(mean(x^2) + eps) * weight * act(z)`` over the V elements of each head, rounded once.

    Args:
        x: ``[.., HV, V]`` or ``[rows, V]``, of the type of z or f32. z: as many heads. weight: ``[V]``.
        eps: 1e-6 in Qwen, 1e-5 in Kimi. activation: ``"silu"`` (Qwen) or ``"sigmoid"`` (Kimi).
        out: of x's shape and z's type; may be x, if that is of its type.
        early: start before the predecessor in the stream has ended, as in :func:`decode`; everything is read behind it.

    Returns:
        out.
    """
    if activation not in ("silu", "swish", "sigmoid"):
        raise ArgumentError(f"activation: {activation!r} is not allowed, it must be 'silu' or 'sigmoid'")
    if out is None:
        _shape("z", z)
        out = _empty(z, _shape("x", x))
    _run("gated_rmsnorm", x, (x, z, weight, out, eps, activation == "sigmoid", early))
    return out


def unpack_qkvz(qkvz, ba, H, HV, K, V, *, early=False):
    """Takes Qwen3-Next's projections apart, which are interleaved by key head.

    Args:
        qkvz: ``[.., 2 * H * K + 2 * HV * V]``. ba: ``[.., 2 * HV]``.
        early: start before the predecessor in the stream has ended, as in :func:`decode`; everything is read behind it.

    Returns:
        ``(mixed_qkv, z, b, a)``: ``[.., 2 * H * K + HV * V]``, ``[.., HV, V]``, ``[.., HV]`` and ``[.., HV]``.
    """
    lead = tuple(_shape("qkvz", qkvz)[:-1])
    _shape("ba", ba)
    mixed, z = _empty(qkvz, (*lead, 2 * H * K + HV * V)), _empty(qkvz, (*lead, HV, V))
    b, a = _empty(ba, (*lead, HV)), _empty(ba, (*lead, HV))
    _run("unpack_qkvz", qkvz, (qkvz, ba, mixed, z, b, a, H, HV, K, V, early))
    return mixed, z, b, a


def copy_state(source, target, source_slots=None, target_slots=None, *, null_slot=None):
    """Copies whole slots from one pool to another, or within one: recurrent states, windows, anything.

    Args:
        source, target: pools ``[slots, ..]`` of one type and shape of a slot. A slot's bytes are a multiple of 16.
        source_slots, target_slots: ``[copies]``; without one copy n takes slot n.

    Returns:
        target.
    """
    _run("copy_state", source, (source, target, source_slots, target_slots, null_slot))
    return target


def commit_state(intermediate, accepted, state, slots=None, *, intermediate_rows=None, null_slot=None, layout="VK"):
    """Commits accepted drafts: ``intermediate[row[n], accepted[n] - 1]`` becomes ``state[slots[n]]``.

    Args:
        intermediate: ``[rows, steps, HV, V, K]`` as :func:`recurrent` left it, of the type of state.
        accepted: ``[N]``; 0 commits nothing.

    Returns:
        state.
    """
    args = (intermediate, accepted, state, slots, intermediate_rows, null_slot, is_kv(layout))
    _run("commit_state", state, args)
    return state


def convert_layout(source, target, source_slots=None, target_slots=None, *, to="KV", null_slot=None):
    """Copies states between pools of different layouts: ``[slots, HV, V, K]`` to ``[slots, HV, K, V]``, or back with to="VK".

    Returns:
        target.
    """
    _run("convert_layout", source, (source, target, source_slots, target_slots, null_slot, is_kv(to, "to")))
    return target
