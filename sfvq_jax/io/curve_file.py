"""A curve on disk: one .npz with codewords, where they belong, how they were fitted; no pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.history import History
from sfvq_jax.io.output import check_format, new_file
from sfvq_jax.latent_model import LatentModel

FORMAT_VERSION = 2


class CurveRecord(NamedTuple):
    """A curve and what is known about it.

    Attributes:
      curve: the curve.
      space: the latent space that it was fitted in ("stylegan2-w", …), "" where it is unknown.
      model_hash: hash of the model whose latents were fitted, "" where there was none.
      settings: of the fit, seed included; JSON values.
      history: of the fit, or None.
    """

    curve: Curve
    space: str = ""
    model_hash: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})
    history: History | None = None

    @property
    def latent_dim(self) -> int:
        return self.curve.latent_dim


def save_curve(path: str | Path, record: CurveRecord, *, overwrite: bool = False) -> None:
    """Writes a curve; raises FileExistsError where there is a file and `overwrite` is false."""
    if not isinstance(record, CurveRecord):
        curve = "curve" if isinstance(record, Curve) else "result.curve, history=result.history"
        raise TypeError(
            f"save_curve writes a CurveRecord, not a {type(record).__name__}: save_curve(path,"
            f" CurveRecord({curve}))"
        )
    arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "codewords": np.asarray(record.curve.codewords),
        "space": np.array(record.space),
        "model_hash": np.array(record.model_hash),
        "settings": np.array(json.dumps(dict(record.settings))),
    }
    if record.history is not None:
        arrays |= {f"history_{name}": value for name, value in record.history._asdict().items()}
    with new_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def load_curve(path: str | Path) -> CurveRecord:
    """Reads a curve that `save_curve` wrote, or codewords [K, D] in an .npy.

    Raises:
      FileNotFoundError: nothing there.
      ValueError: no curve, a truncated file, or one of a newer format.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no curve file {path}")
    try:
        with open(path, "rb") as file:
            stored = np.load(file, allow_pickle=False)
            arrays = {"codewords": stored} if isinstance(stored, np.ndarray) else dict(stored)
        version = int(arrays.get("format_version", FORMAT_VERSION))
        settings = json.loads(str(arrays.get("settings", "{}")))
    except Exception as error:  # damaged bytes make zipfile and NumPy raise errors of many kinds
        raise ValueError(f"{path} is no curve file, or a damaged one ({error})") from error
    check_format(path, version, FORMAT_VERSION)
    codewords = arrays.get("codewords")
    if codewords is None or codewords.ndim != 2 or len(codewords) < 2:
        raise ValueError(f"{path} holds no codewords [K, D] with K >= 2, so it is no curve")
    if not (np.issubdtype(codewords.dtype, np.floating) and np.isfinite(codewords).all()):
        raise ValueError(f"the codewords in {path} are not all finite floating point numbers")
    return CurveRecord(
        curve=Curve(jnp.asarray(codewords, jnp.float32)),
        space=str(arrays.get("space", "")),
        model_hash=str(arrays.get("model_hash", "")),
        settings=settings,
        history=_history(arrays),
    )


def _history(arrays: dict[str, np.ndarray]) -> History | None:
    """Of a file; those of version 1 count in bits and have no objective."""
    columns = {
        name.removeprefix("history_"): array
        for name, array in arrays.items()
        if name.startswith("history_")
    }
    if "bits" in columns:
        columns["codewords"] = 2 ** columns.pop("bits").astype(np.int32)
        columns["objective"] = np.full(len(columns["codewords"]), np.nan, np.float32)
    if set(columns) != set(History._fields):
        return None
    return History(**columns)


def check_belongs(record: Any, model: LatentModel) -> None:
    """Raises ValueError, naming both, where a record is of another space or model than `model`.

    Args:
      record: of a curve or a direction: what has `space`, `model_hash` and `latent_dim`.
      model: the one that it is to be used with.
    """
    what = "curve" if isinstance(record, CurveRecord) else "direction"
    space, model_hash = getattr(model, "latent_space", ""), getattr(model, "model_hash", "")
    if record.space and space and record.space != space:
        raise ValueError(f"the {what} is of space {record.space}, but the model has space {space}")
    if record.latent_dim != model.latent_dim:
        raise ValueError(
            f"the {what} has {record.latent_dim} dimensions, but the model's latents have"
            f" {model.latent_dim}: the {what} is of another model"
        )
    if record.model_hash and model_hash and record.model_hash != model_hash:
        raise ValueError(
            f"the {what} was fitted to the model with hash {record.model_hash[:12]}…, but this"
            f" model has hash {model_hash[:12]}…: make a {what} for this model"
        )
