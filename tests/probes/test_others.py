import logging
from pathlib import Path

import pytest
from PIL import Image

from limber_interp.errors import InputError
from limber_interp.images import image_hash, load_image
from limber_interp.models.limber import Limber
from limber_interp.probes import logit_lens, nearest_tokens
from limber_interp.probes import others as module
from limber_interp.probes.others import Spare, bundled_scenes, by_hash, others_of, told

PROBES = pytest.mark.parametrize("probe", [nearest_tokens, logit_lens])


def test_others_are_other_pictures():
    others, drawn = others_of(["a", "b", "a", *map(str, range(30))], 0, seed=0)
    assert list(others) == [1, *range(3, 33)]
    assert len(drawn) == 19
    assert set(drawn) <= set(others)
    with pytest.raises(InputError, match="there is no other image"):
        others_of(["a", "a"], 1, seed=0)


def test_where_images_come_from_is_told():
    assert told("mean_prompt", {"given": 1, "bundled_scenes": 20}) == (
        "the mean soft prompt of all images: 1 given and 20 bundled emoji scenes"
    )
    assert told("other_images", {"others": 1}) == "soft prompts of other images: 1 named as others"
    assert told("other_images", {"bundled_scenes": 1}).endswith(": 1 bundled emoji scene")


def test_bundled_scenes_are_strangers_to_all_but_themselves(images):
    scenes = bundled_scenes()
    own, photo = image_hash(load_image(scenes[0])), image_hash(images[0])
    beside = Spare.beside([photo] * 2, None)
    assert (beside.kind, list(beside.sources)) == ("bundled_scenes", scenes)
    assert beside.stranger_to([own, own]) is None
    for hashes, of_all in (([own, photo], "which 1 of the 2 images given is not among"), ([photo] * 2, "2 of the 2")):
        assert of_all in beside.stranger_to(hashes)
    assert own not in map(image_hash, map(load_image, Spare.beside([own], None).sources))
    assert Spare.beside([photo] * 20, None).stranger_to([photo]) is None, "none of them is taken"
    assert Spare.beside([photo], by_hash(scenes)).stranger_to([photo]) is None, "whoever names them knows them"


@PROBES
def test_scenes_for_photographs_are_named_and_warned_of(tiny: Limber, images, caplog, probe):
    """The controls came from emoji scenes, for photographs too, and nothing said so."""
    with caplog.at_level(logging.WARNING, "limber_interp"):
        record = probe(tiny, images[:2], n_draws=1)
    (line,) = [line.getMessage() for line in caplog.records]
    assert line.startswith("controls 'mean_prompt' and 'other_images' take 20 bundled emoji scenes, which 2 of the 2")
    assert record.manifest.notes[-1] == line
    mean_prompt, other_images = record.images[0].controls[-2:]
    assert mean_prompt.description.endswith("of all images: 2 given and 20 bundled emoji scenes")
    assert other_images.description.endswith("of other images: 1 given and 20 bundled emoji scenes")
    assert (mean_prompt.pool, other_images.pool) == (
        {"given": 2, "bundled_scenes": 20},
        {"given": 1, "bundled_scenes": 20},
    )
    expected = {str(path): image_hash(load_image(path)) for path in bundled_scenes()}
    assert record.manifest.others == expected
    values = record.as_dict()
    assert values["manifest"]["others"] == expected
    assert values["images"][0]["controls"]["other_images"]["pool"] == {"given": 1, "bundled_scenes": 20}


@PROBES
def test_a_scene_of_the_suite_is_at_home_among_scenes(tiny: Limber, caplog, probe):
    with caplog.at_level(logging.WARNING, "limber_interp"):
        record = probe(tiny, bundled_scenes()[0], n_draws=1)
    assert not caplog.records
    assert record.manifest.notes == tiny.notes
    assert record.images[0].controls[-1].pool == {"bundled_scenes": 19}  # of 20, itself left out


@PROBES
def test_others_by_the_folder(tiny: Limber, images, tmp_path, caplog, probe):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    (tmp_path / "captions.txt").write_text("no image")
    with caplog.at_level(logging.WARNING, "limber_interp"):
        record = probe(tiny, images[0], targets="dog", others=str(tmp_path), n_draws=1)
    assert not caplog.records
    control = record.images[0].controls[-1]
    assert control.sources == tuple(map(str, paths[1:]))  # 0.png is the picture itself
    assert control.description == "soft prompts of other images: 2 named as others"
    assert record.manifest.others == {str(path): image_hash(load_image(path)) for path in paths[1:]}
    target = record.as_dict()["images"][0]["targets"]["dog"]
    assert target["least_p"]["images"] == 1 / 3
    assert target["least_p"]["words"] == 1 / (target["p_words"]["n"] + 1)
    one = probe(tiny, images[0], others=str(paths[1]), n_draws=1).images[0].controls[-1]
    assert one.sources == (str(paths[1]),)


@PROBES
def test_a_picture_counts_once(tiny: Limber, images, tmp_path, probe):
    """Named as other and given too, as with `*.png --others .`, each picture was counted twice: of two others the
    smallest p-value seemed to be 1/5."""
    for i in range(3):
        images[i].save(tmp_path / f"{i}.png")
    images[1].save(tmp_path / "the same.png")
    settings = {"targets": ["dog", "cat"], "n_draws": 1}
    doubled = probe(tiny, images[:2], others=[tmp_path, images[2]], **settings)
    plain = probe(tiny, images[:2], others=[tmp_path / "2.png"], **settings)
    assert doubled.to_json() == plain.to_json()
    assert doubled.images[0].controls[-1].pool == {"given": 1, "others": 1}
    assert doubled.images[0].controls[-2].pool == {"given": 2, "others": 1}
    assert doubled.images[0].targets[0].n_images == 2


@PROBES
def test_named_others_are_never_left_out(tiny: Limber, images, monkeypatch, probe):
    """Of 20 images or more they were, without a word."""
    monkeypatch.setattr(module, "N_OTHERS", 1)
    record = probe(tiny, images[:2], others=[images[2]], n_draws=1)
    assert record.images[0].controls[-1].pool == {"given": 1, "others": 1}


@PROBES
def test_others_that_no_control_can_take(tiny: Limber, images, tmp_path, probe):
    for level in ("none", "fast", False):
        with pytest.raises(InputError, match=r"others: controls .* take no other images; choose controls 'full'"):
            probe(tiny, images[0], controls=level, others=images[1:])
    with pytest.raises(InputError, match=f"{tmp_path}: no image right in this folder"):
        probe(tiny, images[0], others=tmp_path)


def test_whole_prompts_take_no_others(tiny: Limber, images):
    with pytest.raises(InputError, match="others: whole prompts have no other control than noise"):
        logit_lens(tiny, tiny.embed([images[0], "A picture of"]), others=images[1:])


@PROBES
def test_a_broken_other_is_found_before_the_work(tiny: Limber, images, tmp_path, probe):
    (tmp_path / "broken.png").write_bytes(b"no image")
    looked_at: list[Image.Image | Path | str | bytes] = []

    def noting(sources):
        for source in sources:
            looked_at.append(source)
            yield source

    with pytest.raises(InputError, match=r"broken\.png: not an image"):
        probe(tiny, images[0], others=tmp_path, progress=noting)
    assert looked_at == []
