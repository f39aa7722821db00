"""What the drop-ins refuse: arguments that are not taken, and errors by the names that the peers' arguments have."""

import inspect

import gdn
import pytest
import torch
from gdn.compat import fla, flashinfer, sglang, vllm
from problems import torch_problem

REFUSED = [
    (sglang.fused_sigmoid_gating_delta_rule_update, dict(cache_ring=True), "cache_ring = True is not taken by gdn"),
    (sglang.causal_conv1d_update, dict(cache_seqlens=1), "cache_seqlens = 1 is not taken by gdn"),
    (sglang.fused_recurrent_kda, dict(unknown=1), "unknown is not taken by gdn"),
    (sglang.rms_norm_gated, dict(group_size=16, is_rms_norm=True), "group_size = 16 is not taken"),
    (sglang.layernorm_fn, dict(), "is_rms_norm = False is not taken"),
    (vllm.fused_recurrent_gated_delta_rule, dict(inplace_final_state=False), "inplace_final_state = False is not taken"),
    (vllm.causal_conv1d_update, dict(initial_state_idx=1), "initial_state_idx = 1 is not taken"),
    (fla.fused_recurrent_gated_delta_rule, dict(gv=1), "gv = 1 is not taken"),
    (fla.fused_recurrent_kda, dict(ssm_state_indices=1), "ssm_state_indices is not taken"),
    (fla.rms_norm_gated, dict(bias=None, prenorm=True), "prenorm = True is not taken"),
    (flashinfer.gated_delta_rule_decode, dict(backend="cake_gdn"), "backend = 'cake_gdn' is not taken"),
    (flashinfer.gated_delta_rule_mtp, dict(cache_replayssm=True), "cache_replayssm = True is not taken"),
]


@pytest.mark.parametrize("function, change, message", REFUSED, ids=[f"{f.__module__[11:]}.{f.__name__}" for f, *_ in REFUSED])
def test_what_is_not_taken_is_refused(function, change, message):
    needed = {
        name: torch.zeros(1, 1, 1) if name == "g" else torch.zeros(1, 1, 1, 64)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    with pytest.raises(gdn.Error, match=message):
        function(**{**needed, **change})


def test_decays_of_another_family_are_refused(tensors):
    problem, count = torch_problem(tensors, T=2), 3
    q, k, v = (problem[name] for name in "qkv")
    by_head, by_key = torch.zeros(count, 2, 4), torch.zeros(count, 2, 4, 128)
    by_head, by_key = by_head.to(tensors.device), by_key.to(tensors.device)
    pool = dict(initial_state=problem["state"], ssm_state_indices=problem["slots"])
    for function, g, more in [
        (sglang.fused_recurrent_gated_delta_rule, by_key, {}),
        (sglang.fused_recurrent_kda, by_head, dict(initial_state=problem["state"][:3])),
        (vllm.fused_recurrent_gated_delta_rule, by_key, pool),
        (vllm.fused_recurrent_kda, by_head, pool),
        (fla.fused_recurrent_gated_delta_rule, by_key, {}),
        (fla.fused_recurrent_kda, by_head, dict(beta=problem["b"])),
    ]:
        with pytest.raises(gdn.ArgumentError, match=r"^g: shape .* does not fit, expected \[B, T, h?H?V?"):
            function(q=q, k=k, v=v, g=g, **more)
    with pytest.raises(gdn.ArgumentError, match="^gk: shape"):
        fla.fused_recurrent_gated_delta_rule(q, k, v, gk=by_head)


def test_what_is_no_tensor_and_no_model_is_refused(tensors):
    from gdn.compat import transformers

    problem = torch_problem(tensors, T=1)
    inputs = [problem[name] for name in ("A_log", "a", "dt_bias")]
    with pytest.raises(gdn.ArgumentError, match="q: a torch tensor is wanted, not ndarray"):
        sglang.fused_sigmoid_gating_delta_rule_update(
            *inputs, 1.0, 20.0, problem["q"].float().cpu().numpy(), *(problem[name] for name in ("k", "v", "b", "state", "slots"))
        )
    for change in (transformers.patch, transformers.unpatch):
        with pytest.raises(gdn.ArgumentError, match="model: a torch.nn.Module is wanted, not str"):
            change("Qwen/Qwen3-Next")


def test_errors_have_the_peers_names(tensors):
    problem = torch_problem(tensors, T=1)
    with pytest.raises(gdn.ArgumentError, match="initial_state_indices: has 2 rows, the call needs 3"):
        sglang.fused_sigmoid_gating_delta_rule_update(
            problem["A_log"], problem["a"], problem["dt_bias"], 1.0, 20.0, problem["q"], problem["k"], problem["v"],
            problem["b"], problem["state"], problem["slots"][:2],
        )  # fmt: skip
    several = torch_problem(tensors, T=2)
    q, k, v, one = *(several[name] for name in "qkv"), several["state"][:1].transpose(2, 3).contiguous()
    g = torch.zeros(v.shape[:-1], device=v.device)
    with pytest.raises(gdn.ArgumentError, match="^initial_state: 1 is not allowed, it must be as many states as there are"):
        fla.fused_recurrent_gated_delta_rule(q, k, v, g, initial_state=one)
    gates = [several[name] for name in ("A_log", "a", "dt_bias", "b")]
    with pytest.raises(gdn.ArgumentError, match=r"^q: shape \[3, 2, 2, 128\] does not fit, expected \[B, 1, H, K\]"):
        flashinfer.gated_delta_rule_decode(q, k, v, several["state"][:3], *gates)
    with pytest.raises(gdn.ArgumentError, match="^initial_state: give it or state, one of them"):
        flashinfer.gated_delta_rule_decode_pretranspose(q, k, v, None, *gates)


def test_gradients_are_refused(tensors):
    problem = torch_problem(tensors, T=2)
    g = problem["a"].float().requires_grad_()
    with torch.enable_grad(), pytest.raises(gdn.Error, match="forward only"):
        fla.fused_recurrent_gated_delta_rule(problem["q"], problem["k"], problem["v"], g, beta=problem["b"].sigmoid())
