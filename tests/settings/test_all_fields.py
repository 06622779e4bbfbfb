"""Every setting of every command can be set by its dotted path; a wrong type or value gives one line."""

import copy
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from mmsearch_jax.commands.main import COMMANDS, main
from mmsearch_jax.core.bundled import bundled
from mmsearch_jax.core.config_files import resolve, run_config_file
from mmsearch_jax.core.errors import ConfigError
from mmsearch_jax.core.settings import doc_of, leaves, section_type

ROOT = Path(__file__).parents[2]
CASES = [(name, command) for name, command in COMMANDS.items() if command.settings is not None]


def values_of(command):
    return run_config_file(bundled(f"configs/{command.config}")).to_dict() if command.config else {}


def wrong_types(hint):
    """Texts that are not values of the type; empty if every text is a value."""
    return [] if hint in (str, tuple[str, ...]) else ["neither"]


def wrong_values(field, hint):
    """Texts just outside the bounds."""
    bounds, origin = field.metadata["bounds"], typing.get_origin(hint)
    inner = typing.get_args(hint)[0] if origin is tuple else hint
    outside = [bounds.at_least - 1 if bounds.at_least is not None else None]
    outside += [bounds.above, bounds.below, bounds.at_most + 1 if bounds.at_most is not None else None]
    texts = [str(int(value) if inner is int else float(value)) for value in outside if value is not None]
    texts += ["no-such-word"] if bounds.one_of else []
    if origin is tuple:
        count = 1 if typing.get_args(hint)[-1] is Ellipsis else len(typing.get_args(hint))
        texts = [str(tuple([text if inner is str else inner(text)] * count)) for text in texts]
    return texts


@pytest.mark.parametrize(("name", "command"), CASES, ids=[name for name, _ in CASES])
def test_every_setting_is_settable_and_refuses_what_is_wrong(name, command):
    tree, values = command.settings(), values_of(command)
    checked = 0
    for path, field, hint, value in leaves(resolve(tree, copy.deepcopy(values)).settings):
        assert doc_of(field) and "\n" not in doc_of(field), path
        text = value if hint is str else repr(value)
        found = resolve(tree, copy.deepcopy(values), [f"--config.{path}={text}"])
        assert found.sources[path] == "command line", path
        for bad in [*wrong_types(hint), *wrong_values(field, hint)]:
            with pytest.raises(ConfigError) as raised:
                resolve(tree, copy.deepcopy(values), [f"--config.{path}={bad}"])
            assert path in str(raised.value) and "\n" not in str(raised.value), (path, bad)
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("name", [name for name, _ in CASES])
def test_the_command_line_shows_the_settings_and_says_what_is_wrong_in_one_line(name, capsys):
    assert main([name, "--print-config"]) == 0
    shown = capsys.readouterr().out
    path = next(line for line in shown.splitlines() if "= 0 " in line or "= 8765 " in line).split(" ")[0]
    assert main([name, f"--config.{path}=neither"]) == 2
    said = capsys.readouterr().err
    assert said == f"error: {path} takes a whole number, got 'neither'\n"


def test_a_wrong_value_is_refused_before_anything_slow_is_imported():
    code = (
        "import sys; from mmsearch_jax.commands.main import main; "
        "print(main(['grpo', '--config.eval.mode=foo']), main(['eval', '--config.eval.mode=foo']), "
        "sorted({'jax', 'flax', 'transformers', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 2 []", done.stderr
    assert "eval.mode is 'foo': use policy, prompted, direct or rag" in done.stderr


def test_every_field_of_a_tree_is_a_setting_a_section_or_a_mapping_of_sections():
    for _, command in CASES:
        for path, _, hint, _ in leaves(resolve(command.settings(), values_of(command)).settings):
            assert section_type(hint) is None, path


def test_words_for_a_metric_are_the_metrics_that_there_are():
    from mmsearch_jax.evaluation.metrics.by_name import METRICS
    from mmsearch_jax.settings import evaluation

    assert set(evaluation.METRICS) == set(METRICS)


def test_words_for_parts_and_policies_are_the_model_s():
    from mmsearch_jax.models.layers import REMAT_POLICIES
    from mmsearch_jax.settings.policy import REMAT

    assert set(REMAT) == {"none", *REMAT_POLICIES}
