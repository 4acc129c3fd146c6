import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limber_interp.errors import InputError
from limber_interp.plotting.explorer import explorer
from limber_interp.records import ImageLens, LayerReading, LensControl, LensTarget, LogitLens, Manifest

# Index is the token's id. The second half are those that a page has to survive
WORDS = (" dog", " cat", "cat", " bus", " grass", "the", " extraordinarily", "of")
HOSTILE = (
    "</script><script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'>",
    "<!--<script>",
    "<|endoftext|>",
    "\"quoted\" & 'single'",
    "\u2028",
    "\n\x00\x1b[31m",
    "$record ${k}",
    "�",
    "�",
    "中",
    "constructor",
)


def reading_of(n_layers: int, n_pos: int, k: int, n_tokens: int, random: np.random.Generator) -> LayerReading:
    shape = (n_layers, n_pos)
    return LayerReading(
        token_ids=(random.integers(0, n_tokens, (*shape, 1)) + np.arange(k)) % n_tokens,
        logprobs=-np.sort(random.exponential(3.0, (*shape, k)), axis=-1).astype(np.float32),
        entropy=random.uniform(0, 8, shape).astype(np.float32),
        kl=random.uniform(0, 9, shape).astype(np.float32),
        agrees=random.random(shape) < 0.3,
    )


def lens_of(
    grid: tuple[int, int] | None = (3, 3),
    n_layers: int = 4,
    n_images: int = 1,
    inputs: tuple[str, ...] = (),
    n_places: int | None = None,
    controls: tuple[str, ...] = ("noise", "other_images"),
    words: tuple[str, ...] = WORDS,
    k: int = 3,
    pixels: int = 48,
) -> LogitLens:
    """A record of random numbers. The first word is a target."""
    random = np.random.default_rng(0)
    n_image = n_places if grid is None else grid[0] * grid[1]
    assert n_image
    n_pos = n_image + len(inputs)

    def image_of(name: str) -> ImageLens:
        reading = reading_of(n_layers, n_pos, k, len(words), random)
        target = LensTarget(
            word="dog",
            token=words[0],
            token_id=0,
            ranks=random.integers(1, 50_000, (n_layers, n_pos)),
            logits=random.normal(0, 1, (n_layers, n_pos)).astype(np.float32),
            logprobs=-random.exponential(6.0, (n_layers, n_pos)).astype(np.float32),
            p_words=np.full(n_layers, 0.025),
            n_words=200,
        )
        run = tuple(
            LensControl(
                name=control,
                description=f"what {control} is",
                seed=7,
                reading=reading_of(n_layers, n_pos, k, len(words), random),
                top_logprobs=-random.exponential(2.0, (20, n_layers, n_pos)).astype(np.float32),
                best_ranks=random.integers(1, 50_000, (20, n_layers, 1)),
                best_logprobs=-random.exponential(6.0, (20, n_layers, 1)).astype(np.float32),
                sources=("another.png",) * 20 if control == "other_images" else (),
            )
            for control in controls
        )
        return ImageLens(
            image=name,
            grid=grid,
            image_start=0,
            positions=np.arange(n_pos),
            inputs=("",) * n_image + inputs,
            reading=reading,
            targets=(target,),
            controls=run,
            seen=random.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8),
        )

    manifest = Manifest(
        config={"name": "emoji_clip_linear", "image_size": 96},
        hashes={"projection": "0123456789abcdef" * 4, "encoder": None},
        dtype="float32",
        device="cpu",
        seed=7,
        preprocessing={"resize": "<b>96</b>"},
        notes=("a note",),
    )
    return LogitLens(
        k=k,
        layers=tuple(range(n_layers)),
        prompt="A picture of",
        images=tuple(image_of(f"folder/{i}.png") for i in range(n_images)),
        tokens=dict(zip(map(str, range(len(words))), words, strict=True)),
        manifest=manifest,
    )


