"""A curve on disk: one .npz with codewords, where they belong, how they were fitted; no pickle."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.history import History
from sfvq_jax.io.output import new_file
from sfvq_jax.io.reading import Arrays, check_format, parse_json, reading
from sfvq_jax.latent_model import LatentModel
from sfvq_jax.short import short_repr

FORMAT_VERSION = 2


class CurveRecord(NamedTuple):
    """A curve together with its model, its latent space and its fit.

    Attributes:
      curve: the curve.
      space: the latent space that it was fitted in ("stylegan2-w", …); "" if unknown.
      model_hash: hash of the model whose latents were fitted; "" if there was none.
      settings: settings of the fit, including the seed; JSON values.
      history: history of the fit, or None.
    """

    curve: Curve
    space: str = ""
    model_hash: str = ""
    settings: Mapping[str, Any] = MappingProxyType({})
    history: History | None = None

    __repr__ = short_repr

    @property
    def latent_dim(self) -> int:
        return self.curve.latent_dim


def save_curve(path: str | Path, record: CurveRecord, *, overwrite: bool = False) -> None:
    """Writes a curve to a path or URI (gs://, s3://).

    Args:
      path: name of the .npz; docs/reference/formats.md describes its content.
      record: the curve and what is known about it.
      overwrite: replace an existing file.

    Raises:
      TypeError: a bare curve, a result of `fit` or anything else that is no `CurveRecord`.
      FileExistsError: the file exists, and `overwrite` is false.
      OSError: the file cannot be written.

    >>> import tempfile
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve, CurveRecord, load_curve, save_curve
    >>> record = CurveRecord(Curve(jnp.zeros((4, 2))), space="spots-z", settings={"seed": 0})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_curve(f"{folder}/curve.npz", record)
    ...     load_curve(f"{folder}/curve.npz").settings
    {'seed': 0}
    """
    if not isinstance(record, CurveRecord):
        curve = "result.curve, history=result.history"
        curve = "curve" if isinstance(record, Curve | str | Path) else curve
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
    """Reads a curve that `save_curve` wrote, or codewords [K, D] in an .npy, from a path or URI.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: the file cannot be opened.
      ValueError: the file is no curve, is damaged or has a newer format.

    >>> import tempfile
    >>> import numpy as np
    >>> from sfvq_jax import load_curve
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/codewords.npy", np.zeros((4, 2), np.float32))
    ...     load_curve(f"{folder}/codewords.npy").curve
    Curve(codewords=float32[4, 2], size=None)
    """
    with reading(path, "curve file") as file:
        stored = Arrays(file, alone="codewords")
        check_format(stored.integer("format_version", FORMAT_VERSION), FORMAT_VERSION)
        codewords = _float32("codewords", stored.array("codewords", (None, None)))
        if len(codewords) < 2 or not codewords.shape[1]:
            raise ValueError(
                f"its codewords have shape {codewords.shape}, expected [K, D] with K from 2"
            )
        return CurveRecord(
            curve=Curve(jnp.asarray(codewords)),
            space=_short_text(stored, "space"),
            model_hash=_short_text(stored, "model_hash"),
            settings=parse_json(stored.text("settings", "{}")),
            history=_read_history(stored),
        )


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    """Finite numbers as float32, native."""
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if array.dtype.kind != "f" or not np.isfinite(numbers).all():
        raise ValueError(f"its {name} are not all finite floating point numbers of float32")
    return numbers


def _short_text(stored: Arrays, name: str) -> str:
    """What messages show."""
    text = stored.text(name, "")
    if len(text) > 200 or not text.isprintable():
        raise ValueError(f"its {name} is no short text")
    return text


def _read_history(stored: Arrays) -> History | None:
    """None where there is none; those of version 1 count in bits and have no objective."""
    if not any(name.startswith("history_") for name in stored.names):
        return None
    if "history_bits" in stored:
        bits = stored.array("history_bits", (None,), "i")
        if not ((bits > 0) & (bits < 31)).all():
            raise ValueError("its history_bits are not all from 1 to 30")
        codewords = 2 ** bits.astype(np.int32)
    else:
        codewords = stored.array("history_codewords", (None,), "i").astype(np.int64)
    rounds = len(codewords)
    if not rounds or codewords.min() < 2 or codewords.max() >= 2**31:
        raise ValueError("its history_codewords are not all from 2 to 2^31")
    # what the solver lowers may be NaN: it is only looked at
    columns = {
        name: stored.array(f"history_{name}", (rounds,), "f").astype(np.float32)
        for name in ("loss", "distortion", "perplexity", "objective")
        if f"history_{name}" in stored or "history_bits" not in stored
    }
    columns.setdefault("objective", np.full(rounds, np.nan, np.float32))
    samples = stored.array("history_samples", (rounds,), "f").astype(np.float64)
    use = _float32("history_use", stored.array("history_use", (rounds, None), "f"))
    if use.shape[1] < codewords.max() - 1 or not ((use >= 0) & (use <= 1.001)).all():
        raise ValueError(f"its history_use has no share of each of {codewords.max() - 1} lines")
    for name, column in {**columns, "samples": samples}.items():
        if name not in ("loss", "objective") and not (np.isfinite(column) & (column >= 0)).all():
            raise ValueError(f"its history_{name} is not all finite and from 0")
    return History(codewords.astype(np.int32), use=use, samples=samples, **columns)


def curve_sha256(record: CurveRecord) -> str:
    """Of the codewords, which tells curves apart wherever they lie."""
    codewords = np.ascontiguousarray(record.curve.codewords, np.float32)
    return hashlib.sha256(codewords.tobytes()).hexdigest()


def check_belongs(record: Any, model: LatentModel) -> None:
    """Checks that a record belongs to a model and to its latent space.

    Args:
      record: record of a curve, a direction or latents, with `space`, `model_hash` and
        `latent_dim`.
      model: the model. A space or hash that one of the two does not have is not compared.

    Raises:
      ValueError: the spaces, their dimensions or the models differ; the message names both.

    >>> from types import SimpleNamespace
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve, CurveRecord, check_belongs
    >>> record = CurveRecord(Curve(jnp.zeros((4, 2))), space="spots-z")
    >>> check_belongs(record, SimpleNamespace(latent_dim=2, latent_space="spots-z"))
    >>> check_belongs(record, SimpleNamespace(latent_dim=2, latent_space="faces-w"))
    Traceback (most recent call last):
    ValueError: the curve is of space spots-z, but the model has space faces-w
    """
    kinds = {"curve": "curve", "direction": "direction", "latents": "file of latents"}
    what = next(kind for name, kind in kinds.items() if hasattr(record, name))
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
