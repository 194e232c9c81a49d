"""The config beside a checkpoint: values by name, of the type that is expected."""

import contextlib
from collections.abc import Iterator
from typing import Any

from ports.errors import CheckpointError, shown


class Settings:
    """A parsed `config.json`; a name that is missing has upstream's default."""

    def __init__(self, values: dict[str, Any]):
        self._values = values

    def value(self, name: str, default: Any, kind: type) -> Any:
        value = self._values.get(name, default)
        if not isinstance(value, kind):
            raise CheckpointError(
                f"the config's {name} is {shown(value)}; expected {kind.__name__}"
            )
        return value

    def integer(self, name: str, default: int, least: int = 0, most: int = 2**31 - 1) -> int:
        value = self._values.get(name, default)
        if type(value) is not int or not least <= value <= most:
            raise CheckpointError(
                f"the config's {name} is {shown(value)}; expected a whole number, {least} to {most}"
            )
        return value

    def number(self, name: str, default: float) -> float:
        value = self._values.get(name, default)
        if type(value) not in (int, float) or not 0 <= value < 2**31:
            raise CheckpointError(
                f"the config's {name} is {shown(value)}; expected a number, 0 or more"
            )
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name, default)
        if value not in (0, 1):
            raise CheckpointError(f"the config's {name} is {shown(value)}; expected true or false")
        return bool(value)

    @staticmethod
    @contextlib.contextmanager
    def checked() -> Iterator[None]:
        """What the architecture's own config finds wrong, as a CheckpointError."""
        try:
            yield
        except CheckpointError:  # a ValueError too, which says already what is wrong
            raise
        except ValueError as error:
            raise CheckpointError(f"the config describes no BigGAN: {error}") from error
