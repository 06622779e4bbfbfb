"""Which rows a GRPO run trains on, and on which it evaluates."""

import dataclasses

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.data.usable import EPISODE
from mmsearch_jax.jobs.grpo import _held_out, _split
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
    assert _split(settings(), prompts) == (prompts, [])


def test_held_out_rows_are_taken_out_of_the_prompts():
    prompts = rows(6, "p")
    own = settings(eval_every=3, eval_num_rows=2)
    rest, chosen = _split(own, prompts)
    assert len(chosen) == 2 and sorted(names(rest) + names(chosen)) == names(prompts)
    held_out = _held_out(own, chosen, EPISODE)
    assert (held_out.rows, held_out.every, held_out.temperature) == (chosen, 3, 0.0)


def test_held_out_rows_that_cannot_be_played_are_left_out():
    good, bad = rows(1, "g"), [dataclasses.replace(row, image=b"no picture") for row in rows(2, "b")]
    own = settings(eval_every=3)
    assert _held_out(own, [*good, *bad], EPISODE).rows == good
    with pytest.raises(DataError, match="no held-out row can be played; the first: image: .*not an image"):
        _held_out(own, bad, EPISODE)


@pytest.mark.parametrize(("count", "played"), [(2, 2), (9, 4)])
def test_held_out_rows_of_a_file_leave_the_prompts_whole(tmp_path, count, played):
    prompts, path = rows(6, "p"), tmp_path / "held.array_record"
    write_rows(rows(4, "h"), path)
    rest, chosen = _split(settings(eval_every=1, eval_rows=str(path), eval_num_rows=count), prompts)
    assert rest == prompts
    assert len(chosen) == played and {name[0] for name in names(chosen)} == {"h"}


def test_too_few_prompts_are_refused():
    with pytest.raises(DataError, match="grpo.eval_num_rows is 6, but there are 6 prompts: lower it"):
        _split(settings(eval_every=1, eval_num_rows=6), rows(6, "p"))
