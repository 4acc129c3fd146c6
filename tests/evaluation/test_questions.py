"""Prompts of several images, shots that are everyone's, and the answers to them."""

from collections import Counter
from functools import cache
from pathlib import Path

import pytest
import torch

from limber_interp.datasets.questions import Question, open_questions
from limber_interp.errors import InputError
from limber_interp.evaluation.questions import SoftPromptOf, Template, answers, draw_shots, prompt
from limber_interp.models.limber import Limber, load
from limber_interp.records import Record
from limber_interp.resources import weights_dir


def question(i: int, per_image: int = 2) -> Question:
    image = i // per_image
    return Question(Path(f"{image}.png"), f"What {i}?", ("a dog", "a cat", "a cat"), "what", f"{image}#{i % per_image}")


QUESTIONS = [question(i) for i in range(24)]


def vectors_of(model: Limber, n_positions: int = 4) -> SoftPromptOf:
    """Other vectors for each image, in place of an encoder's."""

    @cache
    def soft_prompt_of(image: Path | bytes) -> torch.Tensor:
        assert isinstance(image, Path)
        seeded = torch.Generator().manual_seed(int(image.stem))
        return torch.randn(n_positions, model.lm.cfg.d_model, generator=seeded)

    return soft_prompt_of


SHORT = Template(question="{question}", answer="{answer}.")  # the tiny world's tokenizer makes many tokens of a text


# Shots


def test_no_shot_is_on_the_questions_image_or_on_another_shots() -> None:
    for asked, shots in zip(QUESTIONS, draw_shots(QUESTIONS, QUESTIONS, 4, seed=0), strict=True):
        assert len({shot.image for shot in shots} | {asked.image}) == 5


def test_shots_depend_on_seed_and_question_alone() -> None:
    drawn = draw_shots(QUESTIONS, QUESTIONS, 4, seed=0)
    assert draw_shots(QUESTIONS[5:7], QUESTIONS, 4, seed=0) == drawn[5:7]
    assert draw_shots(QUESTIONS, QUESTIONS, 2, seed=0) == [shots[:2] for shots in drawn], "fewer are the first of more"
    assert draw_shots(QUESTIONS, QUESTIONS, 4, seed=1) != drawn
    assert drawn[0] != drawn[1], "two questions on one image have shots of their own"


def test_every_image_is_as_often_a_shot_however_many_questions_it_has() -> None:
    """One image with 90 questions and two with one: drawn by questions, the first would come 0.98 of the time."""
    pool = [Question(Path("many.png"), f"{i}?", ("x",), "what", f"m{i}") for i in range(90)]
    pool += [Question(Path(f"one{i}.png"), "?", ("x",), "what", f"o{i}") for i in range(2)]
    many = [question(i, per_image=1) for i in range(600)]
    images = Counter(shots[0].image for shots in draw_shots(many, pool, 1, seed=0))
    assert all(abs(n / 600 - 1 / 3) < 0.08 for n in images.values())  # four standard deviations
    assert len(images) == 3


def test_a_pool_of_other_images_and_one_that_is_too_small() -> None:
    few = [question(i) for i in range(4)]
    others = [Question(Path(f"other{i}.png"), "?", ("x",), "what", f"o{i}") for i in range(2)]
    assert len(draw_shots(few, others, 2, seed=0)[0]) == 2
    with pytest.raises(InputError, match="2 shots need as many other images; the pool has 2 in all"):
        draw_shots(few, few, 2, seed=0)
    assert draw_shots(few, [], 0, seed=0) == [()] * 4


# Prompts


def test_a_prompt_is_images_and_texts_in_turn(tiny: Limber) -> None:
    of = vectors_of(tiny)
    parts = prompt(QUESTIONS[0], [QUESTIONS[4], QUESTIONS[9]], of)
    assert parts[1::2] == [" Q: What 4? A: a cat.", " Q: What 9? A: a cat.", " Q: What 0? A:"]
    assert [part is of(Path(f"{i}.png")) for part, i in zip(parts[::2], (2, 4, 0), strict=True)] == [True] * 3


def test_the_blind_control_has_the_same_texts(tiny: Limber) -> None:
    template = Template(before="Please answer.", question="\nQuestion: {question}", answer=" It is {answer}!")
    shots = [QUESTIONS[4], QUESTIONS[9]]
    seeing = prompt(QUESTIONS[0], shots, vectors_of(tiny), template)
    blind = prompt(QUESTIONS[0], shots, None, template)
    assert blind == [part for part in seeing if isinstance(part, str)]
    assert blind[:2] == ["Please answer.", "\nQuestion: What 4? It is a cat!"]


def test_braces_in_a_question_are_left_alone() -> None:
    odd = Question(Path("0.png"), "What is {answer} in {0}?", ("{question}",), "what", "0")
    assert Template().shown(odd) == " Q: What is {answer} in {0}? A: {question}."


@pytest.mark.parametrize("values", [{"question": "Q: A:"}, {"answer": "answer."}])
def test_a_template_without_a_place(values: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"no \{(question|answer)\} in it"):
        Template(**values)


def test_an_answer_ends_at_the_first_stop() -> None:
    assert Template().cut(" a dog. Q: What") == "a dog"
    assert Template().cut(" a dog\nA. B") == "a dog"
    assert Template().cut(" a dog ") == "a dog"
    assert Template(stops=("Q:",)).cut(" 3.5 Q: a. Q:") == "3.5"
    assert Template(stops=()).cut(" a. b") == "a. b"


# Answers


