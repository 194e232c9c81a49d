"""The images of a page: codes, one compiled program a batch size, sheets, and a queue that forgets.

Letters: N images, L layers, D dimensions, S seeds.
"""

import functools
import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sfvq_jax.explore.subject import SEEDS, Subject
from sfvq_jax.images import batch_of, image_shape, render_images
from sfvq_jax.interpret.edit import codes_of
from sfvq_jax.io.image_files import as_picture, resized
from sfvq_jax.latent_model import method

BATCH = 16  # images at once, fewer where they are large
LARGEST_STRENGTH = 20.0  # standard deviations
MOST_EDITS = 16
LARGEST_SIDE, SMALLEST_SIDE = 1024, 16  # pixels of a tile
LOSSLESS_SIDE = 128  # pixels, up to which sheets are PNG
MOST_WAITING = 64  # views that wait for a picture at once
MOST_SEEDS = 256  # latents of seeds that are kept
CHANNELS_SHOWN = (1, 3, 4)


class Edit(NamedTuple):
    """A line ("line:12") or a direction ("direction:3"), how strong, in which layers."""

    id: str
    strength: float
    layers: tuple[int, int]


class View(NamedTuple):
    """What one request asks for.

    Attributes:
      position: on the curve, whose image is the first tile.
      seeds: a tile each, moved along the line at the position.
      photographs: those of the subject in place of seeds, by their order in it.
      truncation: of the seeds.
      along: by so many standard deviations.
      layers: of the movement along the line.
      stack: edits of all tiles.
      side: pixels of a tile, at most.
    """

    position: float
    seeds: tuple[int, ...]
    photographs: tuple[int, ...]
    truncation: float | None
    along: float
    layers: tuple[int, int]
    stack: tuple[Edit, ...]
    side: int


def parse_view(content: Any, subject: Subject) -> View:
    """A view out of JSON values.

    Raises:
      ValueError: other values, or ones that the model or the curve does not have.
    """
    if not isinstance(content, dict):
        raise ValueError("a view is no JSON object")
    seed, count = whole(content.get("seed", 0), 0, 2**31), whole(content.get("count", 0), 0, SEEDS)
    truncation = content.get("truncation")
    if truncation is not None and subject.truncation is not None:
        truncation = number(truncation, 0, 1)
    stack = content.get("stack", [])
    if not isinstance(stack, list) or len(stack) > MOST_EDITS:
        raise ValueError(f"stack is no list of at most {MOST_EDITS} edits")
    first, photographs = content.get("photograph"), 0
    if first is not None:
        photographs = 0 if subject.photographs is None else len(subject.photographs.latents)
        first = whole(first, 0, photographs - 1)
    return View(
        position=number(content.get("position"), 0, subject.curve.num_lines),
        seeds=tuple(range(seed, seed + count)) if first is None else (),
        # after the last comes the first, so that there are always as many
        photographs=() if first is None else tuple((first + i) % photographs for i in range(count)),
        truncation=truncation if subject.truncation is not None else None,
        along=number(content.get("along", 0.0), -LARGEST_STRENGTH, LARGEST_STRENGTH),
        layers=layer_range(content.get("layers"), subject),
        stack=tuple(_edit(entry, subject) for entry in stack),
        side=whole(content.get("side", 256), SMALLEST_SIDE, LARGEST_SIDE),
    )


def _edit(content: Any, subject: Subject) -> Edit:
    if not isinstance(content, dict) or type(content.get("id")) is not str:
        raise ValueError("an edit of the stack has no id")
    edit = Edit(
        content["id"],
        number(content.get("strength"), -LARGEST_STRENGTH, LARGEST_STRENGTH),
        layer_range(content.get("layers"), subject),
    )
    vector_of(subject, edit.id)
    return edit


def number(value: Any, least: float, most: float) -> float:
    """A number in a range; else ValueError."""
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"expected a number from {least:g} to {most:g}")
    return float(value)


def whole(value: Any, least: int, most: int) -> int:
    """A whole number in a range; else ValueError."""
    if most < least:
        raise ValueError("there are none to choose from")
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"expected a whole number from {least} to {most}")
    return value


def layer_range(value: Any, subject: Subject) -> tuple[int, int]:
    """First and last layer; else ValueError. All of them for None."""
    last = subject.model.num_layers - 1
    if value is None:
        return 0, last
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("layers are not two numbers, the first and the last")
    first, stop = (whole(layer, 0, last) for layer in value)
    if first > stop:
        raise ValueError("the first of the layers comes after the last")
    return first, stop


