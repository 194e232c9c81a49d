"""A converted model is whole or absent, and what is read is what was saved, to the bit."""

import concurrent.futures
import json
import os
import threading
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from ports import checkpoint
from ports.errors import CheckpointError

CONFIG = {"z_dim": 3, "channels": [4, 8]}
SOURCE = {"format": "test", "file": "network.pkl"}


def variables(seed=0):
    rng = np.random.default_rng(seed)
    layers = {
        f"conv{i}": {
            "weight": rng.standard_normal((3, 3, 8, 16), np.float32),
            "noise_strength": np.float32(rng.standard_normal()),
        }
        for i in range(20)
    }
    special = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    return {"params": layers, "constants": {"w_avg": special, "steps": np.arange(3)}}


def save(path, seed=0, **options):
    checkpoint.save(path, "stylegan2", CONFIG, variables(seed), source=SOURCE, **options)


def assert_same(tree, expected):
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert type(x) is np.ndarray
        assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())


@pytest.fixture
def saved(tmp_path):
    save(tmp_path / "model")
    return tmp_path / "model"


def test_what_is_read_is_what_was_saved_to_the_bit(saved):
    config_json, tree = checkpoint.read(saved)
    assert_same(tree, variables())
    assert config_json["architecture"] == "stylegan2"
    assert config_json["config"] == CONFIG
    assert config_json["source"] == SOURCE
    assert set(config_json["versions"]) == {"sfvq_jax", "jax", "flax", "orbax"}
    assert config_json["parameters_sha256"] == checkpoint.parameters_sha256(variables())


def test_arrays_of_any_device_are_saved(tmp_path):
    tree = variables()
    sharding = jax.sharding.NamedSharding(jax.make_mesh((8,), ("x",)), jax.P(None, None, "x"))
    on_devices = jax.tree.map(lambda x: jax.device_put(x, jax.devices()[-1]), tree["params"])
    sharded = jax.device_put(tree["params"]["conv0"]["weight"], sharding)
    on_devices["conv0"]["weight"] = sharded
    checkpoint.save(tmp_path / "model", "stylegan2", {}, {**tree, "params": on_devices}, source={})
    assert_same(checkpoint.read(tmp_path / "model").variables, tree)


def test_collections_without_arrays_are_kept(tmp_path):
    tree = {"params": {"w": np.ones(2, np.float32)}, "constants": {}}
    checkpoint.save(tmp_path / "model", "stylegan2", {}, tree, source={})
    assert_same(checkpoint.read(tmp_path / "model").variables, tree)


def test_the_hash_knows_names_shapes_types_and_contents_but_not_order():
    def digest(**arrays):
        return checkpoint.parameters_sha256(arrays)

    a, b = np.arange(6, dtype=np.float32), np.ones(6, np.float32)
    different = {
        digest(a=a, b=b),
        digest(a=b, b=a),
        digest(a=a, c=b),
        digest(a=a.reshape(2, 3), b=b),
        digest(a=a.astype(np.float64), b=b),
        digest(a=np.nextafter(a, np.float32(9)), b=b),
        digest(a={"b": b}),
    }
    assert len(different) == 7
    assert digest(b=b, a=a) == digest(a=a, b=b) == digest(a=jax.numpy.asarray(a), b=b)
    fortran = np.asfortranarray(a.reshape(2, 3))
    assert digest(a=fortran) == digest(a=a.reshape(2, 3)) == digest(a=fortran.astype(">f4"))


def test_the_folder_says_nothing_of_the_machine_and_is_small(saved, tmp_path):
    files = [file for file in saved.rglob("*") if file.is_file()]
    assert all(str(tmp_path).encode() not in file.read_bytes() for file in files)
    raw = sum(x.nbytes for x in jax.tree.leaves(variables()))
    assert sum(file.stat().st_size for file in files) < 1.25 * raw
    assert len(files) < 50  # Orbax writes 10 to 25, whatever the number of arrays


def test_nothing_is_printed(tmp_path, capfd):
    save(tmp_path / "model")
    checkpoint.read(tmp_path / "model")
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_exists_is_kept_unless_told_otherwise(saved, tmp_path):
    with pytest.raises(CheckpointError, match="exists already"):
        save(saved, seed=1)
    assert_same(checkpoint.read(saved).variables, variables(0))
    save(saved, seed=1, overwrite=True)
    assert_same(checkpoint.read(saved).variables, variables(1))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_only_a_converted_model_is_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("It was")
    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter1"):
        with pytest.raises(CheckpointError, match="not overwritten"):
            save(path, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1").read_text() == "It was"


def test_a_parent_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="none does not exist"):
        save(tmp_path / "none" / "model")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("where", ["Checkpointer.save", "json.dumps", "os.replace"])