def test_small_enough_to_be_sent(tmp_path):
    """As large as a record of GPT-J-6B gets: CLIP's patches with their text, the five controls, few tokens alike."""
    controls = ("noise", "random_map", "random_encoder", "mean_prompt", "other_images")
    words = tuple(f" word{i}" for i in range(50_257))
    record = lens_of((12, 12), 29, inputs=("A", " picture", " of"), controls=controls, words=words, k=5, pixels=384)
    explorer(record, tmp_path / "page.html")
    assert 1e6 < (tmp_path / "page.html").stat().st_size < 3e6


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="without images"):
        explorer(replace(lens_of(), images=()), tmp_path / "page.html")
    with pytest.raises(InputError, match="cannot be written"):
        explorer(lens_of(), tmp_path / "nowhere" / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def opened(open_page, tmp_path: Path) -> Callable:
    """Opens a record's page."""

    def open_record(record: LogitLens, **options: Any):
        explorer(record, tmp_path / "page.html")
        return open_page(tmp_path / "page.html", **options)

    open_record.said = open_page.said
    return open_record


def position(page, i: int):
    return page.locator(f'.position[data-position="{i}"]')


def near(text: str, logprob: float) -> bool:
    """Whether a text is the probability, which is rounded to one digit where it is tiny."""
    return float(text) == pytest.approx(np.exp(logprob), rel=0.5 if logprob < np.log(1e-3) else 0.06)


def assert_table_shows(page, record: LogitLens, reading: LayerReading, i: int) -> None:
    rows = page.locator("#layers tbody tr")
    assert rows.count() == len(record.layers)
    for layer, row in enumerate(rows.all()):
        entropy, kl = row.locator(".number").all_inner_texts()[:2]
        assert float(entropy) == pytest.approx(reading.entropy[layer, i], abs=0.01)
        assert float(kl) == pytest.approx(reading.kl[layer, i], abs=0.01)
        words = [record.text(token).replace(" ", "␣") for token in reading.token_ids[layer, i].tolist()]
        assert row.locator(".word").all_inner_texts() == words
        shown = row.locator(".value").all_inner_texts()
        assert all(map(near, shown, reading.logprobs[layer, i].tolist())), shown
        assert row.locator("td.agrees").count() == reading.agrees[layer, i]


def labels(page) -> list[str]:
    return page.locator("#patches .word").all_inner_texts()


def test_hovered_locked_and_unlocked(opened):
    record = lens_of()
    reading = record.images[0].reading
    page = opened(record)
    assert page.title() == "Logit lens: 0.png"
    where = page.locator("#where")
    position(page, 5).hover()
    assert where.inner_text() == "Patch 1, 2"
    assert_table_shows(page, record, reading, 5)
    position(page, 7).click()
    position(page, 0).hover()
    assert where.inner_text() == "Patch 2, 1"
    assert_table_shows(page, record, reading, 7)
    assert position(page, 7).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert position(page, 7).get_attribute("aria-pressed") == "false"
    position(page, 3).hover()
    assert where.inner_text() == "Patch 1, 0"
    position(page, 3).click()
    page.locator("#unlock").click()
    position(page, 8).hover()
    assert where.inner_text() == "Patch 2, 2"


def test_the_slider_labels_the_image(opened):
    record = lens_of()
    page = opened(record)
    for layer in (3, 0, 2):
        page.locator("#layer").fill(str(layer))
        top = record.images[0].reading.token_ids[layer, :, 0].tolist()
        assert labels(page) == [record.text(token).strip() for token in top]
        assert page.locator("#layers [aria-current]").get_attribute("data-layer") == str(layer)
        assert f"{layer}" in page.locator("#layer-name").inner_text()
    strongest = position(page, int(record.images[0].reading.logprobs[2, :, 0].argmax()))
    weakest = position(page, int(record.images[0].reading.logprobs[2, :, 0].argmin()))
    share = "element => Number(element.style.getPropertyValue('--share'))"
    assert 0 <= weakest.evaluate(share) < strongest.evaluate(share) <= 1


def curve_values(page) -> dict[str, list[str]]:
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator(".values tbody tr").all()]
    return {row[0]: row[1:] for row in rows}


def test_a_typed_token_is_shown_where_it_is_known_and_nowhere_else(opened):
    record = lens_of(k=2)
    page = opened(record)
    page.locator("#token").fill("bus")  # means " bus", since "bus" is no token here
    token = WORDS.index(" bus")
    for layer in range(4):
        page.locator("#layer").fill(str(layer))
        for name, reading in (
            ("this image", record.images[0].reading),
            *((control.name.replace("_", " "), control.reading) for control in record.images[0].controls),
        ):
            among = reading.token_ids[layer] == token
            known = among.any(axis=-1)
            if name == "this image":
                for i in range(9):
                    text = position(page, i).inner_text()
                    assert ("blank" in (position(page, i).get_attribute("class") or "")) == (not known[i])
                    assert near(text, reading.logprobs[layer, i][among[i]].item()) if known[i] else text == ""
            (text,) = curve_values(page)[name]
            if not known.any():
                assert text == "not among the 2"
                continue
            best = reading.logprobs[layer][among].max()
            bound = reading.logprobs[layer, ~known, -1].max(initial=-np.inf)
            assert text.startswith("at least") == (best < bound)
            assert near(text.removeprefix("at least "), best)
    texts = " ".join(text for row in curve_values(page).values() for text in row)
    assert page.locator("#curves .hollow").count() > 0, texts
    assert page.locator("#curves").inner_text().count("the first draw")
    page.locator("#token").fill("nothing such")
    assert "nowhere among the 2" in page.locator("#answer").inner_text()
    assert page.locator("#curves").is_hidden()
    page.keyboard.press("Escape")
    assert page.locator("#token").input_value() == ""
    assert labels(page)[0]


