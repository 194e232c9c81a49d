"""Names of PyTorch-StudioGAN's BigGAN, which is BigGAN-PyTorch's network."""

import re

import numpy as np

from ports.biggan.assemble import assemble
from ports.biggan.weights import normalised
from ports.checkpoint import Converted
from ports.state_dict import Candidate, Format, Tensors, renamed

_EPS = 1e-4  # of every norm there


def convert(candidate: Candidate) -> Converted:
    """The generator among the candidate's tensors."""
    tensors = Tensors(candidate.tensors)
    for name, x in candidate.tensors.items():
        if name.endswith(".weight_orig") and x.ndim > 1:
            layer = name.removesuffix(".weight_orig")
            tensors[f"{layer}.weight"] = normalised(tensors, layer, x.shape)
    # attention is a block of its own there, and belongs to the one below here
    numbers = {int(m[1]) for name in tensors if (m := _BLOCK.match(name))}
    attended = {i for i in numbers if f"blocks.{i}.0.sigma" in tensors}
    place, places = -1, {}
    for i in sorted(numbers):
        place += i not in attended
        places[i] = f"blocks.{place}.{int(i in attended)}"
    named = renamed(tensors, lambda name, x: _rename(name, x, places))
    settings = {"BN_eps": _EPS, "G_param": "weights"}
    config, variables = assemble(named, settings, output_eps=_EPS)
    return Converted("biggan", config, variables, {"format": "PyTorch-StudioGAN BigGAN"})


_BLOCK = re.compile(r"blocks\.(\d{1,4})\.0\.")
_NAMES = {
    "linear0": "linear",
    "bn4.weight": "output_layer.0.gain",
    "bn4.bias": "output_layer.0.bias",
    "bn4.running_": "output_layer.0.stored_",
    "conv2d5": "output_layer.2",
    "bn1.bn.running_": "bn1.stored_",
    "bn2.bn.running_": "bn2.stored_",
    "conv2d0": "conv_sc",
    "conv2d1": "conv1",
    "conv2d2": "conv2",
    "conv1x1_theta": "theta",
    "conv1x1_phi": "phi",
    "conv1x1_g": "g",
    "conv1x1_attn": "o",
    "sigma": "gamma",
}


def _rename(name: str, x: np.ndarray, places: dict[int, str]) -> tuple[str, np.ndarray] | None:
    if name.endswith(".num_batches_tracked"):
        return None
    m = _BLOCK.match(name)
    place, own = (f"{places[int(m[1])]}.", name[m.end() :]) if m else ("", name)
    for theirs, ours in _NAMES.items():
        if own.startswith(theirs):
            return place + ours + own[len(theirs) :], x.reshape(()) if own == "sigma" else x
    return place + own, x


FORMAT = Format(("conv2d5.bias", "linear0.bias", "blocks.0.0.bn1.bn.running_mean"), convert)
