"""Names of genforce's StyleGAN2, the zoo of SeFa, InterFaceGAN, ContraCLIP and others.

Its conventions are those of TensorFlow: styles start at 1, kernels that upsample are mirrored. Its
filters hold the gain of upsampling.
"""

import re

import numpy as np

from ports.checkpoint import Converted
from ports.state_dict import Candidate, Format, renamed
from ports.stylegan2.assemble import assemble, layer, rgb


def convert(candidate: Candidate) -> Converted:
    """The generator among the candidate's tensors."""
    outputs = [int(m[1]) for name in candidate.tensors if (m := _OUTPUT.match(name))]
    last = max(outputs, default=0)
    tensors = renamed(candidate.tensors, lambda name, x: _rename(name, x, last))
    config, variables, made = assemble(tensors, scaled_by_fan_in=True)
    source = {"format": "genforce StyleGAN2", "assumed": {"mapping_lr_multiplier": 0.01}} | made
    return Converted("stylegan2", config, variables, source)


_OUTPUT = re.compile(r"synthesis\.output(\d{1,4})\.")


def _rename(name: str, x: np.ndarray, last: int) -> tuple[str, np.ndarray]:
    if name == "truncation.w_avg":
        return "mapping.w_avg", x
    if name == "synthesis.early_layer.const":
        return "synthesis.b4.const", x[0]
    if name == "synthesis.upsample.kernel":
        return f"{rgb(last).removesuffix('.torgb')}.resample_filter", x[0, 0] / 4
    if m := re.fullmatch(r"mapping\.dense(\d+)\.(weight|bias)", name):
        return f"mapping.fc{m[1]}.{m[2]}", x
    m = re.fullmatch(r"synthesis\.(layer|output)(\d{1,4})\.(.+)", name)
    if m is None:
        return name, x  # which the architecture has not
    number, own = int(m[2]), m[3]
    place = layer(number) if m[1] == "layer" else rgb(number)
    if own == "filter.kernel":
        return f"{place}.resample_filter", x[0, 0] / 4
    if own == "noise":
        return f"{place}.noise_const", x[0, 0]
    if own == "style.bias":
        return f"{place}.affine.bias", x + np.float32(1)
    if own == "weight" and place.endswith("conv0"):
        return f"{place}.weight", x[:, :, ::-1, ::-1]
    return f"{place}.{own.replace('style.', 'affine.')}", x


FORMAT = Format(("synthesis.early_layer.const", "synthesis.layer0.style.weight"), convert)
