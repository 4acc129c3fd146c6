"""What Pillow leaves to others in PNG files: much metadata, and the one colour that stands for transparent."""

from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Those that Pillow unpacks, and which are no pixels; kept are the two that may say which side is up
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")
ORIENTING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def without_texts(content: bytes) -> bytes | None:
    """A PNG file without its texts and its colour profile; None if it is none, or has neither."""
    if not content.startswith(SIGNATURE):
        return None
    lean, dropped = [SIGNATURE], False
    for kind, chunk in _chunks(content):
        if kind in TEXTS and not chunk[8:].startswith(ORIENTING):
            dropped = True
        else:
            lean.append(chunk)
    return b"".join(lean) if dropped else None


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, the whole chunk) of each; of a truncated file the last one is not whole."""
    place = len(SIGNATURE)
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big") + 12  # with length, kind and checksum
        yield content[place + 4 : place + 8], content[place : place + length]
        place += length


@dataclass(frozen=True)
class ColourKey:
    """The gray or colour that a PNG without alpha names as transparent, in the units in which Pillow gives its pixels.

    Pillow leaves it in those of the file: of gray in 2 or 4 bits, and of colours in 16, it would match no pixel.
    """

    value: int | tuple[int, ...]

    @classmethod
    def of(cls, image: Image.Image) -> "ColourKey | None":
        """Of an image whose pixels have not been read yet: afterwards Pillow no longer knows how they were stored."""
        value, tiles = image.info.get("transparency"), getattr(image, "tile", None)
        match image.mode, tiles[0][3] if tiles else None, value:
            case "I;16", _, int():
                return cls(value)
            case "L", "L;2", 1 | 2 | 3:
                return cls(value * 85)
            case "L", "L;4", int() if value < 16:
                return cls(value * 17)
            case "RGB", "RGB;16B", tuple():  # Pillow keeps the upper eight bits
                return cls(tuple(channel >> 8 for channel in value))
        return None

    def laid_into(self, image: Image.Image) -> Image.Image:
        """The image as Pillow should have described it."""
        image = image.copy()
        image.info["transparency"] = self.value
        return image
