import io
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin, features

from limber_interp.errors import InputError
from limber_interp.evaluation.captions import captions
from limber_interp.images import describe, fetching, image_hash, load_image, opening
from limber_interp.probes import logit_lens, nearest_tokens
from limber_interp.urls import MAX_REDIRECTS
from limber_interp.urls import encoded as encoded_url
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


def test_a_url_as_a_browser_shows_it(url: str):
    """urllib refuses blanks and letters beyond ASCII, which people copy out of their address bar."""
    assert load_image(f"{url}/good/two words/caf\u00e9?size=100%25 wide").getpixel((0, 0)) == RED


def test_a_path_that_is_a_url(url: str):
    """In a prompt an image is a Path, and pathlib makes one slash of two."""
    assert load_image(Path(f"{url}/good")).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("shown", "asked"),
    [
        ("http://host/a b.png", "http://host/a%20b.png"),
        ("https://host:80/a%20b.png?q=1&r=%C3%A9#top", "https://host:80/a%20b.png?q=1&r=%C3%A9#top"),
        ("http://host/100%.png?x=5% off", "http://host/100%25.png?x=5%25%20off"),
        ("http://b\u00fccher.example:8080/caf\u00e9@2x.png", "http://xn--bcher-kva.example:8080/caf%C3%A9@2x.png"),
        ("http://me:p\u00e4ss@[::1]:80/a", "http://me:p%C3%A4ss@[::1]:80/a"),
        ("http:/host", "http:/host"),
    ],
)
def test_urls_are_asked_for_in_ascii(shown: str, asked: str):
    assert encoded_url(shown) == asked
    assert encoded_url(asked) == asked


# ---- what Pillow stumbles over


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_megabyte_of_metadata_is_no_obstacle(tmp_path, picture):
    """Pillow refuses such a PNG with a ValueError that names no file; drawing programs write their workflow so."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "n" * 1_150_000, zip=True)
    path = tmp_path / "much.png"
    picture.save(path, pnginfo=info)
    with pytest.raises(ValueError, match="Decompressed data too large"):
        Image.open(path).load()
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        assert image_hash(source) == image_hash(picture)


def test_an_orientation_beside_broken_exif_is_applied(picture):
    """A rational where none fits: Pillow's `exif_transpose` writes the EXIF anew, and fails on it."""
    stored = io.BytesIO()
    picture.resize((24, 16), Image.Resampling.NEAREST).transpose(Image.Transpose.ROTATE_90).save(stored, "JPEG")
    entries = [(0x112, 3, 1, struct.pack("<HH", 6, 0)), (0x128, 2, 4, b"abc\0")]
    ifd = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    ifd += b"".join(struct.pack("<HHI", tag, kind, n) + value for tag, kind, n, value in entries)
    exif = b"Exif\0\0" + ifd + struct.pack("<I", 0)
    jpeg = stored.getvalue()
    spoilt = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    with pytest.raises(Exception, match=r"int|str|bytes"):
        ImageOps.exif_transpose(Image.open(io.BytesIO(spoilt)))
    upright = load_image(spoilt)
    assert upright.size == (24, 16)
    close = np.abs(np.asarray(upright, dtype=int) - np.asarray(picture.resize((24, 16), Image.Resampling.NEAREST)))
    assert close.mean() < 40  # JPEG's; a picture turned wrongly has another size


def test_exif_that_cannot_be_read_leaves_the_picture_as_it_is(picture, caplog):
    caplog.set_level(logging.INFO, "limber_interp")
    png = encoded(picture)
    assert image_hash(png[:33] + chunk(b"eXIf", bytes([0, 8, 0, 2, 1, 18, 0, 3])) + png[33:]) == image_hash(picture)
    assert "its EXIF cannot be read, so it is taken for upright" in caplog.text


