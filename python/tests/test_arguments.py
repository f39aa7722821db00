"""What is refused: the message names the argument and its value, and nothing was written."""

import gdn
import numpy
import pytest
from problems import numpy_problem

REFUSED = [
    # Argument, what is handed over instead, and what the message says.
    ("q", lambda p: [1, 2, 3], "q: a torch tensor or a numpy array is wanted, not list"),
    ("q", lambda p: p["q"].astype("f8"), "q: type float64 is not taken"),
    ("q", lambda p: p["q"][:, :, :32], "q: shape [2, 1, 32] does not fit, expected [.., H, 64]"),
    ("k", lambda p: p["k"][:1], "k: shape [1, 1, 64] does not fit, expected 2 rows of 64 elements"),
    ("k", lambda p: p["k"].astype("f2"), "k: type f16 does not fit, expected the type of q"),
    ("k", lambda p: None, "k: k and v are given both, or neither"),
    ("v", lambda p: p["v"].tolist(), "v: a torch tensor or a numpy array is wanted, not list"),
    ("v", lambda p: p["v"][:, :, ::2], "v: shape [2, 2, 16] does not fit"),
    ("v", lambda p: numpy.repeat(p["v"], 2, 2)[:, :, ::2], "v: strides [128, 64, 2] of shape [2, 2, 32] are not taken"),
    ("a", lambda p: p["a"][:, :1], "a: shape [2, 1] has 1 elements for each of 2 tokens, expected HV = 2 (GDN) or HV * K = 128 (KDA)"),
    ("a", lambda p: None, "a: give the gate's input a, or the log decay g"),
    ("b", lambda p: p["b"].astype("i4"), "b: type i32 does not fit, expected f32, bf16 or f16"),
    ("A_log", lambda p: p["A_log"][:1], "A_log: shape [1] does not fit, expected HV elements"),
    ("dt_bias", lambda p: numpy.repeat(p["dt_bias"], 2)[::2], "dt_bias: strides [2] of shape [2] are not taken: it is contiguous"),
    ("state", lambda p: p["state"][0], "state: shape [2, 32, 64] does not fit, expected [slots, HV, V, K]"),
    ("state", lambda p: p["state"][:, :, :, ::-1], "state: strides"),
    ("state", lambda p: read_only(p["state"]), "state: it is written, and the array is read-only"),
    ("slots", lambda p: p["slots"].astype("f4"), "slots: type f32 does not fit, expected int32, uint32 or int64"),
    ("slots", lambda p: p["slots"].astype("i2"), "slots: type int16 is not taken"),
    ("slots", lambda p: numpy.arange(3, dtype="i4"), "slots: has 3 rows, the call needs 2"),
    ("slots", lambda p: numpy.zeros((2, 2), "i4"), "slots: has rows of 2 entries, the call needs 1"),
    ("slots", lambda p: None, None),
    ("out", lambda p: numpy.zeros((2, 2, 31), "f4"), "out: shape [2, 2, 31] does not fit"),
    ("out", lambda p: p["v"], "out: shares memory with v"),
    ("reset", lambda p: numpy.zeros(2, "i8"), "reset or has_initial_state: type i64 does not fit, expected u8, i32 or u32"),
    ("null_slot", lambda p: -2, "null_slot: -2 is not allowed"),
    ("scale", lambda p: float("nan"), "scale: NaN is not allowed, it must be finite"),
    ("l2norm", lambda p: 0.0, "l2norm: 0 is not allowed, it must be a positive eps"),
    ("l2norm", lambda p: True, "l2norm: True is not allowed, it must be a number"),
    ("scale", lambda p: "1", "scale: '1' is not allowed, it must be a number"),
    ("bv", lambda p: 16.5, "bv: 16.5 is not allowed, it must be a number"),
    ("null_slot", lambda p: 2**40, "null_slot: 1099511627776 is not allowed, it must be nearer to 0"),
    ("early", lambda p: 1, "early: 1 is not allowed, it must be True or False"),
    ("lower_bound", lambda p: 1.0, "lower_bound: 1 is not allowed, it must be finite and not positive"),
    ("softplus_beta", lambda p: 0.0, "softplus_beta: 0 is not allowed"),
    ("softplus_threshold", lambda p: -1.0, "softplus_threshold: -1 is not allowed"),
    ("layout", lambda p: "VV", "layout: 'VV' is not allowed, it must be 'VK' or 'KV'"),
    ("layout", lambda p: "KV", "q: shape [2, 1, 64] does not fit, expected [.., H, 32]"),
    ("head_map", lambda p: "none", "head_map: 'none' is not allowed, it must be 'grouped' or 'tiled'"),
    ("g", lambda p: p["a"], "a: give the gate's input a, or the log decay g, one of them"),
    ("write_slots", lambda p: p["slots"][:1], "write_slots: has 1 rows, the call needs 2"),
]


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("name, change, message", REFUSED, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(REFUSED)])
def test_argument_is_refused_by_name(name, change, message):
    problem = numpy_problem()
    before = problem["state"].copy()
    problem[name] = change(problem)
    if message is None:
        gdn.decode(**problem)
        return
    with pytest.raises(gdn.ArgumentError) as refused:
        gdn.decode(**problem)
    assert str(refused.value).startswith(message)
    assert isinstance(refused.value, ValueError) and isinstance(refused.value, gdn.Error)
    if name != "state":
        assert (problem["state"] == before).all()


