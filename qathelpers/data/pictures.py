"""Read picture files from phones, cameras and the web the way a viewer shows them."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.functional import pil_to_tensor

from ..common.errors import CourseError, check_type, check_whole, is_out_of_memory
from ..common.files import unreadable
from .batches import CHANNELS

# The formats that are read. Pillow knows more, but for some of them, such as PostScript, it starts other programs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
EXTENSIONS = {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
# Pictures in other formats. A folder that contains them is refused, so that no picture is left out unnoticed.
OTHER_EXTENSIONS = {
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".svg", ".ico", ".psd", ".tga", ".ppm", ".pgm", ".eps", ".pdf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
# Files and folders that operating systems and file managers leave behind, in lower case; hidden ones begin with a dot.
STRAY_NAMES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}

MAX_PIXELS = 8192 * 6144  # the photos of a 50-megapixel camera; larger ones would take more than 2 s and 400 MB
MAX_RATIO = 10  # of the longer to the shorter side; of a longer strip, the central square shows next to nothing
WHOLE = 256  # pixels of the longer side of a picture that is only looked at
WHITE = (255, 255, 255, 255)
SAVE_AS = "open it in an image viewer and save it as PNG or JPEG"

# What the first bytes of a file say about its format: offset, bytes, name of the format.
SIGNATURES = [
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
]
OTHER_SIGNATURES = [
    (4, b"ftypavi", "an AVIF picture"),
    (4, b"ftyphei", "a HEIC picture"),
    (4, b"ftyphev", "a HEIC picture"),
    (4, b"ftypmif", "a HEIC picture"),
    (4, b"ftypmsf", "a HEIC picture"),
    (4, b"ftyp", "a video"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"%PDF", "a PDF document"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon"),
]


def read_picture(
    source: str | os.PathLike | bytes, size: int | None = None, *, name: str | None = None, channels: int = 3
) -> torch.Tensor:
    """Read a PNG, JPEG, GIF, WebP, BMP or TIFF file as a viewer shows it.

    The orientation that a phone or camera noted in the file is applied. Of an animation or a file with several pages,
    the first picture is read. Transparent parts become white. Grey pictures get three equal channels, unless `channels`
    is 1. 16-bit values are divided by 257, so that 65535 becomes 255. Colour profiles are ignored, and CMYK is
    converted without one.

    Args:
        source: The path or the content of a file.
        size: Crop the picture to the largest centred square and resize it to this height and width in pixels
            (bilinear, with antialiasing); None keeps the whole picture.
        name: What error messages call the file; by default its path.
        channels: 3 for an RGB image, 1 for a grey one (the luma of ITU-R BT.601).

    Returns:
        Uint8 (channels, height, width), from 0 to 255.

    Raises:
        CourseError: If the file cannot be read, is not a picture, is damaged or incomplete, stores floating-point or
            32-bit values (their range is not defined), has more than 50 megapixels, or is to be cropped although
            one side is more than 10 times as long as the other.
        ValueError: If `size` is not a whole number of at least 1, or if `channels` is neither 1 nor 3.
    """
    with _opened(source, size, name, channels) as image:
        return _as_tensor(image if size is None else _cropped(image, size), channels)


def read_with_whole(
    source: str | os.PathLike | bytes, size: int, *, name: str | None = None, channels: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Read a picture as `read_picture` does, and also return all of it, so that the crop can be shown.

    Args:
        source: The path or the content of a file.
        size: Height and width of the cropped picture in pixels.
        name: What error messages call the file; by default its path.
        channels: 3 for an RGB image, 1 for a grey one.

    Returns:
        What `read_picture` returns for `size`; and the whole picture, uint8 (channels, height, width), whose longer
        side has at most `WHOLE` pixels.

    Raises:
        CourseError: In the cases that `read_picture` names.
        ValueError: If `size` is not a whole number of at least 1, or if `channels` is neither 1 nor 3.
    """
    with _opened(source, size, name, channels) as image:
        square = _as_tensor(_cropped(image, size), channels)
        image.thumbnail((WHOLE, WHOLE))
        return square, _as_tensor(image, channels)


@contextlib.contextmanager
def _opened(
    source: str | os.PathLike | bytes, size: int | None, name: str | None, channels: int
) -> Iterator[Image.Image]:
    """Check the arguments of `read_picture` and decode the picture, in mode RGB or RGBA."""
    check_channels(channels)
    if size is not None:
        check_whole("size", size, 1)
    is_content = isinstance(source, bytes | bytearray | memoryview)
    if not is_content:
        check_type("source", source, (str, os.PathLike), "the path of a picture file, or its content as bytes")
    name = name or ("The picture" if is_content else str(source))
    with contextlib.closing(io.BytesIO(source) if is_content else _open(source, name)) as file:
        head = file.read(32)
        file.seek(0)
        if not head:
            raise CourseError(f"{name} is empty (0 bytes): copy or download it again.")
        with _refusing(name, head), Image.open(file, formats=FORMATS) as image:
            _check_shape(image, size, name)
            yield _decode(image, size, name)


def _cropped(image: Image.Image, size: int) -> Image.Image:
    return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)


def check_channels(channels: int) -> None:
    """Check that images can have this number of channels.

    Raises:
        ValueError: If they cannot.
    """
    if isinstance(channels, bool) or channels not in CHANNELS:
        raise ValueError(f"channels must be 1 (grey) or 3 (RGB); got {channels!r}")


def is_stray(name: str) -> bool:
    """Return whether a file or folder is hidden, or left behind by an operating system or a file manager.

    Examples are .DS_Store, ._1.png, Thumbs.db, desktop.ini and __MACOSX.
    """
    return name.startswith(".") or name.lower() in STRAY_NAMES


