"""Compares a generator with outputs that somebody saved from the upstream one."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ports.biggan import BigGAN
from ports.errors import CheckpointError
from ports.stylegan2 import StyleGAN2, synthesis_blocks
from sfvq_jax.io.reading import Arrays, one_line, reading

Reference = Mapping[str, np.ndarray]

TOLERANCE = 5e-4  # of the largest |output|; the usual mistakes of ports are off by a tenth and more


class Difference(NamedTuple):
    """Difference of an output from the output of the upstream model.

    Attributes:
      name: name of the array in the reference.
      largest: largest absolute difference.
      relative: largest absolute difference ÷ largest |output| of the upstream model.
    """

    name: str
    largest: float
    relative: float


def read_reference(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`.

    Raises:
      CheckpointError: where there is none, or it is damaged.

    >>> import tempfile
    >>> import numpy as np
    >>> from ports.verify import read_reference
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/outputs.npz", z=np.zeros((4, 32)), w=np.zeros((4, 48)))
    ...     {name: array.shape for name, array in read_reference(f"{folder}/outputs.npz").items()}
    {'z': (4, 32), 'w': (4, 48)}
    """
    try:
        with reading(path, ".npz of arrays") as file:
            stored = Arrays(file)
            return {name: stored.array(name, kinds="fiubU") for name in stored.names}
    except (ValueError, OSError) as error:
        raise CheckpointError(str(error)) from error


def compare(model: StyleGAN2 | BigGAN, reference: Reference) -> list[Difference]:
    """Differences of the model from all outputs in `reference`.

    Inputs and outputs are told by their names; images are [N, C, H, W] as upstream has them.

    StyleGAN2: inputs `z` [N, Z], `c` [N, classes] of a conditional model, or codes `ws` [N, L, D];
    outputs `w`, `ws`, `ws_psi0.7`, `ws_psi0.5_cut3` (truncation of the first three codes),
    `img_const` and `img_none` (by noise mode), `img_psi0.7_const`, a block's `x_b8` and `img_b8`,
    and `img_mix_const` of codes `ws_mix`.

    BigGAN: inputs `z` [N, Z] or [N, L, Z], `y` (or `class_index`, `class_onehot`) [N] or
    [N, classes], `truncation`, 1 by default; output `out`. For more of them, `out_NAME` belongs to
    `z_NAME`, `y_NAME` and `truncation_NAME`, where they are there; a number for NAME is the
    truncation.

    Raises:
      CheckpointError: where nothing can be compared, or shapes disagree.

    >>> import ports
    >>> from ports import upstream
    >>> from ports.verify import compare, read_reference
    >>> tiny = "tests/fixtures/stylegan2/tiny_ada_gray_cond"  # what upstream gave
    >>> model = ports.build(upstream.read(f"{tiny}.pkl"))
    >>> reference = {name: read_reference(f"{tiny}.npz")[name] for name in ("z", "c", "w")}
    >>> [(found.name, round(found.relative, 4)) for found in compare(model, reference)]
    [('w', 0.0)]
    """
    outputs = _stylegan2_outputs if isinstance(model, StyleGAN2) else _biggan_outputs
    differences = []
    try:
        for name, output in outputs(model, reference):
            ours, theirs = np.asarray(output, np.float64), np.asarray(reference[name], np.float64)
            ours = ours.transpose(0, 3, 1, 2) if ours.ndim == 4 else ours
            if ours.shape != theirs.shape:
                raise ValueError(f"{name} has shape {theirs.shape}, the model's has {ours.shape}")
            largest, scale = np.abs(ours - theirs).max(), np.abs(theirs).max()
            differences.append(Difference(name, float(largest), float(largest / scale)))
    except Exception as error:  # of any kind: its arrays may have any shapes and types
        reason = one_line(error)
        raise CheckpointError(f"the reference does not fit the model: {reason}") from error
    if not differences:
        raise CheckpointError(
            f"the reference holds {', '.join(reference)[:200]}, none of them an output that can be"
            " compared; help(ports.verify.compare) lists their names"
        )
    return differences


def check_differences(differences: list[Difference]) -> None:
    """Checks that no relative difference is larger than `TOLERANCE`.

    Raises:
      CheckpointError: one is larger, or is no number.

    >>> from ports.verify import Difference, check_differences
    >>> check_differences([Difference("w", largest=3e-6, relative=1e-6)])
    >>> check_differences([Difference("img", largest=0.3, relative=0.1)])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ports.errors.CheckpointError: img differs from upstream's by 0.1 of its largest ...
    """
    for name, _, relative in differences:
        if not relative <= TOLERANCE:
            raise CheckpointError(
                f"{name} differs from upstream's by {relative:.2g} of its largest value, more than"
                f" {TOLERANCE:g}; nothing was written"
            )


def _stylegan2_outputs(model: Any, reference: Reference) -> Iterator[tuple[str, jax.Array]]:
    c = reference["c"] if model.config.c_dim > 0 and "c" in reference else None

    def mapping(psi: str | None = None, cutoff: str | None = None) -> jax.Array:
        return model.mapping(
            reference["z"], c, 1 if psi is None else float(psi), cutoff and int(cutoff)
        )

    def codes() -> jax.Array:
        return jnp.asarray(reference["ws"]) if "ws" in reference else mapping()

    for name in reference:
        if name == "ws_mix":
            continue
        if name == "w" and "z" in reference:
            yield name, mapping()[:, 0]
        elif (m := re.fullmatch(r"ws(?:_psi([\d.]+))?(?:_cut(\d+))?", name)) and "z" in reference:
            yield name, mapping(*m.groups())
        elif m := re.fullmatch(r"img_(const|none)(?:_unfused)?", name):
            yield name, model.synthesis(codes(), m[1])
        elif m := re.fullmatch(r"img_mix_(const|none)", name):
            yield name, model.synthesis(reference["ws_mix"], m[1])
        elif m := re.fullmatch(r"img_psi([\d.]+)(?:_cut(\d+))?_(const|none)", name):
            yield name, model.synthesis(mapping(m[1], m[2]), m[3])
        elif m := re.fullmatch(r"(x|img)_(b\d+)", name):
            yield name, jax.jit(synthesis_blocks)(model, codes())[f"{m[2]}/{m[1]}"]


def _biggan_outputs(model: Any, reference: Reference) -> Iterator[tuple[str, jax.Array]]:
    def first(*names: str) -> np.ndarray | None:
        return next((reference[name] for name in names if name in reference), None)

    def number(default: float, *names: str) -> float:
        found = first(*names)
        return default if found is None else float(np.ravel(found)[0])

    usual = number(1.0, "truncation", "truncations")
    for name in reference:
        m = re.fullmatch(r"out(?:64)?(?:_(.+))?", name)
        if m is None or "trainmode" in name:  # in training upstream's weights move at every call
            continue
        suffix = m[1] or ""
        z = first(f"z_{suffix}", suffix, "z", f"z_{usual}")
        y = first(f"y_{suffix}", f"class_{suffix}", "y", "class_onehot", "class_index")
        if z is None or y is None:
            raise KeyError(f"{name} has no z and y")
        is_number = re.fullmatch(r"\d*\.?\d+", suffix)
        truncation = float(suffix) if is_number else number(usual, f"truncation_{suffix}")
        embedded = y.ndim == 2 and y.shape[1] != model.num_classes
        yield name, (model.generate if embedded else model)(z, y, truncation)
