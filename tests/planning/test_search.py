"""Settings for a slice: all proposals fit by the hand count and divide the slice; the nearest one changes the least."""

from mmsearch_jax.core.config_files import load
from mmsearch_jax.distributed.topologies import parse
from mmsearch_jax.planning import search
from mmsearch_jax.planning.sizes import SIZES
from mmsearch_jax.settings.commands import SFTSettings


def config(*overrides):
    return load(SFTSettings, "configs/sft_qwen2_5_vl_7b.py", overrides).settings


def test_candidates_fit_divide_the_slice_and_come_fastest_first():
    topology = parse("v5e:4x4")
    found = list(search.candidates(config(), "sft", SIZES["7b"], topology, sequences=(1, 2)))
    assert found
    for each in found:
        assert each.memory.total <= search.USABLE * topology.chip.hbm
        sizes = [each.overrides[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor", "sequence")]
        assert sizes[0] * sizes[1] * sizes[2] * sizes[3] == 16
        assert sizes[2] * sizes[3] <= topology.host.num_chips
        for name in ("rows", "images"):
            assert each.overrides[f"sft.batch.{name}"] % (sizes[0] * sizes[1]) == 0
    speeds = [each.tokens / each.seconds for each in found]
    assert speeds == sorted(speeds, reverse=True)


def test_several_slices_are_the_dcn_axis_and_cost_the_network():
    settings, model = config(), SIZES["7b"]
    one, two = (
        {
            tuple(each.overrides[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor", "sequence")): each
            for each in search.candidates(
                settings, "sft", model, parse(name), remats=("full",), sequences=(1,), rows=(64,)
            )
        }
        for name in ("v5p:2x2x4", "v5p:2x2x4:2")
    )
    assert two and all(each.overrides["mesh.dcn"] == 2 for each in two.values())
    assert not any("mesh.dcn" in each.overrides for each in one.values())
    # Each slice has half the rows, but the all-reduce of gradients is slow.
    for mesh in two.keys() & one.keys():
        assert one[mesh].seconds / 2 < two[mesh].seconds < one[mesh].seconds


def test_keeping_more_for_the_backward_pass_takes_more_memory_and_less_time():
    found = list(search.candidates(config(), "sft", SIZES["7b"], parse("v5p:2x2x4"), sequences=(1,)))
    by_setting = {tuple(each.overrides.values()): each for each in found}
    pairs = [
        (each, full)
        for setting, each in by_setting.items()
        if setting[-1] == "none" and (full := by_setting.get((*setting[:-1], "full")))
    ]
    assert pairs
    for none, full in pairs:
        assert none.memory.total > full.memory.total and none.seconds < full.seconds


def test_the_nearest_setting_that_fits_changes_as_little_as_it_can():
    settings = config("--config.mesh.fsdp=8", "--config.mesh.tensor=2", "--config.remat=none")
    topology = parse("v5p:2x2x4")
    near = search.nearest_that_fits(settings, "sft", SIZES["7b"], topology, scale=1.0)
    assert near is not None
    assert all(search.value_of(settings, key) == value for key, value in near.overrides.items())
    # Five times the hand count does not fit; changing only remat suffices.
    near = search.nearest_that_fits(settings, "sft", SIZES["7b"], topology, scale=5.0)
    assert near is not None
    changed = {key for key, value in near.overrides.items() if search.value_of(settings, key) != value}
    assert changed == {"remat"}


def test_what_no_setting_makes_fit_has_no_nearest():
    settings = config("--config.lora.rank=0")
    assert search.nearest_that_fits(settings, "sft", SIZES["72b"], parse("v5e:4x4"), 1.0) is None
