"""Trains the bundled StyleGAN2 on Fashion-MNIST: 32x32, grayscale, unconditional.

    python -m benchmarks.training.stylegan2 DATA --seconds 7200  # starts, or goes on where it was
    python -m benchmarks.training.stylegan2 DATA --export        # into ports/bundled/fashion_mnist

Non-saturating logistic loss, lazy R1, EMA weights (StyleGAN2, §3 and Appendix B). Both networks
step at once on the same fake images, which saves a quarter of the arithmetic. The same on CPU and
GPU; steps are dispatched one by one because convolutions inside `lax.scan` crawl on CPU.
"""

import argparse
import datetime
import json
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from benchmarks.training.data import load_fashion_mnist
from ports import BUNDLED, checkpoint
from ports.stylegan2 import StyleGAN2, StyleGAN2Config, init
from ports.stylegan2.network import FullyConnected, bias_act, conv, fir

CONFIG = StyleGAN2Config(
    z_dim=64,
    c_dim=0,
    w_dim=64,
    img_resolution=32,
    img_channels=1,
    mapping_layers=4,
    embed_features=0,
    layer_features=64,
    channels=(128, 128, 64, 32),
)
BATCH = 32
LEARNING_RATE = 2.5e-3
R1_GAMMA = 0.05
R1_INTERVAL = 16
EMA_HALF_LIFE = 10_000  # images
EMA_RAMP_UP = 0.05  # the half-life is at most this share of the images seen
SAVE_SECONDS = 120


class State(NamedTuple):
    """All that is needed to go on."""

    generator: dict  # params
    discriminator: dict  # params
    average: dict  # exponential moving average of `generator`
    constants: dict
    generator_optimiser: optax.OptState
    discriminator_optimiser: optax.OptState
    step: jax.Array  # int32
    seconds: jax.Array  # spent in training so far


