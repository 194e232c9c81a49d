"""The command line end to end on the bundled generator, and what it says to bad input."""

import io
import json
import os
import pickle
import shutil

import jax
import numpy as np
import pytest
import tensorstore as ts
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from PIL import Image

import ports
from ports import checkpoint
from ports.biggan import BigGANConfig, BlockConfig, init
from sfvq_jax import Adam, Curve, CurveRecord, LeastSquares, encode, load_curve, save_curve
from sfvq_jax.cli import main
from sfvq_jax.io.store import store_spec

QUICK = ["--samples", "4096", "--rounds", "2"]


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    """A 3-bit curve in W of the bundled generator, fitted by the command line."""
    path = tmp_path_factory.mktemp("curve") / "curve.npz"
    assert main(["fit", "fashion_mnist", "--bits", "3", "-o", str(path), *QUICK]) == 0
    return path


def refused(capsys, folder, arguments):
    """The one sentence on standard error of a command that writes nothing and exits with 2."""
    before = sorted(folder.rglob("*"))
    assert main([str(argument) for argument in arguments]) == 2
    assert sorted(folder.rglob("*")) == before
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def image_size(path):
    with Image.open(path) as image:
        return image.size


def test_fit_writes_a_curve_with_its_provenance(curve):
    record = load_curve(curve)
    assert record.curve.codewords.shape == (8, 64)
    assert record.space == "stylegan2-w"
    assert record.model_hash == ports.load(ports.bundled("fashion_mnist")).model_hash
    assert record.settings["seed"] == 0
    assert record.settings["samples"] == 4096
    assert record.settings["solver"] == "least_squares"
    assert record.settings["length_penalty"] == LeastSquares().length_penalty
    assert sorted(set(record.history.codewords.tolist())) == [4, 8]


def test_the_published_solver_and_its_schedule_can_be_chosen(tmp_path):
    path = tmp_path / "curve.npz"
    schedule = ["--solver", "adam", "--samples", "512", "--epochs", "1", "--batch-size", "32"]
    assert main(["fit", "fashion_mnist", "--bits", "2", "-o", str(path), *schedule]) == 0
    settings = load_curve(path).settings
    assert settings["solver"] == "adam"
    assert (settings["samples"], settings["epochs"], settings["batch_size"]) == (512, 1, 32)
    assert settings["learning_rate"] == Adam().learning_rate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learning-rate", "0.1"], "--learning-rate is no option of --solver least_squares"),
        (["--solver", "adam", "--rounds", "3"], "--rounds is no option of --solver adam"),
        (["--length-penalty", "-1"], "length_penalty"),
        (["--solver", "adam", "--samples", "all"], "samples"),
        (["--samples", "all"], 'samples is "all", but a sampler has no end'),
    ],
)
def test_options_that_make_no_solver_are_named(options, message, tmp_path, capsys):
    arguments = ["fit", "fashion_mnist", "-o", tmp_path / "c.npz", *options]
    assert message in refused(capsys, tmp_path, arguments)


def test_a_log_of_the_fit_has_a_line_a_round(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(300, 2)))
    log, path = tmp_path / "log.jsonl", tmp_path / "c.npz"
    arguments = ["fit", tmp_path / "x.npy", "--bits", "2", "--log-json", log, "-o", path]
    assert main([str(argument) for argument in arguments]) == 0
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    distortions = load_curve(path).history.distortion
    logged = [row["distortion"] for row in rows]
    assert all(np.isclose(logged, kept, rtol=1e-6).any() for kept in distortions)


def test_the_same_seed_gives_the_same_curve(curve, tmp_path):
    again, other = tmp_path / "again.npz", tmp_path / "other.npz"
    main(["fit", "fashion_mnist", "--bits", "3", "-o", str(again), *QUICK])
    main(["fit", "fashion_mnist", "--bits", "3", "-o", str(other), "--seed", "1", *QUICK])
    codewords = load_curve(curve).curve.codewords
    np.testing.assert_array_equal(load_curve(again).curve.codewords, codewords)
    assert np.abs(load_curve(other).curve.codewords - codewords).max() > 1e-3


def test_fit_takes_an_array(tmp_path):
    latents = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", latents)
    output = tmp_path / "curve.npz"
    assert main(["fit", str(tmp_path / "x.npy"), "--bits", "2", "-o", str(output), *QUICK]) == 0
    record = load_curve(output)
    assert record.curve.codewords.shape == (4, 5)
    assert record.space == record.model_hash == ""


