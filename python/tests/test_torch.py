"""torch: compiled, traced, under autograd, from several threads, on several streams, in graphs."""

import threading

import cases
import gdn
import pytest
from problems import clone, torch_problem


def test_compiled_gives_what_eager_gives(tensors):
    import torch

    problem = torch_problem(tensors)
    eager, compiled = clone(problem), clone(problem)
    want = gdn.decode(**eager)

    @torch.compile(fullgraph=True)
    def step(q, k, v, a, b, A_log, dt_bias, state, slots):
        out = gdn.decode(q * 1, k, v, a, b, A_log, dt_bias, state, slots)
        return out + 0

    assert torch.equal(step(**compiled), want)
    assert torch.equal(compiled["state"], eager["state"]), "the compiled step did not update the pool"
    # Once more, from the state that the first step left.
    assert torch.equal(step(**compiled), gdn.decode(**eager)) and torch.equal(compiled["state"], eager["state"])


def test_every_operation_compiles(tensors):
    import torch

    problem = torch_problem(tensors, T=2)
    H, HV, K, V = 2, 4, 128, 128
    dim = 2 * H * K + HV * V
    make = lambda *shape: torch.randn(*shape).bfloat16().to(tensors.device)
    inputs = [make(3, 2, 2 * H * K + 2 * HV * V), make(3, 2, 2 * HV), make(6, dim, 3), make(dim, 4), make(V)]

    def layer(qkvz, ba, windows, weight, norm, state, final, slots, A_log, dt_bias):
        mixed, z, b, a = gdn.unpack_qkvz(qkvz, ba, H, HV, K, V)
        mixed = gdn.causal_conv1d_update(mixed, windows, weight, slots=slots)
        q, k, v = torch.split(mixed, [H * K, H * K, HV * V], -1)
        q, k, v = (x.unflatten(-1, (-1, 128)) for x in (q, k, v))
        core = gdn.recurrent(q, k, v, a, b, A_log, dt_bias, state, slots)
        gdn.copy_state(state, final)
        return gdn.gated_rmsnorm(core, z, norm)

    def run(function):
        moved = [x.clone() for x in inputs]
        state = problem["state"].clone()
        final = torch.zeros_like(state)
        out = function(*moved, state, final, problem["slots"], problem["A_log"], problem["dt_bias"])
        return out, state, final, moved[2]

    for have, want in zip(run(torch.compile(layer, fullgraph=True)), run(layer)):
        assert torch.equal(have, want)


def test_tensors_are_read_alike_however_they_are_asked(tensors):
    """A subclass of a tensor is read by its attributes, a tensor by torch's C function: views, flags and tables of both."""
    import torch

    class Asked(torch.Tensor):
        pass

    problem = torch_problem(tensors, N=4, slots=8)
    row = torch.cat([problem[name].flatten(1) for name in "qkv"] + [problem["b"], problem["b"]], 1)
    problem |= dict(q=row[:, :256].unflatten(1, (2, 128)), b=row[:, -8:-4], slots=problem["slots"].long()[:, None].repeat(1, 3)[:, 0])
    reset = torch.tensor([True, False, False, True]).to(tensors.device)
    asked = {name: value.clone() if name == "state" else value for name, value in problem.items()}
    want = gdn.decode(**problem, reset=reset)
    have = gdn.decode(**{name: value.as_subclass(Asked) for name, value in asked.items()}, reset=reset.as_subclass(Asked))
    assert torch.equal(have.as_subclass(torch.Tensor), want) and torch.equal(asked["state"], problem["state"])
    with pytest.raises(gdn.ArgumentError, match="v: type torch.float64 is not taken"):
        gdn.decode(**{**problem, "v": problem["v"].double()}, reset=reset, out=want)
    with pytest.raises(RuntimeError):  # torch says that it has no memory of that kind.
        gdn.decode(**{**problem, "v": problem["v"].to_sparse()}, reset=reset, out=want)


