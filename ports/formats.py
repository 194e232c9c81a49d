"""The registry of upstream formats: what is converted, and what is refused by its name."""

from typing import Any

from ports.biggan import convert_ajbrock, convert_huggingface, convert_studiogan
from ports.errors import CheckpointError
from ports.state_dict import Candidate, Format
from ports.stylegan2 import (
    convert_genforce,
    convert_mmgeneration,
    convert_nvidia,
    convert_rosinality,
    convert_tensorflow,
)


def _refused(name: str, *marks: str) -> Format:
    def convert(candidate: Candidate) -> Any:
        raise CheckpointError(
            f"this is a generator of {name}, which is another network; only StyleGAN2 and BigGAN"
            " can be converted"
        )

    return Format(marks, convert)


FORMATS = (
    convert_nvidia.FORMAT,
    convert_tensorflow.FORMAT,
    convert_rosinality.FORMAT,
    convert_genforce.FORMAT,
    convert_mmgeneration.FORMAT,
    convert_huggingface.FORMAT,
    convert_ajbrock.FORMAT,
    convert_studiogan.FORMAT,
    # the first that fits has the word
    _refused("StyleGAN-XL", "mapping.embed_proj.weight", "synthesis.input.freqs"),
    _refused("StyleGAN3", "synthesis.input.freqs", "mapping.fc0.weight"),
    _refused("FastGAN", "init.init.0.weight_orig", "feat_8.1.weight_orig"),
    _refused("lucidrains' stylegan2-pytorch", "initial_conv.weight", "blocks.0.to_style1.weight"),
    _refused("StudioGAN's SNGAN or SAGAN", "linear0.bias", "blocks.0.0.bn1.embed0.weight"),
    _refused("StudioGAN's BigGAN-deep", "linear0.bias", "blocks.0.0.conv2d4.bias"),
)
