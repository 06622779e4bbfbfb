"""Config files and the command line: checks of the whole tree, and the messages for mistakes."""

import json

import pytest

from mmsearch_jax.core.config_files import load, save
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.settings import plain
from mmsearch_jax.settings.commands import GRPOSettings, SFTSettings
from mmsearch_jax.settings.datagen import DatagenSettings
from mmsearch_jax.settings.policy import ShardingConfig


def grpo(*overrides):
    return load(GRPOSettings, "configs/tiny_grpo.py", [f"--config.{each}" for each in overrides])


def test_overrides_are_read_as_their_settings_types():
    found = grpo(
        "grpo.loss.kl_coef=1",
        "checkpoint=some/dir",
        "grpo.normalise_std=true",
        "engine.decode_rows=(4, 8)",
        "sharding_rules.embed=()",
    ).settings
    assert found.grpo.loss.kl_coef == 1.0 and isinstance(found.grpo.loss.kl_coef, float)
    assert found.checkpoint == "some/dir"
    assert found.grpo.normalise_std is True
    assert found.engine.decode_rows == (4, 8)
    assert found.sharding_rules == ShardingConfig(embed=())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sharding_rules.embd=()", r"unknown setting 'sharding_rules\.embd'.*sharding_rules\.embed"),
        ("sharding_rules.embed=('tensr',)", r"sharding_rules\.embed.*'tensr'.*tensor"),
        ("sharding_rules.heads=('fsdp', 'fsdp')", r"sharding_rules\.heads is .*: name each mesh axis once"),
    ],
)
def test_a_sharding_rule_that_names_no_axis_is_refused_with_its_path_before_anything_is_loaded(override, message):
    with pytest.raises(ConfigError, match=message):
        grpo(override)


def test_each_value_says_where_it_comes_from():
    found = grpo("seed=3")
    assert found.sources["seed"] == "command line"
    assert found.sources["episode.prompt_style"] == "file"
    assert "grpo.group_size" not in found.sources
    lines = list(found.lines())
    assert "seed = 3  [command line]" in lines and "grpo.group_size = 8  [default]" in lines
    assert max(map(len, lines[1:])) <= 120


def test_settings_are_saved_as_they_were_used(tmp_path):
    found = grpo("seed=3").settings
    save(found, tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(plain(found)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.group_sise=4", r"unknown setting 'grpo.group_sise': did you mean 'grpo.group_size'\?"),
        ("group_size=4", r"unknown setting 'group_size'"),
        ("grpo.loss=3", "'grpo.loss' is a section: set one of grpo.loss.clip_low"),
        ("grpo.group_size", "write --config.KEY=VALUE"),
        ("sft.num_steps=3", "unknown setting 'sft.num_steps'"),
        ("engine.max_length=100", "engine.max_length is 100, but episode.max_trajectory_tokens is 576"),
        ("engine.decode_width=65", r"engine.decode_width is 65, must be between 0 \(all\) and num_slots \(64\)"),
        ("grpo.freeze=visio", r"grpo.freeze has 'visio': did you mean 'vision'\?"),
        ("grpo.freeze=('visio',)", r"grpo.freeze has 'visio': did you mean 'vision'\?"),
        ("grpo.batch.patches=190", "grpo.batch.patches is 190, but 4 patches make a token: set it to 192"),
        (
            "grpo.reward.overlong_buffer=600",
            "grpo.reward.overlong_buffer is 600, but episode.max_trajectory_tokens is 576",
        ),
        ("mesh.data=-1", "mesh.fsdp is -1, and so is data: only one axis"),
        ("mesh.tensor=0", "mesh.tensor is 0: sizes are at least 1"),
        ("grpo.judge.url=localhost:8000", "grpo.judge.url is 'localhost:8000': give an address"),
        ("grpo.judge.url=http://x/v1", "grpo.judge.model is empty"),
    ],
)
def test_a_wrong_override_says_what_to_do(override, message):
    with pytest.raises(ConfigError, match=message):
        grpo(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("episode.mode=rag", "episode.mode is 'rag': conversations with search need policy or prompted"),
        ("episode.on_invalid=correct", "episode.on_invalid is 'correct': use end"),
    ],
)
def test_a_teacher_plays_episodes_that_can_be_trained(override, message):
    with pytest.raises(ConfigError, match=message):
        load(DatagenSettings, None, [f"--config.{override}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grpo.reward.match=judge", "grpo.judge.url is empty, but reward.match is 'judge'"),
        ("tools.token_env=NO_SUCH_VARIABLE", "tools.token_env names .* NO_SUCH_VARIABLE, which is not set"),
        ("run.wandb=project", "run.wandb is 'project', but the package is not installed: pip install wandb"),
        ("grpo.rows=mine.array_record", "tools.url is empty, but grpo.rows names your own rows"),
        ("grpo.rows=", "grpo.rows is empty: name a file of rows .* or miniworld for the toy world"),
    ],
)
def test_what_a_run_needs_and_does_not_have_is_said_before_it_starts(override, message):
    found = grpo(override).settings
    with pytest.raises(ConfigError, match=message):
        found.require_ready()


