"""The states of all layers of a model with their rings and cursors, as torch tensors."""

from . import _loading
from ._errors import ArgumentError, Error
from ._ops import torch
from ._options import is_tiled
from ._replay import (
    ReplayLayers,
    ReplayPool,
    materialise,
    replay_advance,
    replay_commit,
    replay_decode,
    replay_fold,
    replay_verify,
)


class ReplayState:
    """The states of all layers, rings of records beside them, and one pair of cursors for all.

    Args:
        layers: how many there are.
        slots: of each layer. Which sequence has which slot says :class:`SlotAllocator`.
        H, HV, K, V: heads, and elements of a head.
        family: ``"gdn"`` or ``"kda"``.
        records: R, records that a ring has room for: 1 to 32, in KDA to 16. About ``sqrt(2 S / r)`` is best, S being the bytes of
            a head's state and r those of its record; that is the default, with as many more as there are drafts, as far as R goes.
        drafts: drafts that a verification takes at most, 0 to 8. Every call leaves a ring so many free places.
        state, dtype: types of the checkpoints and of the inputs.
        device: where all of it lies.
        null_slot: an index that marks padding besides negative ones.
        l2norm, head_map: as in :func:`decode`, of every step.

    Attributes:
        state: checkpoints, ``[layers, slots, HV, V, K]``, zeros at the start. k, d, g: the rings, as in :class:`ReplayPool` with
            the layers in front.
        length, base: cursors, ``[slots]`` int32.

    A step of decode, every sequence in its own slot::

        from_slots, own, reset = allocator.step(sequences)      # two tables of slots, and flags
        states.enter(from_slots, own, reset)                     # forks, and what goes on from a snapshot
        for layer in range(layers):
            out = states.decode(layer, q, k, v, a, b, A_log, dt_bias, own, reset=reset)
        states.behind_decode(own, reset=reset)
        allocator.written(sequences)
    """

    def __init__(
        self,
        layers,
        slots,
        H,
        HV,
        K=128,
        V=128,
        *,
        family="gdn",
        records=None,
        drafts=0,
        state="float32",
        dtype="bfloat16",
        device="cuda",
        null_slot=None,
        l2norm=1e-6,
        head_map="grouped",
    ):
        if torch is None:
            raise Error("gdn.ReplayState holds tensors of torch, which is not installed")
        if family not in ("gdn", "kda"):
            raise ArgumentError(f"family: {family!r} is not allowed, it must be 'gdn' or 'kda'")
        for name, value in dict(layers=layers, slots=slots, H=H, HV=HV, K=K, V=V).items():
            if value < 1:
                raise ArgumentError(f"{name}: {value} is not allowed, it must be positive")
        if HV % H:
            raise ArgumentError(f"HV: {HV} is not allowed, it must be a multiple of H = {H}")
        is_tiled(head_map)
        state, dtype = _loading.torch_dtype("state", state), _loading.torch_dtype("dtype", dtype)
        kda = family == "kda"
        most = 16 if kda else 32
        if not 0 <= drafts <= 8:
            raise ArgumentError(f"drafts: {drafts} is not allowed, it must be 0 to 8")
        if records is None:
            records = min(most, _best_records(H, HV, K, V, kda, state.itemsize, dtype.itemsize) + drafts)
        if not drafts < records <= most:
            raise ArgumentError(f"records: {records} is not allowed, it must be 1 to {most} and more than the {drafts} drafts")
        kernels = _loading.replay_module_names(family, state, dtype, K, drafts > 0)
        absent = [name for name in kernels if name not in _loading.modules()]
        if absent:
            raise ArgumentError(f"K: {K} is not served with these types and drafts={drafts}: there is no module {absent[0]}")
        empty = lambda *shape, of=torch.float32: torch.zeros(layers, slots, *shape, dtype=of, device=device)
        self.state = empty(HV, V, K, of=state)
        self.k, self.d = empty(H, records, K, of=dtype), empty(HV, records, V)
        self.g = empty(HV, records, K) if kda else empty(HV, records)
        self.length, self.base = (torch.zeros(slots, dtype=torch.int32, device=device) for _ in range(2))
        self.records, self.drafts, self.null_slot = records, drafts, null_slot
        self._form = dict(l2norm=l2norm, head_map=head_map)
        self._family = family
        self._sequences = dict(null_slot=null_slot, most=records - drafts)
        self.layers = ReplayLayers(
            ReplayPool(state, k, d, g, self.length, self.base) for state, k, d, g in zip(self.state, self.k, self.d, self.g)
        )

    @property
    def slot_bytes(self):
        """Bytes of a slot of one layer: its checkpoint and its rings."""
        return sum(x[0, 0].numel() * x.itemsize for x in (self.state, self.k, self.d, self.g))

    def load(self):
        """Loads the kernels that these states need, which a captured graph wants done before it."""
        names = _loading.replay_module_names(self._family, self.state.dtype, self.k.dtype, self.k.shape[-1], self.drafts > 0)
        _loading.load(device=self.state.device, modules=names)

    def pool(self, layer):
        """The :class:`ReplayPool` of a layer."""
        pools = self.layers.pools
        if not 0 <= layer < len(pools):
            raise ArgumentError(f"layer: {layer} is not allowed, there are {len(pools)} layers")
        return pools[layer]

    def decode(self, layer, q, k, v, a, b, A_log, dt_bias, slots=None, **options):
        """:func:`replay_decode` in a layer."""
        options = {**self._sequences, **self._form, **options}
        return replay_decode(q, k, v, a, b, A_log, dt_bias, self.pool(layer), slots, **options)

    def verify(self, layer, q, k, v, a, b, A_log, dt_bias, slots=None, **options):
        """:func:`replay_verify` in a layer, of up to ``drafts`` tokens."""
        if q.ndim == 4 and q.shape[1] > self.drafts:
            raise ArgumentError(f"q: {q.shape[1]} drafts are not allowed, these states were made for drafts={self.drafts}")
        options = {**self._sequences, **self._form, **options}
        return replay_verify(q, k, v, a, b, A_log, dt_bias, self.pool(layer), slots, **options)

    def behind_decode(self, slots=None, **options):
        """Moves the cursors behind a step of decode, once for all layers; reset and force as the step had them."""
        replay_advance(self.pool(0), slots, **{**self._sequences, **options})

    def behind_verify(self, accepted, tokens, slots=None, *, path=None, **options):
        """Moves the cursors behind a verification of ``tokens`` drafts, once for all layers.

        Args:
            accepted: ``[N]``, accepted drafts of each sequence.
            path: of trees, ``[N, T]``: the accepted drafts in rising order.
        """
        options = {**self._sequences, **options}
        if path is not None:
            replay_commit(self.layers, accepted, path, slots, **options)
        replay_advance(self.pool(0), slots, accepted=accepted, tokens=tokens, **options)

    def enter(self, slots, write_slots, reset):
        """In front of a step: the states of sequences that do not start in a slot of their own come into it.

        Args:
            slots, write_slots, reset: the lists that :meth:`SlotAllocator.step` returns.
        """
        pairs = [(a, b) for a, b, zeros in zip(slots, write_slots, reset) if a != b and not zeros]
        if pairs:
            self.copy(*(self._table(column) for column in zip(*pairs)))

    def copy(self, slots, target_slots):
        """Copies true states to other slots in all layers, ``[copies]`` each, and empties the rings there. No target is a source."""
        materialise(self.layers, slots, target_slots=target_slots, null_slot=self.null_slot, **self._form)
        self.empty(target_slots)

    def empty(self, slots):
        """Makes rings empty: the checkpoints of these slots, ``[N]``, are their states then."""
        replay_advance(self.pool(0), slots, null_slot=self.null_slot, most=0)

    def fold(self, slots=None):
        """Folds and empties the rings of slots, ``[N]``, or all, so that plain operations may take the checkpoints."""
        replay_fold(self.layers, slots, null_slot=self.null_slot, **self._form)
        self.empty(slots)

    def store(self, targets, slots, target_slots, *, count=None):
        """Stores true states into plain pools, ``[slots, HV, V, K]``, one a layer (or one tensor with the layers in front).

        Args:
            slots, target_slots: ``[N]`` each. count: ``[N]``: only so many of the live records are applied.
        """
        layers = self.layers.to(targets)
        materialise(layers, slots, target_slots=target_slots, count=count, **self._form)

    def _table(self, numbers):
        return torch.tensor(list(numbers), dtype=torch.int32).to(self.length.device)


def _best_records(H, HV, K, V, kda, state_bytes, io_bytes):
    """``sqrt(2 S / r)``: where reading records costs as much as writing the state once in a ring's length."""
    state = HV * V * K * state_bytes
    record = H * K * io_bytes + HV * V * 4 + HV * (K if kda else 1) * 4
    return max(1, round((2 * state / record) ** 0.5))
