"""Picture files as phones, cameras, scanners and the web make them."""

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qathelpers.common.errors import CourseError
from qathelpers.data import read_picture, read_with_whole
from qathelpers.data.pictures import MAX_PIXELS, is_picture_name, is_stray

RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
RGB = Image.fromarray(np.stack([RAMP, RAMP.T, 255 - RAMP], -1))
GREY = Image.fromarray(RAMP)
DEEP = Image.fromarray(RAMP.astype(np.uint16) * 257)
WHITE, RED, GREEN = (255, 255, 255), (255, 0, 0), (0, 128, 0)


def content(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(image):
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def error_of(seen, expected):
    return (seen.int() - expected.int()).abs().max().item()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width, height, rows, depth=8, colour=2, extra=b""):
    """Return a .png file with these bytes as its rows, each after a filter byte of 0."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + extra + body


def raw_tiff(rows, bits, photometric, width, height, sample_format=1):
    entries = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 200), (277, 1)]
    entries += [(278, height), (279, len(rows)), (339, sample_format)]
    ifd = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHIHxx", tag, 3, 1, v) for tag, v in entries)
    return (b"II*\0" + struct.pack("<I", 8) + ifd + bytes(4)).ljust(200, b"\0") + rows


def corner_picture(mode="RGB"):
    """Return a picture of which every turned or flipped version is different."""
    image = Image.new("RGB", (48, 32), WHITE)
    image.paste(RED, (0, 0, 24, 16))
    image.paste(GREEN, (24, 16, 48, 32))
    image.paste((0, 0, 255), (0, 16, 24, 32))
    return image.convert(mode)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_are_read_exactly(tmp_path, kind):
    data = content(RGB, kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "x").write_bytes(data)
    for source in (data, bytearray(data), memoryview(data), tmp_path / "x", str(tmp_path / "x")):
        assert torch.equal(read_picture(source), pixels(RGB))


INVERTED = raw_tiff((RAMP.astype("<u2") * 257).tobytes(), 16, 0, 64, 64)
TWELVE_BITS = raw_tiff(b"\xff\xf8\x00" * 2, 12, 1, 2, 2)
DEEP_RGB = raw_png(2, 1, [bytes([200, 0, 100, 255, 0, 0, 1, 0, 2, 0, 3, 0])], 16)
FEW = RGB.quantize(256)


def small(*rows):
    return Image.fromarray(np.array(rows, np.uint8))


# What the file is, its content, the picture that a viewer shows, the largest difference.
FAITHFUL = [
    ("JPEG", content(RGB, "JPEG", quality=95), RGB, 8),
    ("CMYK JPEG", content(RGB.convert("CMYK"), "JPEG", quality=95), RGB, 8),
    ("CMYK TIFF", content(RGB.convert("CMYK"), "TIFF"), RGB, 1),
    ("YCbCr TIFF", content(RGB.convert("YCbCr"), "TIFF"), RGB, 3),
    ("progressive JPEG", content(RGB, "JPEG", quality=95, progressive=True), RGB, 8),
    ("8-bit grey", content(GREY), GREY, 0),
    ("16-bit grey PNG", content(DEEP), GREY, 0),
    ("16-bit grey TIFF", content(DEEP, "TIFF"), GREY, 0),
    ("compressed 16-bit grey TIFF", content(DEEP, "TIFF", compression="tiff_deflate"), GREY, 0),
    ("inverted 16-bit TIFF", INVERTED, Image.eval(GREY, lambda v: 255 - v), 0),
    ("12-bit TIFF", TWELVE_BITS, small([255, 128], [255, 128]), 0),
    ("16-bit RGB PNG", DEEP_RGB, small([[200, 100, 0], [1, 2, 3]]), 0),
    ("grey and alpha", content(GREY.convert("LA")), GREY, 0),
    ("palette", content(FEW), FEW, 0),
    ("1 bit", content(GREY.convert("1")), GREY.convert("1"), 0),
    ("LZW TIFF", content(RGB, "TIFF", compression="tiff_lzw"), RGB, 0),
    ("several TIFF pages", content(RGB, "TIFF", save_all=True, append_images=[GREY.convert("RGB")]), RGB, 0),
    ("animated GIF", content(FEW, "GIF", save_all=True, append_images=[FEW.rotate(90)]), FEW, 0),
    ("animated WebP", content(RGB, "WEBP", save_all=True, lossless=True, append_images=[RGB.rotate(90)]), RGB, 0),
    ("animated PNG", content(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]), RGB, 0),
    ("multi-picture JPEG", content(RGB, "MPO", save_all=True, quality=95, append_images=[RGB.rotate(90)]), RGB, 8),
    ("premultiplied alpha", content(corner_picture("RGBA"), "TIFF"), corner_picture(), 0),
]


@pytest.mark.parametrize(
    ("data", "shown", "tolerance"), [row[1:] for row in FAITHFUL], ids=[row[0] for row in FAITHFUL]
)
def test_a_picture_looks_as_in_a_viewer(data, shown, tolerance):
    assert error_of(read_picture(data), pixels(shown)) <= tolerance


def on_white(image):
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def cut_out(colour):
    image = Image.new("RGBA", (64, 64), (*colour, 0))
    image.paste((*GREEN, 255), (16, 16, 48, 48))
    image.paste((*RED, 128), (48, 48, 56, 56))
    return image


PALETTE = RGB.convert("P")
PALETTE.info["transparency"] = bytes(range(256))


def one_colour_transparent(depth, colour, values, transparent):
    """Return a picture in which each value is a pixel, and that pixel's colour in a viewer."""
    packed = int("".join(f"{v:0{depth}b}" for v in values), 2) << (-len(values) * depth % 8)
    row = packed.to_bytes(-(-len(values) * depth // 8), "big")
    trns = b"".join(struct.pack(">H", v) for v in transparent)
    width = len(values) // (3 if colour == 2 else 1)
    return raw_png(width, 1, [row], depth, colour, chunk(b"tRNS", trns))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("under", [(255, 0, 255), (0, 0, 0), WHITE])
def test_transparent_parts_are_white_whatever_is_under_them(kind, under):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = content(cut_out(under), kind, **options)
    assert error_of(read_picture(data), pixels(on_white(cut_out(WHITE)))) <= 1
    resized = on_white(cut_out(WHITE)).resize((16, 16), Image.Resampling.BILINEAR)
    assert error_of(read_picture(data, 16), pixels(resized)) <= 3


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (one_colour_transparent(1, 0, [0, 1, 0], [0]), [255, 255, 255]),
        (one_colour_transparent(1, 0, [0, 1, 0], [1]), [0, 255, 0]),
        (one_colour_transparent(2, 0, [0, 1, 2], [1]), [0, 255, 170]),
        (one_colour_transparent(4, 0, [0, 5, 10], [10]), [0, 85, 255]),
        (one_colour_transparent(8, 0, [0, 5, 10], [5]), [0, 255, 10]),
        (one_colour_transparent(16, 0, [0, 1285, 2570], [1285]), [0, 255, 10]),
        (one_colour_transparent(8, 2, [5, 5, 5, 7, 7, 7], [5, 5, 5]), [255, 7]),
        (one_colour_transparent(16, 2, [1285] * 3 + [1799] * 3, [1285] * 3), [255, 7]),
        (one_colour_transparent(16, 2, [1280] * 3 + [51200] * 3, [200] * 3), [5, 200]),
    ],
)
def test_a_transparent_colour_of_a_png(data, row):
    assert read_picture(data)[:, 0].tolist() == [row] * 3


