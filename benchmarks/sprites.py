"""Sprites as of dSprites, drawn with known factors, and factors measured in any image of one.

dSprites (Matthey et al., 2017) has white squares, ellipses and hearts of 64x64 pixels in all
combinations of 32 positions x and y, 6 scales and 40 orientations. Its files are not needed here:
these are drawn anew, with sizes at which the VAEs that were trained on it reconstruct them best.
Two things differ. All shapes of a scale have the same area. Orientations fill one period of their
shape (a square looks the same after 90 degrees, an ellipse after 180, a heart after 360), so that
equal images never differ in a factor, and an orientation is told as a part of that period.

Letters: N images, F factors.
"""

from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array

SIDE = 64
FACTORS = ("x", "y", "scale", "orientation", "shape")
VALUES = (32, 32, 6, 40, 3)  # of each factor
SHAPES = ("square", "ellipse", "heart")
PERIODS = (90, 180, 360)  # degrees
MARGIN = 16.0  # pixels from the border to the first and the last centre
WHOLE = 16.0  # root of the area of a sprite of scale 1, in pixels
ELLIPSE = 12 / 7  # long axis ÷ short axis
HEART_AREA, HEART_MIDDLE = 3.66146, 0.29347  # of (u² + v² - 1)³ = u² v³
LEAST_AREA = 25.0  # pixels; the smallest sprite has 64


class Factors(NamedTuple):
    """Of sprites: what they were drawn with, or what was measured in their images.

    Attributes:
      x, y: centroid in pixels from the left and upper border, [N].
      scale: root of the area ÷ 16 pixels, .5 to 1 of those that are drawn, [N].
      orientation: anticlockwise, in periods of the shape, [N] in [0, 1).
      shape: number in `SHAPES`, [N].
    """

    x: np.ndarray
    y: np.ndarray
    scale: np.ndarray
    orientation: np.ndarray
    shape: np.ndarray


_MIDDLE = np.full(3, 31.5)
UPRIGHT = Factors(_MIDDLE, _MIDDLE, np.ones(3), np.zeros(3), np.arange(3))


def draw_values(random: np.random.Generator, n: int) -> np.ndarray:
    """Numbers [N, F] of values of all factors, independent and equally likely."""
    return random.integers(0, VALUES, (n, len(VALUES)))


def factors_of(values: np.ndarray) -> Factors:
    """What the numbers [N, F] of `draw_values` stand for."""
    x, y, scale, orientation, shape = values.T
    span = SIDE - 2 * MARGIN
    return Factors(
        MARGIN + span * x / (VALUES[0] - 1),
        MARGIN + span * y / (VALUES[1] - 1),
        0.5 + 0.5 * scale / (VALUES[2] - 1),
        orientation / VALUES[3],
        shape,
    )


def draw(factors: Factors) -> np.ndarray:
    """Images [N, 64, 64, 1], 1 where the middle of a pixel lies in the sprite and -1 elsewhere."""
    turned = factors.orientation * np.radians(np.asarray(PERIODS)[factors.shape])
    columns = (factors.x, factors.y, factors.scale * WHOLE, turned)
    return np.asarray(_draw(*(np.asarray(c, np.float32) for c in columns), factors.shape))


def measure(images: Array | np.ndarray) -> tuple[Factors, np.ndarray]:
    """Factors of the sprites in images [N, 64, 64, 1], and in which of them one is seen, [N] bool.

    By moments of brightness about its centroid, with z = dx + i dy. The shape is that whose
    |Σ z²|, |Σ z³| and |Σ z⁴|, each ÷ the same sum of |z|, are nearest. The orientation is the angle
    of Σ z⁴ of a square, of Σ z² of an ellipse, and of Σ z³ of a heart, of whose three the one
    nearest to that of Σ |z|² z is taken.
    """
    seen, known = _moments(images), _moments(draw(UPRIGHT))
    shape = np.square(seen.kind[:, None] - known.kind).sum(2).argmin(1)
    rows = np.arange(len(shape))
    turn = (seen.angles[rows, shape] - known.angles[shape, shape]) / (2 * np.pi)
    factors = Factors(seen.x, seen.y, np.sqrt(seen.area) / WHOLE, turn % 1, shape)
    return factors, seen.area >= LEAST_AREA