def test_two_tokens_that_differ_by_a_space(opened):
    page = opened(lens_of())
    page.locator("#token").fill("cat")
    assert "␣cat is another token" in page.locator("#answer").inner_text()
    assert page.locator("#curves h2").inner_text() == "cat over the layers"
    page.locator("#token").fill(" CAT")
    assert page.locator("#curves h2").inner_text() == "␣cat over the layers"
    page.locator("#token").fill("gras")
    offered = page.locator("#offers option").evaluate_all("options => options.map(option => option.value)")
    assert offered == ["␣grass"]


def test_a_target_is_followed_everywhere(opened):
    record = lens_of(k=1)
    (target,) = record.images[0].targets
    page = opened(record)
    page.locator("#targets button").click()
    page.locator("#layer").fill("1")
    for i in range(9):
        assert near(position(page, i).inner_text(), target.logprobs[1, i].item())
    position(page, 4).hover()
    shown = page.locator("#layers tbody tr").nth(1).locator(".number").nth(2).inner_text()
    assert shown.endswith(f", rank {target.ranks[1, 4]}")
    values = curve_values(page)
    assert near(values["this image"][0], target.best_logprobs[1])
    assert values["this image"][1] == str(target.best_ranks[1])
    for control in record.images[0].controls:
        band = {name: float(ranks[1]) for name, ranks in control.band(0).items()}
        said = [float(number) for number in re.findall(r"[\d.]+", values[control.name.replace("_", " ")][1])]
        assert said == pytest.approx([band["median"], band["q05"], band["q95"]], abs=0.51)
    assert "p = 0.025 against 200 other words at this image, at layer 1" in page.locator("#curves").inner_text()
    assert "; so many allow no p below 0.005." in page.locator("#curves").inner_text()
    assert page.locator("#curves polygon").count() == 2 * len(record.images[0].controls)
    page.locator("#curves svg[role=img]").first.click(position={"x": 1, "y": 50})
    assert page.locator("#layer").input_value() == "0"


def test_from_the_keyboard(opened):
    page = opened(lens_of())
    where = page.locator("#where")
    position(page, 4).focus()
    for key, name in (
        ("ArrowRight", "Patch 1, 2"),
        ("ArrowRight", "Patch 1, 2"),
        ("ArrowUp", "Patch 0, 2"),
        ("ArrowLeft", "Patch 0, 1"),
        ("ArrowDown", "Patch 1, 1"),
    ):
        page.keyboard.press(key)
        assert where.inner_text() == name
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert where.inner_text() == "Patch 1, 1", "locked"
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert where.inner_text() == "Patch 0, 1"
    for key, layer in (("[", 2), ("[", 1), ("]", 2), ("]", 3), ("]", 3)):
        page.keyboard.press(key)
        assert page.locator("#layer").input_value() == str(layer)
    page.keyboard.press("/")
    page.keyboard.type("the")
    assert page.locator("#curves h2").inner_text() == "the over the layers"
    assert page.locator("#layer").input_value() == "3", "what is typed is no command"
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowDown")
    assert where.inner_text() == "Patch 1, 1"
    tabbed = page.locator("#patches .position").evaluate_all("all => all.filter(one => one.tabIndex === 0).length")
    assert tabbed == 1


def test_controls_are_named_and_can_be_looked_at(opened):
    record = lens_of()
    page = opened(record)
    text = page.locator("#views").inner_text()
    for said in ("what noise is", "20 draws", "seed 7", "other images", "the first is another.png"):
        assert said in text
    for i, control in enumerate(record.images[0].controls):
        page.locator("#views input").nth(i + 1).check()
        position(page, 2).hover()
        assert page.locator("#where").inner_text() == f"Patch 0, 2, {control.name.replace('_', ' ')}"
        assert_table_shows(page, record, control.reading, 2)
        assert page.locator("#seen").is_hidden(), "a control is not of these pixels"
    page.locator("#views input").first.check()
    assert page.locator("#seen").is_visible()


def test_without_controls_the_page_says_so(opened):
    page = opened(lens_of(controls=()))
    assert "No control was run: these numbers alone say nothing" in page.locator("#views").inner_text()
    page.locator("#targets button").click()
    assert "No control was run" in page.locator("#curves").inner_text()


