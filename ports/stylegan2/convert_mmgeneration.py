"""Names of MMGeneration's and MMagic's StyleGAN2, which is a port of rosinality's."""

import re

import numpy as np

from ports.checkpoint import Converted
from ports.state_dict import Candidate, Format
from ports.stylegan2 import convert_rosinality


def convert(candidate: Candidate) -> Converted:
    """The generator among the candidate's tensors, under rosinality's names."""
    tensors = dict(_renamed(name, x) for name, x in candidate.tensors.items())
    if not np.any(tensors.get("latent_avg", 1)):
        del tensors["latent_avg"]  # which only some settings update
    converted = convert_rosinality.convert(candidate._replace(tensors=tensors, beside={}))
    assumed = {"mapping_lr_multiplier": 0.01, "channels": "RGB; BGR if it was trained there"}
    told = {"format": "MMGeneration StyleGAN2", "assumed": assumed}
    return converted._replace(source=converted.source | told)


def _renamed(name: str, x: np.ndarray) -> tuple[str, np.ndarray]:
    if name == "w_avg":
        return "latent_avg", x
    name = re.sub(r"^injected_noise_(\d+)$", r"noises.noise_\1", name)
    name = re.sub(r"^constant_input\.input$", "input.input", name)
    name = re.sub(r"^style_mapping\.", "style.", name)
    name = re.sub(r"\bstyle_modulation\.", "modulation.", name)
    name = re.sub(r"\bnoise_injector\.", "noise.", name)
    # the learning rate is equalised by a hook, which calls what it keeps weight_orig
    return re.sub(r"(\.linear)?\.weight_orig$", ".weight", name), x


FORMAT = Format(("constant_input.input", "conv1.conv.weight_orig"), convert)
