"""What can be played and what cannot, by header and by pixels, and the limits of a use."""

import dataclasses
import re

import pytest

from benchmarks.stand_ins import tiny_tokenizer
from mmsearch_jax.commands.main import main
from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.chat import ChatRenderer
from mmsearch_jax.data.rows import Row
from mmsearch_jax.data.storage import write_rows
from mmsearch_jax.data.usable import EPISODE, Use, check_ids, learnable_episodes, why_all_unusable, why_unusable
from mmsearch_jax.images.image_urls import read_url
from mmsearch_jax.images.processing import ImageProcessor, load_image
from mmsearch_jax.settings.learning import BatchShape
from mmsearch_jax.settings.rollout import EpisodeConfig
from tests.data import odd_images

NO_FILE = {
    "missing.png": "does not exist",
    "directory.png": "is a directory",
    "link.png": "does not exist",
    "pipe.png": "is not a regular file",
    "nul\0.png": "is not a path|does not exist",
    "x" * 5000: "is not a path|does not exist",
}


def row(image="", question="What is it?", **more):
    return Row("1", image, question, ("a",), "", None, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    odd_images.write_all(path)
    return path


@pytest.mark.parametrize("name", odd_images.SOUND)
@pytest.mark.parametrize("embedded", [False, True])
def test_sound_images_are_sound_by_header_and_by_pixels_and_the_policy_s_processor_takes_them(folder, name, embedded):
    image = (folder / name).read_bytes() if embedded else str(folder / name)
    assert why_unusable(row(image), EPISODE, decode=False) is None is why_unusable(row(image), EPISODE)
    processor = ImageProcessor()
    loaded = load_image(image)
    assert processor(loaded).grid == processor.grid(*loaded.size)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", [*odd_images.UNUSABLE, *NO_FILE])
def test_what_no_policy_can_be_shown_is_named_with_its_reason(folder, name, decode):
    reason = odd_images.UNUSABLE[name][1] if name in odd_images.UNUSABLE else NO_FILE[name]
    if decode and name in odd_images.UNUSABLE and "narrow" not in reason:
        reason += "|damaged|not an image"
    found = why_unusable(row(str(folder / name)), EPISODE, decode=decode)
    assert found is not None and found.startswith("image: ") and "\n" not in found
    assert re.search(reason, found), found


@pytest.mark.parametrize("name", odd_images.DAMAGED)
def test_what_only_the_pixels_show_is_found_by_decoding(folder, name):
    found = why_unusable(row(str(folder / name)), EPISODE)
    assert found is not None and found.startswith("image: ")


def test_a_question_without_an_image_is_sound_but_an_empty_file_in_its_place_is_not():
    assert why_unusable(row(), EPISODE) is None
    assert why_unusable(row(b""), EPISODE) == "image: it is empty (0 bytes)"
    assert why_unusable(row(read_url("data:image/png;base64,"))) == "image: it is empty (0 bytes)"


def test_several_images_are_refused_where_only_one_is_shown(folder):
    plain = str(folder / "plain.png")
    several = row(plain, more_images=(plain, str(folder / "narrow.png")))
    assert "the row has 3 images, but an episode shows 1" in (why_unusable(several, EPISODE) or "")
    assert (why_unusable(several) or "").startswith("more_images[1]: ")
    assert why_unusable(dataclasses.replace(several, more_images=(plain,))) is None


def test_an_image_at_a_url_is_not_fetched_at_the_start():
    unreachable = row("http://127.0.0.1:9/a.png")
    assert why_unusable(unreachable, EPISODE, decode=False) is None
    assert "cannot be fetched" in (why_unusable(unreachable, EPISODE) or "")


def test_a_prompt_must_leave_room_for_a_turn_and_an_image_fit_the_learner_s_batch(folder):
    renderer = ChatRenderer(tiny_tokenizer.build())
    rules = EpisodeConfig(prompt_style="short", max_trajectory_tokens=128)
    processor = ImageProcessor(min_pixels=28 * 28, max_pixels=56 * 56)
    use = learnable_episodes(processor, renderer, rules, BatchShape(1, 96, 1, 16))
    shown = str(folder / "plain.png")
    assert why_unusable(row(shown), use, decode=False) is None
    question = "word " * 200
    prompt = len(renderer.prompt_ids(question, [processor.num_tokens(processor.grid(40, 30))]))
    found = why_unusable(row(shown, question), use, decode=False) or ""
    assert found.startswith("question: the prompt has ") and found.endswith("at most 95 fit") and prompt > 95
    assert "patches, but the learner's batch has room for 3" in (
        why_unusable(row(shown), dataclasses.replace(use, max_patches=3), decode=False) or ""
    )
    text_only = learnable_episodes(processor, renderer, rules, BatchShape(1, 96))
    assert "room for 0" in (why_unusable(row(shown), text_only) or "") and why_unusable(row(), text_only) is None


def test_many_rows_are_judged_in_their_order(folder):
    names = [*odd_images.SOUND, *odd_images.UNUSABLE]
    found = why_all_unusable([row(str(folder / name)) for name in names], Use(max_images=1))
    assert [why is None for why in found] == [name in odd_images.SOUND for name in names]


def test_ids_must_differ():
    check_ids([row(), dataclasses.replace(row(), id="2")], "f")
    with pytest.raises(DataError, match=r"f: two rows have the id '1'"):
        check_ids([row(), row()], "f")


def test_validate_judges_images_as_a_policy_does(folder, tmp_path, capsys):
    names = ["plain.png", "narrow.png", "cut.jpg", "animated.gif", "directory.png"]
    write_rows([Row(name, str(folder / name), "Q?", ("a",), "", None) for name in names], tmp_path / "r.jsonl")
    assert main(["data", "validate", str(tmp_path / "r.jsonl")]) == 0
    assert main(["data", "validate", "--images", str(tmp_path / "r.jsonl")]) == 2
    said = capsys.readouterr()
    assert "3 of 5 rows are bad" in said.err
    for number, part in ((2, "too narrow"), (3, "damaged"), (5, "is a directory")):
        assert f"row {number}: image: " in said.out + said.err and part in said.out + said.err