def test_transparent_palettes():
    assert error_of(read_picture(content(PALETTE)), pixels(on_white(PALETTE))) <= 1
    gif = cut_out(WHITE).convert("P")
    data = content(gif, "GIF", transparency=gif.getpixel((0, 0)))
    assert read_picture(data)[:, 0, 0].tolist() == list(WHITE)


def test_what_the_first_picture_of_a_gif_leaves_out_is_white():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *GREEN])
    data = bytearray(content(image, "GIF"))
    data[6:10] = struct.pack("<HH", 8, 6)  # the size of the whole picture
    seen = read_picture(data)
    assert seen.shape == (3, 6, 8) and seen[:, 3, 3].tolist() == list(GREEN) and seen[:, 0, 0].tolist() == list(GREEN)
    assert seen[:, 4:].min() == 255 and seen[:, :, 4:].min() == 255


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_noted_is_applied(kind, orientation):
    turn = {
        **dict(enumerate([None, None, *(getattr(Image.Transpose, n) for n in ("FLIP_LEFT_RIGHT", "ROTATE_180"))])),
        **dict(enumerate([getattr(Image.Transpose, n) for n in ("FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270")], 4)),
        **dict(enumerate([getattr(Image.Transpose, n) for n in ("TRANSVERSE", "ROTATE_90")], 7)),
    }[orientation]
    tag = Image.Exif()
    tag[0x112] = orientation
    expected = corner_picture() if turn is None else corner_picture().transpose(turn)
    lossless = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = content(corner_picture(), kind, exif=tag, **lossless)
    assert error_of(read_picture(data), pixels(expected)) <= (4 if kind == "JPEG" else 0)
    square = expected.crop((8, 0, 40, 32) if expected.width == 48 else (0, 8, 32, 40))
    assert error_of(read_picture(data, 32), pixels(square)) <= (4 if kind == "JPEG" else 0)


