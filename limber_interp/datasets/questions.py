"""Questions on images, with their answers: VQA v2's files, or LIMBER's folder format with questions in its metadata."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limber_interp.datasets.base import Rejected, flaw, is_file, one_line, parsed, shown
from limber_interp.datasets.coco import FIRST
from limber_interp.datasets.folder import FolderDataset
from limber_interp.errors import InputError


@dataclass(frozen=True)
class Question:
    """A question on an image.

    Attributes:
        image: a path, or the bytes of an image file; not opened yet. Several questions may share it.
        answers: what people answered (ten of them in VQA v2), or the one right answer.
        kind: what is asked for, as the source has it: VQA's answer type, `yes/no`, `number` or `other`.
        key: its name within the set: VQA's question id, or that of the image and its place there.
    """

    image: Path | bytes
    question: str
    answers: tuple[str, ...]
    kind: str
    key: str


class QuestionSet:
    """Questions by index. One that cannot be used keeps its index.

    Args:
        name: where they come from, for messages and manifests.
        entries: the questions, or why there is none.
        sources: files that they were read from, those of the images left out.
    """

    def __init__(self, name: str, entries: Sequence[Question | Rejected], sources: Sequence[Path]) -> None:
        self.name = name
        self._entries = tuple(entries)
        self._sources = tuple(sources)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Question:
        """The question at an index. Its image is not decoded, so that it may still turn out to be broken.

        Raises:
            Rejected: no question, no answer, or no image.
        """
        entry = self._entries[index]
        if isinstance(entry, Rejected):
            raise entry
        if isinstance(entry.image, Path) and not is_file(entry.image):
            raise Rejected(entry.key, f"its image {entry.image} is not there")
        return entry

    def files(self) -> Iterator[Path]:
        """The files that it reads, each once, there or not."""
        yield from self._sources
        images = (entry.image for entry in self._entries if isinstance(entry, Question))
        yield from dict.fromkeys(image for image in images if isinstance(image, Path))


def open_questions(
    path: str | Path, images: str | Path | None = None, annotations: str | Path | None = None
) -> QuestionSet:
    """The questions at a path: VQA v2's file of questions, or a folder in LIMBER's format whose `metadata` has
    `questions`: a list of `{"question", "answers": [...], "kind"}`.

    Args:
        images: of VQA, the folder of COCO's images. None: as COCO lays them out, `val2014` beside the file or one
            folder up, or `images`, or beside the file itself; whichever holds one of the first images.
        annotations: of VQA, the file with the answers. None: beside the questions, by VQA's own names.

    Raises:
        InputError: nothing is there, it is neither format, or there are no answers.
    """
    path = Path(path)
    if is_file(path) and path.suffix.lower() == ".json":
        return _read_vqa(path, images, annotations)
    if os.path.isdir(path / "image_data"):
        if images is not None or annotations is not None:
            raise InputError(f"{path}: a folder in LIMBER's format names its images and has its answers itself")
        return _read_folder(path)
    reason = "neither" if os.path.exists(path) else "not there"
    raise InputError(f"{path}: {reason}; expected VQA v2's questions .json, or LIMBER's folder with questions")


def _read_folder(folder: Path) -> QuestionSet:
    dataset = FolderDataset(folder)
    entries: list[Question | Rejected] = []
    for index in range(len(dataset)):
        try:
            example = dataset[index]
        except Rejected as rejected:
            entries.append(rejected)
            continue
        asked = example.metadata.get("questions", []) if isinstance(example.metadata, dict) else []
        for i, row in enumerate(asked if isinstance(asked, list) else [asked]):
            entries.append(_question(f"{example.key}#{i}", example.image, row))
    _check_answered(str(folder), entries, 'has no metadata["questions"] with answers')
    return QuestionSet(str(folder), entries, dataset.records)


def _read_vqa(path: Path, images: str | Path | None, annotations: str | Path | None) -> QuestionSet:
    answers = Path(annotations) if annotations is not None else _annotations_of(path)
    if not is_file(answers):
        raise InputError(f"{path}: its answers are missing: {answers} is not there; name VQA's file of annotations")
    content = _read(path, "questions")
    asked, subtype = content["questions"], str(content.get("data_subtype", ""))
    answered = _read(answers, "annotations")["annotations"]
    try:
        by_id = {row["question_id"]: row for row in answered}
        names = [(f"COCO_{subtype}_{row['image_id']:012d}.jpg", f"{row['image_id']:012d}.jpg") for row in asked]
        told = [by_id.get(row["question_id"], {}) for row in asked]
        twice = _twice(asked, "questions") | _twice(answered, "annotations")
        rows = [
            {
                "question": row["question"],
                "answers": [answer["answer"] for answer in by.get("answers", [])],
                "kind": by.get("answer_type", ""),
            }
            for row, by in zip(asked, told, strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} and {answers}: not VQA v2's questions and annotations: {error!r}") from error
    folder, style = _find_images(path, names, images, subtype)
    entries = [
        Rejected(key, twice[key])
        if (key := str(row["question_id"])) in twice
        else _question(key, folder / name[style], v)
        for row, name, v in zip(asked, names, rows, strict=True)
    ]
    _check_answered(str(path), entries, f"none of them is answered in {answers}")
    return QuestionSet(str(path), entries, [path, answers])


def _twice(rows: Sequence[Any], kind: str) -> dict[str, str]:
    """What is wrong with the ids that several rows have: which answers belong to which question is not known."""
    times = Counter(str(row["question_id"]) for row in rows)
    return {key: f"{n} {kind} have this id" for key, n in times.items() if n > 1}


def _annotations_of(path: Path) -> Path:
    """`v2_mscoco_val2014_annotations.json` for `v2_OpenEnded_mscoco_val2014_questions.json`."""
    return path.with_name(path.name.replace("OpenEnded_", "").replace("questions", "annotations"))


def _find_images(
    path: Path, names: Sequence[tuple[str, str]], images: str | Path | None, subtype: str
) -> tuple[Path, int]:
    """The folder of the images, and which of the two names they have there: COCO's of 2014, or the bare number."""
    beside = path.parent
    candidates = [beside / subtype, beside.parent / subtype, beside / "images", beside]
    for folder in candidates if images is None else [Path(images)]:
        for style in (0, 1):
            if any(is_file(folder / name[style]) for name in names[:FIRST]):
                return folder, style
    if images is None:
        raise InputError(
            f"{path}: its images ({names[0][0]} …) are not beside it; name their folder with --question-images"
        )
    if not os.path.isdir(images):
        raise InputError(f"{images}: no such folder of images")
    return Path(images), 0  # the first may be the only ones that are missing