def test_fit_says_what_a_user_should_know(tmp_path, capsys):
    latents = array_file(tmp_path, np.random.default_rng(0).normal(size=(500, 5)))
    out = str(tmp_path / "curve.npz")
    assert main(["fit", str(latents), "--bits", "2", "--rounds", "1", "-o", out]) == 0
    told = capsys.readouterr()
    assert "the stage of 4 codewords still gained after 1 rounds" in told.err
    assert "on all 500 latents, which were fitted" in told.out


def test_fit_goes_on_from_a_curve_and_takes_weights(curve, tmp_path, capsys):
    out = tmp_path / "finer.npz"
    more = ["--start", str(curve), "--bits", "4", *QUICK]
    assert main(["fit", "fashion_mnist", "-o", str(out), *more]) == 0
    assert sorted(set(load_curve(out).history.codewords.tolist())) == [8, 16]
    capsys.readouterr()
    wrong = ["fit", "fashion_mnist", "--space", "z", "-o", tmp_path / "z.npz", *more]
    assert "stylegan2-w" in refused(capsys, tmp_path, wrong)

    latents = array_file(tmp_path, np.random.default_rng(0).normal(size=(300, 3)))
    np.save(tmp_path / "w.npy", np.ones(300))
    command = ["fit", str(latents), "--bits", "2", "--weights", str(tmp_path / "w.npy")]
    assert main([*command, "-o", str(tmp_path / "weighted.npz")]) == 0
    capsys.readouterr()
    np.save(tmp_path / "w.npy", np.ones(299))
    assert "expected (300,)" in refused(capsys, tmp_path, [*command, "-o", tmp_path / "c.npz"])
    command[1] = "fashion_mnist"
    assert "goes with latents" in refused(capsys, tmp_path, [*command, "-o", tmp_path / "c.npz"])


def test_project_writes_where_every_latent_lies(tmp_path, capsys, s3):
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    curve = Curve(jax.numpy.asarray(x[:8]))
    latents, path = array_file(tmp_path, x), tmp_path / "c.npz"
    save_curve(path, CurveRecord(curve))
    command = ["project", str(latents), str(path), "-o", str(tmp_path / "p.npy")]
    assert main(command) == 0
    assert "positions and squared distances of 300 latents" in capsys.readouterr().out
    position, squared_distance = np.load(tmp_path / "p.npy").T
    np.testing.assert_allclose(position, encode(curve, x), atol=1e-5)
    assert (squared_distance[:8] < 1e-6).all()
    assert "exists already: choose another name or pass --overwrite" in refused(
        capsys, tmp_path, command
    )
    save_curve(f"{s3}/cli/c.npz", CurveRecord(curve))
    at_uris = ["project", str(latents), f"{s3}/cli/c.npz", "-o", f"{s3}/cli/p.zarr"]
    assert main(at_uris) == 0
    assert "p.zarr: positions and squared distances of 300" in capsys.readouterr().out
    stored = ts.open({"driver": "zarr3", "kvstore": store_spec(f"{s3}/cli/p.zarr/")}).result()
    np.testing.assert_array_equal(stored.read().result(), np.load(tmp_path / "p.npy"))
    assert "p.zarr exists already: choose another name or" in refused(capsys, tmp_path, at_uris)
    command[1:] = ["fashion_mnist", *command[2:-1], str(tmp_path / "q.npy")]
    assert "is no file of latents" in refused(capsys, tmp_path, command)
    narrow = Curve(curve.codewords[:, :2])
    save_curve(path, CurveRecord(narrow), overwrite=True)
    command[1] = str(latents)
    assert "width 3, but the codewords of the curve 2" in refused(capsys, tmp_path, command)


