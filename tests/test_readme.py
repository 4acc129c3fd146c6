"""What the README and docs/ tell a reader to type: every command line runs, here on small data of the format that it
names, and the Python runs on the tiny world. What cannot be run here is parsed, and listed by hand."""

import glob
import io
import json
import re
import runpy
import shlex
import tarfile
from importlib import import_module
from pathlib import Path

import nltk.data
import pytest
import torch
import tyro
import yaml
from PIL import Image
from safetensors.torch import load_file

import limber_interp
from limber_interp import resources
from limber_interp.__main__ import commands
from limber_interp.config import load_config
from limber_interp.datasets import read_folder

ROOT = Path(limber_interp.__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")))}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
(PYTHON,) = [block for language, block in BLOCK.findall(PAGES["README.md"]) if language == "python"]
PROGRAMS = ("python", "deepspeed", "torchrun", "srun", "hf", "make", "pip")
OURS = re.compile(r"(?:-m|--module) (limber_interp(?:\.\w+)?)(?: (.*))?$")
# They need a network, more processes or another machine. A line that is new here has to have a reason
PARSED = {
    "python -m limber_interp.fetch clip_linear",
    "python -m limber_interp.fetch clip_linear --out projections",
    "python -m limber_interp.nearest_tokens photo.jpg --config clip_linear --lm EleutherAI/gpt-j-6B@float16",
    "deepspeed --module limber_interp.train --data shards --held-out UNSEEN --out projections",
    "deepspeed --module limber_interp.train --config clip_linear …",
    "torchrun --nproc-per-node 8 -m limber_interp.train --config clip_linear …",
    "deepspeed --hostfile hosts --module limber_interp.train --config clip_linear …",
    'srun torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" '
    '--rdzv-endpoint "$MASTER_ADDR:29500" -m limber_interp.train --config clip_linear --data shards/ --out out '
    "--save-every 200 --resume",
}
# Other people's programs, and ours to build
OTHERS = {
    "python -m experiments.benchmarks.gpu --stages rates training",  # test_gpu_benchmark.py rehearses it
    "make demo",
    "make test",
    'hf download EleutherAI/gpt-j-6B --revision float16 --include "*.json" "*.txt" "pytorch_model*.bin" '
    "--local-dir gpt-j-6b",
    "hf download timm/resnet50x16_clip.openai --local-dir rn50x16",
    "hf download timm/nf_resnet50.ra2_in1k --local-dir nf_resnet50",
    "hf download microsoft/beit-large-patch16-224-pt22k --local-dir beit",
}


def typed(page: str) -> list[str]:
    """The command lines of a page, each on one line and without its comment: of blocks, and of the running text."""
    blocks = "".join(block for language, block in BLOCK.findall(page) if language != "python")
    lines = blocks.replace("\\\n", " ").splitlines() + re.findall(r"`(python -m [^`]*)`", BLOCK.sub("", page))
    words = [" ".join(line.partition(" #")[0].split()) for line in lines]
    return [line for line in words if line.startswith(PROGRAMS) or OURS.search(line)]


LINES = list(dict.fromkeys(line for page in PAGES.values() for line in typed(page)))
RUN = [line for line in LINES if line not in PARSED | OTHERS]


def test_a_new_line_is_run():
    assert {line for line in LINES if line in PARSED | OTHERS} == PARSED | OTHERS
    assert all(line.startswith("python -m limber_interp") for line in RUN)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {line.split()[1] for line in OTHERS if line.startswith("make ")} <= set(targets)


def test_every_command_is_shown():
    shown = {module for line in LINES if (found := OURS.search(line)) for module in found.groups()[:1]}
    assert shown == {"limber_interp", *(f"limber_interp.{name}" for name in commands())}


@pytest.mark.parametrize("line", sorted(PARSED))
def test_a_line_that_is_not_run_parses(line: str):
    found = OURS.search(line.replace("…", "--data shards/ --out out"))
    assert found is not None
    markers = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)
    options = tyro.cli(import_module(found[1]).Options, args=shlex.split(found[2]), config=markers)
    if "config" in vars(options):
        load_config(options.config)


@pytest.fixture
def desk(world, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with small things under the names that the pages use, where the configs' names stand for
    the tiny world's."""
    examples = read_folder(folder)
    for name in ("FOLDER", "UNSEEN", "val"):
        (tmp_path / name).symlink_to(folder)
    for i, name in enumerate(("photo.jpg", "other.jpg")):
        Image.open(examples[i].image).convert("RGB").save(tmp_path / name)
    torch.save(load_file(world.projection()), tmp_path / "proj.ckpt")

    (tmp_path / "val2017").mkdir()
    (tmp_path / "shards").mkdir()
    coco: dict = {"images": [], "annotations": []}
    with tarfile.open(tmp_path / "shards/00000.tar", "w") as shard:
        for i, example in enumerate(examples):
            file = tmp_path / f"val2017/{i:012d}.jpg"
            Image.open(example.image).convert("RGB").save(file)
            coco["images"].append({"id": i, "file_name": file.name})
            coco["annotations"].append({"image_id": i, "caption": example.captions[0]})
            for ending, content in (("jpg", file.read_bytes()), ("txt", example.captions[0].encode())):
                member = tarfile.TarInfo(f"{i:05d}.{ending}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    (tmp_path / "captions_val2017.json").write_text(json.dumps(coco))

    (tmp_path / "root/configs").mkdir(parents=True)
    (tmp_path / "root/limber_weights").symlink_to(resources.weights_dir())
    # The default is a narrow encoder, so that nine images are enough for a projection in closed form
    for name, encoder in (("emoji_clip_linear", "beit"), ("clip_linear", "clip"), ("beit_linear", "beit")):
        values = yaml.safe_load(world.config(encoder).read_text())
        values |= {"train_steps": 2, "batch_size": 4, "warmup_num_steps": 1}
        values["eval_dataset_dir"] = "/of/another/machine"
        (tmp_path / f"root/configs/{name}.yml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(resources, "root", lambda: tmp_path / "root")
    monkeypatch.setattr(nltk.data, "path", [])  # as on a machine where nobody has fetched WordNet
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line", RUN)
def test_a_line_runs(line: str, desk: Path, capsys):
    """`compare_encoders … --data captions_val2017.json` ended with "no questions in it", and `train --data FOLDER` with
    the config's held-out data, which are on another machine."""
    found = OURS.search(line)
    assert found is not None
    args = [
        name for word in shlex.split(found[2] or "") for name in (sorted(glob.glob(word)) if "*" in word else [word])
    ]
    if found[1] == "limber_interp":
        runpy.run_path(str(ROOT / "limber_interp/__main__.py"), run_name="__main__")
        assert set(re.findall(r"-m limber_interp\.(\w+)", capsys.readouterr().out)) == commands().keys()
        return
    status = import_module(found[1]).main(args)
    out, err = capsys.readouterr()
    assert status == 0, err
    if "--json -" in line:
        json.loads(out)
    if "--dry-run" not in args:
        for option in {"--figure", "--html", "--json", "--out", "--tensorboard"} & set(args):
            written = args[args.index(option) + 1]
            assert written == "-" or Path(written).is_dir() or Path(written).stat().st_size > 0


def test_the_python_runs(world, images, tmp_path, monkeypatch):
    images[0].save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    default = "limber_interp.load()"
    assert PYTHON.count(default) == 1
    names: dict = {}
    exec(PYTHON.replace(default, f"limber_interp.load({str(world.config())!r})"), names)
    assert names["patches"].shape == (4, 32)
    assert names["record"].k == 5
