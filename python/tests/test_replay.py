"""Replay: rings of records give what plain states give, whatever happens to a sequence."""

import cases
import gdn
import pytest
from problems import torch_problem

LAYERS, SLOTS, H, HV, V = 2, 6, 1, 2, 32
CARD = gdn.Caps(sms=132, compute=90, memory_gbps=4814)


def replay_state(kind, **options):
    """States of two layers, checkpoints filled; and the same as plain pools."""
    import torch

    states = gdn.ReplayState(LAYERS, SLOTS, H, HV, V=V, **{"records": 6, "device": kind.device, **options})
    generator = torch.Generator().manual_seed(1)
    states.state.copy_(0.1 * torch.randn(states.state.shape, generator=generator))
    return states, states.state.clone()


def token(kind, seed, T=None, N=3, **options):
    """A token of each sequence (drafts with T) of every layer: what a step takes but the pool."""
    problems = [torch_problem(kind, N=N, T=T, H=H, HV=HV, V=V, seed=17 * seed + layer, **options) for layer in range(LAYERS)]
    for problem in problems:
        problem.pop("state"), problem.pop("slots")
    return problems


def slots_of(kind, *numbers):
    return kind.int32(numbers)


def near(have, want):
    limit = {"torch.float32": 2e-5}.get(str(want.dtype), 4e-3)
    assert have.shape == want.shape and cases.relative(have.float().cpu(), want.float().cpu()) <= limit


VARIANTS = dict(
    gdn=dict(),
    kda=dict(family="kda"),
    bf16=dict(state="bfloat16"),
    f32=dict(dtype="float32"),
    tiled=dict(head_map="tiled", l2norm=None),
)


@pytest.mark.parametrize("variant", VARIANTS)
def test_decode_is_plain_decode(variant, tensors):
    """Over more steps than a ring has room for; then the folded checkpoints are the plain states."""
    options = VARIANTS[variant]
    states, plain = replay_state(tensors, **options)
    slots = slots_of(tensors, 4, 0, 3)
    form = {name: options[name] for name in ("head_map", "l2norm") if name in options}
    problem = dict(kda=options.get("family") == "kda", dtype=options.get("dtype", "bfloat16"))
    if form.get("l2norm", 1) is None:
        form["scale"] = 0.01  # Keys that are not normalised are long.
    for seed in range(9):
        for layer, x in enumerate(token(tensors, seed, kda=problem["kda"], dtype=problem["dtype"])):
            if "l2norm" in form:
                x["k"] = x["k"] / 16
            more = {name: value for name, value in form.items() if name == "scale"}
            have = states.decode(layer, **x, slots=slots, **more)
            near(have, gdn.decode(**x, state=plain[layer], slots=slots, **form))
        states.behind_decode(slots)
    assert states.length.max() > 0
    states.fold()
    assert not states.length.any()
    near(states.state, plain)


@pytest.mark.parametrize("family", ["gdn", "kda"])
def test_accepted_drafts_are_the_state(family, tensors):
    """Drafts of which some are accepted, over and over: outputs, and what they leave, are those of plain tokens."""
    import torch

    states, plain = replay_state(tensors, family=family, records=8, drafts=3)
    slots = slots_of(tensors, 5, 2, 0)
    for seed, accepted in enumerate([(2, 0, 3), (3, 1, 0), (0, 3, 2), (3, 3, 3)]):
        for layer, x in enumerate(token(tensors, seed, T=3, kda=family == "kda")):
            drafts = plain[layer].new_zeros(3, 3, *plain.shape[2:])
            have = states.verify(layer, **x, slots=slots)
            near(have, gdn.recurrent(**x, state=plain[layer], slots=slots, update=False, intermediate=drafts))
            gdn.commit_state(drafts, slots_of(tensors, *accepted), plain[layer], slots)
        states.behind_verify(slots_of(tensors, *accepted), 3, slots)
    kept = torch.zeros_like(plain)
    states.store(kept, slots, slots)
    near(kept[:, slots.long()], plain[:, slots.long()])


