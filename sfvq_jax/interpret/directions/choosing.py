"""How one direction is chosen among candidates, by edits of latents that are for that alone."""

from typing import NamedTuple

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.directions.bench import Bench
from sfvq_jax.interpret.directions.candidates import layers_price
from sfvq_jax.interpret.edit import Direction, deviation_along, pair_direction

Array = jax.Array


class Chosen(NamedTuple):
    """A direction and how good it is for an attribute, at the latents to choose on."""

    merit: float
    direction: Direction
    codewords: tuple[int, int]


class Choice(NamedTuple):
    """How directions for one attribute are chosen."""

    bench: Bench
    curve: Curve
    spread: Array
    latents: Array
    column: int

    def of(self, codewords: tuple[int, int], layers: tuple[int, int]) -> Chosen:
        vector = pair_direction(self.curve, *codewords)
        direction = Direction(vector, layers, float(deviation_along(self.spread, vector)))
        merit = merit_of(self.bench.found_changes(direction, self.latents), self.column)
        price = layers_price(layers, self.bench.model.num_layers)
        return Chosen(merit * price if merit > 0 else merit, direction, codewords)

    def with_better_layers(self, chosen: Chosen) -> Chosen:
        """Ends of the layer range are moved by one layer while that makes it better."""
        num_layers = self.bench.model.num_layers
        tried = {chosen.direction.layers}
        while True:
            first, last = chosen.direction.layers
            ranges = [(first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)]
            ranges = [(a, b) for a, b in ranges if 0 <= a <= b < num_layers]
            others = [self.of(chosen.codewords, r) for r in ranges if r not in tried]
            tried |= set(ranges)
            best = max([chosen, *others], key=lambda c: c.merit)
            if best is chosen:
                return chosen
            chosen = best


def merit_of(changes: np.ndarray, column: int) -> float:
    """Of changes [N, A] for an attribute; 0 or less where it falls, or does at most latents."""
    mean = changes.mean(0)
    rises = 2 * float((changes[:, column] > 0).mean()) - 1
    merit = float(mean[column] * abs(mean[column]) / np.linalg.norm(mean))
    return merit * rises if merit > 0 < rises else -abs(merit)
