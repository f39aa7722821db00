"""`import gdn` without what it can do without: a clear answer, and no traceback."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import gdn


def python(code, *blocked):
    """Runs code in a new process, in which some packages cannot be imported."""
    prelude = f"""
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {blocked!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        sys.meta_path.insert(0, Block())
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_nothing_but_python():
    done = python("import gdn; print(gdn.status())", "torch", "numpy", "ml_dtypes")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "torch: not usable (No module named 'torch')" in done.stdout and "numpy: not installed" in done.stdout


def test_source_is_no_package(tmp_path):
    shutil.copytree(Path(gdn.__file__).parent, tmp_path / "gdn", ignore=shutil.ignore_patterns("_gdn.*", "__pycache__"))
    done = subprocess.run([sys.executable, "-c", "import gdn"], capture_output=True, text=True, cwd=tmp_path, timeout=300)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: gdn without its extension: ") and "Install the wheel" in last, done.stderr


def test_drop_ins_say_that_they_need_torch():
    done = python("import gdn.compat.sglang", "torch")
    last = done.stderr.strip().splitlines()[-1]
    assert last == "ImportError: gdn.compat needs torch, which cannot be imported: No module named 'torch'", done.stderr


def test_numpy_alone_computes():
    done = python(
        """
        import numpy, gdn
        x = numpy.ones((2, 32), "f4")
        print(gdn.gated_rmsnorm(x, x, x[0])[0, 0])
        """,
        "torch",
    )
    assert done.returncode == 0 and abs(float(done.stdout) - 0.7310582) < 1e-6, done


def test_missing_driver_is_an_answer():
    done = python(
        """
        import os
        os.environ["GDN_LIBCUDA"] = "/nowhere/libcuda.so"
        import gdn
        print(gdn.status())
        try:
            gdn.load("Qwen3.5-4B")
        except gdn.Error as problem:
            print("refused:", problem)
        """,
        "torch",
    )
    assert done.returncode == 0, done.stderr
    assert "driver: no CUDA driver: cannot load /nowhere/libcuda.so" in done.stdout
    assert "refused: device 0: no CUDA driver" in done.stdout


def test_module_prints_what_is_here():
    done = subprocess.run([sys.executable, "-m", "gdn"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.startswith("gdn 0."), done
