"""A pickle is read, or refused in a sentence; nothing in it ever runs."""

import contextlib
import copy
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from ports import pickles
from ports.pickles import CheckpointError, PersistentObject, load_pickle

PROTOCOLS = range(6)


def name(module, attribute):
    """The opcode that looks a name up."""
    return f"c{module}\n{attribute}\n".encode()


def value(x):
    """The opcodes that make a plain value."""
    return pickle.dumps(x, 3)[2:-1]


def call(function, *args):
    return function + b"(" + b"".join(args) + b"tR"


def build(target, state):
    """The opcode that sets an object's state: its attributes, or as a pair also its slots."""
    return target + state + b"b"


def file(opcodes, protocol=3):
    return bytes([0x80, protocol]) + opcodes + b"."


def storage_file(numbers, count=None, kind="FloatStorage", key="7", keys=("7",)):
    """A storage as torch.save wrote it before version 1.6."""
    count = numbers.size if count is None else count
    pid = value("storage") + name("torch", kind) + value(key) + value("cpu") + value(count) + b"N"
    parts = [
        value(0x1950A86A20F9469CFC6C),
        value(1001),
        value({"little_endian": True}),
        b"(" + pid + b"tQ",
        value(list(keys)),
    ]
    return b"".join(map(file, parts)) + struct.pack("<q", count) + numbers.tobytes()


def tensor(numbers, size, stride, offset=0, **storage):
    data = value(storage_file(numbers, **storage))
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        call(name("torch.storage", "_load_from_bytes"), data),
        value(offset),
        value(size),
        value(stride),
        value(False),
        call(name("collections", "OrderedDict")),
    )


@pytest.fixture
def load(tmp_path):
    def load(data):
        path = tmp_path / "network.pkl"
        path.write_bytes(data)
        return load_pickle(path)

    return load


NUMBERS = np.arange(24, dtype=np.float32)
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
ORDERED_DICT = name("collections", "OrderedDict")


# --- what is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_back_in_every_protocol(load, protocol):
    plain = {"a": [1, 2.5, "é", b"\x00\xff", b"", None, True], "b": ((), (1, (2,))), "c": {3, 4}}
    assert load(pickle.dumps(plain, protocol)) == plain


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i8", "u1", "?"])
def test_numpy_arrays_come_back_in_every_protocol(load, protocol, dtype):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    for x in (
        array,
        np.asfortranarray(array),
        array[0, 0, 0],
        array[:0],
        np.tile(array, (9, 9, 9)),
    ):
        y = load(pickle.dumps(x, protocol))
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, x)


def test_arrays_are_read_by_the_name_that_numpy_had_before_version_2(load):
    data = pickle.dumps(np.arange(3.0), 2)
    assert b"numpy._core" in data
    np.testing.assert_array_equal(load(data.replace(b"numpy._core", b"numpy.core")), np.arange(3.0))


def test_tensors_honour_size_stride_and_offset(load):
    whole = load(file(tensor(NUMBERS, (2, 3, 4), (12, 4, 1))))
    np.testing.assert_array_equal(whole, NUMBERS.reshape(2, 3, 4))
    channels_last = load(file(tensor(NUMBERS, (2, 3, 4), (12, 1, 3))))
    np.testing.assert_array_equal(channels_last, NUMBERS.reshape(2, 4, 3).transpose(0, 2, 1))
    np.testing.assert_array_equal(load(file(tensor(NUMBERS, (3,), (2,), 5))), [5, 7, 9])
    assert load(file(tensor(NUMBERS, (), (), 23))) == 23
    assert load(file(tensor(NUMBERS, (0, 3), (3, 1)))).shape == (0, 3)


def test_bfloat16_is_converted_exactly(load):
    numbers = np.array([1, -2.5, 3.3895314e38, 1e-40, np.inf], np.float32)
    halves = (numbers.view("<u4") >> 16).astype("<u2")
    x = load(file(tensor(halves, (5,), (1,), kind="BFloat16Storage")))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x.view("<u4"), halves.astype("<u4") << 16)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors_come_back_as_pytorch_itself_pickles_them(load, protocol):
    torch = pytest.importorskip("torch")
    base = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    tensors = {
        "float": base.float(),
        "double": base.double(),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "long": base,
        "bool": base > 3,
        "channels_last": base.float().to(memory_format=torch.channels_last),
        "slice": base.float()[1, 1:, ::2],
        "transposed": base.float().transpose(0, 3),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base.float()),
    }
    for what, x in tensors.items():
        y = load(pickle.dumps([x, x], protocol))[1]
        assert y.shape == tuple(x.shape), what
        np.testing.assert_array_equal(y, x.detach().to(torch.float64).numpy(), what)