@pytest.mark.parametrize("size", ["3b", "7b", "32b", "72b"])
def test_a_real_model_is_not_trained_on_the_toy_world_unasked(size):
    sft, rl = f"configs/sft_qwen2_5_vl_{size}.py", f"configs/grpo_qwen2_5_vl_{size}.py"
    judge = ["--config.grpo.judge.url=http://x/v1", "--config.grpo.judge.model=j", "--config.tools.url=http://x"]
    for tree, path, key, more in ((SFTSettings, sft, "sft.data.sets", []), (GRPOSettings, rl, "grpo.rows", judge)):
        with pytest.raises(ConfigError, match=f"{key} is empty: name .* or miniworld for the toy world"):
            load(tree, path, more).settings.require_ready()
        with pytest.raises(ConfigError, match=f"{key} names none.array_record, which does not exist here"):
            load(tree, path, [*more, f"--config.{key}=none.array_record"]).settings.require_ready()
        for named in ("miniworld", "gs://bucket/rows.array_record"):
            load(tree, path, [*more, f"--config.{key}={named}"]).settings.require_ready()
    with pytest.raises(ConfigError, match=r"sft.data.validation names miniworld, which does not exist here"):
        load(SFTSettings, "configs/tiny_sft.py", ["--config.sft.data.validation=miniworld"]).settings.require_ready()


def test_words_are_a_tuple_of_texts():
    for text in ("('a b', 'c.array_record')", "a b,c.array_record", " a b , c.array_record,"):
        assert load(SFTSettings, None, [f"--config.sft.data.sets={text}"]).settings.sft.data.sets == (
            "a b",
            "c.array_record",
        )
    assert load(SFTSettings, None, ["--config.sft.data.sets="]).settings.sft.data.sets == ()


def test_a_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"no config file at .*nowhere.py: the bundled ones are .*configs/tiny_sft.py"
    ):
        load(SFTSettings, tmp_path / "nowhere.py")
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_that_name\n")
    with pytest.raises(ConfigError, match=r"broken.py cannot be run: ModuleNotFoundError"):
        load(SFTSettings, broken)


def test_a_file_needs_to_say_only_what_differs_from_the_defaults(tmp_path):
    (tmp_path / "own.py").write_text(
        "import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({'sft': {'batch': {'rows': 4}}})\n"
    )
    found = load(SFTSettings, tmp_path / "own.py").settings
    assert (found.sft.batch.rows, found.sft.batch.length) == (4, SFTSettings().sft.batch.length)


def test_a_file_s_argument_goes_before_the_default_one():
    def data(path, default):
        return load(SFTSettings, path, (), default).settings.mesh.data

    assert data("configs/sft_qwen2_5_vl_7b.py", "v5p:2x2x4") == 4
    assert data("configs/sft_qwen2_5_vl_7b.py:v5p:2x2x2", "v5p:2x2x4") == 2
    assert data("configs/tiny_sft.py", "v5p:2x2x4") == 1