class TestCompilationCache:
    """Compiled programs are kept in the user's cache folder, unless an option says not to."""

    def fit(self, tmp_path, *options):
        jax.clear_caches()
        latents = array_file(tmp_path, np.random.default_rng(0).normal(size=(50, 2)))
        out = ["-o", str(tmp_path / "c.npz"), "--overwrite"]
        assert main(["fit", str(latents), "--bits", "2", "--rounds", "1", *out, *options]) == 0
        return load_curve(tmp_path / "c.npz").curve.codewords

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("sfvq_jax.cli.compilation.LEAST_SECONDS", 0.0)
        reset_cache()  # JAX looks for its folder once
        yield tmp_path / "sfvq-jax"
        reset_cache()

    def test_is_used_and_damage_is_ignored(self, tmp_path, cache, capsys):
        first = self.fit(tmp_path)
        entries = [path for path in cache.rglob("*-cache") if path.is_file()]
        assert entries
        for path in entries:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        capsys.readouterr()
        np.testing.assert_array_equal(self.fit(tmp_path), first)
        assert "cache" not in capsys.readouterr().err

    def test_is_left_alone_where_an_option_says_so(self, tmp_path, cache):
        self.fit(tmp_path, "--no-compilation-cache")
        assert not cache.exists()


def test_map_and_edit_draw_figures(curve, tmp_path):
    output = tmp_path / "map.png"
    others = [tmp_path / "distances.png", tmp_path / "history.png"]
    arguments = ["--distances", str(others[0]), "--history", str(others[1])]
    assert main(["map", "fashion_mnist", str(curve), "-o", str(output), *arguments]) == 0
    assert all(image_size(path)[0] > 500 for path in (output, *others))
    output = tmp_path / "edit.png"
    arguments = ["--line", "5", "--layers", "0-2", "--strength", "-3:3:1.5", "--seeds", "0-3"]
    assert main(["edit", "fashion_mnist", str(curve), *arguments, "-o", str(output)]) == 0
    assert image_size(output)[0] > 300


@pytest.mark.parametrize("space", ["w", "z"])
def test_demo_leaves_a_folder_with_everything(space, tmp_path, capsys):
    output = tmp_path / "demo"
    assert main(["demo", "-o", str(output), "--space", space, "--bits", "3", *QUICK]) == 0
    names = {path.name for path in output.iterdir()}
    figures = {"map.png", "distances.png", "history.png", "edit.png"}
    assert names == {"curve.npz", "map.html", "samples"} | figures
    told = capsys.readouterr().out
    assert "neighbours of the same class" in told
    assert "map.html: open it in a browser" in told
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_convert_reads_nvidias_pickles(fixture_file, tmp_path, capsys):
    source = fixture_file("stylegan2/tiny_ada_gray_cond.pkl")
    reference = ["--verify", str(fixture_file("stylegan2/tiny_ada_gray_cond.npz"))]
    assert main(["convert", str(source), str(tmp_path / "tiny"), *reference]) == 0
    told = capsys.readouterr().out
    assert "StyleGAN2 (skip) from stylegan2-ada-pytorch, 32x32x1, 10 classes" in told
    assert "img_psi0.7_const: differs by at most" in told
    assert json.loads((tmp_path / "tiny/config.json").read_text())["source"]["file"] == source.name
    output = tmp_path / "curve.npz"
    assert main(["fit", str(tmp_path / "tiny"), "--bits", "2", "-o", str(output), *QUICK]) == 0
    capsys.readouterr()
    assert "exists already" in refused(capsys, tmp_path, ["convert", source, tmp_path / "tiny"])
    truncated = tmp_path / "truncated.pkl"
    truncated.write_bytes(source.read_bytes()[:100_000])
    assert "truncated.pkl" in refused(capsys, tmp_path, ["convert", truncated, tmp_path / "new"])