def test_persistent_objects_keep_class_and_state(load):
    meta = {"type": "class", "version": 6, "module_src": "", "class_name": "G", "state": {"a": 1}}
    reconstruct = name("torch_utils.persistence", "_reconstruct_persistent_obj")
    assert load(file(call(reconstruct, value(meta)))) == PersistentObject("G", {"a": 1})


# --- what is refused --------------------------------------------------------------------------

HOSTILE = {
    "a name of the operating system": call(name("os", "system"), value("touch canary")),
    "the same by STACK_GLOBAL": value("posix")
    + value("system")
    + b"\x93"
    + value("touch canary")
    + b"\x85R",
    "a name with dots": call(name("ports.pickles", "pickle.loads"), value(b"N.")),
    "eval": call(name("builtins", "eval"), value("open('canary', 'w')")),
    "getattr": call(name("builtins", "getattr"), value(""), value("join")),
    "a call in an argument": call(ORDERED_DICT, call(name("os", "mkdir"), value("canary"))),
    "a class of ours": name("ports.pickles", "_Dict"),
    "a class of Python 2": b"(ios\nsystem\n",
    "OBJ": b"(" + ORDERED_DICT + b"o",
    "an extension": b"\x82\x01",
    "a buffer from elsewhere": b"\x97",
    "an object from elsewhere": b"(" + value("storage") + b"NNNNNtQ",
    "calling what is no function": b"})R",
    "an opcode without operands": b"R",
    "NEWOBJ of a function": REBUILD + b")\x81",
    "attributes of a function": build(REBUILD, value({"_function": 1})),
    "slots of a function": build(REBUILD, value((None, {"_function": 1}))),
    "attributes of a class": build(ORDERED_DICT, value({"keys": 1})),
    "slots of a class": build(ORDERED_DICT, value((None, {"keys": 1}))),
    "slots of a storage": build(
        call(name("torch.storage", "_load_from_bytes"), value(storage_file(NUMBERS))),
        value((None, {"elements": 1})),
    ),
    "a tensor given another's contents": build(
        tensor(NUMBERS, (3,), (1,)), value((1, (9,), 0, 0, b""))
    ),
    "a set from a tensor": call(name("builtins", "set"), tensor(NUMBERS, (24,), (1,))),
    "a tensor beyond its storage": tensor(NUMBERS, (25,), (1,)),
    "a tensor beyond by offset": tensor(NUMBERS, (24,), (1,), 1),
    "a tensor beyond by stride": tensor(NUMBERS, (2,), (24,)),
    "a tensor before its storage": tensor(NUMBERS, (2,), (-1,)),
    "a negative offset": tensor(NUMBERS, (2,), (1,), -1),
    "a negative size": tensor(NUMBERS, (-2,), (1,)),
    "a stride that overflows": tensor(NUMBERS, (2,), (2**62,)),
    "a stride of no integer": tensor(NUMBERS, (2,), (1.0,)),
    "more sizes than strides": tensor(NUMBERS, (2, 2), (1,)),
    "a tensor of 33 axes": tensor(NUMBERS, (1,) * 33, (1,) * 33),
    "a small tensor of 10^12 numbers": tensor(NUMBERS, (10**6, 10**6), (0, 0)),
    "a tensor without a storage": call(REBUILD, value(0), value(0), value((1,)), value((1,))),
    "a storage larger than its bytes": tensor(NUMBERS, (1,), (1,), count=10**12),
    "a storage of negative size": tensor(NUMBERS, (1,), (1,), count=-1),
    "a storage of unknown type": tensor(NUMBERS, (1,), (1,), kind="QInt8Storage"),
    "a storage under another key": tensor(NUMBERS, (1,), (1,), keys=("8",)),
    "an array of objects": value(np.array([{}], object)),
    "an array of records": value(np.zeros(2, [("a", "f4")])),
    "an array of text": value(np.array(["a"])),
    "a big-endian array": value(np.arange(3, dtype=">f4")),
    "an array larger than its bytes": value(np.zeros(3)).replace(
        b"K\x03\x85", b"J\xff\xff\xff\x7f\x85"
    ),
    "an array of negative size": value(np.zeros(3)).replace(b"K\x03\x85", b"J\xfd\xff\xff\xff\x85"),
    "a scalar longer than its type": call(
        name("numpy.core.multiarray", "scalar"),
        call(name("numpy", "dtype"), value("f4"), value(False), value(True)),
        value(b"12345678"),
    ),
    "an array that is none": call(
        name("numpy.core.multiarray", "_reconstruct"), ORDERED_DICT, value((0,)), value(b"b")
    ),
    "bytes in an unknown encoding": call(name("_codecs", "encode"), value("a"), value("rot13")),
    "a network without a state": call(
        name("torch_utils.persistence", "_reconstruct_persistent_obj"), value({"class_name": "G"})
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_pickle_is_refused_and_runs_nothing(load, tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)  # where a canary would appear
    before = dict(pickles._NAMES)
    with pytest.raises(CheckpointError) as error:
        load(file(HOSTILE[what]))
    assert len(str(error.value)) < 400
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["network.pkl"]
    assert before == pickles._NAMES
    np.testing.assert_array_equal(load(file(tensor(NUMBERS, (3,), (1,)))), [0, 1, 2])


def test_a_refused_name_is_named(load):
    with pytest.raises(CheckpointError, match=r"network\.pkl asks for os\.system"):
        load(file(call(name("os", "system"), value("true"))))


BOMBS = {
    "a memo of 2^31 slots": file(b"Nr\xff\xff\xff\x7f"),
    "the same as text": file(b"Np2147483647\n"),
    "bytes of 2^40": file(b"\x8e" + struct.pack("<Q", 2**40) + b"abc"),
    "a frame of 2^50": file(b"\x95" + struct.pack("<Q", 2**50) + b"N", 4),
    # 6 bytes to who reads on; but the unpickler drops the frame's rest and reads a memo slot
    "a frame cut through an opcode": file(
        b"\x95" + struct.pack("<Q", 2) + b"B\x06\0\0\0" + b"\0r\xff\xff\xff\x7f", 4
    ),
    "tuples nested on the C stack": file(b"}" + b")" + b"\x85" * 300_000 + b"Ns", 4),
    "one list copied into many sets": file(
        value(list(range(1000)))
        + b"r\x80\x00\x00\x00"
        + name("builtins", "set")
        + b"r\x81\x00\x00\x00]("
        + b"h\x81h\x80\x85R" * 2000
        + b"e"
    ),
}


@pytest.mark.parametrize("what", BOMBS)
def test_no_file_takes_far_more_memory_than_its_size(load, what):
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            load(BOMBS[what])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * len(BOMBS[what]) + 2**23


def test_deeply_nested_lists_do_no_harm(load):
    assert load(file(b"]" * 10**5 + b"a" * (10**5 - 1)))


CONTENTS = {"x": np.arange(4.0), "y": [1, "two"]}
SAMPLES = {
    "with a tensor": pickle.dumps(CONTENTS, 3)[:-1]
    + value("z")
    + tensor(NUMBERS, (2, 3), (3, 1))
    + b"s.",
    "with frames": pickle.dumps(CONTENTS, 5),
}


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_truncated_file_is_refused_wherever_it_ends(load, sample):
    data = SAMPLES[sample]
    assert {"x", "y"} <= set(load(data))
    for end in range(1, len(data)):
        with pytest.raises(CheckpointError):
            load(data[:end])


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_damaged_file_is_read_or_refused_and_nothing_else(load, sample):
    rng = np.random.default_rng(0)
    for _ in range(500):
        damaged = np.frombuffer(SAMPLES[sample], np.uint8).copy()
        places = rng.integers(0, damaged.size, rng.integers(1, 5))
        damaged[places] = rng.integers(0, 256, places.size)
        with contextlib.suppress(CheckpointError):
            copy.deepcopy(load(damaged.tobytes()))  # reads every array to its last element


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"\x00" * 100, "is not a pickle"),
        (b"hello world, this is text", "is not a pickle"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"PK\x03\x04 and so on", "is a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        (SAMPLES["with a tensor"][:-20], "is cut short or damaged"),
        (SAMPLES["with frames"][:-20], "is cut short or damaged"),
        (b"\x80\xc8N.", "is damaged"),
    ],
)
def test_what_is_no_pickle_is_called_by_its_name(load, data, sentence):
    with pytest.raises(CheckpointError, match=sentence):
        load(data)


def test_a_missing_file_and_a_folder_are_called_by_their_name(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_pickle(tmp_path / "none.pkl")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_pickle(tmp_path)