def test_several_images(opened):
    record = lens_of(n_images=3)
    page = opened(record)
    position(page, 1).click()
    page.locator("#image").select_option("2")
    assert page.title() == "Logit lens: 2.png"
    assert labels(page) == [record.text(t).strip() for t in record.images[2].reading.token_ids[-1, :, 0].tolist()]
    position(page, 6).hover()
    assert_table_shows(page, record, record.images[2].reading, 6)


def test_positions_that_are_no_places_are_listed(opened):
    record = lens_of(grid=None, n_places=4, inputs=("A", " picture"))
    page = opened(record)
    assert page.locator("#patches .position").count() == 0
    assert page.locator("#elsewhere .place").all_inner_texts() == ["0", "1", "2", "3", "A", "␣picture"]
    position(page, 5).click()
    position(page, 0).hover()
    assert page.locator("#where").inner_text() == "Text ␣picture"
    assert_table_shows(page, record, record.images[0].reading, 5)
    page.keyboard.press("Escape")
    position(page, 1).hover()
    assert page.locator("#where").inner_text() == "Position 1"


def test_some_patches_alone_and_no_pixels(opened):
    """Positions may be any of the image's, and the pixels of many images are not kept."""
    record = lens_of((4, 6), n_images=1)
    whole = record.images[0]
    few = np.array([1, 9, 23])
    reading = LayerReading(**{name: values[:, few] for name, values in vars(whole.reading).items()})
    image = replace(whole, positions=few, inputs=("",) * 3, reading=reading, targets=(), controls=(), seen=None)
    page = opened(replace(record, images=(image,)))
    assert page.locator("#seen").is_hidden()
    frame = page.locator("#picture").bounding_box()
    for i, (row, column) in enumerate([(0, 1), (1, 3), (3, 5)]):
        box = position(page, i).bounding_box()
        assert box["x"] - frame["x"] == pytest.approx(column * frame["width"] / 6, abs=2)
        assert box["y"] - frame["y"] == pytest.approx(row * frame["height"] / 4, abs=2)
        position(page, i).hover()
        assert page.locator("#where").inner_text() == f"Patch {row}, {column}"


def test_hostile_tokens_are_shown_and_do_not_run(opened):
    record = lens_of(words=HOSTILE, k=12, inputs=("</script>",), n_layers=2)
    name = "<img src=x onerror='window.harmed=1'>\udcff.png"
    record = replace(record, images=(replace(record.images[0], image=name),), prompt="</script>")
    page = opened(record)
    position(page, 4).hover()
    shown = set(page.locator("#layers tbody .word").all_inner_texts())
    plain = {word.replace(" ", "␣") for word in HOSTILE if word.isprintable() and word != "�"}
    assert shown == plain | {"\\u2028", "\\n\\x00\\x1b[31m", "�␣#8".replace("␣", " "), "� #9"}
    assert page.locator("#about").inner_text().startswith("<img src=x onerror='window.harmed=1'>\\udcff.png")
    assert page.locator(".list .place").all_inner_texts() == ["</script>"]
    for word in HOSTILE[:4]:
        page.locator("#token").fill(word)
        assert page.locator("#curves h2").inner_text() == f"{word.replace(' ', '␣')} over the layers"
    page.locator("#token").fill("#9")
    assert page.locator("#curves h2").inner_text() == "� #9 over the layers"
    page.locator("details summary").click()
    assert "<b>96</b>" in page.locator("#manifest").inner_text()
    assert page.evaluate("window.harmed") is None
    assert page.locator("img").count() == 1


def test_the_policy_forbids_every_request(opened):
    page = opened(lens_of())
    blocked = page.evaluate(
        """() => new Promise((done) => {
             document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
             fetch("data:text/plain,a").catch(() => {});
           })"""
    )
    assert blocked == "connect-src"
    assert "Content Security Policy" in " ".join(opened.said)
    opened.said.clear()


def test_what_produced_it(opened):
    page = opened(lens_of())
    assert page.locator("#manifest").is_hidden()
    page.locator("details summary").click()
    text = page.locator("#manifest").inner_text()
    for said in ("emoji_clip_linear", "0123456789ab", "unknown", "float32", "a note", "limber_interp"):
        assert said in text
    assert "0123456789abc" not in text


def test_on_a_telephone_and_in_the_dark(opened):
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
    page = opened(lens_of((12, 12), 29, inputs=("A",)), **options)
    page.locator("#targets button").tap()
    position(page, 30).tap()
    assert page.locator("#where").inner_text() == "Patch 2, 6"
    assert page.locator("#unlock").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert max(red, green, blue) < 60
