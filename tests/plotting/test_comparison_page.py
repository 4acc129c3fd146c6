"""The page is tested in a browser, which sees what a reader sees."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limber_interp.errors import InputError
from limber_interp.plotting.comparison_page import page
from limber_interp.records import ComparedQuestion, Comparison
from tests.plotting.compared import comparison_of

HOSTILE = (
    "<img src=x onerror='window.harmed = 1'>",
    "</script><script>window.harmed = 1</script>",
    "<!--<script>",
    "\"quoted\" & 'single' ${0} $record",
    "\u2028\x00\x1b[31m",
)


@pytest.fixture
def opened(open_page, tmp_path: Path) -> Callable:
    """Opens a record's page."""

    def open_record(record: Comparison, **options: Any):
        page(record, tmp_path / "page.html")
        return open_page(tmp_path / "page.html", **options)

    return open_record


def shown(opened_page) -> list[int]:
    """The images on the page, in its order."""
    return [int(card.get_attribute("data-image")) for card in opened_page.locator("article").all()]


def pick(opened_page, **chosen: str) -> None:
    for name, label in chosen.items():
        opened_page.locator(f"#{name}").select_option(label=label)


def answers_of(record: Comparison, image: str) -> list[ComparedQuestion]:
    return [question for question in record.questions if question.image == image]


def test_scores_with_their_intervals_stand_on_top(opened):
    record = comparison_of(n_metrics=3)
    opened_page = opened(record)
    heads = opened_page.locator("#scores thead th").all_inner_texts()
    assert heads == [metric.label for metric in record.headlines]
    for entry, row in zip(record.entries, opened_page.locator("#scores tbody tr").all(), strict=True):
        assert row.locator("th").inner_text() == entry.name
        for metric, cell in zip(record.headlines, row.locator("td").all(), strict=True):
            score = record.score(entry.name, metric.name)
            read = [float(n) for n in re.findall(r"[\d.]+", cell.inner_text().replace("−", "-"))]
            expected = [score.estimate.value, score.estimate.low, score.estimate.high, score.chance]
            assert read == pytest.approx(np.abs(expected), abs=0.006)
            assert cell.locator("b").count() == (record.best(metric.name) == entry.name)
    opened_page.locator("#all").check()
    assert opened_page.locator("#scores thead th").count() == len(record.metrics) > len(record.headlines)


def test_an_image_with_what_each_entry_says(opened):
    record = comparison_of()
    opened_page = opened(record)
    assert opened_page.title() == "Encoders compared: scenes"
    assert shown(opened_page) == list(range(8))
    card, image = opened_page.locator("article").nth(3), record.images[3]
    assert card.locator("img").evaluate("image => image.naturalWidth") == 24
    assert card.locator(".truth li").all_inner_texts() == list(image.references)
    rows = card.locator("tbody tr:not(.truth)").all()
    for entry, row, recall in zip(record.entries, rows, record.per_image["recall_1"][:, 3], strict=True):
        assert row.locator("th").inner_text() == entry.name
        cells = row.locator("td").all_inner_texts()
        assert cells[0].startswith(image.captions[entry.name])
        assert cells[0].endswith("✓" if recall == 1 else "✗" if recall == 0 else f"{recall:.2f}")
        for question, cell in zip(answers_of(record, image.image), cells[1:], strict=True):
            assert cell.startswith(question.answers[entry.name]["2"])
            right = question.accuracy[entry.name]["2"]
            assert cell.endswith("✓" if right == 1 else "✗" if right == 0 else f"{right:.2f}")
    pick(opened_page, shots="0 shots")
    cell = opened_page.locator("article").nth(3).locator("tbody tr:not(.truth) td").nth(1).inner_text()
    assert cell.startswith(answers_of(record, image.image)[0].answers["clip"]["0"])


def test_true_nouns_are_marked_as_whole_words(opened):
    record = comparison_of({"clip": "trained"}, n_images=2, n_questions=0)
    told = ("A dog, two Dogs and a hotdog.", "no noun at all")
    images = [
        replace(i, captions={"clip": t}, nouns=("dog", "dogs", "(c++"))
        for i, t in zip(record.images, told, strict=True)
    ]
    opened_page = opened(replace(record, images=tuple(images)))
    marks = opened_page.locator("article tbody tr:not(.truth) mark").all_inner_texts()
    assert marks == ["dog", "Dogs"]
    assert opened_page.locator("article").first.locator("td.caption").last.inner_text().startswith(told[0])
    assert opened_page.locator("#marked").is_visible()


