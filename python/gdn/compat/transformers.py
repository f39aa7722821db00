"""Hugging Face transformers: ``patch(model)`` makes the linear-attention layers of a model decode with these kernels.

A step of one token with a cache goes to the kernels: unpacking, convolution, recurrence and gated norm. Prefill, training, and
whatever else a layer is called for go to the layer's own code. States stay where transformers keeps them: its cache works as before.
"""

import types

from .. import _ops
from .._errors import ArgumentError, Error
from ._common import aligned, torch

__all__ = ["patch", "unpatch"]


def _check_module(model):
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"model: a torch.nn.Module is wanted, not {type(model).__name__}")


def patch(model):
    """Patches every linear-attention layer of a Qwen3-Next, Qwen3.5 or Kimi-Linear model, and returns the model.

    Raises:
        Error: the model has no such layer.
    """
    _check_module(model)
    count = 0
    for module in model.modules():
        step = _STEPS.get(type(module).__name__)
        if step is not None and "_gdn_forward" not in vars(module):
            module._gdn_forward = module.forward
            module.forward = types.MethodType(_forward_with(step), module)
            count += 1
        elif step is not None:
            count += 1
    if count == 0:
        raise Error(f"{type(model).__name__}: it has no layer that gdn decodes, of {', '.join(_STEPS)}")
    return model


def unpatch(model):
    """Gives the layers their own code back, and returns the model."""
    _check_module(model)
    for module in model.modules():
        if "_gdn_forward" in vars(module):
            del module.forward, module._gdn_forward
    return model


def _forward_with(step):
    def forward(self, hidden_states, *args, **kwargs):
        # The cache was called `cache_params` up to transformers 5.17.
        cache = kwargs.get("cache", kwargs.get("cache_params", args[0] if args else None))
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        layer = _states(self, hidden_states, cache, mask, kwargs)
        if layer is None:
            return self._gdn_forward(hidden_states, *args, **kwargs)
        return step(self, hidden_states, layer.conv_states[0], layer.recurrent_states[0])

    return forward


def _states(module, hidden_states, cache, mask, kwargs):
    """The cache's layer, if this call is a step of one token that the kernels take."""
    if cache is None or mask is not None or hidden_states.shape[1] != 1 or kwargs.get("cu_seq_lens_q") is not None:
        return None
    layer = cache.layers[module.layer_idx]
    started = layer.has_previous_state
    if not (started[0] if isinstance(started, dict) else started) or layer.record_past:
        return None
    if torch.is_grad_enabled() and hidden_states.requires_grad:
        return None
    return layer


def _convolve(module, mixed, conv_state):
    weight = module.conv1d.weight
    silu = module.activation in ("silu", "swish")
    if not silu:
        raise Error(f"activation: {module.activation!r} is not taken by gdn, 'silu' is")
    return _ops.causal_conv1d_update(
        mixed, conv_state, weight.detach().view(weight.shape[0], weight.shape[2]), module.conv1d.bias, out=mixed
    )


def _norm(norm, core, gate, activation):
    return _ops.gated_rmsnorm(core, gate, aligned(norm.weight.detach()), eps=norm.variance_epsilon, activation=activation)


def _gated_delta_net(module, mixed, z, b, a, conv_state, state):
    """GDN behind its projections. transformers rounds beta to the model's type."""
    mixed = _convolve(module, mixed, conv_state)
    core = _ops.decode_packed(
        mixed,
        a,
        b,
        module.A_log.detach(),
        module.dt_bias.detach(),
        state,
        heads=module.num_k_heads,
        round_beta=True,
        layout="KV",
    )
    core = _norm(module.norm, core, z.view(core.shape), "silu")
    return module.out_proj(core.view(core.shape[0], 1, -1))


def _qwen3_next(module, hidden_states, conv_state, state):
    heads = (module.num_k_heads, module.num_v_heads, module.head_k_dim, module.head_v_dim)
    qkvz, ba = module.in_proj_qkvz(hidden_states)[:, 0], module.in_proj_ba(hidden_states)[:, 0]
    mixed, z, b, a = _ops.unpack_qkvz(qkvz, ba, *heads)
    return _gated_delta_net(module, mixed, z, b, a, conv_state, state)


def _qwen3_5(module, hidden_states, conv_state, state):
    mixed, z = module.in_proj_qkv(hidden_states)[:, 0], module.in_proj_z(hidden_states)[:, 0]
    b, a = module.in_proj_b(hidden_states)[:, 0], module.in_proj_a(hidden_states)[:, 0]
    return _gated_delta_net(module, mixed, z, b, a, conv_state, state)


def _kimi_linear(module, hidden_states, conv_state, state):
    parts = [project(hidden_states)[:, 0] for project in (module.q_proj, module.k_proj, module.v_proj)]
    mixed = _convolve(module, torch.cat(parts, dim=-1), conv_state)
    gate = module.forget_gate
    core = _ops.decode_packed(
        mixed,
        gate.f_b_proj(gate.f_a_proj(hidden_states))[:, 0],
        module.b_proj(hidden_states)[:, 0],
        gate.A_log.detach(),
        gate.dt_bias.detach(),
        state,
        heads=module.num_heads,
        round_beta=True,
        layout="KV",
    )
    gate = module.g_b_proj(module.g_a_proj(hidden_states)).view(core.shape)
    core = _norm(module.o_norm, core, gate, "sigmoid")
    return module.o_proj(core.view(core.shape[0], 1, -1))


_STEPS = {
    "Qwen3NextGatedDeltaNet": _qwen3_next,
    "Qwen3_5GatedDeltaNet": _qwen3_5,
    "Qwen3_5MoeGatedDeltaNet": _qwen3_5,
    "KimiLinearDeltaAttention": _kimi_linear,
}
