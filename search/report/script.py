"""The best configuration of a run as a training of its own: a short script that needs voctrain only."""

import dataclasses
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

from search import __version__
from search.run_folder.records import BestRecord, RunRecord
from search.tasks import find_task
from search.tasks.script import Script
from voctrain.config import TrainConfig
from voctrain.data import load

HEAD = '''"""The training of trial {trial} of {run}: {metric} {score:.4f} in epoch {epoch}.

It needs only voctrain, of voc-search {version}. On the same CPU, with as many threads, it repeats the
trial exactly. The best weights are saved in model.pt.
"""
'''
SETUP = """
data = load(
{data}
)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

seed_epoch(config.seed, 0)
model = new_model(config, data)
model.to(device, memory_format=torch.channels_last)
{setup}

batches = batches_per_epoch(len({draw}), config.batch_size)
optimizer = build_optimizer(model, config)
schedule = Schedule(optimizer, config, batches)
"""
WIDTH = 100  # of a line of imports
IMPORTS = {
    "voctrain.data": "load",
    "voctrain.loop": "batches_per_epoch",
    "voctrain.optim": "Schedule, build_optimizer",
    "voctrain.seeding": "seed_epoch",
}


def training_script(run: Path, record: RunRecord, best: BestRecord) -> str:
    """A Python script that trains the best configuration of a run and saves its best weights."""
    task = find_task(record.task)
    config = task.config.from_dict(best.config)
    parts = task.script(config)
    module = f"voctrain.{task.name}"
    imports = {**IMPORTS, "voctrain.config": type(config).__name__}
    for name, names in (*parts.imports.items(), (module, "checkpoint, new_model"), *_loop_imports(config).items()):
        imports[name] = ", ".join(filter(None, (imports.get(name), names)))
    head = HEAD.format(
        run=run, trial=best.trial, metric=best.metric, score=best.score, epoch=best.epoch, version=__version__
    )
    lines = [
        head,
        "import torch",
        "",
        *(_import(name, imports[name]) for name in sorted(imports)),
        "",
        f"config = {_call(config)}",
        SETUP.strip().format(data=_load_arguments(record), setup=parts.setup, draw=parts.draw),
        *_preparation(config),
        "",
        'best = -float("inf")',
        "for epoch in range(1, config.epochs + 1):",
        *_epoch(config, parts, best.metric),
    ]
    return "\n".join(lines)


def _import(module: str, names: str) -> str:
    """A sorted import, on several lines if it is long."""
    sorted_names = sorted(set(names.split(", ")), key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    line = f"from {module} import {', '.join(sorted_names)}"
    if len(line) <= WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in sorted_names) + ")"


def _call(config: TrainConfig) -> str:
    """The configuration as a call, without the fields that have their defaults."""
    plain, fields = config.to_dict(), dataclasses.fields(config)
    given = {f.name: plain[f.name] for f in fields if getattr(config, f.name) != f.default}
    return (
        f"{type(config).__name__}(\n"
        + "".join(f"    {name}={_literal(value)},\n" for name, value in given.items())
        + ")"
    )


def _load_arguments(record: RunRecord) -> str:
    """The arguments of `voctrain.data.load`, one per line.

    The options of a run have their names, those that take several values in the singular.
    """
    options = record.options.to_json()
    arguments = [_literal(options["data"]), "image_size=config.image_size"]
    for name, parameter in list(inspect.signature(load).parameters.items())[2:]:
        value = options.get(name, options.get(name.removesuffix("s")))
        if value not in (None, parameter.default):
            arguments.append(f"{name}={_literal(value)}")
    return "\n".join(f"    {argument}," for argument in arguments)


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | list | tuple) else repr(value)


