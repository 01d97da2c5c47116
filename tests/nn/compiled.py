"""What XLA left in a compiled program."""

import math
import re

import jax


def large_sums(compiled: jax.stages.Compiled, elements: int) -> list[tuple[int, ...]]:
    """The shapes that arrays of at least so many elements are summed to."""
    text = compiled.as_text()
    assert text is not None
    size = dict(re.findall(r"%([\w.]+) = f32\[([\d,]*)\]", text)) | dict(re.findall(r"([\w.]+): f32\[([\d,]*)\]", text))
    found = re.findall(r"= f32\[([\d,]*)\]\S* reduce(?:-window)?\((?:f32\[[\d,]*\]\S* )?%([\w.]+)", text)
    return sorted(_shape(out) for out, name in found if math.prod(_shape(size[name])) >= elements)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split(",") if side)