def test_a_save_that_fails_leaves_all_as_it_was(tmp_path, monkeypatch, where, overwrite):
    if overwrite:
        save(tmp_path / "model")

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    owner = {"Checkpointer": ocp.Checkpointer, "json": json, "os": os}
    with monkeypatch.context() as patch:
        name, attribute = where.split(".")
        if where == "os.replace":  # the last step, and none before it
            fail = fail_where(lambda old, new: Path(new) == tmp_path / "model", os.replace)
        patch.setattr(owner[name], attribute, fail)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "model", seed=1, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["model"] * overwrite
    if overwrite:
        assert_same(checkpoint.read(tmp_path / "model").variables, variables(0))


def fail_where(condition, function):
    """`function`, which is interrupted the first time that its arguments meet the condition."""
    failed = []

    def wrapped(*args):
        if condition(*args) and not failed:
            failed.append(True)
            raise KeyboardInterrupt
        return function(*args)

    return wrapped


def test_an_interrupt_waits_for_the_threads_that_write(tmp_path, monkeypatch):
    submit = concurrent.futures.ThreadPoolExecutor.submit

    def submit_and_fail(*args, **kwargs):
        future = submit(*args, **kwargs)
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        return future

    monkeypatch.setattr(concurrent.futures.ThreadPoolExecutor, "submit", submit_and_fail)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def write_sealed(file, config_json):
    """As somebody who wants it to be believed would change a config."""
    file.write_text(json.dumps(config_json | {"sha256": checkpoint._seal(config_json)}))


def files_of(folder):
    return sorted(file for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "one bit"])
def test_a_damaged_file_is_named(saved, damage):
    for file in files_of(saved / "parameters"):
        whole = file.read_bytes()
        middle = len(whole) // 2
        if damage == "missing":
            file.unlink()
        else:
            flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
            parts = {"empty": b"", "truncated": whole[:middle], "one bit": flipped}
            file.write_bytes(parts[damage])
        with pytest.raises(CheckpointError, match=f"{file.name} is (missing|damaged)"):
            checkpoint.read(saved)
        file.write_bytes(whole)
    checkpoint.read(saved)


def test_parameters_of_another_model_are_refused(saved, tmp_path):
    save(tmp_path / "other", seed=1)
    config_json = json.loads((tmp_path / "other" / "config.json").read_text())
    config_json["parameters_sha256"] = checkpoint.read(saved).config_json["parameters_sha256"]
    write_sealed(tmp_path / "other" / "config.json", config_json)
    with pytest.raises(CheckpointError, match="not those that config"):
        checkpoint.read(tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format_version": 3}, "update sfvq-jax"),
        ({"format_version": None}, "no format_version"),
        ({"architecture": "stylegan9"}, "'stylegan9'"),
        ({"architecture": 3}, "its architecture is missing or wrong"),
        ({"files": None}, "its files is missing or wrong"),
        ({"config": []}, "its config is missing or wrong"),
    ],
)
def test_a_wrong_entry_of_the_config_is_named(saved, change, sentence):
    file = saved / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=sentence):
        checkpoint.read(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff", "[" * 100_000])
def test_a_config_that_is_no_json_object_is_named(saved, text):
    (saved / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        checkpoint.read(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"z_dim": 4, "channels": [4, 8]}},
        {"source": {}},
        {"format_version": 1},
        {"sha256": None},
        {"more": 1},
    ],
)
def test_a_config_that_was_changed_is_refused(saved, change):
    file = saved / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(CheckpointError, match=r"config\.json is damaged, it is not as it was"):
        checkpoint.read(saved)


def test_a_model_of_the_first_format_has_no_hash_of_its_config(saved):
    file = saved / "config.json"
    content = json.loads(file.read_text()) | {"format_version": 1}
    del content["sha256"]
    file.write_text(json.dumps(content))
    assert_same(checkpoint.read(saved).variables, variables())


def test_arrays_far_larger_than_their_files_are_not_read(tmp_path):
    tree = {"params": {"zeros": np.zeros(2**23, np.float32)}}
    checkpoint.save(tmp_path / "model", "stylegan2", {}, tree, source={})
    with pytest.raises(CheckpointError, match="params/zeros would take 8,388,608 numbers"):
        checkpoint.read(tmp_path / "model")


def test_config_and_shapes_are_checked_before_the_parameters_are_read(saved):
    def refuse(config_json, shapes):
        assert config_json["config"] == CONFIG
        assert shapes["params"]["conv0"]["weight"].shape == (3, 3, 8, 16)
        raise CheckpointError("no")

    with pytest.raises(CheckpointError, match=f"{saved}: no"):
        checkpoint.read(saved, refuse)


def test_what_is_no_converted_model_is_called_by_its_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.read(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is a file"):
        checkpoint.read(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        checkpoint.read(tmp_path)


def test_an_unknown_architecture_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match="'stylegan9'"):
        checkpoint.save(tmp_path / "model", "stylegan9", {}, variables(), source={})
