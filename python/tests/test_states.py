"""States from slot to slot, start flags, padding, plans and the allocator."""

import gdn
import numpy
import pytest
from problems import numpy_problem


def decode(problem, **more):
    """Output and pool."""
    arguments = {**problem, "state": problem["state"].copy(), **more}
    return gdn.decode(**arguments), arguments["state"]


def test_padded_rows_are_zeros_and_touch_nothing():
    problem = numpy_problem(N=4, slots=4)
    slots = numpy.array([2, -1, 4, 0], "i4")
    out, state = decode(problem, slots=slots)
    assert (out[1] == 0).all() and (out[2] == 0).all() and (out[3] != 0).any()
    assert (state[[1, 3]] == problem["state"][[1, 3]]).all()
    out, state = decode(problem, slots=slots, null_slot=0)
    assert (out[3] == 0).all() and (state[0] == problem["state"][0]).all()
    # The largest numbers of 32 and 64 bits name nothing.
    for wide in (numpy.array([2, 2**32 - 1, 2**31, 0], "u4"), numpy.array([2, 2**32, 2**32 + 2, 0], "i8")):
        assert (decode(problem, slots=wide)[0] == decode(problem, slots=slots)[0]).all()


def test_sequences_may_start_from_zeros():
    problem = numpy_problem(N=2)
    zeros = {**problem, "state": numpy.zeros_like(problem["state"])}
    want, _ = decode(zeros)
    out, _ = decode(problem, reset=numpy.array([True, False]))
    assert (out[0] == want[0]).all() and (out[1] == decode(problem)[0][1]).all()
    out, _ = decode(problem, has_initial_state=numpy.array([0, 1], "u1"))
    assert (out[0] == want[0]).all() and (out[1] != want[1]).any()


def test_write_slots_leave_the_source():
    problem = numpy_problem(N=2)
    out, state = decode(problem, write_slots=numpy.array([3, -1], "i4"))
    want, after = decode(problem)
    assert (out == want).all() and (state[:3] == problem["state"][:3]).all() and (state[3] == after[0]).all()


def test_tokens_are_decodes_one_after_the_other():
    """Of a draft of three tokens, its buffer, a commit, and the slots that vLLM writes."""
    steps = [numpy_problem(N=2, seed=seed) for seed in range(3)]
    problem = steps[0]
    state = problem["state"].copy()
    outs, states = [], []
    for step in steps:
        outs.append(gdn.decode(**{**step, "state": state, "slots": problem["slots"], "A_log": problem["A_log"], "dt_bias": problem["dt_bias"]}))
        states.append(state.copy())
    draft = {name: numpy.stack([step[name] for step in steps], 1) for name in "qkvab"}
    draft |= dict(A_log=problem["A_log"], dt_bias=problem["dt_bias"], slots=problem["slots"])
    buffer, pool = numpy.zeros((2, 4, 2, 32, 64), "f4"), problem["state"].copy()
    out = gdn.recurrent(**draft, state=pool, update=False, intermediate=buffer)
    assert numpy.allclose(out, numpy.stack(outs, 1), rtol=1e-5, atol=1e-6)
    assert (pool == problem["state"]).all() and (buffer[:, 3] == 0).all()
    gdn.commit_state(buffer, numpy.array([2, 0], "i4"), pool, problem["slots"])
    assert numpy.allclose(pool[0], states[1][0], rtol=1e-5, atol=1e-6) and (pool[1] == problem["state"][1]).all()
    # A slot for each token; the next draft starts where two tokens were accepted.
    many = numpy_problem(slots=8)["state"]
    many[[0, 4]] = problem["state"][[0, 1]]
    table = numpy.array([[0, 1, 2], [4, 5, 6]], "i4")
    gdn.recurrent(**{**draft, "slots": table}, state=many, accepted=numpy.array([1, 1], "i4"), write_slots=table)
    assert numpy.allclose(many[[0, 1, 2]], [s[0] for s in states], rtol=1e-5, atol=1e-6)
    again = gdn.recurrent(**{**draft, "slots": table}, state=many.copy(), accepted=numpy.array([2, 4], "i4"), update=False)
    start = many[[1, 1]].copy()
    want = gdn.recurrent(**{**draft, "slots": problem["slots"]}, state=start, update=False)
    assert (again[0] == want[0]).all() and (again[1] == 0).all()


def test_states_are_copied_and_converted():
    state = numpy_problem(slots=3)["state"]
    target = numpy.zeros_like(state)
    gdn.copy_state(state, target, numpy.array([2, -1], "i4"), numpy.array([0, 1], "i4"))
    assert (target[0] == state[2]).all() and (target[1:] == 0).all()
    other = numpy.zeros((3, 2, 64, 32), "f4")
    gdn.convert_layout(state, other)
    assert (other == state.swapaxes(2, 3)).all()
    with pytest.raises(gdn.ArgumentError, match="to: 'kv' is not allowed, it must be 'VK' or 'KV'"):
        gdn.convert_layout(state, other, to="kv")
    back = numpy.zeros_like(state)
    gdn.convert_layout(other, back, to="VK")
    assert (back == state).all()


