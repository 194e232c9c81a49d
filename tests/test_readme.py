"""README: its commands run as they stand, its Python too, and it stays short."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np

import ports
from sfvq_jax.cli import main
from sfvq_jax.interpret.directions import bench, finding

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKPOINT = ROOT / "tests/fixtures/stylegan2/tiny_ada_gray_cond.pkl"
LINES = re.search(r"```bash\n(sfvq-jax convert.*?)```", README, re.DOTALL)


def test_it_is_a_screen_and_a_half():
    assert len(README.encode()) <= 8_000


def test_its_commands_lead_from_a_checkpoint_to_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(finding, "SHORTLIST", 4)  # to be quick
    monkeypatch.setattr(bench, "STRENGTHS", (1.0, 2.0, 4.0, 8.0))
    shutil.copy(CHECKPOINT, "network-snapshot.pkl")
    assert LINES is not None
    lines = LINES[1].replace("--bits 6", "--bits 3").replace("--count 64", "--count 4")
    for line in lines.splitlines():
        command, *words = shlex.split(line, comments=True)
        assert command == "sfvq-jax"
        assert main(words) == 0, line
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"mine", "curve.npz", "map.png", "directions", "brighter", "samples"}
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_the_bundled_models_are_as_large_as_it_says():
    size = sum(path.stat().st_size for path in ports.BUNDLED.rglob("*") if path.is_file())
    assert f"({size / 2**20:.1f} MiB" in README


def test_its_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(compile(code.replace("bits=6", "bits=3"), "README.md", "exec"), names)
    assert np.isfinite(names["positions"]).all()
    assert names["positions"].shape == (8,)
