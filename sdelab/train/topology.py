"""Devices to compile for: of TPU slices that are elsewhere, and as many of a CPU as one likes."""

import math
import os
import re
from typing import Any

import jax
from jax.errors import JaxRuntimeError
from jax.experimental import topologies

from sdelab._checks import check_count, unknown_name
from sdelab._extras import import_extra
from sdelab.train.chips import CHIPS, Chip

_NAME = re.compile(r"(\w+):(\d+(?:x\d+){1,2})")
_ALONE = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
"""What keeps libtpu from asking a cloud's server for the machine that is not there, and from keeping it for itself."""
_TWO_CORES = ("v4",)
"""Chips whose two cores work as one device, but not unless libtpu is told so."""


def read_topology(topology: str) -> tuple[Chip, int]:
    """The chip and the number of chips of a slice, `v5e:4x4` or `v4:2x2x4`. Errors: another form; an unknown chip."""
    found = _NAME.fullmatch(topology)
    if not found:
        raise ValueError(f"topology = {topology!r} is not accepted; accepted: CHIP:AxB or CHIP:AxBxC, such as v5e:4x4.")
    if found[1] not in CHIPS:
        raise unknown_name("chip", found[1], CHIPS)
    return CHIPS[found[1]], math.prod(int(side) for side in found[2].split("x"))


def tpu_devices(topology: str) -> list[Any]:
    """The devices of a TPU slice, for which a program can be compiled but not run; needs the extra `sdelab[tpu]`.

    Errors: `MissingExtra`; those of `read_topology`; a shape that slices of the chip do not come in.
    """
    chip, count = read_topology(topology)
    import_extra("libtpu", "tpu", f"compiling for {topology}")
    for name, value in _ALONE.items():
        os.environ.setdefault(name, value)
    try:
        settings = {"chip_config_name": "megacore"} if chip.name in _TWO_CORES else {}
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **settings).devices
    except JaxRuntimeError as error:
        raise ValueError(f"topology = {topology!r} is not accepted by libtpu: {error}") from error
    if len(devices) != count:
        raise ValueError(
            f"topology = {topology!r} has {len(devices)} devices for {count} chips; one a chip is accepted."
        )
    return list(devices)


def cpu_devices(count: int) -> list[Any]:
    """So many devices of this machine's CPU; before anything else asks JAX for a device.

    Errors: JAX has started with fewer.
    """
    check_count(count=count)
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass  # JAX has started: what there is must do
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise ValueError(
            f"count = {count} is not accepted: JAX has started with {len(devices)} devices of the CPU. Accepted: as many, or "
            "any number in a process of its own."
        )
    return devices[:count]
