"""Two GPUs: calls go where their tensors are, whatever device is current, from one thread and from two, in graphs and compiled."""

import threading

import gdn
import pytest
import torch
from gdn.compat import fla, sglang
from problems import clone, torch_problem


def on_both(gpu, second, **options):
    """The same problem on either GPU, with memory of its own."""
    first = type(gpu)("cuda:0")  # "cuda" alone is the current one.
    return torch_problem(first, **options), torch_problem(second, **options)


def same(first, second):
    """Two results, of the first GPU and of the second."""
    assert first.device.index == 0 and second.device.index == 1
    assert torch.equal(first.cpu(), second.cpu())


@pytest.mark.parametrize("current", [0, 1])
def test_calls_go_where_their_tensors_are(current, gpu, second):
    with torch.cuda.device(current):
        one, other = on_both(gpu, second, seed=current)
        for _ in range(3):
            same(gdn.decode(**one), gdn.decode(**other))
        assert torch.cuda.current_device() == current
    same(one["state"], other["state"])


def test_work_is_ordered_by_the_stream_of_its_gpu(gpu, second):
    problem = torch_problem(second, N=4, slots=8)
    want = gdn.decode(**clone(problem))
    torch.cuda.synchronize(1)
    stream = torch.cuda.Stream(1)
    late = torch.zeros_like(problem["q"])
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        late.copy_(problem["q"])
        with torch.cuda.device(0):
            have = gdn.decode(**{**problem, "q": late})
    stream.synchronize()
    assert torch.equal(have, want)


@pytest.mark.parametrize("name", ["q", "k", "a", "A_log", "slots", "state"])
def test_devices_are_not_mixed(name, gpu, second):
    one, other = on_both(gpu, second)
    before = one["state"].clone(), other["state"].clone()
    where = "q: it is on cuda:1, state is on cuda:0" if name == "state" else f"{name}: it is on cuda:0, state is on cuda:1"
    with pytest.raises(gdn.ArgumentError, match=where):
        gdn.decode(**{**other, name: one[name]})
    assert torch.equal(one["state"], before[0]) and torch.equal(other["state"], before[1])


def test_states_are_not_copied_between_gpus(gpu, second):
    one, other = on_both(gpu, second)
    with pytest.raises(gdn.ArgumentError, match="target: it is on cuda:1, source is on cuda:0"):
        gdn.copy_state(one["state"], other["state"])


def test_threads_use_both_at_once(gpu, second):
    problems = [on_both(gpu, second, seed=seed, N=5, slots=9) for seed in range(2)]
    problems = [problem for pair in problems for problem in pair]
    wanted = []
    for problem in problems:
        arguments = clone(problem)
        wanted.append((gdn.decode(**arguments), arguments["state"]))
    for ordinal in range(2):
        torch.cuda.synchronize(ordinal)
    failures = []

    def work(problem, want, current):
        with torch.no_grad(), torch.cuda.device(current):
            for _ in range(50):
                arguments = clone(problem)
                out = gdn.decode(**arguments)
                if not (torch.equal(out, want[0]) and torch.equal(arguments["state"], want[1])):
                    failures.append((out.device, current))

    # Each GPU from a thread where it is current, and from one where it is not.
    jobs = [(problem, want, index // 2) for index, (problem, want) in enumerate(zip(problems, wanted))]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_graph_of_the_second_gpu(gpu, second):
    """What is loaded on one GPU is not on the other: a capture names it, and with the kernels loaded is replayed."""
    problem = torch_problem(second, N=4, slots=8, dtype="float16", state="float16", kda=True)
    name = "kda_decode_f16_f16_k128"
    gdn.load(modules=[name], device=0)
    is_loaded = lambda ordinal: any(file.startswith(name + ".") for file in gdn.loaded(ordinal))
    assert is_loaded(0) and not is_loaded(1)
    out = torch.empty_like(problem["v"])
    with torch.cuda.device(1):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for current in range(2):
                with torch.cuda.device(current), pytest.raises(gdn.Error, match=f"{name} is not loaded"):
                    gdn.decode(**problem, out=out)
            out.fill_(7)
        graph.replay()
        assert (out == 7).all(), "the capture went on"
        gdn.load(modules=[name])
        assert is_loaded(1), "the current device is what kernels are loaded on"
        static = clone(problem)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            gdn.decode(**static, out=out)
    for _ in range(2):
        out.zero_()
        graph.replay()
        torch.cuda.synchronize(1)
        want = gdn.decode(**problem)
        assert torch.equal(out, want) and torch.equal(static["state"], problem["state"])


def test_compiled_for_the_second_gpu(gpu, second):
    one, other = on_both(gpu, second)
    step = torch.compile(lambda p: gdn.decode(**p) * 2, fullgraph=True)
    for _ in range(2):
        same(gdn.decode(**one) * 2, step(other))
    same(one["state"], other["state"])


def test_rings_of_the_second_gpu(gpu, second):
    T, shapes = 2, dict(H=2, HV=4)
    rings = [gdn.ReplayState(2, 6, **shapes, drafts=T, records=4, device=kind.device) for kind in (gpu, second)]
    for seed in range(4):
        outs = []
        for states, kind in zip(rings, (gpu, second)):
            problem = torch_problem(kind, T=T, seed=seed)
            slots = problem.pop("slots")
            problem.pop("state")
            outs.append([states.verify(layer, **problem, slots=slots) for layer in range(2)])
            states.behind_verify(kind.int32([2, 0, 1]), T, slots)
        for pair in zip(*outs):
            same(*pair)
    for states in rings:
        states.fold()
    same(rings[0].state, rings[1].state)


def test_drop_ins_allocate_where_their_tensors_are(gpu, second):
    results = []
    for problem in on_both(gpu, second, T=2):
        gates = [problem[name] for name in ("A_log", "a", "dt_bias")]
        rest = [problem[name] for name in ("q", "k", "v", "b", "state", "slots")]
        out = sglang.fused_sigmoid_gating_delta_rule_update(*gates, 1.0, 20.0, *rest)
        g = -problem["a"].float().exp()
        given = [problem[name] for name in ("q", "k", "v")]
        results.append((out, *fla.fused_recurrent_gated_delta_rule(*given, g=g, output_final_state=True)))
    for pair in zip(*results):
        same(*pair)
