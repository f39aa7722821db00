"""Drop-ins under the names and with the argument lists of other packages: change one import.

    gdn.compat.sglang        SGLang 0.5.23
    gdn.compat.vllm          vLLM 0.33
    gdn.compat.fla           flash-linear-attention 0.6
    gdn.compat.flashinfer    FlashInfer 0.7.2
    gdn.compat.transformers  patch(model): Qwen3-Next, Qwen3.5 and Kimi-Linear of Hugging Face decode with these kernels

They need torch. An argument that is not taken is an error that says so. Forward only. Padded rows of outputs are
zeros, whatever the other package leaves there. What differs, argument by argument: docs/MIGRATING.md.
"""
