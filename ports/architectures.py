"""The registry of architectures: models out of config and parameters, and what is told of them."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ports.biggan import BigGAN, BigGANConfig
from ports.biggan.model import init as init_biggan
from ports.classifier import Classifier
from ports.errors import CheckpointError, quoted
from ports.stylegan2 import StyleGAN2, StyleGAN2Config
from ports.stylegan2.model import init as init_stylegan2
from sfvq_jax.io.reading import one_line

Model = StyleGAN2 | BigGAN | Classifier

MAY_BE_ABSENT = {"constants/mapping/w_avg"}  # of a StyleGAN2 whose w cannot be truncated


class Layer(NamedTuple):
    """A layer that a code of its own can steer.

    Attributes:
      name: of the layer, or of the layers that share the code.
      resolution: height and width of its output in pixels, were images square.
    """

    name: str
    resolution: int


class Architecture(NamedTuple):
    """What is known of an architecture.

    Attributes:
      build: (config's fields, variables, hash of the parameters) -> the model.
      shapes: a model -> the variables that its config asks for, as shapes.
      facts: the config's fields -> those of `Inspection` that they say.
    """

    build: Callable[[dict, dict, str], Any]
    shapes: Callable[[Any], dict]
    facts: Callable[[dict], dict[str, Any]]


def model_of(config_json: dict, variables: dict) -> Model:
    """The model that a config describes, with these variables.

    Args:
      config_json: parsed; its `config` may hold anything.
      variables: nested dicts of arrays, or of their shapes alone.

    Raises:
      CheckpointError: the config describes no model, or one with other parameters.

    >>> import ports
    >>> from ports import checkpoint
    >>> from ports.architectures import model_of
    >>> config_json, variables = checkpoint.read(ports.bundled("fashion_mnist"), model_of)
    >>> model_of(config_json, variables).num_layers
    8
    """
    architecture = ARCHITECTURES[config_json["architecture"]]
    fields, model_hash = config_json["config"], config_json["parameters_sha256"]
    try:
        model = architecture.build(fields, variables, model_hash)
        expected = architecture.shapes(model)
    except Exception as error:  # of any kind: it may say anything
        raise CheckpointError(
            f"the config in config.json is damaged ({one_line(error)}); convert the model again"
        ) from error
    _check_same(_flat(variables), _flat(expected))
    return model


def _generator(kind: type, config: Any, init: Callable, facts: Callable) -> Architecture:
    return Architecture(
        build=lambda fields, variables, hash_: kind(variables, config.from_json(fields), hash_),
        shapes=lambda model: (
            jax.eval_shape(lambda: init(jax.random.key(0), model.config)).variables
        ),
        facts=facts,
    )


def _classifier_shapes(model: Classifier) -> dict:
    # the size of the images follows from what the first dense layer sees
    params = model.variables["params"]
    pixels = params["features"]["kernel"].shape[0] // model.channels[-1]
    side = math.isqrt(pixels) * 2 ** len(model.channels)
    images = jax.ShapeDtypeStruct((1, side, side, params["conv0"]["kernel"].shape[2]), jnp.float32)
    return dict(jax.eval_shape(model.network.init, jax.random.key(0), images))


def _check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in sorted(found.keys() | expected.keys() - MAY_BE_ABSENT):
        have, want = (
            tuple(tree[name].shape) if name in tree else None for tree in (found, expected)
        )
        if have != want:
            have, want = ("none" if shape is None else str(shape) for shape in (have, want))
            raise CheckpointError(
                f"the config in config.json is of another model: of {quoted(name)} it asks for"
                f" {want}, and there is {have}; convert the model again"
            )
        if np.dtype(found[name].dtype) != np.float32:
            raise CheckpointError(f"{quoted(name)} is {found[name].dtype}; expected float32")


def _flat(tree: dict) -> dict[str, Any]:
    return flax.traverse_util.flatten_dict(tree, sep="/")


def _stylegan2_facts(fields: dict) -> dict[str, Any]:
    config = StyleGAN2Config.from_json(fields)
    names: list[tuple[str, int]] = []
    rgb = ""
    for i, resolution in enumerate(config.block_resolutions):
        block = f"b{resolution}"
        # the RGB layer of a block shares the code of the next block's first convolution
        names += [(f"{block}.conv0{rgb}", resolution)] if i > 0 else []
        names += [(f"{block}.conv1", resolution)]
        rgb = f", {block}.torgb" if config.architecture == "skip" else ""
    names += [(f"b{config.img_resolution}.torgb", config.img_resolution)]
    return {
        "architecture": f"StyleGAN2 ({config.architecture})",
        "image_shape": config.image_shape,
        "num_classes": config.c_dim,
        "latent_spaces": {"stylegan2-w": config.w_dim, "stylegan2-z": config.z_dim},
        "layers": tuple(Layer(*name) for name in names),
    }


def _biggan_facts(fields: dict) -> dict[str, Any]:
    config = BigGANConfig.from_json(fields)
    layers = [Layer("linear", config.bottom_width)]
    if config.hierarchy != "none":  # otherwise the blocks see no latent
        layers += [Layer(f"block{i}", r) for i, r in enumerate(config.block_resolutions)]
    return {
        "architecture": "BigGAN-deep" if config.bottleneck else "BigGAN",
        "image_shape": (config.img_resolution, config.img_resolution, config.img_channels),
        "num_classes": config.num_classes,
        "latent_spaces": {"biggan-z": config.z_dim, "biggan-linear": config.linear_dim},
        "layers": tuple(layers),
    }


def _classifier_facts(fields: dict) -> dict[str, Any]:
    return {
        "architecture": "classifier",
        "image_shape": (),
        "num_classes": len(fields["class_names"]),
        "latent_spaces": {},
        "layers": (),
    }


ARCHITECTURES = {
    "stylegan2": _generator(StyleGAN2, StyleGAN2Config, init_stylegan2, _stylegan2_facts),
    "biggan": _generator(BigGAN, BigGANConfig, init_biggan, _biggan_facts),
    "classifier": Architecture(
        build=lambda fields, variables, _: Classifier.from_config(fields, variables),
        shapes=_classifier_shapes,
        facts=_classifier_facts,
    ),
}
