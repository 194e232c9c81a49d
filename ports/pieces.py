"""A file in memory that gives up what has been read of it."""

import io
from typing import Any, BinaryIO

_SIZE = 2**20


class Pieces(io.RawIOBase):
    """The bytes of a file, from which an `io.BufferedReader` reads, at first as often as it likes.

    Attributes:
      pieces: of the file, in order.
      size: of the file, in bytes.
      spending: whether a piece that has been read is dropped, so that what an unpickler makes of
        the file takes the place of the file, and is never beside it.
    """

    def __init__(self, file: BinaryIO):
        self.pieces = list(iter(lambda: file.read(_SIZE), b""))
        self._place = 0
        self.size = sum(map(len, self.pieces))
        self.spending = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        self._place = start + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        number, start = divmod(self._place, _SIZE)
        if self._place >= self.size:
            return 0
        part = memoryview(self.pieces[number])[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._place += len(part)
        if self.spending and self._place % _SIZE == 0:
            self.pieces[number] = b""
        return len(part)


class Skimmed(io.BufferedReader):
    """Reads long stretches into one array again and again, to look at what stands between them.

    If each were a new one, freeing it would teach the C library to keep freed memory of that size
    for later, and the networks that are read next and not needed would stay in memory.
    """

    def __init__(self, pieces: Pieces):
        super().__init__(pieces)
        self._size = pieces.size
        self._stretch = bytearray()

    def read(self, size: int | None = -1) -> Any:
        if size is None or not _SIZE <= size <= self._size:
            return super().read(size)
        if len(self._stretch) > size:
            del self._stretch[size:]
        while len(self._stretch) < size:
            self._stretch += bytes(min(size - len(self._stretch), _SIZE // 16))
        del self._stretch[self.readinto(self._stretch) :]
        return self._stretch
