"""Decode of gated-delta-rule layers (Qwen3-Next, Qwen3.5, Kimi) on NVIDIA GPUs.

Operations take torch tensors on a GPU and launch on torch's current stream of that GPU; on tensors and numpy arrays on
the CPU the same calls compute a reference in f64. ``python -m gdn`` says what is here.

    decode, decode_packed       one token for each sequence
    recurrent                   several: drafts, trees, short prompts
    causal_conv1d_update, gated_rmsnorm, unpack_qkvz    what stands around it
    copy_state, commit_state, convert_layout            states from slot to slot
    ReplayState                 all layers' states with rings of records: decode and drafts that seldom write a state
    replay_decode, replay_verify, replay_advance, replay_commit, replay_fold, materialise    the same on the caller's tensors
    SlotAllocator               which sequence has which slot
    load, plan, Caps            kernels before they are needed; how a call is launched
    gdn.compat                  the same under the names of SGLang, vLLM, FLA and FlashInfer, and for transformers
"""

from ._errors import ArgumentError, Error

try:
    from ._gdn import Caps, Plan, Sequence, SlotAllocator, Snapshot, __version__
except ModuleNotFoundError as _problem:
    raise ImportError(
        f"gdn without its extension: {__path__[0]} is the source, not an installed wheel. Install the wheel, and start Python in "
        "another folder"
    ) from _problem
from ._loading import load, loaded, models, modules, plan, status
from ._ops import (
    causal_conv1d_update,
    commit_state,
    convert_layout,
    copy_state,
    decode,
    decode_packed,
    gated_rmsnorm,
    recurrent,
    unpack_qkvz,
)
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
from ._replay_state import ReplayState

__all__ = [
    "ArgumentError",
    "Caps",
    "Error",
    "Plan",
    "ReplayLayers",
    "ReplayPool",
    "ReplayState",
    "Sequence",
    "SlotAllocator",
    "Snapshot",
    "__version__",
    "causal_conv1d_update",
    "commit_state",
    "convert_layout",
    "copy_state",
    "decode",
    "decode_packed",
    "gated_rmsnorm",
    "load",
    "loaded",
    "materialise",
    "models",
    "modules",
    "plan",
    "recurrent",
    "replay_advance",
    "replay_commit",
    "replay_decode",
    "replay_fold",
    "replay_verify",
    "status",
    "unpack_qkvz",
]
