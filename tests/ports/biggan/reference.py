"""BigGAN-PyTorch's two generators in evaluation, written anew in PyTorch from what theirs compute.

Tensors have upstream's names and shapes. Everything is float64, so that what differs is the error
of the other side.
"""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F, Tensor = torch.nn.functional, torch.Tensor

# what upstream's constructors assume
DEFAULTS = {
    "G_ch": 64, "G_depth": 2, "dim_z": 128, "bottom_width": 4, "resolution": 128, "G_attn": "64",
    "n_classes": 1000, "num_G_SVs": 1, "G_shared": True, "shared_dim": 0, "hier": False,
    "cross_replica": False, "mybn": False, "BN_eps": 1e-5, "SN_eps": 1e-12, "G_param": "SN",
    "norm_style": "bn", "model": "BigGAN",
}  # fmt: skip
WIDTHS = {  # from the bottom up, in units of G_ch
    32: [4, 4, 4, 4],
    64: [16, 16, 8, 4, 2],
    128: [16, 16, 8, 4, 2, 1],
    256: [16, 16, 8, 8, 4, 2, 1],
    512: [16, 16, 8, 8, 4, 2, 1, 1],
}


class Reference:
    """A generator; tensors that the state dict has not yet are drawn at random on first use.

    Args:
      config: upstream's settings.
      state: {name: tensor}.
      seed: of what is drawn.
      counter: of batches whose statistics were summed, where they are drawn.
    """

    def __init__(
        self,
        config: dict[str, Any],
        state: dict[str, Tensor] | None = None,
        *,
        seed: int = 0,
        counter: int = 0,
    ):
        self.config = DEFAULTS | config
        self.deep = self.config["model"] == "BigGANdeep"
        self.state = {} if state is None else {name: x.double() for name, x in state.items()}
        self.may_draw = state is None
        self.rng = np.random.default_rng(seed)
        self.counter = counter
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, z: Tensor, y: Tensor, *, embedded: bool = False) -> Tensor:
        """Images [N, 3, H, W] of z and of class indices or, where `embedded`, their embeddings."""
        cfg = self.config
        shared_dim = cfg["shared_dim"] or cfg["dim_z"]
        if cfg["G_shared"] and not embedded:
            y = self.tensor("shared.weight", cfg["n_classes"], shared_dim)[y]
        widths = WIDTHS[cfg["resolution"]]
        stages = len(widths) - 1
        conditions = [y] * stages
        if self.deep:
            z = torch.cat([y, z], 1)
            conditions = [z] * stages
        elif cfg["hier"]:
            chunk = cfg["dim_z"] // (stages + 1)
            z, *rest = z[:, : chunk * (stages + 1)].split(chunk, 1)
            conditions = [torch.cat([y, piece], 1) for piece in rest]
        side = cfg["bottom_width"]
        x = F.linear(
            z,
            self.normalised("linear", side**2 * cfg["G_ch"] * widths[0], z.shape[1]),
            self.tensor("linear.bias", side**2 * cfg["G_ch"] * widths[0]),
        )
        self.outputs["linear"] = x
        x = x.reshape(len(x), -1, side, side)
        depth = cfg["G_depth"] if self.deep else 1
        for stage, condition in enumerate(conditions):
            inside, outside = (cfg["G_ch"] * width for width in widths[stage : stage + 2])
            for repeat in range(depth):
                name = f"blocks.{stage * depth + repeat}"
                upsample = repeat == depth - 1
                if self.deep:
                    out = inside if repeat == 0 else outside
                    x = self.deep_block(f"{name}.0", x, condition, out, upsample)
                else:
                    x = self.block(f"{name}.0", x, condition, outside)
                self.outputs[f"{name}.0"] = x
            if str(2 ** (3 + stage)) in cfg["G_attn"].split("_"):
                x = self.outputs[f"{name}.1"] = self.attention(f"{name}.1", x)
        x = self.output_norm("output_layer.0", x)
        return torch.tanh(self.conv("output_layer.2", F.relu(x), 3, 3))

    def block(self, name: str, x: Tensor, y: Tensor, out: int) -> Tensor:
        h = F.interpolate(F.relu(self.norm(f"{name}.bn1", x, y)), scale_factor=2)
        h = self.conv(f"{name}.conv1", h, out, 3)
        h = self.conv(f"{name}.conv2", F.relu(self.norm(f"{name}.bn2", h, y)), out, 3)
        return h + self.conv(f"{name}.conv_sc", F.interpolate(x, scale_factor=2), out, 1)

    def deep_block(self, name: str, x: Tensor, y: Tensor, out: int, upsample: bool) -> Tensor:
        hidden = x.shape[1] // 4
        h = self.conv(f"{name}.conv1", F.relu(self.norm(f"{name}.bn1", x, y)), hidden, 1)
        h = F.relu(self.norm(f"{name}.bn2", h, y))
        x = x[:, :out]
        if upsample:
            x, h = F.interpolate(x, scale_factor=2), F.interpolate(h, scale_factor=2)
        h = self.conv(f"{name}.conv2", h, hidden, 3)
        h = self.conv(f"{name}.conv3", F.relu(self.norm(f"{name}.bn3", h, y)), hidden, 3)
        return x + self.conv(f"{name}.conv4", F.relu(self.norm(f"{name}.bn4", h, y)), out, 1)

    def attention(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        theta, phi, g = (
            self.conv(f"{name}.{layer}", x, channels // part, 1, bias=False)
            for layer, part in (("theta", 8), ("phi", 8), ("g", 2))
        )
        phi, g = F.max_pool2d(phi, 2).flatten(2), F.max_pool2d(g, 2).flatten(2)
        weights = torch.einsum("nchw,nck->nhwk", theta, phi).softmax(-1)
        h = torch.einsum("nhwk,nck->nchw", weights, g)
        return x + self.tensor(f"{name}.gamma") * self.conv(f"{name}.o", h, channels, 1, bias=False)

    def norm(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """The class-conditional normalisation."""
        channels = x.shape[1]
        if self.config["G_shared"]:
            gain = y @ self.normalised(f"{name}.gain", channels, y.shape[1]).T
            bias = y @ self.normalised(f"{name}.bias", channels, y.shape[1]).T
        else:
            classes = self.config["n_classes"]
            gain = self.tensor(f"{name}.gain.weight", classes, channels)[y]
            bias = self.tensor(f"{name}.bias.weight", classes, channels)[y]
        style, eps = self.config["norm_style"], self.config["BN_eps"]
        return self.affine(name, x, 1 + gain[..., None, None], bias[..., None, None], style, eps)

    def output_norm(self, name: str, x: Tensor) -> Tensor:
        gain, bias = (self.tensor(f"{name}.{kind}", x.shape[1]) for kind in ("gain", "bias"))
        return self.affine(name, x, gain[:, None, None], bias[:, None, None], "bn", 1e-5)

    def affine(
        self, name: str, x: Tensor, gain: Tensor, bias: Tensor, style: str, eps: float
    ) -> Tensor:
        own = self.config["cross_replica"] or self.config["mybn"]
        if style == "nonorm" and not own:
            return x * gain + bias
        prefix = f"{name}.bn" if own else name
        kind = "running" if self.config["cross_replica"] else "stored"
        mean, var = (self.tensor(f"{prefix}.{kind}_{part}", x.shape[1]) for part in ("mean", "var"))
        if self.config["cross_replica"]:
            self.tensor(f"{prefix}.num_batches_tracked")
        elif self.config["mybn"]:
            count = self.tensor(f"{prefix}.accumulation_counter", 1)
            if count.item() > 0:
                mean, var = mean / count, var / count
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + eps)
        if self.config["cross_replica"]:
            return x + gain + bias
        return x * gain + bias

    def conv(self, name: str, x: Tensor, out: int, size: int, *, bias: bool = True) -> Tensor:
        weight = self.normalised(name, out, x.shape[1], size, size)
        return F.conv2d(
            x, weight, self.tensor(f"{name}.bias", out) if bias else None, padding=size // 2
        )

    def normalised(self, name: str, *shape: int) -> Tensor:
        """The weight over u·W·v: v follows from the stored u, and the next u from that v.

        Evaluation keeps u, so that further iterations do the same again, and only the first
        singular value divides.
        """
        weight = self.tensor(f"{name}.weight", *shape)
        if self.config["G_param"] != "SN":
            return weight
        for i in range(self.config["num_G_SVs"]):
            self.tensor(f"{name}.u{i}", 1, shape[0])
            self.tensor(f"{name}.sv{i}", 1)
        matrix, eps = weight.flatten(1), self.config["SN_eps"]
        v = F.normalize(self.state[f"{name}.u0"] @ matrix, eps=eps)
        u = F.normalize(v @ matrix.T, eps=eps)
        return weight / (v @ matrix.T @ u.T)

    def tensor(self, name: str, *shape: int) -> Tensor:
        if name not in self.state and self.may_draw:
            self.state[name] = torch.as_tensor(self._draw(name, shape), dtype=torch.float64)
        assert self.state[name].shape == shape, name
        return self.state[name]

    def _draw(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of a size that trained ones may have, with float16's precision."""
        layer, kind = name.rsplit(".", 1)
        if kind == "accumulation_counter":
            return np.full(shape, self.counter)
        if kind.endswith("_var"):
            drawn = self.rng.uniform(0.3, 3, shape) * max(self.counter, 1)
        elif kind == "weight" and layer.endswith((".gain", ".bias")):
            drawn = self.rng.normal(0, 0.3, shape)
        elif kind == "weight" and layer != "shared":
            drawn = self.rng.normal(0, 0.5 * np.prod(shape[1:]) ** -0.5, shape)
        elif kind == "gain":
            drawn = self.rng.normal(0.3, 0.1, shape)
        else:  # biases, means, the vectors u
            drawn = self.rng.normal(0, 0.5, shape)
        return drawn.astype(np.float16)
