"""Records a tiny Kimi-Linear with random weights: a prompt, greedy tokens, and the logits that they were chosen from.

usage: record.py FOLDER, with torch and transformers that have KimiLinearForCausalLM
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import KimiLinearConfig, KimiLinearForCausalLM

PROMPT, TOKENS = 17, 32


def build(seed: int) -> KimiLinearForCausalLM:
    """A layer of each kind and then some; heads of 128, so that the kernels' 128 x 128 path runs."""
    torch.manual_seed(seed)
    config = KimiLinearConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        kv_lora_rank=32,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        linear_head_dim=128,
        linear_num_heads=2,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
        mlp_layer_types=["dense", "sparse", "sparse"],
        max_position_embeddings=512,
        initializer_range=0.08,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = KimiLinearForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(0.1 * torch.randn_like(weight))
            elif name.endswith("A_log"):
                weight.copy_(torch.empty_like(weight).uniform_(0.5, 8).log())
            elif name.endswith("dt_bias"):
                weight.copy_(torch.randn_like(weight))
        for name, bias in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                bias.copy_(0.1 * torch.randn_like(bias))
    return model


def record(model: KimiLinearForCausalLM, seed: int) -> dict[str, torch.Tensor]:
    """The greedy text of a random prompt."""
    prompt = torch.randint(1, 512, (PROMPT,), generator=torch.Generator().manual_seed(seed))
    tokens, logits, ids, cache = [], [], prompt, None
    with torch.no_grad():
        for _ in range(TOKENS):
            out = model(ids[None], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            logits.append(out.logits[0, -1].float())
            ids = logits[-1].argmax()[None]
            tokens.append(ids[0])
    return {"prompt": prompt, "tokens": torch.stack(tokens), "logits": torch.stack(logits).contiguous()}


def main() -> None:
    folder = Path(sys.argv[1])
    # The first of some models whose text varies and whose choices are clear.
    for seed in range(64):
        model = build(seed)
        golden = record(model, seed)
        first, second = golden["logits"].topk(2, dim=1).values.T
        margin, distinct = float((first - second).min()), len(set(golden["tokens"].tolist()))
        if margin > 0.01 and distinct > 20:
            break
    else:
        raise SystemExit("no model has a text that can be recorded")
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file(golden, folder / "golden.safetensors")
    about = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "dtype": "float32",
        "seed": seed,
        "distinct": distinct,
        "least_margin": margin,
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }
    (folder / "record.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
