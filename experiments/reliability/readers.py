"""What is fuzzed: for each kind of file how small sound ones are written, and how the package reads one.

`write` makes files in a folder and names those that are to be broken; what else it writes beside them stays sound.
`read` is given one of them, and uses what it has read: an accepted file has to hold values that work.
"""

import csv
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from transformers import BeitConfig, BeitImageProcessorPil, BeitModel, GPTJConfig, GPTJForCausalLM

from limber_interp.config import load_config
from limber_interp.datasets import Rejected, fingerprint, open_dataset, open_questions
from limber_interp.encodings import open_encodings
from limber_interp.evaluation.attributes import AnimalAttributes
from limber_interp.evaluation.comparison.results import Results
from limber_interp.evaluation.lexicon import Lexicon
from limber_interp.evaluation.metrics.clip_score import ClipScorer
from limber_interp.images import load_image
from limber_interp.models.encoders import load_encoder
from limber_interp.models.hooked_gptj import lm_sha256, load_hooked_gptj
from limber_interp.models.projection import Projection, load_projection
from limber_interp.models.vocabulary import vocabulary
from limber_interp.records import (
    Caption,
    Captions,
    Control,
    Difference,
    Estimate,
    ImageTokens,
    Manifest,
    NearestTokens,
    Record,
    Target,
)
from limber_interp.resources import configs_dir, weights_dir
from limber_interp.training.checkpoints import CONTENTS, Checkpoints
from limber_interp.training.log import kept_lines
from limber_interp.weights import read_tensors, tensors_sha256

SUITE = weights_dir() / "emoji"
SIZE = 32  # of the images that encoders take


@dataclass(frozen=True)
class Reader:
    """A kind of file, or a folder in which one file after the other is broken."""

    write: Callable[[Path], Iterable[Path]]
    read: Callable[[Path], object]


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 3, generator=generator),
        "bias": torch.randn(4, generator=generator),
        "half": torch.ones(2, 2, dtype=torch.bfloat16).T,
        "count": torch.tensor(3),
    }


# Images


def _write_images(folder: Path) -> Iterable[Path]:
    colours = np.random.default_rng(0).integers(0, 256, (7, 9, 4), dtype=np.uint8)
    picture = Image.fromarray(colours, "RGBA" if colours.shape[2] == 4 else "RGB")
    exif = Image.Exif()
    exif[0x112] = 6
    for ending in ("png", "webp", "tif", "ico", "tga", "gif", "jp2", "dds", "sgi"):
        picture.save(folder / f"rgba.{ending}")
    for ending in ("jpg", "bmp", "ppm", "pcx", "im", "avif"):
        options = {"exif": exif} if ending == "jpg" else {}
        picture.convert("RGB").save(folder / f"rgb.{ending}", **options)
    picture.convert("RGB").save(folder / "exif.png", exif=exif)
    picture.convert("P").save(folder / "palette.png", transparency=1)
    picture.convert("RGB").save(folder / "lzw.tif", compression="tiff_lzw")
    picture.convert("CMYK").save(folder / "cmyk.jpg", progressive=True)
    Image.fromarray(colours[..., 0].astype(np.uint16) * 257).save(folder / "gray16.png")
    Image.fromarray(colours[..., 0] / np.float32(255)).save(folder / "float.tif")
    picture.save(folder / "animated.gif", save_all=True, append_images=[picture.rotate(90)])
    yield from sorted(folder.iterdir())


def _read_image(path: Path) -> None:
    image = load_image(path)
    assert image.mode == "RGB"
    image.resize((8, 8)).tobytes()


# Weights


def _write_safetensors(folder: Path) -> Iterable[Path]:
    save_file({name: t.contiguous() for name, t in _tensors().items()}, folder / "model.safetensors", {"format": "pt"})
    yield folder / "model.safetensors"


def _write_pickles(folder: Path) -> Iterable[Path]:
    contents = {"plain": _tensors(), "wrapped": {"state_dict": _tensors(), "epoch": 3}, "one": {"a": torch.ones(2)}}
    for name, content in contents.items():
        for zipped in (True, False):
            path = folder / f"{name}.{'pt' if zipped else 'bin'}"
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            yield path


def _write_torchscript(folder: Path) -> Iterable[Path]:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    torch.jit.save(torch.jit.trace(module, torch.ones(2, 3)), folder / "traced.pt")
    yield folder / "traced.pt"


def _write_shards(folder: Path) -> Iterable[Path]:
    for i, (name, tensor) in enumerate(_tensors().items()):
        save_file({name: tensor.contiguous()}, folder / f"model-{i}.safetensors")
    names = {name: f"model-{i}.safetensors" for i, name in enumerate(_tensors())}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    yield index


def _read_tensors(path: Path) -> None:
    tensors = read_tensors(path if path.suffix != ".json" else path.parent)
    tensors_sha256(tensors)


