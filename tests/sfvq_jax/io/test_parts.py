"""What is kept of an interrupted run comes back as it was, and only to the same run."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sfvq_jax.interpret import Direction
from sfvq_jax.io.parts import Parts


class Pair(NamedTuple):
    name: str
    array: np.ndarray


TYPES = (Pair, Direction)
VALUE = {
    "pair": Pair("a", np.arange(6, dtype=np.int16).reshape(2, 3)),
    (0, 3): [1.5, float("inf"), None, True, np.float64(0.1), np.int64(7)],
    "direction": Direction(jnp.array([0.6, 0.8]), (1, 2), 2.5),
    "tuple": ((None, -1.0), "x"),
}


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


def interrupted(output, about=None, **parts):
    """Leaves these behind."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        Parts.open(output, {"seed": 0} if about is None else about, TYPES) as done,
    ):
        for name, value in parts.items():
            done[name] = value
        raise KeyboardInterrupt


def test_a_part_comes_back_as_it_was(output):
    interrupted(output, first=VALUE)
    with Parts.open(output, {"seed": 0}, TYPES) as done:
        assert "first" in done
        assert "second" not in done
        assert len(done) == 1
        found = done["first"]
    assert list(found) == list(VALUE)
    assert found["pair"].name == "a"
    assert found["pair"].array.dtype == np.int16
    assert_array_equal(found["pair"].array, VALUE["pair"].array)
    assert found[0, 3] == VALUE[0, 3]
    assert found["tuple"] == VALUE["tuple"]
    assert isinstance(found["direction"].vector, jax.Array)
    assert found["direction"].layers == (1, 2)


def test_nothing_is_made_without_parts_and_nothing_left_at_the_end(output):
    with Parts.open(output, {"seed": 0}, TYPES) as done:
        assert not done.folder.exists()
        done["a"] = 1
        assert done.folder.exists()
        del done["a"]
        assert len(done) == 0
    assert list(output.parent.iterdir()) == []


def test_another_run_is_told_what_differs(output):
    interrupted(output, {"seed": 0, "latents": 8}, a=1)
    with (
        pytest.raises(
            ValueError, match=r"out\.part keeps the parts of a run with another latents:"
        ),
        Parts.open(output, {"seed": 0, "latents": 9}, TYPES),
    ):
        pass
    with Parts.open(output, {"seed": 0, "latents": 8}, TYPES) as done:
        assert done["a"] == 1


def test_a_folder_has_one_process_at_work(output):
    with Parts.open(output, {"seed": 0}, TYPES) as done:
        done["a"] = 1
        with (
            pytest.raises(ValueError, match="another process is at work"),
            Parts.open(output, {"seed": 0}, TYPES),
        ):
            pass
        assert done["a"] == 1


@pytest.mark.parametrize("size", [0, 10, 200])
def test_a_damaged_part_is_none(output, size):
    interrupted(output, a=VALUE)
    with Parts.open(output, {"seed": 0}, TYPES) as done:
        (file,) = done.folder.glob("*.npz")
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(KeyError):
            done["a"]
        done["a"] = 2
        assert done["a"] == 2


def test_a_part_that_has_other_fields_now_is_none(output):
    interrupted(output, a=Pair("a", np.zeros(2)))

    class Pair2(NamedTuple):
        name: str

    Pair2.__name__ = "Pair"
    with Parts.open(output, {"seed": 0}, [Pair2]) as done, pytest.raises(KeyError):
        done["a"]


def test_a_folder_that_is_not_ours_is_not_touched(output):
    folder = output.with_name("out.part")
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="of another kind"), Parts.open(output, {}, TYPES):
        pass
    assert (folder / "thesis.txt").read_text() == "mine"


def test_what_no_part_is_made_of_is_refused(output):
    with (
        pytest.raises(TypeError, match="holds a set"),
        Parts.open(output, {"seed": 0}, TYPES) as done,
    ):
        done["a"] = {1, 2}
