"""Converted models out of config and parameters, which are checked against each other."""

import math
from typing import Any

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


def model_of(config_json: dict, variables: dict, **options: Any) -> Model:
    """The model that a config describes, with these variables.

    Args:
      config_json: parsed; its `config` may hold anything.
      variables: nested dicts of arrays, or of their shapes alone.
      options: `dtype` of a generator.

    Raises:
      CheckpointError: the config describes no model, or one with other parameters.
    """
    fields, model_hash = config_json["config"], config_json["parameters_sha256"]
    try:
        if config_json["architecture"] == "classifier":
            model: Model = Classifier.from_config(fields, variables)
        elif config_json["architecture"] == "stylegan2":
            model = StyleGAN2(variables, StyleGAN2Config.from_json(fields), model_hash, **options)
        else:
            model = BigGAN(variables, BigGANConfig.from_json(fields), model_hash, **options)
        expected = _shapes_of(model)
    except Exception as error:  # of any kind: it may say anything
        raise CheckpointError(
            f"the config in config.json is damaged ({one_line(error)}); convert the model again"
        ) from error
    _check_same(_flat(variables), _flat(expected))
    return model


def _shapes_of(model: Model) -> dict:
    """The variables that a model's config asks for, as shapes."""
    key = jax.random.key(0)
    if isinstance(model, StyleGAN2):
        return jax.eval_shape(lambda: init_stylegan2(key, model.config)).variables
    if isinstance(model, BigGAN):
        return jax.eval_shape(lambda: init_biggan(key, model.config)).variables
    # the size of the images follows from what the first dense layer sees
    params = model.variables["params"]
    pixels = params["features"]["kernel"].shape[0] // model.channels[-1]
    side, channels = (
        math.isqrt(pixels) * 2 ** len(model.channels),
        params["conv0"]["kernel"].shape[2],
    )
    images = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
    return dict(jax.eval_shape(model.network.init, key, images))


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
