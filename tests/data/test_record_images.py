"""The images of a record are counted against the marks of its prompt, and found under any name."""

import base64
import json

import pytest

from mmsearch_jax.core.errors import DataError
from mmsearch_jax.data.convert import fields
from mmsearch_jax.data.convert.conversion import convert
from mmsearch_jax.data.convert.sharegpt import sharegpt_row
from mmsearch_jax.data.convert.verl import mmsearch_r1_row, search_r1_row, verl_row
from mmsearch_jax.data.rows import validate
from mmsearch_jax.data.storage import read_rows
from mmsearch_jax.evaluation.published import EVALUATION_SETS
from tests.data.rows import jpeg
from tests.data.test_convert import fvqa, refused

IMAGE, OTHER = jpeg(1), jpeg(2)


def talk(question, **more):
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": "the left"}]
    return {"id": "t", "conversations": said, **more}


def asked(question, **more):
    record = fvqa("a", prompt=[{"role": "user", "content": question}], **more)
    return {key: value for key, value in record.items() if value != "absent"}


@pytest.mark.parametrize("reader", [verl_row, mmsearch_r1_row])
@pytest.mark.parametrize(
    ("question", "held", "numbers"),
    [
        ("<image><image>Which?", {"images": [IMAGE]}, "2 image marks, but there are 1 images"),
        ("<image>Which?", {"images": []}, "1 image marks, but there are 0 images"),
        ("<image>Which?", {"images": [IMAGE, OTHER]}, "1 image marks, but there are 2 images"),
        ("Which <image> or <image> or <image>?", {"images": [IMAGE] * 2}, "3 image marks, but there are 2 images"),
    ],
)
def test_a_prompt_with_another_number_of_marks_than_images_is_set_aside(reader, question, held, numbers):
    with pytest.raises(DataError, match=numbers):
        reader(asked(question, **held), 1)
    with pytest.raises(DataError, match=numbers):
        sharegpt_row(talk(question, **held), 1)


def test_as_many_marks_as_images_or_none_at_all_is_sound():
    for question in ("<image>first <image>second", "first second"):
        for row in (
            verl_row(asked(question, images=[IMAGE, OTHER]), 1),
            sharegpt_row(talk(question, images=[IMAGE, OTHER]), 1),
        ):
            assert row.images == (IMAGE, OTHER) and row.question == "first second"


def test_llava_s_image_is_read_and_two_fields_must_agree():
    assert sharegpt_row(talk("<image>\nWhich?", image="coco/1.jpg"), 1).image == "coco/1.jpg"
    assert sharegpt_row(talk("Which?", image=""), 1).images == ()
    assert sharegpt_row(talk("<image>Which?", image="a.jpg", images=["a.jpg"]), 1).images == ("a.jpg",)
    with pytest.raises(DataError, match="image: holds other images than 'images'"):
        sharegpt_row(talk("<image>Which?", image="a.jpg", images=["b.jpg"]), 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("picture", "a.jpg"),
        ("image_path", "pictures/a.PNG"),
        ("img", IMAGE),
        ("photo", base64.b64encode(IMAGE).decode()),
        ("file", {"bytes": IMAGE, "path": None}),
        ("image_list", ["https://x.org/a.webp?size=3"]),
        ("multi_modal_data", {"image": [{"path": "a.jpg"}]}),
        ("url", "data:image/png;base64,AAAA"),
    ],
)
def test_an_image_under_a_name_that_nobody_reads_is_an_error(key, value):
    for record, reader in ((asked("Which?", images=None), verl_row), (talk("Which?"), sharegpt_row)):
        with pytest.raises(DataError, match=f"{key}: holds an image that is not in 'images'"):
            reader(record | {key: value}, 1)
    record = {"id": "1", "image": "", "question": "q?", "answers": ["a"], key: value}
    assert validate(record) == [f"{key}: holds an image, but rows have theirs in 'image' and 'more_images': rename it"]


def test_what_only_says_where_an_image_came_from_is_no_image_more():
    record = asked(
        "<image>Which?", images=[{"bytes": IMAGE, "path": "a.jpg"}], file="train/a.jpg", image_urls=["http://x/a.jpg"]
    )
    assert verl_row(record, 1).images == (IMAGE,)
    inside = asked("<image>Which?", images=[IMAGE], extra_info={"split": "train", "file": "other.jpg", "index": 1})
    assert verl_row(inside, 1).images == (IMAGE,)
    with pytest.raises(DataError, match="extra_info: holds an image"):
        verl_row(asked("<image>Which?", images=[IMAGE], extra_info={"second": OTHER}), 1)