@pytest.mark.parametrize(
    ("depth", "colour_type", "pixels", "key", "expected"),
    [
        (16, 0, struct.pack(">2H", 1000, 40000), struct.pack(">H", 1000), (round(40000 / 257),) * 3),
        (2, 0, bytes([0b01_10_0000]), struct.pack(">H", 1), (170, 170, 170)),
        (4, 0, bytes([0x3_7]), struct.pack(">H", 3), (7 * 17,) * 3),
        (16, 2, struct.pack(">6H", 256, 512, 768, 65535, 0, 65535), struct.pack(">3H", 256, 512, 768), (255, 0, 255)),
    ],
    ids=["gray of 16 bits", "gray of 2 bits", "gray of 4 bits", "colours of 16 bits"],
)
def test_the_one_colour_that_is_transparent(depth, colour_type, pixels, key, expected):
    """Pillow leaves tRNS in the file's units, in which it matches no pixel that Pillow gives: all was opaque."""
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, depth, colour_type, 0, 0, 0))
    png += chunk(b"tRNS", key) + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")
    image = load_image(png)
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((1, 0)) == expected


def test_a_header_that_claims_much_gets_no_memory(tmp_path):
    """Pillow's JPEG 2000 asks a file for as many bytes as a box says it has: 200 GB here."""
    brand = struct.pack(">I4sI4s", 12, b"jP  ", 0x0D0A870A, b"")[:12]
    claimed = brand + struct.pack(">I4sQ", 1, b"jp2h", 200 * 2**30) + struct.pack(">I4sQ", 1, b"ihdr", 190 * 2**30)
    (tmp_path / "claims.jp2").write_bytes(claimed)
    with pytest.raises(InputError, match="claims.jp2: ") as caught:
        load_image(tmp_path / "claims.jp2")
    assert not isinstance(caught.value.__cause__, MemoryError)


def test_a_file_that_never_ends_is_refused(monkeypatch):
    """Also where its end cannot be asked for: an open device."""
    monkeypatch.setattr(opening, "MAX_BYTES", 2**20)
    with open("/dev/zero", "rb") as endless, pytest.raises(InputError, match="/dev/zero: larger than 1 MiB"):
        load_image(endless)


def test_a_phones_picture_where_its_package_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (32, 16), RED)).save(tmp_path / "a.heic")
    assert np.abs(np.asarray(load_image(tmp_path / "a.heic"), dtype=int) - RED).max() <= 12


def test_a_strip_is_refused_before_it_is_scaled_up(tmp_path):
    """Its short side scaled to an encoder's 384 pixels, 60,000 x 1 would take 3.5 GB."""
    path = tmp_path / "wide.png"
    Image.new("1", (60_000, 1)).save(path)
    with pytest.raises(InputError, match=r"wide\.png: of its 60000 x 1 pixels one side is more than 100 times"):
        load_image(path)
    assert load_image(Image.new("L", (500, 5))).size == (500, 5)


def test_bombs_are_refused_in_threads_too():
    """Filters of warnings belong to all threads: while one thread leaves its own, another's bomb passed."""
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)  # above Pillow's limit, below twice of it
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    good = encoded(Image.new("RGB", (2, 2), RED))

    def outcome(data: bytes) -> str:
        try:
            load_image(data)
        except InputError as error:
            return str(error)
        return "opened"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(outcome, [bomb, good] * 300))
    assert all("refused as a decompression bomb; scale it down" in said for said in outcomes[::2])
    assert set(outcomes[1::2]) == {"opened"}


NO_IMAGES = {
    "empty": (b"", "not an image: it is empty"),
    "page": (b"<!DOCTYPE html><html></html>", "not an image, but a web page"),
    "drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "perhaps SVG; export it as PNG"),
    "heic": (
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "pip install pillow-heif, or save it as JPEG|HEIC, but a broken one",
    ),
    "wmf": (b"\xd7\xcd\xc6\x9a\0\0" + bytes(60), "not an image that is opened here: WMF; save it as PNG"),
    "postscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
        "not an image that is opened here: PostScript",
    ),
    "dds": (b"DDS " + struct.pack("<I", 124) + bytes(120), "DDS|image"),
    "ppm": (b"P6\n2 x\n255\n", "image"),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20), "image"),
    "png": (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0" * 5), "image"),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_one_line_that_names_it(tmp_path, name: str):
    content, message = NO_IMAGES[name]
    path = tmp_path / name
    path.write_bytes(content)
    for source in (path, content, io.BytesIO(content)):
        with pytest.raises(InputError, match=message) as caught:
            load_image(source)
        assert str(caught.value).startswith(f"{describe(source)}: ")


def test_no_file_is_read_that_may_never_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match=f"{path}: not a file"):
            load_image(path)
    with pytest.raises(InputError, match="no such image file"):
        load_image("a\0b")