def vector_of(subject: Subject, id: str) -> np.ndarray:
    """What strength 1 along a line or a direction adds to a code, [D].

    Raises:
      ValueError: no such line or direction.
    """
    kind, _, index = id.partition(":")
    known = {"line": len(subject.lines), "direction": len(subject.directions)}
    if not index.isdecimal() or len(index) > 6 or not int(index) < known.get(kind, 0):
        raise ValueError("there is no such line or direction")
    i = int(index)
    if kind == "line":
        return subject.lines[i] * subject.line_units[i]
    direction = subject.directions[i].record.direction
    return np.asarray(direction.vector, np.float32) * np.float32(direction.unit)


class Pictures:
    """Renders what is asked of a subject; a program is compiled once for each number of images."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self.shape = image_shape(subject.model)
        self._render = method(subject.model, "render")
        self._seeds: OrderedDict[tuple[int, float | None], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def codes(self, view: View) -> np.ndarray:
        """The image at the position first, then seeds or photographs, [1 + S, L, D] float32."""
        subject, layers = self.subject, self.subject.model.num_layers
        line = min(int(view.position), subject.curve.num_lines - 1)
        t = view.position - line
        point = (1 - t) * subject.codewords[line] + t * subject.codewords[line + 1]
        seeds = [self.seed(seed, view.truncation) for seed in view.seeds]
        codes = self._codes(np.stack([point, *seeds]))
        if view.photographs:
            codes = np.concatenate([codes, self._photographs(view.photographs)])
        for edit in view.stack:
            codes += _step(vector_of(subject, edit.id), edit.strength, edit.layers, layers)
        codes[1:] += _step(vector_of(subject, f"line:{line}"), view.along, view.layers, layers)
        return codes

    def first(self, count: int) -> np.ndarray:
        """Codes of the first photographs, or else of the first seeds, [S, L, D] float32."""
        subject = self.subject
        if subject.photographs is not None:
            return self._photographs(range(min(count, len(subject.photographs.latents))))
        seeds = [self.seed(seed, subject.truncation) for seed in range(count)]
        return self._codes(np.stack(seeds))

    def _photographs(self, which: Sequence[int]) -> np.ndarray:
        assert self.subject.photographs is not None
        return self._codes(self.subject.photographs.latents[list(which)])

    def _codes(self, latents: np.ndarray) -> np.ndarray:
        """[N, D] or [N, L, D] -> a copy [N, L, D] float32."""
        if latents.ndim == 3:
            return latents.astype(np.float32)
        return np.repeat(latents[:, None].astype(np.float32), self.subject.model.num_layers, 1)

    def seed(self, seed: int, truncation: float | None) -> np.ndarray:
        """The latent of a seed, as `sfvq-jax edit --seeds` draws it, [D]."""
        key = seed, truncation
        with self._lock:
            if key in self._seeds:
                return self._seeds[key]
        drawn = self.subject.model.sample(jax.random.key(seed), 1, truncation=truncation)
        latent = np.asarray(drawn)[0]
        with self._lock:
            self._seeds[key] = latent
            while len(self._seeds) > MOST_SEEDS:
                self._seeds.popitem(last=False)
        return latent

    def render(self, latents: np.ndarray) -> np.ndarray:
        """Images uint8 [N, H, W, C] of latents [N, D] or codes [N, L, D], any number of them."""
        if not self.shape:  # of a model that JAX cannot trace
            return render_images(self.subject.model, jnp.asarray(latents))
        layers, batch = self.subject.model.num_layers, batch_of(self.subject.model, BATCH)
        codes = np.asarray(codes_of(jnp.asarray(latents, jnp.float32), layers))
        count = len(codes)
        codes = np.pad(codes, [(0, -count % batch), (0, 0), (0, 0)], mode="edge")
        return np.concatenate(
            [self._now(codes[i : i + batch]) for i in range(0, len(codes), batch)]
        )[:count]

    def sheet(self, view: View) -> tuple[bytes, str]:
        """A view's tiles side by side, and the type of the picture."""
        images = self._now(self.codes(view))
        return encoded(tiled(images, view.side, columns=1 + SEEDS))

    def _now(self, codes: np.ndarray) -> np.ndarray:
        """Images of codes [N, L, D], all at once."""
        if not self.shape:
            return render_images(self.subject.model, jnp.asarray(codes))
        return np.asarray(_uint8_images(self._render, jnp.asarray(codes)))


