"""The curve: a pytree of codewords, and what follows from their order alone."""

import flax.struct
import jax
import jax.numpy as jnp
import optax

Array = jax.Array

SUBDIVISION_OFFSET = 0.01  # epsilon of the published example


@flax.struct.dataclass
class Curve:
    """A piecewise-linear curve.

    Letters, here and everywhere: N samples, D dimensions, K codewords. Line j goes from codeword j
    to codeword j + 1; a *position* is j + fraction, a float in [0, K - 1].

    Attributes:
      codewords: the corner points in order, [K, D] floating point, K >= 2.
    """

    codewords: Array

    @property
    def num_codewords(self) -> int:
        return self.codewords.shape[0]

    @property
    def num_lines(self) -> int:
        return self.codewords.shape[0] - 1

    @property
    def latent_dim(self) -> int:
        return self.codewords.shape[1]


def initial_curve(latents: Array) -> Curve:
    """Four codewords to start from: the means of four equal groups of the latents.

    The groups are quarters of the latents sorted by norm (Vali & Bäckström, Interspeech 2023).
    Where that tells little, because the data is centred on the origin and all four means fall near
    its centre, the latents are sorted along their first principal axis instead. "Little" is a curve
    of less than a quarter of the other one's length, or within twice the noise of such means.

    Args:
      latents: [N, D], N >= 4; up to three are left out where N is not a multiple of four.

    >>> import jax
    >>> initial_curve(jax.random.normal(jax.random.key(0), (256, 8))).codewords.shape
    (4, 8)
    """
    if latents.ndim != 2 or latents.shape[0] < 4:
        raise ValueError(f"latents has shape {latents.shape}; expected [N, D] with N >= 4")
    n = latents.shape[0]
    mean = latents.mean(0, keepdims=True)
    centred = latents - mean
    axis = _principal_axis(centred)
    by_norm = _group_means(latents, jnp.sum(latents**2, 1))
    by_axis = _group_means(latents, jnp.matmul(centred, axis, precision="highest"))
    noise = 3 * jnp.sqrt(8 / n * jnp.mean(jnp.sum(centred**2, 1)))
    enough = jnp.maximum(0.25 * curve_length(by_axis), 2 * noise)
    return Curve(jnp.where(curve_length(by_norm) > enough, by_norm.codewords, by_axis.codewords))


def decode(curve: Curve, position: Array) -> Array:
    """Points on the curve: positions of any shape [...] -> [..., D].

    A position is line + fraction; those outside [0, K - 1] are moved to the nearer end.

    >>> curve = Curve(jnp.array([[0.0, 0.0], [2.0, 0.0], [2.0, 4.0]]))
    >>> decode(curve, jnp.array(1.25)).tolist()
    [2.0, 1.0]
    """
    position = jnp.clip(jnp.asarray(position, curve.codewords.dtype), 0, curve.num_lines)
    line = jnp.minimum(position.astype(jnp.int32), curve.num_lines - 1)
    fraction = (position - line.astype(position.dtype))[..., None]
    return (1 - fraction) * curve.codewords[line] + fraction * curve.codewords[line + 1]


def line_lengths(curve: Curve) -> Array:
    """Euclidean length of each line, [K - 1]; the gradient of a length of 0 is 0."""
    return optax.safe_norm(jnp.diff(curve.codewords, axis=0), 0.0, axis=1)


def curve_length(curve: Curve) -> Array:
    """Length of the whole curve, a scalar."""
    return line_lengths(curve).sum()


def subdivide(curve: Curve) -> Curve:
    """A curve of twice as many codewords, all on the old curve.

    Each codeword i becomes a pair: positions (i, i + 0.01) in the first half of the indices and
    (i - 0.01, i) in the second (the public example of Vali & Bäckström).
    """
    index = jnp.arange(curve.num_codewords, dtype=curve.codewords.dtype)
    first_half = index < curve.num_codewords / 2
    start = jnp.where(first_half, index, index - SUBDIVISION_OFFSET)
    stop = jnp.where(first_half, index + SUBDIVISION_OFFSET, index)
    return Curve(decode(curve, jnp.stack([start, stop], 1).reshape(-1)))


def _group_means(latents: Array, order_by: Array) -> Curve:
    quarter = latents.shape[0] // 4
    ordered = latents[jnp.argsort(order_by)[: 4 * quarter]]
    return Curve(ordered.reshape(4, quarter, -1).mean(1))


def _principal_axis(centred: Array) -> Array:
    covariance = jnp.matmul(centred.T, centred, precision="highest")
    return jnp.linalg.eigh(covariance)[1][:, -1]
