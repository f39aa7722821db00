"""Types of the package. `Array` is a torch tensor or a numpy array; all of a call are of one kind."""

from collections.abc import Callable, Iterable, Sequence as _Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import numpy
import torch

from ._gdn import Caps as Caps, Plan as Plan, Sequence as Sequence, SlotAllocator as SlotAllocator, Snapshot as Snapshot

Array = TypeVar("Array", torch.Tensor, numpy.ndarray[Any, Any])

__version__: str

class Error(RuntimeError): ...
class ArgumentError(Error, ValueError): ...

def decode(
    q: Array,
    k: Array,
    v: Array,
    a: Array | None,
    b: Array | None,
    A_log: Array | None,
    dt_bias: Array | None,
    state: Array,
    slots: Array | None = ...,
    *,
    g: Array | None = ...,
    beta: Array | None = ...,
    out: Array | None = ...,
    write_slots: Array | None = ...,
    null_slot: int | None = ...,
    reset: Array | None = ...,
    has_initial_state: Array | None = ...,
    scale: float | None = ...,
    l2norm: float | None = ...,
    lower_bound: float | None = ...,
    softplus_beta: float = ...,
    softplus_threshold: float = ...,
    beta_scale: float = ...,
    round_beta: bool = ...,
    layout: Literal["VK", "KV"] = ...,
    head_map: Literal["grouped", "tiled"] = ...,
    bv: int | None = ...,
    early: bool = ...,
) -> Array: ...
def decode_packed(
    mixed_qkv: Array,
    a: Array | None,
    b: Array | None,
    A_log: Array | None,
    dt_bias: Array | None,
    state: Array,
    slots: Array | None = ...,
    *,
    heads: int | None = ...,
    g: Array | None = ...,
    beta: Array | None = ...,
    out: Array | None = ...,
    write_slots: Array | None = ...,
    null_slot: int | None = ...,
    reset: Array | None = ...,
    has_initial_state: Array | None = ...,
    scale: float | None = ...,
    l2norm: float | None = ...,
    lower_bound: float | None = ...,
    softplus_beta: float = ...,
    softplus_threshold: float = ...,
    beta_scale: float = ...,
    round_beta: bool = ...,
    layout: Literal["VK", "KV"] = ...,
    head_map: Literal["grouped", "tiled"] = ...,
    bv: int | None = ...,
    early: bool = ...,
) -> Array: ...
def recurrent(
    q: Array,
    k: Array,
    v: Array,
    a: Array | None,
    b: Array | None,
    A_log: Array | None,
    dt_bias: Array | None,
    state: Array | None = ...,
    slots: Array | None = ...,
    *,
    g: Array | None = ...,
    beta: Array | None = ...,
    cu_seqlens: Array | None = ...,
    accepted: Array | None = ...,
    update: bool = ...,
    write_slots: Array | None = ...,
    final_state: Array | None = ...,
    intermediate: Array | None = ...,
    intermediate_rows: Array | None = ...,
    parents: Array | None = ...,
    out: Array | None = ...,
    output: bool = ...,
    null_slot: int | None = ...,
    reset: Array | None = ...,
    has_initial_state: Array | None = ...,
    round_state: bool = ...,
    scale: float | None = ...,
    l2norm: float | None = ...,
    lower_bound: float | None = ...,
    softplus_beta: float = ...,
    softplus_threshold: float = ...,
    beta_scale: float = ...,
    round_beta: bool = ...,
    layout: Literal["VK", "KV"] = ...,
    head_map: Literal["grouped", "tiled"] = ...,
    bv: int | None = ...,
) -> Array | None: ...
def causal_conv1d_update(
    x: Array,
    conv_state: Array,
    weight: Array,
    bias: Array | None = ...,
    *,
    slots: Array | None = ...,
    out: Array | None = ...,
    activation: Literal["silu", "swish"] | None = ...,
    cu_seqlens: Array | None = ...,
    accepted: Array | None = ...,
    update: bool = ...,
    write_slots: Array | None = ...,
    intermediate: Array | None = ...,
    intermediate_rows: Array | None = ...,
    parents: Array | None = ...,
    null_slot: int | None = ...,
    reset: Array | None = ...,
    has_initial_state: Array | None = ...,
    round_products: bool = ...,
    early: bool = ...,
) -> Array: ...
def gated_rmsnorm(
    x: Array,
    z: Array,
    weight: Array,
    *,
    eps: float = ...,
    activation: Literal["silu", "swish", "sigmoid"] = ...,
    out: Array | None = ...,
    early: bool = ...,
) -> Array: ...
def unpack_qkvz(
    qkvz: Array,
    ba: Array,
    H: int,
    HV: int,
    K: int,
    V: int,
    *,
    early: bool = ...,
) -> tuple[Array, Array, Array, Array]: ...
def copy_state(
    source: Array,
    target: Array,
    source_slots: Array | None = ...,
    target_slots: Array | None = ...,
    *,
    null_slot: int | None = ...,
) -> Array: ...
def commit_state(
    intermediate: Array,
    accepted: Array,
    state: Array,
    slots: Array | None = ...,
    *,
    intermediate_rows: Array | None = ...,
    null_slot: int | None = ...,
    layout: Literal["VK", "KV"] = ...,
) -> Array: ...
def convert_layout(
    source: Array,
    target: Array,
    source_slots: Array | None = ...,
    target_slots: Array | None = ...,
    *,
    to: Literal["VK", "KV"] = ...,
    null_slot: int | None = ...,
) -> Array: ...
class ReplayPool(NamedTuple):
    state: Any
    k: Any
    d: Any
    g: Any
    length: Any
    base: Any = ...
    by_slot: bool = ...