def test_damaged_orientation_is_ignored():
    assert error_of(read_picture(content(RGB, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05")), pixels(RGB)) < 16


HEADER = raw_png(64, 64, [b""])
BOMB = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 80_000_000))

EMPTY_BMP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0)

# What the file is, its content, what the sentence says.
REFUSED = [
    ("empty", b"", "is empty"),
    ("text", b"hello", "is not a picture.*PNG, JPEG, GIF, WebP, BMP or TIFF"),
    ("one byte", b"\x89", "is not a picture"),
    ("zeros", bytes(1000), "is not a picture"),
    ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG.*PNG or JPEG"),
    ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC.*PNG or JPEG"),
    ("video", b"\0\0\0\x18ftypmp42" + bytes(100), "a video"),
    ("EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n", "PostScript"),
    ("PDF", b"%PDF-1.4", "PDF"),
    ("icon", content(RGB, "ICO"), "icon"),
    ("PPM, which is not in the list", content(RGB, "PPM"), "is not a picture in a format"),
    ("float TIFF", content(Image.fromarray(RAMP.astype(np.float32) / 255), "TIFF"), "floating-point"),
    ("32-bit TIFF", content(Image.fromarray(RAMP.astype(np.int32)), "TIFF"), "32-bit"),
    ("signed TIFF", raw_tiff(bytes(8), 16, 1, 2, 2, sample_format=2), "signed"),
    ("400 megapixels", raw_png(20_000, 20_000, []), "50 megapixels"),
    ("126 megapixels", raw_png(14_000, 9_000, []), "14,000 x 9,000.*50 megapixels"),
    ("51 megapixels", raw_png(1, MAX_PIXELS + 1, []), "50 megapixels"),
    ("header only", HEADER[:33], "PNG"),
    ("no pixels in a PNG", raw_png(0, 4, []), "PNG"),
    ("no pixels in a BMP", EMPTY_BMP, "BMP"),
    ("no rows", HEADER, "PNG"),
    ("short header", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(3)), "damaged.*PNG"),
    ("odd transparency", raw_png(4, 4, [bytes(12)] * 4, extra=chunk(b"tRNS", b"\1\2\3")), "damaged.*PNG"),
    ("text bomb", raw_png(4, 4, [bytes(12)] * 4, extra=BOMB), "compressed text"),
    ("half a PNG", content(RGB)[:100], "incomplete PNG"),
    ("half a JPEG", content(RGB, "JPEG")[:800], "incomplete JPEG"),
    ("half a GIF", content(RGB, "GIF")[:2000], "GIF"),
    ("half a BMP", content(RGB, "BMP")[:2000], "BMP"),
    ("half a WebP", content(RGB, "WEBP")[:200], "WebP"),
    ("half a TIFF", content(RGB, "TIFF", compression="tiff_lzw")[:2000], "TIFF"),
]


