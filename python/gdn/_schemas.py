"""The operations as the extension takes them: every argument in its place, flat.

This is the one list of arguments that three parties agree on: the extension (``src/*.rs`` reads them in this order), the custom
operators of torch (``_torch.py`` registers the schemas) and the functions of ``_ops.py``, which users call.
Tensors marked ``(x!)`` are written. Outputs are arguments, too: nothing is returned.
"""

#: Values of ``gate``.
SOFTPLUS, LOWER_BOUND, GIVEN = 0, 1, 2

_INPUTS = (
    "Tensor q, Tensor? k, Tensor? v, Tensor a, Tensor b, Tensor? A_log, Tensor? dt_bias, int gate, bool given_beta, "
    "int? heads, bool kv, bool tiled, bool round_beta, float? scale, float? l2norm, float softplus_beta, "
    "float softplus_threshold, float lower_bound, float beta_scale"
)

SCHEMAS = {
    "decode": f"(Tensor(a!) state, {_INPUTS}, Tensor? slots, Tensor? write_slots, Tensor? start, Tensor(b!) out, "
    "bool has_initial_state, int? null_slot, int? bv) -> ()",
    "recurrent": f"(Tensor(a!)? state, Tensor(b!)? final_state, {_INPUTS}, Tensor? slots, Tensor? accepted, "
    "Tensor? write_slots, Tensor? start, Tensor(c!)? intermediate, Tensor? intermediate_rows, Tensor? parents, "
    "Tensor? cu_seqlens, Tensor(d!)? out, bool update, bool round_state, bool has_initial_state, int? null_slot, "
    "int? bv) -> ()",
    "conv1d_update": "(Tensor x, Tensor(a!) conv_state, Tensor weight, Tensor? bias, Tensor(b!) out, Tensor? slots, "
    "Tensor? write_slots, Tensor? start, Tensor? accepted, Tensor(c!)? intermediate, Tensor? intermediate_rows, "
    "Tensor? parents, Tensor? cu_seqlens, bool silu, bool round_products, bool update, bool has_initial_state, "
    "int? null_slot) -> ()",
    "gated_rmsnorm": "(Tensor x, Tensor z, Tensor weight, Tensor(a!) out, float eps, bool sigmoid) -> ()",
    "unpack_qkvz": "(Tensor qkvz, Tensor ba, Tensor(a!) mixed_qkv, Tensor(b!) z, Tensor(c!) b, Tensor(d!) a, "
    "int H, int HV, int K, int V) -> ()",
    "copy_state": "(Tensor source, Tensor(a!) target, Tensor? source_slots, Tensor? target_slots, int? null_slot) -> ()",
    "commit_state": "(Tensor intermediate, Tensor accepted, Tensor(a!) state, Tensor? slots, Tensor? intermediate_rows, "
    "int? null_slot, bool kv) -> ()",
    "convert_layout": "(Tensor source, Tensor(a!) target, Tensor? source_slots, Tensor? target_slots, int? null_slot, "
    "bool to_kv) -> ()",
}
