"""transformers: patched models give the tokens that they give unpatched."""

import copy

import cases
import gdn
import pytest
import torch

#: Attention that has nothing to do with what is tested, as small as it goes.
COMMON = dict(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=128,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=512,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=None,
    tie_word_embeddings=False,
)
LINEAR = dict(
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    linear_conv_kernel_dim=4,
    head_dim=64,
    num_hidden_layers=4,
    layer_types=["linear_attention"] * 3 + ["full_attention"],
)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, shared_expert_intermediate_size=64)


def qwen3_next():
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    return Qwen3NextForCausalLM(Qwen3NextConfig(**COMMON, **LINEAR, **EXPERTS))


def qwen3_5():
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**COMMON, **LINEAR))


def qwen3_5_moe():
    from transformers import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig

    return Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**COMMON, **LINEAR, **EXPERTS))


def kimi_linear():
    from transformers import KimiLinearConfig, KimiLinearForCausalLM

    config = KimiLinearConfig(
        **{**COMMON, "num_key_value_heads": 2},
        num_hidden_layers=4,
        layer_types=LINEAR["layer_types"],
        linear_num_heads=2,
        linear_head_dim=128,
        linear_conv_kernel_dim=4,
        num_local_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_group=1,
        topk_group=1,
        kv_lora_rank=32,
        q_lora_rank=None,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
    )
    return KimiLinearForCausalLM(config)


MODELS = [qwen3_next, qwen3_5, qwen3_5_moe, kimi_linear]


def build(make, device, dtype=torch.float32, seed=0):
    """A model with random weights, gates spread as trained ones are."""
    torch.manual_seed(seed)
    model = make()
    for name, weight in model.named_parameters():
        if name.endswith("A_log"):
            weight.data.uniform_(0.1, 4).log_()
        elif name.endswith("dt_bias"):
            weight.data.uniform_(-4, 0)
        elif weight.ndim > 1:
            weight.data.normal_(0, 0.08)
    return model.to(device=device, dtype=dtype).eval()


def greedy(model, prompt, tokens):
    return model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
    )


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_greedy_tokens_are_the_same(make, tensors):
    from gdn.compat import transformers

    model = build(make, tensors.device)
    on_gpu = tensors.device == "cuda"
    tokens = 64 if on_gpu else 16
    prompts = [torch.randint(2, 512, shape) for shape in ((1, 1), (1, 17), (3, 9))]
    if on_gpu:
        prompts += [torch.randint(2, 512, shape) for shape in ((1, 130), (8, 33))]
    prompts = [prompt.to(tensors.device) for prompt in prompts]
    want = [greedy(model, prompt, tokens) for prompt in prompts]
    calls = []
    decode = gdn._ops.decode_packed
    transformers.patch(model)
    try:
        gdn._ops.decode_packed = lambda *args, **kwargs: calls.append(1) or decode(*args, **kwargs)
        have = [greedy(model, prompt, tokens) for prompt in prompts]
    finally:
        gdn._ops.decode_packed = decode
    for prompt, a, b in zip(prompts, have, want):
        assert torch.equal(a, b), f"prompt of {tuple(prompt.shape)}: tokens differ from {int((a != b).nonzero()[0, 1])} on"
    # Three layers, in every step but the first, which the prefill takes.
    assert len(calls) == 3 * (tokens - 1) * len(prompts)
    transformers.unpatch(model)
    assert torch.equal(greedy(model, prompts[0], tokens), want[0])


def test_patching_twice_is_patching_once():
    from gdn.compat import transformers

    model = build(qwen3_5, "cpu")
    before = model.model.layers[0].linear_attn.forward
    transformers.patch(transformers.patch(model))
    transformers.unpatch(model)
    assert model.model.layers[0].linear_attn.forward == before


def test_other_models_are_refused():
    from gdn.compat import transformers

    with pytest.raises(gdn.Error, match="Linear: it has no layer that gdn decodes"):
        transformers.patch(torch.nn.Linear(2, 2))


def test_logits_in_bf16_are_as_near_as_unpatched(tensors):
    """In 16 bits tokens may part. Fed the same tokens, logits are no further from those of an f32 model with the same weights."""
    from gdn.compat import transformers

    model = build(qwen3_5, tensors.device, torch.bfloat16)
    prompt = torch.randint(2, 512, (2, 11)).to(tensors.device)
    steps = torch.randint(2, 512, (6, 2, 1)).to(tensors.device)

    def logits(model):
        out = model(prompt, use_cache=True)
        found, cache = [], out.past_key_values
        for step in steps:
            out = model(step, past_key_values=cache, use_cache=True)
            found.append(out.logits[:, -1].float().cpu())
        return torch.stack(found)

    exact = logits(copy.deepcopy(model).float())
    unpatched = logits(model)
    patched = logits(transformers.patch(model))
    assert not torch.equal(patched, unpatched)
    assert cases.relative(patched, exact) < 1.25 * cases.relative(unpatched, exact) < 0.1


def test_recorded_model(model_folder):
    """A tiny model, and the tokens that another version of transformers gave."""
    from gdn.compat import transformers
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).to(device).eval()
    recorded = load_file(model_folder / "golden.safetensors")
    prompt = recorded["prompt"][None].to(device)
    have = greedy(transformers.patch(model), prompt, len(recorded["tokens"]))[0, prompt.shape[1] :]
    assert have.tolist() == recorded["tokens"].tolist()
