"""What a BigGAN generator is made of, read from its checkpoint and kept in `config.json`."""

import dataclasses

from ports.errors import check_kinds, check_numbers, shown

HIERARCHIES = ("none", "chunks", "full")


@dataclasses.dataclass(frozen=True)
class BlockConfig:
    """One residual block.

    Attributes:
      in_channels: feature maps that enter.
      out_channels: feature maps that leave.
      upsample: whether height and width double.
    """

    in_channels: int
    out_channels: int
    upsample: bool

    def __post_init__(self) -> None:
        check_numbers(self, in_channels=(1, 2**16), out_channels=(1, 2**16))
        check_kinds(self, upsample=bool)


@dataclasses.dataclass(frozen=True)
class BigGANConfig:
    """The architecture of a generator.

    Attributes:
      z_dim: width of the latent z.
      num_classes: number of classes.
      embed_dim: width of the class embedding shared by all layers; 0 where there is none, and every
        layer has a gain and a bias of its own for each class.
      blocks: from the bottom up.
      bottleneck: whether blocks are those of BigGAN-deep (1x1, 3x3, 3x3, 1x1 on a quarter of the
        channels, identity shortcut) or of BigGAN (two 3x3, convolved shortcut).
      hierarchy: which z the layers see. 'none': the first linear layer alone. 'chunks': z is cut
        in equal pieces, the first for the linear layer and one for every block. 'full': every
        layer sees all of it, and the linear layer the class embedding too.
      attention: how many blocks lie below each self-attention layer.
      bottom_width: height and width of the first feature maps.
      img_channels: channels of the images.
      num_stats: sets of batch statistics, for truncations 0 to 1 in equal steps.
      eps: added to variances in blocks.
      output_eps: added to the variance before the last convolution.
    """

    z_dim: int
    num_classes: int
    embed_dim: int
    blocks: tuple[BlockConfig, ...]
    bottleneck: bool
    hierarchy: str
    attention: tuple[int, ...] = ()
    bottom_width: int = 4
    img_channels: int = 3
    num_stats: int = 1
    eps: float = 1e-5
    output_eps: float = 1e-5

    def __post_init__(self) -> None:
        check_numbers(
            self,
            z_dim=(1, 2**16),
            num_classes=(1, 2**20),
            embed_dim=(0, 2**16),
            bottom_width=(1, 64),
            img_channels=(1, 2**10),
            num_stats=(1, 1000),
            eps=(0.0, 1e30),
            output_eps=(0.0, 1e30),
        )
        check_kinds(self, blocks=tuple, bottleneck=bool, hierarchy=str, attention=tuple)
        if self.hierarchy not in HIERARCHIES:
            raise ValueError(f"hierarchy is {self.hierarchy!r}; BigGAN has {HIERARCHIES}")
        if not self.blocks:
            raise ValueError("there are no blocks, so there is nothing to make images from")
        for below, above in zip(self.blocks, self.blocks[1:], strict=False):
            if below.out_channels != above.in_channels:
                raise ValueError(
                    f"a block of {below.out_channels} channels is followed by one that takes"
                    f" {above.in_channels}"
                )
        for block in self.blocks:
            if self.bottleneck and block.out_channels > block.in_channels:
                raise ValueError(
                    f"a block goes from {block.in_channels} to {block.out_channels} channels;"
                    " BigGAN-deep only drops channels"
                )
            if self.bottleneck and block.in_channels < 4:
                raise ValueError(f"a block of {block.in_channels} channels is too narrow")
        if len(self.blocks) > 32 or self.img_resolution > 2**14:
            raise ValueError(
                f"{len(self.blocks)} blocks make images of {self.img_resolution} pixels; expected"
                " up to 32 and 16384"
            )
        for below in self.attention:
            if type(below) is not int or self.attention.count(below) > 1:
                raise ValueError(f"attention is {shown(self.attention)}; expected whole numbers")
            if not 0 <= below <= len(self.blocks):
                raise ValueError(f"attention after block {below} of {len(self.blocks)}")
            if self.attention_channels(below) < 8:
                raise ValueError(
                    f"attention on {self.attention_channels(below)} channels, fewer than 8"
                )
        if self.hierarchy != "none" and self.embed_dim == 0:
            raise ValueError("z can only join a class embedding, and embed_dim is 0")
        if self.hierarchy == "chunks" and self.z_dim % self.num_zs:
            raise ValueError(f"z of {self.z_dim} numbers cannot be cut in {self.num_zs} pieces")

    @classmethod
    def from_json(cls, fields: dict) -> "BigGANConfig":
        """The config of a parsed `config.json`."""
        blocks = tuple(BlockConfig(**block) for block in fields["blocks"])
        return cls(**fields | {"blocks": blocks, "attention": tuple(fields["attention"])})

    def to_json(self) -> dict:
        """The fields as values that JSON has."""
        return dataclasses.asdict(self)

    @property
    def num_zs(self) -> int:
        """Number of layers that z enters: the linear layer and, where they see it, the blocks."""
        return 1 if self.hierarchy == "none" else 1 + len(self.blocks)

    def attention_channels(self, below: int) -> int:
        """Channels of a self-attention layer with so many blocks below it."""
        return self.blocks[below - 1].out_channels if below else self.blocks[0].in_channels

    @property
    def linear_dim(self) -> int:
        """Width of the first linear layer's output."""
        return self.bottom_width**2 * self.blocks[0].in_channels

    @property
    def linear_inputs(self) -> int:
        """Width of what the first linear layer sees."""
        if self.hierarchy == "chunks":
            return self.z_dim // self.num_zs
        return self.z_dim + (self.embed_dim if self.hierarchy == "full" else 0)

    @property
    def block_inputs(self) -> int:
        """Width of what the blocks' gains and biases are made from."""
        if self.hierarchy == "none":
            return self.embed_dim or self.num_classes
        return self.embed_dim + (
            self.z_dim if self.hierarchy == "full" else self.z_dim // self.num_zs
        )

    @property
    def block_resolutions(self) -> tuple[int, ...]:
        """Height and width of each block's output."""
        resolutions, side = [], self.bottom_width
        for block in self.blocks:
            side *= 2 if block.upsample else 1
            resolutions.append(side)
        return tuple(resolutions)

    @property
    def img_resolution(self) -> int:
        return self.block_resolutions[-1]
