"""Flags and words of commands that run in several processes."""

from typing import Any

from absl import flags

from sdelab.train.distributed import CLUSTERS, initialize, is_main


def define_processes(values: flags.FlagValues) -> None:
    """The flags that say which process of several this is."""
    help = f"whose variables say which process of several this is: auto, none, {', '.join(CLUSTERS)}"
    flags.DEFINE_string("cluster", "auto", help, flag_values=values)
    help = "host:port of process 0, instead of a cluster"
    flags.DEFINE_string("coordinator", None, help, flag_values=values)
    flags.DEFINE_integer("processes", None, "with --coordinator: number of processes", flag_values=values)
    flags.DEFINE_integer("process", None, "with --coordinator: number of this process, from 0", flag_values=values)


def join_processes(given: Any) -> None:
    """Joins the other processes of the flags, before anything asks for a device."""
    initialize(given.cluster, coordinator=given.coordinator, processes=given.processes, process=given.process)


def say(line: str, file: Any = None) -> None:
    """Once, and not by every process."""
    if is_main():
        print(line, file=file)
