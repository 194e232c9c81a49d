"""A direction on disk: one JSON file with the vector, where it belongs and what is known of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.directions import FoundDirection
from sfvq_jax.interpret.editing import Direction
from sfvq_jax.interpret.measuring import Effect
from sfvq_jax.io.output import check_format, library_version, new_file

FORMAT_VERSION = 1


class DirectionRecord(NamedTuple):
    """A direction and what is known about it.

    Attributes:
      direction: the direction.
      name: what it does.
      space: latent space that it belongs to ("stylegan2-w", …), "" where it is unknown.
      model_hash: hash of the model that it belongs to, "" where there was none.
      source: where it comes from, JSON values: hash of the curve and its two codewords, say.
      measured: what is known of its effects, JSON values (`measured_of`).
    """

    direction: Direction
    name: str = ""
    space: str = ""
    model_hash: str = ""
    source: Mapping[str, Any] = MappingProxyType({})
    measured: Mapping[str, Any] = MappingProxyType({})

    @property
    def latent_dim(self) -> int:
        return self.direction.vector.shape[0]


def measured_of(found: FoundDirection) -> dict[str, Any]:
    """What `find_directions` measured, as JSON values."""

    def table(effects: Mapping[str, Effect]) -> dict[str, dict[str, float]]:
        return {name: effect._asdict() for name, effect in effects.items()}

    return {
        "attribute": found.attribute,
        "confirmed": found.confirmed,
        "effects": table(found.effects),
        "judged": table(found.judged),
        "entanglement": found.entanglement,
        "limits": list(found.limits),
    }


def save_direction(path: str | Path, record: DirectionRecord, *, overwrite: bool = False) -> None:
    """Writes a direction; raises FileExistsError where there is a file and `overwrite` is false."""
    direction = record.direction
    content = {
        "format_version": FORMAT_VERSION,
        "sfvq_jax": library_version(),
        "name": record.name,
        "space": record.space,
        "model_hash": record.model_hash,
        "layers": list(direction.layers),
        "unit": direction.unit,
        "source": dict(record.source),
        "measured": dict(record.measured),
        "vector": np.asarray(direction.vector, np.float64).tolist(),
    }
    with new_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))


def load_direction(path: str | Path) -> DirectionRecord:
    """Reads a direction that `save_direction` wrote.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no direction, a damaged one, or one of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no direction file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = int(content["format_version"])
        vector = np.array(content["vector"], np.float32)
        first, last = (int(layer) for layer in content["layers"])
        unit = float(content["unit"])
        record = DirectionRecord(
            direction=Direction(jnp.asarray(vector), (first, last), unit),
            name=str(content["name"]),
            space=str(content["space"]),
            model_hash=str(content["model_hash"]),
            source=dict(content["source"]),
            measured=dict(content["measured"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no direction file, or a damaged one ({error})") from error
    check_format(path, version, FORMAT_VERSION)
    if vector.ndim != 1 or not abs(np.linalg.norm(vector) - 1) < 1e-3:
        raise ValueError(f"{path}: its vector is no unit vector [D], so the file is damaged")
    if not (0 <= first <= last and np.isfinite(unit) and unit > 0):
        raise ValueError(f"{path}: layers {first}-{last} or unit {unit} make no sense")
    return record
