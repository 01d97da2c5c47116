"""What is read from a program's text, against a program whose collectives are written out here."""

import pytest

from sdelab.train.chips import CHIPS, predict
from sdelab.train.collectives import Collective, read_collectives

PROGRAM = """HloModule jit_step, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add.1 = f32[] add(%a, %b)
}

%body (state: (s32[], f32[16])) -> (s32[], f32[16]) {
  %state = (s32[], f32[16]{0}) parameter(0)
  %x = f32[16]{0:T(128)} get-tuple-element(%state), index=1
  %all-reduce.7 = f32[16]{0:T(128)} all-reduce(%x), channel_id=3, replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add
  ROOT %out = (s32[], f32[16]{0}) tuple(%x, %all-reduce.7)
}

%all-reduce-scatter.2 (p: f32[64]) -> f32[8] {
  %p = f32[64]{0} parameter(0)
  %all-reduce.9 = f32[64]{0} all-reduce(%p), channel_id=9, replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %slice = f32[8]{0} dynamic-slice(%all-reduce.9, %p), dynamic_slice_sizes={8}
}

%wrapped (q: bf16[4,3]) -> bf16[32,3] {
  %q = bf16[4,3]{1,0} parameter(0)
  ROOT %all-gather.4 = bf16[32,3]{1,0} all-gather(%q), channel_id=4, replica_groups=[1,8]<=[8], dimensions={0}
}

ENTRY %main (p0: f32[3,3,16], p1: f32[5], p2: f32[64], p3: bf16[4,3]) -> f32[5] {
  %p0 = f32[3,3,16]{2,1,0:T(8,128)S(1)} parameter(0)
  %p1 = f32[5]{0:T(128)} parameter(1), sharding={replicated}
  %p2 = f32[64]{0} parameter(2)
  %p3 = bf16[4,3]{1,0} parameter(3)
  %all-reduce-start.1 = (f32[3,3,16]{2,1,0:T(8,128)}, f32[5]{0:T(128)}) all-reduce-start(%p0, %p1), replica_groups={}, to_apply=%add
  %all-reduce-done.1 = (f32[3,3,16]{2,1,0}, f32[5]{0}) all-reduce-done(%all-reduce-start.1)
  %fusion.5 = f32[8]{0} fusion(%p2), kind=kCustom, calls=%all-reduce-scatter.2
  %async.1 = ((bf16[4,3]{1,0}), bf16[32,3]{1,0}, s32[]) async-start(%p3), calls=%wrapped
  %async.2 = bf16[32,3]{1,0} async-done(%async.1), calls=%wrapped
  %permuted = (f32[5]{0}, f32[5]{0}, u32[]) collective-permute-start(f32[5]{0} %p1), source_target_pairs={{0,1},{1,0}}
  %while.3 = (s32[], f32[16]{0}) while(%tuple), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"12"}}
  ROOT %end = f32[5]{0} get-tuple-element(%all-reduce-done.1), index=1
}
"""


def test_kinds_sizes_groups_and_turns_are_those_of_the_program():
    found = sorted(read_collectives(PROGRAM, 8), key=lambda c: (c.kind, c.size))
    assert found == [
        Collective("all-gather", 1, 32 * 3 * 2, 8),
        Collective("all-reduce", 1, 16 * 4, 2, times=12),
        Collective("all-reduce", 2, (144 + 5) * 4, 8),
        Collective("collective-permute", 1, 5 * 4, 8),
        Collective("reduce-scatter", 1, 64 * 4, 8),
    ]


def test_traffic_is_that_of_the_best_algorithms():
    """A ring of n sends n - 1 parts of n to gather, and twice that to reduce for all; a pair exchanges what it has."""
    assert Collective("all-reduce", 1, 800, 8).traffic == 2 * 7 * 100
    assert Collective("all-gather", 1, 800, 8, times=3).traffic == 3 * 7 * 100
    assert Collective("collective-permute", 1, 800, 8).traffic == 800
    assert Collective("all-reduce", 1, 800, 1).traffic == 0


def test_the_step_s_time_is_that_of_what_is_slowest():
    chip = CHIPS["v5e"]
    time = predict(chip, flops=chip.flops, accessed=3 * chip.bandwidth, collectives=())
    assert (time.shortest, time.longest, time.bound) == (3.0, 4.0, "memory")
    slow = predict(chip, 0.0, 0.0, [Collective("all-reduce", 1, int(chip.interconnect), 2)])
    assert slow.shortest == pytest.approx(1.0)
    assert slow.bound == "communication"
