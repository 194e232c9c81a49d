"""What a StyleGAN2 generator is made of, read from its checkpoint and kept in `config.json`."""

import dataclasses
from typing import Any

from ports.errors import check_kinds, check_numbers, shown

MOST_TAPS = 32

Filter = tuple[float, ...] | tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config:
    """The architecture of a generator; the fields are those of stylegan2-ada-pytorch's classes.

    Attributes:
      z_dim: width of the input latent, 0 where the label alone is mapped.
      c_dim: number of classes, 0 for an unconditional generator.
      w_dim: width of the intermediate latent W.
      img_resolution: height and width of the images, a power of two from 4; of images that are not
        square, what they would be from 4x4 features, after which upstream calls blocks.
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
      base_shape: height and width of the first features, which every further block doubles.
      num_fp16_res: how many of the highest resolutions, 4x4 never, a model computes in its dtype
        where that has 16 bits. Converters give the number that upstream computes in float16, or,
        where it computes none so, the 4 of its default.
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
    base_shape: tuple[int, int] = (4, 4)
    num_fp16_res: int = 4

    def __post_init__(self) -> None:
        width = (1, 2**16)
        check_numbers(
            self,
            z_dim=(0, 2**16),
            c_dim=(0, 2**20),
            w_dim=width,
            img_resolution=(4, 2**14),
            img_channels=(1, 2**10),
            mapping_layers=(0, 100),
            embed_features=(0, 2**16),
            layer_features=(0, 2**16),
            kernel_size=(1, 31),
            mapping_lr_multiplier=(1e-9, 1e9),
            num_fp16_res=(0, 13),
        )
        check_kinds(
            self,
            channels=tuple,
            mapping_activation=str,
            input_normalization=str,
            architecture=str,
            activation=str,
            use_noise=bool,
            resample_filter=tuple,
            base_shape=tuple,
        )
        if self.conv_clamp is not None:
            check_numbers(self, conv_clamp=(0.0, 1e30))
        if not 1 <= len(self.channels) <= 13:
            raise ValueError(f"channels are of {len(self.channels)} blocks; expected 1 to 13")
        for count in self.channels:
            if type(count) is not int or not 1 <= count <= 2**16:
                raise ValueError(f"channels hold {shown(count)}; expected whole numbers from 1")
        _check_filter(self.resample_filter)
        sides = self.base_shape
        if len(sides) != 2 or not all(type(side) is int and 1 <= side <= 64 for side in sides):
            raise ValueError(f"base_shape is {shown(sides)}; expected height and width, 1 to 64")
        inputs = self.z_dim + (self.embed_features if self.c_dim else 0)
        if not self.mapping_layers and inputs != self.w_dim:
            raise ValueError(f"w_dim is {self.w_dim}, but without mapping_layers w has {inputs}")
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
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images."""
        height, width = (side * 2 ** (len(self.channels) - 1) for side in self.base_shape)
        return height, width, self.img_channels

    @property
    def low_precision(self) -> tuple[int, ...]:
        """The resolutions of `num_fp16_res`."""
        first = max(1, len(self.channels) - self.num_fp16_res)
        return self.block_resolutions[first:]

    @property
    def num_ws(self) -> int:
        """Number of codes of an image: one a convolution, and one for the last RGB layer."""
        return 2 * len(self.channels)


def _check_filter(taps: Filter) -> None:
    rows: tuple[Any, ...] = taps if taps and isinstance(taps[0], tuple) else (taps,)
    widths = {len(row) if isinstance(row, tuple) else 0 for row in rows}
    if (
        not 1 <= len(rows) <= MOST_TAPS
        or len(widths) > 1
        or not 1 <= max(widths) <= MOST_TAPS
        or not all(type(x) in (int, float) and abs(x) < 1e30 for row in rows for x in row)
    ):
        raise ValueError("resample_filter is no line or table of numbers")


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value
