"""What a report of a fault should tell: versions and devices."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "sfvq-jax", "jax", "jaxlib", "flax", "optax", "numpy", "scipy", "orbax-checkpoint",
    "tensorstore", "safetensors", "matplotlib", "pillow",
)  # fmt: skip
SETTINGS = ("JAX_PLATFORMS", "JAX_ENABLE_X64", "XLA_FLAGS")


def versions() -> str:
    """A line each: packages, Python and system, settings of JAX, devices."""
    lines = []
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            lines.append(f"{package} is not installed")
    lines.append(f"Python {platform.python_version()}, {platform.platform()}")
    lines += [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    try:
        import jax

        kinds = [device.device_kind for device in jax.devices()]
        lines += [f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds)]
    except Exception as error:  # which is what one wants to know then
        lines.append(f"no devices: {error}")
    return "\n".join(lines)
