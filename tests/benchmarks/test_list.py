import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def test_all_benchmarks_are_listed_with_what_they_take():
    told = run("-m", "benchmarks").stdout
    for name in ("accelerator", "bits", "fuzz", "vqvae"):
        assert f"\n{name}: " in f"\n{told}"
    of = {part.partition(":")[0]: part for part in told.split("\n\n")}
    assert re.search(r"takes faiss.*, torch", of["projection"])
    assert "takes sklearn" in of["known_factors"]  # by a file that it imports
    assert "takes" not in of["comparison"]


def test_a_package_that_is_not_there_is_one_sentence():
    blocked = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('benchmarks.adam')"
    found = run("-c", blocked)
    assert found.returncode == 1
    assert found.stderr == (
        "this benchmark takes the package torch, which is not installed: pip install"
        " '.[benchmarks]'\n"
    )