class ReplayLayers:
    pools: list[ReplayPool]
    targets: list[Any]
    addresses: list[int]
    table: Any
    def __init__(self, pools: Iterable[ReplayPool], targets: Iterable[Any] | None = ...) -> None: ...
    def to(self, targets: Iterable[Any]) -> ReplayLayers: ...

class ReplayState:
    state: torch.Tensor
    k: torch.Tensor
    d: torch.Tensor
    g: torch.Tensor
    length: torch.Tensor
    base: torch.Tensor
    records: int
    drafts: int
    null_slot: int | None
    layers: ReplayLayers
    def __init__(
        self,
        layers: int,
        slots: int,
        H: int,
        HV: int,
        K: int = ...,
        V: int = ...,
        *,
        family: Literal["gdn", "kda"] = ...,
        records: int | None = ...,
        drafts: int = ...,
        state: Any = ...,
        dtype: Any = ...,
        device: Any = ...,
        null_slot: int | None = ...,
        l2norm: float | None = ...,
        head_map: Literal["grouped", "tiled"] = ...,
    ) -> None: ...
    @property
    def slot_bytes(self) -> int: ...
    def load(self) -> None: ...
    def pool(self, layer: int) -> ReplayPool: ...
    def decode(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        a: torch.Tensor | None,
        b: torch.Tensor | None,
        A_log: torch.Tensor | None,
        dt_bias: torch.Tensor | None,
        slots: torch.Tensor | None = ...,
        **options: Any,
    ) -> torch.Tensor: ...
    def verify(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        a: torch.Tensor | None,
        b: torch.Tensor | None,
        A_log: torch.Tensor | None,
        dt_bias: torch.Tensor | None,
        slots: torch.Tensor | None = ...,
        **options: Any,
    ) -> torch.Tensor: ...
    def behind_decode(self, slots: torch.Tensor | None = ..., **options: Any) -> None: ...
    def behind_verify(
        self,
        accepted: torch.Tensor,
        tokens: int,
        slots: torch.Tensor | None = ...,
        *,
        path: torch.Tensor | None = ...,
        **options: Any,
    ) -> None: ...
    def enter(self, slots: Iterable[int], write_slots: Iterable[int], reset: Iterable[int]) -> None: ...
    def copy(self, slots: torch.Tensor, target_slots: torch.Tensor) -> None: ...
    def empty(self, slots: torch.Tensor) -> None: ...
    def fold(self, slots: torch.Tensor | None = ...) -> None: ...
    def store(
        self,
        targets: Iterable[torch.Tensor],
        slots: torch.Tensor,
        target_slots: torch.Tensor,
        *,
        count: torch.Tensor | None = ...,
    ) -> None: ...

