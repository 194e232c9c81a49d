"""A checkpoint is read, or refused in a sentence; nothing in it ever runs."""

import argparse
import collections
import contextlib
import copy
import datetime
import decimal
import fractions
import gc
import hashlib
import io
import pathlib
import pickle
import struct
import sys
import time
import tracemalloc
import types
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.numpy

from ports import pickles
from ports.containers import read
from ports.errors import CheckpointError
from ports.records import PersistentObject, Record, TensorFlowNetwork

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


def legacy_file(content, storages, keys=None):
    """A file as torch.save wrote it before version 1.6: opcodes, and {key: (number, bytes)}."""
    parts = [
        value(0x1950A86A20F9469CFC6C),
        value(1001),
        value({"little_endian": True}),
        content,
        value(list(storages) if keys is None else list(keys)),
    ]
    raw = b"".join(struct.pack("<q", count) + numbers for count, numbers in storages.values())
    return b"".join(map(file, parts)) + raw


def storage(count, kind="FloatStorage", key="7", view=b"N"):
    """The opcodes of a reference to numbers outside the pickle."""
    place = value("storage") + name("torch", kind) + value(key) + value("cpu") + value(count)
    return b"(" + place + view + b"tQ"


def storage_file(numbers, count=None, kind="FloatStorage", key="7", keys=("7",)):
    """A storage as torch.save wrote it before version 1.6."""
    count = numbers.size if count is None else count
    return legacy_file(storage(count, kind, key), {key: (count, numbers.tobytes())}, keys)


def tensor(numbers, size, stride, offset=0, **storage):
    data = value(storage_file(numbers, **storage))
    return view(call(name("torch.storage", "_load_from_bytes"), data), size, stride, offset)


def view(storage, size, stride=(1,), offset=0):
    return call(
        name("torch._utils", "_rebuild_tensor_v2"),
        storage,
        value(offset),
        value(size),
        value(stride),
        value(False),
        call(name("collections", "OrderedDict")),
    )


