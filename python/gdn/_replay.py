"""Replay: states that are seldom written, and rings of records beside them.

A step appends a record of each token to the ring of its slot and leaves the state alone; once in a while the ring is folded, and
the true state becomes the slot's checkpoint. Drafts are verified without a state for each: what is rejected is a cursor that
does not move. The cursors are moved once behind all layers.

``ReplayState`` (``_replay_state.py``) holds all of it for a model. The operations here work on what the caller holds. Dimensions as
in ``_ops.py``, and R records of a ring.
"""

from typing import Any, NamedTuple

from ._errors import ArgumentError
from ._ops import _empty_like, _run, torch
from ._options import beta_of, gate_of, is_tiled, start_of


class ReplayPool(NamedTuple):
    """A layer's checkpoints and rings, and the cursors of all layers.

    Attributes:
        state: checkpoints, ``[slots, HV, V, K]``, f32, of the type of q, or f16 under bf16.
        k: keys, ``[slots, H, R, K]``, of the type of q. R is 1 to 32, in KDA to 16.
        d: corrections, ``[slots, HV, R, V]``, f32.
        g: log decays, ``[slots, HV, R]``, in KDA ``[slots, HV, R, K]``, f32.
        length: live records of each slot, ``[slots]`` int32; zeros at the start. by_slot=False: of each sequence, ``[N]``.
        base: place of each oldest live record, of length's shape; without it that is place 0, and no drafts are verified.
        by_slot: whether the cursors are counted by slot.
    """

    state: Any
    k: Any
    d: Any
    g: Any
    length: Any
    base: Any = None
    by_slot: bool = True


class ReplayLayers:
    """The pools of all layers, for what is done with all at once.

    It keeps a table of their addresses on their device. So tensors must stay where they are: memory that was moved since is refused.

    Args:
        pools: a :class:`ReplayPool` for each layer, of one shape, with the same cursors.
        targets: pools ``[slots, HV, V, K]``, one a layer, that :func:`materialise` writes; by default the checkpoints.
    """

    def __init__(self, pools, targets=None):
        self.pools = list(pools)
        self.targets = [] if targets is None else list(targets)
        if not self.pools:
            raise ArgumentError("pools: there is no layer")
        if self.targets and len(self.targets) != len(self.pools):
            raise ArgumentError(f"targets: there are {len(self.targets)} for {len(self.pools)} layers")
        rows = [
            [_address(x) for x in (pool.state, pool.k, pool.d, pool.g, target)]
            for pool, target in zip(self.pools, self.targets or [pool.state for pool in self.pools])
        ]
        for name, addresses in zip(("state", "k", "d", "g", "target"), zip(*rows)):
            at = next((at for at, address in enumerate(addresses) if address in addresses[:at]), None)
            if at is not None and self.pools[at].state.shape[0] > 0:
                raise ArgumentError(f"pools: {name} of layer {at} is that of layer {addresses.index(addresses[at])}")
        self.addresses = [address for row in rows for address in row]
        first = self.pools[0].state
        if torch is not None and isinstance(first, torch.Tensor):
            self.table = torch.tensor(rows, dtype=torch.int64).to(first.device)
        else:
            import numpy

            self.table = numpy.array(rows, numpy.int64)

    def to(self, targets):
        """The same layers with other targets: what :func:`materialise` writes, a pool ``[slots, HV, V, K]`` for each."""
        return ReplayLayers(self.pools, targets)

    def _args(self):
        pools, first = self.pools, self.pools[0]
        lists = tuple([getattr(pool, name) for pool in pools] for name in ("state", "k", "d", "g"))
        return (*lists, self.table, self.addresses, first.length, first.base, first.by_slot)


def _address(x):
    return x.data_ptr() if hasattr(x, "data_ptr") else x.__array_interface__["data"][0]


def _step(name, pool, q, k, v, a, b, A_log, dt_bias, slots, options, parents=()):
    """A step of either kind; `options` are the keywords that both have."""
    gate, kind, bound = gate_of(a, options["g"], options["lower_bound"])
    logits, given_beta = beta_of(b, options["beta"])
    start, inverted = start_of(options["reset"], options["has_initial_state"])
    out = options["out"]
    if out is None:
        out = _empty_like("v", v)
    args = (
        *pool, q, k, v, gate, logits, A_log, dt_bias, kind, given_beta, None, False, is_tiled(options["head_map"]),
        options["round_beta"], options["scale"], options["l2norm"], options["softplus_beta"], options["softplus_threshold"], bound,
        options["beta_scale"], slots, start, options["force"], inverted, options["null_slot"], options["most"], *parents, out,
        options["bv"], options["early"],
    )  # fmt: skip
    _run(name, q, args)
    return out


def replay_decode(
    q,
    k,
    v,
    a,
    b,
    A_log,
    dt_bias,
    pool,
    slots=None,
    *,
    g=None,
    beta=None,
    out=None,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    force=None,
    most=None,
    scale=None,
    l2norm=1e-6,
    lower_bound=None,
    softplus_beta=1.0,
    softplus_threshold=20.0,
    beta_scale=1.0,
    round_beta=False,
    head_map="grouped",
    bv=None,
    early=False,
):
    """:func:`decode` with a ring of records: the state is written only when the ring is folded.

    Each token appends a record to its slot's ring. Behind all layers :func:`replay_advance` moves the cursors, once.

    Args:
        q, k: ``[N, H, K]``. v: ``[N, HV, V]``. a, b, A_log, dt_bias, g, beta, out, and the options of gates and norms: as in
            :func:`decode`.
        pool: a :class:`ReplayPool`.
        slots: ``[N]``, as in :func:`decode`; no two of a call are the same. Without a table sequence n is in slot n.
        reset: ``[N]``: sequences that start from zeros with an empty ring, whatever slot and cursors hold.
        force: ``[N]``: sequences that fold now.
        most: live records at most behind the call, by default R; a sequence that would have more folds.
        early: start before the predecessor in the stream has ended, as in :func:`decode`; everything is read behind it.

    Returns:
        out, ``[N, HV, V]``.
    """
    options = dict(
        g=g, beta=beta, out=out, null_slot=null_slot, reset=reset, has_initial_state=has_initial_state, force=force, most=most,
        scale=scale, l2norm=l2norm, lower_bound=lower_bound, softplus_beta=softplus_beta, softplus_threshold=softplus_threshold,
        beta_scale=beta_scale, round_beta=round_beta, head_map=head_map, bv=bv, early=early,
    )  # fmt: skip
    return _step("replay_decode", pool, q, k, v, a, b, A_log, dt_bias, slots, options)


