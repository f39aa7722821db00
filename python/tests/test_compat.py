"""The drop-ins: their argument lists, and what they make of the recorded cases."""

import inspect

import cases
import gdn
import pytest
import signatures
import torch
from cases import OUT, STATE, Case, agrees
from gdn.compat import fla, flashinfer, sglang, vllm
from problems import clone, torch_problem


MODULES = dict(sglang=sglang, vllm=vllm, fla=fla, flashinfer=flashinfer)
FUNCTIONS = [f"{package}.{name}" for package, module in MODULES.items() for name in module.__all__]


def signature(name):
    package, function = name.split(".")
    return str(inspect.signature(getattr(MODULES[package], function)))[1:-1]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_argument_list_is_the_documented_one(name):
    listed = signatures.documented()
    assert name in listed, f"docs/MIGRATING.md has no row for gdn.compat.{name}"
    assert signature(name) == listed[name]


def test_document_has_no_other_functions():
    assert set(signatures.documented()) == set(FUNCTIONS)


@pytest.mark.parametrize("name", signatures.ORIGINALS)
def test_argument_list_is_the_peers_own(name, peers_folder):
    if not (peers_folder / signatures.ORIGINALS[name]).exists():
        pytest.skip(f"{peers_folder} has no {signatures.ORIGINALS[name]}")
    assert signature(name) == signatures.original(peers_folder, name)


def sigmoid_gating(case, **more):
    kind, _, bound = case.meta["gate"].partition(":")
    arguments = dict(
        A_log=case["A_log"],
        a=case["a"],
        dt_bias=case["dt_bias"].reshape(-1),
        softplus_beta=case.number("softplus_beta") if kind == "softplus" else 1.0,
        softplus_threshold=case.number("softplus_threshold") if kind == "softplus" else 20.0,
        q=case["q"],
        k=case["k"],
        v=case["v"],
        b=case["b"],
        initial_state_indices=case["slot_idx"],
        scale=case.number("scale"),
        use_qk_l2norm_in_kernel=case.flag("l2norm"),
        is_kda=case.meta["gate_kind"] == "kda",
        lower_bound=float(bound) if bound else None,
    )
    return sglang.fused_sigmoid_gating_delta_rule_update(**{**arguments, **more})


def valid(case, x):
    rows = case.kind.f32(case["row_valid"]).astype(bool) if "row_valid" in case else slice(None)
    return case.kind.f32(x)[rows]


@pytest.mark.parametrize("name", cases.names("decode_sigmoid_gating", "kda_decode"))
def test_sglang_decode(name, tensors):
    case = Case(name, tensors)
    pool, _ = case.padded("state_in")
    out = sigmoid_gating(case, initial_state_source=pool)
    assert out.shape == case["out"].shape and out.dtype == case["q"].dtype
    assert cases.relative(valid(case, out), valid(case, case["out"])) <= OUT["BF16"]
    agrees(case, "state_out", pool, STATE)
    # The same as one packed batch.
    lengths = torch.arange(len(case["slot_idx"]) + 1, dtype=torch.int32, device=tensors.device)
    packed = {key: case[key].flatten(0, 1)[None] for key in "qkvab"}
    pool, _ = case.padded("state_in")
    assert torch.equal(sigmoid_gating(case, **packed, cu_seqlens=lengths, initial_state_source=pool)[0], out[:, 0])


@pytest.mark.parametrize("name", cases.names("verify_sigmoid_gating"))
def test_sglang_verify(name, tensors):
    case = Case(name, tensors)
    pool, _ = case.padded("state_in")
    buffer = case.get("intermediate_out")
    if buffer is not None:  # Longer than the draft, as adaptive drafts have it.
        rows, steps = buffer.shape[:2]
        buffer = torch.zeros(rows, steps + 2, *buffer.shape[2:], dtype=buffer.dtype, device=buffer.device)
    out = sigmoid_gating(
        case,
        initial_state_source=pool,
        disable_state_update=not case.flag("state_update"),
        intermediate_states_buffer=buffer,
        intermediate_state_indices=case.get("intermediate_idx"),
        cache_steps=case.number("T"),
        retrieve_parent_token=case.get("parent"),
    )
    assert cases.relative(valid(case, out), valid(case, case["out"])) <= OUT["BF16"]
    if buffer is not None:
        agrees(case, "intermediate_out", buffer[:, :steps], STATE)
        assert (buffer[:, steps:] == 0).all()
    if case.flag("state_update"):
        agrees(case, "state_out", pool, STATE)