def test_early_launches_are_planned_where_they_pay(tensors):
    """An early launch is a wish: it is followed on Hopper for a small batch, and gives the same bits."""
    import torch

    problem = torch_problem(tensors)
    hopper, ampere = gdn.Caps(132, 90, 4814), gdn.Caps(108, 80, 1935)
    plan = lambda caps, **more: gdn.plan(gdn.decode, **problem, caps=caps, **more).early
    assert plan(hopper, early=True) and not plan(hopper) and not plan(ampere, early=True)
    x, weight = torch.randn(3, 256).to(tensors.device), torch.randn(256, 4).to(tensors.device)
    windows = torch.zeros(3, 256, 3, device=tensors.device)
    assert gdn.plan(gdn.causal_conv1d_update, x, windows, weight, caps=hopper, early=True).early
    assert gdn.plan(gdn.gated_rmsnorm, x, x, weight[:, 0].contiguous(), caps=hopper, early=True).early
    eager, early = clone(problem), clone(problem)
    want, have = gdn.decode(**eager), gdn.decode(**early, early=True)
    assert torch.equal(have, want) and torch.equal(early["state"], eager["state"])


def test_fake_tensors_have_shapes_and_compute_nothing(tensors):
    from torch._subclasses.fake_tensor import FakeTensorMode

    problem = torch_problem(tensors)
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(value) for name, value in problem.items()}
        out = gdn.decode(**fake)
    assert out.shape == problem["v"].shape and out.dtype == problem["v"].dtype


def test_tensors_without_memory_have_shapes_alone(tensors):
    problem = torch_problem(tensors)
    out = gdn.decode(**{name: value.to("meta") for name, value in problem.items()})
    assert out.is_meta and out.shape == problem["v"].shape
    for name in ("q", "slots"):
        with pytest.raises(gdn.ArgumentError, match="meta"):
            gdn.decode(**{**problem, name: problem[name].to("meta")})


def test_gradients_are_refused(tensors):
    import torch

    problem = torch_problem(tensors)
    problem["q"].requires_grad_()
    with torch.enable_grad():
        with pytest.raises(gdn.Error, match="gdn.decode is forward only"):
            gdn.decode(**problem)
        gdn.decode(**{**problem, "q": problem["q"].detach()})
    gdn.decode(**problem)
    with torch.inference_mode():
        gdn.decode(**problem)


def test_devices_are_not_mixed(gpu):
    problem = torch_problem(gpu)
    with pytest.raises(gdn.ArgumentError, match="slots: it is on cpu, state is on cuda:0"):
        gdn.decode(**{**problem, "slots": problem["slots"].cpu()})
    with pytest.raises(gdn.ArgumentError, match="state: it is on cpu, x is|q: it is on cuda:0, state is on cpu"):
        gdn.decode(**{**problem, "state": problem["state"].cpu()})


