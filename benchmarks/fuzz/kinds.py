"""What is damaged: small files of every kind that a command reads, how they are read and used."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import ports
from benchmarks.fuzz.mutations import mend_png
from ports import checkpoint, upstream
from ports.architectures import ARCHITECTURES
from ports.biggan.config import BigGANConfig, BlockConfig
from ports.biggan.model import init as init_biggan
from ports.classifier import Classifier
from ports.stylegan2.config import StyleGAN2Config
from ports.stylegan2.model import init as init_stylegan2
from ports.verify import read_reference
from sfvq_jax.cli.scorer import read_labelled
from sfvq_jax.curve import Curve
from sfvq_jax.fit import fit
from sfvq_jax.history import history_of
from sfvq_jax.interpret.attributes.file import load_scorers, save_scorers
from sfvq_jax.interpret.attributes.fitting import fit_scorer
from sfvq_jax.interpret.attributes.network import FittedFunction, ScorerNetwork
from sfvq_jax.interpret.attributes.scorer import Scorer
from sfvq_jax.interpret.directions.file import DirectionRecord, load_direction, save_direction
from sfvq_jax.interpret.edit.apply import Direction, edit_latents
from sfvq_jax.io.curve_file import CurveRecord, load_curve, save_curve
from sfvq_jax.io.image_files import read_image
from sfvq_jax.io.label_file import (
    Label,
    Labels,
    agreeing_lines,
    load_labels,
    save_labels,
)
from sfvq_jax.io.latents_file import LatentsRecord, load_latents, save_latents
from sfvq_jax.least_squares import LeastSquares
from sfvq_jax.sources import as_source
from sfvq_jax.views.charts import history_figure

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
OF_CURVE = "5f" * 32  # the hash of the curve that is labelled
UPSTREAM = (".pkl", ".pt", ".pth", ".bin", ".safetensors")
SMALL, LARGE = 2**26, 2**31  # bytes; Orbax's threads and compiled programs take more than a file


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
      read: a file or folder -> what it holds; an error of it is a sentence with the file's name.
      use: of what was read, what a command makes of it; an error is a sentence. An array that it
        returns must be the same for a mutant that is read although it was not mended.
      mend: of (damaged file, what is read): makes hashes and checksums beside or in the file right
        again, as who wants to be believed would.
      memory: bytes that reading may take beyond forty times the file.
      strict: nothing is imported, compiled or made while it is read.
      share: of the cases, relative to the others.
    """

    read: Callable[[Path], Any]
    use: Callable[[Any], Any] = lambda found: None
    mend: Callable[[Path, Path], None] | None = None
    memory: int = SMALL
    strict: bool = False
    share: float = 1.0


class Subject(NamedTuple):
    """A file, or a folder, that is damaged.

    Attributes:
      kind: a key of `KINDS`.
      base: a folder.
      files: all that reading needs, relative to it.
      target: what is read, relative to it.
      damaged: one of these is, in each case.
    """

    kind: str
    base: Path
    files: tuple[str, ...]
    target: str
    damaged: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.base.name}/{self.target}"


def find_checkpoints(folder: Path) -> list[Subject]:
    """Upstream's under a folder, each with the `config.json` beside it."""
    subjects = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in UPSTREAM):
        beside = ("config.json",) * (path.parent / "config.json").is_file()
        damaged = (path.name,) * 5 + beside
        subjects.append(
            Subject("checkpoint", path.parent, (path.name, *beside), path.name, damaged)
        )
    return subjects


def make_subjects(folder: Path, kinds: Collection[str] | None = None) -> list[Subject]:
    """Writes small files of all other kinds, or of these, the same each time."""
    subjects = []
    for name, make in _MAKERS.items():
        if kinds is None or not set(name.split()).isdisjoint(kinds):
            base = folder / name.split()[0]
            base.mkdir(parents=True)
            subjects += make(base)
    return subjects


def _alone(kind: str, base: Path) -> list[Subject]:
    names = sorted(path.name for path in base.iterdir())
    return [Subject(kind, base, (name,), name, (name,)) for name in names]


def _files(folder: Path) -> tuple[str, ...]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return tuple(sorted(found))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- curves and their labels, scorers, directions ---------------------------------------------


def _curves(base: Path) -> list[Subject]:
    settings = {"bits": 3, "seed": 0, "solver": "least-squares", "penalty": 0.5}
    use = np.full(7, 1 / 7)
    columns = {"codewords": 8, "loss": 0.5, "objective": 0.4, "distortion": 0.3, "perplexity": 6.5}
    history = history_of([{**columns, "samples": 300.0, "use": use}] * 3)
    record = CurveRecord(Curve(jnp.asarray(X[:8])), "stylegan2-w", "0123abcd", settings, history)
    save_curve(base / "curve.npz", record)
    with np.load(base / "curve.npz", allow_pickle=False) as arrays:
        np.savez_compressed(base / "packed.npz", allow_pickle=False, **arrays)
    np.save(base / "codewords.npy", X[:8])
    return _alone("curve", base)


def _use_curve(record: CurveRecord) -> None:
    repr(record)
    if record.history is not None:
        history_figure(record.history)


