"""What the tests of several formats do with a file's contents."""

from ports.errors import CheckpointError
from ports.upstream import choose


def convert(content, *settings):
    format, candidate = choose(content)
    return format.convert(candidate, *settings)


def known(content):
    try:
        return bool(choose(content))
    except CheckpointError:
        return False
