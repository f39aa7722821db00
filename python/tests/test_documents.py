"""The first calls of the documents run as they are written."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(name):
    """Runs the blocks of a document."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), {})


def test_first_call_of_the_readme(capsys):
    run("README.md")
    assert capsys.readouterr().out == "(2, 2, 128) 0.0\n"


def test_first_calls_of_the_wheels_readme(tensors, capsys):
    run("python/README.md")
    assert capsys.readouterr().out == "torch.Size([2, 32, 128]) torch.bfloat16\ntorch.Size([2, 3, 32, 128]) [2, 0]\n"