@pytest.mark.parametrize("format", [*LOSSLESS, *LOSSY, "ICO", "ICNS", "DDS"])
def test_a_damaged_file_is_opened_or_refused(format: str):
    """A hundred files of each format with bytes changed, cut or left out: Pillow's readers raise nearly anything."""
    random = np.random.default_rng(0)
    whole = encoded(Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)), format)
    refused = []
    for _ in range(100):
        data = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            data[random.integers(min(len(data), 200))] = random.integers(256)
        if random.random() < 0.3:
            del data[random.integers(len(data)) :]
        try:
            assert load_image(bytes(data)).mode == "RGB"
        except InputError as error:
            refused.append(str(error))
    assert refused
    assert all("\n" not in line and line.startswith("<") for line in refused)


# ---- arrays and open files


@pytest.mark.parametrize(
    "array",
    [
        lambda pixels: pixels,
        lambda pixels: np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
        lambda pixels: pixels / 255,
        lambda pixels: (pixels / 255).astype(np.float32),
        lambda pixels: pixels[::-1][::-1],
    ],
    ids=["uint8", "with alpha", "float64", "float32", "a view"],
)
def test_an_array_is_an_image(picture, array):
    assert image_hash(array(np.asarray(picture))) == image_hash(picture)
    gray = np.asarray(picture)[..., 0]
    assert np.array_equal(np.asarray(load_image(gray)), np.dstack([gray] * 3))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), r"<uint8 array, 2 x 4 x 4 x 3>: a batch is a list of images"),
        (np.zeros((3, 8, 8), np.uint8), r"np\.moveaxis\(array, 0, -1\) puts the channels last"),
        (np.zeros((4, 4, 3), np.int64), r"<int64 array, 4 x 4 x 3>: expected \(height, width\)"),
        (np.zeros((0, 4, 3), np.uint8), r"expected \(height, width\)"),
        (np.full((4, 4), 200.0), r"floats from 200 to 200: scale them to \[0, 1\]"),
        (np.full((4, 4), np.nan), "floats from nan to nan"),
        (np.array(["a.png"]), "expected"),
    ],
)
def test_an_array_that_is_no_image_is_refused(array: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        load_image(array)


def test_an_open_file_is_read_from_its_start_each_time(tmp_path, picture):
    path = tmp_path / "a.png"
    picture.save(path)
    with path.open("rb") as file:
        for _ in range(2):
            assert image_hash(file) == image_hash(picture)
    with path.open(encoding="latin-1") as text, pytest.raises(InputError, match=r"open it with mode 'rb'"):
        load_image(text)


def test_every_function_takes_every_kind_of_image(tiny, images, tmp_path):
    """An array has a length and can be iterated over, as a list of images can; an open file too."""
    images[0].save(tmp_path / "a.png")
    array, file = np.asarray(images[0]), io.BytesIO((tmp_path / "a.png").read_bytes())
    functions = {
        "soft_prompt": lambda image: tiny.soft_prompt(image).tolist(),
        "caption": lambda image: [tiny.caption(image, max_new_tokens=3)],
        "embed": lambda image: tiny.embed([image, "A picture of"]).residual.tolist(),
        "nearest_tokens": lambda image: nearest_tokens(tiny, image, controls="none").images[0].token_ids.tolist(),
        "logit_lens": lambda image: logit_lens(tiny, image, controls="none").images[0].reading.token_ids.tolist(),
        "captions": lambda image: captions(tiny, [image], max_new_tokens=3).images[0].logprob_no_image,
        "manifest": lambda image: list(tiny.manifest(images=[image]).images.values()),
    }
    for name, function in functions.items():
        expected = function(images[0])
        for image in (array, file, tmp_path / "a.png"):
            assert function(image) == expected, name
    assert len(tiny.caption([array, file], max_new_tokens=3)) == 2