@pytest.mark.parametrize("name", cases.names("packed_decode"))
def test_sglang_packed_decode(name, tensors):
    case = Case(name, tensors)
    pool, _ = case.padded("state_in")
    H, HV, K, V = (case.number(key) for key in ("H", "HV", "K", "V"))
    mixed = case["mixed_qkv"][:, : 2 * H * K + HV * V]
    out = torch.full((mixed.shape[0], 1, HV, V), 7.0, dtype=mixed.dtype, device=mixed.device)
    is_kda = case.meta["gate_kind"] == "kda"
    function = sglang.fused_recurrent_kda_packed_decode if is_kda else sglang.fused_recurrent_gated_delta_rule_packed_decode
    options = {"lower_bound": float(case.meta["gate"].partition(":")[2])} if "lower" in case.meta["gate"] else {}
    tokens = mixed.shape[0]
    have, state = function(
        mixed, case["a"].reshape(tokens, -1), case["b"].reshape(tokens, -1), case["A_log"], case["dt_bias"].reshape(-1),
        case.number("scale"), pool, out, case["slot_idx"], use_qk_l2norm_in_kernel=case.flag("l2norm"), **options,
    )  # fmt: skip
    assert have is out and state is pool
    agrees(case, "out", out.reshape(case["out"].shape), OUT)
    agrees(case, "state_out", pool, STATE)


@pytest.mark.parametrize("name", cases.names("recurrent_update_fwd"))
def test_sglang_update(name, tensors):
    case = Case(name, tensors)
    pool, _ = case.padded("state_in")
    buffer = torch.zeros_like(case["intermediate_out"])
    arguments = dict(
        g=case["g"], beta=case["beta"], scale=case.number("scale"), initial_state_indices=case["slot_idx"],
        use_qk_l2norm_in_kernel=case.flag("l2norm"), disable_state_update=not case.flag("state_update"),
        intermediate_states_buffer=buffer, intermediate_state_indices=case["intermediate_idx"],
        retrieve_parent_token=case.get("parent"),
    )  # fmt: skip
    out = sglang.fused_recurrent_gated_delta_rule_update(case["q"], case["k"], case["v"], initial_state_source=pool, **arguments)
    assert cases.relative(valid(case, out), valid(case, case["out"])) <= OUT["BF16"]
    agrees(case, "intermediate_out", buffer, STATE)
    want, advanced = buffer.clone(), case.padded("state_in")[0]
    buffer.zero_()
    nothing = sglang.fused_recurrent_gated_delta_rule_update(
        case["q"], case["k"], case["v"], initial_state_source=advanced, disable_output_calculation=True, **arguments
    )
    assert nothing.numel() == 1 and torch.equal(buffer, want) and torch.equal(advanced, pool)


@pytest.mark.parametrize("name", cases.names("recurrent_fwd"))
def test_sglang_sequences(name, tensors):
    case = Case(name, tensors)
    state = case["state_in"] if case.flag("initial_state") else None
    before = None if state is None else state.clone()
    out, final = sglang.fused_recurrent_gated_delta_rule(
        case["q"], case["k"], case["v"], case["g"], case["beta"], case.number("scale"), state, True,
        case.get("cu_seqlens"), case.flag("l2norm"),
    )  # fmt: skip
    agrees(case, "out", out, OUT)
    agrees(case, "state_out", final, STATE)
    assert final.dtype == torch.float32 and (state is None or torch.equal(state, before))
    again, none = sglang.fused_recurrent_gated_delta_rule(
        case["q"], case["k"], case["v"], case["g"], case["beta"], case.number("scale"), state,
        cu_seqlens=case.get("cu_seqlens"), use_qk_l2norm_in_kernel=case.flag("l2norm"),
    )  # fmt: skip
    assert none is None and torch.equal(again, out)


