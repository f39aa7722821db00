"""The peers' own kernels, from a folder that their wheels are unpacked in, without what else they need."""

import contextlib
import importlib
import sys
import types


class _Answer:
    """What a helper is or gives: false, and whatever else is asked of it likewise."""

    def __call__(self, *args, **kwargs):
        return False

    def __getattr__(self, name):
        return _Answer()


class _Stub(types.ModuleType):
    """A helper of a peer's package that only asks what machine this is: an NVIDIA GPU, and nothing special."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "torch_release":
            import torch

            return tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:3])
        return _ANSWERS.get(name, _Answer())


_ANSWERS = {
    "is_cuda": lambda: True,
    "get_device_sm": lambda: 90,
    "get_jit_cuda_arch": lambda: 90,
    "cdiv": lambda a, b: -(-a // b),
    "next_power_of_2": lambda n: 1 << (n - 1).bit_length(),
    "device_context": lambda device: contextlib.nullcontext(),
}


class _Finder:
    """Serves stubs for the parts of SGLang that are not kernels."""

    PREFIXES = ("sglang.srt", "sglang.kernels.jit")

    def find_spec(self, name, path=None, target=None):
        if name.startswith(self.PREFIXES):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Stub(spec.name)

    def exec_module(self, module):
        pass


def _module(name, **members):
    """A module of these members alone."""
    module = types.ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


def _package(name, folder):
    """A package without running its `__init__`."""
    _module(name, __path__=[str(folder)])


@contextlib.contextmanager
def imported(folder):
    """While it is open the peers of a folder can be imported, and nothing of them is left behind.

    Others look whether a peer is there: with FLA in reach transformers runs FLA's kernels, also on tensors of the CPU.
    """
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    sys.path.append(str(folder))
    parts = ["sglang", "sglang.kernels", "sglang.kernels.ops", "sglang.kernels.ops.attention", "sglang.kernels.ops.mamba"]
    parts += ["sglang.kernels.ops.attention.fla", "sglang.kernels.ops.attention.linear"]
    for name in parts:
        _package(name, f"{folder}/{name.replace('.', '/')}")
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in ("sglang", "fla", "flashinfer")]:
            del sys.modules[name]


def flashinfer(folder):
    """FlashInfer's functions of the recurrence. They need CuTe-DSL (`cutlass`), which compiles a kernel at its first call."""
    import torch

    _package("flashinfer", f"{folder}/flashinfer")
    _package("flashinfer.gdn_kernels", f"{folder}/flashinfer/gdn_kernels")
    _package("flashinfer.jit", "")
    _module("flashinfer.jit.core", logger=_Answer())
    _module(
        "flashinfer.jit.cute_dsl_core",
        build_and_load_cute_dsl_kernel=lambda module_name, kernel_name, compile_fn, extra_key_files=(): compile_fn(),
    )
    _module("flashinfer.utils", get_compute_capability=torch.cuda.get_device_capability)
    return importlib.import_module("flashinfer.gdn_decode")


def sglang(path, name):
    return getattr(importlib.import_module(f"sglang.kernels.ops.{path}"), name)


def fla(path, name):
    return getattr(importlib.import_module(f"fla.{path}"), name)
