"""What a result file says besides its numbers: the card, and the versions of everything that ran."""

import functools
import json
import platform
import subprocess
import sys
from pathlib import Path

#: Problems and peers are those of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


@functools.cache
def _driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]


def versions(*packages):
    """Versions by name, of packages that are installed."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("torch", *packages)} | {"python": platform.python_version()}


def write(path, packages, **parts):
    """Writes a result; nothing without a path."""
    if not path:
        return
    import gdn
    import torch

    card = {"name": torch.cuda.get_device_name(), "driver": _driver(), "gdn": gdn.__version__}
    result = {"card": card, "versions": versions(*packages), **parts}
    Path(path).write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