def test_threads_do_not_disturb_each_other(tensors):
    import torch

    problems = [torch_problem(tensors, seed=seed, state=state) for seed in range(2) for state in ("float32", "bfloat16")]
    wanted = []
    for problem in problems:
        arguments = clone(problem)
        wanted.append((gdn.decode(**arguments), arguments["state"]))
    failures = []

    def work(problem, want):
        stream = torch.cuda.Stream() if tensors.device == "cuda" else None
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(20 if tensors.device == "cuda" else 2):
                arguments = clone(problem)
                out = gdn.decode(**arguments)
                if stream is not None:
                    stream.synchronize()
                if not (torch.equal(out, want[0]) and torch.equal(arguments["state"], want[1])):
                    failures.append(threading.current_thread().name)

    if tensors.device == "cuda":
        torch.cuda.synchronize()
    threads = [threading.Thread(target=work, args=pair) for pair in zip(problems, wanted)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_gpu_agrees_with_the_reference(gpu):
    cpu = cases.Torch("cpu")
    for options in [{}, dict(kda=True), dict(state="bfloat16"), dict(dtype="float16"), dict(dtype="float32"), dict(K=64, V=64)]:
        on_cpu, on_gpu = torch_problem(cpu, **options), torch_problem(gpu, **options)
        want, have = gdn.decode(**on_cpu), gdn.decode(**on_gpu)
        limit = 1e-5 if options.get("dtype") == "float32" else 3e-3
        assert cases.relative(have.float().cpu(), want.float()) <= limit, options
        assert cases.relative(on_gpu["state"].float().cpu(), on_cpu["state"].float()) <= 3e-3, options


def test_work_is_ordered_by_the_current_stream(gpu):
    """Inputs that another kernel of the same side stream still computes are waited for."""
    import torch

    problem = torch_problem(gpu, N=4, slots=8)
    want = gdn.decode(**clone(problem))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        arguments = clone(problem)
        late = torch.zeros_like(problem["q"])
        torch.cuda._sleep(20_000_000)
        late.copy_(problem["q"])
        have = gdn.decode(**{**arguments, "q": late})
        stream.synchronize()
    assert torch.equal(have, want)


def test_graph_is_captured_and_follows_its_tables(gpu):
    import torch

    problem = torch_problem(gpu, N=4, slots=8)
    gdn.load(k=128, v=128)
    static = clone(problem)
    out = torch.empty_like(static["v"])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gdn.decode(**static, out=out)
    for seed in range(3):
        fresh = torch_problem(gpu, N=4, slots=8, seed=seed)
        for name, value in fresh.items():
            static[name].copy_(value)
        graph.replay()
        torch.cuda.synchronize()
        want = gdn.decode(**fresh)
        assert torch.equal(out, want) and torch.equal(static["state"], fresh["state"])


def test_capture_refuses_to_load(gpu):
    """A module that is not loaded is no kernel for a capture: the error says what to do, and the capture goes on."""
    import torch

    problem = torch_problem(gpu, dtype="float32", K=64, V=64, kda=True)
    name = "kda_decode_f32_f32_k64"
    assert not any(file.startswith(name + ".") for file in gdn.loaded())
    out = torch.empty_like(problem["v"])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        with pytest.raises(gdn.Error, match=f"{name} is not loaded, and a stream is being captured: call gdn.load"):
            gdn.decode(**problem, out=out)
        out.zero_()
    graph.replay()
    gdn.load(modules=[name])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gdn.decode(**problem, out=out)
    graph.replay()
    torch.cuda.synchronize()
    assert out.abs().sum() > 0


def test_compiled_with_graphs(gpu):
    """torch.compile(mode="reduce-overhead") captures graphs of its own."""
    import torch

    problem = torch_problem(gpu)
    gdn.load(k=128, v=128)
    want_state = problem["state"].clone()
    step = torch.compile(lambda p: gdn.decode(**p) * 2, mode="reduce-overhead", fullgraph=True)
    for _ in range(4):
        want = gdn.decode(**{**problem, "state": want_state}) * 2
        have = step(problem)
        assert torch.equal(have, want) and torch.equal(problem["state"], want_state)


def test_operators_are_what_their_schemas_say(tensors, monkeypatch):
    """torch's own check of an operator: what it writes is declared and nothing else, and it traces."""
    import torch
    from gdn import _ops

    calls = []
    for name in _ops._RUNNERS:
        monkeypatch.setitem(_ops._RUNNERS, name, lambda tensor, args, name=name: calls.append((name, args)))
    one, many = torch_problem(tensors), torch_problem(tensors, T=2)
    state, slots = many["state"], many["slots"]
    buffer = torch.zeros(3, 2, *state.shape[1:], device=tensors.device)
    make = lambda *shape: torch.randn(*shape).bfloat16().to(tensors.device)
    gdn.decode(**one)
    gdn.recurrent(**many, intermediate=buffer, update=False)
    gdn.recurrent(**{**many, "slots": None, "state": state[:3].clone()}, final_state=torch.zeros_like(state[:3]))
    gdn.causal_conv1d_update(make(3, 256), make(6, 256, 3), make(256, 4), slots=slots)
    gdn.gated_rmsnorm(make(3, 4, 128), make(3, 4, 128), make(128))
    gdn.unpack_qkvz(make(3, 2 * 256 + 2 * 512), make(3, 8), 2, 4, 128, 128)
    gdn.copy_state(state, torch.zeros_like(state))
    gdn.commit_state(torch.randn_like(buffer), tensors.int32([1, 2, 0]), state.clone(), slots)
    gdn.convert_layout(state, torch.zeros_like(state))
    rings = gdn.ReplayState(1, 3, 2, 4, drafts=2, records=4, device=tensors.device)
    one.pop("slots"), many.pop("slots"), one.pop("state"), many.pop("state")
    rings.decode(0, **one)
    rings.verify(0, **many)
    rings.behind_verify(tensors.int32([1, 2, 0]), 2)
    # Those for all layers are of tensors that do not move, and here they are copied.
    assert {name for name, _ in calls} == set(_ops._RUNNERS) - {"replay_commit", "replay_fold", "materialise"}
    for name, args in calls:
        checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(getattr(torch.ops.gdn, name).default, args, test_utils=checks)