def _label_files(base: Path) -> list[Subject]:
    labels = (Label(0, 0, "boot"), Label(1, 3.5, "boot"), Label(5.2, 6, "blurred <b>", True))
    save_labels(base / "curve.labels.json", Labels(labels, OF_CURVE))
    return _alone("label-file", base)


def _read_label_file(path: Path) -> Labels:
    return load_labels(path, curve_sha256=OF_CURVE, num_lines=7)


def _use_label_file(found: Labels) -> None:
    lines = agreeing_lines(found.labels, 7)
    assert all(0 <= j < 7 for of_label in lines.values() for j in of_label)


def _latent_files(base: Path) -> list[Subject]:
    record = LatentsRecord(X[:6], tuple(f"{i}.png" for i in range(6)), "stylegan2-w", "0123abcd")
    save_latents(base / "photos.npz", record)
    save_latents(base / "codes.npz", record._replace(latents=X[:12].reshape(6, 2, 4)))
    return _alone("latent-file", base)


def _use_latent_file(found: LatentsRecord) -> None:
    assert len(found.names) == len(found.latents)
    repr(found)


def _scorers(base: Path) -> list[Subject]:
    params: Any = ScorerNetwork(32, 2).init(KEY, jnp.zeros((1, 32, 32, 1)))["params"]
    function = FittedFunction(params, jnp.zeros(2), jnp.ones(2), "classes", 32, 1)
    scorer = Scorer.of(function, ["left", "right"])
    save_scorers(base / "scorers.npz", scorer, scorer, about={"seed": 0, "find": {"overall": 1.0}})
    return _alone("scorer", base)


def _use_scorers(scorers: Any) -> None:
    for scorer in (scorers.find, scorers.judge):
        np.asarray(scorer(jnp.zeros((1, 8, 8, scorer.function.channels))))
    repr((scorers.kind, scorers.classes, scorers.about))


def _directions(base: Path) -> list[Subject]:
    direction = Direction(jnp.asarray([0.6, 0.8, 0, 0]), (1, 2), 2.5)
    record = DirectionRecord(
        direction, "smile", "stylegan2-w", "0123", {"codewords": [0, 3]}, {"limits": [None, 3.0]}
    )
    save_direction(base / "direction.json", record)
    return _alone("direction", base)


def _use_direction(record: DirectionRecord) -> None:
    layers = record.direction.layers[1] + 1
    latents = jnp.zeros((1, record.latent_dim))
    assert np.isfinite(edit_latents(latents, record.direction, jnp.ones(1), layers)).all()
    repr(record)


# --- converted models, and outputs to compare them with ---------------------------------------


def _converted(base: Path) -> list[Subject]:
    stylegan2 = init_stylegan2(KEY, StyleGAN2Config(4, 0, 6, 8, 1, 2, 0, 6, (8, 8)))
    blocks = (BlockConfig(8, 8, True), BlockConfig(8, 8, False))
    biggan = init_biggan(KEY, BigGANConfig(6, 5, 3, blocks, False, "full", num_stats=2))
    judge = Classifier({}, ("a", "b"), (4,), 8)
    params: Any = judge.network.init(KEY, jnp.zeros((1, 8, 8, 1)))
    for name, config, variables in (
        ("stylegan2", stylegan2.config.to_json(), stylegan2.variables),
        ("biggan", biggan.config.to_json(), biggan.variables),
        ("classifier", judge.config(), dict(params)),
    ):
        checkpoint.save(base / name, name, config, variables, source={"format": "random"})
    subjects = []
    for name in ARCHITECTURES:
        files = _files(base / name)
        damaged = ("config.json",) * (3 * len(files)) + files
        subjects.append(Subject("model", base / name, files, ".", damaged))
    reference = base / "reference"
    reference.mkdir()
    z = jax.random.normal(KEY, (2, 4))
    images = np.transpose(stylegan2.synthesis(stylegan2.mapping(z)), (0, 3, 1, 2))
    arrays = {"z": z, "ws": stylegan2.mapping(z), "img_const": images}
    np.savez(reference / "outputs.npz", allow_pickle=False, **arrays)
    return subjects + _alone("reference", reference)


def _use_model(model: Any) -> np.ndarray:
    """A picture, or what a classifier says of one."""
    if isinstance(model, Classifier):
        side = 2 ** len(model.channels)
        return np.asarray(model(jnp.zeros((1, max(side, 8), max(side, 8), 1)))[0])
    if isinstance(model, ports.BigGAN):
        return np.asarray(model(model.sample_z(KEY, 1), jnp.zeros(1, jnp.int32)))
    return np.asarray(model.render(model.sample(KEY, 1)))


def _mend_model(damaged: Path, target: Path) -> None:
    """The hashes of files, and that of the config."""
    config = target / "config.json"
    content = json.loads(config.read_bytes())
    parameters = target / "parameters"
    content["files"] = {name: _sha256(parameters / name) for name in _files(parameters)}
    content["sha256"] = checkpoint._seal(content)
    config.write_text(json.dumps(content))


# --- fits that were interrupted ---------------------------------------------------------------