def test_inspect_tells_what_a_file_is_and_writes_nothing(
    fixture_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", str(fixture_file("stylegan2/tiny_ada_gray_cond.pkl"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line[:23].strip(): line[23:].strip() for line in lines}
    assert told["format"] == "stylegan2-ada-pytorch"
    assert told["parameters"] == "177,891"
    assert told["classes"] == "10"
    assert told["layer 0"] == "4x4  b4.conv1"
    assert list(tmp_path.iterdir()) == []
    assert "does not exist" in refused(capsys, tmp_path, ["inspect", "none.pkl"])


@pytest.fixture(scope="module")
def biggan(tmp_path_factory):
    """The folder of a small BigGAN with random weights, whose linear layer sees the class."""
    blocks = (BlockConfig(16, 16, True), BlockConfig(16, 8, True))
    config = BigGANConfig(8, 10, 4, blocks, False, "full", img_channels=1)
    folder = tmp_path_factory.mktemp("biggan") / "model"
    model = init(jax.random.key(0), config)
    checkpoint.save(folder, "biggan", config.to_json(), model.variables, source={})
    return folder


@pytest.mark.parametrize(
    ("options", "space", "width"),
    [
        ([], "biggan-linear", 256),
        (["--label", "3", "--truncation", "0.5"], "biggan-z, class 3, truncation 0.5", 8),
    ],
)
def test_each_space_of_a_biggan_is_mapped_edited_and_sampled(
    biggan, options, space, width, tmp_path
):
    curve = tmp_path / "curve.npz"
    arguments = ["fit", str(biggan), "--bits", "2", "-o", str(curve), *options, *QUICK]
    assert main(arguments) == 0
    record = load_curve(curve)
    assert record.space == space
    assert record.curve.codewords.shape == (4, width)
    # the curve itself says which space these are to be drawn in
    assert main(["map", str(biggan), str(curve), "-o", str(tmp_path / "map.png")]) == 0
    edit = ["--line", "2", "--layers", "0-1", "--strength", "-1:1:1", "--seeds", "0-1"]
    assert main(["edit", str(biggan), str(curve), *edit, "-o", str(tmp_path / "edit.png")]) == 0
    augment = ["--line", "2", "--count", "3", "-o", str(tmp_path / "samples")]
    assert main(["augment", str(biggan), str(curve), *augment]) == 0
    assert image_size(tmp_path / "samples/images/0.png") == (16, 16)


def test_spaces_that_a_model_has_not_are_told(biggan, curve, tmp_path, capsys):
    def told(command, *arguments):
        output = tmp_path / ("o.png" if command == "map" else "o.npz")
        return refused(capsys, tmp_path, [command, *arguments, "-o", output])

    assert "generator is unconditional" in told("fit", "fashion_mnist", "--label", "3")
    assert "space is 'linear'; a StyleGAN2 has" in told("fit", "fashion_mnist", "--space", "linear")
    latents = array_file(tmp_path, np.eye(9, dtype=np.float32))
    assert "x.npy has one latent space" in told("fit", latents, "--space", "z")
    assert "class 10 is outside 0-9" in told("fit", biggan, "--label", "10")
    assert "holds no classes: choose one with label" in told("fit", biggan, "--space", "z")
    assert "space is 'w'; a BigGAN has" in told("fit", biggan, "--space", "w")
    assert "stylegan2-w is no space of a BigGAN" in told("map", biggan, curve)


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def test_convert_refuses_what_is_no_generator(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        "empty.pkl": b"",
        "text.pkl": b"not a checkpoint",
        "hostile.pkl": pickle.dumps({"G_ema": Hostile()}),
        "number.pkl": pickle.dumps(3),
    }
    messages = {}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        messages[name] = refused(capsys, tmp_path, ["convert", tmp_path / name, tmp_path / "new"])
    assert "empty" in messages["empty.pkl"]
    assert "system" in messages["hostile.pkl"]
    assert "does not exist" in refused(capsys, tmp_path, ["convert", "none.pkl", tmp_path / "new"])


def array_file(folder, array):
    path = folder / "x.npy"
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.full((100, 4), np.nan, np.float32),
            "NaN or infinity in 100 of 100 rows, the first in row 0",
        ),
        (np.append(np.zeros((99, 1)), [[np.inf]], 0), "in 1 of 100 rows, the first in row 99"),
        (np.zeros((100, 4, 4), np.float32), r"has shape (100, 4, 4); expected [N, D]"),
        (np.zeros(100, np.float32), "expected [N, D]"),
        (np.zeros((100, 4), np.int64), "floating point"),
        (np.zeros((100, 4), np.float32), "all latents are the same point"),
        (np.random.default_rng(0).normal(size=(7, 4)), "7 latents are fewer than the 8 codewords"),
        (np.zeros((0, 4), np.float32), "0 latents"),
    ],
)
def test_fit_refuses_bad_arrays(array, message, tmp_path, capsys):
    arguments = ["fit", array_file(tmp_path, array), "--bits", "3", "-o", tmp_path / "c.npz"]
    assert message in refused(capsys, tmp_path, arguments)


