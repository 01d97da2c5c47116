"""What the compiled training step reads and writes, in MB by kind of instruction: it does not depend on the machine's other work.

    python -m experiments.train_step.traffic [--channels 32] [--batch 16]

Every instruction of the program counts with the arrays that it takes and gives, an elementwise expression that XLA repeats
in several places once for each. Parsed from the text of the optimised program, which is XLA's on CPU as of JAX 0.10.
"""

import argparse
import collections
import re
from collections.abc import Iterator
from typing import NamedTuple

from experiments.train_step import ours
from experiments.train_step.__main__ import BLOCKS, DROPOUT, MULTIPLIERS
from sdelab.cli.xla_flags import choose_fusions

BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "u16": 2, "pred": 1, "u8": 1}
SHAPE = re.compile(rf"({'|'.join(BYTES)})\[([\d,]*)\]")
HEADER = re.compile(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
INSTRUCTION = re.compile(r"\s*(?:ROOT )?%([\w.\-]+) = (\([^)]*\)|\S+) ([\w\-]+)\((.*)")
FREE = {"bitcast", "constant", "get-tuple-element", "parameter", "tuple"}


class Instruction(NamedTuple):
    name: str
    size: int
    kind: str
    arguments: list[str]


def size_of(shape: str) -> int:
    total = 0
    for dtype, sides in SHAPE.findall(shape):
        count = 1
        for side in filter(None, sides.split(",")):
            count *= int(side)
        total += count * BYTES[dtype]
    return total


def instructions(program: str) -> Iterator[Instruction]:
    """Those of the entry computation."""
    bodies: dict[str, list[str]] = {}
    body: list[str] = []
    for line in program.splitlines():
        if header := HEADER.match(line):
            body = bodies.setdefault("ENTRY" if line.startswith("ENTRY") else header[1], [])
        else:
            body.append(line)
    for line in bodies["ENTRY"]:
        if found := INSTRUCTION.match(line):
            name, shape, operation, rest = found.groups()
            called = re.search(r"calls=%([\w.\-]+)", line)
            inside = " ".join([line, *(bodies[called[1]] if called else [])])
            arguments = re.findall(r"%([\w.\-]+)", rest.split("), ")[0])
            yield Instruction(name, size_of(shape), kind_of(name, operation, inside), arguments)


def kind_of(name: str, operation: str, inside: str) -> str:
    if operation in FREE:
        return "free"
    for what in ("convolution", "dot", "reduce"):
        if f" {what}(" in inside:
            return what
    return "copy" if "transpose" in name or "copy" in name else "elementwise"


def traffic(program: str) -> dict[str, float]:
    """MB by kind."""
    sizes: dict[str, int] = {}
    total: dict[str, float] = collections.defaultdict(float)
    for instruction in instructions(program):
        sizes[instruction.name] = instruction.size
        if instruction.kind != "free":
            read = sum(sizes.get(name, 0) for name in instruction.arguments)
            total[instruction.kind] += (instruction.size + read) / 1e6
    return dict(total)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    module = ours.network(options.channels, MULTIPLIERS, BLOCKS, DROPOUT)
    run = ours.Run(module, ours.initial_weights(module), options.batch)
    for what, compiled in (("forward", run.compiled_forward), ("step", run.compiled_step)):
        found = traffic(compiled.as_text() or "")
        parts = ", ".join(f"{kind} {size:.0f}" for kind, size in sorted(found.items()))
        print(f"{what}: {sum(found.values()):.0f} MB ({parts})")


if __name__ == "__main__":
    choose_fusions()
    main()
