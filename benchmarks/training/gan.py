"""How a generator is trained against StyleGAN2's discriminator, whatever the generator is.

Non-saturating logistic loss, lazy R1, EMA weights (StyleGAN2, §3 and Appendix B). Where there are
classes, the discriminator knows them by projection (Miyato & Koyama, 2018), and a classifier on its
features adds its loss (Odena et al., 2017). Both networks step at once on the same fake images,
which saves a quarter of the arithmetic. The same on CPU and GPU; steps are dispatched one by one
because convolutions inside `lax.scan` crawl on CPU.

Letters: N samples, R height and width, C channels of the images.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

import ports
from benchmarks.training.data import load_fashion_mnist
from benchmarks.training.discriminator import Discriminator
from ports import checkpoint

BATCH = 32
LEARNING_RATE = 2.5e-3
R1_GAMMA = 0.05
R1_INTERVAL = 16
EMA_HALF_LIFE = 10_000  # images
EMA_RAMP_UP = 0.05  # the half-life is at most this share of the images seen
SAVE_SECONDS = 120
CHECKED = 1000  # samples, whose classes are checked at each checkpoint

# lazy R1 changes how often Adam sees a gradient, and this corrects for it (StyleGAN2, Appendix B)
LAZY = R1_INTERVAL / (R1_INTERVAL + 1)
GENERATOR_OPTIMISER = optax.adam(LEARNING_RATE, b1=0.0, b2=0.99)
DISCRIMINATOR_OPTIMISER = optax.adam(LEARNING_RATE * LAZY, b1=0.0, b2=0.99**LAZY)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What sets one training apart from another.

    Attributes:
      architecture: one of `ports.architectures.ARCHITECTURES`.
      bundled: name of the model that it ships.
      config: of the generator.
      initial: key -> the generator's variables, {"params": …, "constants": …}; only the first are
        trained.
      generate: (variables, key, labels [N]) -> images [N, R, R, C] of random latents.
      finished: the averaged variables -> those to ship.
      discriminator: knows the number of classes.
      class_weight: of the classification loss of both networks.
    """

    architecture: str
    bundled: str
    config: Any
    initial: Callable[[jax.Array], dict]
    generate: Callable[[dict, jax.Array, jax.Array], jax.Array]
    finished: Callable[[dict], dict]
    discriminator: Discriminator
    class_weight: float = 0.0


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


class Data(NamedTuple):
    """What is imitated."""

    images: jax.Array  # [N, R, R, C] uint8
    labels: jax.Array  # [N] int32


def initial_state(recipe: Recipe, key: jax.Array) -> State:
    generator_key, discriminator_key = jax.random.split(key)
    variables = recipe.initial(generator_key)
    labels = jnp.zeros(4, jnp.int32)
    images = jax.eval_shape(recipe.generate, variables, key, labels)
    discriminator = recipe.discriminator.init(
        discriminator_key, jnp.zeros(images.shape, images.dtype), labels
    )["params"]
    generator = variables["params"]
    return State(
        generator=generator,
        discriminator=discriminator,
        average=generator,
        constants=variables["constants"],
        generator_optimiser=GENERATOR_OPTIMISER.init(generator),
        discriminator_optimiser=DISCRIMINATOR_OPTIMISER.init(discriminator),
        step=jnp.zeros((), jnp.int32),
        seconds=jnp.zeros(()),
    )


def draw_batch(key: jax.Array, data: Data) -> tuple[jax.Array, jax.Array]:
    """Images [BATCH, R, R, C] in [-1, 1] and labels [BATCH]."""
    rows = jax.random.randint(key, (BATCH,), 0, len(data.images))
    return data.images[rows].astype(jnp.float32) / 127.5 - 1, data.labels[rows]


@functools.partial(jax.jit, static_argnames="recipe")
def train_step(recipe: Recipe, state: State, key: jax.Array, data: Data) -> tuple[State, dict]:
    """One step of both networks on a batch of real images, and as many fake ones of its classes."""
    data_key, fakes_key = jax.random.split(jax.random.fold_in(key, state.step))
    reals, labels = draw_batch(data_key, data)

    def generate(params):
        variables = {"params": params, "constants": state.constants}
        return recipe.generate(variables, fakes_key, labels)

    def discriminate(params, images):
        """The logits, and the weighted loss of the classes."""
        logits, class_logits = recipe.discriminator.apply({"params": params}, images, labels)
        if not recipe.class_weight:
            return logits, 0.0
        losses = optax.softmax_cross_entropy_with_integer_labels(class_logits, labels)
        return logits, recipe.class_weight * losses.mean()

    def discriminator_loss(params):
        on_fakes, _ = discriminate(params, fakes)
        on_reals, class_loss = discriminate(params, reals)
        return nn.softplus(on_fakes).mean() + nn.softplus(-on_reals).mean() + class_loss

    def generator_loss(images):
        on_fakes, class_loss = discriminate(state.discriminator, images)
        return nn.softplus(-on_fakes).mean() + class_loss

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