def packed(entries, compression=zipfile.ZIP_STORED):
    """A zip archive of {name: content}."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    return stream.getvalue()


def torch_zip(content, storages=None, compression=zipfile.ZIP_STORED, **others):
    """A file as torch.save writes it: opcodes, and {key: array}."""
    entries = {"model/data.pkl": file(content, 2)} | others
    for key, numbers in (storages or {}).items():
        entries[f"model/data/{key}"] = numbers.tobytes()
    return packed(entries, compression)


def reference(count, kind="FloatStorage", key="0"):
    return storage(count, kind, key, view=b"")


@pytest.fixture
def load(tmp_path):
    def load(data):
        path = tmp_path / "network.pkl"
        path.write_bytes(data)
        return read(path)

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
    for what, x in torch_tensors(torch).items():
        assert_same(load(pickle.dumps([x, x], protocol))[1], x, what)


def torch_tensors(torch):
    base = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    parameter = torch.nn.Parameter(base.float())
    parameter.note = "with an attribute"
    kinds = "uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 bool uint16 uint32"
    return {kind: base.to(getattr(torch, kind)) for kind in kinds.split()} | {
        "channels_last": base.float().to(memory_format=torch.channels_last),
        "slice": base.float()[1, 1:, ::2],
        "transposed": base.bfloat16().transpose(0, 3),
        "scalar": torch.tensor(0.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base.float()),
        "parameter with state": parameter,
        "buffer": torch.nn.Buffer(base.float()),
    }


def assert_same(y, x, what=""):
    """An array is a tensor, a nested content what torch loads."""
    if hasattr(x, "detach"):
        x = x.detach().float() if str(x.dtype) == "torch.bfloat16" else x.detach()
        assert y.dtype == x.numpy().dtype, what
        assert y.shape == tuple(x.shape), what
        assert not y.flags.writeable or y.size == 0
        np.testing.assert_array_equal(y, x.numpy(), what)
    elif isinstance(x, dict):
        assert list(y) == list(x), what
        for key in x:
            assert_same(y[key], x[key], f"{what}.{key}")
    elif isinstance(x, list | tuple):
        assert len(y) == len(x), what
        for i, (a, b) in enumerate(zip(y, x, strict=True)):
            assert_same(a, b, f"{what}.{i}")
    elif isinstance(x, np.ndarray):
        np.testing.assert_array_equal(y, x, what)
    else:
        assert y == x, what


@pytest.fixture(params=["zip", "legacy"])
def saved(request, load):
    """Saves with PyTorch itself, in one of its layouts, and reads."""
    torch = pytest.importorskip("torch")

    def saved(content, pickle_protocol=2):
        stream = io.BytesIO()
        is_zip = request.param == "zip"
        torch.save(content, stream, pickle, pickle_protocol, is_zip)
        return load(stream.getvalue())

    saved.torch = torch
    return saved


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_both_layouts_of_pytorch_are_read_exactly(saved, protocol):
    tensors = torch_tensors(saved.torch)
    assert_same(saved(tensors, protocol), tensors)


def test_tensors_that_share_a_storage_are_read_exactly(saved):
    for dtype in ("float32", "bfloat16", "int64"):
        base = saved.torch.arange(24).to(getattr(saved.torch, dtype))
        content = [base[3:9], base.view(4, 6).T, base, base[:0], base[5]]
        assert_same(saved(content), content)


def test_a_training_state_is_read(saved):
    torch = saved.torch
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    plain = {
        "g_ema": model.state_dict(),
        "g_optim": optimiser.state_dict(),
        "random": torch.get_rng_state(),
        "numpy": np.random.RandomState(0).get_state(),
        "shape": torch.Size([2, 3]),
        "losses": collections.defaultdict(list, {"g": [1.0, np.float64(2), np.float32(3)]}),
        "seen": {1, 2},
        "names": frozenset({"a"}),
    }
    content = plain | {
        "args": argparse.Namespace(latent=512, out=pathlib.PurePosixPath("runs/1")),
        "device": torch.device("cuda", 0),
        "dtype": torch.bfloat16,
        "activation": torch.nn.LeakyReLU(0.2),
    }
    read = saved(content)
    assert_same({key: read[key] for key in plain}, plain)
    with pytest.raises(KeyError):
        read["losses"]["a key that a defaultdict would make"]
    assert isinstance(read["args"], Record)
    assert read["args"].class_name == "argparse.Namespace"
    assert read["args"].state == {"latent": 512, "out": "runs/1"}
    assert read["device"] == ("cuda", 0)
    assert read["dtype"] == "torch.bfloat16"
    assert read["activation"].class_name == "torch.nn.modules.activation.LeakyReLU"
    assert read["activation"].state["negative_slope"] == 0.2


def test_what_pytorch_can_save_and_we_cannot_read_is_called_by_its_name(saved):
    torch = saved.torch
    ones = torch.ones(2, 2)
    for content, sentence in {
        torch.complex(ones, ones): "complex numbers",
        ones.to_sparse(): "a sparse tensor",
        torch._neg_view(ones): "negated",
        ones.to(torch.float8_e4m3fn): "float8_e4m3fn",
    }.items():
        with pytest.raises(CheckpointError, match=sentence):
            saved(content)


def test_storage_views_of_old_files_are_read(load):
    part = b"(" + value("8") + value(4) + value(3) + b"t"
    content = b"](" + view(storage(24, view=part), (2,), offset=1) + view(storage(24), (24,)) + b"e"
    for dtype, kind in [("<f4", "FloatStorage"), ("<u2", "BFloat16Storage")]:
        numbers = np.arange(24).astype("<f4")
        raw = numbers if dtype == "<f4" else (numbers.view("<u4") >> 16).astype("<u2")
        typed = content.replace(b"FloatStorage", kind.encode())
        two, all_ = load(legacy_file(typed, {"7": (24, raw.tobytes())}))
        np.testing.assert_array_equal(all_, numbers)
        np.testing.assert_array_equal(two, [5, 6])


def test_archives_that_were_packed_again_are_read(load):
    zeros = np.zeros(10**4, np.float32)
    content = (
        b"](" + view(reference(24), (4, 6), (6, 1)) + view(reference(10**4, key="1"), (5,)) + b"e"
    )
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        folder = {"model/": b"", "__MACOSX/model/._data.pkl": b"\0"}
        numbers, five = load(torch_zip(content, {"0": NUMBERS, "1": zeros}, compression, **folder))
        np.testing.assert_array_equal(numbers, NUMBERS.reshape(4, 6))
        np.testing.assert_array_equal(five, zeros[:5])


def test_stored_numbers_are_views_of_the_file(load):
    numbers = np.ones(10**6, np.float32)
    data = torch_zip(view(reference(numbers.size), (numbers.size,)), {"0": numbers})
    tracemalloc.start()
    try:
        load(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * len(data) + 2**20


def test_a_tensorflow_network_keeps_its_state(load):
    state = {"variables": [("w", np.arange(3.0))], "version": 4, "build_module_src": "import os"}
    network = b")\x81" + value(state) + b"b"
    read = load(file(name("dnnlib.tflib.network", "Network") + network))
    assert isinstance(read, TensorFlowNetwork)
    assert read.state["build_module_src"] == "import os"
    np.testing.assert_array_equal(read.state["variables"][0][1], np.arange(3.0))


@pytest.mark.parametrize("path", [pathlib.PurePosixPath("/a/b"), pathlib.PureWindowsPath("C:/a")])
def test_paths_are_text(load, path):
    assert load(pickle.dumps(path)) == str(path)


def test_every_shared_checkpoint_is_read_as_pytorch_reads_it(shared):
    torch = pytest.importorskip("torch")
    folder = shared / "fixtures"
    fixtures = sorted(folder.rglob("*.p*")) + sorted(folder.rglob("*_model.bin"))
    assert fixtures
    for path in fixtures:
        content = read(path)
        if path.suffix == ".pkl":
            continue
        assert_same(content, torch.load(path, weights_only=True), path.name)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_that_are_not_known_are_inert_records(load, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    moment = datetime.datetime(2021, 3, 4)
    beside = [moment, collections.deque([1, 2], 3), slice(1, 2), collections.Counter("aab")]
    beside += [types.SimpleNamespace(a=[1]), fractions.Fraction(1, 3), decimal.Decimal("1.5")]
    read = load(pickle.dumps({"when": beside, "w": np.arange(3.0)}, protocol))
    np.testing.assert_array_equal(read["w"], np.arange(3.0))
    when, recent, part, counts, space, third, _ = read["when"]
    assert all(isinstance(record, Record) for record in read["when"])
    assert when.class_name == "datetime.datetime"
    assert when.args[0] == moment.__reduce_ex__(2)[1][0]
    assert recent.class_name == "collections.deque"
    assert list(recent.items) == [1, 2]
    assert part.args == (1, 2, None)
    assert (counts.class_name, third.args) == ("collections.Counter", (1, 3))
    assert space.state == {"a": [1]}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["network.pkl"]


def test_a_torch_module_of_any_class_is_a_record(saved):
    read = saved(saved.torch.nn.Sequential(saved.torch.nn.Linear(2, 3)))
    assert read.class_name == "torch.nn.modules.container.Sequential"
    linear = read.state["_modules"]["0"]
    assert linear.state["_parameters"]["weight"].shape == (3, 2)


@pytest.mark.parametrize("package", ["", "sg2ada.", "third_party.stylegan.", "a.b.c."])
def test_nvidias_names_are_known_by_their_ends(load, package):
    meta = {"type": "class", "version": 6, "module_src": "", "class_name": "G", "state": {"a": 1}}
    reconstruct = name(f"{package}torch_utils.persistence", "_reconstruct_persistent_obj")
    assert load(file(call(reconstruct, value(meta)))) == PersistentObject("G", {"a": 1})
    easy = name(f"{package}dnnlib.util", "EasyDict") + b")\x81" + value("a") + value(1) + b"s"
    assert load(file(easy)) == {"a": 1}
    network = name(f"{package}dnnlib.tflib.network", "Network") + b")\x81" + value({"v": 4}) + b"b"
    assert isinstance(load(file(network)), TensorFlowNetwork)


def test_safetensors_are_read_exactly(load):
    arrays = {
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "scalar": np.array(0.5, np.float32),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 4), np.int64),
    }
    data = safetensors.numpy.save(arrays, {"format": "pt"})
    assert_same(load(data), {name: arrays[name] for name in load(data)})
    assert load(data).keys() == arrays.keys()
    halves = (np.array([1, -2.5], "<f4").view("<u4") >> 16).astype("<u2")
    header = b'{"x":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    upper = struct.pack("<Q", len(header)) + header + halves.tobytes()
    np.testing.assert_array_equal(load(upper)["x"], [1, -2.5])
    for end in range(9, len(data)):
        with pytest.raises(CheckpointError):
            load(data[:end])


# --- what is refused --------------------------------------------------------------------------

HOSTILE = {
    "a name of the operating system": call(name("os", "system"), value("touch canary")),
    "the same by STACK_GLOBAL": value("posix")
    + value("system")
    + b"\x93"
    + value("touch canary")
    + b"\x85R",
    "a module in an attribute": call(
        value("ports.pickles") + value("pickle.loads") + b"\x93", value(b"N.")
    ),
    "eval": call(name("builtins", "eval"), value("open('canary', 'w')")),
    "getattr": call(name("builtins", "getattr"), value(""), value("join")),
    "a call in an argument": call(ORDERED_DICT, call(name("os", "mkdir"), value("canary"))),
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
    "scalars made by a number": call(
        name("numpy.core.numeric", "_frombuffer"),
        value(10**12),
        call(name("numpy", "dtype"), value("f4")),
        value((1,)),
        value("C"),
    ),
    "attributes of a record's class": build(name("argparse", "Namespace"), value({"a": 1})),
    "10^4 names": b"".join(name("a", f"b{i}") + b"0" for i in range(10**4)) + b"N",
    "a factory that is called": call(name("builtins", "list"), value("a")),
    "a default of the system": call(name("collections", "defaultdict"), name("os", "getcwd")),
    "a path that is no text": call(name("pathlib", "PosixPath"), value(1)),
    "a tensor built by another name": call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch.storage", "_load_from_bytes"),
        name("torch", "Tensor"),
        value((b"",)),
        value(None),
    ),
    "a sparse tensor": name("torch._utils", "_rebuild_sparse_tensor"),
    "a quantised tensor": name("torch._utils", "_rebuild_qtensor"),
    "an object of a wrapped module": b"(" + value("module") + ORDERED_DICT + b"NNtQ",
    "a list that holds itself": b"]q\x00h\x00a",
    "a dict that is its own value": b"}q\x7f" + value("a") + b"h\x7fs",
    "a cycle through a tuple": b"]q\x7fh\x7f\x85a",
    "a cycle through a record": name("argparse", "Namespace")
    + b")\x81q\x7f}"
    + value("a")
    + b"h\x7fsb",
    "lists nested 101 deep": b"]" * 101 + b"a" * 100,
    "depth by sharing": b"]q\x00](h\x00"
    + b"".join(b"]q%ch%ca" % (i + 1, i) for i in range(120))
    + b"e",
    "2^60 elements by sharing": b"]q\x00"
    + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60)),
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
    "one text repeated": file(value("a" * 10**4) + b"q\x7f]" + b"(" + b"h\x7f" * 10**4 + b"e"),
    "one storage behind many tensors": torch_zip(
        reference(10**4) + b"q\x7f](" + view(b"h\x7f", (10**4,)) * 400 + b"e",
        {"0": np.zeros(10**4, np.float32)},
    ),
    "a storage of 2^60 in an old file": legacy_file(
        view(storage(2**60), (1,)), {"7": (2**60, b"abc")}
    ),
    "many storages in an old file": legacy_file(
        b"](" + b"".join(view(storage(1000, key=str(i)), (1,)) for i in range(500)) + b"e",
        {str(i): (1000, b"") for i in range(500)},
    ),
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


SLOW = {  # what would overflow the stack or take for ever, were it built and hashed
    "tuples nested on the C stack": file(b"})" + b"\x85" * 150_000 + b"Ns", 4),
    "the same in a set of ours": file(
        call(name("builtins", "set"), b"])" + b"\x85" * 150_000 + b"a"), 4
    ),
    "the same as an array's type": file(call(name("numpy", "dtype"), b")" + b"\x85" * 150_000), 4),
    "the same as a storage's key": legacy_file(b"N", {}).replace(
        file(value([])), file(b"])" + b"\x85" * 150_000 + b"a")
    ),
    "a key of 2^90 parts": file(b"})" + b"2\x86" * 90 + b"Ns", 4),
    "integers that collide": pickle.dumps({i * sys.hash_info.modulus: 0 for i in range(3000)}),
    "pairs as keys": pickle.dumps({(i, i): 0 for i in range(3000)}),
    "10^6 lists nested": file(b"]" * 10**6 + b"a" * (10**6 - 1)),
    "10^6 sets": file(b"(" + b"\x8f" * 10**6 + b"t", 4),
    "10^5 nested records": file(
        (name("argparse", "Namespace") + b")\x81}" + value("a")) * 10**4 + b"N" + b"sb" * 10**4
    ),
}


@pytest.mark.parametrize("what", SLOW)
def test_no_file_overflows_the_stack_or_keeps_us_busy(load, what):
    start = time.perf_counter()
    with pytest.raises(CheckpointError):
        load(SLOW[what])
    assert time.perf_counter() - start < 20


# --- hostile containers -----------------------------------------------------------------------


def changed(data, signature, place, form, number, last=False):
    """A zip archive with a number in its first, or last, header of this kind changed."""
    start = data.rfind(signature) if last else data.find(signature)
    data = bytearray(data)
    struct.pack_into(form, data, start + place, number)
    return bytes(data)


LOCAL, DIRECTORY, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
PLAIN = torch_zip(view(reference(24), (24,)), {"0": NUMBERS})
DEFLATED = torch_zip(view(reference(24), (24,)), {"0": NUMBERS}, zipfile.ZIP_DEFLATED)


def renamed(new):
    """The archive with another name, of any length, for the entry version."""
    return torch_zip(view(reference(24), (24,)), {"0": NUMBERS}, **{new: b"3"})


def doubled():
    stream = io.BytesIO(PLAIN)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("model/data.pkl", file(value("another")))
    return stream.getvalue()


def bomb():
    """100 MB of zeros in 100 KB."""
    return torch_zip(value(1), {"0": np.zeros(10**8, np.uint8)}, zipfile.ZIP_DEFLATED)


def many_entries(number):
    """An archive that says that it has so many entries, and lists them."""
    local = struct.pack("<4s5H3I2H", LOCAL, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4s6H3I5H2I", DIRECTORY, 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    listed = (entry + b"a") * number
    end = struct.pack("<4s4H2IH", END, 0, 0, 0xFFFF, 0xFFFF, len(listed), len(local), 0)
    place = len(local) + len(listed)
    end64 = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, number, number, len(listed), len(local)
    )
    return local + listed + end64 + struct.pack("<4sIQI", b"PK\x06\x07", 0, place, 1) + end


CONTAINERS = {  # archives, and a word of the sentence that refuses each
    "a zip bomb": (bomb, "8-fold"),
    "a size that is claimed": (
        lambda: changed(changed(DEFLATED, DIRECTORY, 24, "<I", 2**31), LOCAL, 22, "<I", 2**31),
        "8-fold",
    ),
    "a content longer than its size": (
        lambda: changed(changed(DEFLATED, DIRECTORY, 24, "<I", 9), LOCAL, 22, "<I", 9),
        "not as long",
    ),
    "10^5 entries": (lambda: many_entries(10**5), "100000 entries"),
    "entries listed twice": (lambda: many_entries(2), "two entries"),
    "a way up": (lambda: renamed("model/../../canary"), "points out"),
    "an absolute name": (lambda: renamed("/canary"), "points out"),
    "a name on a drive": (lambda: renamed("C:canary"), "points out"),
    "a backslash": (lambda: renamed("model\\canary"), "points out"),
    "a name twice": (doubled, "two entries"),
    "encrypted": (lambda: changed(PLAIN, DIRECTORY, 8, "<H", 1), "encrypted"),
    "bzip2": (lambda: changed(PLAIN, DIRECTORY, 10, "<H", 12), "method 12"),
    "another name before its bytes": (
        lambda: changed(PLAIN, LOCAL, 30, "<B", ord("M")),
        "in two ways",
    ),
    "another size before its bytes": (lambda: changed(PLAIN, LOCAL, 22, "<I", 1), "in two ways"),
    "another method before its bytes": (lambda: changed(PLAIN, LOCAL, 8, "<H", 8), "in two ways"),
    "overlapping entries": (
        lambda: changed(changed(PLAIN, DIRECTORY, 20, "<I", 2000), LOCAL, 18, "<I", 2000),
        "overlap",
    ),
    "two sizes for what is stored": (
        lambda: changed(changed(PLAIN, DIRECTORY, 24, "<I", 1), LOCAL, 22, "<I", 1),
        "two sizes",
    ),
    "an entry beyond the end": (
        lambda: changed(PLAIN, DIRECTORY, 42, "<I", 2**31, last=True),
        "not in its zip archive",
    ),
    "a changed weight": (lambda: PLAIN.replace(NUMBERS.tobytes(), bytes(96)), "checksum"),
    "a directory elsewhere": (lambda: changed(PLAIN, END, 16, "<I", 1), "not where it says"),
    "a part of several": (lambda: changed(PLAIN, END, 4, "<H", 1), "one part"),
    "text after the end": (lambda: PLAIN + b"text", "after its end"),
    "half an archive": (lambda: PLAIN[:300], "cut short"),
    "an empty archive": (lambda: packed({}), "it has nothing"),
    "another archive": (lambda: packed({"a/b.txt": b""}), "it has a/b.txt"),
    "two checkpoints": (lambda: renamed("other/data.pkl"), "did not write"),
    "an archive of arrays": (lambda: packed({"w.npy": b"", "b.npy": b""}), "npz"),
    "TorchScript": (lambda: renamed("model/constants.pkl"), "TorchScript"),
    "TorchScript's code": (lambda: renamed("model/code/__torch__.py"), "TorchScript"),
    "an exported program": (lambda: renamed("model/archive_format"), "torch.export"),
    "big-endian": (
        lambda: torch_zip(value(1), **{"model/byteorder": b"big"}),
        "big-endian",
    ),
    "numbers that are not there": (lambda: torch_zip(view(reference(24), (24,))), "lacks"),
    "fewer numbers than it says": (
        lambda: torch_zip(view(reference(25), (24,)), {"0": NUMBERS}),
        "25 numbers in 96 bytes",
    ),
    "numbers of two types": (
        lambda: torch_zip(
            view(reference(24), (24,)) + view(reference(24, "IntStorage"), (24,)), {"0": NUMBERS}
        ),
        "different numbers",
    ),
    "a key that leads elsewhere": (
        lambda: torch_zip(view(reference(9, "ByteStorage", "../data.pkl"), (9,))),
        "lacks",
    ),
    "complex numbers": (
        lambda: torch_zip(view(reference(3, "ComplexFloatStorage"), (3,)), {"0": NUMBERS}),
        "complex",
    ),
    "another object than a storage": (lambda: torch_zip(b"(" + value("os") + b"NNNNtQ"), "kind"),
    "a call in an archive": (
        lambda: torch_zip(call(name("os", "system"), value("touch canary"))),
        "asks for os.system",
    ),
    "a call in an old file": (
        lambda: legacy_file(call(name("os", "system"), value("touch canary")), {}),
        "asks for os.system",
    ),
    "numbers that an old file lists twice": (
        lambda: legacy_file(view(storage(1), (1,)), {"7": (1, b"abcd")}, ["7", "7"]),
        "not where they should be",
    ),
    "another number than an old file says": (
        lambda: legacy_file(view(storage(1), (1,)), {"7": (2, b"abcdefgh")}),
        "2 numbers for a tensor of 1",
    ),
    "a part beyond the numbers of an old file": (
        lambda: legacy_file(
            storage(1, view=b"(" + value("8") + value(1) + value(1) + b"t"), {"7": (1, b"abcd")}
        ),
        "beyond its end",
    ),
    "an old file of another version": (
        lambda: file(value(0x1950A86A20F9469CFC6C)) + file(value(1000)),
        "a layout",
    ),
    "terminal codes in a name": (
        lambda: renamed("/\x1b[2J"),
        r"the name /\?\[2J",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", CONTAINERS)
def test_a_hostile_container_is_refused_by_name(load, tmp_path, monkeypatch, what):
    make, sentence = CONTAINERS[what]
    data = make()
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=sentence) as error:
            load(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert peak < 12 * len(data) + 2**23
    assert sorted(p.name for p in tmp_path.iterdir()) == ["network.pkl"]


def test_checksums_that_were_not_computed_are_not_compared(load):
    crc = struct.pack("<I", zlib.crc32(NUMBERS.tobytes()))
    np.testing.assert_array_equal(load(PLAIN.replace(crc, bytes(4))), NUMBERS)


@pytest.mark.parametrize(
    "data", [PLAIN, DEFLATED, storage_file(NUMBERS)], ids=["zip", "deflated", "old"]
)
def test_a_truncated_container_is_refused_wherever_it_ends(load, data):
    for end in range(1, len(data)):
        with pytest.raises(CheckpointError):
            load(data[:end])


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
        (b"\0" * 257 + b"ustar", "is a tar archive; unpack it"),
        (b"\x1f\x8b\x08", "is compressed by gzip"),
        (b"\x93NUMPY", "is one NumPy array"),
        (struct.pack("<Q", 2) + b'{"}', "is a damaged safetensors file"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it"),
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
        read(tmp_path / "none.pkl")
    with pytest.raises(CheckpointError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(CheckpointError, match="is a device"):
        read("/dev/zero")


# --- what reading takes ------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    """A network pickle of 32 tensors of a megabyte, and their number of bytes."""
    numbers = np.arange(2**18, dtype=np.float32)
    opcodes = [value(str(i)) + tensor(numbers + i, (2**18,), (1,)) for i in range(32)]
    path = tmp_path / "network.pkl"
    path.write_bytes(file(b"}(" + b"".join(opcodes) + b"u"))
    return path, 32 * numbers.nbytes


def test_a_pickle_is_never_in_memory_beside_what_it_holds(large):
    path, size = large
    gc.disable()
    try:
        tracemalloc.start()
        content = read(path)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(content) == 32
    assert peak < 1.2 * size
    assert kept < 1.05 * size  # and nothing waits for the garbage collector


def test_a_file_is_read_once_to_be_read_and_hashed(large):
    path, _ = large
    for data in (path.read_bytes(), legacy_file(value({"x": 1}), {}), torch_zip(value({"x": 1}))):
        path.write_bytes(data)
        digest = hashlib.sha256()
        read(path, digest)
        assert digest.digest() == hashlib.sha256(data).digest()