def is_picture_name(path: PurePath) -> bool:
    """Return whether a file is a picture by its extension (.png, .JPG, ...), and not a stray file."""
    return not is_stray(path.name) and path.suffix.lower() in EXTENSIONS


def _open(path: str | os.PathLike, name: str) -> BinaryIO:
    path = Path(path)
    try:
        if path.is_dir():
            raise CourseError(f"{name} is a folder: pass the path of a picture, or read a folder with from_folder.")
        if path.exists() and not path.is_file():  # reading from a pipe or a device could take forever
            raise CourseError(f"{name} is not a regular file: pass the path of a picture.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise CourseError(f"{name} does not exist: check the path.") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f"{name} cannot be opened ({reason}): check its path and its permissions.") from error


@contextlib.contextmanager
def _refusing(name: str, head: bytes) -> Iterator[None]:
    """Turn Pillow's exceptions into sentences; hide its warnings, which address programmers."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CourseError:
        raise
    except Image.DecompressionBombError as error:
        raise CourseError(f"{name} has {_too_many_pixels()}") from error
    except Exception as error:  # a damaged picture can raise almost any exception
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(Path(name), error) from error
        raise CourseError(f"{name} {_why_not(head, error)}") from error


def _why_not(head: bytes, error: Exception) -> str:
    kind, other = _signature(head, SIGNATURES), _signature(head, OTHER_SIGNATURES)
    if is_out_of_memory(error):
        return "does not fit into the memory of this machine: save a smaller copy."
    if "MAX_TEXT" in str(error):
        return f"contains compressed text of more than a megabyte, which is not unpacked: {SAVE_AS}."
    if kind and isinstance(error, UnidentifiedImageError):
        return f"is a damaged {kind} file, or a kind of {kind} that cannot be read: {SAVE_AS}."
    if kind:
        return f"is a damaged or incomplete {kind} file ({error}): copy or download it again, or {SAVE_AS}."
    if other:
        return f"is {other} and cannot be read: {SAVE_AS}."
    return "is not a picture in a format that can be read (PNG, JPEG, GIF, WebP, BMP or TIFF): choose another file."


def _signature(head: bytes, signatures: list[tuple[int, bytes, str]]) -> str:
    return next((kind for offset, start, kind in signatures if head[offset:].startswith(start)), "")


def _check_shape(image: Image.Image, size: int | None, name: str) -> None:
    """Check the size that the header states, before any memory is taken for the pixels."""
    width, height = image.size
    if min(width, height) < 1:
        raise CourseError(f"{name} has no pixels ({width} x {height}): {SAVE_AS}.")
    if width * height > MAX_PIXELS:
        raise CourseError(f"{name} has {width:,} x {height:,} pixels, {_too_many_pixels()}")
    if size is not None and max(width, height) > MAX_RATIO * min(width, height):
        raise CourseError(
            f"{name} has {width:,} x {height:,} pixels, and the central square would show less than a tenth of it: "
            "crop it by hand."
        )


def _too_many_pixels() -> str:
    return f"more than {MAX_PIXELS // 10**6} megapixels: save a smaller copy."


def _decode(image: Image.Image, size: int | None, name: str) -> Image.Image:
    if size is not None and image.format in ("JPEG", "MPO"):
        # A JPEG decoder can halve the resolution up to three times, which makes large photos much faster to read.
        image.draft(None, (4 * size, 4 * size))
    covered = image.tile[0][1] if image.format == "GIF" and image.tile else None
    packing = str(image.tile[0][3]) if image.tile else ""  # how the file stores its pixels, such as "L;4" for 4 bits
    image.load()
    image = _in_8_bits(ImageOps.exif_transpose(image), packing, image, name)
    if covered and tuple(covered) != (0, 0, *image.size):  # what the first picture of a GIF leaves out is transparent
        part, image = image.crop(covered), Image.new("RGBA", image.size, WHITE)
        image.paste(part, covered[:2])
    return image


def _as_tensor(image: Image.Image, channels: int) -> torch.Tensor:
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return pil_to_tensor(image if channels == 3 else image.convert("L")).contiguous()


def _in_8_bits(image: Image.Image, packing: str, file: Image.Image, name: str) -> Image.Image:
    """Return `image` in mode RGB or, if parts of it are transparent, RGBA.

    Args:
        image: The decoded picture.
        packing: How the file stores its pixels, in Pillow's notation.
        file: The picture as it was opened, with what the file says about itself.
        name: What error messages call the file.
    """
    if image.mode == "F" or (image.mode == "I" and file.format != "PNG"):
        kind = "floating-point values" if image.mode == "F" else "32-bit or signed values"
        raise CourseError(
            f"{name} stores {kind}, and their range from black to white is not defined: save it with 8 or 16 bits per "
            "channel."
        )
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bits(image, file)
    if image.mode == "La":  # grey, already multiplied by its transparency
        image = image.convert("LA")
    if "transparency" not in image.info and not image.mode.endswith(("A", "a")):
        return image.convert("RGB")
    transparent = image.info.get("transparency")  # a colour, as it is stored in the file
    if image.mode == "L" and isinstance(transparent, int):
        image.info["transparency"] = transparent * {"L;2": 85, "L;4": 17}.get(packing, 1)
    elif image.mode == "RGB" and packing.startswith("RGB;16"):
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image.convert("RGBA")


def _from_16_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    tags = getattr(file, "tag_v2", {})  # of a TIFF file
    bits, white_is_zero = tags.get(258, (16,))[0], tags.get(262) == 0
    values = np.asarray(image)
    table = np.minimum(np.round(np.arange(2**16) * (255 / (2**bits - 1))), 255).astype(np.uint8)
    grey = Image.fromarray((255 - table if white_is_zero else table)[values]).convert("RGB")
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey
