"""The collectives of a compiled program, read from its text: what devices say to each other, how often, and how much."""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.$-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.$-]+) = (.*)$")
_OPCODE = re.compile(r"^\s*([\w-]+)\((.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.$-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_PAIRS = "source_target_pairs="


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a program.

    Fields: `kind`, of `KINDS`; `arrays` that it takes at once; `size` in bytes of what it is about, a device: the
    arrays reduced, or the whole of what is gathered; `devices` that take part together; `times` that it runs a step.
    """

    kind: str
    arrays: int
    size: int
    devices: int
    times: int = 1

    @property
    def traffic(self) -> float:
        r"""Bytes that a device sends a step, at the least: $(n - 1)/n$ of the size, and twice that to reduce for all.

        Patarasuk and Yuan (2009), https://doi.org/10.1016/j.jpdc.2008.09.002.
        """
        others = (self.devices - 1) / self.devices
        share = {"all-reduce": 2.0 * others, "collective-permute": 1.0}.get(self.kind, others)
        return self.times * self.size * share


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    rest: str


def read_collectives(program: str, devices: int) -> tuple[Collective, ...]:
    """The collectives of an HLO module in text, `compiled.as_text()`, for so many devices, in the program's order.

    One in a loop counts as often as the loop turns, once where the compiler does not know; of branches, all count.
    """
    computations, entry = _computations(program)
    times = dict.fromkeys(computations, 0)
    if entry:
        _run(computations, entry, 1, times)
    return tuple(
        found
        for name, instructions in computations.items()
        if times[name]
        for found in _collectives(name, instructions, devices, times[name])
    )


def _computations(program: str) -> tuple[dict[str, list[_Instruction]], str]:
    """Instructions by the computation that they are in, and the name of the one that runs."""
    computations: dict[str, list[_Instruction]] = {}
    current, entry = "", ""
    for line in program.splitlines():
        if head := _COMPUTATION.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _INSTRUCTION.match(line)):
            shape, rest = _split_shape(found[2])
            if operation := _OPCODE.match(rest):
                computations[current].append(_Instruction(found[1], shape, operation[1], operation[2]))
    return computations, entry


def _split_shape(text: str) -> tuple[str, str]:
    """The shape, a tuple in brackets or one word, and what follows."""
    if not text.startswith("("):
        shape, _, rest = text.partition(" ")
        return shape, rest
    return text[: _closing(text)], text[_closing(text) :]


def _closing(text: str, depth: int = 0) -> int:
    """The position after the bracket that closes the first one, or the one that `depth` says is open."""
    for position, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return position + 1
    return len(text)


def _run(computations: dict[str, list[_Instruction]], name: str, count: int, times: dict[str, int]) -> None:
    """Adds `count` runs of the computation, and of all that it calls."""
    times[name] += count
    for instruction in computations[name]:
        if instruction.opcode in ("async-update", "async-done"):
            continue  # they name what `async-start` called
        turns = _TRIPS.search(instruction.rest)
        loops = count * int(turns[1]) if turns and instruction.opcode == "while" else count
        for called in _called(instruction.rest):
            if called in computations:
                _run(computations, called, loops, times)


def _called(rest: str) -> Iterator[str]:
    yield from (name for _, name in _CALLED.findall(rest))
    for names in _BRANCHES.findall(rest):
        yield from (name.strip().lstrip("%") for name in names.split(","))


def _collectives(
    computation: str, instructions: Iterable[_Instruction], devices: int, times: int
) -> Iterator[Collective]:
    shapes = {instruction.name: instruction.shape for instruction in instructions}
    for instruction in instructions:
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        operands = instruction.rest[: _closing(instruction.rest, depth=1) - 1]
        # operands stand with their shapes, or without
        arrays = _ARRAY.findall(operands) or [
            array for name in re.findall(r"%?([\w.$-]+)", operands) for array in _ARRAY.findall(shapes.get(name, ""))
        ]
        group = _group(instruction.rest, devices)
        size = sum(_bytes(dtype, dims) for dtype, dims in arrays)
        if kind == "all-reduce" and "all-reduce-scatter" in computation:
            kind = "reduce-scatter"  # what the TPU's compiler calls one
        yield Collective(kind, len(arrays), size * group if kind == "all-gather" else size, group, times)


def _group(rest: str, devices: int) -> int:
    """How many devices take part together."""
    if found := _IOTA.search(rest):
        return int(found[1])
    if found := _LISTED.search(rest):
        return len(found[1].split(","))
    return devices


def _bytes(dtype: str, dimensions: str) -> int:
    bits = 8 if dtype == "pred" else int(re.findall(r"\d+", dtype)[0])
    return math.prod(int(size.lstrip("<=")) for size in dimensions.split(",") if size) * bits // 8
