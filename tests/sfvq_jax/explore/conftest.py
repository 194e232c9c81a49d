"""A small subject: a model of spots of light whose names are an attack."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfvq_jax import Curve, CurveRecord, save_curve
from sfvq_jax.explore.subject import NamedDirection, Photographs, Subject, own_data
from sfvq_jax.interpret import (
    Direction,
    DirectionRecord,
    Scorer,
    image_statistics,
    join,
    judging_statistics,
)

EVIL = "</script><script>window.evil = 1</script><img src=x onerror='window.evil = 2'>"


@flax.struct.dataclass
class Spots:
    """Latents [N, 4] -> images [N, 16, 16, 1]: place of a spot, its size and light."""

    scale: jax.Array

    latent_dim = 4
    num_layers = 2
    latent_space = "spots-z"
    model_hash = "5b" * 32

    def sample(self, key, n, *, label=None, truncation=None):
        return jax.random.normal(key, (n, 4)) * (1 if truncation is None else truncation)

    def render(self, latents):
        if latents.ndim == 2:
            latents = jnp.broadcast_to(latents[:, None], (latents.shape[0], 2, 4))
        place = jnp.arange(16, dtype=latents.dtype) - 7.5
        x, y = (3 * latents[:, 0, i, None] * self.scale for i in (0, 1))
        size = (2 + latents[:, 1, 2, None] / 2) ** 2
        along = [jnp.exp(-((place[None] - at) ** 2) / size) for at in (x, y)]
        light = jax.nn.sigmoid(latents[:, 1, 3])[:, None, None]
        return (2 * light * along[1][:, :, None] * along[0][:, None] - 1)[..., None]


def sides(images):
    """Log-odds of left and right."""
    grey = images[..., 0]
    left, right = grey[:, :, :8].sum((1, 2)), grey[:, :, 8:].sum((1, 2))
    return jnp.tanh(jnp.stack([left - right, right - left], 1) / 8) * 6


@pytest.fixture(scope="session")
def subject():
    model = Spots(jnp.float32(1.0))
    t = np.linspace(0, 1, 12)[:, None]
    codewords = np.concatenate([4 * t - 2, np.sin(6 * t), 0 * t, 1 - t], 1).astype(np.float32)
    record = CurveRecord(Curve(jnp.asarray(codewords)), "spots-z", model.model_hash)
    side = Scorer.of(sides, ["left", "right"], 0.0)
    find, judge = join(image_statistics(), side), join(judging_statistics(), side)
    vector = jnp.array([1.0, 0.0, 0.0, 0.0])
    effects = {"right": {"mean": 0.9, "low": 0.8, "high": 1.0, "agree": 1.0}}
    measured = {
        "attribute": "right", "confirmed": True, "effects": effects, "judged": effects,
        "entanglement": 0.3, "limits": [None, 3.0], "gain": None,
    }  # fmt: skip
    direction = DirectionRecord(
        Direction(vector, (0, 0), 1.0), f"to the right {EVIL}", "spots-z", model.model_hash,
        {"codewords": [0, 3]}, measured,
    )  # fmt: skip
    latents = np.asarray(model.sample(jax.random.key(9), 500))
    labels = np.where(latents[:, 0] > 0, "right", f"left {EVIL}")
    data = own_data(latents, record.curve, name=f"mine {EVIL}.npy", labels=labels)
    codes = np.stack([latents[:3], latents[3:6]], 1)
    names = ["me", f"you {EVIL}", "both"]
    return Subject(
        model, record, find, judge, classes=("left", "right"),
        directions=(NamedDirection("right.json", direction),),
        model_name=f"spots {EVIL}", curve_name="curve.npz", data=data,
        photographs=Photographs(codes, "us.npz", [0, 2, 5], names),
    )  # fmt: skip


@pytest.fixture(scope="session")
def explorer(subject, tmp_path_factory):
    pytest.importorskip("starlette", reason="the live page takes the extra [explore]")
    from sfvq_jax.explore.server import Explorer

    curve = tmp_path_factory.mktemp("explore") / "curve.npz"
    save_curve(curve, subject.record)
    made = Explorer(subject, curve)
    yield made
    made.close()


@pytest.fixture(scope="session")
def evil():
    return EVIL
