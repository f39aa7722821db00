"""The drop-ins beside the peers' own kernels, on a GPU: the same call to both, the same results.

GDN_PEERS names a folder that the wheels of SGLang, flash-linear-attention and FlashInfer are unpacked in.
"""

import cases
import peers
import pytest
import torch
from gdn.compat import fla, flashinfer, sglang
from problems import torch_problem

pytestmark = pytest.mark.filterwarnings("ignore")
CASES = dict(
    f32=dict(state="float32"),
    bf16=dict(state="bfloat16"),
    heads=dict(H=4, HV=4, K=64, V=64),
    batch=dict(N=70, slots=90, H=1, HV=3),
)


@pytest.fixture(autouse=True, scope="module")
def _peers(peers_folder):
    with peers.imported(peers_folder):
        yield


def both(ours, theirs, arguments, written=()):
    """Calls both with memory of their own; returns the outputs and what they wrote."""
    results = []
    for function in (theirs, ours):
        mine = {name: copied(value) for name, value in arguments.items()}
        out = function(**mine)
        out = out if isinstance(out, tuple) else (out,)
        results.append([*(x for x in out if x is not None), *(mine[name] for name in written)])
    torch.cuda.synchronize()
    return zip(*results)


def copied(x):
    """A copy that lies as its original does."""
    if not isinstance(x, torch.Tensor):
        return x
    copy = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    return copy.copy_(x)


def same(pairs, limit=None):
    for theirs, ours in pairs:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        bound = limit or (1e-5 if theirs.dtype == torch.float32 else 3e-3)
        assert cases.relative(ours.float().cpu(), theirs.float().cpu()) <= bound