def _read(path: Path, key: str) -> dict[str, Any]:
    try:
        content = parsed(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get(key), list) or not content[key]:
        raise InputError(f"{path}: no {key} in it; expected VQA v2's file of {key}")
    return content


def _question(key: str, image: Path | bytes, row: Any) -> Question | Rejected:
    if not isinstance(row, dict) or not row.keys() >= {"question", "answers"}:
        return Rejected(key, f'not a question {{"question", "answers", "kind"}}: {shown(row)}')
    question, answers, kind = row["question"], row["answers"], row.get("kind", "")
    if not isinstance(question, str) or not question.strip() or not isinstance(kind, str):
        return Rejected(key, f"the question is empty, or it or its kind no text: {shown(question)}, {shown(kind)}")
    if not isinstance(answers, list) or not answers:
        return Rejected(key, f"no answers: {shown(answers)}")
    if not all(isinstance(answer, str) and answer.strip() for answer in answers):
        return Rejected(key, f"an answer is empty or no text: {shown(answers)}")
    for text in (question, kind, *answers):
        if reason := flaw(text):
            return Rejected(key, f"the question, its kind or an answer {reason}: {shown(text)}")
    return Question(image, one_line(question), tuple(map(one_line, answers)), one_line(kind), key)


def _check_answered(name: str, entries: Sequence[Question | Rejected], otherwise: str) -> None:
    if not any(isinstance(entry, Question) for entry in entries):
        raise InputError(f"{name}: no question with an answer: {otherwise}")