def _loop_imports(config: TrainConfig) -> dict[str, str]:
    imports = {}
    if config.precision != "float32":
        imports["voctrain.precision"] = "autocast"
    if _scaled(config):
        imports |= {"voctrain.precision": "autocast, grad_scaler", "voctrain.overflow": "FiniteBuffers"}
    if config.ema_memory is not None:
        imports["voctrain.weight_averaging"] = "MovingAverage"
    if config.clip_norm is not None or config.clip_value is not None:
        imports["voctrain.loop"] = "clip_gradients"
    return imports


def _scaled(config: TrainConfig) -> bool:
    """Whether the gradients may need scaling, which depends on the device."""
    return config.precision in ("auto", "float16")


def _preparation(config: TrainConfig) -> Iterator[str]:
    if _scaled(config):
        yield "scaler = grad_scaler(config, device)  # for float16, which older GPUs need"
        yield "buffers = FiniteBuffers(model, enabled=scaler.is_enabled())"
    if config.ema_memory is not None:
        yield "average, step = MovingAverage(model, config.ema_memory, batches * config.epochs), 0"


def _epoch(config: TrainConfig, parts: Script, metric: str) -> Iterator[str]:
    """The body of the loop over epochs."""
    yield "    seed_epoch(config.seed, epoch)"
    yield "    model.train()"
    yield f"    for index in {parts.draw}.tensor_split(batches):"
    yield from _lines(_step(config, parts), 8)
    yield ""
    yield f"    evaluated = {'model' if config.ema_memory is None else 'average.model'}.eval()"
    yield "    with torch.inference_mode():"
    yield indent(parts.score.strip(), " " * 8)
    yield f'    score = metrics["{metric}"]'
    if config.schedule == "plateau":
        yield "    schedule.end_epoch(score)"
    yield f'    print(f"epoch {{epoch}}: {metric} {{score:.4f}}")'
    yield "    if score > best:"
    yield "        best = score"
    if config.patience is not None:
        yield "        patience = config.patience"
    yield "        saved = checkpoint(config, data, evaluated.state_dict(), metrics)"
    if parts.extra:
        yield indent(parts.extra, " " * 8)
    yield '        torch.save(saved, "model.pt")'
    if config.patience is not None:
        yield "    elif (patience := patience - 1) == 0:"
        yield "        break"


def _step(config: TrainConfig, parts: Script) -> Iterator[str]:
    """The body of the loop over batches."""
    if config.micro_batch is None:
        yield from _gradients(config, parts)
    else:
        averages = getattr(config, "reduction", "mean") == "mean"
        yield "whole = index"
        yield "for index in whole.tensor_split(batches_per_epoch(len(whole), config.micro_batch)):"
        yield from _lines(iter(["share = len(index) / len(whole)"] if averages else ()), 4)
        yield from _lines(_gradients(config, parts, share=averages), 4)
    if config.clip_norm is not None or config.clip_value is not None:
        if _scaled(config):
            yield "scaler.unscale_(optimizer)"
        yield "clip_gradients(model, config)"
    yield from ("scaler.step(optimizer)", "scaler.update()") if _scaled(config) else ("optimizer.step()",)
    yield "optimizer.zero_grad(set_to_none=True)"
    yield "schedule.step()"
    if _scaled(config):
        yield "buffers.repair()"
    if config.ema_memory is not None:
        yield "step += 1"
        yield "average.update(step)"


def _gradients(config: TrainConfig, parts: Script, *, share: bool = False) -> Iterator[str]:
    """Loss and gradients of the images at `index`; share: weighted by their share of the batch."""
    if config.aug_repeats > 1:
        yield "index = index.repeat(config.aug_repeats)"
    if config.precision == "float32":
        yield parts.loss.strip()
    else:
        yield "with autocast(config, device):"
        yield indent(parts.loss.strip(), " " * 4)
    if share:
        yield "loss = loss * share"
    yield "scaler.scale(loss).backward()" if _scaled(config) else "loss.backward()"


def _lines(lines: Iterator[str], spaces: int) -> Iterator[str]:
    return (indent(line, " " * spaces) for line in lines)
