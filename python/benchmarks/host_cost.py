"""What a call from Python costs the host, beside launches of Triton's. Prints microseconds a launch.

    python host_cost.py [RESULT.json]     GDN_PEERS names a folder with SGLang's wheel; without it SGLang is left out.

Each number is the median over rounds of the time to submit a launch; the GPU is waited for between rounds only. The kernels run
for less time than it takes to submit them. The graphs hold a hundred launches, and are replayed.
"""

import contextlib
import os
import statistics
import sys
import time

import gdn
import result
import torch
import triton
import triton.language as tl
from gdn.compat import sglang

import cases
import peers
from problems import torch_problem

CALLS, ROUNDS, CAPTURED = 300, 25, 100


def measure(call, calls=CALLS):
    for _ in range(50):
        call()
    times = []
    for _ in range(ROUNDS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - start) / calls * 1e6)
    torch.cuda.synchronize()
    return statistics.median(times)


def captured(call):
    """Of a launch in a graph of many, replayed."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CAPTURED):
            call()
    return measure(graph.replay, 10) / CAPTURED


@triton.jit
def _nothing(q, k, v, a, b, A_log, dt_bias, state, slots, out, scale, n, BV: tl.constexpr):
    pass


def bare_triton(problem, out):
    """A Triton kernel with the arguments of a decode that does nothing, and nothing around its launch."""
    arguments = [problem[name] for name in ("q", "k", "v", "a", "b", "A_log", "dt_bias", "state", "slots")]
    return lambda: _nothing[(1, 1, 1)](*arguments, out, 0.1, 3, BV=32, num_warps=1)


def calls(problem, with_peers):
    """What is measured, by name."""
    out = torch.empty_like(problem["v"])
    same = dict(
        A_log=problem["A_log"], a=problem["a"], dt_bias=problem["dt_bias"], softplus_beta=1.0, softplus_threshold=20.0,
        q=problem["q"], k=problem["k"], v=problem["v"], b=problem["b"], initial_state_source=problem["state"],
        initial_state_indices=problem["slots"], use_qk_l2norm_in_kernel=True,
    )  # fmt: skip
    gate, weight = problem["v"].clone(), torch.ones(128, device=out.device).bfloat16()
    found = {"Triton, a kernel that does nothing": bare_triton(problem, out)}
    if with_peers:
        name = "fused_sigmoid_gating_delta_rule_update"
        theirs = peers.sglang("attention.linear.fused_sigmoid_gating_recurrent", name)
        found["SGLang's decode, Triton"] = lambda: theirs(**same)
    found["gdn.compat.sglang, the same call"] = lambda: sglang.fused_sigmoid_gating_delta_rule_update(**same)
    found["gdn.decode"] = lambda: gdn.decode(**problem)
    found["gdn.decode, out given"] = lambda: gdn.decode(**problem, out=out)
    found["gdn.gated_rmsnorm, out given"] = lambda: gdn.gated_rmsnorm(problem["v"], gate, weight, out=out)
    found["torch.empty_like"] = lambda: torch.empty_like(out)
    found["torch.add, out given"] = lambda: torch.add(out, out, out=out)
    return found


@torch.no_grad()
def main(path=None):
    problem = torch_problem(cases.Torch("cuda"), N=1, T=1, H=1, HV=2)
    folder = os.environ.get("GDN_PEERS")
    with contextlib.ExitStack() as stack:
        if folder:
            stack.enter_context(peers.imported(folder))
        rows = []
        for name, call in calls(problem, bool(folder)).items():
            row = {"name": name, "us": measure(call)}
            if "decode" in name or "Triton" in name:
                row["captured_us"] = captured(call)
            rows.append(row)
            shown = f", {row['captured_us']:.2f} us captured" if "captured_us" in row else ""
            print(f"{row['us']:8.2f} us  {name}{shown}", flush=True)
            result.write(path, ["triton"], rows=rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
