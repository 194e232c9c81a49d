"""Latents on disk that say what they are of: one .npz, no pickle. `invert` writes it."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sfvq_jax.io.output import new_file
from sfvq_jax.io.reading import Arrays, check_format, parse_json, reading
from sfvq_jax.short import short_repr

FORMAT_VERSION = 1
LONGEST_NAME = 200


class LatentsRecord(NamedTuple):
    """Latents and where they belong.

    Attributes:
      latents: [N, D], or one code a layer, [N, L, D], float32.
      names: of the images that they are of, N.
      space: the latent space, "" where it is unknown.
      model_hash: of the model, "" where it is unknown.
    """

    latents: np.ndarray
    names: tuple[str, ...]
    space: str = ""
    model_hash: str = ""

    __repr__ = short_repr

    @property
    def latent_dim(self) -> int:
        return self.latents.shape[-1]


def save_latents(path: str | Path, record: LatentsRecord, *, overwrite: bool = False) -> None:
    """Writes latents, whole or not at all; raises what `new_file` raises."""
    arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "latents": np.asarray(record.latents, np.float32),
        "names": np.array(json.dumps(list(record.names))),
        "space": np.array(record.space),
        "model_hash": np.array(record.model_hash),
    }
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_latents(path: str | Path) -> LatentsRecord:
    """Reads what `save_latents` wrote.

    Raises:
      FileNotFoundError: nothing there.
      OSError: it cannot be opened.
      ValueError: no latents, a damaged file, or one of a newer format.
    """
    with reading(path, "file of latents") as file:
        stored = Arrays(file)
        check_format(stored.integer("format_version"), FORMAT_VERSION)
        latents = stored.array("latents", None, "f").astype(np.float32)
        if latents.ndim not in (2, 3) or 0 in latents.shape or not np.isfinite(latents).all():
            raise ValueError(
                f"its latents have shape {latents.shape}, or not all are finite: expected [N, D] or"
                " [N, L, D]"
            )
        names = parse_json(f'{{"names": {stored.text("names")}}}')["names"]
        if (
            not isinstance(names, list)
            or len(names) != len(latents)
            or not all(isinstance(n, str) and len(n) <= LONGEST_NAME for n in names)
        ):
            raise ValueError(f"its names are not {len(latents)} short texts")
        space, model_hash = (
            stored.text(name, "")[:LONGEST_NAME] for name in ("space", "model_hash")
        )
        return LatentsRecord(latents, tuple(names), space, model_hash)