@functools.partial(jax.jit, static_argnames="recipe")
def r1_step(recipe: Recipe, state: State, key: jax.Array, data: Data) -> State:
    """The gradient penalty on real images, R1_INTERVAL times as strong and as rare."""
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), 1)
    reals, labels = draw_batch(key, data)

    def penalty(params):
        logits, pull_back = jax.vjp(
            lambda x: recipe.discriminator.apply({"params": params}, x, labels)[0], reals
        )
        (gradient,) = pull_back(jnp.ones_like(logits))
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


def train(recipe: Recipe, folder: Path, data: Data, seconds: float, seed: int) -> State:
    """Goes on from the newest checkpoint in `folder` for so many seconds of training."""
    key = jax.random.key(seed)
    with open_checkpoints(folder) as checkpoints:
        state = restore(recipe, checkpoints, key)
        end, saved = float(state.seconds) + seconds, float(state.seconds)
        while True:
            start = time.monotonic()
            for _ in range(R1_INTERVAL):
                state, losses = train_step(recipe, state, key, data)
            state = jax.block_until_ready(r1_step(recipe, state, key, data))
            now = float(state.seconds) + time.monotonic() - start
            state = state._replace(seconds=jnp.asarray(now, jnp.float32))
            done = now > end
            if done or now - saved > SAVE_SECONDS:
                saved = now
                checkpoints.save(int(state.step), args=ocp.args.StandardSave(state._asdict()))
                record = {name: float(loss) for name, loss in losses.items()}
                record |= {"step": int(state.step), "seconds": now}
                if recipe.discriminator.num_classes:
                    record["class_share"] = class_share(recipe, state)
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(record) + "\n")
            if done:
                return state


def class_share(recipe: Recipe, state: State) -> float:
    """Share of the averaged generator's samples that are given the class that was asked for."""
    classifier = ports.load(ports.bundled("fashion_mnist_classifier"))
    labels = jnp.arange(CHECKED) % recipe.discriminator.num_classes
    variables = {"params": state.average, "constants": state.constants}
    images = jax.jit(recipe.generate)(variables, jax.random.key(0), labels)
    return float((classifier(images)[0].argmax(1) == labels).mean())


def export(recipe: Recipe, folder: Path, trained_by: str) -> None:
    """Ships the newest checkpoint in `folder` as the bundled generator."""
    with open_checkpoints(folder) as checkpoints:
        state = restore(recipe, checkpoints, jax.random.key(0))
    source = {
        "format": f"trained by {trained_by} on Fashion-MNIST",
        "date": datetime.date.today().isoformat(),
        "steps": int(state.step),
        "images": int(state.step) * BATCH,
        "seconds": round(float(state.seconds)),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
    }
    variables = recipe.finished({"params": state.average, "constants": state.constants})
    checkpoint.save(
        ports.BUNDLED / recipe.bundled,
        recipe.architecture,
        recipe.config.to_json(),
        jax.tree.map(np.asarray, variables),
        source=source,
        overwrite=True,
    )
    print(source)


def open_checkpoints(folder: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
    return ocp.CheckpointManager(folder.absolute() / "checkpoints", options=options)


def restore(recipe: Recipe, checkpoints: ocp.CheckpointManager, key: jax.Array) -> State:
    state = initial_state(recipe, key)
    if (step := checkpoints.latest_step()) is None:
        return state
    return State(**checkpoints.restore(step, args=ocp.args.StandardRestore(state._asdict())))


def main(recipe: Recipe, description: str) -> None:
    """The command line of a training, whose module is named as the architecture is."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--seconds", type=float, default=7200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export", action="store_true", help="ship the newest checkpoint")
    folder = Path("runs") / recipe.architecture
    parser.add_argument("--folder", type=Path, default=folder, help="checkpoints")
    arguments = parser.parse_args()
    if arguments.export:
        export(recipe, arguments.folder, f"benchmarks.training.{recipe.architecture}")
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    data = Data(*map(jnp.asarray, load_fashion_mnist(arguments.data, "train")))
    train(recipe, arguments.folder, data, arguments.seconds, arguments.seed)