@pytest.mark.parametrize(("data", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_other_files_are_refused_in_a_sentence(tmp_path, data, reason, recwarn):
    path = tmp_path / "mine.png"
    path.write_bytes(data)
    with pytest.raises(CourseError, match=rf"(?s)mine\.png .*{reason}") as of_file:
        read_picture(path, 32)
    assert str(of_file.value).endswith(".") and "\n" not in str(of_file.value)
    with pytest.raises(CourseError, match=f"^The picture .*{reason}"):
        read_picture(data)
    with pytest.raises(CourseError, match=r"^a name "):
        read_picture(data, name="a name")
    assert not recwarn.list


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(CourseError, match=r"absent\.png does not exist"):
        read_picture(tmp_path / "absent.png")
    with pytest.raises(CourseError, match=r"is a folder"):
        read_picture(tmp_path)
    with pytest.raises(CourseError, match=r"cannot be opened"):
        read_picture("a\0b")
    with pytest.raises(CourseError, match=r"xxx.* cannot be opened"):
        read_picture(tmp_path / ("x" * 300))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CourseError, match=r"not a regular file"):
        read_picture(tmp_path / "pipe")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@settings(max_examples=60, deadline=None)
@given(keep=st.floats(0, 0.9999))
def test_a_cut_off_file_is_refused_or_shown_completely(kind, keep):
    data = content(RGB, kind)
    whole = read_picture(data)
    try:
        assert torch.equal(read_picture(data[: int(len(data) * keep)]), whole)
    except CourseError as error:
        assert str(error).startswith("The picture ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
@settings(max_examples=150, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), size=st.sampled_from([None, 8]))
def test_a_changed_byte_raises_nothing_else(kind, place, value, size):
    data = bytearray(content(RGB, kind))
    data[int(place * len(data))] ^= value
    try:
        image = read_picture(data, size)
        assert image.dtype == torch.uint8 and image.shape[0] == 3
    except CourseError:
        pass


MODES = {"1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "PNG", "RGBA": "PNG", "I;16": "PNG", "CMYK": "TIFF"}


@settings(max_examples=200, deadline=None)
@given(
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    mode=st.sampled_from(sorted(MODES)),
    size=st.none() | st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_every_size_and_mode(width, height, mode, size, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise[..., :3]).convert(mode)
    data = content(image, MODES[mode])
    if size and max(width, height) > 10 * min(width, height):
        with pytest.raises(CourseError, match="crop it by hand"):
            read_picture(data, size)
        return
    seen = read_picture(data, size)
    assert seen.shape == (3, size or height, size or width) and seen.dtype == torch.uint8 and seen.is_contiguous()
    if not size or width == height == size:
        shown = Image.fromarray(noise[..., 0]) if mode == "I;16" else on_white(image)
        assert error_of(seen, pixels(shown)) <= 1


def test_the_largest_centred_square_is_resized_with_antialiasing():
    wide = Image.new("RGB", (96, 32), RED)
    wide.paste(WHITE, (32, 0, 64, 32))
    assert torch.equal(read_picture(content(wide), 32), pixels(Image.new("RGB", (32, 32), WHITE)))
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 255
    inside = read_picture(content(Image.fromarray(stripes)), 16)[:, 2:-2, 2:-2]
    assert inside.min() > 120 and inside.max() < 136
    assert read_picture(content(Image.new("RGB", (1, 1), RED)), 32).float().mean((1, 2)).tolist() == [255, 0, 0]
    for wrong in (0, -1, 2.5, "32"):
        with pytest.raises(ValueError, match=r"size.*whole number"):
            read_picture(content(wide), wrong)


def test_large_photos_are_read_quickly():
    large = Image.new("RGB", (8192, 6144), RED)
    large.paste(GREEN, (1024, 0, 4096, 6144))
    for kind, options in (("JPEG", {"quality": 90}), ("PNG", {"compress_level": 1})):
        data = content(large, kind, **options)
        start = time.perf_counter()
        image = read_picture(data, 32)
        assert time.perf_counter() - start < 5  # 2 s on a machine with nothing else to do
        assert error_of(image[:, 16, [2, 29]], torch.tensor([GREEN, RED]).T) <= 3
    reference = read_picture(content(large.resize((2048, 1536)), "PNG", compress_level=1), 32)
    assert error_of(read_picture(content(large, "JPEG"), 32), reference) <= 6


@pytest.mark.parametrize(
    ("name", "stray", "picture"),
    [
        ("a.png", False, True),
        ("a.PNG", False, True),
        ("a.Jpg", False, True),
        ("a.jpeg", False, True),
        ("a.WebP", False, True),
        ("a.tiff", False, True),
        ("a.txt", False, False),
        ("png", False, False),
        ("._a.png", True, False),
        (".DS_Store", True, False),
        (".hidden.jpg", True, False),
        ("Thumbs.db", True, False),
        ("desktop.ini", True, False),
        ("__MACOSX", True, False),
    ],
)
def test_what_the_name_of_a_file_says(tmp_path, name, stray, picture):
    assert is_stray(name) == stray and is_picture_name(tmp_path / name) == picture


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA"])
def test_pictures_are_read_in_grey(mode):
    colour = read_picture(content(GREY.convert(mode)))
    grey = read_picture(content(GREY.convert(mode)), channels=1)
    assert grey.shape == (1, *colour.shape[1:]) and torch.equal(grey.expand(3, -1, -1), colour)
    assert read_picture(content(GREY.convert(mode)), 8, channels=1).shape == (1, 8, 8)
    with pytest.raises(ValueError, match=r"channels.*2"):
        read_picture(content(GREY), channels=2)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("size", "whole"), [((1200, 900), (256, 192)), ((300, 600), (128, 256)), ((40, 30), (40, 30))])
def test_the_whole_picture_comes_with_the_crop(kind, size, whole):
    file = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(file, kind)
    square, everything = read_with_whole(file.getvalue(), 32)
    assert torch.equal(square, read_picture(file.getvalue(), 32))
    assert everything.dtype == torch.uint8 and everything.shape[0] == 3
    longest = max(everything.shape[1:])
    assert longest <= 256 and abs(everything.shape[2] / everything.shape[1] - size[0] / size[1]) < 0.03
    if kind == "PNG":  # a JPEG is decoded at a lower resolution
        assert tuple(everything.shape[1:]) == whole[::-1]
    with pytest.raises(CourseError, match="not a picture"):
        read_with_whole(b"no picture", 32)
