"""`sdelab preflight`."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from sdelab._extras import MissingExtra
from sdelab.cli.config_file import apply_overrides, load_config, split_overrides
from sdelab.cli.usage import UsageError, parse, print_table
from sdelab.train.chips import CHIPS, Chip, StepTime, predict
from sdelab.train.preflight import Memory, Program, Step, TooLarge, compile_step, lower_step
from sdelab.train.remedies import remedies
from sdelab.train.run import PLACEMENTS
from sdelab.train.topology import cpu_devices, read_topology, tpu_devices

SUMMARY = """Compiles the training step of a config for devices that need not be there, and says what it will need of them.

`sdelab preflight --config FILE --topology v5e:4x4` compiles for a TPU slice; `--devices cpu:8` for so many devices of this
machine's CPU, `--chip v5e` holding that against another chip; without either, for the devices that there are.
--config.section.key=value overrides as in `sdelab train`. The data need not be there, nothing of the model's size is made.
Exits with 1 if the step does not fit."""
DOES_NOT_FIT = 1
WIDTH = 19
"""Of the first column."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What is compiled for: `devices`, in words `name`; `chip` and its `memory` in bytes that the program is held against."""

    devices: Sequence[Any]
    name: str
    chip: Chip | None = None
    memory: int | None = None


def run(argv: list[str]) -> int:
    """Compiles and prints; 0 if it fits, 1 if not."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "path of a config file", flag_values=values)
    flags.DEFINE_string("topology", None, "TPU slice: v4:AxBxC, v5e:AxB, v5p:AxBxC or v6e:AxB", flag_values=values)
    flags.DEFINE_string("devices", None, "instead of a topology: cpu:N", flag_values=values)
    flags.DEFINE_enum(
        "chip", None, list(CHIPS), "with --devices: the chip to hold the program against", flag_values=values
    )
    flags.DEFINE_enum("placement", None, list(PLACEMENTS), "instead of config.run.placement", flag_values=values)
    help = "of the compiler: with O0 a large network is compiled sooner, and memory and times are less those of `sdelab train`"
    flags.DEFINE_enum("optimization_level", None, ["O0", "O1", "O2", "O3"], help, flag_values=values)
    rest, overrides = split_overrides(argv)
    given = parse(values, rest, SUMMARY, required=("config",))
    if given is None:
        return 0
    if given.optimization_level is not None:
        jax.config.update("jax_optimization_level", given.optimization_level)
    config = apply_overrides(load_config(given.config), overrides)
    if given.placement is not None:
        config["run"]["placement"] = given.placement
    return preflight(config, choose_target(given))


def choose_target(given: Any) -> Target:
    """The devices that the flags name. Where libtpu is missing, CPU devices stand for those of a topology, with a warning."""
    if given.topology is not None and (given.devices is not None or given.chip is not None):
        raise UsageError("--topology says which devices and chips: neither --devices nor --chip goes with it.")
    chip = None if given.chip is None else CHIPS[given.chip]
    if given.topology is not None:
        return _slice(given.topology)
    if given.devices is None:
        devices = jax.devices()
        limits = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
        memory = chip.memory if chip else limits[0]
        return Target(devices, f"{len(devices)} x {devices[0].device_kind}, those of this machine", chip, memory)
    kind, _, count = given.devices.partition(":")
    if kind != "cpu" or not count.isdecimal() or int(count) < 1:
        raise UsageError(f"--devices={given.devices} is not accepted; accepted: cpu:N with N >= 1.")
    name = f"{count} devices of the CPU" + (f", held against {chip.name}" if chip else "")
    return Target(cpu_devices(int(count)), name, chip, chip.memory if chip else None)


def _slice(topology: str) -> Target:
    chip, count = read_topology(topology)
    jax.config.update("jax_platforms", "cpu")  # the program is for other machines: this one's accelerators stay asleep
    try:
        return Target(tpu_devices(topology), f"{topology}, {count} chips", chip, chip.memory)
    except MissingExtra as error:
        instead = "Until then this is the program of the CPU's compiler, whose memory and collectives are its own."
        print(f"sdelab: warning: {error} {instead}", file=sys.stderr)
    return Target(cpu_devices(count), f"{count} devices of the CPU in place of {topology}", chip, chip.memory)


def preflight(config: dict[str, Any], target: Target) -> int:
    """Compiles the step of a config for a target, prints what there is to say, and returns the exit code."""
    step = lower_step(config, target.devices)
    print_table(_about_step(config, step, target), width=WIDTH)
    sys.stdout.flush()  # a compiler may take its time
    try:
        program = compile_step(step)
    except TooLarge as error:
        return _verdict(config, step, target, error.used, error.available)
    rows = [*_about_memory(program.memory, target), *_about_work(program, step), *_about_collectives(program, step)]
    if target.chip is not None:
        time = predict(target.chip, program.flops, program.accessed, program.collectives)
        rows += _about_time(config, time, program, step, target.chip)
    print_table(rows, width=WIDTH)
    return _verdict(config, step, target, program.memory.total, target.memory)


def _verdict(config: dict[str, Any], step: Step, target: Target, total: int, limit: int | None) -> int:
    if limit is None:
        print("no verdict: the memory of a device is not known here; --chip or --topology names one.")
        return 0
    if total <= limit:
        print(f"fits: {_gib(total)} of {_gib(limit)} a device, {total / limit:.0%}.")
        return 0
    print(f"does not fit: {_gib(total)} of {_gib(limit)} a device, {_gib(total - limit)} too much. What would help:")
    for words in remedies(config, step, total, limit, target.devices):
        print(f"  {words}")
    return DOES_NOT_FIT


def _about_step(config: dict[str, Any], step: Step, target: Target) -> list[tuple[str, str]]:
    size, used = config["optim"]["batch_size"], step.placement.shares
    rows = f"{size // used} a device" + (f" in {step.pieces} pieces" if step.pieces > 1 else "")
    count = sum(math.prod(x.shape) for x in step.parameters)
    return [
        ("compiled for", target.name + ("" if used == len(target.devices) else f", {used} in use")),
        ("placement", config["run"].get("placement", "jit")),
        ("batch", f"{size}, {rows}"),
        ("parameters", f"{count:,} in {len(step.parameters)} arrays, {_mb(step.gradient)}"),
        ("training state", f"{_mb(step.state)}, {_mb(step.held)} a device"),
    ]


def _about_memory(memory: Memory, target: Target) -> list[tuple[str, str]]:
    limit = "" if target.memory is None else f" of {_gib(target.memory)}"
    return [
        ("memory a device", f"{_gib(memory.total)}{limit}"),
        ("  arguments", _gib(memory.arguments)),
        ("  temporaries", _gib(memory.temporaries)),
        ("  outputs", f"{_gib(memory.outputs)}, {_gib(memory.donated)} of them in donated arguments"),
        ("  program", _gib(memory.code)),
    ]


def _about_work(program: Program, step: Step) -> list[tuple[str, str]]:
    share = step.flops / step.placement.shares
    return [
        ("FLOPs a device", f"{program.flops:.4g} a step in the program, {share:.4g} in the model's products"),
        ("bytes a device", f"{program.accessed:.4g} to and from memory"),
        ("model FLOPs", f"{step.flops:.4g} a step, forward and backward, whole batch"),
    ]


def _about_collectives(program: Program, step: Step) -> list[tuple[str, str]]:
    """A row for each kind, one for each operation of it, and what the gradients come to."""
    rows = []
    for kind in sorted({c.kind for c in program.collectives}):
        found = [c for c in program.collectives if c.kind == kind]
        total, runs = sum(c.size * c.times for c in found), sum(c.times for c in found)
        turns = "" if runs == len(found) else f", run {runs} times a step"
        rows.append(
            (kind, f"{len(found)}{turns}: {_mb(total)} in all, {_mb(sum(c.traffic for c in found))} sent a device")
        )
        largest = sorted(found, key=lambda c: -c.size)
        for c in largest[:8]:
            times = "" if c.times == 1 else f", {c.times} times"
            rows.append(("", f"{c.arrays} arrays, {_mb(c.size)}, {c.devices} devices{times}"))
        if largest[8:]:
            rows.append(("", f"{len(largest) - 8} more, up to {_mb(largest[8].size)}"))
    reductions = [c for c in program.collectives if c.kind in ("all-reduce", "reduce-scatter")]
    if step.placement.shares > 1:
        arrays = sum(c.arrays for c in reductions)
        gradients = f"{len(step.parameters)} gradients of {_mb(step.gradient)}"
        words = f"{len(reductions)} in all, on {arrays} arrays: {gradients}, and the loss"
        rows.append(("reductions", words))
    return rows or [("collectives", "none")]


def _about_time(
    config: dict[str, Any], time: StepTime, program: Program, step: Step, chip: Chip
) -> list[tuple[str, str]]:
    size = config["optim"]["batch_size"]
    utilisation = step.flops / (step.placement.shares * chip.flops * time.shortest)
    rows = [
        ("peak rates", f"{chip.name}: {chip.source}"),
        ("  compute", f"{_ms(time.compute)} at {chip.flops / 1e12:g} TFLOP/s"),
        ("  memory", f"{_ms(time.memory)} at {chip.bandwidth / 1e9:g} GB/s"),
        ("  communication", f"{_ms(time.communication)} at {chip.interconnect / 1e9:g} GB/s"),
        (
            "predicted step",
            f"{_ms(time.shortest)} at best, bound by {time.bound}; {_ms(time.longest)} if nothing overlaps",
        ),
        (
            "predicted rate",
            f"{size / time.shortest:,.0f} images/s at best, {utilisation:.0%} of peak in the model's products",
        ),
    ]
    return rows if program.seconds is None else [*rows, ("compiler's estimate", _ms(program.seconds))]


def _gib(size: float | int) -> str:
    """Of memory, which comes in powers of two."""
    return f"{size / 2**30:.2f} GiB" if size >= 0.1 * 2**30 else f"{size / 2**20:.2f} MiB"


def _mb(size: float | int) -> str:
    """Of what is counted or sent, in powers of ten."""
    for unit, letters in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit:
            return f"{size / unit:.3g} {letters}"
    return f"{size:g} bytes"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
