"""What is measured of a subject once, before its page is shown: JSON values and sheets of images.

Letters: K codewords, P places on the curve, A attributes, C classes.
"""

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import decode
from sfvq_jax.explore.pictures import BATCH as pictures_at_once
from sfvq_jax.explore.pictures import Pictures, at_most, strip_codes, vector_of
from sfvq_jax.explore.row_model import RowModel
from sfvq_jax.explore.subject import SEEDS, OwnData, Subject, nearest_codewords
from sfvq_jax.images import batch_of, in_batches
from sfvq_jax.interpret import Bench, Direction
from sfvq_jax.interpret.directions.bench import BANK, BATCH, HELD_OUT, Limits
from sfvq_jax.interpret.directions.finding import entanglement_of, name_of
from sfvq_jax.interpret.geometry import nearest
from sfvq_jax.interpret.map.health import OUTLIER_QUANTILE
from sfvq_jax.io.curve_file import curve_sha256
from sfvq_jax.io.output import library_version
from sfvq_jax.projection import nearest_codeword, project
from sfvq_jax.quality import line_use, pairwise_distances, perplexity

Array = jax.Array

PLACES_A_LINE = 2  # where images of the curve are scored
THUMB = 96  # pixels of a codeword in the film
STRIP_SIDE = 96  # of an image in a direction's strip
STRIP_STRENGTHS = (-3.0, -2.0, -1.0, 1.0, 2.0, 3.0)  # beside 0, which all directions share
HEAT = 512  # codewords in the heat map; of more, every so many
CARD_LATENTS = 64  # on which a line is measured
LIMIT_LATENTS = 32
NEIGHBOURS = 4096  # latents, among which nearest ones are looked for
SLOWEST = 60.0  # seconds that images of the distribution may take
MOST_VECTORS = 2**22  # bytes of codewords that a page holds


class Measures:
    """A subject's bench: which images are inside, what a line does. None where images are slow."""

    def __init__(self, subject: Subject, pictures: Pictures):
        self._subject = subject
        self.bench = None
        some = subject.codewords[: batch_of(subject.model, pictures_at_once)]
        pictures.render(some)  # which compiles
        began = time.perf_counter()
        pictures.render(some)
        if (time.perf_counter() - began) / len(some) * (BANK + HELD_OUT) <= SLOWEST:
            key = jax.random.key(1)
            self.bench = Bench(key, subject.model, subject.find, subject.judge)
            keys = jax.random.split(jax.random.key(2))
            self._limited_on = subject.model.sample(keys[0], LIMIT_LATENTS)
            self._measured_on = subject.model.sample(keys[1], CARD_LATENTS)

    def line(
        self,
        number: int,
        layers: tuple[int, int],
        *,
        limits: bool = True,
        pause: Callable[[], object] = lambda: None,
    ) -> dict[str, Any] | None:
        """What a line does, as a card tells it; None where images are too slow for that.

        Args:
          number: of the line.
          layers: that move.
          limits: whether it is looked how far it goes, which takes several times as long.
          pause: called between parts of the work.
        """
        bench, unit = self.bench, float(self._subject.line_units[number])
        if bench is None or not unit > 0:
            return None
        vector = jnp.asarray(self._subject.lines[number])
        direction = Direction(vector, layers, unit)
        found: Limits = (None, None)
        if limits:
            low = bench.limit(direction, self._limited_on, -1)
            pause()
            found = (low, bench.limit(direction, self._limited_on, 1))
            pause()
        # intervals of all attributes together
        comparisons = len(bench.find.names)
        effects, judged = bench.effects(direction, self._measured_on, found, comparisons)
        attribute = max(effects, key=lambda name: abs(effects[name].mean))
        return {
            "name": name_of(attribute, effects, layers, bench.model.num_layers),
            "attribute": attribute,
            "layers": list(layers),
            "effects": {name: _interval(effect) for name, effect in effects.items()},
            "judged": {name: _interval(effect) for name, effect in judged.items()},
            "entanglement": entanglement_of(attribute, effects),
            "limits": list(found) if limits else None,
        }


def _interval(effect: Any) -> list[float]:
    return [round(float(x), 4) for x in (effect.mean, effect.low, effect.high)]


def survey(subject: Subject, pictures: Pictures, measures: Measures) -> dict[str, Any]:
    """All that the page is told of its subject, but for sheets and labels; JSON values."""
    model, record, curve = subject.model, subject.record, subject.curve
    classes = _classes(subject, pictures)
    return {
        "sfvq_jax": library_version(),
        "model": {
            "name": subject.model_name,
            "space": getattr(model, "latent_space", ""),
            "hash": getattr(model, "model_hash", ""),
            "rows": isinstance(model, RowModel),
            "layers": model.num_layers,
            "dimensions": model.latent_dim,
            "image": list(pictures.shape or pictures.render(subject.codewords[:1]).shape[1:]),
        },
        "curve": {
            "name": subject.curve_name,
            "sha256": curve_sha256(record._replace(curve=curve)),
            "codewords": curve.num_codewords,
            "space": record.space,
            "model_hash": record.model_hash,
            "vectors": _vectors(subject.codewords),
        },
        "seeds": {"count": SEEDS, "truncation": subject.truncation},
        **_use(subject),
        "places": (np.arange(PLACES_A_LINE * curve.num_lines + 1) / PLACES_A_LINE).tolist(),
        **_places(subject, measures),
        "classes": classes,
        "distances": _distances(subject.codewords),
        "units": _rounded(subject.line_units, 6),
        "directions": [_direction(subject, i) for i in range(len(subject.directions))],
        "photographs": _photographs(subject),
        "data": None if subject.data is None else _histogram(subject.data, curve.num_codewords),
    }


