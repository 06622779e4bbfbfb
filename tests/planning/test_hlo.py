"""Reading HLO text: how often each instruction runs, and the cost of products, slices and collectives."""

import jax
import jax.numpy as jnp
import pytest

from mmsearch_jax.planning.costs import count
from mmsearch_jax.planning.hlo import Module
from mmsearch_jax.planning.replica_groups import groups_of

# ruff: noqa: E501 (HLO has long lines)

# A loop from 1 to 9 by 2, with a product split as by the TPU's compiler, a slice of a stack, and a collective.
LOOP = """\
HloModule split, is_scheduled=true

%sliced (stack: bf16[28,64,32], at: s32[]) -> bf16[64,32] {
  %stack = bf16[28,64,32]{2,1,0:T(8,128)(2,1)} parameter(0)
  %at = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %one = bf16[1,64,32]{2,1,0:T(8,128)(2,1)} dynamic-slice(%stack, %at, %zero, /*index=3*/%zero), dynamic_slice_sizes={1,64,32}
  ROOT %flat = bf16[64,32]{1,0:T(8,128)(2,1)} bitcast(%one)
}

%body (state: (s32[], bf16[8,64], bf16[28,64,32])) -> (s32[], bf16[8,64], bf16[28,64,32]) {
  %state = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[28,64,32]{2,1,0}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%state), index=0
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%at, %two)
  %x = bf16[8,64]{1,0} get-tuple-element(%state), index=1
  %stack = bf16[28,64,32]{2,1,0} get-tuple-element(%state), index=2
  %layer = bf16[64,32]{1,0:T(8,128)(2,1)S(1)} fusion(%stack, %at), kind=kLoop, calls=%sliced
  %wide = bf16[64,128]{1,0} all-gather(%layer), channel_id=1, replica_groups=[2,4]<=[8], dimensions={1}, metadata={op_name="jit(f)/dot"}
  %y = bf16[8,128]{1,0} convolution(%x, %wide), dim_labels=bf_io->bf
  %z = bf16[8,64]{1,0} slice(%y), slice={[0:8], [0:64]}
  ROOT %out = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[28,64,32]{2,1,0}) tuple(%next, %z, %stack)
}

%below (state: (s32[], bf16[8,64], bf16[28,64,32])) -> pred[] {
  %state = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[28,64,32]{2,1,0}) parameter(0)
  %nine = s32[]{:T(128)} constant(9)
  %at = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%at, %nine), direction=LT
}

ENTRY %main (x: bf16[8,64], stack: bf16[28,64,32]) -> bf16[8,64] {
  %x = bf16[8,64]{1,0} parameter(0)
  %stack = bf16[28,64,32]{2,1,0} parameter(1)
  %first = s32[]{:T(128)} constant(1)
  %start = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[28,64,32]{2,1,0}) tuple(%first, %x, %stack)
  %loop = (s32[]{:T(128)}, bf16[8,64]{1,0}, bf16[28,64,32]{2,1,0}) while(%start), condition=%below, body=%body, metadata={op_name="jit(f)"
"a line break"}
  ROOT %y = bf16[8,64]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_s_costs_count_as_often_as_its_counter_steps_to_its_bound():
    costs = count(Module(LOOP), 8)
    assert costs.flops == 4 * 2 * 8 * 64 * 128
    (gathered,) = costs.collectives
    assert (gathered.kind, gathered.count, gathered.payload) == ("all-gather", 4, 64 * 128 * 2)
    assert gathered.group == (0, 1, 2, 3) and gathered.shape == "bf16[64,128]"
    assert gathered.sent == 64 * 128 * 2 * 3 / 4
    assert costs.unknown == ()


def test_a_slice_is_read_and_not_the_stack_that_it_is_cut_from():
    costs = count(Module(LOOP), 8)
    layer, wide, x, y, z = (2 * size for size in (64 * 32, 64 * 128, 8 * 64, 8 * 128, 8 * 64))
    # The layer goes to fast memory: its slice is read from HBM, and the gather reads nothing there. The counter is
    # incremented, and read by the slice.
    assert costs.bytes == 4 * (layer + wide + (x + wide + y) + 2 * z) + 4 * 4 * 4


def test_the_compiler_s_cycles_count_as_often_as_the_instruction_runs():
    told = ', backend_config={"window_config":{"estimated_cycles":"250"}}'
    text = LOOP.replace("dim_labels=bf_io->bf", f"dim_labels=bf_io->bf{told}").replace(
        "bf16[8,64]{1,0} get-tuple-element(%loop), index=1", f"bf16[8,64]{{1,0}} copy(%x){told}"
    )
    assert count(Module(LOOP), 8).cycles == 0
    assert count(Module(text), 8).cycles == 4 * 250 + 250
    assert count(Module(text.replace('"250"', f'"{2**63 - 1}"')), 8).cycles == 0


def test_an_asynchronous_slice_reads_only_its_slice():
    plain = count(Module(LOOP), 8).bytes
    start = "%begun = ((bf16[28,64,32]{2,1,0}), bf16[1,64,32]{2,1,0:S(1)}, s32[]) slice-start(%stack), slice={[0:1], [0:64], [0:32]}"
    text = LOOP.replace("  %first = s32[]", f"  {start}\n  %first = s32[]")
    assert count(Module(text), 8).bytes == plain + 2 * 64 * 32
    to_hbm = text.replace("{2,1,0:S(1)}, s32[]) slice-start", "{2,1,0}, s32[]) slice-start")
    assert count(Module(to_hbm), 8).bytes == plain + 2 * 2 * 64 * 32


def test_a_loop_without_a_known_bound_counts_once_and_is_named():
    text = LOOP.replace("constant(9)", "parameter(1)")
    costs = count(Module(text), 8)
    assert costs.flops == 2 * 8 * 64 * 128 and costs.unknown == ("loop loop",)


@pytest.mark.parametrize(("layers", "batch"), [(5, 1), (12, 3)])
def test_products_of_a_compiled_scan_are_counted_exactly(layers, batch):
    """XLA's own analysis counts a loop's body only once."""

    def run(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.einsum("bij,jk->bik", x, w), None), x, weights)[0]

    shapes = (jax.ShapeDtypeStruct((batch, 16, 32), jnp.float32), jax.ShapeDtypeStruct((layers, 32, 32), jnp.float32))
    compiled = jax.jit(run).lower(*shapes).compile()
    assert count(Module(compiled.as_text()), 1).flops == layers * 2 * batch * 16 * 32 * 32


def test_windows_that_meet_padding_are_not_counted():
    """A batched product of 4 as a convolution: each position of the window matches only one of the 4."""
    text = """\
