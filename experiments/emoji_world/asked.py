"""The questions that can be asked about a scene, each with its one answer, in the words of the language model's texts.

    python -m experiments.emoji_world.asked FOLDER...

writes them into the metadata of scenes that were drawn without them, from their facts; the pictures stay as they are.

These words know no colours (a scene has none but its background's), so that the size is asked for where VQA would ask
for a colour. Not every kind needs the picture: `category` names the noun and can be answered without looking, and a
size can be guessed. That is what the blind control is for.
"""

import argparse
import json
from pathlib import Path

from experiments.emoji_world.corpus import BESIDE, ON, with_article
from experiments.emoji_world.world import CATEGORY_OF, Scene
from limber_interp.records import write_atomically


def asked(scene: Scene) -> list[dict[str, str | list[str]]]:
    """All questions that `corpus.questions` draws from, as `{"question", "answers": [one], "kind"}`."""
    rows = [
        ("where", "Where is it?", ON[scene.background]),
        ("how many", "How many things are there?", "one" if scene.relation is None else "two"),
    ]
    for noun, size in zip(scene.nouns, scene.sizes, strict=True):
        rows.append(("size", f"What size is the {noun}?", size))
        rows.append(("category", f"What is the {noun}?", with_article(CATEGORY_OF[noun])))
    if scene.relation is None:
        rows.append(("what", "What is it?", f"a {scene.nouns[0]}"))
    else:
        for told in (scene, scene.turned()):
            question = f"What is {BESIDE[str(told.relation)]} the {told.nouns[1]}?"
            rows.append(("relation", question, f"a {told.nouns[0]}"))
    return [{"question": question, "answers": [answer], "kind": kind} for kind, question, answer in rows]


def scene_of(metadata: dict) -> Scene:
    """The scene that a record's metadata tells of."""
    nouns, sizes = tuple(metadata["nouns"]), tuple(metadata["sizes"])
    return Scene(nouns, sizes, metadata["relation"], metadata["background"])


def add_questions(folder: Path) -> int:
    """Write `questions` into the metadata of each scene of a folder; how many scenes there are. Run again, it changes
    nothing."""
    records = sorted((folder / "image_data").glob("*/*.json"))
    for path in records:
        record = json.loads(path.read_text())
        record["metadata"]["questions"] = asked(scene_of(record["metadata"]))
        text = json.dumps(record)
        write_atomically(path, lambda temporary, text=text: temporary.write_text(text))
    return len(records)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    for folder in parser.parse_args(arguments).folders:
        print(f"{folder}: {add_questions(folder)} scenes")


if __name__ == "__main__":
    main()
