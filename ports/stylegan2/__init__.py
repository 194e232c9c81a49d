"""StyleGAN2: config, network, the assembler, and one converter a source format."""

from ports.stylegan2.config import StyleGAN2Config
from ports.stylegan2.model import StyleGAN2, StyleGAN2Z, init, synthesis_blocks

__all__ = ["StyleGAN2", "StyleGAN2Config", "StyleGAN2Z", "init", "synthesis_blocks"]