HloModule batched

ENTRY %main (x: f32[4,8,16], y: f32[4,16,32]) -> f32[4,8,32] {
  %x = f32[4,8,16]{2,1,0} parameter(0)
  %y = f32[4,16,32]{2,1,0} parameter(1)
  ROOT %z = f32[4,8,32]{2,1,0} convolution(%x, %y), window={size=4 stride=3 pad=3_3 lhs_dilate=4}, dim_labels=0bf_0io->0bf
}
"""
    assert count(Module(text), 1).flops == 4 * 2 * 8 * 16 * 32


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("replica_groups={{0,2},{1,3}}", (0, 2)),
        ("replica_groups=[2,4]<=[8]", (0, 1, 2, 3)),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", (0, 2, 4, 6)),
        ("replica_groups=mesh['a'=2,'b'=1,'c'=4] {'a'}", (0, 4)),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'a'}, dimensions={0}", (0, 1, 2, 3)),
        ("replica_groups=mesh['a'=4,'b'=1,'c'=2], device_ids=([2,4]T(1,0)) {'c'}, dimensions={0}", (0, 4)),
        ("replica_groups={}", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("source_target_pairs={{0,2},{2,4},{4,6},{6,0},{1,3},{3,5},{5,7},{7,1}}", (0, 2, 4, 6)),
        ('_xla_megascale_target="{1,2}x{0:7}"', (0, 8)),
        ('_xla_megascale_target="{1:2,4}x{0:7}"', (0, 8, 16)),
        ("", (0, 1, 2, 3, 4, 5, 6, 7)),
    ],
)
def test_the_group_of_the_first_device_is_found_in_every_way_of_writing_it(text, group):
    assert groups_of(text, 8) == group


def test_an_exchange_whose_group_cannot_be_read_is_named():
    costs = count(Module(LOOP.replace("[2,4]<=[8]", "spiral(8)")), 8)
    assert costs.unknown == ("collective wide",) and costs.collectives == ()


def test_what_is_sent_to_other_slices_is_an_exchange_between_them():
    text = """\
HloModule slices

ENTRY %main (x: f32[16,32]) -> f32[16,32] {
  %x = f32[16,32]{1,0} parameter(0)
  %token = token[] after-all()
  %send = (f32[16,32]{1,0}, u32[], token[]) send(%x, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[16,32]{1,0}, u32[], token[]) recv(%token), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"}
  ROOT %y = f32[16,32]{1,0} get-tuple-element(%recv), index=0
}
"""
    (exchange,) = count(Module(text), 4).collectives
    assert (exchange.kind, exchange.group, exchange.payload) == ("all-reduce", (0, 4), 16 * 32 * 4)


def test_what_is_no_compiled_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        Module("module @jit_f {}")