def test_words_with_accents_are_found_however_they_are_typed(opened):
    """In captions as an n and a tilde to be set over it, in the noun as one character: nothing was marked, and a search
    found `pin` and `ata`."""
    record = comparison_of({"clip": "trained"}, n_images=2, n_questions=0)
    told = ("a pin\u0303ata on a ship", "a pin")
    images = [
        replace(image, captions={"clip": text}, references=(text,), nouns=("piñata", "pin"))
        for image, text in zip(record.images, told, strict=True)
    ]
    opened_page = opened(replace(record, images=tuple(images)))
    marks = opened_page.locator("article tbody tr:not(.truth) mark").all_inner_texts()
    assert marks == ["piñata", "pin"]
    opened_page.locator("#search").fill("pin\u0303ata")
    assert shown(opened_page) == [0]
    opened_page.locator("#search").fill("ata")
    assert shown(opened_page) == []


@pytest.mark.parametrize("entries", [("clip", "nfrn", "nfrn_random", "blind"), ("clip", "nfrn")])
def test_filtered_by_disagreement_between_the_entries_in_view(opened, entries):
    record = comparison_of(n_images=12)
    opened_page = opened(record)
    for entry in record.entries:
        if entry.name not in entries:
            opened_page.locator("#entries button", has_text=re.compile(f"^{entry.name}$")).click()
    assert opened_page.locator("article").first.locator("tbody tr:not(.truth)").count() == len(entries)
    rows = [i for i, entry in enumerate(record.entries) if entry.name in entries]
    recall = record.per_image["recall_1"][rows]
    said = [{image.captions[name] for name in entries} for image in record.images]
    expected = {
        "entries differ": [len(texts) > 1 for texts in said],
        "only one is right": list((recall == 1).sum(axis=0) == 1),
        "all are wrong": list((recall < 1).all(axis=0)),
        "clip beats nfrn": list(record.per_image["recall_1"][0] > record.per_image["recall_1"][1]),
    }
    for label, which in expected.items():
        assert 0 < sum(which) < 12, label  # or the filter would not be seen to work
        pick(opened_page, filter=label)
        assert shown(opened_page) == np.flatnonzero(which).tolist(), label
        assert opened_page.locator("#status").inner_text() == f"{sum(which)} of 12 images"


def test_filtered_by_answers_only_the_questions_in_question_are_shown(opened):
    record = comparison_of(n_images=12)
    opened_page = opened(record)
    pick(opened_page, metric="answers", shots="2 shots", filter="only one is right")
    which = {}
    for i, image in enumerate(record.images):
        asked = answers_of(record, image.image)
        found = [q.question for q in asked if sum(q.accuracy[e.name]["2"] == 1 for e in record.entries) == 1]
        if found:
            which[i] = found
    assert 0 < len(which) < 12
    assert shown(opened_page) == list(which)
    for card, questions in zip(opened_page.locator("article").all(), which.values(), strict=True):
        assert card.locator("thead th").all_inner_texts() == ["caption", *questions]


def test_right_and_wrong_are_offered_only_where_there_is_a_right(opened):
    opened_page = opened(comparison_of())
    pick(opened_page, filter="all are wrong", metric="CIDEr-D")
    assert opened_page.locator("#filter").input_value() == "all"
    assert opened_page.locator("#filter option:disabled").count() == 2
    assert len(shown(opened_page)) == 8


@pytest.mark.parametrize("direction", [1, -1])
def test_sorted_by_the_difference_between_two_entries(opened, direction):
    record = comparison_of(n_images=9)
    record = replace(record, metrics=tuple(replace(metric, direction=direction) for metric in record.metrics))
    opened_page = opened(record)
    pick(opened_page, metric="CIDEr-D", first="nfrn", second="blind", sort="nfrn ahead of blind")
    values = record.per_image["cider_d"]
    ahead = direction * (values[1] - values[3])
    known = [i for i in np.argsort(-ahead, kind="stable").tolist() if not np.isnan(ahead[i])]
    unknown = np.flatnonzero(np.isnan(ahead)).tolist()
    assert unknown == [2, 5, 8]
    assert shown(opened_page) == known + unknown
    pick(opened_page, sort="blind ahead of nfrn")
    least = [i for i in np.argsort(ahead, kind="stable").tolist() if not np.isnan(ahead[i])]
    assert shown(opened_page) == least + unknown


