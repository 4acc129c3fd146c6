import io
import logging
import struct
import time
import zlib
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from limber_interp.errors import InputError
from limber_interp.images import fetching, image_hash, load_image
from limber_interp.urls import MAX_REDIRECTS
from tests.file_server import QuietHandler, running

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def picture() -> Image.Image:
    """3 x 2 pixels, each different, so that a flip, a turn or a swap of channels shows."""
    return Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14)


# ---- what is opened


def test_path_url_bytes_and_pil_give_the_same(tmp_path, picture):
    path = tmp_path / "a b.png"
    picture.save(path)
    for source in (path, str(path), path.as_uri(), path.read_bytes(), picture):
        image = load_image(source)
        assert image.mode == "RGB"
        assert image_hash(image) == image_hash(picture)


def test_a_colon_in_a_file_name_is_no_scheme(tmp_path, picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture.save("scene:1.png")
    assert load_image("scene:1.png").size == (3, 2)


LOSSLESS = ["PNG", "BMP", "TIFF", "GIF", "PPM", "TGA", "PCX", "SGI", "DIB", "QOI"]
LOSSY = ["JPEG", "WEBP", "JPEG2000", "AVIF"]


@pytest.mark.parametrize("format", LOSSLESS + LOSSY)
def test_formats(tmp_path, format: str):
    module = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}.get(format)
    assert module is None or features.check(module), "this Pillow was built without the format"
    path = tmp_path / "image"
    Image.new("RGB", (32, 16), RED).save(path, format)
    image = load_image(path)
    assert image.size == (32, 16)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image, dtype=int) - RED).max() <= (0 if format in LOSSLESS else 12)


def test_every_exif_orientation_comes_out_upright(picture):
    """Orientation 6, say, is a camera held upright that stored its picture lying on the side."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation, stored_as in undo.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encoded(picture.transpose(stored_as), exif=exif)
        assert image_hash(load_image(stored)) == image_hash(picture), orientation


def test_transparency_is_laid_on_white():
    clear_red = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert load_image(encoded(clear_red)).getpixel((0, 0)) == WHITE
    half_black = Image.new("LA", (2, 2), (0, 51))
    assert load_image(encoded(half_black)).getpixel((0, 0)) == (204, 204, 204)

    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 255, 0, 255, 0, 0])
    assert load_image(encoded(palette)).getpixel((0, 0)) == RED
    assert load_image(encoded(palette, transparency=1)).getpixel((0, 0)) == WHITE
    assert load_image(encoded(Image.new("RGB", (2, 2), RED), transparency=RED)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.new("1", (2, 2), 1), 255),
        (Image.new("L", (2, 2), 7), 7),
        (Image.fromarray(np.full((2, 2), 257 * 9, dtype=np.uint16)), 9),
        (Image.fromarray(np.full((2, 2), 65535, dtype=np.int32)), 255),
        (Image.fromarray(np.full((2, 2), 0.2, dtype=np.float32)), 51),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_gray_of_any_depth_is_scaled_to_eight_bits(image: Image.Image, expected: int):
    """`Image.convert` alone clips all but the first 256 of 65,536 grays to white."""
    for source in (image, encoded(image, "TIFF")):
        assert load_image(source).getpixel((0, 0)) == (expected,) * 3


def test_cmyk():
    assert load_image(encoded(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF")).getpixel((0, 0)) == RED


def test_the_first_frame_of_an_animation_is_taken_and_said(tmp_path, caplog):
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.INFO, logger="limber_interp"):
        assert load_image(tmp_path / "a.gif").getpixel((0, 0)) == RED
    assert caplog.messages == [f"{tmp_path / 'a.gif'}: first of several frames"]


def test_the_hash_tells_pictures_apart(picture):
    assert image_hash(picture) == image_hash(picture.convert("RGBA"))
    assert image_hash(picture) != image_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert image_hash(Image.new("RGB", (2, 3))) != image_hash(Image.new("RGB", (3, 2)))


# ---- what is refused


def bomb(side: int) -> bytes:
    """A PNG that claims side x side pixels, in 65 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NOISE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an image"),
        (b"just text", "not an image"),
        (encoded(Image.fromarray(NOISE))[:4000], "broken or truncated image"),
        (encoded(Image.fromarray(NOISE), "JPEG")[:2000], "broken or truncated image"),
        (encoded(Image.fromarray(NOISE), "TIFF")[:3000], "not an image|broken or truncated image|cannot be read"),
        (bomb(20_000), "decompression bomb; scale it down first"),
        # Above Pillow's limit and below twice of it, where Pillow itself only warns
        (bomb(10_000), "decompression bomb; scale it down first"),
        (
            encoded(Image.fromarray(np.array([[0.0, 9.5]], dtype=np.float32)), "TIFF"),
            r"from 0 to 9.5: scale them to \[0, 1\]",
        ),
        (encoded(Image.fromarray(np.array([[0.0, np.nan]], dtype=np.float32)), "TIFF"), r"to nan: scale them"),
        (
            encoded(Image.fromarray(np.array([[-1, 3]], dtype=np.int32)), "TIFF"),
            r"from -1 to 3: scale them to \[0, 65535\]",
        ),
    ],
    ids=["empty", "text", "png", "jpeg", "tiff", "bomb", "warned bomb", "float", "nan", "negative"],
)
def test_bad_bytes(tmp_path, data: bytes, message: str):
    (tmp_path / "bad").write_bytes(data)
    for source in (data, tmp_path / "bad"):
        with pytest.raises(InputError, match=message) as caught:
            load_image(source)
        assert str(caught.value).startswith(str(source) if isinstance(source, Path) else f"<{len(data)} bytes>")
        assert "\n" not in str(caught.value)


