"""Random problems of the recurrence on torch tensors, and small ones on numpy arrays."""


def torch_problem(kind, N=3, T=None, H=2, HV=4, K=128, V=128, slots=6, state="float32", dtype="bfloat16", kda=False, seed=0):
    """Arguments of `gdn.decode`, or with T of `gdn.recurrent`, by name."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    lead = (N,) if T is None else (N, T)

    def random(*shape, to=dtype):
        return torch.randn(*shape, generator=generator).to(getattr(torch, to)).to(kind.device)

    return dict(
        q=random(*lead, H, K),
        k=random(*lead, H, K),
        v=random(*lead, HV, V),
        a=random(*lead, HV, K) if kda else random(*lead, HV),
        b=random(*lead, HV),
        A_log=random(HV, to="float32"),
        dt_bias=random(HV, K, to="float32") if kda else random(HV, to="float32"),
        state=random(slots, HV, V, K, to=state) * 0.1,
        slots=torch.randperm(slots, generator=generator)[:N].int().to(kind.device),
    )


def clone(arguments):
    """Arguments with memory of their own."""
    return {name: value.clone() if hasattr(value, "clone") else value for name, value in arguments.items()}


def numpy_problem(N=2, H=1, HV=2, K=64, V=32, slots=4, seed=0):
    """Arguments of `gdn.decode` in f32."""
    import numpy

    generator = numpy.random.default_rng(seed)

    def random(*shape):
        return generator.standard_normal(shape, numpy.float32)

    return dict(
        q=random(N, H, K),
        k=random(N, H, K),
        v=random(N, HV, V),
        a=random(N, HV),
        b=random(N, HV),
        A_log=random(HV),
        dt_bias=random(HV),
        state=random(slots, HV, V, K),
        slots=numpy.arange(N, dtype=numpy.int32),
    )