def gating(problem, **more):
    arguments = {name: problem[name] for name in ("A_log", "a", "dt_bias", "q", "k", "v", "b")}
    arguments |= dict(
        softplus_beta=1.0, softplus_threshold=20.0, initial_state_source=problem["state"],
        initial_state_indices=problem["slots"], use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    return {**arguments, **more}


@pytest.mark.parametrize("kda", [False, True], ids=["gdn", "kda"])
@pytest.mark.parametrize("case", CASES)
def test_sglang_decode(case, kda, gpu):
    theirs = peers.sglang("attention.linear.fused_sigmoid_gating_recurrent", "fused_sigmoid_gating_delta_rule_update")
    options = {**CASES[case], "kda": kda}
    if kda:  # As many value heads as key heads there.
        options["H"] = options.get("HV", 4)
    problem = torch_problem(gpu, T=1, **options)
    arguments = gating(problem, is_kda=kda)
    same(both(sglang.fused_sigmoid_gating_delta_rule_update, theirs, arguments, ["initial_state_source"]))
    # One packed batch.
    count = problem["q"].shape[0]
    packed = {name: arguments[name].transpose(0, 1) for name in "qkv"} | {name: arguments[name].flatten(0, 1) for name in "ab"}
    if kda:
        packed["a"] = packed["a"].flatten(1)
    packed["cu_seqlens"] = torch.arange(count + 1, dtype=torch.int32, device=gpu.device)
    same(both(sglang.fused_sigmoid_gating_delta_rule_update, theirs, {**arguments, **packed}, ["initial_state_source"]))


@pytest.mark.parametrize("case", CASES)
def test_sglang_verify(case, gpu):
    theirs = peers.sglang("attention.linear.fused_sigmoid_gating_recurrent", "fused_sigmoid_gating_delta_rule_update")
    problem = torch_problem(gpu, T=4, **CASES[case])
    count, state = problem["q"].shape[0], problem["state"]
    buffer = torch.zeros(count, 4, *state.shape[1:], dtype=state.dtype, device=gpu.device)
    verify = gating(
        problem, disable_state_update=True, intermediate_states_buffer=buffer, cache_steps=4,
        intermediate_state_indices=torch.randperm(count).int().to(gpu.device),
    )  # fmt: skip
    written = ["initial_state_source", "intermediate_states_buffer"]
    same(both(sglang.fused_sigmoid_gating_delta_rule_update, theirs, verify, written))
    verify["retrieve_parent_token"] = torch.tensor([[0, 0, 0, 1]] * count, dtype=torch.int32, device=gpu.device)
    same(both(sglang.fused_sigmoid_gating_delta_rule_update, theirs, verify, written))


@pytest.mark.parametrize("kda", [False, True], ids=["gdn", "kda"])
@pytest.mark.parametrize("case", ["f32", "bf16", "heads"])
def test_sglang_packed_decode(case, kda, gpu):
    name = "fused_recurrent_kda_packed_decode" if kda else "fused_recurrent_gated_delta_rule_packed_decode"
    theirs = peers.sglang("attention.fla.fused_recurrent", name)
    options = {**CASES[case], "kda": kda}
    problem = torch_problem(gpu, **options)
    mixed = torch.cat([problem[part].flatten(1) for part in "qkv"], 1)
    slots = problem["slots"].clone()
    slots[1] = -1
    arguments = dict(
        mixed_qkv=mixed, a=problem["a"].flatten(1), b=problem["b"], A_log=problem["A_log"], dt_bias=problem["dt_bias"].flatten(),
        scale=0.125, initial_state=problem["state"], out=torch.ones_like(problem["v"])[:, None], ssm_state_indices=slots,
        use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    same(both(getattr(sglang, name), theirs, arguments))
    if kda:
        same(both(getattr(sglang, name), theirs, {**arguments, "lower_bound": -5.0}))


def given(problem, kda=False):
    """Inputs whose gates were worked out beforehand."""
    g = -problem["A_log"].exp()[..., None] if kda else -problem["A_log"].exp()
    g = g * torch.nn.functional.softplus(problem["a"].float() + problem["dt_bias"])
    return dict(q=problem["q"], k=problem["k"], v=problem["v"], g=g, beta=problem["b"].sigmoid(), use_qk_l2norm_in_kernel=True)


@pytest.mark.parametrize("case", CASES)
def test_sglang_given_gates(case, gpu):
    problem = torch_problem(gpu, T=3, **CASES[case])
    count = problem["q"].shape[0]
    of = "attention.fla.fused_recurrent"
    states = problem["state"][problem["slots"].long()].float()
    arguments = dict(**given(problem), initial_state=states, output_final_state=True)
    same(both(sglang.fused_recurrent_gated_delta_rule, peers.sglang(of, "fused_recurrent_gated_delta_rule"), arguments))
    buffer = torch.zeros(count, 3, *states.shape[1:], dtype=problem["state"].dtype, device=gpu.device)
    update = dict(
        **given(problem), initial_state_source=problem["state"], initial_state_indices=problem["slots"],
        intermediate_states_buffer=buffer, cache_steps=3,
        intermediate_state_indices=torch.arange(count, dtype=torch.int32, device=gpu.device),
    )  # fmt: skip
    theirs = peers.sglang(of, "fused_recurrent_gated_delta_rule_update")
    written = ["initial_state_source", "intermediate_states_buffer"]
    same(both(sglang.fused_recurrent_gated_delta_rule_update, theirs, update, written))


def test_sglang_kda(gpu):
    problem = torch_problem(gpu, T=3, H=2, HV=2, kda=True)
    states = problem["state"][:3]
    for inplace in (True, False):
        arguments = dict(**given(problem, kda=True), initial_state=states, inplace_final_state=inplace)
        same(both(sglang.fused_recurrent_kda, peers.sglang("attention.fla.kda", "fused_recurrent_kda"), arguments))


@pytest.mark.parametrize("bits", [16, 32])
def test_sglang_convolution(bits, gpu):
    theirs = peers.sglang("mamba.causal_conv1d_triton", "causal_conv1d_update")
    dim, make = 768, lambda *shape: torch.randn(*shape, device=gpu.device).bfloat16()
    weight = make(dim, 4) if bits == 16 else make(dim, 4).float()
    state, slots = make(9, dim, 3), torch.tensor([4, 0, 7], dtype=torch.int32, device=gpu.device)
    one = dict(x=make(3, dim), conv_state=state, weight=weight, bias=None, activation="silu", conv_state_indices=slots)
    same(both(sglang.causal_conv1d_update, theirs, one, ["conv_state"]), 1e-3)
    several = dict(
        one, x=make(3, 4, dim).transpose(1, 2), intermediate_conv_window=torch.zeros(3, 4, dim, 3, device=gpu.device).bfloat16(),
        intermediate_state_indices=torch.tensor([2, 0, 1], dtype=torch.int32, device=gpu.device),
    )  # fmt: skip
    same(both(sglang.causal_conv1d_update, theirs, several, ["conv_state", "intermediate_conv_window"]), 1e-3)
    children = torch.tensor([[1, 3, -1, -1]] * 3, dtype=torch.int32, device=gpu.device)
    siblings = torch.tensor([[-1, 2, -1, -1]] * 3, dtype=torch.int32, device=gpu.device)
    tree = dict(
        several, retrieve_next_token=children, retrieve_next_sibling=siblings, retrieve_parent_token=torch.zeros_like(children)
    )
    pairs = list(both(sglang.causal_conv1d_update, theirs, tree, ["intermediate_conv_window", "retrieve_parent_token"]))
    same([(x[:, 1:].float(), y[:, 1:].float()) if i == 2 else (x, y) for i, (x, y) in enumerate(pairs)], 1e-3)


def test_norms(gpu):
    make = lambda *shape: torch.randn(*shape, device=gpu.device).bfloat16()
    x, z, weight = make(37, 128), make(37, 128), make(128)
    theirs = peers.sglang("attention.fla.layernorm_gated", "layernorm_fn")
    arguments = dict(x=x, weight=weight, bias=None, z=z, eps=1e-6, is_rms_norm=True)
    same(both(sglang.layernorm_fn, theirs, arguments), 1e-3)
    theirs = peers.fla("modules.norm.fused_norm_gate", "rms_norm_gated")
    arguments = dict(x=x, g=z, weight=weight, bias=None, activation="sigmoid", eps=1e-5)
    same(both(fla.rms_norm_gated, theirs, arguments), 1e-3)


@pytest.mark.parametrize("v_first", [False, True])
def test_fla(v_first, gpu):
    theirs = peers.fla("ops.gated_delta_rule.fused_recurrent", "fused_recurrent_gated_delta_rule")
    problem = torch_problem(gpu, T=5, K=128, V=64)
    states = problem["state"][:3] if v_first else problem["state"][:3].transpose(2, 3).contiguous()
    arguments = dict(**given(problem), initial_state=states, output_final_state=True, state_v_first=v_first)
    same(both(fla.fused_recurrent_gated_delta_rule, theirs, arguments))
    raw = dict(
        arguments, g=problem["a"], beta=problem["b"], use_gate_in_kernel=True, A_log=problem["A_log"], dt_bias=problem["dt_bias"],
        use_beta_sigmoid_in_kernel=True, allow_neg_eigval=True,
    )  # fmt: skip
    same(both(fla.fused_recurrent_gated_delta_rule, theirs, raw))
    lengths = torch.tensor([0, 4, 4, 15], device=gpu.device)
    flat = {name: arguments[name].flatten(0, 1)[None] for name in ("q", "k", "v", "g", "beta")}
    same(both(fla.fused_recurrent_gated_delta_rule, theirs, {**arguments, **flat, "cu_seqlens": lengths}))
    theirs = peers.fla("ops.kda.fused_recurrent", "fused_recurrent_kda")
    problem = torch_problem(gpu, T=5, K=128, V=64, kda=True, H=4)
    arguments = dict(**given(problem, kda=True), initial_state=states, output_final_state=True, state_v_first=v_first)
    same(both(fla.fused_recurrent_kda, theirs, arguments))
    raw = dict(
        arguments, g=problem["a"], beta=problem["b"], use_gate_in_kernel=True, A_log=problem["A_log"],
        dt_bias=problem["dt_bias"].flatten(), use_beta_sigmoid_in_kernel=True, lower_bound=-5.0,
    )  # fmt: skip
    same(both(fla.fused_recurrent_kda, theirs, raw))


def flashinfer_problem(gpu, T, **options):
    """Inputs of FlashInfer's functions by its names, a pool, and slots of it to read and to write."""
    problem = torch_problem(gpu, T=T, N=4, slots=12, **options)
    inputs = {name: problem[name] for name in ("q", "k", "v", "A_log", "a", "dt_bias", "b")}
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).int().to(gpu.device)
    return inputs, problem["state"], order[:4].clone(), order[4:8].clone()


@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_flashinfer_decode(state, gpu, flashinfer_folder):
    """States of a pool, read and written in one slot or in two. A padded row is theirs for a state in f32 alone."""
    theirs = peers.flashinfer(flashinfer_folder).gated_delta_rule_decode_pretranspose
    ours = flashinfer.gated_delta_rule_decode_pretranspose
    inputs, pool, slots, target = flashinfer_problem(gpu, T=1, state=state)
    if state == "float32":
        slots[1] = -1
    pooled = dict(inputs, state=None, initial_state=pool, initial_state_indices=slots)
    same(both(ours, theirs, pooled, ["initial_state"]))
    same(both(ours, theirs, dict(pooled, output_state_indices=target, scale=0.125), ["initial_state"]))
    same(both(ours, theirs, dict(inputs, state=pool[:4], use_qk_l2norm=False), ["state"]))


def test_flashinfer_decode_by_keys(gpu, flashinfer_folder):
    theirs = peers.flashinfer(flashinfer_folder).gated_delta_rule_decode
    inputs, pool, *_ = flashinfer_problem(gpu, T=1)
    states = pool[:4].transpose(2, 3).contiguous()
    same(both(flashinfer.gated_delta_rule_decode, theirs, dict(inputs, state=states), ["state"]))


def test_flashinfer_several_tokens(gpu, flashinfer_folder):
    """States in f32: kept for each token beside the pool, or in slots of it, or the last one alone."""
    theirs = peers.flashinfer(flashinfer_folder).gated_delta_rule_mtp
    ours = flashinfer.gated_delta_rule_mtp
    inputs, pool, slots, target = flashinfer_problem(gpu, T=2)
    pooled = dict(inputs, initial_state=pool, initial_state_indices=slots, scale=0.125)
    buffer = torch.zeros(4, 2, *pool.shape[1:], device=gpu.device)
    kept = dict(pooled, intermediate_states_buffer=buffer, disable_state_update=True)
    same(both(ours, theirs, kept, ["initial_state", "intermediate_states_buffer"]))
    last = dict(pooled, output_state_indices=target, disable_state_update=False)
    same(both(ours, theirs, last, ["initial_state"]))
    others = [slot for slot in range(12) if slot not in slots.tolist()]
    table = gpu.int32(others).view(4, 2)
    same(both(ours, theirs, dict(pooled, ssm_state_indices=table, disable_state_update=False), ["initial_state"]))


def test_flashinfer_several_tokens_in_bf16(gpu, flashinfer_folder):
    theirs = peers.flashinfer(flashinfer_folder).gated_delta_rule_decode_pretranspose
    ours = flashinfer.gated_delta_rule_decode_pretranspose
    inputs, pool, slots, target = flashinfer_problem(gpu, T=4, state="bfloat16")
    pooled = dict(inputs, state=None, initial_state=pool, initial_state_indices=slots)
    buffer = torch.zeros(4, 4, *pool.shape[1:], dtype=pool.dtype, device=gpu.device)
    kept = dict(pooled, intermediate_states_buffer=buffer, disable_state_update=True)
    same(both(ours, theirs, kept, ["initial_state", "intermediate_states_buffer"]))
    same(both(ours, theirs, dict(pooled, output_state_indices=target), ["initial_state"]))
