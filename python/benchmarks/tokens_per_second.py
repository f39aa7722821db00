"""Greedy tokens a second of a Hugging Face model with random weights, patched and not. Prints both.

    python tokens_per_second.py [RESULT.json]

The model has the layers of Qwen3.5-0.8B (24, of which 18 are linear attention) and a small vocabulary.
"""

import sys
import time

import result
import torch
from gdn.compat import transformers
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig


def model(dtype):
    torch.manual_seed(0)
    config = Qwen3_5TextConfig(
        vocab_size=4096, hidden_size=1024, intermediate_size=3584, num_hidden_layers=24, num_attention_heads=8,
        num_key_value_heads=2, head_dim=256, linear_num_key_heads=16, linear_num_value_heads=16, linear_key_head_dim=128,
        linear_value_head_dim=128, linear_conv_kernel_dim=4, pad_token_id=0, eos_token_id=None, bos_token_id=1,
        layer_types=(["linear_attention"] * 3 + ["full_attention"]) * 6,
    )  # fmt: skip
    return Qwen3_5ForCausalLM(config).to(device="cuda", dtype=dtype).eval()


def speed(model, batch, tokens=48):
    prompt = torch.randint(2, 4096, (batch, 32), device="cuda")
    options = dict(attention_mask=torch.ones_like(prompt), do_sample=False)
    model.generate(prompt, max_new_tokens=4, min_new_tokens=4, **options)
    torch.cuda.synchronize()
    start = time.perf_counter()
    model.generate(prompt, max_new_tokens=tokens, min_new_tokens=tokens, **options)
    torch.cuda.synchronize()
    return batch * tokens / (time.perf_counter() - start)


@torch.no_grad()
def main(path=None):
    rows = []
    for dtype in (torch.float32, torch.bfloat16):
        plain = model(dtype)
        for batch in (1, 16):
            before = speed(plain, batch)
            after = speed(transformers.patch(plain), batch)
            transformers.unpatch(plain)
            name = str(dtype).removeprefix("torch.")
            rows.append({"dtype": name, "batch": batch, "unpatched": before, "patched": after})
            print(f"{name} batch {batch}: {before:8.1f} tokens/s unpatched, {after:8.1f} patched, {after / before:.2f} times")
            result.write(path, ["transformers", "triton"], rows=rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