def _use(subject: Subject) -> dict[str, Any]:
    """Shares of latents, dead codewords, and outliers: `map_quality` counts the same."""
    curve, k = subject.curve, subject.curve.num_codewords
    fresh = subject.model.sample(jax.random.key(3), len(subject.spread))
    use = line_use(project(curve, fresh), curve.num_lines)
    load = np.bincount(np.asarray(nearest_codeword(curve, fresh)), minlength=k)
    reference = subject.spread[:NEIGHBOURS]
    of_fresh, of_codewords = (
        np.asarray(nearest(reference, x).distance) for x in (fresh[:NEIGHBOURS], curve.codewords)
    )
    farthest = np.quantile(of_fresh, OUTLIER_QUANTILE)
    return {
        "use": _rounded(use, 6),
        "perplexity": float(perplexity(use)),
        "dead": np.flatnonzero(load == 0).tolist(),
        "outliers": np.flatnonzero(of_codewords > farthest).tolist(),
    }


def _places(subject: Subject, measures: Measures) -> dict[str, Any]:
    """Scores of the curve's images, in standard deviations over images, and which are inside."""
    count = PLACES_A_LINE * subject.curve.num_lines + 1
    points = decode(subject.curve, jnp.arange(count, dtype=jnp.float32) / PLACES_A_LINE)
    bench, find = measures.bench, subject.find
    if bench is None:  # images are slow, and codewords' must do
        return {"inside": None, "attributes": []}
    found, *seen = bench.look(points, find, *bench.kinds)
    found = found / bench.find_scale[None]
    found -= found.mean(0)
    return {
        "inside": [bool(inside) for inside in bench.inside(seen)],
        "attributes": [
            {"name": name, "values": _rounded(found[:, i], 3)} for i, name in enumerate(find.names)
        ],
    }


def _classes(subject: Subject, pictures: Pictures) -> dict[str, Any] | None:
    """The class of each codeword's image; without a scorer of classes that of the user's rows."""
    if subject.classes:
        scorer = subject.find.select(subject.classes)
        images = pictures.render(subject.codewords)
        scores = in_batches(
            lambda part: scorer(part.astype(jnp.float32) / 127.5 - 1), images, BATCH
        )
        of_codewords = np.argmax(scores, 1)
        return {"names": list(subject.classes), "of_codewords": of_codewords.tolist()}
    data = subject.data
    if data is None or not data.names:
        return None
    counts = _counts(data, subject.curve.num_codewords)
    return {"names": data.names, "of_codewords": counts.argmax(0).tolist()}


def _counts(data: OwnData, k: int) -> np.ndarray:
    """Rows of each class next to each codeword, [C, K]."""
    counts = np.zeros((max(len(data.names), 1), k), np.int64)
    np.add.at(counts, (data.of_rows, nearest_codewords(data.positions)), 1)
    return counts


def _histogram(data: OwnData, k: int) -> dict[str, Any]:
    return {
        "name": data.name,
        "rows": len(data.positions),
        "classes": data.names,
        "counts": _counts(data, k).tolist(),
    }


def _photographs(subject: Subject) -> dict[str, Any] | None:
    own = subject.photographs
    return own and {"file": own.file, "rows": list(own.rows), "names": list(own.names)}


def _distances(codewords: np.ndarray) -> dict[str, Any]:
    """Of all pairs, in 256 steps; of more than 512 codewords, of every so many."""
    every = -(-len(codewords) // HEAT)
    distances = pairwise_distances(codewords[::every].astype(np.float64))
    most = max(float(distances.max()), 1e-12)
    steps = np.round(distances * (255 / most)).astype(np.uint8)
    values = base64.b64encode(steps.tobytes()).decode("ascii")
    return {"every": every, "most": most, "values": values}


def _vectors(codewords: np.ndarray) -> str | None:
    """The codewords as base64 of float32, little-endian; None where they are many and wide."""
    if codewords.nbytes > MOST_VECTORS:
        return None
    return base64.b64encode(codewords.astype("<f4").tobytes()).decode("ascii")


def _direction(subject: Subject, index: int) -> dict[str, Any]:
    file, record = subject.directions[index]
    return {
        "id": f"direction:{index}",
        "file": file,
        "name": record.name or f"direction {index}",
        "layers": list(record.direction.layers),
        "unit": record.direction.unit,
        "source": dict(record.source),
        "measured": dict(record.measured),
        "vector": [float(f"{x:.8g}") for x in np.asarray(record.direction.vector)],
    }


def _rounded(values: Any, digits: int) -> list[float]:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def thumbs(subject: Subject, pictures: Pictures, side: int = THUMB) -> np.ndarray:
    """The codewords' images, uint8 [K, H, W, C], none larger than the side."""
    return at_most(pictures.render(subject.codewords), side)


def strips(
    subject: Subject,
    pictures: Pictures,
    ids: Mapping[str, tuple[int, int]],
    strengths: tuple[float, ...],
    *,
    seeds: int,
    side: int,
    on_strip: Callable[[], object] = lambda: None,
) -> np.ndarray:
    """Images at every strength along lines or directions, uint8 [M · S · strengths, H, W, C].

    Args:
      subject: of the page.
      pictures: its.
      ids: of lines and directions, each with its layers.
      strengths: in standard deviations.
      seeds: S, how many from 0 on, or photographs where the page has some.
      side: pixels of an image, at most.
      on_strip: called after each.
    """
    first, found = pictures.first(seeds), []
    for id, layers in ids.items():
        vector = vector_of(subject, id)
        codes = strip_codes(first, vector, layers, strengths)
        found.append(at_most(pictures.render(codes), side))
        on_strip()
    return np.concatenate(found)