class _Interrupt(Exception):
    """Ends a fit in the middle."""


def _fit(folder: Path, reports: int = 1000) -> Any:
    left = iter(range(reports))

    def on_report(report: Any) -> None:
        if next(left, None) is None:
            raise _Interrupt

    solver = LeastSquares(rounds=2, tolerance=0, samples="all", block=100)
    return fit(
        KEY, X, bits=2, solver=solver, checkpoint=folder, checkpoint_seconds=0, on_report=on_report
    )


def _fits(base: Path) -> list[Subject]:
    with contextlib.suppress(_Interrupt):
        _fit(base / "states", 5)
    files = _files(base / "states")
    texts = tuple(name for name in files if name.endswith((".json", "SHA256SUMS")))
    return [Subject("fit", base / "states", files, ".", texts * 6 + files)]


def _use_fit(result: Any) -> np.ndarray:
    return np.asarray(result.curve.codewords)


def _mend_fit(damaged: Path, target: Path) -> None:
    """The hashes of a state's files."""
    for sums in target.glob("*/SHA256SUMS"):
        if damaged != sums:
            names = [line.split("  ", 1)[1] for line in sums.read_text().splitlines()]
            lines = [f"{_sha256(sums.parent / name)}  {name}\n" for name in names]
            sums.write_text("".join(lines))


# --- images, labels, latents ------------------------------------------------------------------


def _labels(base: Path) -> list[Subject]:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 8, 8, 1)).astype(np.uint8)
    labels = np.arange(24) % 2
    archive, arrays, folder = base / "archive", base / "arrays", base / "folder"
    for path in (archive, arrays, folder / "left", folder / "right"):
        path.mkdir(parents=True)
    named = {"images": pixels, "labels": labels, "names": np.array(["left", "right"])}
    np.savez(archive / "set.npz", allow_pickle=False, **named)
    np.save(arrays / "images.npy", pixels)
    np.save(arrays / "labels.npy", labels)
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0]).save(folder / ("left", "right")[i % 2] / f"{i}.png")
    both = ("images.npy", "labels.npy")
    files = _files(folder)
    return [
        *_alone("labels", archive),
        Subject("labels", arrays, both, "images.npy", both),
        Subject("labels", folder, files, ".", files),
    ]


def _read_labels(path: Path) -> Any:
    labels = str(path.with_name("labels.npy")) if path.suffix == ".npy" else None
    return read_labelled(str(path), labels)


def _use_labels(found: Any) -> None:
    images, labels, names = found
    if images.shape[1:] != (8, 8, 1) or len(images) != 24:  # other programs take seconds each
        images, labels = images[:0], labels[:0]
    fit_scorer(KEY, images, labels, names=names, epochs=1)


def _images(base: Path) -> list[Subject]:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3)).astype(np.uint8)
    image, deep = Image.fromarray(pixels), Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    for ending in ("png", "jpg", "tiff", "webp", "bmp", "gif", "ppm"):
        image.save(base / f"colour.{ending}")
    image.convert("L").save(base / "gray.png")
    image.convert("P").save(base / "palette.png", transparency=3)
    image.convert("CMYK").save(base / "cmyk.jpg")
    deep.save(base / "deep.png")
    deep.save(base / "deep.tiff")
    return _alone("image", base)


def _use_image(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] in (1, 3)


def _mend_image(damaged: Path, target: Path) -> None:
    data = damaged.read_bytes()
    if data.startswith(b"\x89PNG\r\n"):
        damaged.write_bytes(mend_png(data))


def _latents(base: Path) -> list[Subject]:
    np.save(base / "x.npy", X)
    np.save(base / "half.npy", X.astype(np.float16))
    np.save(base / "columns.npy", np.asfortranarray(X))
    return _alone("latents", base)


def _use_latents(source: Any) -> None:
    block = source.read(None, 0, min(source.num_latents, 10**6))
    assert np.isfinite(np.asarray(block[0])).all()


_MAKERS = {
    "curve": _curves,
    "label-file": _label_files,
    "latent-file": _latent_files,
    "scorer": _scorers,
    "direction": _directions,
    "model reference": _converted,
    "fit": _fits,
    "labels": _labels,
    "image": _images,
    "latents": _latents,
}
KINDS = {
    "checkpoint": Kind(upstream.read, strict=True, share=2),
    "curve": Kind(load_curve, _use_curve, share=2),
    "label-file": Kind(_read_label_file, _use_label_file),
    "latent-file": Kind(load_latents, _use_latent_file),
    "scorer": Kind(load_scorers, _use_scorers, share=2, memory=LARGE),
    "direction": Kind(load_direction, _use_direction),
    "model": Kind(ports.load, _use_model, _mend_model, memory=LARGE),
    "reference": Kind(read_reference, share=0.5),
    "fit": Kind(_fit, _use_fit, _mend_fit, memory=LARGE, share=0.5),
    "labels": Kind(_read_labels, _use_labels, _mend_image),
    "image": Kind(read_image, _use_image, _mend_image),
    "latents": Kind(lambda path: as_source(str(path)), _use_latents),
}
