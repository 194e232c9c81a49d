"""BigGAN: config, network, and one converter a source format."""

from ports.biggan.config import BigGANConfig, BlockConfig
from ports.biggan.model import BigGAN, BigGANSpace, init

__all__ = ["BigGAN", "BigGANConfig", "BigGANSpace", "BlockConfig", "init"]