def test_fit_refuses_bad_settings_and_files(tmp_path, capsys):
    good = array_file(tmp_path, np.random.default_rng(0).normal(size=(99, 4)))
    out = ["-o", tmp_path / "c.npz"]
    assert "bits must be >= 2" in refused(capsys, tmp_path, ["fit", good, "--bits", "1", *out])
    assert "no.npy" in refused(capsys, tmp_path, ["fit", tmp_path / "no.npy", *out])
    assert "does not exist" in refused(capsys, tmp_path, ["fit", tmp_path / "no-folder", *out])
    (tmp_path / "bad.npy").write_bytes(good.read_bytes()[:90])
    assert "damaged" in refused(capsys, tmp_path, ["fit", tmp_path / "bad.npy", *out])
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object))
    assert "objects.npy" in refused(capsys, tmp_path, ["fit", tmp_path / "objects.npy", *out])
    missing = tmp_path / "none" / "c.npz"
    assert "does not exist" in refused(capsys, tmp_path, ["fit", good, "-o", missing])
    (tmp_path / "c.npz").write_bytes(b"precious")
    assert "exists already" in refused(capsys, tmp_path, ["fit", good, *out])
    assert (tmp_path / "c.npz").read_bytes() == b"precious"


def test_fit_tells_a_disk_without_room_before_it_begins(tmp_path, capsys, monkeypatch):
    x = array_file(tmp_path, np.random.default_rng(0).normal(size=(99, 400)))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=30_000))
    options = ["fit", x, "--bits", "4", "-o", tmp_path / "c.npz"]
    assert "states takes 76,800 bytes, and its disk has 30,000 left" in refused(
        capsys, tmp_path, [*options, "--checkpoint", tmp_path / "states"]
    )
    options[3] = "5"
    assert "c.npz takes 51,200 bytes" in refused(capsys, tmp_path, options)


def test_a_curve_of_another_space_or_model_is_named(curve, tmp_path, capsys):
    record = load_curve(curve)

    def message(record, command="map"):
        path = tmp_path / "other.npz"
        save_curve(path, record, overwrite=True)
        return refused(capsys, tmp_path, [command, "fashion_mnist", path, "-o", tmp_path / "o.png"])

    error = message(record._replace(space="biggan-z"))
    assert "biggan-z" in error
    assert "stylegan2-w" in error
    assert "aaaa" in message(record._replace(model_hash="a" * 64))
    narrow = Curve(record.curve.codewords[:, :32])
    assert "32 dimensions" in message(CurveRecord(narrow))


def test_edit_and_augment_refuse_what_the_curve_or_model_has_not(curve, tmp_path, capsys):
    edit = ["edit", "fashion_mnist", curve, "-o", tmp_path / "e.png"]
    assert "line 7 is outside 0-6" in refused(capsys, tmp_path, [*edit, "--line", "7"])
    wide = [*edit, "--line", "3", "--layers", "0-8"]
    assert "layers 0-8 are outside 0-7" in refused(capsys, tmp_path, wide)
    augment = ["augment", "fashion_mnist", curve, "-o", tmp_path / "s", "--line", "3"]
    assert "count is 0" in refused(capsys, tmp_path, [*augment, "--count", "0"])
    classifier = ["map", "fashion_mnist_classifier", curve, "-o", tmp_path / "m.png"]
    assert "no generator" in refused(capsys, tmp_path, classifier)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--layers", "2-0"],
        ["--layers", "0,2"],
        ["--strength", "10:-10:5"],
        ["--strength", "-10:10:0"],
        ["--strength", "-1:1:1e-9"],
        ["--strength", "nan"],
        ["--seeds", "a-b"],
    ],
)
def test_ranges_that_make_no_sense_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["edit", "m", "c", "--line", "0", "-o", "o.png", *arguments])
    assert exit_.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_pickled_curves_are_never_unpickled(tmp_path, capsys):
    np.savez(tmp_path / "c.npz", codewords=np.array([Hostile()], dtype=object))
    error = refused(capsys, tmp_path, ["map", "fashion_mnist", tmp_path / "c.npz", "-o",
                                       tmp_path / "m.png"])  # fmt: skip
    assert "c.npz" in error
    buffer = io.BytesIO()
    np.save(buffer, np.ones((4, 64), np.float32))
    (tmp_path / "c.npy").write_bytes(buffer.getvalue())
    assert (
        main(["map", "fashion_mnist", str(tmp_path / "c.npy"), "-o", str(tmp_path / "m.png")]) == 0
    )