def test_trees_are_committed_by_their_paths(tensors):
    states, plain = replay_state(tensors, records=8, drafts=4)
    slots = slots_of(tensors, 1, 3, 4)
    parents = slots_of(tensors, *[[-1, 0, 0, 2]] * 3)
    accepted, path = slots_of(tensors, 3, 2, 0), slots_of(tensors, [0, 2, 3, 0], [0, 1, 0, 0], [0, 0, 0, 0])
    last = slots_of(tensors, 4, 2, 0)
    for seed in range(3):
        for layer, x in enumerate(token(tensors, seed, T=4)):
            drafts = plain[layer].new_zeros(3, 4, *plain.shape[2:])
            have = states.verify(layer, **x, slots=slots, parents=parents)
            arguments = dict(state=plain[layer], slots=slots, update=False, intermediate=drafts, parents=parents)
            near(have, gdn.recurrent(**x, **arguments))
            gdn.commit_state(drafts, last, plain[layer], slots)
        states.behind_verify(accepted, 4, slots, path=path)
    states.fold(slots)
    near(states.state[:, slots.long()], plain[:, slots.long()])


def test_sequences_of_an_allocator(tensors):
    """New ones, a fork, and one that goes on from a snapshot: each gives what it gives alone."""
    states, plain = replay_state(tensors)
    allocator, alone = gdn.SlotAllocator(SLOTS), gdn.SlotAllocator(SLOTS)

    def step(seed, sequences, plain_sequences):
        x = token(tensors, seed, N=len(sequences))
        tables = allocator.step(sequences)
        own, reset = slots_of(tensors, *tables[1]), slots_of(tensors, *tables[2])
        states.enter(*tables)
        source, target, zeros = (slots_of(tensors, *table) for table in alone.step(plain_sequences))
        for layer, inputs in enumerate(x):
            have = states.decode(layer, **inputs, slots=own, reset=reset)
            near(have, gdn.decode(**inputs, state=plain[layer], slots=source, write_slots=target, reset=zeros))
        states.behind_decode(own, reset=reset)
        allocator.written(sequences)
        alone.written(plain_sequences)

    both = [(allocator.begin(), alone.begin()) for _ in range(2)]
    for seed in range(3):
        step(seed, *map(list, zip(*both)))
    snapshots = (allocator.snapshot(both[0][0]), alone.snapshot(both[0][1]))
    both.append((allocator.fork(both[1][0]), alone.fork(both[1][1])))
    step(3, *map(list, zip(*both)))
    both.append((allocator.begin_at(snapshots[0]), alone.begin_at(snapshots[1])))
    for seed in range(4, 7):
        step(seed, *map(list, zip(*both)))


def test_padded_rows_and_forced_folds(tensors):
    states, _ = replay_state(tensors)
    before = states.state.clone()
    slots, force = slots_of(tensors, 2, -1, 5), slots_of(tensors, 0, 0, 1)
    x = token(tensors, 0)[0]
    out = states.decode(0, **x, slots=slots, force=force)
    states.behind_decode(slots, force=force)
    assert not out[1].any() and states.length.tolist() == [0, 0, 1, 0, 0, 0]
    changed = (states.state[0] != before[0]).flatten(1).any(1)
    assert changed.tolist() == [False] * 5 + [True]


def test_operations_take_arrays_of_numpy():
    import numpy

    generator = numpy.random.default_rng(0)
    make = lambda *shape: generator.standard_normal(shape, numpy.float32)
    inputs = lambda: (make(2, 1, 128), make(2, 1, 128), make(2, 2, 32), make(2, 2), make(2, 2), make(2), make(2))
    zeros = lambda *shape: numpy.zeros(shape, numpy.float32)
    cursors = [numpy.zeros(3, numpy.int32) for _ in range(2)]
    pool = gdn.ReplayPool(make(3, 2, 32, 128), zeros(3, 1, 4, 128), zeros(3, 2, 4, 32), zeros(3, 2, 4), *cursors)
    plain, slots = pool.state.copy(), numpy.array([2, 0], numpy.int32)
    for _ in range(3):
        step = inputs()
        want = gdn.decode(*step, plain, slots)
        assert cases.relative(gdn.replay_decode(*step, pool, slots), want) < 1e-5
        gdn.replay_advance(pool, slots)
    assert pool.length.tolist() == [3, 0, 3]
    target = numpy.zeros_like(plain)
    gdn.materialise(gdn.ReplayLayers([pool], [target]))
    assert cases.relative(target, plain) < 1e-5


