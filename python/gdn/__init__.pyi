"""Types of the package. `Array` is a torch tensor or a numpy array; all of a call are of one kind."""

from collections.abc import Callable, Iterable, Sequence as _Sequence
from typing import Any, Literal, TypeVar

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
) -> Array: ...
def gated_rmsnorm(
    x: Array,
    z: Array,
    weight: Array,
    *,
    eps: float = ...,
    activation: Literal["silu", "swish", "sigmoid"] = ...,
    out: Array | None = ...,
) -> Array: ...
def unpack_qkvz(
    qkvz: Array,
    ba: Array,
    H: int,
    HV: int,
    K: int,
    V: int,
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
def load(
    model: str | None = None,
    *,
    device: int | torch.device = ...,
    modules: Iterable[str] | None = None,
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
def loaded(device: int = ...) -> list[str]: ...
def status() -> str: ...