def test_a_truncated_file_that_was_opened_lazily_elsewhere(tmp_path):
    (tmp_path / "torn.png").write_bytes(encoded(Image.fromarray(NOISE))[:4000])
    with Image.open(tmp_path / "torn.png") as lazy, pytest.raises(InputError, match="broken or truncated image"):
        load_image(lazy)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such.png", "no/such.png: no such image file"),
        ("", ": no such image file|not a file"),
        ("file:///no/such.png", "no such image file"),
        ("file://elsewhere/a.png", "names a file on this machine; found host 'elsewhere'"),
        ("ftp://host/a.png", "scheme 'ftp' is not supported"),
        ("data:image/png;base64,AAAA", "scheme 'data' is not supported"),
        ("data:image/png;base64," + "A" * 5000, "scheme 'data' is not supported"),
        ("http://", "cannot be fetched"),
        ("http://127.0.0.1:99999/a.png", "cannot be fetched"),
    ],
)
def test_bad_names(source: str, message: str):
    with pytest.raises(InputError, match=message):
        load_image(source)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        load_image(tmp_path)


# ---- URLs, from a server that behaves in every way it should not


class Server(QuietHandler):
    good = encoded(Image.new("RGB", (4, 4), RED))

    def do_GET(self) -> None:
        kind, _, argument = self.path.strip("/").partition("/")
        if kind == "good":
            self.answer(self.good)
        elif kind == "redirect":
            n = int(argument)
            self.answer(b"", 302, Location=f"/redirect/{n - 1}" if n > 1 else "/good")
        elif kind == "to":
            self.answer(b"", 302, Location={"ftp": "ftp://127.0.0.1/a.png", "file": "file:///etc/hostname"}[argument])
        elif kind == "short":
            self.answer(self.good, **{"Content-Length": str(len(self.good) + 10)})
        elif kind == "huge":
            self.answer(bytes(fetching.URL_MAX_BYTES + 1))
        elif kind == "text":
            self.answer(b"<html>not found</html>")
        elif kind == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.05)
        elif kind == "stall":
            time.sleep(60.0)  # in a thread that nobody waits for
        elif kind == "nonsense":
            self.wfile.write(b"not http at all\r\n\r\n")
        else:
            self.answer(b"gone", 404)


@pytest.fixture
def url(monkeypatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetching, "URL_TIMEOUT", 300.0)  # a busy machine may take long
    monkeypatch.setattr(fetching, "URL_MAX_BYTES", 2**20)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server, running(server):
        yield f"http://127.0.0.1:{server.server_address[1]}"


def test_a_url(url: str):
    assert load_image(f"{url}/good").getpixel((0, 0)) == RED
    assert load_image(f"{url}/redirect/{MAX_REDIRECTS}").getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("redirect/6", "answered 302 .*infinite loop"),
        ("to/ftp", "unknown url type: ftp"),
        ("to/file", "answered 302 .*not allowed"),
        ("short", "broke off after [0-9]+ of [0-9]+ bytes"),
        ("huge", "larger than 1 MiB"),
        ("text", "not an image"),
        ("drip", "not complete after 0.5 s"),
        ("stall", "cannot be fetched: .*timed out"),
        ("nonsense", "cannot be fetched"),
        ("missing", "the server answered 404"),
    ],
)
def test_bad_urls(url: str, path: str, message: str, monkeypatch):
    if path in ("drip", "stall"):
        monkeypatch.setattr(fetching, "URL_TIMEOUT", 0.5)
    with pytest.raises(InputError, match=message) as caught:
        load_image(f"{url}/{path}")
    assert str(caught.value).startswith(f"{url}/{path}: ")
