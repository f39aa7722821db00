"""What a call costs the host, beside SGLang's Triton kernel for the same decode. Prints microseconds a call.

    python host_cost.py        GDN_PEERS names the folder with SGLang's wheel; without it gdn alone is measured.
"""

import os
import statistics
import time

import cases
import gdn
import peers
import torch
from gdn.compat import sglang
from problems import torch_problem


def measure(call, calls=400, rounds=15):
    """The median over rounds of the time to submit a call; the GPU is waited for between rounds."""
    for _ in range(50):
        call()
    times = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e6)
    torch.cuda.synchronize()
    return statistics.median(times)


def launch_of_triton():
    """A Triton launch with the arguments of a decode, and nothing around it."""
    import triton
    import triton.language as tl

    @triton.jit
    def nothing(q, k, v, a, b, A_log, dt_bias, state, slots, out, scale, n, BV: tl.constexpr):
        pass

    def call(problem, out):
        arguments = [problem[name] for name in ("q", "k", "v", "a", "b", "A_log", "dt_bias", "state", "slots")]
        return lambda: nothing[(1, 1, 1)](*arguments, out, 0.1, 3, BV=32, num_warps=1)

    return call


@torch.no_grad()
def main():
    kind = cases.Torch("cuda")
    problem = torch_problem(kind, N=1, T=1, H=1, HV=2)
    out = torch.empty_like(problem["v"])
    theirs_arguments = dict(
        A_log=problem["A_log"], a=problem["a"], dt_bias=problem["dt_bias"], softplus_beta=1.0, softplus_threshold=20.0,
        q=problem["q"], k=problem["k"], v=problem["v"], b=problem["b"], initial_state_source=problem["state"],
        initial_state_indices=problem["slots"], use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    rows = {"a bare Triton launch": launch_of_triton()(problem, out)}
    if os.environ.get("GDN_PEERS"):
        peers.load(os.environ["GDN_PEERS"])
        theirs = peers.sglang("attention.linear.fused_sigmoid_gating_recurrent", "fused_sigmoid_gating_delta_rule_update")
        rows["SGLang's decode (Triton)"] = lambda: theirs(**theirs_arguments)
    rows["gdn.compat.sglang, the same call"] = lambda: sglang.fused_sigmoid_gating_delta_rule_update(**theirs_arguments)
    rows["gdn.decode"] = lambda: gdn.decode(**problem)
    rows["gdn.decode, out given"] = lambda: gdn.decode(**problem, out=out)
    norm = (problem["v"], problem["v"].clone(), torch.ones(128, device="cuda").bfloat16())
    rows["gdn.gated_rmsnorm, out given"] = lambda: gdn.gated_rmsnorm(*norm, out=out)
    rows["torch.empty_like"] = lambda: torch.empty_like(out)
    rows["torch.add, out given"] = lambda: torch.add(out, out, out=out)
    for name, call in rows.items():
        print(f"{measure(call):8.2f} us  {name}")
    for name, call in (("gdn", lambda: gdn.decode(**problem, out=out)), ("SGLang", rows.get("SGLang's decode (Triton)"))):
        if call is None:
            continue
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(100):
                call()
        print(f"{measure(graph.replay, 20) / 100:8.2f} us  of a graph of 100, {name}")


if __name__ == "__main__":
    main()
