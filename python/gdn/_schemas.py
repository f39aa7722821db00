"""The operations as the extension takes them: every argument in its place, flat.

This is the one list of arguments that three parties agree on: the extension (``src/*.rs`` reads them in this order), the custom
operators of torch (``_torch.py`` registers the schemas) and the functions of ``_ops.py``, which users call.
Tensors marked ``(x!)`` are written. Outputs are arguments, too: nothing is returned. Calls for all layers of replay take lists of
tensors, the table of their addresses that kernels read, and the same addresses as numbers, which are held against the lists.
"""

#: Values of ``gate``.
SOFTPLUS, LOWER_BOUND, GIVEN = 0, 1, 2

_INPUTS = (
    "Tensor q, Tensor? k, Tensor? v, Tensor a, Tensor b, Tensor? A_log, Tensor? dt_bias, int gate, bool given_beta, "
    "int? heads, bool kv, bool tiled, bool round_beta, float? scale, float? l2norm, float softplus_beta, "
    "float softplus_threshold, float lower_bound, float beta_scale"
)

_RINGS = "Tensor(a!) state, Tensor(b!) ring_k, Tensor(c!) ring_d, Tensor(d!) ring_g"
_LAYERS = (
    "Tensor(a!)[] state, Tensor(b!)[] ring_k, Tensor(c!)[] ring_d, Tensor(d!)[] ring_g, Tensor layers, int[] addresses, "
    "Tensor length, Tensor? base, bool by_slot"
)
_SEQUENCES = "Tensor? slots, Tensor? start, Tensor? force, bool has_initial_state, int? null_slot, int? most"

SCHEMAS = {
    "decode": f"(Tensor(a!) state, {_INPUTS}, Tensor? slots, Tensor? write_slots, Tensor? start, Tensor(b!) out, "
    "bool has_initial_state, int? null_slot, int? bv, bool early) -> ()",
    "recurrent": f"(Tensor(a!)? state, Tensor(b!)? final_state, {_INPUTS}, Tensor? slots, Tensor? accepted, "
    "Tensor? write_slots, Tensor? start, Tensor(c!)? intermediate, Tensor? intermediate_rows, Tensor? parents, "
    "Tensor? cu_seqlens, Tensor(d!)? out, bool update, bool round_state, bool has_initial_state, int? null_slot, "
    "int? bv) -> ()",
    "conv1d_update": "(Tensor x, Tensor(a!) conv_state, Tensor weight, Tensor? bias, Tensor(b!) out, Tensor? slots, "
    "Tensor? write_slots, Tensor? start, Tensor? accepted, Tensor(c!)? intermediate, Tensor? intermediate_rows, "
    "Tensor? parents, Tensor? cu_seqlens, bool silu, bool round_products, bool update, bool has_initial_state, "
    "int? null_slot, bool early) -> ()",
    "gated_rmsnorm": "(Tensor x, Tensor z, Tensor weight, Tensor(a!) out, float eps, bool sigmoid, bool early) -> ()",
    "unpack_qkvz": "(Tensor qkvz, Tensor ba, Tensor(a!) mixed_qkv, Tensor(b!) z, Tensor(c!) b, Tensor(d!) a, "
    "int H, int HV, int K, int V, bool early) -> ()",
    "copy_state": "(Tensor source, Tensor(a!) target, Tensor? source_slots, Tensor? target_slots, int? null_slot) -> ()",
    "commit_state": "(Tensor intermediate, Tensor accepted, Tensor(a!) state, Tensor? slots, Tensor? intermediate_rows, "
    "int? null_slot, bool kv) -> ()",
    "convert_layout": "(Tensor source, Tensor(a!) target, Tensor? source_slots, Tensor? target_slots, int? null_slot, "
    "bool to_kv) -> ()",
    "replay_decode": f"({_RINGS}, Tensor length, Tensor? base, bool by_slot, {_INPUTS}, {_SEQUENCES}, Tensor(e!) out, "
    "int? bv, bool early) -> ()",
    "replay_verify": f"({_RINGS}, Tensor length, Tensor? base, bool by_slot, {_INPUTS}, {_SEQUENCES}, Tensor? parents, "
    "Tensor(e!) out, int? bv, bool early) -> ()",
    "replay_advance": "(Tensor state, Tensor ring_k, Tensor ring_d, Tensor ring_g, Tensor(a!) length, Tensor(b!)? base, "
    f"bool by_slot, {_SEQUENCES}, Tensor? accepted, int tokens, bool early) -> ()",
    "replay_commit": f"({_LAYERS}, {_SEQUENCES}, Tensor accepted, Tensor path, bool early) -> ()",
    "replay_fold": f"({_LAYERS}, {_SEQUENCES}, float? l2norm, bool tiled) -> ()",
    "materialise": f"({_LAYERS}, {_SEQUENCES}, Tensor(e!)[] targets, Tensor? target_slots, Tensor? count, float? l2norm, "
    "bool tiled) -> ()",
}