def test_layers_that_moved_are_refused(tensors):
    states, _ = replay_state(tensors)
    pools = [states.pool(layer) for layer in range(LAYERS)]
    layers = gdn.ReplayLayers(pools)
    layers.pools[1] = pools[1]._replace(d=pools[1].d.clone())
    with pytest.raises(gdn.ArgumentError, match="layers: pool.d of layer 1 is not where it was when the table was made"):
        gdn.replay_fold(layers)
    layers = gdn.ReplayLayers(pools, [pool.state.clone() for pool in pools])
    layers.targets.pop()
    with pytest.raises(gdn.ArgumentError, match="targets: there are 1 for 2 layers"):
        gdn.materialise(layers)


def test_rings_have_room_for_the_drafts_as_far_as_they_go(tensors):
    of = lambda family, drafts: gdn.ReplayState(1, 1, 32, 32, family=family, drafts=drafts, device="cpu").records
    assert of("gdn", 8) == of("gdn", 0) + 8
    assert of("kda", 8) == 16


def test_what_does_not_fit_is_refused(tensors):
    states, _ = replay_state(tensors, drafts=2)
    x, drafts, pool = token(tensors, 0)[0], token(tensors, 0, T=5)[0], states.pool(0)
    two_heads = {**x, "q": x["q"].repeat(1, 2, 1), "k": x["k"].repeat(1, 2, 1)}
    refused = [
        ("pool.k: shape .* does not fit, expected .*key heads of q", lambda: states.decode(0, **two_heads)),
        ("most: 7", lambda: gdn.replay_decode(**x, pool=pool, most=7)),
        ("q: 5 drafts are not allowed, these states were made for drafts=2", lambda: states.verify(0, **drafts)),
        ("most: .*without those that drafts take", lambda: gdn.replay_verify(**drafts, pool=pool, most=pool.k.shape[2] - 2)),
        ("pool.base: .*need a", lambda: gdn.replay_advance(pool._replace(base=None), accepted=slots_of(tensors, *[0] * 6))),
        ("pool.length: type float32|pool.length: type f32", lambda: gdn.replay_decode(**x, pool=pool._replace(length=pool.g[:, 0, 0]))),
        ("pool.d: shape", lambda: gdn.replay_decode(**x, pool=pool._replace(d=pool.d[:, :, :4]))),
        ("layer: 2 is not allowed", lambda: states.pool(2)),
        ("slots: 0 is not allowed", lambda: gdn.ReplayState(1, 0, H, HV, device="cpu")),
        ("HV: 3 is not allowed, it must be a multiple of H = 2", lambda: gdn.ReplayState(1, 1, 2, 3, device="cpu")),
        ("dtype: type int8 is not taken", lambda: gdn.ReplayState(1, 1, H, HV, dtype="int8", device="cpu")),
        ("K: 64 is not served .* no module replay_verify_f32_bf16_k64", lambda: gdn.ReplayState(1, 1, H, HV, K=64, drafts=1, device="cpu")),
        ("pools: state of layer 1 is that of layer 0", lambda: gdn.ReplayLayers([pool, pool])),
        ("pools: target of layer 1 is that of layer 0", lambda: states.layers.to([states.state[0]] * 2)),
        ("records: 33 is not allowed", lambda: gdn.ReplayState(1, 1, H, HV, records=33, device="cpu")),
        ("drafts: 9 is not allowed", lambda: gdn.ReplayState(1, 1, H, HV, records=32, drafts=9, device="cpu")),
        ("family: 'x' is not allowed", lambda: gdn.ReplayState(1, 1, H, HV, family="x", device="cpu")),
        ("layer: 1 is not|targets: there are 1 for 2", lambda: states.store([states.state[0]], *[slots_of(tensors, 0)] * 2)),
    ]
    for message, call in refused:
        with pytest.raises(gdn.ArgumentError, match=message):
            call()


def test_modules_exist_and_the_default_ring_is_the_measured_one():
    from gdn._loading import replay_module_names

    states = gdn.ReplayState(1, 1, 16, 32, device="cpu")
    assert states.records == 14 and states.slot_bytes == 2**21 + 14 * (4096 + 16384 + 128)
    assert gdn.ReplayState(1, 1, 16, 32, state="bfloat16", device="cpu").records == 10
    for family in ("gdn", "kda"):
        assert set(replay_module_names(family, "float32", "bfloat16", 128, True)) <= set(gdn.modules())