@pytest.mark.parametrize("name", cases.names("kda_recurrent_fwd"))
def test_sglang_kda_sequences(name, tensors):
    case = Case(name, tensors)
    state = case["state_in"]
    options = dict(scale=case.number("scale"), use_qk_l2norm_in_kernel=case.flag("l2norm"))
    out, final = sglang.fused_recurrent_kda(
        case["q"], case["k"], case["v"], case["g"], case["beta"], initial_state=state, inplace_final_state=False, **options
    )
    agrees(case, "out", out, OUT)
    agrees(case, "state_out", final, STATE)
    _, final = sglang.fused_recurrent_kda(case["q"], case["k"], case["v"], case["g"], case["beta"], initial_state=state, **options)
    assert final is state
    agrees(case, "state_out", state, STATE)


@pytest.mark.parametrize("function", [sglang.causal_conv1d_update, vllm.causal_conv1d_update])
@pytest.mark.parametrize("name", cases.names("conv1d_update"))
def test_convolution(name, function, tensors):
    case = Case(name, tensors)
    x, state = case["x"], case["conv_state_in"]
    by_channel = x if x.ndim == 2 else x.transpose(1, 2)
    options = {}
    if function is sglang.causal_conv1d_update and "intermediate_conv_out" in case:
        options["intermediate_conv_window"] = torch.zeros_like(case["intermediate_conv_out"])
        options["intermediate_state_indices"] = case.get("intermediate_idx")
    for contiguous in (False, True):
        state = case["conv_state_in"]
        if function is vllm.causal_conv1d_update:  # Channels are contiguous there.
            state = state.transpose(1, 2).contiguous().transpose(1, 2)
        out = function(
            by_channel.contiguous() if contiguous else by_channel, state, case["conv_weight"], case.get("conv_bias"), "silu",
            conv_state_indices=case["slot_idx"], **options,
        )  # fmt: skip
        assert out.shape == by_channel.shape
        agrees(case, "out", out if x.ndim == 2 else out.transpose(1, 2), OUT)
        assert torch.equal(state, case["conv_state_out"])


def test_convolution_of_a_tree(tensors):
    """Parents follow from first children and next siblings: 0 has the children 1 and 2, 1 has 3, 2 has 4."""
    children = tensors.int32([[1, 3, 4, -1, -1], [1, 2, -1, -1, -1]])
    siblings = tensors.int32([[-1, 2, -1, -1, -1], [-1, -1, 3, 4, -1]])
    parents = tensors.int32([[-1, 0, 0, 1, 2], [-1, 0, 1, 1, 1]])
    assert torch.equal(sglang.parents_of(children, siblings), parents)
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1)).bfloat16().to(tensors.device)
    weight, state = x[0, :, :4].repeat(13, 1)[:64].contiguous(), x[:, :3].transpose(1, 2).contiguous()
    written = torch.zeros_like(parents)
    out = sglang.causal_conv1d_update(
        x.transpose(1, 2), state.clone(), weight, None, "silu", retrieve_next_token=children,
        retrieve_next_sibling=siblings, retrieve_parent_token=written,
    )  # fmt: skip
    assert torch.equal(written, parents)
    want = gdn.causal_conv1d_update(x, state.clone(), weight, parents=parents, round_products=True)
    assert torch.equal(out.transpose(1, 2), want)


@pytest.mark.parametrize("name", cases.names("gated_rmsnorm"))
def test_norms(name, tensors):
    case = Case(name, tensors)
    activation = "sigmoid" if case.meta["activation"] == "sigmoid" else "swish"
    x, z, weight, eps = case["x"], case["z"], case["norm_weight"], case.number("eps")
    flat = [part.reshape(-1, part.shape[-1]) for part in (x, z)]
    outs = [
        sglang.rms_norm_gated(x=x, weight=weight, bias=None, z=z, eps=eps, is_rms_norm=True, activation=activation),
        sglang.layernorm_fn(flat[0], weight, None, flat[1], eps, is_rms_norm=True, activation=activation),
        vllm.rmsnorm_fn(x, weight, None, z, eps, activation=activation),
        vllm.layernorm_fn(x, weight, None, z, eps, is_rms_norm=True, activation=activation),
        fla.rms_norm_gated(x, z, weight, None, activation, eps=eps),
    ]
    for out in outs:
        agrees(case, "out", out.reshape(x.shape), OUT)