def test_projections_are_taken_apart():
    H, HV, K, V = 2, 4, 64, 32
    qkvz = numpy.arange(2 * (2 * H * K + 2 * HV * V), dtype="f4").reshape(2, -1)
    ba = numpy.arange(2 * 2 * HV, dtype="f4").reshape(2, -1)
    mixed, z, b, a = gdn.unpack_qkvz(qkvz, ba, H, HV, K, V)
    groups = qkvz.reshape(2, H, -1)
    q, k, v, gate = numpy.split(groups, [K, 2 * K, 2 * K + 2 * V], 2)
    assert (mixed == numpy.concatenate([part.reshape(2, -1) for part in (q, k, v)], 1)).all()
    assert (z == gate.reshape(2, HV, V)).all()
    assert (b == ba.reshape(2, H, 4)[:, :, :2].reshape(2, HV)).all() and (a == ba.reshape(2, H, 4)[:, :, 2:].reshape(2, HV)).all()


def test_heads_may_be_tiled():
    problem = numpy_problem(N=1, H=2, HV=4)
    order = [0, 2, 1, 3]  # Value heads of key head 0, then those of 1.
    tiled, _ = decode(problem, head_map="tiled")
    by_head = {name: problem[name][:, order] for name in ("v", "a", "b", "state")}
    by_head |= {name: problem[name][order] for name in ("A_log", "dt_bias")}
    grouped, _ = decode({**problem, **by_head})
    assert (tiled[:, order] == grouped).all()


def test_a_plan_computes_nothing():
    problem = numpy_problem(N=8, slots=8)
    before = problem["state"].copy()
    plan = gdn.plan(gdn.decode, **problem, caps=gdn.Caps(sms=132, compute=90, memory_gbps=4800))
    assert plan.entry.startswith("gdn_decode_f32_f32_k64_r") and plan.entry in str(plan) and plan.grid[0] > 0
    assert (problem["state"] == before).all()
    with pytest.raises(gdn.ArgumentError, match="caps: arguments on the CPU have none"):
        gdn.plan(gdn.decode, **problem)
    with pytest.raises(gdn.ArgumentError, match="tile: BV 3 is not possible"):
        gdn.plan(gdn.decode, **problem, bv=3, caps=gdn.Caps(132, 90))
    assert (gdn.decode(**problem) != 0).any(), "after a plan calls are made again"
    with pytest.raises(gdn.ArgumentError, match="operation: .* makes no call of gdn"):
        gdn.plan(sorted, [1])
    with pytest.raises(gdn.ArgumentError, match="compute: 75 is not covered, kernels need 80"):
        gdn.Caps(sms=40, compute=75)
    with pytest.raises(gdn.ArgumentError, match="sms: 0 is not allowed"):
        gdn.Caps(sms=0, compute=90)


@pytest.mark.parametrize("device, ordinal", [(1, 1), ("cuda:2", 2), ("cuda", 0), (None, 0)])
def test_kernels_are_loaded_on_the_gpu_that_is_named(device, ordinal, monkeypatch):
    loaded = _loads(monkeypatch)
    gdn.load(modules="copy_state", device=device)
    assert loaded == [(ordinal, ["copy_state"])]


def test_on_the_cpu_there_is_nothing_to_load(monkeypatch):
    loaded = _loads(monkeypatch)
    gdn.load("Qwen3.5-4B", device="cpu")
    assert loaded == [] and gdn.loaded("cpu") == []


@pytest.mark.parametrize("device", ["mps", "cuda:x", -1, True, 1.5])
def test_what_is_no_gpu_is_refused(device, monkeypatch):
    loaded = _loads(monkeypatch)
    with pytest.raises(gdn.ArgumentError, match=f"device: {device!r} is not a GPU"):
        gdn.load("Qwen3.5-4B", device=device)
    assert loaded == []


def _loads(monkeypatch):
    """A list of what is loaded from here on; torch, which knows the current device, is not there."""
    from gdn import _gdn, _ops

    loaded = []
    monkeypatch.setattr(_ops, "torch", None)
    monkeypatch.setattr(_gdn, "load", lambda ordinal, names: loaded.append((ordinal, names)))
    return loaded


def test_slots_are_given_and_taken_back():
    with pytest.raises(gdn.ArgumentError, match="slots: -1 is not allowed, it must be 0 or more"):
        gdn.SlotAllocator(-1)
    slots = gdn.SlotAllocator(6, null_slot=0)
    first, second = slots.begin(), slots.begin()
    read, write, reset = slots.step([first, second])
    assert read == write and 0 not in read and reset == [1, 1]
    slots.written([first, second])
    fork = slots.fork(first)
    read, write, reset = slots.step([first, fork])
    assert read[0] == read[1] and write[0] != write[1] and reset == [0, 0]
    slots.finish(second)
    with pytest.raises(gdn.Error, match="there is none"):
        slots.finish(second)
    with pytest.raises(gdn.Error, match="slots: .* are wanted"):
        for _ in range(8):
            slots.step([slots.begin()])


def test_names_of_modules_exist():
    have = set(gdn.modules())
    from gdn._loading import module_names

    for model in gdn.models():
        if model != "OLMo-Hybrid-7B":
            assert set(module_names(model)) <= have, model
    assert set(module_names(state="float32", dtype="float16", layout="KV")) <= have
    with pytest.raises(gdn.ArgumentError, match="model: 'no model' is not known"):
        gdn.load("no model")
    with pytest.raises(gdn.ArgumentError, match="ops: 'attention' is not an operation"):
        gdn.load(ops=("attention",))
