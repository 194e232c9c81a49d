"""What a checkpoint is, converted or not, without writing anything."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ports import checkpoint, upstream
from ports.architectures import model_of
from ports.biggan import BigGANConfig
from ports.stylegan2 import StyleGAN2Config
from sfvq_jax.short import short_repr


class Layer(NamedTuple):
    """A layer that a code of its own can steer.

    Attributes:
      name: of the layer, or of the layers that share the code.
      resolution: height and width of its output in pixels, were images square.
    """

    name: str
    resolution: int


class Inspection(NamedTuple):
    """What `inspect` tells.

    Attributes:
      format: the upstream project, or how the model was made.
      architecture: such as 'StyleGAN2 (skip)' or 'BigGAN-deep'.
      image_shape: (H, W, C).
      num_classes: 0 of an unconditional generator.
      num_parameters: numbers in its weights; statistics and noise are not counted.
      latent_spaces: {name: number of dimensions}.
      layers: from the bottom up; an edit's layer range counts them from 0.
      model_hash: SHA-256 of the parameters, as curves and directions keep it.
      source: where it comes from: file, its SHA-256 and more.
      versions: that it was converted with; empty before.
    """

    format: str
    architecture: str
    image_shape: tuple[int, ...]
    num_classes: int
    num_parameters: int
    latent_spaces: dict[str, int]
    layers: tuple[Layer, ...]
    model_hash: str
    source: dict[str, Any]
    versions: dict[str, str]

    __repr__ = short_repr


def inspect(
    path: str | Path, config: str | Path | None = None, network: str | None = None
) -> Inspection:
    """What the checkpoint at `path` is.

    Args:
      path: an upstream checkpoint, or the folder of a converted model.
      config, network: as in `convert`.

    Raises:
      CheckpointError: where it is none, or a damaged one.
    """
    if checkpoint.is_converted(path):
        config_json, variables = checkpoint.read(path, model_of)
        kind, source = config_json["architecture"], config_json["source"]
        model_hash, versions = config_json["parameters_sha256"], config_json["versions"]
        fields = config_json["config"]
    else:
        converted = upstream.read(path, config, network)
        kind, source, variables = converted.architecture, converted.source, converted.variables
        model_hash, versions = checkpoint.parameters_sha256(variables), {}
        fields = converted.config.to_json()
    return Inspection(
        format=source.get("format", "unknown"),
        num_parameters=sum(np.size(leaf) for leaf in jax.tree.leaves(variables["params"])),
        model_hash=model_hash,
        source={name: value for name, value in source.items() if name != "format"},
        versions=versions,
        **_FACTS[kind](fields),
    )


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


_FACTS = {"stylegan2": _stylegan2_facts, "biggan": _biggan_facts, "classifier": _classifier_facts}
