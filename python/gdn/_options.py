"""Options as users write them, and as the extension takes them."""

from ._errors import ArgumentError
from ._schemas import GIVEN, LOWER_BOUND, SOFTPLUS


def is_kv(layout, field="layout"):
    if layout not in ("VK", "KV"):
        raise ArgumentError(f"{field}: {layout!r} is not allowed, it must be 'VK' or 'KV'")
    return layout == "KV"


def is_tiled(head_map):
    if head_map not in ("grouped", "tiled"):
        raise ArgumentError(f"head_map: {head_map!r} is not allowed, it must be 'grouped' or 'tiled'")
    return head_map == "tiled"


def gate_of(a, g, lower_bound):
    """The gate's tensor, and which gate it is."""
    if (a is None) == (g is None):
        raise ArgumentError("a: give the gate's input a, or the log decay g, one of them")
    if g is not None:
        return g, GIVEN, 0.0
    return (a, SOFTPLUS, 0.0) if lower_bound is None else (a, LOWER_BOUND, lower_bound)


def beta_of(b, beta):
    if (b is None) == (beta is None):
        raise ArgumentError("b: give the logits b, or beta, one of them")
    return (b, False) if beta is None else (beta, True)


def start_of(reset, has_initial_state):
    if reset is not None and has_initial_state is not None:
        raise ArgumentError("reset: it and has_initial_state say the same, give one of them")
    return reset if has_initial_state is None else has_initial_state, has_initial_state is not None