def test_plans_name_the_kernel(tensors):
    states, _ = replay_state(tensors)
    caps = CARD if tensors.device == "cpu" else None
    plan = gdn.plan(states.decode, 0, **token(tensors, 0)[0], caps=caps)
    assert plan.module == "replay_decode_f32_bf16_k128" and not states.length.any()
    advance = gdn.plan(states.behind_decode, caps=CARD, early=True)
    assert advance.module == "replay_advance" and advance.early


@pytest.mark.parametrize("family", ["gdn", "kda"])
def test_early_steps_give_the_bits_of_plain_ones(family, tensors):
    """Decodes, drafts, and the cursors behind them, launched one behind the other without a wait."""
    import torch

    slots, kda = slots_of(tensors, 5, 2, 0), family == "kda"
    counts = [slots_of(tensors, *accepted) for accepted in ((2, 0, 3), (1, 3, 0), (3, 3, 1))]
    steps = [(token(tensors, seed, kda=kda), token(tensors, seed + 9, T=3, kda=kda)) for seed in range(3)]

    def run(early):
        states, outs = replay_state(tensors, family=family, records=8, drafts=3)[0], []
        for (one, several), accepted in zip(steps, counts):
            outs += [states.decode(layer, **one[layer], slots=slots, early=early) for layer in range(LAYERS)]
            states.behind_decode(slots, early=early)
            outs += [states.verify(layer, **several[layer], slots=slots, early=early) for layer in range(LAYERS)]
            states.behind_verify(accepted, 3, slots, early=early)
        return outs + [states.state, states.k, states.d, states.g, states.length, states.base]

    for early, plain in zip(run(True), run(False)):
        assert torch.equal(early, plain)
    states = replay_state(tensors, family=family, records=8, drafts=3)[0]
    plan = lambda step, x: gdn.plan(step, 0, **x[0], slots=slots, caps=CARD, early=True)
    assert plan(states.decode, steps[0][0]).early and plan(states.verify, steps[0][1]).early


def test_steps_compile(tensors):
    """A step and its cursors in one compiled graph; what is for all layers is held against its table, compiled or not."""
    import torch

    eager, compiled = (replay_state(tensors)[0] for _ in range(2))
    slots = slots_of(tensors, 4, 0, 3)

    def step(states, x):
        pool = states.pool(0)
        out = gdn.replay_decode(**x, pool=pool, slots=slots)
        gdn.replay_advance(pool, slots)
        gdn.replay_fold(states.layers, slots)
        return out + 0

    run = torch.compile(step, fullgraph=True)
    for seed in range(2):
        x = token(tensors, seed)[0]
        assert torch.equal(run(compiled, x), step(eager, x))
    for name in ("state", "k", "d", "g", "length"):
        assert torch.equal(getattr(compiled, name), getattr(eager, name)), name
    # A backend that lets operators work on copies of what they write: the table names other memory.
    copying = torch.compile(lambda states: gdn.replay_fold(states.layers, slots), fullgraph=True, backend="aot_eager")
    with pytest.raises(gdn.ArgumentError, match="layers: pool.state of layer 0 is not where it was when the table was made"):
        copying(eager)


def test_a_step_of_drafts_is_captured(gpu):
    """A graph of verifications and cursors follows accepted counts that are written on the device."""
    import torch

    states, eager = replay_state(gpu, records=8, drafts=3)[0], replay_state(gpu, records=8, drafts=3)[0]
    states.load()
    slots, accepted, static = slots_of(gpu, 5, 2, 0), slots_of(gpu, 0, 0, 0), token(gpu, 0, T=3)
    outs = [torch.empty_like(x["v"]) for x in static]

    def step(states, x, outs):
        for layer in range(LAYERS):
            states.verify(layer, **x[layer], slots=slots, out=outs[layer])
        states.behind_verify(accepted, 3, slots)

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(states, static, outs)
    for seed, counts in enumerate([(2, 0, 3), (1, 1, 1), (3, 3, 0)]):
        accepted.copy_(slots_of(gpu, *counts))
        fresh, want = token(gpu, seed, T=3), [torch.empty_like(x["v"]) for x in static]
        for layer in range(LAYERS):
            for name, value in fresh[layer].items():
                static[layer][name].copy_(value)
        graph.replay()
        step(eager, fresh, want)
        for a, b in zip(outs, want):
            assert torch.equal(a, b)
    assert torch.equal(states.length, eager.length) and torch.equal(states.base, eager.base)
