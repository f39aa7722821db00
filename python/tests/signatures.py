"""The peers' argument lists as docs/MIGRATING.md has them, and as the peers' own sources have them."""

import ast
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "MIGRATING.md"

#: Where each drop-in's original is, in the folder that the peers' wheels are unpacked in (GDN_PEERS). vLLM's wheel is no
#: source that is at hand everywhere, so its lists are held against the document alone.
ORIGINALS = {
    "sglang.fused_sigmoid_gating_delta_rule_update": "sglang/kernels/ops/attention/linear/fused_sigmoid_gating_recurrent.py",
    "sglang.fused_recurrent_gated_delta_rule": "sglang/kernels/ops/attention/fla/fused_recurrent.py",
    "sglang.fused_recurrent_gated_delta_rule_update": "sglang/kernels/ops/attention/fla/fused_recurrent.py",
    "sglang.fused_recurrent_gated_delta_rule_packed_decode": "sglang/kernels/ops/attention/fla/fused_recurrent.py",
    "sglang.fused_recurrent_kda_packed_decode": "sglang/kernels/ops/attention/fla/fused_recurrent.py",
    "sglang.fused_recurrent_kda": "sglang/kernels/ops/attention/fla/kda.py",
    "sglang.causal_conv1d_update": "sglang/kernels/ops/mamba/causal_conv1d_triton.py",
    "sglang.rms_norm_gated": "sglang/kernels/ops/attention/fla/layernorm_gated.py",
    "sglang.layernorm_fn": "sglang/kernels/ops/attention/fla/layernorm_gated.py",
    "fla.fused_recurrent_gated_delta_rule": "fla/ops/gated_delta_rule/fused_recurrent.py",
    "fla.fused_recurrent_kda": "fla/ops/kda/fused_recurrent.py",
    "fla.rms_norm_gated": "fla/modules/norm/fused_norm_gate.py",
    "flashinfer.gated_delta_rule_decode_pretranspose": "flashinfer/gdn_decode.py",
    "flashinfer.gated_delta_rule_decode": "flashinfer/gdn_decode.py",
    "flashinfer.gated_delta_rule_mtp": "flashinfer/gdn_decode.py",
}
_CONSTANTS = {"PAD_SLOT_ID": "-1"}


def documented():
    """Argument lists by function, `sglang.causal_conv1d_update` say."""
    rows = re.findall(r"^\| `gdn\.compat\.(\w+\.\w+)` \| `\((.*)\)` \|$", DOCUMENT.read_text(), re.MULTILINE)
    return dict(rows)


def original(folder, name):
    """The argument list of a peer's function, from its source; annotations are left out."""
    tree = ast.parse((Path(folder) / ORIGINALS[name]).read_text())
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name.split(".")[1])
    for argument in ast.walk(function.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    text = ast.unparse(function.args).replace('"', "'")
    for constant, value in _CONSTANTS.items():
        text = text.replace(constant, value)
    return text
