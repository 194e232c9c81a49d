"""What a pickle may cost: before it is built, by its opcodes, and after, by what a reader meets."""

import io
import pickletools
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, cast

import numpy as np

from ports.errors import CheckpointError
from ports.records import Record, TensorFlowNetwork


def check_opcodes(stream: BinaryIO, file_size: int) -> None:
    """Reads over the next pickle, which must be complete, and leaves the stream at its start.

    Python's unpickler trusts some numbers: it allocates as many bytes as a string is said to have,
    and 16 for every slot of its memo up to the highest that is named. One byte can make a set of
    240, so opcodes are limited. And keys of dicts are hashed part by part on the C stack.
    """
    start = stream.tell()
    size = stream.seek(0, io.SEEK_END)
    stream.seek(start)
    keys = _Keys()
    most, position, frame_end = _FEW_OPCODES + file_size // 64, start, start
    try:
        for number, (opcode, operand, place) in enumerate(pickletools.genops(stream)):
            argument, position = cast(Any, operand), cast(int, place)
            # Where an opcode runs over the end of a frame, the unpickler reads another opcode than
            # we see here.
            sound = not position < frame_end < stream.tell()
            if opcode.name == "FRAME":
                sound &= position >= frame_end
                frame_end = stream.tell() + argument
            if not sound or frame_end > size:
                raise ValueError("a frame does not fit its contents")
            if opcode.name in _REFUSED_OPCODES:
                raise CheckpointError(f"is not a pickled checkpoint (opcode {opcode.name})")
            if opcode.name in _PUT and not 0 <= argument <= size:
                raise CheckpointError("is damaged: it numbers more objects than it can hold")
            if number > most:
                raise CheckpointError("has far more objects than any known checkpoint of its size")
            keys.follow(opcode, argument)
    except CheckpointError:
        raise
    except Exception as error:
        stream.seek(start)
        if stream.read(1) != b"\x80":  # where protocol 2 to 5 start
            raise CheckpointError("is not a pickle, or is damaged") from error
        raise CheckpointError(
            f"is cut short or damaged after byte {position} of {size}; download or copy it again"
        ) from error
    stream.seek(start)


# A StyleGAN2 of 1024x1024 and its training state have about 50,000.
_FEW_OPCODES = 200_000
# names by number in a table of the running interpreter, and the instances of Python 2
_REFUSED_OPCODES = {"EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEXT_BUFFER", "READONLY_BUFFER"}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}


class _Keys:
    """Follows a pickle's stack, to know the weight of every key that a dict or set will hash.

    A text, a number and whatever hashes as fast weighs 1; anything made of others weighs one more
    than all of them. Tuples can be deep enough to overflow the C stack when hashed, share their
    parts so that hashing takes 2^n steps, or be chosen to collide, as can integers beyond 61 bits.
    """

    _MOST = 1000  # of all that weigh more than 1

    def __init__(self) -> None:
        self._stack: list[int | None] = []  # weights; None is a mark
        self._memo: dict[int, int] = {}
        self._hashed = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name == "MARK":
            self._stack.append(None)
        elif name in _PUT:
            self._memo[argument] = self._top()
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._top()
        elif name.endswith("GET"):
            self._stack.append(self._memo[argument])
        elif name == "DUP":
            self._stack.append(self._top())
        elif name == "POP":
            self._stack.pop()
        else:
            self._apply(opcode, argument)

    def _apply(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        parts = self._pop_slice() if pickletools.stackslice in opcode.stack_before else []
        takes = [kind for kind in opcode.stack_before if kind not in _SLICE]
        parts = [self._pop() for _ in takes][::-1] + parts
        keys = parts[_KEYS.get(opcode.name, _NO_KEYS)]
        self._hashed += sum(weight for weight in keys if weight > 1)
        if self._hashed > self._MOST:
            raise CheckpointError("is damaged, or no checkpoint: its keys are no texts or numbers")
        if opcode.stack_after:
            large = type(argument) is int and abs(argument) >= sys.hash_info.modulus
            self._stack.append(min(1 + sum(parts) + large, 1 + self._MOST))

    def _top(self) -> int:
        weight = self._stack[-1]
        if weight is None:
            raise ValueError("a mark where an object should be")
        return weight

    def _pop(self) -> int:
        weight = self._top()
        self._stack.pop()
        return weight

    def _pop_slice(self) -> list[int]:
        parts = []
        while (weight := self._stack.pop()) is not None:
            parts.append(weight)
        return parts[::-1]


_SLICE = (pickletools.markobject, pickletools.stackslice)
_NO_KEYS = slice(0, 0)
_KEYS = {  # which of what an opcode takes from the stack it hashes
    "SETITEM": slice(1, 2),
    "SETITEMS": slice(1, None, 2),
    "ADDITEMS": slice(1, None),
    "DICT": slice(0, None, 2),
    "FROZENSET": slice(None),
}


def check_content(content: Any, file_size: int) -> None:
    """Refuses what would keep a reader of `content` busy for ever, or overflow its stack.

    Nothing may hold itself or lie too deep; and all that a reader would meet who follows every
    reference, in elements and in bytes of text and arrays, is limited in proportion to the file.
    """
    # by id: weight and height of what was left; None while we are in it
    seen: dict[int, tuple[int, int] | None] = {id(content): None}
    path: list[tuple[Any, Iterator, int, int]] = [(content, _parts(content), 1, 1)]
    while path:
        node, parts, weight, height = path.pop()
        for part in parts:
            if not isinstance(part, _HOLDERS):
                weight += _leaf_weight(part)
            elif id(part) not in seen:
                seen[id(part)] = None
                path += [(node, parts, weight, height), (part, _parts(part), 1, 1)]
                break
            elif (found := seen[id(part)]) is None:
                raise CheckpointError("holds an object that contains itself, so it was refused")
            else:
                weight, height = weight + found[0], max(height, 1 + found[1])
        else:
            seen[id(node)] = weight, height
            if path:
                above, others, sum_, highest = path.pop()
                path.append((above, others, sum_ + weight, max(highest, 1 + height)))
        if weight > 32 * file_size + 2**20:
            raise CheckpointError("repeats its contents far beyond its size, so it was refused")
        if len(path) + height > _DEEPEST:
            raise CheckpointError(f"nests its contents more than {_DEEPEST} levels deep")


def names_of_records(content: Any) -> list[str]:
    """The classes of the records in checked content, the first few by name."""
    names, seen, nodes = set(), set(), [content]
    while nodes:
        node = nodes.pop()
        if id(node) not in seen:
            seen.add(id(node))
            if isinstance(node, Record) and not isinstance(node, TensorFlowNetwork):
                names.add(node.class_name)
            nodes += [part for part in _parts(node) if isinstance(part, _HOLDERS)]
    return sorted(names)[:_MOST_TOLD]


_MOST_TOLD = 8
# NVIDIA's snapshots have about 20 levels
_DEEPEST = 100
_HOLDERS = (dict, list, tuple, set, frozenset, Record)


def _parts(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        return chain(node, node.values())
    if isinstance(node, Record):
        return iter((node.args, node.state, node.items))
    return iter(node) if isinstance(node, list | tuple | set | frozenset) else iter(())


def _leaf_weight(leaf: Any) -> int:
    if isinstance(leaf, np.ndarray):
        return 1 + leaf.nbytes
    return 1 + len(leaf) if isinstance(leaf, str | bytes | bytearray) else 1
