"""A direction on disk: one JSON file with the vector, where it belongs and what is known of it."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.directions.bench import Effect, Gain
from sfvq_jax.interpret.directions.finding import FoundDirection
from sfvq_jax.interpret.edit import Direction
from sfvq_jax.io.output import library_version, new_file
from sfvq_jax.io.reading import check_format, parse_json, reading
from sfvq_jax.short import short_repr

FORMAT_VERSION = 1
MOST_LAYERS = 1000


class DirectionRecord(NamedTuple):
    """A direction together with its model, its latent space, its origin and its effects.

    Attributes:
      direction: the direction.
      name: name that says what it does.
      space: latent space that it belongs to ("stylegan2-w", …); "" if unknown.
      model_hash: hash of the model that it belongs to; "" if there was none.
      source: origin of the direction, JSON values, such as the hash of the curve and its two
        codewords.
      measured: measured effects, JSON values (`measured_of`).
    """

    direction: Direction
    name: str = ""
    space: str = ""
    model_hash: str = ""
    source: Mapping[str, Any] = MappingProxyType({})
    measured: Mapping[str, Any] = MappingProxyType({})

    __repr__ = short_repr

    @property
    def latent_dim(self) -> int:
        return self.direction.vector.shape[0]


def measured_of(found: FoundDirection) -> dict[str, Any]:
    """Converts the results of `find_directions` to JSON values, for `DirectionRecord.measured`.

    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, Effect, FoundDirection, measured_of
    >>> effects = {"smile": Effect(mean=0.8, low=0.7, high=0.9, agree=0.95)}
    >>> found = FoundDirection(  # as `find_directions` gives it
    ...     "more smile; all layers", "smile", Direction(jnp.array([1.0, 0.0]), (0, 7), unit=0.5),
    ...     codewords=(3, 4), effects=effects, judged=effects, entanglement=0.0,
    ...     limits=(None, 6.0), gain=None)
    >>> measured_of(found)["judged"]
    {'smile': {'mean': 0.8, 'low': 0.7, 'high': 0.9, 'agree': 0.95}}
    """

    def table(effects: Mapping[str, Effect]) -> dict[str, dict[str, float]]:
        return {name: effect._asdict() for name, effect in effects.items()}

    return {
        "attribute": found.attribute,
        "confirmed": found.confirmed,
        "effects": table(found.effects),
        "judged": table(found.judged),
        "entanglement": found.entanglement,
        "limits": list(found.limits),
        "gain": None if found.gain is None else _gain(found.gain),
    }


def _gain(gain: Gain) -> dict[str, Any]:
    """Without a share where no image lacked the attribute."""
    shares = {
        name: [None if np.isnan(number) else number for number in interval]
        for name, interval in (("gained", gain.gained), ("by chance", gain.by_chance))
    }
    return {"strength": gain.strength, **shares}


def save_direction(path: str | Path, record: DirectionRecord, *, overwrite: bool = False) -> None:
    """Writes a direction to a JSON file, at a path or URI.

    Raises:
      FileExistsError: the file exists, and `overwrite` is false.
      OSError: the file cannot be written.
      ValueError: a number is NaN or infinite.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, DirectionRecord, load_direction, save_direction
    >>> direction = Direction(jnp.array([0.6, 0.8]), layers=(2, 5), unit=1.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_direction(f"{folder}/smile.json", DirectionRecord(direction, "more smile"))
    ...     load_direction(f"{folder}/smile.json").name
    'more smile'
    """
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
      FileNotFoundError: there is no such file.
      OSError: the file cannot be opened.
      ValueError: the file is no direction, is damaged or has a newer format.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> from sfvq_jax.interpret import Direction, DirectionRecord, load_direction, save_direction
    >>> direction = Direction(jnp.array([0.6, 0.8]), layers=(2, 5), unit=1.5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_direction(f"{folder}/smile.json", DirectionRecord(direction, "more smile"))
    ...     load_direction(f"{folder}/smile.json").direction
    Direction(vector=float32[2], layers=(2, 5), unit=1.5)
    """
    with reading(path, "direction file") as file:
        content = parse_json(file.read())
        check_format(content.get("format_version"), FORMAT_VERSION)
        for name, kind in _FIELDS.items():
            if type(content.get(name)) not in kind:
                raise ValueError(f"its {name} is missing, or of another type")
        if not all(type(number) in (int, float) for number in content["vector"]):
            raise ValueError("its vector is no list of numbers")
        vector = np.array(content["vector"], np.float64)
        if not (np.abs(vector) <= 1.1).all() or not abs(np.linalg.norm(vector) - 1) < 1e-3:
            raise ValueError("its vector is no unit vector")
        layers, unit = content["layers"], float(content["unit"])
        if len(layers) != 2 or not all(type(layer) is int for layer in layers):
            raise ValueError("its layers are not two numbers, the first and the last")
        if not 0 <= layers[0] <= layers[1] < MOST_LAYERS:
            raise ValueError(f"its layers {layers[0]}-{layers[1]} make no sense")
        if not 0 < unit <= float(np.finfo(np.float32).max):
            raise ValueError(f"its unit is {unit:g}, expected a number above 0 of float32")
        return DirectionRecord(
            direction=Direction(jnp.asarray(vector, jnp.float32), (layers[0], layers[1]), unit),
            **{name: content[name] for name in DirectionRecord._fields[1:]},
        )


_FIELDS = {
    "name": (str,),
    "space": (str,),
    "model_hash": (str,),
    "layers": (list,),
    "unit": (int, float),
    "source": (dict,),
    "measured": (dict,),
    "vector": (list,),
}