def _write_projections(folder: Path) -> Iterable[Path]:
    torch.manual_seed(0)
    projection = Projection(6, 5, 2)
    manifest = {"config": {"lm_name": "x", "encoder_name": "y"}, "hashes": {"encoder": "ab", "lm": "ab"}, "notes": []}
    projection.save(folder / "linear.safetensors", manifest, 3)
    projection.save_ckpt(folder / "linear.ckpt")
    yield from (folder / "linear.safetensors", folder / "linear.ckpt")


def _read_projection(path: Path) -> None:
    projection = load_projection(path, 6, 5, 2, n_positions=3)
    for part in ("encoder", "lm"):
        if part in projection.trained_with:
            projection.check_fit(part, "this", "ab")  # type: ignore[arg-type]
    projection.check_published("clip_linear", path)
    assert projection(torch.ones(1, 3, 6)).isfinite().all()


# Models


def _write_lm(folder: Path) -> Iterable[Path]:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((SUITE / "lm" / name).read_bytes())
    rows = json.loads((SUITE / "lm/config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    shape = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2, "rotary_dim": 2}
    GPTJForCausalLM(GPTJConfig(vocab_size=rows, **shape)).save_pretrained(folder)
    names = ("config.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
    yield from (folder / name for name in names)


def _read_lm(path: Path) -> None:
    lm = load_hooked_gptj(path.parent, device="cpu", dtype="float32")
    words = vocabulary(lm)
    words.text(words.encode("a picture of a dog"))
    lm(lm.W_E[: min(4, lm.cfg.n_ctx)][None].clone(), start_at_layer=0)
    lm_sha256(path.parent)


def _write_encoders(folder: Path) -> Iterable[Path]:
    torch.manual_seed(0)
    for name in ("clip", "nfresnet", "beit"):
        (folder / name).mkdir()
    vision = {"image_size": SIZE, "layers": [1, 1, 1, 1], "width": 8, "head_width": 64}
    text = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 2, "layers": 1}
    model_cfg = {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}
    described = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}}
    (folder / "clip/open_clip_config.json").write_text(json.dumps(described))
    (folder / "clip/vocabulary.json").write_text(json.dumps(["<pad>", *"abcdef", "<end>"]))
    save_file(open_clip.CLIP(**model_cfg).state_dict(), folder / "clip/model.safetensors")
    arguments = {"depths": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_chs": 8}
    described = {"architecture": "nf_resnet50", "model_args": arguments, "image_size": SIZE}
    (folder / "nfresnet/config.json").write_text(json.dumps(described))
    tower = timm.create_model("nf_resnet50", num_classes=0, **arguments)
    save_file(tower.state_dict(), folder / "nfresnet/model.safetensors")
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = BeitConfig(**shape, image_size=SIZE, patch_size=16, use_relative_position_bias=True)
    BeitModel(config, add_pooling_layer=False).save_pretrained(folder / "beit")
    BeitImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, resample=3, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder / "beit")
    for name in ("clip/open_clip_config", "nfresnet/config", "beit/config", "beit/preprocessor_config"):
        yield folder / f"{name}.json"


def _read_encoder(path: Path) -> None:
    name = f"emoji_{path.parent.name}"
    config = load_config("emoji_clip_linear", encoder_name=name, encoder_weights=str(path.parent), image_size=SIZE)
    encoder = load_encoder(config)
    pixels = encoder.preprocess(Image.new("RGB", (40, 30), "red"))
    assert encoder(pixels[None]).shape == (1, encoder.n_positions, encoder.d_encoder)
    encoder.visible(pixels)


def _write_clips(folder: Path) -> Iterable[Path]:
    list(_write_encoders(folder))
    yield from (folder / "clip/open_clip_config.json", folder / "clip/vocabulary.json")


def _read_clip(path: Path) -> None:
    scorer = ClipScorer.of_folder(path.parent, device="cpu")
    scorer.texts(["a b c"])


# Results, and what training and comparing leave


def _write_records(folder: Path) -> Iterable[Path]:
    manifest = Manifest({"name": "x"}, {"lm": None}, "float32", "cpu", 0, {"mean": [0.5] * 3}, versions={"torch": "1"})
    control = Control("noise", "of the same norms", 0, np.ones((2, 3)), {"dog": 0.5})
    target = Target("dog", " dog", 3, np.arange(3), 0.5, 10, None, 0)
    ids, scores = np.arange(6).reshape(3, 2), np.ones((3, 2), np.float32)
    image = ImageTokens("a.png", (1, 3), ids, scores, np.ones(3), (control,), (target,), np.zeros((2, 2, 3), np.uint8))
    texts = {str(i): f" token {i}" for i in range(6)}
    NearestTokens("cosine", "W_E", 2, (image,), texts, {"median": 1.0}, manifest).save(folder / "tokens.npz")
    told = Caption("a.png", "a dog", -1.0, -2.0, float("nan"), np.zeros((2, 2, 3), np.uint8))
    Captions("A picture of", (told,), "a cat", manifest).save(folder / "captions.npz")
    Difference(Estimate(0.5, 0.1, 0.9, 10), 0.03).save(folder / "difference.npz")
    yield from sorted(folder.glob("*.npz"))


