"""Every message of the command line: what is typed and what is said, as `messages.txt` has it.

`python -m tests.test_messages` writes that table anew, to be read before it is committed.
"""

import os
import shlex
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ports
from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.cli import main

TABLE = Path(__file__).with_name("messages.txt")
PROMPT = "$ sfvq-jax "


def files(folder):
    """What the commands of the table find."""
    random = np.random.default_rng(0)
    x = random.normal(size=(99, 4)).astype(np.float32)
    rows = {
        "x": x, "flat": np.zeros((99, 4), np.float32), "whole": np.zeros((99, 4), np.int64),
        "cube": np.zeros((9, 4, 4), np.float32), "few": x[:7], "weights": np.ones(98),
        "texts": np.repeat(["cat", "dog", "eel"], 33), "few-labels": np.arange(98) // 2,
        "nan": np.where(np.arange(99)[:, None] == 41, np.nan, x),
    }  # fmt: skip
    for name, array in rows.items():
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "w.npz", w=x)
    with h5py.File(folder / "two.h5", "w") as file:
        file["a"], file["b"] = x, x
    pq.write_table(pa.table({"id": range(99)}), folder / "ids.parquet")
    (folder / "cut.npy").write_bytes((folder / "x.npy").read_bytes()[:90])
    (folder / "text.npz").write_text("no curve")
    (folder / "text.pkl").write_text("no checkpoint")
    (folder / "there.npz").write_text("precious")
    for name in ("empty", "photos", "kept"):
        (folder / name).mkdir()
    (folder / "kept" / "diary.txt").write_text("precious")
    os.mkfifo(folder / "pipe.npz")
    save_curve(folder / "c.npz", CurveRecord(Curve(np.asarray(x[:8]))))
    model = ports.load(ports.bundled("fashion_mnist"))
    codewords = random.normal(size=(8, 64)).astype(np.float32)
    in_w = CurveRecord(Curve(codewords), "stylegan2-w", model.model_hash)
    save_curve(folder / "garments.npz", in_w)
    save_curve(folder / "other.npz", in_w._replace(model_hash="a" * 64))
    save_curve(folder / "z.npz", in_w._replace(space="stylegan2-z"))


def status_of(typed):
    try:
        return main(shlex.split(typed))
    except SystemExit as exit_:  # of argparse
        return exit_.code


def words(text, folder):
    """What is said, without the usage that argparse shows first."""
    lines = text.replace(str(folder), "FOLDER").splitlines()
    return [line for line in lines if line.startswith("sfvq-jax")]


def table():
    """{what is typed: what is said}"""
    blocks = TABLE.read_text(encoding="utf-8").split(PROMPT)[1:]
    return {typed: said for typed, *said in (block.strip().split("\n") for block in blocks)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("messages")
    files(folder)
    return folder


@pytest.mark.parametrize("typed", table())
def test_it_is_said(typed, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    assert status_of(typed) == 2
    assert words(capsys.readouterr().err, folder) == table()[typed]
    assert sorted(folder.rglob("*")) == before  # nothing is written


if __name__ == "__main__":
    import contextlib
    import io

    told = []
    with tempfile.TemporaryDirectory() as name:
        files(Path(name))
        os.chdir(name)
        for typed in table():
            with contextlib.redirect_stderr(io.StringIO()) as errors:
                status_of(typed)
            told.append("\n".join([PROMPT + typed, *words(errors.getvalue(), name), ""]))
    TABLE.write_text("\n".join(told), encoding="utf-8")