@pytest.mark.parametrize("name", cases.names("fla_kv_layout"))
def test_fla_sequences(name, tensors):
    case = Case(name, tensors)
    arguments = dict(
        g=case["g"], beta=case["beta"], scale=case.number("scale"), output_final_state=True,
        use_qk_l2norm_in_kernel=case.flag("l2norm"),
    )  # fmt: skip
    q, k, v = case["q"], case["k"], case["v"]
    out, final = fla.fused_recurrent_gated_delta_rule(q, k, v, initial_state=case["state_in"], **arguments)
    agrees(case, "out", out, OUT)
    agrees(case, "state_out", final, STATE)
    turned, state = fla.fused_recurrent_gated_delta_rule(
        q, k, v, initial_state=case["state_in"].transpose(2, 3).contiguous(), state_v_first=True, **arguments
    )
    assert torch.equal(turned, out) and torch.equal(state.transpose(2, 3), final)
    # KDA with the same decay for every key is the same.
    K = q.shape[-1]
    heads = v.shape[2]
    wide = case["g"].float()[..., None].expand(*case["g"].shape, K)
    per_key = {**arguments, "g": wide}
    expanded, _ = fla.fused_recurrent_kda(q, k, v, initial_state=case["state_in"], **per_key)
    by_gk, _ = fla.fused_recurrent_gated_delta_rule(q, k, v, gk=wide, initial_state=case["state_in"], **{**arguments, "g": None})
    assert heads == 2 and torch.equal(by_gk, expanded)
    agrees(case, "out", expanded, OUT)


def test_fla_gates_in_the_kernel(tensors):
    """Raw inputs give what their gates, worked out beforehand, give."""
    problem = torch_problem(tensors, T=3, dtype="float32", K=64, V=64)
    softplus = torch.nn.functional.softplus
    g = -problem["A_log"].exp() * softplus(problem["a"] + problem["dt_bias"])
    beta = problem["b"].sigmoid()
    q, k, v = (problem[name] for name in "qkv")
    for scale, neg in ((1.0, False), (2.0, True)):
        want, state = fla.fused_recurrent_gated_delta_rule(q, k, v, g=g, beta=scale * beta, output_final_state=True)
        have, final = fla.fused_recurrent_gated_delta_rule(
            q, k, v, g=problem["a"], beta=problem["b"], use_gate_in_kernel=True, A_log=problem["A_log"],
            dt_bias=problem["dt_bias"], use_beta_sigmoid_in_kernel=True, allow_neg_eigval=neg, output_final_state=True,
        )  # fmt: skip
        assert cases.relative(have.cpu(), want.cpu()) < 1e-5 and cases.relative(final.cpu(), state.cpu()) < 1e-5


