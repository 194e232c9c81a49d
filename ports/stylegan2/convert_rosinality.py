"""Names of rosinality/stylegan2-pytorch, the common port of StyleGAN2, and of what is built on it.

pSp, e4e, ReStyle and HyperStyle keep it as `decoder` beside an encoder, with a mean of W for every
layer. What has no tensor (activations, the learning rate of the mapping network) is always the same
there.
"""

import re

import numpy as np

from ports.checkpoint import Converted
from ports.errors import CheckpointError
from ports.state_dict import Candidate, Format, float32, renamed
from ports.stylegan2.assemble import assemble, layer, rgb


def convert(candidate: Candidate) -> Converted:
    """The generator among the candidate's tensors.

    Its `source` says in `noise_const` and `w_avg` whether they were `stored`. Upstream draws noise
    anew for each image where the file, an early one, has none; and training files have no mean of
    W, which upstream's scripts estimate from samples, as is done here.
    """
    tensors = dict(candidate.tensors)
    if any(".iwt." in f".{name}" for name in tensors):
        raise CheckpointError("this is a SWAGAN generator; only StyleGAN2 can be converted")
    stored = tensors.get("latent_avg", candidate.beside.get("latent_avg"))
    if stored is not None:
        tensors["latent_avg"] = _mean_of_rows(stored)
    config, variables, made = assemble(
        renamed(tensors, _rename), scaled_by_fan_in=True, mean_is_sampled=True
    )
    told = {"noise_const": "stored", "w_avg": "stored"} | made
    source = {"format": "rosinality stylegan2-pytorch"} | told
    return Converted("stylegan2", config, variables, source)


def _mean_of_rows(stored: np.ndarray) -> np.ndarray:
    """The mean of W, [w_dim]; encoders keep it once for each layer."""
    rows = np.atleast_2d(float32("latent_avg", stored))
    if rows.ndim > 2 or not rows.size or np.ptp(rows, 0).max() > 1e-4 * np.abs(rows).max():
        raise CheckpointError(
            f"latent_avg has shape {rows.shape} and differs by layer; expected one mean for all"
        )
    return rows[0]


_NAMES = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "activate.bias": "bias",
    "noise.weight": "noise_strength",
    "bias": "bias",
}


def _rename(name: str, x: np.ndarray) -> tuple[str, np.ndarray]:
    if name == "latent_avg":
        return "mapping.w_avg", x
    if name == "input.input":
        return "synthesis.b4.const", x[0]
    if m := re.fullmatch(r"style\.(\d{1,4})\.(weight|bias)", name):
        return f"mapping.fc{int(m[1]) - 1}.{m[2]}", x
    if m := re.fullmatch(r"noises\.noise_(\d{1,4})", name):
        return f"{layer(int(m[1]))}.noise_const", x[0, 0]
    m = re.fullmatch(r"(conv1|to_rgb1|convs\.(\d{1,4})|to_rgbs\.(\d{1,4}))\.(.+)", name)
    if m is None:
        return name, x  # which the architecture has not
    is_conv = m[1].startswith("conv")
    number = int(m[2] or m[3] or -1) + 1
    place, own = layer(number) if is_conv else rgb(number), m[4]
    if own == ("conv.blur.kernel" if is_conv else "upsample.kernel"):
        return f"{place.removesuffix('.torgb')}.resample_filter", x / 4  # the gain of upsampling
    is_there = is_conv if own in ("activate.bias", "noise.weight") else own != "bias" or not is_conv
    if own not in _NAMES or not is_there:
        return name, x
    if own == "conv.weight":
        x = x[0]
    elif own == "noise.weight":
        x = x.reshape(())
    elif own == "bias":
        x = x.reshape(-1)
    return f"{place}.{_NAMES[own]}", x


FORMAT = Format(("conv1.conv.modulation.weight", "input.input"), convert)
