"""Directions that other projects found, as ours: GANSpace, SeFa, LatentCLR, InterFaceGAN.

What their files hold, read by whoever opened them:
  an array: rows that are vectors, as an .npy of InterFaceGAN's boundary [1, D], or of SeFa's or
    one's own matrix [K, D].
  "lat_comp": a decomposition of GANSpace (.npz), rows [K, 1, D] from the greatest variance on.
  "edit_type", "lat_comp", …: an edit of GANSpace (.pkl), with its name, its layers and its space.
  "model": a checkpoint of LatentCLR (.pt), whose model of global directions has `params` [K, D].
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.interpret.directions.file import DirectionRecord
from sfvq_jax.interpret.edit import Direction
from sfvq_jax.latent_model import LatentModel

WANTED = (
    "expected an array [D] or [K, D] of vectors, GANSpace's lat_comp, an edit of GANSpace or a"
    " model of LatentCLR"
)
MOST_KEYS = 5  # that a message shows


class _Vectors(NamedTuple):
    """Rows [K, D] and what their file says of them; no layers and "" where it says nothing."""

    rows: np.ndarray
    method: str = ""
    name: str = ""
    layers: tuple[int, int] | None = None
    space: str = ""


def import_directions(
    content: Any,
    name: str,
    model: LatentModel,
    latents: jax.Array,
    *,
    layers: tuple[int, int] | None = None,
    count: int | None = None,
) -> list[DirectionRecord]:
    """Imports directions of another project; their strengths become standard deviations.

    Args:
      content: content of the file: an array [D], [K, D] or [K, 1, D], or a dict with such arrays
        (see this file's docstring). Only NumPy arrays, numbers and texts are read.
      name: name for directions without one; if there are several, their row is added.
      model: the generator that they belong to.
      latents: latents of the model, [N, D]; a direction's unit is their standard deviation along
        it.
      layers: first and last layer that directions move; by default as the file says, or all layers.
      count: largest number of directions, the first ones; by default all.

    Returns:
      The directions; `source` has the method, the row, from 0, and the number of rows.

    Raises:
      ValueError: content of another kind, directions that are not global or not in the latent
        space, of another width, of length 0, not finite, or along which latents do not differ; or
        layers outside the model.

    >>> from types import SimpleNamespace
    >>> import jax
    >>> import numpy as np
    >>> from sfvq_jax.interpret import import_directions
    >>> model = SimpleNamespace(latent_dim=3, num_layers=8)
    >>> latents = jax.random.normal(jax.random.key(0), (64, 3))
    >>> boundaries = np.array([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]])  # np.load("boundaries.npy")
    >>> records = import_directions(boundaries, "boundary", model, latents, layers=(0, 3))
    >>> [(record.name, record.direction.layers) for record in records]
    [('boundary 0', (0, 3)), ('boundary 1', (0, 3))]
    >>> print(records[0].direction.vector.round(1))
    [0.6 0.  0.8]
    """
    found = _vectors_of(content)
    space = getattr(model, "latent_space", "")
    kind = re.search(r"-(\w+)", space)
    if found.space and kind and found.space.lower() != kind[1]:
        raise ValueError(
            f"it is a direction in {found.space.lower()}, and {space} is another space: choose the"
            f" model's space {found.space.lower()}"
        )
    if found.rows.shape[1] != model.latent_dim:
        raise ValueError(
            f"its vectors have {found.rows.shape[1]} numbers, and latents of {space or 'the model'}"
            f" {model.latent_dim}: are they of this model, and of this space?"
        )
    first, last = layers or found.layers or (0, model.num_layers - 1)
    if not 0 <= first <= last < model.num_layers:
        raise ValueError(
            f"layers {first}-{last} are outside 0-{model.num_layers - 1}, the model's layers"
        )
    total, records = len(found.rows), []
    for i, row in enumerate(found.rows[:count]):
        try:
            direction = Direction.along(_unit_vector(row), (first, last), latents)
        except ValueError as error:
            raise ValueError(f"row {i}: {error}") from error
        title = found.name or (name if total == 1 else f"{name} {i}")
        source = {"method": found.method, "row": i, "of": total}
        model_hash = getattr(model, "model_hash", "")
        records.append(DirectionRecord(direction, title, space, model_hash, source))
    return records


def _vectors_of(content: Any) -> _Vectors:
    if isinstance(content, np.ndarray):
        return _Vectors(_rows(content, "the array"))
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}; {WANTED}")
    if "edit_type" in content:
        return _edit_of(content)
    if "lat_comp" in content:
        return _Vectors(_rows(content["lat_comp"], "lat_comp"), "GANSpace")
    state = content.get("model", content)
    if isinstance(state, Mapping):
        state = {str(key).removeprefix("module."): value for key, value in state.items()}
        if "params" in state:
            return _Vectors(_rows(state["params"], "params"), "LatentCLR")
        if any(key.startswith("nets.") for key in state):
            raise ValueError(
                "LatentCLR's conditional models have another direction at every latent, which no"
                " file of a direction can hold: train its global one (model=global)"
            )
    keys = ", ".join(str(key)[:40] for key in list(content)[:MOST_KEYS]) or "nothing"
    raise ValueError(f"it holds {keys}{', …' * (len(content) > MOST_KEYS)}; {WANTED}")


def _edit_of(content: Mapping[Any, Any]) -> _Vectors:
    """An edit that GANSpace's window saved."""
    edit_type, name, space = (content.get(k) for k in ("edit_type", "name", "latent_space"))
    if edit_type != "latent":
        raise ValueError(
            f"the edit is of type {str(edit_type)[:40]}, which moves activations of a layer: only"
            " edits of type latent are directions of the latent space"
        )
    first, stop = content.get("edit_start"), content.get("edit_end")
    if type(first) is not int or type(stop) is not int:
        raise ValueError("the edit does not say its layers, edit_start and edit_end, as numbers")
    rows = _rows(content.get("lat_comp"), "lat_comp")
    if len(rows) != 1:
        raise ValueError(f"lat_comp has {len(rows)} rows; an edit has one direction")
    name, space = (text if isinstance(text, str) else "" for text in (name, space))
    return _Vectors(rows, "GANSpace", name, (first, stop - 1), space)


def _rows(array: Any, name: str) -> np.ndarray:
    """An array as rows [K, D], still of its own type."""
    if not isinstance(array, np.ndarray) or not jnp.issubdtype(array.dtype, jnp.floating):
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{name} is of type {kind}; vectors are floating point numbers")
    shape = array.shape
    if array.ndim == 0 or array.size == 0 or any(side != 1 for side in shape[1:-1]):
        raise ValueError(f"{name} has shape {shape}; vectors are [D], [K, D] or [K, 1, D]")
    return array.reshape(shape[0] if array.ndim > 1 else 1, shape[-1])


def _unit_vector(row: np.ndarray) -> jax.Array:
    row = row.astype(np.float64)
    if not np.isfinite(row).all():
        raise ValueError("the vector has values that are NaN or infinite")
    largest = np.abs(row).max()
    if largest == 0:
        raise ValueError("the vector has length 0, and is no direction")
    row = row / largest  # squares of very large and of very small numbers are none
    return jnp.asarray(row / np.linalg.norm(row), jnp.float32)