def test_the_difference_over_all_images_is_the_records(opened):
    record = comparison_of()
    opened_page = opened(record)
    for first, second, metric, name in (
        ("clip", "blind", "recall 1", "recall_1"),
        ("blind", "clip", "CIDEr-D", "cider_d"),
        ("clip", "nfrn", "answers", "vqa_2"),
    ):
        pick(opened_page, first=first, second=second, metric=metric)
        of = next(c for c in record.contrasts if c.metric == name and {c.first, c.second} == {first, second})
        estimate, sign = of.difference.estimate, 1 if of.first == first else -1
        expected = [sign * estimate.value, *sorted((sign * estimate.low, sign * estimate.high)), 0.03]
        text = opened_page.locator("#difference").inner_text().replace("−", "-").split(": ")[1]
        assert [float(n) for n in re.findall(r"-?\d+\.\d+", text)] == pytest.approx(expected, abs=0.006)
    pick(opened_page, first="nfrn")
    assert opened_page.locator("#difference").inner_text() == "an entry with itself"


def test_searched_by_the_beginnings_of_words(opened):
    record = comparison_of({"clip": "trained"}, n_images=3, n_questions=1)
    told = ("A Dog, big.", "a hotdog", "an émigré's car")
    images = tuple(
        replace(i, references=("x",), captions={"clip": t}) for i, t in zip(record.images, told, strict=True)
    )
    asked = tuple(
        replace(q, answers={"clip": {"0": answer, "2": "nothing"}})
        for q, answer in zip(record.questions, ("trumpet", "drum", "drums"), strict=True)
    )
    opened_page = opened(replace(record, images=images, questions=asked))
    expected_of = {"dog": [0], "big do": [0], "big cat": [], "ÉMI": [2], "drum": [1, 2], ".*": [0, 1, 2]}
    for text, expected in expected_of.items():
        opened_page.locator("#search").fill(text)
        assert shown(opened_page) == expected, text
    opened_page.locator("#search").fill("dog")
    opened_page.keyboard.press("Escape")
    assert opened_page.locator("#search").input_value() == ""
    assert shown(opened_page) == [0, 1, 2]


def test_by_the_keyboard_alone(opened):
    opened_page = opened(comparison_of(n_images=60))
    opened_page.keyboard.press("/")
    opened_page.keyboard.type("big")
    assert opened_page.locator("#search").input_value() == "big"
    focused = "() => Number(document.activeElement.dataset.image ?? -1)"
    opened_page.keyboard.press("Tab")
    opened_page.locator("#more").focus()
    opened_page.locator("article").first.focus()
    for key, image in (("j", 1), ("j", 2), ("k", 1)):
        opened_page.keyboard.press(key)
        assert opened_page.evaluate(focused) == image
    for _ in range(58):
        opened_page.keyboard.press("j")
    assert opened_page.evaluate(focused) == 59
    button = opened_page.locator("#entries button").first
    button.focus()
    opened_page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert opened_page.locator("article").first.locator("tbody th").all_inner_texts()[1] == "nfrn"


def test_one_entry_at_least_is_in_view(opened):
    opened_page = opened(comparison_of())
    for button in opened_page.locator("#entries button").all():
        button.click()
    assert opened_page.locator("article").first.locator("tbody tr:not(.truth)").count() == 1


