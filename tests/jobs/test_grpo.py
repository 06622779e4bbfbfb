"""Which rows a GRPO run trains on, and on which it evaluates."""

import dataclasses

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.jobs.grpo import _with_held_out
from mmsearch_jax.settings.commands import GRPOSettings
from tests.data.rows import jpeg


def rows(count, name):
    return [Row(f"{name}{i}", jpeg(i), "Where?", ("Lima",), "crop", True) for i in range(count)]


def settings(**recipe):
    return dataclasses.replace(GRPOSettings(), grpo=dataclasses.replace(GRPOSettings().grpo, **recipe))


def names(chosen):
    return [row.id for row in chosen]


def test_without_evaluation_all_prompts_are_trained_on():
    prompts = rows(6, "p")
    assert _with_held_out(settings(), prompts) == (prompts, None)


def test_held_out_rows_are_taken_out_of_the_prompts():
    prompts = rows(6, "p")
    rest, held_out = _with_held_out(settings(eval_every=3, eval_num_rows=2), prompts)
    assert held_out is not None and (held_out.every, held_out.temperature) == (3, 0.0)
    assert len(held_out.rows) == 2 and sorted(names(rest) + names(held_out.rows)) == names(prompts)


@pytest.mark.parametrize(("count", "played"), [(2, 2), (9, 4)])
def test_held_out_rows_of_a_file_leave_the_prompts_whole(tmp_path, count, played):
    prompts, path = rows(6, "p"), tmp_path / "held.array_record"
    write_rows(rows(4, "h"), path)
    rest, held_out = _with_held_out(settings(eval_every=1, eval_rows=str(path), eval_num_rows=count), prompts)
    assert rest == prompts and held_out is not None
    assert len(held_out.rows) == played and {name[0] for name in names(held_out.rows)} == {"h"}


def test_too_few_prompts_are_refused():
    with pytest.raises(DataError, match="grpo.eval_num_rows is 6, but there are 6 prompts: lower it"):
        _with_held_out(settings(eval_every=1, eval_num_rows=6), rows(6, "p"))
