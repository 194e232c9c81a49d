"""BigGAN and BigGAN-deep as BigGAN-PyTorch saves them: `G_ema.pth`, and maybe their config."""

from ports.biggan.assemble import ASSUMED, assemble
from ports.checkpoint import Converted
from ports.state_dict import Candidate, Format, Tensors


def convert(candidate: Candidate, settings: dict | None) -> Converted:
    """The generator among the candidate's tensors.

    Args:
      candidate: of a `G_ema.pth` or `G.pth`.
      settings: those it was trained with, as upstream's parser names them. Without one, names and
        shapes say it, and what they cannot say is told as `assumed`.
    """
    known = settings or {}
    config, variables = assemble(Tensors(candidate.tensors), known)
    source: dict = {"format": f"BigGAN-PyTorch {'BigGANdeep' if config.bottleneck else 'BigGAN'}"}
    if missing := {name: value for name, value in ASSUMED.items() if name not in known}:
        source["assumed"] = missing
    return Converted("biggan", config, variables, source)


FORMAT = Format(("output_layer.0.gain", "linear.weight"), convert, settings=True)