def test_nothing_said_can_harm(opened):
    record = comparison_of({"clip": "trained", HOSTILE[0]: "trained"}, n_images=len(HOSTILE), n_questions=1)
    names = [entry.name for entry in record.entries]
    images = tuple(
        replace(image, key=text, references=(text,), captions=dict.fromkeys(names, text), nouns=(text, "img"))
        for image, text in zip(record.images, HOSTILE, strict=True)
    )
    questions = tuple(
        replace(q, question=t, references=(t,), answers={name: {"0": t, "2": t} for name in names})
        for q, t in zip(record.questions, HOSTILE, strict=True)
    )
    metrics = tuple(replace(m, label=HOSTILE[0], description=HOSTILE[1], chance=HOSTILE[0]) for m in record.metrics)
    hostile = replace(record, data=HOSTILE[1], prompt=HOSTILE[1], notes=HOSTILE, rejected=HOSTILE)
    hostile = replace(hostile, images=images, questions=questions, metrics=metrics)
    opened_page = opened(hostile)
    for details in opened_page.locator("summary").all():
        details.click()
    for card, text in zip(opened_page.locator("article").all(), HOSTILE[:4], strict=False):
        assert text in card.locator("td.caption").last.inner_text()
        assert card.locator("td").last.inner_text().startswith(text)
    opened_page.locator("#search").fill(HOSTILE[0])
    assert shown(opened_page) == [0]
    assert opened_page.evaluate("window.harmed") is None
    assert opened_page.locator("article script, article td img").count() == 0


def test_hundreds_of_images_come_as_they_are_looked_at(opened, tmp_path):
    random = np.random.default_rng(0)
    record = comparison_of(n_images=500, n_questions=5, pixels=1)
    smooth = random.integers(0, 256, (500, 16, 16, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    images = tuple(replace(i, seen=seen) for i, seen in zip(record.images, smooth, strict=True))
    opened_page = opened(replace(record, images=images))
    assert (tmp_path / "page.html").stat().st_size < 8e6
    assert opened_page.locator("#status").inner_text() == "500 of 500 images"
    assert 20 <= len(shown(opened_page)) < 100
    loaded = len(shown(opened_page))
    opened_page.locator("article").last.scroll_into_view_if_needed()
    opened_page.locator("article").nth(loaded).wait_for(state="attached")
    assert opened_page.locator("article").first.locator("img").evaluate("image => image.naturalWidth") == 96


def test_images_without_pictures_captions_or_answers(opened):
    record = comparison_of(pictures=2)
    opened_page = opened(record)
    assert opened_page.locator("article img").count() == 2
    assert opened_page.locator(".unseen").count() == 6
    silent = tuple(replace(image, captions={}) for image in record.images)
    scores = tuple(s for s in record.scores if s.metric.startswith("vqa"))
    opened_page = opened(replace(record, images=silent, per_image={}, scores=scores))
    assert opened_page.locator("#metric option").all_inner_texts() == ["answers"]
    assert opened_page.locator("article").first.locator("thead th").all_inner_texts() == ["What 0?", "What 1?"]
    opened_page = opened(replace(comparison_of(n_questions=0), contrasts=()))
    assert opened_page.locator("#choose-shots").is_hidden()
    assert "no difference measured" in opened_page.locator("#difference").inner_text()


def test_questions_on_images_of_their_own(opened):
    record = comparison_of(n_images=3)
    other = tuple(replace(q, image="elsewhere/other.png") for q in record.questions[:2])
    opened_page = opened(replace(record, questions=(*record.questions, *other)))
    assert shown(opened_page) == [0, 1, 2, 3]
    card = opened_page.locator("article").last
    assert "other.png" in card.locator("figcaption").inner_text()
    assert card.locator("thead th").all_inner_texts() == ["What 0?", "What 1?"]


def test_what_produced_the_numbers(opened):
    opened_page = opened(comparison_of())
    opened_page.locator("footer summary").click()
    text = opened_page.locator("#manifest").inner_text()
    for said in ("0123456789ab", "float32", "a note", "limber_interp", "what nfrn is"):
        assert said in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_in_the_light_and_in_the_dark(opened, scheme):
    opened_page = opened(comparison_of(n_metrics=6), viewport={"width": 360, "height": 700}, color_scheme=scheme)
    assert opened_page.evaluate("document.documentElement.scrollWidth") <= 360
    cell = opened_page.locator("article").first.locator("td").last  # says itself what was asked
    assert cell.get_attribute("data-heading") == "What 1?"
    assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") != "none"
    paper = opened_page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="without images"):
        page(replace(comparison_of(), images=()), tmp_path / "page.html")
    with pytest.raises(InputError, match="cannot be written"):
        page(comparison_of(), tmp_path / "nowhere" / "page.html")
    assert not list(tmp_path.iterdir())
