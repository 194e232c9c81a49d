"""What `edit` moves: latents of seeds, or rows of a file, checked."""

import argparse
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ports
from sfvq_jax.cli.common import integer_list
from sfvq_jax.cli.models import check_no_space
from sfvq_jax.io.curve_file import check_belongs
from sfvq_jax.io.latents_file import load_latents
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.rows.npy import npy_rows

TRUNCATION = 0.5  # of the published edits (arXiv 2410.20573)
MOST_ROWS = 64  # of a file, that are taken without being named
UNLIKE = 3.0  # times the largest squared distance from the mean of a model's own latents


class Latents(NamedTuple):
    """What is edited.

    Attributes:
      values: [N, D] or, one code a layer, [N, L, D].
      rows: a name of each.
      about: where they come from, JSON values.
    """

    values: jax.Array
    rows: list[str]
    about: dict


def add_latents(command: argparse.ArgumentParser) -> None:
    """--latents and --rows, in place of seeds."""
    command.add_argument(
        "--latents",
        help="latents of your own, in place of seeds: an .npz that `invert` wrote, or an .npy"
        " [N, D] or, with one code for each layer, [N, L, D]",
    )
    command.add_argument(
        "--rows",
        type=integer_list,
        help="rows of --latents, first-last or separated by commas (default: all, if there are at"
        f" most {MOST_ROWS})",
    )


def seed_latents(model: LatentModel, seeds: Sequence[int], truncation: float | None) -> Latents:
    """A latent of each seed; z of a StyleGAN2 is truncated behind its mapping, or not."""
    if truncation is None and not isinstance(model, ports.StyleGAN2Z):
        truncation = TRUNCATION
    samples = [model.sample(jax.random.key(seed), 1, truncation=truncation) for seed in seeds]
    about = {"seeds": list(seeds), "truncation": truncation}
    return Latents(jnp.concatenate(samples), [f"seed {seed}" for seed in seeds], about)


def file_latents(model: LatentModel, spread: jax.Array, options: argparse.Namespace) -> Latents:
    """Rows of an .npy, checked, in the space of the directions."""
    source = model if options.space is None else _space_of(model, options)
    values, rows, names = read_latents(options.latents, source, options.rows)
    if source is not model:
        if values.ndim == 3 and isinstance(source, ports.BigGANSpace):
            raise ValueError(
                f"{options.latents} has one z a layer, of which a linear layer sees only the first:"
                " give z [N, Z], or a direction in z"
            )
        values = source.activations(values)  # pyright: ignore[reportAttributeAccessIssue]
    space = getattr(model, "latent_space", "")
    mean, deviation = spread.mean(0)[None], spread.std(0)[None]

    def squares(latents: jax.Array) -> np.ndarray:
        return np.asarray((((latents - mean) / jnp.maximum(deviation, 1e-12)) ** 2).mean(-1))

    usual = float(squares(spread).max())
    far = squares(values.reshape(-1, model.latent_dim)).reshape(len(rows), -1).max(1)
    if (beyond := np.flatnonzero(far > UNLIKE * usual)).size:
        warnings.warn(
            f"row {rows[beyond[0]]} of {options.latents}"
            f"{f' and {len(beyond) - 1} more' * (len(beyond) > 1)} lies"
            f" {far[beyond[0]] ** 0.5:.1f} standard deviations a dimension from the mean of"
            f" {space or 'the latents'}, the model's own up to {usual**0.5:.1f}: are they latents"
            " of this model, and of this space? (--space z maps those of z)",
            stacklevel=2,
        )
    about = {"latents": options.latents, "rows": rows, "space": options.space}
    about |= {"label": options.label, "truncation": options.truncation}
    return Latents(values, names, about)


def _space_of(model: LatentModel, options: argparse.Namespace) -> LatentModel:
    """The space that --space names, from which there is a way to the model's."""
    generator = getattr(model, "model", model)
    if not isinstance(generator, ports.StyleGAN2 | ports.BigGAN):
        check_no_space(options.model, options)
        return model
    source = generator.space(options.space, options.label, options.truncation)
    space = getattr(model, "latent_space", "")
    if source.latent_space == space:
        return model
    if options.space != "z" or "-z" in space:
        raise ValueError(
            f"the direction is in {space}, and there is no way to it from {source.latent_space}:"
            " choose a direction in the latents' space"
        )
    return source


def read_latents(
    path: str, model: LatentModel, rows: Sequence[int] | None
) -> tuple[jax.Array, list[int], list[str]]:
    """Rows of an .npy [N, D] or [N, L, D], or of what `invert` wrote: float32, numbers, names.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: something else, another shape, no such row, or numbers that are not finite.
    """
    if path.endswith(".npz"):
        return _inverted(path, model, rows)
    d, layers = model.latent_dim, model.num_layers
    wanted = f"[N, {d}] or, one code a layer, [N, {layers}, {d}]"
    found = npy_rows(path, f"latents go in an .npy {wanted}")
    n = found.shape[0] if found.shape else 0
    if found.shape[1:] not in ((d,), (layers, d)) or n == 0:
        hint = ": x[None] makes one row" * (found.shape in ((d,), (layers, d)))
        raise ValueError(
            f"{path} has shape {found.shape}; latents of {getattr(model, 'latent_space', 'it')} are"
            f" {wanted}{hint}"
        )
    if not jnp.issubdtype(found.dtype, jnp.floating):
        raise ValueError(f"{path} is of type {found.dtype}; latents are floating point numbers")
    rows = _checked_rows(path, n, rows)
    with np.errstate(over="ignore"):
        values = found.read([(row, row + 1) for row in rows]).astype(np.float32)
    finite = np.isfinite(values).reshape(len(rows), -1).all(1)
    if not finite.all():
        raise ValueError(
            f"row {rows[int(finite.argmin())]} of {path} has values that are NaN, infinite or too"
            " large for float32: leave it out by --rows"
        )
    return jnp.asarray(values), rows, [f"row {row}" for row in rows]


def _checked_rows(path: str, n: int, rows: Sequence[int] | None) -> list[int]:
    if rows is None and n > MOST_ROWS:
        raise ValueError(f"{path} has {n} latents: choose some of them, such as --rows 0-15")
    rows = list(range(n)) if rows is None else list(rows)
    if not max(rows) < n:
        raise ValueError(f"row {max(rows)} is outside 0-{n - 1}, the latents of {path}")
    return rows


def _inverted(
    path: str, model: LatentModel, rows: Sequence[int] | None
) -> tuple[jax.Array, list[int], list[str]]:
    """Of the file that `invert` wrote, in the model's own space."""
    record = load_latents(path)
    check_belongs(record, model)
    shape, n = record.latents.shape[1:], len(record.latents)
    if shape not in ((model.latent_dim,), (model.num_layers, model.latent_dim)):
        raise ValueError(
            f"{path} has {shape[0]} codes an image, and the model {model.num_layers} layers"
        )
    rows = _checked_rows(path, n, rows)
    return jnp.asarray(record.latents[np.array(rows)]), rows, [record.names[row] for row in rows]
