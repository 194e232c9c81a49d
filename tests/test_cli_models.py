"""Models of users on the command line: an object in a file or a module."""

import argparse
import contextlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

from sfvq_jax import load_curve
from sfvq_jax.cli.common import kept_parts
from sfvq_jax.cli.main import main

DOCS = Path(__file__).resolve().parents[1] / "docs" / "how-to"
FEW = ("--bits", "3", "--samples", "1024", "--rounds", "2")


def code_blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the spots of docs/how-to/your_model.md in a file, and a curve of them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "spots.py").write_text(code_blocks("your_model.md")[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        assert run("fit", "spots.py:model", *FEW, "-o", "curve.npz") == 0
    return folder


def run(*arguments):
    return main([str(argument) for argument in arguments])


class TestOwnModel:
    @pytest.fixture(autouse=True)
    def _inside(self, folder, monkeypatch):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])

    def test_its_curve_says_which_model_it_is_of(self):
        record = load_curve("curve.npz")
        assert (record.space, record.model_hash) == ("spots-z", "spots 1")
        assert record.curve.codewords.shape == (8, 8)

    def test_its_map_edit_walk_and_samples_are_drawn(self, capsys):
        model_and_curve = ("spots.py:model", "curve.npz")
        assert run("map", *model_and_curve, "-o", "map.png") == 0
        edit = ("--line", 2, "--strength", "-1,1", "--seeds", "0,1")
        assert run("edit", *model_and_curve, *edit, "-o", "edit") == 0
        with Image.open("edit/images/seed-1/0_-1sd.png") as image:
            assert image.size == (32, 32)
        (direction,) = json.loads(Path("edit/edits.json").read_text())["directions"]
        assert direction["model_hash"] == "spots 1"
        assert run("walk", *model_and_curve, "--frames", 1, "-o", "walk.gif") == 0
        assert run("augment", *model_and_curve, "--line", 1, "--count", 3, "-o", "new.npz") == 0
        with np.load("new.npz") as arrays:
            assert arrays["images"].shape == (3, 32, 32, 1)
        assert "does not say which model" not in capsys.readouterr().err

    def test_a_module_is_found_in_the_current_folder_and_a_class_is_called(self, capsys):
        Path("boxes.py").write_text("import spots\n\nclass Zoo:\n    inner = spots.model\n")
        assert run("map", "boxes:Zoo.inner", "curve.npz", "-o", "again.png") == 0
        Path("made.py").write_text("import spots\n\ndef make():\n    return spots.model\n")
        assert run("map", "made.py:make", "curve.npz", "-o", "more.png") == 0

    @pytest.mark.parametrize(
        ("code", "name", "told"),
        [
            ("x = 1", "y", "bad.py has no y: MODEL is bad.py:NAME, of a name in it"),
            ("x = 1", "x", "is a int without latent_dim, num_layers, sample, render"),
            ("def x():\n    return 1 / 0", "x", "ends in ZeroDivisionError: division by zero"),
            ("def x(a):\n    pass", "x", "ends in TypeError: x() missing 1 required"),
            ("import missing_package", "x", "ends in ModuleNotFoundError: No module named"),
            ("x = (", "x", "ends in SyntaxError"),
        ],
    )
    def test_what_is_no_model_is_told(self, code, name, told, capsys):
        Path("bad.py").write_text(code)
        assert run("map", f"bad.py:{name}", "curve.npz", "-o", "none.png") == 2
        assert told in capsys.readouterr().err
        assert not Path("none.png").exists()

    def test_a_file_without_a_name_and_one_that_is_not_there_are_told(self, capsys):
        assert run("map", "spots.py", "curve.npz", "-o", "none.png") == 2
        assert "name the model that is in it, spots.py:NAME" in capsys.readouterr().err
        assert run("fit", "nowhere.py:model", "-o", "none.npz") == 2
        assert "nowhere.py: there is no such file" in capsys.readouterr().err

    def test_it_has_one_space(self, capsys):
        assert run("fit", "spots.py:model", "--space", "w", "-o", "none.npz") == 2
        assert "spots.py:model has one latent space" in capsys.readouterr().err

    def test_a_curve_of_another_model_is_refused(self, capsys):
        Path("other.py").write_text(
            "import spots\n\n\nclass Other(spots.Spots):\n    model_hash = 'spots 2'\n\n\n"
            "model = Other(spots.factors)\n"
        )
        assert run("map", "other.py:model", "curve.npz", "-o", "none.png") == 2
        assert "spots 1" in capsys.readouterr().err


FRAMEWORKS = {"linen": "flax", "nnx": "flax", "equinox": "equinox", "torch": "torch"}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_models_of_all_frameworks_are_fitted_and_mapped(framework, tmp_path, monkeypatch, capsys):
    pytest.importorskip(FRAMEWORKS[framework])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    block = code_blocks("frameworks.md")[list(FRAMEWORKS).index(framework)]
    Path(f"of_{framework}.py").write_text(block)
    model = f"of_{framework}.py:model"
    assert run("fit", model, *FEW, "-o", "c.npz") == 0
    assert run("map", model, "c.npz", "-o", "map.png") == 0
    warned = "the curve does not say which model it is of" in capsys.readouterr().err
    assert warned == (framework == "equinox")  # that of the page has no names
    if framework == "torch":
        assert run("directions", model, "c.npz", "-o", "d") == 2
        told = capsys.readouterr().err
        assert "directions are found by derivatives, so" in told
        assert "must be written in JAX" in told


def test_parts_are_kept_for_one_model_even_where_it_has_no_hash(tmp_path):
    class Model(nnx.Module):
        def __init__(self, seed):
            self.linear = nnx.Linear(2, 3, rngs=nnx.Rngs(seed))
            self.drop = nnx.Dropout(0.5, rngs=nnx.Rngs(0))  # holds a key

    options = argparse.Namespace(command="directions", output=tmp_path / "out")

    interrupted = contextlib.suppress(KeyboardInterrupt)
    with interrupted, kept_parts(options, Model(0), [], [], []) as parts:
        parts["first"] = 1
        raise KeyboardInterrupt
    other = kept_parts(options, Model(1), [], [], [])
    with pytest.raises(ValueError, match="the parts of a run with another model"), other:
        pass
    with kept_parts(options, Model(0), [], [], []) as parts:
        assert parts["first"] == 1
