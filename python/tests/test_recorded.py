"""Every function against what other projects' kernels were recorded to give."""

import cases
import gdn
import pytest
from cases import OUT, STATE, Case, agrees


def gate(case):
    """The gate's arguments, as operations have them."""
    options = dict(scale=case.number("scale"), l2norm=case.number("eps") if case.flag("l2norm") else None)
    if case.meta["gate"] == "precomputed":
        return dict(a=None, b=None, A_log=None, dt_bias=None, g=case["g"], beta=case["beta"], **options)
    kind, _, bound = case.meta["gate"].partition(":")
    if kind == "lower_bound":
        options["lower_bound"] = float(bound)
    else:
        options["softplus_beta"] = case.number("softplus_beta")
        options["softplus_threshold"] = case.number("softplus_threshold")
    options["round_beta"] = case.meta["beta_rounding"] == "b_dtype"
    return dict(a=case["a"], b=case["b"], A_log=case["A_log"], dt_bias=case["dt_bias"], **options)


def untouched(case, memory, pool):
    """What lies between slots is as it was."""
    gap = case.kind.f32(memory[:, pool[0].size if case.kind.name == "numpy" else pool[0].numel() :])
    assert (gap == 0).all(), "memory between slots was written"


@pytest.mark.parametrize("name", cases.names("decode_sigmoid_gating", "kda_decode"))
def test_decode(name, kind):
    case = Case(name, kind)
    pool, memory = case.padded("state_in")
    out = kind.full(case["out"].shape, 7, case["out"])
    gdn.decode(case["q"], case["k"], case["v"], **gate(case), state=pool, slots=case["slot_idx"], out=out)
    agrees(case, "out", out, OUT)
    agrees(case, "state_out", pool, STATE)
    untouched(case, memory, pool)


@pytest.mark.parametrize("name", cases.names("packed_decode"))
def test_decode_packed(name, kind):
    case = Case(name, kind)
    pool, memory = case.padded("state_in")
    mixed = case["mixed_qkv"]
    out = gdn.decode_packed(mixed, **gate(case), state=pool, slots=case["slot_idx"], heads=case.number("H"))
    agrees(case, "out", out.reshape(case["out"].shape), OUT)
    agrees(case, "state_out", pool, STATE)
    untouched(case, memory, pool)


@pytest.mark.parametrize("name", cases.names("verify_sigmoid_gating", "recurrent_update_fwd"))
def test_recurrent_in_a_pool(name, kind):
    case = Case(name, kind)
    pool, memory = case.padded("state_in")
    buffer = case.get("intermediate_out")
    if buffer is not None:
        buffer = kind.full(buffer.shape, 0, buffer)
    out = gdn.recurrent(
        case["q"],
        case["k"],
        case["v"],
        **gate(case),
        state=pool,
        slots=case["slot_idx"],
        update=case.flag("state_update"),
        intermediate=buffer,
        intermediate_rows=case.get("intermediate_idx"),
        parents=case.get("parent"),
    )
    valid = kind.f32(case["row_valid"]).astype(bool) if "row_valid" in case else slice(None)
    have, want = kind.f32(out)[valid], kind.f32(case["out"])[valid]
    assert cases.relative(have, want) <= 1e-3
    if buffer is not None:
        agrees(case, "intermediate_out", buffer, STATE)
    if case.flag("state_update"):
        agrees(case, "state_out", pool, STATE)
    else:
        assert (kind.f32(pool) == kind.f32(case["state_in"])).all(), "a read-only pool was written"
    untouched(case, memory, pool)


@pytest.mark.parametrize("name", cases.names("recurrent_fwd", "kda_recurrent_fwd", "fla_kv_layout"))
def test_recurrent_by_sequence(name, kind):
    case = Case(name, kind)
    final = kind.full(case["state_out"].shape, 7, case["state_out"])
    out = gdn.recurrent(
        case["q"],
        case["k"],
        case["v"],
        **gate(case),
        state=case["state_in"] if case.flag("initial_state") else None,
        final_state=final,
        cu_seqlens=case.get("cu_seqlens"),
        layout=case.meta["layout"],
    )
    agrees(case, "out", out, OUT)
    agrees(case, "state_out", final, STATE)


@pytest.mark.parametrize("name", cases.names("conv1d_update"))
def test_conv1d_update(name, kind):
    case = Case(name, kind)
    state, buffer = case["conv_state_in"], case.get("intermediate_conv_out")
    if buffer is not None:
        buffer = kind.full(buffer.shape, 0, buffer)
    x = case["x"]
    out = gdn.causal_conv1d_update(
        x,
        state,
        case["conv_weight"],
        case.get("conv_bias"),
        slots=case.get("slot_idx"),
        activation=case.meta["activation"] if case.meta["activation"] != "none" else None,
        intermediate=buffer,
        intermediate_rows=case.get("intermediate_idx"),
        parents=case.get("parent"),
        round_products=case.meta["conv_products"] == "bf16",
    )
    agrees(case, "out", out, OUT)
    assert (kind.f32(state) == kind.f32(case["conv_state_out"])).all()
    if buffer is not None:
        assert (kind.f32(buffer) == kind.f32(case["intermediate_conv_out"])).all()


@pytest.mark.parametrize("name", cases.names("gated_rmsnorm"))
def test_gated_rmsnorm(name, kind):
    case = Case(name, kind)
    x = case["x"]
    out = gdn.gated_rmsnorm(
        x, case["z"], case["norm_weight"], eps=case.number("eps"), activation=case.meta["activation"]
    )
    agrees(case, "out", out, OUT)
    # In place, and with heads as rows.
    flat = gdn.gated_rmsnorm(
        x.reshape(-1, x.shape[-1]), case["z"], case["norm_weight"], eps=case.number("eps"), activation=case.meta["activation"],
        out=x.reshape(-1, x.shape[-1]),
    )  # fmt: skip
    assert (kind.f32(flat).ravel() == kind.f32(out).ravel()).all()


@pytest.mark.parametrize("name", cases.names("layer_step"))
def test_steps_of_a_layer(name, kind):
    """Convolution, recurrence and norm, one after the other, for several tokens on the same pools."""
    case = Case(name, kind)
    pool, memory = case.padded("state_in")
    windows = case["conv_state_in"]
    for step in range(case.number("steps")):
        mixed = gdn.causal_conv1d_update(
            case["x"][step], windows, case["conv_weight"], slots=case["slot_idx"],
            round_products=case.meta["conv_products"] == "bf16",
        )  # fmt: skip
        options = gate_of_step(case, step)
        core = gdn.decode_packed(mixed, **options, state=pool, slots=case["slot_idx"])
        out = gdn.gated_rmsnorm(core, case["z"][step], case["norm_weight"], eps=case.number("eps"))
        valid = kind.f32(case["row_valid"]).astype(bool)
        want = kind.f32(case["out"][step]).reshape(len(valid), -1)[valid]
        assert cases.relative(kind.f32(out).reshape(len(valid), -1)[valid], want) <= 2e-3
    agrees(case, "state_out", pool, STATE)
    assert (kind.f32(windows) == kind.f32(case["conv_state_out"])).all()
    untouched(case, memory, pool)


def gate_of_step(case, step):
    return dict(
        a=case["a"][step], b=case["b"][step], A_log=case["A_log"], dt_bias=case["dt_bias"], scale=case.number("scale"),
        l2norm=case.number("l2norm_eps"), round_beta=case.meta["beta_rounding"] == "b_dtype",
    )  # fmt: skip