def replay_decode(
    q: Array,
    k: Array,
    v: Array,
    a: Array | None,
    b: Array | None,
    A_log: Array | None,
    dt_bias: Array | None,
    pool: ReplayPool,
    slots: Array | None = ...,
    *,
    g: Array | None = ...,
    beta: Array | None = ...,
    out: Array | None = ...,
    null_slot: int | None = ...,
    reset: Array | None = ...,
    has_initial_state: Array | None = ...,
    force: Array | None = ...,
    most: int | None = ...,
    scale: float | None = ...,
    l2norm: float | None = ...,
    lower_bound: float | None = ...,
    softplus_beta: float = ...,
    softplus_threshold: float = ...,
    beta_scale: float = ...,
    round_beta: bool = ...,
    head_map: Literal["grouped", "tiled"] = ...,
    bv: int | None = ...,
    early: bool = ...,
) -> Array: ...
def replay_verify(
    q: Array,
    k: Array,
    v: Array,
    a: Array | None,
    b: Array | None,
    A_log: Array | None,
    dt_bias: Array | None,
    pool: ReplayPool,
    slots: Array | None = ...,
    *,
    parents: Array | None = ...,
    g: Array | None = ...,
    beta: Array | None = ...,
    out: Array | None = ...,
    null_slot: int | None = ...,
    reset: Array | None = ...,
    has_initial_state: Array | None = ...,
    force: Array | None = ...,
    most: int | None = ...,
    scale: float | None = ...,
    l2norm: float | None = ...,
    lower_bound: float | None = ...,
    softplus_beta: float = ...,
    softplus_threshold: float = ...,
    beta_scale: float = ...,
    round_beta: bool = ...,
    head_map: Literal["grouped", "tiled"] = ...,
    bv: int | None = ...,
    early: bool = ...,
) -> Array: ...
def replay_advance(
    pool: ReplayPool,
    slots: Any | None = ...,
    *,
    accepted: Any | None = ...,
    tokens: int = ...,
    null_slot: int | None = ...,
    reset: Any | None = ...,
    has_initial_state: Any | None = ...,
    force: Any | None = ...,
    most: int | None = ...,
    early: bool = ...,
) -> Any: ...
def replay_commit(
    layers: ReplayLayers,
    accepted: Any,
    path: Any,
    slots: Any | None = ...,
    *,
    null_slot: int | None = ...,
    reset: Any | None = ...,
    has_initial_state: Any | None = ...,
    force: Any | None = ...,
    most: int | None = ...,
    early: bool = ...,
) -> None: ...
def replay_fold(
    layers: ReplayLayers,
    slots: Any | None = ...,
    *,
    force: Any | None = ...,
    null_slot: int | None = ...,
    l2norm: float | None = ...,
    head_map: Literal["grouped", "tiled"] = ...,
) -> None: ...
def materialise(
    layers: ReplayLayers,
    slots: Any | None = ...,
    *,
    target_slots: Any | None = ...,
    count: Any | None = ...,
    null_slot: int | None = ...,
    l2norm: float | None = ...,
    head_map: Literal["grouped", "tiled"] = ...,
) -> None: ...
def load(
    model: str | None = None,
    *,
    device: int | str | torch.device | None = ...,
    modules: str | Iterable[str] | None = None,
    family: Literal["gdn", "kda"] = ...,
    state: Any = ...,
    dtype: Any = ...,
    k: int = ...,
    v: int = ...,
    layout: Literal["VK", "KV"] = ...,
    ops: _Sequence[str] = ...,
) -> None: ...
def plan(operation: Callable[..., Any], *args: Any, caps: Caps | None = None, **kwargs: Any) -> Plan | list[Plan]: ...
def models() -> list[str]: ...
def modules() -> list[str]: ...
def loaded(device: int | str | torch.device | None = ...) -> list[str]: ...
def status() -> str: ...