def test_images_in_the_parts_of_a_message_are_read_and_counted():
    def parts(*images):
        return [{"type": "text", "text": "Which?"}, *images]

    url = {"type": "image_url", "image_url": {"url": "https://x.org/a.jpg"}}
    assert verl_row(asked(parts(url), images=None), 1).images == ("https://x.org/a.jpg",)
    assert verl_row(asked(parts({"type": "image"}), images=[IMAGE]), 1).images == (IMAGE,)
    for content, message in (
        (parts({"type": "image"}), "1 image marks, but there are 0"),
        (parts({"type": "video", "video": "a.mp4"}), "a part is 'video'"),
        (["Which?", 7], "a part must be an object"),
        ([{"type": "text", "text": 3}], "the text of a part must be a string"),
    ):
        with pytest.raises(DataError, match=message):
            verl_row(asked(content, images=None), 1)


@pytest.mark.parametrize(
    "mark", ["<image_1>", "<image 2>", "<|image_pad|>", "<|image|>", "<video>", "<ImageHere>", "<img>a.jpg</img>"]
)
def test_another_project_s_mark_is_no_part_of_a_question(mark):
    for reader, record in (
        (verl_row, asked(f"{mark}Which?", images=[IMAGE])),
        (sharegpt_row, talk(f"{mark}Which?", images=["a.jpg"])),
    ):
        with pytest.raises(DataError, match="which is no image mark: write <image>"):
            reader(record, 1)


def test_images_in_later_messages_and_other_media_are_refused():
    record = talk("<image>Which?", image="a.jpg")
    record["conversations"][1]["value"] = "see <image>"
    with pytest.raises(DataError, match="contains <image>"):
        sharegpt_row(record, 1)
    with pytest.raises(DataError, match="videos: rows hold text and images only"):
        sharegpt_row(talk("Which?", videos=["a.mp4"]), 1)
    system = [{"role": "system", "content": "Look: <image>"}, {"role": "user", "content": "Which?"}]
    with pytest.raises(DataError, match="contains <image>"):
        search_r1_row(fvqa("s", prompt=system, images=None), 1)


def test_the_questions_of_published_sets_are_counted_too():
    assert fields.question({"q": "<image>Who?"}, "q") == "Who?" == fields.question({"q": "Who?"}, "q", 3)
    for asked_with, images in (("<image><image>Who?", 1), ("<image>Who?", 2), ("<image>Who?", 0)):
        with pytest.raises(DataError, match=f"image marks, but there are {images} images"):
            fields.question({"q": asked_with}, "q", images)
    several = {"id": 1, "img_path": ["a.jpg", "b.jpg"], "question": "Who?", "Ground_Truth": "Ada"}
    assert EVALUATION_SETS["livevqa"].to_row(several, 1, None).images == ("a.jpg", "b.jpg")


def test_counts_and_reasons_of_a_whole_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(IMAGE)
    sound = talk("<image>Which?", image="a.jpg")
    records = [sound, sound | {"id": "2", "image": ""}, sound | {"id": "3", "image": "", "picture": "a.jpg"}]
    (tmp_path / "set.json").write_text(json.dumps(records))
    counts = convert("sharegpt", tmp_path / "set.json", tmp_path / "out.jsonl", show_progress=False)
    assert (counts.read, counts.written, counts.rejected.total()) == (3, 1, 2)
    assert [row.images for row in read_rows(tmp_path / "out.jsonl")] == [(IMAGE,)]
    assert refused(tmp_path).keys() == {2, 3}


@pytest.mark.parametrize("gold", ["[2, 3]", "[2, 5)", "[1]", '["a"]', "{2}", "[Smith 1999]"])
def test_a_gold_answer_that_reads_as_a_list_is_one_answer(gold):
    for reward in ({"ground_truth": gold}, {"ground_truth": {"target": gold}}, {"ground_truth": [gold]}):
        row = verl_row(asked("On which interval?", images=None, reward_model=reward), 1)
        assert row.answers == (gold,)
    assert sharegpt_row(talk("Which?", answers=gold), 1).answers == (gold,)
    assert fields.answers(gold, '["x", "y"]') == (gold, "x", "y")
    assert fields.answers(gold, f" {gold} ") == (gold,)
