"""The images along a curve as a film, or one by one."""

import json
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from sfvq_jax.curve import Curve, decode
from sfvq_jax.images import render_images
from sfvq_jax.io import sweeps
from sfvq_jax.io.image_files import as_picture
from sfvq_jax.io.output import library_version, new_file, new_folder
from sfvq_jax.latent_model import LatentModel

WALK_MARKER = "walk.json"
AT_ONCE = 64  # images between two calls of `on_images`
MOST_FRAMES = 20_000


def write_walk(
    path: str | Path,
    model: LatentModel,
    curve: Curve,
    start: float,
    stop: float,
    *,
    frames: int = 4,
    side: int = 512,
    overwrite: bool = False,
    on_images: Callable[[int], object] = lambda count: None,
) -> int:
    """Renders the points of a stretch of the curve in order and writes them as a film or PNGs.

    The output is written whole or not at all.

    Args:
      path: a name that ends in .gif, .webp or .mp4 becomes a film there and back; any other name
        becomes a folder of PNGs, with their positions in walk.json.
      model: the generator.
      curve: a curve through its latents.
      start: first position of the stretch.
      stop: last position of the stretch, after the first.
      frames: number of images for each line; both ends of the stretch are included.
      side: largest size of an image, in pixels. All images of a film are in memory at once.
      overwrite: replace existing output.
      on_images: called from time to time with the number of new images.

    Returns:
      The number of images.

    Raises:
      ValueError: a stretch that is not on the curve, numbers that are too small or too large, or a
        film that cannot be written here.

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from sfvq_jax import Curve
    >>> from sfvq_jax.views import write_walk
    >>> model = SimpleNamespace(  # whose images are of one colour: red, green, blue
    ...     latent_dim=3, num_layers=1,
    ...     sample=lambda key, n, **_: jax.random.normal(key, (n, 3)),
    ...     render=lambda w: jnp.tanh(w.reshape(-1, 1, 1, 3)).repeat(8, 1).repeat(8, 2))
    >>> curve = Curve(jnp.array([[-2.0, 0, 0], [0, 0, 0], [2, 0, 0]]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_walk(f"{folder}/walk.gif", model, curve, start=0, stop=2, frames=3)  # images
    7
    """
    path = Path(path)
    if not 0 <= start < stop <= curve.num_lines:
        raise ValueError(
            f"the stretch from {start:g} to {stop:g} is none of 0-{curve.num_lines}, the curve's"
            " positions: start before its end"
        )
    if not (frames >= 1 and side >= 8):
        raise ValueError(f"frames is {frames} and side {side}; expected 1 or more, and 8 or more")
    count = max(2, round((stop - start) * frames) + 1)
    if count > MOST_FRAMES:
        raise ValueError(f"{count:,} images are more than {MOST_FRAMES:,}: take fewer a line")
    film = path.suffix.lower().removeprefix(".") in sweeps.KINDS
    if film:
        sweeps.check_kinds([path.suffix.lower().removeprefix(".")])
    positions = np.linspace(start, stop, count, dtype=np.float32)

    def blocks():
        for first in range(0, count, AT_ONCE):
            points = decode(curve, jnp.asarray(positions[first : first + AT_ONCE]))
            images = render_images(model, points, max_side=side)
            yield images
            on_images(len(images))

    if film:
        with new_file(path, overwrite=overwrite) as temporary:
            sweeps.save_sweep(temporary, np.concatenate(list(blocks())))
        return count
    width = len(str(count - 1))
    with new_folder(path, marker=WALK_MARKER, overwrite=overwrite) as folder:
        files = [f"{i:0{width}d}.png" for i in range(count)]
        for name, image in zip(files, (row for block in blocks() for row in block), strict=True):
            as_picture(image).save(folder / name)
        entries = [
            {"name": name, "position": float(position)}
            for name, position in zip(files, positions, strict=True)
        ]
        content = {"format_version": 1, "sfvq_jax": library_version(), "files": entries}
        (folder / WALK_MARKER).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return count