def changes(before: Factors, after: Factors) -> np.ndarray:
    """Signed changes [N, 4] of x, y, scale and orientation, this one within ± half a period.

    A heart's is told within a third of its period: blurred, it is a triangle.
    """
    folds = np.where(before.shape == SHAPES.index("heart"), 3, 1)
    turned = ((after.orientation - before.orientation) * folds + 0.5) % 1 - 0.5
    moved = (after.x - before.x, after.y - before.y, after.scale - before.scale)
    return np.stack([*moved, turned], 1)


class _Moments(NamedTuple):
    x: np.ndarray  # [N]
    y: np.ndarray
    area: np.ndarray
    kind: np.ndarray  # [N, 3], of orders 2, 3 and 4
    angles: np.ndarray  # [N, 3], that a square, an ellipse and a heart turn with


@jax.jit
def _draw(x: Array, y: Array, size: Array, turned: Array, shape: Array) -> Array:
    rows, columns = jnp.mgrid[:SIDE, :SIDE].astype(jnp.float32)[:, None]  # [1, H, W]
    dx, dy = columns - x[:, None, None], rows - y[:, None, None]
    cos, sin = jnp.cos(turned)[:, None, None], jnp.sin(turned)[:, None, None]
    size = size[:, None, None]
    u, v = (cos * dx - sin * dy) / size, -(sin * dx + cos * dy) / size  # of area 1; v is up
    square = jnp.maximum(jnp.abs(u), jnp.abs(v)) < 0.5
    ellipse = jnp.pi * (u**2 / ELLIPSE + v**2 * ELLIPSE) < 1
    p, q = u * HEART_AREA**0.5, v * HEART_AREA**0.5 + HEART_MIDDLE
    heart = (p**2 + q**2 - 1) ** 3 < p**2 * q**3
    kind = shape[:, None, None]
    inside = jnp.where(kind == 0, square, jnp.where(kind == 1, ellipse, heart))
    return jnp.where(inside, 1.0, -1.0)[..., None].astype(jnp.float32)


def _moments(images: Array | np.ndarray) -> _Moments:
    light = np.clip((np.asarray(images, np.float64)[..., 0] + 1) / 2, 0, 1)
    pixels, orders = np.arange(SIDE) - (SIDE - 1) / 2, np.arange(5)
    powers = pixels[:, None] ** orders
    raw = np.swapaxes(powers.T @ light @ powers, 1, 2)  # [N, 5, 5]: Σ of light x^a y^b
    area = np.maximum(raw[:, 0, 0], 1e-9)
    x, y = raw[:, 1, 0] / area, raw[:, 0, 1] / area
    central = _shift(x) @ raw @ np.swapaxes(_shift(y), 1, 2)

    def whirl(n: int) -> np.ndarray:  # Σ of light zⁿ
        return sum(comb(n, k) * (-1j) ** k * central[:, n - k, k] for k in range(n + 1))

    size = np.sqrt((central[:, 2, 0] + central[:, 0, 2]) / area) + 1e-9  # of |z|, its rms
    second, third, fourth = (whirl(n) / area / size**n for n in (2, 3, 4))
    lean = central[:, 3, 0] + central[:, 1, 2] - 1j * (central[:, 2, 1] + central[:, 0, 3])
    # of the three angles of a heart that fit Σ z³, that nearest to the tip's, which lies opposite
    # to Σ |z|² z: the wide part weighs more
    tip, third_angle = 3 * np.angle(-lean), np.angle(third)
    heart = (third_angle + 2 * np.pi * np.round((tip - third_angle) / (2 * np.pi))) / 3
    middle = (SIDE - 1) / 2
    return _Moments(
        x + middle,
        y + middle,
        raw[:, 0, 0],
        np.abs(np.stack([second, third, fourth], 1)),
        np.stack([np.angle(fourth), np.angle(second), heart], 1),
    )


def _shift(by: np.ndarray) -> np.ndarray:
    """Matrices [N, 5, 5] that take Σ xᵃ to Σ (x - by)ᵃ."""
    matrix = np.zeros((len(by), 5, 5))
    for a in range(5):
        for k in range(a + 1):
            matrix[:, a, k] = comb(a, k) * (-by) ** (a - k)
    return matrix