def test_answers_are_the_models_in_any_batch(tiny: Limber) -> None:
    """By hand: each prompt laid out as vectors, continued alone."""
    of, asked = vectors_of(tiny), QUESTIONS[:5]
    drawn = draw_shots(asked, QUESTIONS, 2, seed=0)
    found = answers(tiny, asked, drawn, of, SHORT, max_new_tokens=4, batch_size=3)
    with pytest.raises(InputError, match="batch_size -1: expected at least 1"):
        answers(tiny, asked, drawn, of, SHORT, batch_size=-1)
    for item, wanted, shots in zip(found, asked, drawn, strict=True):
        texts = [*(f"{shot.question}a cat." for shot in shots), wanted.question]
        rows = []
        for image, text in zip([*(shot.image for shot in shots), wanted.image], texts, strict=True):
            rows += [of(image), tiny.lm.W_E[tiny.vocabulary.encode(text)]]
        (ids,) = tiny.generate([torch.cat(rows)], 4)
        assert item.answer == SHORT.cut(tiny.vocabulary.text(ids))
        assert (item.key, item.image, item.kind) == (wanted.key, str(wanted.image), "what")
        assert (item.n_shots, item.shots, item.blind) == (2, tuple(shot.key for shot in shots), False)


def test_the_accuracy_is_that_of_the_answer(tiny: Limber) -> None:
    of = vectors_of(tiny)
    (first,) = answers(tiny, QUESTIONS[:1], [()], of, SHORT, max_new_tokens=4)
    right = Question(QUESTIONS[0].image, QUESTIONS[0].question, (first.answer,), "what", "0")
    wrong = Question(QUESTIONS[0].image, QUESTIONS[0].question, ("something else",), "what", "1")
    found = answers(tiny, [right, wrong], [(), ()], of, SHORT, max_new_tokens=4)
    assert [item.accuracy for item in found] == [1.0, 0.0]


def test_blind_answers_do_not_know_the_image(tiny: Limber) -> None:
    twins = [Question(Path(f"{i}.png"), "What is it?", ("a dog",), "what", str(i)) for i in range(8)]
    blind = answers(tiny, twins, [()] * 8, None, SHORT, max_new_tokens=4)
    assert len({item.answer for item in blind}) == 1
    assert all(item.blind for item in blind)
    assert len({item.answer for item in answers(tiny, twins, [()] * 8, vectors_of(tiny), SHORT, 4)}) > 1


def test_a_prompt_that_is_too_long_says_how_many_shots_fit(tiny: Limber) -> None:
    """128 positions. A question takes 30 of an image and its text; a shot some more for its answer."""
    of, asked = vectors_of(tiny, n_positions=30), QUESTIONS[:2]
    texts = [len(tiny.vocabulary.encode(SHORT.shown(each))) for each in QUESTIONS]
    assert 3 * 30 + 2 * max(texts) + max(texts) + 4 <= 128 < 5 * 30
    drawn = draw_shots(asked, QUESTIONS, 4, seed=0)
    answers(tiny, asked, [shots[:2] for shots in drawn], of, SHORT, max_new_tokens=4)
    with pytest.raises(InputError, match="4 shots with 30 positions per image: .* has 128; 2 shots fit"):
        answers(tiny, asked, drawn, of, SHORT, max_new_tokens=4)
    with pytest.raises(InputError, match="not even a question without shots fits"):
        answers(tiny, asked, drawn, vectors_of(tiny, n_positions=130), SHORT)
    with pytest.raises(InputError, match="4 shots with 0 positions per image: .*; [0-3] shots fit"):
        answers(tiny, asked, drawn, None, max_new_tokens=90)


def test_the_longest_prompt_that_fits_is_answered(tiny: Limber) -> None:
    """Up to the last position: what is refused for one more is not refused for its own length."""
    text = len(tiny.vocabulary.encode(SHORT.asked(QUESTIONS[0])))
    fitting = vectors_of(tiny, n_positions=128 - 4 - text)
    assert len(answers(tiny, QUESTIONS[:1], [()], fitting, SHORT, max_new_tokens=4)) == 1
    with pytest.raises(InputError, match="not even a question"):
        answers(tiny, QUESTIONS[:1], [()], fitting, SHORT, max_new_tokens=5)


def test_no_question(tiny: Limber) -> None:
    with pytest.raises(InputError, match="no question given"):
        answers(tiny, [], [], None)


def test_an_answer_is_a_record(tiny: Limber, tmp_path: Path) -> None:
    (item,) = answers(tiny, QUESTIONS[:1], [QUESTIONS[4:5]], vectors_of(tiny), SHORT, max_new_tokens=3)
    values = item.as_dict()
    assert (values["shots"], values["n_shots"], values["answers"]) == (["2#0"], 1, ["a dog", "a cat", "a cat"])
    item.save(tmp_path / "answer.npz")
    assert Record.load(tmp_path / "answer.npz") == item


def test_the_embedded_suite_answers_by_looking() -> None:
    """Four shots fit, and what only the picture tells is answered better with it."""
    model = load(dtype="float32")
    found = open_questions(weights_dir() / "emoji" / "scenes")
    asked = [found[i] for i in range(len(found)) if found[i].kind in ("where", "what")]
    soft_prompt_of = cache(lambda image: model.soft_prompt(image)[0])
    drawn = draw_shots(asked, asked, 4, seed=0)
    for n_shots in (0, 4):
        shots = [each[:n_shots] for each in drawn]
        seeing, blind = (
            sum(item.accuracy for item in answers(model, asked, shots, looking)) / len(asked)
            for looking in (soft_prompt_of, None)
        )
        assert seeing > 0.6 > 0.3 > blind
