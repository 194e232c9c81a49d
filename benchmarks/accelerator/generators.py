"""Images a second of the generators with random weights, beside PyTorch in plain operations.

The synthesis network of StyleGAN2 with its default channels, at 256 and 1024 px, beside the two
forms of `benchmarks.generators`, a kernel a sample and one shared kernel; BigGAN-deep at 128 px
beside the package pytorch-pretrained-biggan, where it is installed. Images stay on the device.

Ours in TF32 is the network traced with TF32 products: the generators themselves compute in full
float32 or, asked for bfloat16, in bfloat16 and, in a StyleGAN2's low resolutions, in TF32. PyTorch
in bfloat16 has its weights in it too.

`peak MiB` is what XLA plans for the program, arguments included; PyTorch's is the most that it had
allocated at once, other contenders' arrays freed.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ports.biggan.model
import ports.stylegan2
from benchmarks.accelerator import ceilings, pytorch
from benchmarks.accelerator.library import (
    analysis,
    biggan_program,
    operations,
    random_variables,
    stylegan2_program,
)
from benchmarks.accelerator.record import Part, Row
from benchmarks.accelerator.timing import timed
from benchmarks.generators import stylegan2_config
from ports.biggan.config import BigGANConfig, BlockConfig

Array = jax.Array

PRECISIONS = ("highest", "bfloat16", "tf32")
# upsample, channels in and out in widths: the layers of BigGAN-deep, by px; 32 for a trial
BIGGAN_LAYERS = {
    128: (
        (False, 16, 16), (True, 16, 16), (False, 16, 16), (True, 16, 8), (False, 8, 8),
        (True, 8, 4), (False, 4, 4), (True, 4, 2), (False, 2, 2), (True, 2, 1),
    ),
    32: ((True, 16, 8), (True, 8, 4), (True, 4, 2), (False, 2, 1)),
}  # fmt: skip
BIGGAN_ATTENTION = {128: 8, 32: 2}  # layers below it


class Task(NamedTuple):
    """What images are made of: `stylegan2` of so many px, or `biggan`; `width` scales channels."""

    name: str
    px: int
    batch: int
    width: int


TASKS = (
    Task("stylegan2", 256, 16, 512),
    Task("biggan", 128, 32, 128),
    Task("stylegan2", 1024, 4, 512),
)
QUICK_TASKS = (Task("stylegan2", 16, 2, 16), Task("biggan", 32, 1, 8))


def measure(part: Part) -> None:
    index, where = ["model", "px", "batch", "products"], {"what": "images"}
    part.describe(
        tables=[
            *(
                {"index": index, "across": ["who"], "values": [value], "where": where}
                for value in ("images/s", "peak MiB")
            ),
            {
                "index": index,
                "values": ["GFLOP", "floor ms", "share of floor", "XLA GB"],
                "where": where | {"who": "ours"},
            },
        ]
    )
    found = ceilings.measure_ceilings(part)
    without_torch = part.leave_out(pytorch.why_not())
    for precision in PRECISIONS:
        for task in QUICK_TASKS if part.quick else TASKS:
            names = {"model": task.name, "px": task.px, "batch": task.batch, "products": precision}
            run = functools.partial(ours, task, precision, found)
            part.row(run, who="ours", **names, **where)
            if without_torch or (task.name == "biggan" and part.leave_out(why_no_biggan())):
                continue
            for who, prepare in torch_contenders(task):
                run = functools.partial(theirs, prepare, task, precision)
                part.row(run, who=who, **names, **where)


def why_no_biggan() -> str | None:
    if importlib.util.find_spec("pytorch_pretrained_biggan") is None:
        return "pytorch-pretrained-biggan is left out: it is not installed"
    return None


def ours(task: Task, precision: str, found: ceilings.Ceilings) -> Row:
    variables = task_variables(task)
    lowered, inputs = image_program(task, variables, precision)
    program = lowered.compile()
    row = timed(lambda: program(variables, *inputs), jax.block_until_ready, seconds=0.5)
    row |= analysis(program)
    row |= ceilings.shares(row, operations(lowered), precision, found)
    return row | {"images/s": 1e3 * task.batch / row["ms"]}


def image_program(task: Task, variables: dict, precision: str) -> tuple[Any, tuple[Array, ...]]:
    """(variables, *inputs) -> images, and inputs."""
    key = jax.random.key(0)
    if task.name == "stylegan2":
        config = stylegan2_config(task.px, task.width)
        ws = jax.random.normal(key, (task.batch, config.num_ws, config.w_dim))
        return stylegan2_program(config, variables, ws, precision), (ws,)
    config = biggan_config(task)
    z = jax.random.normal(key, (task.batch, config.z_dim))
    y = jax.nn.one_hot(jnp.arange(task.batch), config.num_classes)
    return biggan_program(config, variables, z, y, precision), (z, y)


@functools.cache
def task_variables(task: Task) -> dict:
    """Random, the same for all precisions."""
    key = jax.random.key(0)
    if task.name == "stylegan2":
        return random_variables(
            lambda: ports.stylegan2.init(key, stylegan2_config(task.px, task.width)), 0
        )
    return random_variables(lambda: ports.biggan.model.init(key, biggan_config(task)), 0)


def biggan_config(task: Task) -> BigGANConfig:
    blocks = [
        BlockConfig(task.width * i, task.width * o, up) for up, i, o in BIGGAN_LAYERS[task.px]
    ]
    return BigGANConfig(
        z_dim=128,
        num_classes=1000,
        embed_dim=128,
        blocks=tuple(blocks),
        bottleneck=True,
        hierarchy="full",
        attention=(BIGGAN_ATTENTION[task.px],),
        num_stats=51,
        eps=1e-4,
        output_eps=1e-4,
    )


# PyTorch.


def theirs(prepare: Callable[[str], Callable[[], Any]], task: Task, precision: str) -> Row:
    torch = pytorch.torch
    pytorch.set_products(precision)
    pytorch.free()
    run = prepare(precision)
    if pytorch.on_cuda():
        torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        row = timed(run, pytorch.wait, seconds=0.5)
    peak = torch.cuda.max_memory_allocated() / 2**20 if pytorch.on_cuda() else None
    return row | {"images/s": 1e3 * task.batch / row["ms"], "peak MiB": peak}


def torch_contenders(task: Task) -> Iterator[tuple[str, Callable]]:
    """Who, and a function of a precision that gives one that makes images."""
    if task.name == "biggan":
        yield "PyTorch", functools.partial(torch_biggan, task, False)
        yield "the same, channels last", functools.partial(torch_biggan, task, True)
        return
    yield "PyTorch a sample", functools.partial(torch_stylegan2, task, True, False)
    yield "PyTorch shared", functools.partial(torch_stylegan2, task, False, False)
    yield "PyTorch, channels last", functools.partial(torch_stylegan2, task, False, True)


def torch_stylegan2(
    task: Task, fused: bool, channels_last: bool, precision: str
) -> Callable[[], Any]:
    from benchmarks.generators import prepare_stylegan2, synthesise

    torch, dtype = pytorch.torch, torch_dtype(precision)

    def tensors(tree: dict) -> dict:
        return jax.tree.map(lambda x: torch.tensor(np.asarray(x), device=pytorch.place()), tree)

    variables = task_variables(task)
    order = torch.channels_last if channels_last else torch.contiguous_format
    params = prepare_stylegan2(tensors(variables["params"]["synthesis"]), dtype, order)
    noise = tensors(variables["constants"]["synthesis"])
    config = stylegan2_config(task.px, task.width)
    ws = pytorch.gaussian(0, task.batch, config.num_ws, config.w_dim)
    return lambda: synthesise(params, noise, ws, fused=fused, dtype=dtype)


def torch_biggan(task: Task, channels_last: bool, precision: str) -> Callable[[], Any]:
    from pytorch_pretrained_biggan import BigGAN as Upstream
    from pytorch_pretrained_biggan import BigGANConfig as UpstreamConfig

    torch, dtype = pytorch.torch, torch_dtype(precision)
    torch.manual_seed(0)
    config = UpstreamConfig(
        channel_width=task.width,
        layers=[*BIGGAN_LAYERS[task.px]],
        attention_layer_position=BIGGAN_ATTENTION[task.px],
    )
    model = Upstream(config)
    with torch.no_grad():
        # upstream leaves these two uninitialised
        model.generator.bn.weight.fill_(1)
        model.generator.bn.bias.fill_(0)
    model = model.to(pytorch.place())
    z = pytorch.gaussian(0, task.batch, 128)
    y = torch.nn.functional.one_hot(torch.arange(task.batch), 1000).float().to(pytorch.place())
    with torch.no_grad():
        for _ in range(3):  # the power method finds the norms of the weights while in training
            model(z[:1], y[:1], 1.0)
    order = torch.channels_last if channels_last else torch.contiguous_format
    model = model.eval().to(dtype).to(memory_format=order)
    z, y = z.to(dtype), y.to(dtype)
    return lambda: model(z, y, 0.4)


def torch_dtype(precision: str) -> Any:
    return pytorch.torch.bfloat16 if precision == "bfloat16" else pytorch.torch.float32