def test_shape_without_kernels_is_refused():
    with pytest.raises(gdn.ArgumentError, match=r"k = 32 is not supported: it must be 64, 96, 128 or 256"):
        gdn.decode(**numpy_problem(K=32))
    with pytest.raises(gdn.ArgumentError, match=r"v = 48 is not supported"):
        gdn.decode(**numpy_problem(V=48))
    with pytest.raises(gdn.ArgumentError, match=r"hv = 3 is not a multiple of h = 2"):
        gdn.decode(**numpy_problem(H=2, HV=3))


def test_a_packed_row_is_refused_by_name():
    problem = numpy_problem()
    packed = {name: value for name, value in problem.items() if name not in "qkv"}
    wide = numpy.zeros((2, 192), "f4")
    for change, message in [
        (dict(mixed_qkv=wide[0]), "mixed_qkv: shape [192] does not fit, expected [N, 2 * H * K + HV * V]"),
        (dict(mixed_qkv=wide.tolist()), "mixed_qkv: a torch tensor or a numpy array is wanted, not list"),
        (dict(state=problem["state"][0]), "state: shape [2, 32, 64] does not fit, expected [slots, HV, V, K]"),
    ]:
        with pytest.raises(gdn.ArgumentError) as refused:
            gdn.decode_packed(**{"mixed_qkv": wide, **packed, **change})
        assert str(refused.value) == message


def test_heads_and_weights_that_differ_are_refused_by_name():
    x = numpy.zeros((2, 4, 64), "f4")
    with pytest.raises(gdn.ArgumentError, match=r"weight: shape \[63\] does not fit, expected \[64\]"):
        gdn.gated_rmsnorm(x, x, numpy.ones(63, "f4"))
    with pytest.raises(gdn.ArgumentError, match=r"weight: shape \[63\] does not fit, expected \[64\]"):
        gdn.gated_rmsnorm(x[:, 0], x[:, 0], numpy.ones(63, "f4"))
    with pytest.raises(gdn.ArgumentError, match=r"qkvz: shape \[2, 100\] does not fit, expected \[.., 768\]"):
        gdn.unpack_qkvz(numpy.zeros((2, 100), "f4"), numpy.zeros((2, 8), "f4"), 2, 4, 64, 64)


def test_recurrent_refuses_what_does_not_go_together():
    problem = numpy_problem()
    table = problem["slots"]
    for change, message in [
        (dict(state=None), "slots: there is no state to take slots of"),
        (dict(slots=None, accepted=table), "accepted: without slots there is none to choose"),
        (dict(parents=table), "parents: there is no intermediate buffer"),
        (dict(final_state=problem["state"], write_slots=table), "write_slots: last states go to final_state or to slots"),
        (dict(intermediate=problem["state"]), "intermediate: shape [4, 2, 32, 64] does not fit, expected [rows, steps, 2, 32, 64]"),
        (dict(cu_seqlens=table), "q: shape"),
        (dict(slots=None, state=problem["state"][:1]), "state: 1 is not allowed, it must be as many states as there are sequences"),
        (dict(slots=None, final_state=problem["state"][:1]), "final_state: 1 is not allowed, it must be as many states"),
        (dict(final_state=problem["state"]), "final_state: shares memory with state"),
        (dict(output=False, update=False), "out: neither an output nor a state is asked for"),
    ]:
        arguments = {**problem, **change}
        if message.startswith("q:"):
            gdn.recurrent(**{**arguments, "slots": table[:1]})
            continue
        with pytest.raises(gdn.ArgumentError) as refused:
            gdn.recurrent(**arguments)
        assert str(refused.value).startswith(message), message


def test_views_are_taken_as_they_are():
    """Columns of one wide row, a pool with gaps, a column of a table: the result of dense ones."""
    problem = numpy_problem(N=3, H=2, HV=4)
    want_state = problem["state"].copy()
    want = gdn.decode(**{**problem, "state": want_state})
    wide = numpy.zeros((3, 2 * 2 * 64 + 4 * 32 + 16), "f4")
    wide[:, :128], wide[:, 128:256] = problem["q"].reshape(3, -1), problem["k"].reshape(3, -1)
    wide[:, 256:384] = problem["v"].reshape(3, -1)
    q, k, v = wide[:, :128].reshape(3, 2, 64), wide[:, 128:256], wide[:, 256:384].reshape(3, 4, 32)
    gaps = numpy.zeros((4, 4 * 32 * 64 + 64), "f4")
    state = gaps[:, : 4 * 32 * 64].reshape(4, 4, 32, 64) if False else numpy.lib.stride_tricks.as_strided(
        gaps, (4, 4, 32, 64), (gaps.strides[0], 32 * 64 * 4, 64 * 4, 4)
    )
    state[...] = problem["state"]
    slots = numpy.full((3, 5), 99, "i8")
    slots[:, 0] = problem["slots"]
    views = dict(q=q.reshape(3, -1), k=k, v=v, state=state, slots=slots[:, 0])
    assert (gdn.decode(**{**problem, **views}) == want).all()
    assert (state == want_state).all() and (gaps[:, 4 * 32 * 64 :] == 0).all()
    packed = {name: value for name, value in problem.items() if name not in "qkv"}
    assert (gdn.decode_packed(wide, heads=2, **{**packed, "state": problem["state"].copy()}).reshape(want.shape) == want).all()
    with pytest.raises(gdn.ArgumentError, match="mixed_qkv|q: rows of"):
        gdn.decode_packed(wide[:, :380], heads=2, **packed)
