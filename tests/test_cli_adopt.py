"""`adopt`: files of GANSpace, SeFa, LatentCLR and InterFaceGAN become files that `edit` takes."""

import json
import pickle

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import ports
from sfvq_jax.cli import main
from sfvq_jax.interpret import load_direction

from .test_cli import refused

MODEL = ports.load(ports.bundled("fashion_mnist"))
ROWS = np.random.default_rng(0).normal(size=(12, 64)).astype(np.float32)
EDIT = {
    "name": "Red hair", "lat_comp": ROWS[3:4], "act_comp": ROWS[:1], "lat_stdev": 1.0,
    "latent_space": "W", "edit_type": "latent", "edit_start": 0, "edit_end": 3,
    "decomposition": {"layer": "style"}, "truncation": 0.7,
}  # fmt: skip


def adopt(*arguments):
    return main(["adopt", "fashion_mnist", *map(str, arguments)])


def test_files_of_all_kinds_become_files_that_edit_takes(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    np.save(tmp_path / "age_w_boundary.npy", ROWS[:1])
    arrays = {"lat_comp": ROWS[:, None], "act_comp": ROWS, "lat_stdev": np.ones(12)}
    np.savez_compressed(tmp_path / "ipca_w.npz", **arrays)
    (tmp_path / "edit.pkl").write_bytes(pickle.dumps(EDIT))
    torch.save({"model": {"params": torch.tensor(ROWS[:2])}}, tmp_path / "clr.pt")
    files = [tmp_path / name for name in ("age_w_boundary.npy", "ipca_w.npz", "edit.pkl", "clr.pt")]
    out = tmp_path / "theirs"
    assert adopt(*files, "--count", 5, "-o", out) == 0
    told, errors = capsys.readouterr()
    assert errors == ""
    assert "ipca_w.npz: 7 more are left out (--count 5)" in told
    assert f"{out}: 9 directions in stylegan2-w" in told
    assert "06-red-hair.json" in told
    index = json.loads((out / "directions.json").read_text())
    records = [load_direction(out / row["file"]) for row in index]
    expected = ROWS[[0, 0, 1, 2, 3, 4, 3, 0, 1]]
    found = np.stack([record.direction.vector for record in records])
    assert_allclose(found, expected / np.linalg.norm(expected, axis=1)[:, None], atol=1e-6)
    w = np.asarray(MODEL.sample(jax.random.key(1), 4096))
    units = [record.direction.unit for record in records]
    assert_allclose(units, (w @ found.T).std(0), rtol=0.06)
    assert records[6].direction.layers == (0, 2)
    assert records[6].source == {"file": "edit.pkl", "method": "GANSpace", "row": 0, "of": 1}
    assert records[0].model_hash == MODEL.model_hash

    options = ["--direction", str(out), "--attribute", "Red hair", "--strength", "2"]
    edited = tmp_path / "edited"
    assert main(["edit", "fashion_mnist", *options, "--seeds", "0", "-o", str(edited)]) == 0
    assert capsys.readouterr().err == ""  # the unit is in standard deviations
    unedited, moved = np.load(edited / "latents.npy")
    assert_allclose((moved - unedited)[:3] @ found[6], np.full(3, 2 * units[6]), rtol=1e-3)
    assert_allclose(moved[3:], unedited[3:])


def test_a_name_of_another_space_is_told_and_taken(tmp_path, capsys):
    np.save(tmp_path / "age_w_boundary.npy", ROWS[:1])
    file, out = tmp_path / "age_w_boundary.npy", tmp_path / "z"
    assert adopt(file, "--space", "z", "--layers", "0-7", "-o", out) == 0
    assert (
        "says w, and its directions are taken for those of stylegan2-z" in capsys.readouterr().err
    )
    record = load_direction(out / "00-age-w-boundary.json")
    assert record.space == "stylegan2-z"
    assert_allclose(record.direction.unit, 1, rtol=0.05)


class Evil:
    def __reduce__(self):
        return (print, ("this was run",))


def test_what_cannot_be_taken_ends_in_a_sentence_and_writes_nothing(tmp_path, capsys):
    def told(name, *options):
        command = ["adopt", "fashion_mnist", tmp_path / name, *options, "-o", tmp_path / "new"]
        return refused(capsys, tmp_path, command)

    np.savez(tmp_path / "other.npz", w=ROWS)
    np.save(tmp_path / "narrow.npy", ROWS[:, :9])
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"lat_comp": Evil()}))
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(EDIT | {"latent_space": "Z"}))
    assert "it holds w, and not GANSpace's lat_comp" in told("other.npz")
    assert "narrow.npy: its vectors have 9 numbers, and latents of stylegan2-w 64" in told(
        "narrow.npy"
    )
    assert "Python objects" in told("objects.npy")
    assert "this was run" not in told("evil.pkl")
    assert "choose the model's space z" in told("z.pkl")
    assert "there is no file of directions" in told("none.npy")