def replay_verify(
    q,
    k,
    v,
    a,
    b,
    A_log,
    dt_bias,
    pool,
    slots=None,
    *,
    parents=None,
    g=None,
    beta=None,
    out=None,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    force=None,
    most=None,
    scale=None,
    l2norm=1e-6,
    lower_bound=None,
    softplus_beta=1.0,
    softplus_threshold=20.0,
    beta_scale=1.0,
    round_beta=False,
    head_map="grouped",
    bv=None,
    early=False,
):
    """Verification of drafts with a ring of records: the outputs of :func:`recurrent`, and no state is stored for a draft.

    The drafts append records behind the live ones. :func:`replay_advance` with the accepted counts makes them live, as many as
    were accepted.

    Args:
        q, k: ``[N, T, H, K]``, T 1 to 8. v: ``[N, T, HV, V]``. The rest as in :func:`replay_decode`.
        pool: a :class:`ReplayPool` with ``base``; its rings have room for ``most`` records and T more.
        parents: ``[N, T]``: drafts are trees, and token t follows token ``parents[n, t]``, or, if that is not in ``0..t``, the
            live records. Then :func:`replay_commit` stands in front of :func:`replay_advance`.
        most: live records at most if all drafts were accepted, by default R - T; a sequence that would have more folds first.

    Returns:
        out, ``[N, T, HV, V]``.
    """
    options = dict(
        g=g, beta=beta, out=out, null_slot=null_slot, reset=reset, has_initial_state=has_initial_state, force=force, most=most,
        scale=scale, l2norm=l2norm, lower_bound=lower_bound, softplus_beta=softplus_beta, softplus_threshold=softplus_threshold,
        beta_scale=beta_scale, round_beta=round_beta, head_map=head_map, bv=bv, early=early,
    )  # fmt: skip
    return _step("replay_verify", pool, q, k, v, a, b, A_log, dt_bias, slots, options, (parents,))


def replay_advance(
    pool,
    slots=None,
    *,
    accepted=None,
    tokens=1,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    force=None,
    most=None,
    early=False,
):
    """Moves the cursors ``pool.length`` and ``pool.base`` behind a step, once when all layers have taken it.

    Args:
        pool: the :class:`ReplayPool` of any layer, and slots ``[N]``, null_slot, reset, force and most as the step had them.
        accepted: ``[N]``, accepted drafts of a verification of ``tokens`` drafts. Without it the step was a decode.
        early: as in :func:`replay_decode`.

    Returns:
        ``pool.length``.
    """
    start, inverted = start_of(reset, has_initial_state)
    _run("replay_advance", pool.state, (*pool, slots, start, force, inverted, null_slot, most, accepted, tokens, early))
    return pool.length


def replay_commit(
    layers,
    accepted,
    path,
    slots=None,
    *,
    null_slot=None,
    reset=None,
    has_initial_state=None,
    force=None,
    most=None,
    early=False,
):
    """Commits accepted paths of trees in all layers, between :func:`replay_verify` and :func:`replay_advance`.

    Args:
        layers: :class:`ReplayLayers`. slots ``[N]``, null_slot, reset, force, most: as the verification had them.
        accepted: ``[N]``, accepted drafts. path: ``[N, T]``, the accepted drafts of each sequence in rising order.
        early: as in :func:`replay_decode`.
    """
    start, inverted = start_of(reset, has_initial_state)
    sequences = (slots, start, force, inverted, null_slot, most)
    _run("replay_commit", layers.table, (*layers._args(), *sequences, accepted, path, early))


def replay_fold(layers, slots=None, *, force=None, null_slot=None, l2norm=1e-6, head_map="grouped"):
    """Folds rings in all layers: the true states become checkpoints. Cursors stay; the caller empties the rings behind it.

    Args:
        layers: :class:`ReplayLayers`. slots: ``[N]``; all without. force: ``[N]``, flags of those that fold.
        l2norm, head_map: as the steps had them.
    """
    args = (*layers._args(), slots, None, force, False, null_slot, None, l2norm, is_tiled(head_map))
    _run("replay_fold", layers.table, args)


def materialise(layers, slots=None, *, target_slots=None, count=None, null_slot=None, l2norm=1e-6, head_map="grouped"):
    """Stores true states into other slots, or other pools, of all layers. Checkpoints, rings and cursors stay as they are.

    Args:
        layers: :class:`ReplayLayers`; ``layers.to(targets)`` names other pools.
        slots: ``[N]``. target_slots: ``[N]``, by default slots. Within one pool no target is another sequence's slot.
        count: ``[N]``: only so many of the live records are applied.
        l2norm, head_map: as the steps had them.
    """
    sequences = (slots, None, None, False, null_slot, None)
    args = (*layers._args(), *sequences, layers.targets, target_slots, count, l2norm, is_tiled(head_map))
    _run("materialise", layers.table, args)
