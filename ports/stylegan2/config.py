"""What a StyleGAN2 generator is made of, read from its checkpoint and kept in `config.json`."""

import dataclasses
import math
from typing import Any

Filter = tuple[float, ...] | tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config:
    """The architecture of a generator; the fields are those of stylegan2-ada-pytorch's classes.

    Attributes:
      z_dim: width of the input latent, 0 where the label alone is mapped.
      c_dim: number of classes, 0 for an unconditional generator.
      w_dim: width of the intermediate latent W.
      img_resolution: height and width of the images, a power of two from 4.
      img_channels: channels of the images.
      mapping_layers: number of fully connected layers `fc0`, `fc1`, … of the mapping network.
      embed_features: width of the embedded label, 0 for an unconditional generator.
      layer_features: width between the mapping network's layers.
      channels: feature maps of each block, from 4x4 up.
      mapping_activation: activation of the mapping network, a name in `network.ACTIVATIONS`.
      mapping_lr_multiplier: the stored weights and biases of the mapping network count this much.
      input_normalization: 'each' scales z and the embedded label to mean square 1, each by itself,
        'joint' the two as one vector (StyleGAN2 in TensorFlow), 'none' neither.
      architecture: 'skip' sums RGB images of all blocks, 'resnet' adds a residual branch, 'orig'
        makes RGB at the end alone.
      kernel_size: side of the synthesis kernels, odd.
      activation: activation of the synthesis layers.
      use_noise: whether layers add noise.
      conv_clamp: bound of every convolution's output, None for no bound.
      resample_filter: the low-pass filter of upsampling, sum 1: a tuple (separable, the same for
        both axes) or a tuple of rows.
    """

    z_dim: int
    c_dim: int
    w_dim: int
    img_resolution: int
    img_channels: int
    mapping_layers: int
    embed_features: int
    layer_features: int
    channels: tuple[int, ...]
    mapping_activation: str = "lrelu"
    mapping_lr_multiplier: float = 0.01
    input_normalization: str = "each"
    architecture: str = "skip"
    kernel_size: int = 3
    activation: str = "lrelu"
    use_noise: bool = True
    conv_clamp: float | None = None
    resample_filter: Filter = (0.125, 0.375, 0.375, 0.125)

    def __post_init__(self) -> None:
        if self.architecture not in ("skip", "orig", "resnet"):
            raise ValueError(
                f"architecture is {self.architecture!r}; StyleGAN2 has 'skip', 'orig' and 'resnet'"
            )
        if self.input_normalization not in ("each", "joint", "none"):
            raise ValueError(
                f"input_normalization is {self.input_normalization!r}; it must be 'each', 'joint'"
                " or 'none'"
            )
        if self.img_resolution != 4 * 2 ** (len(self.channels) - 1):
            raise ValueError(
                f"{len(self.channels)} blocks make images of {4 * 2 ** (len(self.channels) - 1)}"
                f" pixels, not of img_resolution {self.img_resolution}"
            )
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; it must be odd")
        if not math.isfinite(self.mapping_lr_multiplier):
            raise ValueError("mapping_lr_multiplier is not finite")

    @classmethod
    def from_json(cls, fields: dict) -> "StyleGAN2Config":
        """The config of a parsed `config.json`, whose lists become tuples again."""
        return cls(**{name: _tupled(value) for name, value in fields.items()})

    def to_json(self) -> dict:
        """The fields as values that JSON has."""
        return dataclasses.asdict(self)

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        return tuple(4 * 2**i for i in range(len(self.channels)))

    @property
    def num_ws(self) -> int:
        """Number of codes of an image: one a convolution, and one for the last RGB layer."""
        return 2 * len(self.channels)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
