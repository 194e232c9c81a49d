"""How one direction is chosen among candidates, by edits of latents that are for that alone."""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from sfvq_jax.curve import Curve
from sfvq_jax.interpret.directions.bench import Bench
from sfvq_jax.interpret.directions.candidates import layers_price
from sfvq_jax.interpret.edit import Direction, deviation_along, pair_direction

Array = jax.Array

FEW = 16  # latents, on which all candidates are tried
KEPT = 4  # of the candidates, for each direction that is wanted, are tried on all latents

Tried = tuple[tuple[int, int], tuple[int, int]]  # codewords and layers of a candidate


class Chosen(NamedTuple):
    """A direction and how good it is for an attribute, at some latents to choose on."""

    merit: float
    direction: Direction
    codewords: tuple[int, int]


class Choice(NamedTuple):
    """How directions for one attribute are chosen.

    All candidates are tried on few latents and the best of them on all: one step of sequential
    halving (Karnin et al., ICML 2013), which saves more than half of the images.
    """

    bench: Bench
    curve: Curve
    spread: Array
    latents: Array
    column: int

    def best(self, candidates: Iterable[Tried], count: int) -> list[Chosen]:
        """At most `count` directions between different codewords, best first."""
        kept = self._different(candidates, self.latents[:FEW])[: KEPT * count]
        ranked = self._different([(c.codewords, c.direction.layers) for c in kept], self.latents)
        return [self._with_better_layers(chosen) for chosen in ranked[:count]]

    def _different(self, candidates: Iterable[Tried], latents: Array) -> list[Chosen]:
        """The best range of layers between any two codewords, best first."""
        tried = [self._of(*candidate, latents) for candidate in dict.fromkeys(candidates)]
        tried.sort(key=lambda chosen: -chosen.merit)
        best: dict[frozenset[int], Chosen] = {}
        for chosen in tried:
            best.setdefault(frozenset(chosen.codewords), chosen)
        return list(best.values())

    def _of(self, codewords: tuple[int, int], layers: tuple[int, int], latents: Array) -> Chosen:
        vector = pair_direction(self.curve, *codewords)
        direction = Direction(vector, layers, float(deviation_along(self.spread, vector)))
        merit = merit_of(self.bench.found_changes(direction, latents), self.column)
        price = layers_price(layers, self.bench.model.num_layers)
        return Chosen(merit * price if merit > 0 else merit, direction, codewords)

    def _with_better_layers(self, chosen: Chosen) -> Chosen:
        """Ends of the layer range are moved by one layer while that makes it better."""
        num_layers, codewords = self.bench.model.num_layers, chosen.codewords
        tried = {chosen.direction.layers}
        while True:
            first, last = chosen.direction.layers
            ranges = [(first - 1, last), (first + 1, last), (first, last - 1), (first, last + 1)]
            ranges = [r for r in ranges if 0 <= r[0] <= r[1] < num_layers and r not in tried]
            if not ranges:
                return chosen
            tried |= set(ranges)
            [likely] = self._different([(codewords, r) for r in ranges], self.latents[:FEW])
            other = self._of(codewords, likely.direction.layers, self.latents)
            if other.merit <= chosen.merit:
                return chosen
            chosen = other


def merit_of(changes: np.ndarray, column: int) -> float:
    """Of changes [N, A] for an attribute; 0 or less where it falls, or does at most latents."""
    mean = changes.mean(0)
    rises = 2 * float((changes[:, column] > 0).mean()) - 1
    merit = float(mean[column] * abs(mean[column]) / np.linalg.norm(mean))
    return merit * rises if merit > 0 < rises else -abs(merit)