class Discriminator(nn.Module):
    """The residual discriminator of StyleGAN2: images [N, R, R, C] -> logits [N]."""

    channels: tuple[int, ...]  # from the image's resolution down to 4x4
    resample_filter: tuple[float, ...] = CONFIG.resample_filter

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = self._conv("from_rgb", images, self.channels[0], 1)
        for i, channels in enumerate(self.channels[1:]):
            y = _downsample(self._conv(f"skip{i}", x, channels, 1, "linear", bias=False, down=True))
            x = self._conv(f"conv0_{i}", x, x.shape[-1], 3)
            x = self._conv(f"conv1_{i}", x, channels, 3, down=True)
            x = (x + y) * math.sqrt(0.5)
        x = _append_batch_deviation(x)
        x = self._conv("last", x, self.channels[-1], 3)
        x = FullyConnected(self.channels[-1], activation="lrelu", name="fc")(x.reshape(len(x), -1))
        return FullyConnected(1, name="out")(x)[:, 0]

    def _conv(self, name, x, features, k, activation="lrelu", *, bias=True, down=False):
        init_normal = nn.initializers.normal(1.0)
        weight = self.param(f"{name}_weight", init_normal, (k, k, x.shape[-1], features))
        weight = weight / math.sqrt(k * k * x.shape[-1])
        if down:
            pad = (k // 2 + 1, k // 2 + 1)
            x = fir(x, self.resample_filter, [pad, pad])
            x = _strided_conv(x, weight) if k > 1 else conv(x, weight)
        else:
            x = conv(x, weight)
        if not bias:
            return x
        return bias_act(
            x, self.param(f"{name}_bias", nn.initializers.zeros, (features,)), activation
        )


def _downsample(x: jax.Array) -> jax.Array:
    return x[:, ::2, ::2]


def _strided_conv(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Stride-2 convolution without padding, as one matrix product (fast gradients on CPU)."""
    k, _, in_features, features = weight.shape
    n = (x.shape[1] - k) // 2 + 1
    taps = [x[:, i : i + 2 * n - 1 : 2, j : j + 2 * n - 1 : 2] for i in range(k) for j in range(k)]
    return jnp.concatenate(taps, -1) @ weight.reshape(k * k * in_features, features)


def _append_batch_deviation(x: jax.Array, group: int = 4) -> jax.Array:
    """Adds a channel: the mean deviation within groups of images, against mode collapse."""
    n, h, w, c = x.shape
    y = x.reshape(group, n // group, h, w, c)
    y = jnp.sqrt(y.var(0) + 1e-8).mean((1, 2, 3))
    y = jnp.tile(y, group)[:, None, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(y, (n, h, w, 1))], -1)


DISCRIMINATOR = Discriminator(CONFIG.channels[::-1])
# lazy R1 changes how often Adam sees a gradient, and this corrects for it (StyleGAN2, Appendix B)
LAZY = R1_INTERVAL / (R1_INTERVAL + 1)
GENERATOR_OPTIMISER = optax.adam(LEARNING_RATE, b1=0.0, b2=0.99)
DISCRIMINATOR_OPTIMISER = optax.adam(LEARNING_RATE * LAZY, b1=0.0, b2=0.99**LAZY)


def initial_state(key: jax.Array) -> State:
    generator_key, discriminator_key = jax.random.split(key)
    model = init(generator_key, CONFIG)
    images = jnp.zeros((4, *model.image_shape))
    discriminator = DISCRIMINATOR.init(discriminator_key, images)["params"]
    generator = model.variables["params"]
    return State(
        generator=generator,
        discriminator=discriminator,
        average=generator,
        constants=model.variables["constants"],
        generator_optimiser=GENERATOR_OPTIMISER.init(generator),
        discriminator_optimiser=DISCRIMINATOR_OPTIMISER.init(discriminator),
        step=jnp.zeros((), jnp.int32),
        seconds=jnp.zeros(()),
    )


def draw_batch(key: jax.Array, images: jax.Array) -> jax.Array:
    rows = jax.random.randint(key, (BATCH,), 0, len(images))
    return images[rows].astype(jnp.float32) / 127.5 - 1


@jax.jit
def train_step(state: State, key: jax.Array, images: jax.Array) -> tuple[State, dict]:
    """One step of both networks on a batch drawn from `images` [N, H, W, C] uint8."""
    data_key, z_key, noise_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    reals = draw_batch(data_key, images)
    z = jax.random.normal(z_key, (BATCH, CONFIG.z_dim))

    def generate(params):
        model = StyleGAN2({"params": params, "constants": state.constants}, CONFIG)
        return model.synthesis(model.mapping(z), "random", key=noise_key)

    def discriminator_loss(params):
        on_fakes = DISCRIMINATOR.apply({"params": params}, fakes)
        on_reals = DISCRIMINATOR.apply({"params": params}, reals)
        return nn.softplus(on_fakes).mean() + nn.softplus(-on_reals).mean()

    def generator_loss(images):
        return nn.softplus(-DISCRIMINATOR.apply({"params": state.discriminator}, images)).mean()

    fakes, pull_back = jax.vjp(generate, state.generator)
    d_loss, d_gradient = jax.value_and_grad(discriminator_loss)(state.discriminator)
    g_loss, image_gradient = jax.value_and_grad(generator_loss)(fakes)
    (g_gradient,) = pull_back(image_gradient)

    generator, generator_optimiser = _update(
        GENERATOR_OPTIMISER, g_gradient, state.generator_optimiser, state.generator
    )
    discriminator, discriminator_optimiser = _update(
        DISCRIMINATOR_OPTIMISER, d_gradient, state.discriminator_optimiser, state.discriminator
    )
    seen = (state.step + 1).astype(jnp.float32) * BATCH
    half_life = jnp.minimum(EMA_HALF_LIFE, seen * EMA_RAMP_UP)
    decay = 0.5 ** (BATCH / jnp.maximum(half_life, 1e-8))
    average = jax.tree.map(lambda a, p: p + decay * (a - p), state.average, generator)
    state = state._replace(
        generator=generator,
        discriminator=discriminator,
        average=average,
        generator_optimiser=generator_optimiser,
        discriminator_optimiser=discriminator_optimiser,
        step=state.step + 1,
    )
    return state, {"d_loss": d_loss, "g_loss": g_loss}


@jax.jit
def r1_step(state: State, key: jax.Array, images: jax.Array) -> State:
    """The gradient penalty on real images, R1_INTERVAL times as strong and as rare."""
    reals = draw_batch(jax.random.fold_in(jax.random.fold_in(key, state.step), 1), images)

    def penalty(params):
        total, pull_back = jax.vjp(
            lambda x: DISCRIMINATOR.apply({"params": params}, x).sum(), reals
        )
        (gradient,) = pull_back(jnp.ones_like(total))
        return 0.5 * R1_GAMMA * R1_INTERVAL * (gradient**2).sum((1, 2, 3)).mean()

    discriminator, optimiser = _update(
        DISCRIMINATOR_OPTIMISER,
        jax.grad(penalty)(state.discriminator),
        state.discriminator_optimiser,
        state.discriminator,
    )
    return state._replace(discriminator=discriminator, discriminator_optimiser=optimiser)


def _update(optimiser, gradient, optimiser_state, params):
    updates, optimiser_state = optimiser.update(gradient, optimiser_state)
    return optax.apply_updates(params, updates), optimiser_state


def averaged_model(state: State) -> StyleGAN2:
    """The generator to ship: EMA weights, and the mean of W over 2**16 latents."""
    model = StyleGAN2({"params": state.average, "constants": state.constants}, CONFIG)
    w_avg = model.sample(jax.random.key(0), 2**16).mean(0)
    constants = {**state.constants, "mapping": {"w_avg": w_avg}}
    return model.replace(variables={"params": state.average, "constants": constants})


def train(folder: Path, images: np.ndarray, seconds: float, seed: int) -> State:
    """Goes on from the newest checkpoint in `folder` for so many seconds."""
    key = jax.random.key(seed)
    images = jnp.asarray(images)
    with open_checkpoints(folder) as checkpoints:
        state = restore(checkpoints, key)
        start = saved = time.monotonic()
        before = float(state.seconds)
        while True:
            for _ in range(R1_INTERVAL):
                state, losses = train_step(state, key, images)
            state = r1_step(state, key, images)
            jax.block_until_ready(state)
            now = time.monotonic()
            done = now - start > seconds
            if done or now - saved > SAVE_SECONDS:
                saved = now
                state = state._replace(seconds=jnp.asarray(before + now - start, jnp.float32))
                checkpoints.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))
                record = {name: float(loss) for name, loss in losses.items()}
                record |= {"step": int(state.step), "seconds": float(state.seconds)}
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
            if done:
                return state


def export(folder: Path) -> None:
    """Ships the newest checkpoint in `folder` as the bundled generator."""
    with open_checkpoints(folder) as checkpoints:
        state = restore(checkpoints, jax.random.key(0))
    source = {
        "format": "trained by benchmarks.training.stylegan2 on Fashion-MNIST",
        "date": datetime.date.today().isoformat(),
        "steps": int(state.step),
        "images": int(state.step) * BATCH,
        "seconds": round(float(state.seconds)),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
    }
    variables = jax.tree.map(np.asarray, averaged_model(state).variables)
    checkpoint.save(
        BUNDLED / "fashion_mnist",
        "stylegan2",
        CONFIG.to_json(),
        variables,
        source=source,
        overwrite=True,
    )
    print(source)


def open_checkpoints(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.absolute() / "checkpoints", options=options)


def restore(checkpoints: ocp.CheckpointManager, key: jax.Array) -> State:
    state = initial_state(key)
    if (step := checkpoints.latest_step()) is None:
        return state
    return State(**checkpoints.restore(step, args=ocp.args.StandardRestore(state._asdict())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--seconds", type=float, default=7200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="ship the newest checkpoint")
    parser.add_argument("--folder", type=Path, default=Path("runs/stylegan2"), help="checkpoints")
    arguments = parser.parse_args()
    if arguments.export:
        export(arguments.folder)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    images, _ = load_fashion_mnist(arguments.data, "train")
    train(arguments.folder, images, arguments.seconds, arguments.seed)


if __name__ == "__main__":
    main()