@pytest.mark.parametrize("state", ["float32", "bfloat16"])
def test_vllm_blocks(state, tensors):
    """A draft of a table of blocks: each token has a block, and block 0 is none."""
    problem = torch_problem(tensors, N=3, T=2, slots=8, state=state)
    table = tensors.int32([[1, 2], [0, 3], [4, 0]])
    accepted = tensors.int32([1, 1, 1])
    arguments = dict(
        A_log=problem["A_log"], a=problem["a"], b=problem["b"], dt_bias=problem["dt_bias"], q=problem["q"], k=problem["k"],
        v=problem["v"], use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    pool = problem["state"].clone()
    out, final = vllm.fused_sigmoid_gating_delta_rule_update(
        **arguments, initial_state=pool, ssm_state_indices=table, num_accepted_tokens=accepted
    )
    assert final is pool and out.dtype == (torch.float32 if state == "float32" else torch.bfloat16)
    assert (out[1] == 0).all() and torch.equal(pool[[0, 3, 5, 6, 7]], problem["state"][[0, 3, 5, 6, 7]])
    buffer = torch.zeros(3, 2, *pool.shape[1:], dtype=pool.dtype, device=pool.device)
    want = gdn.recurrent(
        **{**problem, "state": problem["state"].clone(), "slots": table[:, 0]}, null_slot=0, update=False, intermediate=buffer
    )
    assert torch.equal(out.to(want.dtype), want)
    assert torch.equal(pool[1], buffer[0, 0]) and torch.equal(pool[2], buffer[0, 1]) and torch.equal(pool[4], buffer[2, 0])
    # One token of column 0 of the table.
    one = {**arguments, **{name: arguments[name][:, :1] for name in "qkvab"}}
    again = problem["state"].clone()
    first, _ = vllm.fused_sigmoid_gating_delta_rule_update(**one, initial_state=again, ssm_state_indices=table)
    assert torch.equal(first[:, 0], out[:, 0]) and torch.equal(again[1], pool[1])


def test_vllm_keeps_beta_where_sglang_rounds_it(tensors):
    problem = torch_problem(tensors, N=3, slots=5)
    mixed = torch.cat([problem[name].flatten(1) for name in "qkv"], 1)
    outs = []
    for function, rounded in (
        (sglang.fused_recurrent_gated_delta_rule_packed_decode, True),
        (vllm.fused_recurrent_gated_delta_rule_packed_decode, False),
    ):
        pool, wanted = problem["state"].clone(), problem["state"].clone()
        out = torch.empty(3, 1, 4, 128, dtype=mixed.dtype, device=mixed.device)
        slots = tensors.int32([1, 4, 2])
        function(mixed, problem["a"], problem["b"], problem["A_log"], problem["dt_bias"], 0.1, pool, out, slots, True)
        want = gdn.decode(**{**problem, "state": wanted, "slots": slots}, scale=0.1, round_beta=rounded)
        assert torch.equal(out[:, 0], want) and torch.equal(pool, wanted)
        outs.append(pool)
    assert not torch.equal(*outs)


def test_flashinfer(tensors):
    problem = torch_problem(tensors, N=3, T=1, slots=6)
    inputs = [problem[name] for name in ("q", "k", "v")]
    gates = [problem[name] for name in ("A_log", "a", "dt_bias", "b")]
    slots, target = tensors.int32([1, -1, 3]), tensors.int32([5, 0, -1])
    pool, wanted = problem["state"].clone(), problem["state"].clone()
    out, state = flashinfer.gated_delta_rule_decode_pretranspose(
        *inputs, None, *gates, initial_state=pool, initial_state_indices=slots, output_state_indices=target
    )
    want = gdn.decode(**{**problem, "state": wanted, "slots": slots}, write_slots=target)
    assert state is pool and torch.equal(out, want) and torch.equal(pool, wanted) and (out[1] == 0).all()
    assert torch.equal(pool[[0, 1, 2, 3]], problem["state"][[0, 1, 2, 3]])
    by_batch, turned = problem["state"][:3].clone(), problem["state"][:3].transpose(2, 3).contiguous()
    out, _ = flashinfer.gated_delta_rule_decode_pretranspose(*inputs, by_batch, *gates)
    other, _ = flashinfer.gated_delta_rule_decode(*inputs, turned, *gates)
    assert torch.equal(out, other) and torch.equal(by_batch, turned.transpose(2, 3))

    several = torch_problem(tensors, N=2, T=3, slots=9)
    inputs = [several[name] for name in ("q", "k", "v")]
    gates = [several[name] for name in ("A_log", "a", "dt_bias", "b")]
    slots = tensors.int32([2, 0])
    pool, buffer = several["state"].clone(), torch.zeros(2, 3, *several["state"].shape[1:], device=tensors.device)
    with pytest.warns(DeprecationWarning, match="disable_state_update"):
        out, _ = flashinfer.gated_delta_rule_mtp(*inputs, pool, slots, *gates, intermediate_states_buffer=buffer)
    assert torch.equal(pool, several["state"])
    table = tensors.int32([[3, 4, 5], [6, 7, 8]])
    scattered, _ = flashinfer.gated_delta_rule_mtp(
        *inputs, pool, slots, *gates, ssm_state_indices=table, disable_state_update=False
    )
    assert torch.equal(scattered, out) and torch.equal(pool[table.long()], buffer)


def test_drop_ins_compile(tensors):
    problem = torch_problem(tensors, T=1)
    names = ["q", "k", "v", "b"]

    def step(p):
        return sglang.fused_sigmoid_gating_delta_rule_update(
            p["A_log"], p["a"], p["dt_bias"], 1.0, 20.0, *(p[name] for name in names), p["state"], p["slots"],
            use_qk_l2norm_in_kernel=True,
        )  # fmt: skip

    eager, compiled = clone(problem), clone(problem)
    assert torch.equal(torch.compile(step, fullgraph=True)(compiled), step(eager))
    assert torch.equal(compiled["state"], eager["state"])