@functools.partial(jax.jit)
def _uint8_images(render: jax.tree_util.Partial, codes: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(render(codes) * 127.5 + 127.5), 0, 255).astype(jnp.uint8)


def _step(vector: np.ndarray, strength: float, layers: tuple[int, int], count: int) -> np.ndarray:
    """What an edit adds to a code of each layer, [1, L, D]."""
    moved = (np.arange(count) >= layers[0]) & (np.arange(count) <= layers[1])
    return (moved[:, None] * (np.float32(strength) * vector))[None].astype(np.float32)


def tiled(images: np.ndarray, side: int, *, columns: int) -> np.ndarray:
    """Images [N, H, W, C] of at most this height and width as one, row by row."""
    images = at_most(images, side)
    n, h, w, c = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = np.zeros((rows * columns, h, w, c), np.uint8)
    sheet[:n] = images
    sheet = sheet.reshape(rows, columns, h, w, c).swapaxes(1, 2)
    return sheet.reshape(rows * h, columns * w, c)


def at_most(images: np.ndarray, side: int) -> np.ndarray:
    """Images [N, H, W, C] scaled down to at most this height and width."""
    height, width = images.shape[1:3]
    scale = side / max(height, width)
    if scale >= 1:
        return images
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    return np.stack([resized(image, h, w) for image in images])


def encoded(sheet: np.ndarray, *, quality: int | None = None) -> tuple[bytes, str]:
    """A picture [H, W, C] as bytes and their type: PNG where it is small, else JPEG.

    Args:
      sheet: of 1, 3 or 4 channels.
      quality: of WebP instead.

    Raises:
      ValueError: another number of channels.
    """
    if sheet.shape[-1] not in CHANNELS_SHOWN:
        raise ValueError(
            f"the images have {sheet.shape[-1]} channels; pictures have 1 (gray), 3 (RGB) or 4"
            " (RGBA)"
        )
    file, picture = io.BytesIO(), as_picture(sheet)
    if quality is not None:
        picture.save(file, "webp", quality=quality, method=4)
        return file.getvalue(), "image/webp"
    if sheet.shape[-1] == 4 or math.prod(sheet.shape[:2]) <= LOSSLESS_SIDE**2 * (1 + SEEDS):
        picture.save(file, "png", compress_level=1)
        return file.getvalue(), "image/png"
    picture.save(file, "jpeg", quality=90)
    return file.getvalue(), "image/jpeg"


class Queue:
    """One thread that does the newest work of each view; what was overtaken is dropped.

    Memory is bounded: a view has at most one piece of work that waits, and there are at most 64
    views.
    """

    def __init__(self):
        self._waiting: OrderedDict[str, tuple[Callable[[], Any], Future]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._work, name="pictures", daemon=True)
        self._thread.start()

    def put(self, view: str, work: Callable[[], Any]) -> Future:
        """A future of what the work gives; None once newer work of the same view came."""
        future: Future = Future()
        with self._changed:
            overtaken = self._waiting.pop(view, None)
            if overtaken is None and len(self._waiting) >= MOST_WAITING:
                _, overtaken = self._waiting.popitem(last=False)
            self._waiting[view] = (work, future)
            self._changed.notify()
        if overtaken is not None:
            self.dropped += 1
            _finish(overtaken[1], None)
        return future

    def close(self) -> None:
        """Ends the thread; what waits is dropped."""
        with self._changed:
            self._closed = True
            waiting = list(self._waiting.values())
            self._waiting.clear()
            self._changed.notify()
        for _, future in waiting:
            _finish(future, None)

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                _, (work, future) = self._waiting.popitem(last=False)
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except Exception as error:  # which the one that waits is told
                future.set_exception(error)
            else:
                future.set_result(result)


def _finish(future: Future, result: Any) -> None:
    if future.set_running_or_notify_cancel():
        future.set_result(result)


def strip_codes(
    codes: np.ndarray, vector: np.ndarray, layers: tuple[int, int], strengths: Sequence[float]
) -> np.ndarray:
    """Codes [S, L, D] at every strength along a vector, [S · strengths, L, D]."""
    steps = [_step(vector, strength, layers, codes.shape[1]) for strength in strengths]
    return np.concatenate([code[None] + np.concatenate(steps) for code in codes])
