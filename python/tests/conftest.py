"""Which arrays the tests run on, and what was left out: nothing is skipped in silence."""

import importlib.util
import os
from pathlib import Path

import cases
import pytest

KINDS, MISSING = cases.kinds()


def _folder(variable, what):
    """A folder that an environment variable names."""
    if os.environ.get(variable):
        return [Path(os.environ[variable])]
    MISSING.append(f"{what}: {variable} names no folder")
    return []


def _gpus():
    if not any(kind.name == "torch-cuda" for kind in KINDS):
        return 0
    import torch

    return torch.cuda.device_count()


def _ignored():
    """Files of tests that cannot even be read here."""
    files = []
    if not any(kind.name == "torch-cpu" for kind in KINDS):
        files += ["test_compat.py", "test_compat_refusals.py", "test_peers.py", "test_torch.py", "test_transformers.py", "test_two_gpus.py"]
    elif importlib.util.find_spec("transformers") is None:
        MISSING.append("models of transformers: it is not installed")
        files += ["test_transformers.py"]
    if not any(kind.name == "numpy" for kind in KINDS):
        files += ["test_arguments.py", "test_states.py"]
    return files


collect_ignore = _ignored()
PEERS = _folder("GDN_PEERS", "the peers' own sources")
CUTE_DSL = PEERS if importlib.util.find_spec("cutlass") else []
if not CUTE_DSL:
    MISSING.append("FlashInfer's kernels: their compiler, CuTe-DSL (`cutlass`), is not installed")
MODELS = sorted((cases.FOLDER / "models").glob("*_float32"))
SECOND = [cases.Torch("cuda:1")] if _gpus() > 1 else []
if not SECOND:
    MISSING.append("a second GPU: there is none here")


def pytest_generate_tests(metafunc):
    """`kind`: every kind of array. `tensors`: those of torch. `gpu`: torch's on a GPU. And folders with more to test with."""
    chosen = {
        "kind": KINDS,
        "tensors": [kind for kind in KINDS if kind.name != "numpy"],
        "gpu": [kind for kind in KINDS if kind.name == "torch-cuda"],
        "second": SECOND,
        "peers_folder": PEERS,
        "flashinfer_folder": CUTE_DSL,
        "model_folder": MODELS,
    }
    for name, kinds in chosen.items():
        if name in metafunc.fixturenames:
            scope = "module" if name == "peers_folder" else None  # The peers are imported once.
            metafunc.parametrize(name, kinds, ids=[getattr(kind, "name", str(kind)) for kind in kinds], scope=scope)


def pytest_collection_modifyitems(items):
    """A test without any kind to run on is left out, and said to be at the end."""
    empty = [item for item in items if "NOTSET" in item.name]
    items[:] = [item for item in items if "NOTSET" not in item.name]
    for item in empty:
        _LEFT_OUT.add(item.originalname)


_LEFT_OUT = set()


def pytest_terminal_summary(terminalreporter):
    for text in MISSING:
        terminalreporter.write_line(f"not checked here: {text}")
    if collect_ignore:
        terminalreporter.write_line(f"not checked here: all tests of {', '.join(collect_ignore)}, which need them")
    if _LEFT_OUT:
        terminalreporter.write_line(f"not checked here: {len(_LEFT_OUT)} tests that need them: {', '.join(sorted(_LEFT_OUT))}")


@pytest.fixture(autouse=True)
def _no_grad():
    """Operations are forward only."""
    try:
        import torch
    except Exception:
        yield
        return
    with torch.no_grad():
        yield