def _read_record(path: Path) -> None:
    Record.load(path).to_json()


def _write_encodings(folder: Path) -> Iterable[Path]:
    manifest = {
        "encoder": {"name": "x", "sha256": "ab", "preprocessing": {"mean": [0.5] * 3}},
        "source": {"name": "data", "sha256": "cd", "count": 5},
        "shape": [2, 4],
        "shard_size": 3,
        "kept": 4,
        "rejected": 1,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    rows: list[dict[str, Any]] = [{"key": str(i), "captions": ["a dog", "a cat"]} for i in range(5)]
    rows[1] = {"key": "1", "rejected": "no image"}
    for shard, of_shard in enumerate((rows[:3], rows[3:])):
        text = "".join(json.dumps(row) + "\n" for row in of_shard)
        (folder / f"{shard:05d}.jsonl").write_text(text)
        save_file({"encodings": torch.ones(2, 2, 4, dtype=torch.float16)}, folder / f"{shard:05d}.safetensors")
    yield from (folder / name for name in ("manifest.json", "00000.jsonl", "00000.safetensors", "00001.safetensors"))


def _read_encodings(path: Path) -> None:
    encodings = open_encodings(path.parent)
    kept = np.flatnonzero(encodings.kept)
    assert encodings.encoding(kept).shape == encodings.shape
    assert all(isinstance(caption, str) for i in kept for caption in encodings.captions(i))
    assert len(encodings.rejections(path.parent / "rejected.jsonl")) == len(encodings) - len(kept)


def _write_checkpoints(folder: Path) -> Iterable[Path]:
    step = folder / "step-00000003"
    step.mkdir()
    save_file({"cpu": torch.get_rng_state()}, step / "rank-0.safetensors")
    sizes = {"rank-0.safetensors": (step / "rank-0.safetensors").stat().st_size}
    (step / CONTENTS).write_text(json.dumps({"step": 3, "ranks": 1, "state": {"config": {}}, "files": sizes}))
    yield step / CONTENTS


def _read_checkpoints(path: Path) -> None:
    newest = Checkpoints(path.parent.parent).newest()
    if newest is not None:
        assert newest.step == 3
        assert newest.state["ranks"] >= 1


def _write_logs(folder: Path) -> Iterable[Path]:
    lines = [{"step": i, "loss": 3.5 - i, "lr": 1e-3, "tokens": 12} for i in range(1, 4)]
    lines[2]["held_out"] = {"right": 1.0, "wrong": 2.0}  # type: ignore[assignment]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield folder / "log.jsonl"


def _read_log(path: Path) -> None:
    assert len([line["loss"] + 1 for line in kept_lines(path, 2)]) == 2


SETTINGS: dict[str, Any] = {"data": "x", "prompt": "A picture of", "entries": {"a": {"lm": "ab"}}, "shots": None}


def _write_results(folder: Path) -> Iterable[Path]:
    lines = [{"entry": "a", "task": "caption", "index": i, "key": f"0/{i}", "text": "a dog"} for i in range(3)]
    rows = [{"comparison": 1, **SETTINGS}, *lines]
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield folder / "results.jsonl"


def _read_results(path: Path) -> None:
    results = Results(path.parent, SETTINGS)
    if not results.missing("a", "caption", range(3)):
        assert all(isinstance(text, str) for text in results.texts("a", "caption", range(3)))


# Data sets, and what people write


def _write_datasets(folder: Path) -> Iterable[Path]:
    picture = Image.new("RGB", (4, 4), "red")
    names = [f"{i}.jpg" for i in range(3)]
    for name in names:
        picture.save(folder / name)
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": i % 3, "caption": f"a dog {i}", "id": i} for i in range(4)],
    }
    (folder / "captions.json").write_text(json.dumps(coco))
    for ending, delimiter in (("csv", ","), ("tsv", "\t")):
        with (folder / f"table.{ending}").open("w", newline="") as file:
            rows = [(name, f'a "dog", {name}') for name in names]
            csv.writer(file, delimiter=delimiter).writerows([("path", "caption"), *rows])
    (folder / "0.txt").write_text("a dog")
    (folder / "1.json").write_text(json.dumps({"caption": "a cat"}))
    with tarfile.open(folder / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("0.jpg", "0.txt", "1.jpg", "1.json"):
            archive.add(folder / name, name)
    (folder / "limber/images").mkdir(parents=True)
    (folder / "limber/image_data/0").mkdir(parents=True)
    picture.save(folder / "limber/images/a.png")
    asked = [{"question": "what is it?", "answers": ["a dog"], "kind": "what"}]
    record = {"captions": ["a dog"], "image_path": "images/a.png", "metadata": {"questions": asked}}
    (folder / "limber/image_data/0/a.json").write_text(json.dumps(record))
    for name in ("captions.json", "table.csv", "table.tsv", "shard.tar", "limber/image_data/0/a.json"):
        yield folder / name


def _read_dataset(path: Path) -> None:
    dataset = open_dataset(path.parents[2] if "image_data" in path.parts else path)
    for index in range(len(dataset)):
        try:
            example = dataset[index]
        except Rejected:
            continue
        assert all(isinstance(caption, str) for caption in example.captions)
    fingerprint(dataset)


def _write_questions(folder: Path) -> Iterable[Path]:
    *_, record = _write_datasets(folder)
    Image.new("RGB", (4, 4)).save(folder / "COCO_val2014_000000000001.jpg")
    asked = [{"question_id": 10 + i, "image_id": 1, "question": "what is it?"} for i in range(2)]
    path = folder / "v2_OpenEnded_mscoco_val2014_questions.json"
    path.write_text(json.dumps({"data_subtype": "val2014", "questions": asked}))
    answers = [{"question_id": 10 + i, "answers": [{"answer": "dog"}] * 2, "answer_type": "other"} for i in range(2)]
    annotations = folder / "v2_mscoco_val2014_annotations.json"
    annotations.write_text(json.dumps({"annotations": answers}))
    yield from (record, path, annotations)


def _read_questions(path: Path) -> None:
    inside = "image_data" in path.parts
    found = open_questions(path.parents[2] if inside else path.with_name("v2_OpenEnded_mscoco_val2014_questions.json"))
    for index in range(len(found)):
        try:
            question = found[index]
        except Rejected:
            continue
        assert all(isinstance(answer, str) for answer in question.answers)
    list(found.files())


def _write_configs(folder: Path) -> Iterable[Path]:
    for name in ("clip_linear", "emoji_nfrn_linear"):
        path = folder / f"{name}.yml"
        path.write_bytes((configs_dir() / path.name).read_bytes())
        yield path
    values = yaml.safe_load((configs_dir() / "clip_linear.yml").read_text())
    (folder / "json.yml").write_text(json.dumps(values))  # JSON is YAML, and its values are changed one by one
    yield folder / "json.yml"


def _read_config(path: Path) -> None:
    json.dumps(load_config(path).model_dump())


def _write_words(folder: Path) -> Iterable[Path]:
    (folder / "taxonomy.json").write_bytes((SUITE / "taxonomy.json").read_bytes())
    yield folder / "taxonomy.json"


def _read_words(path: Path) -> None:
    lexicon = Lexicon.read(path)
    list(lexicon.find("a small dog above two cats"))


def _write_attributes(folder: Path) -> Iterable[Path]:
    (folder / "classes.txt").write_text("1\tpolar+bear\n2\tdog\n3\tcat\n")
    (folder / "predicates.txt").write_text("1\tblack\n2\tbig\n")
    (folder / "predicate-matrix-binary.txt").write_text("0 1\n1 0\n1 1\n")
    yield from sorted(folder.glob("*.txt"))


def _read_attributes(path: Path) -> None:
    overlaps = AnimalAttributes.read(path.parent).overlaps
    assert overlaps.shape[0] == overlaps.shape[1]


READERS = {
    "images": Reader(_write_images, _read_image),
    "weights/safetensors": Reader(_write_safetensors, _read_tensors),
    "weights/pickles": Reader(_write_pickles, _read_tensors),
    "weights/torchscript": Reader(_write_torchscript, _read_tensors),
    "weights/shards": Reader(_write_shards, _read_tensors),
    "projections": Reader(_write_projections, _read_projection),
    "language_models": Reader(_write_lm, _read_lm),
    "encoders": Reader(_write_encoders, _read_encoder),
    "clips": Reader(_write_clips, _read_clip),
    "records": Reader(_write_records, _read_record),
    "encodings": Reader(_write_encodings, _read_encodings),
    "checkpoints": Reader(_write_checkpoints, _read_checkpoints),
    "logs": Reader(_write_logs, _read_log),
    "results": Reader(_write_results, _read_results),
    "datasets": Reader(_write_datasets, _read_dataset),
    "questions": Reader(_write_questions, _read_questions),
    "configs": Reader(_write_configs, _read_config),
    "words": Reader(_write_words, _read_words),
    "attributes": Reader(_write_attributes, _read_attributes),
}
