"""Hostile files: small ones that claim, or unpack to, more than a machine has."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

GIGABYTE = 10**9
HUGE = 2**31 - 1


def tar(*files, compressed=True):
    """Return a tar archive, compressed by gzip, of pairs of a name and a content."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz" if compressed else "w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


def zeros(size, before=b""):
    """Return what unpacks, by gzip, to `before` and `size` zeros."""
    content, block = io.BytesIO(), bytes(10_000_000)
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=1) as archive:
        archive.write(before)
        for _ in range(size // len(block)):
            archive.write(block)
    return content.getvalue()


def tar_header(name, size, kind=tarfile.REGTYPE):
    """Return the header of a file that claims to have `size` bytes."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf()


def nested(depth=3, width=60):
    """Return a pickle of lists in lists: few bytes, many labels."""
    labels = [0] * width
    for _ in range(depth):
        labels = [labels] * width
    return pickle.dumps({"data": 0, "labels": labels}, 2)


PICKLES = {
    "nested lists as labels": nested(),
    "a number that takes 16 GB": b"\x80\x02}r" + struct.pack("<I", HUGE) + b".",
    "the same as text": b"\x80\x02}p" + str(HUGE).encode() + b"\n.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b".",
    "nothing": b"",
}


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side=30_000, extra=b""):
    """Return a PNG file that claims `side` x `side` pixels and has next to none."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def png_with_text(size):
    """Return a PNG file with a compressed text of `size` bytes."""
    return png(32, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * size)))


def bmp(side=60_000):
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, *[0] * 6)


def gif(side=65_535):
    screen = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00;"


def tiff(side=100_000):
    """Return a TIFF file of one strip, which claims `side` x `side` pixels."""
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, side)]
    tags += [(279, 4, 10)]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 18) + bytes(10) + struct.pack("<H", len(tags)) + rows + bytes(4)


def webp(side=16_383):
    """Return a WebP file that claims `side` x `side` pixels."""
    bits = (side - 1) | (side - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(20)
    body = b"WEBPVP8L" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def saved(side, kind, mode="L"):
    """Return a picture of `side` x `side` equal pixels, as Pillow saves it."""
    content = io.BytesIO()
    Image.new(mode, (side, side)).save(content, kind)
    return content.getvalue()


def safetensors(header, size=None):
    """Return a .safetensors file with a header, which claims to have `size` bytes."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text) if size is None else size) + text + bytes(64)


def npy(shape):
    """Return a .npy file of a history that claims this shape."""
    from qathelpers.training.history import ROW

    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        content, {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": shape}
    )
    return content.getvalue() + bytes(64)


def zipped(name, size):
    """Return a zip archive with one file of `size` zeros."""
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(name, "w") as file,
    ):
        for _ in range(size // 10_000_000):
            file.write(bytes(10_000_000))
    return content.getvalue()


# Parquet


def varint(number, length=None):
    """Return a whole number as a Parquet file stores it, padded to `length` bytes."""
    number, digits = number << 1, []  # zigzag: the sign is the last bit
    while True:
        digits.append(number & 127)
        number >>= 7
        if not number and len(digits) >= (length or 1):
            break
    return bytes(digit | 128 for digit in digits[:-1]) + bytes(digits[-1:])


def parquet(images, labels, **options):
    """Return a Parquet file as a mirror of CIFAR-10 has it."""
    content = io.BytesIO()
    images = pyarrow.array(images, pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))
    pyarrow.parquet.write_table(pyarrow.table({"img": images, "label": labels}), content, **options)
    return content.getvalue()


def with_forged_footer(content, replace=1000):
    """Return a Parquet file whose footer says that everything unpacks to `replace` bytes."""
    size = int.from_bytes(content[-8:-4], "little")
    data, footer = content[: -8 - size], content[-8 - size : -8]
    metadata = pyarrow.parquet.read_metadata(io.BytesIO(content))
    claims = {metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)}
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            claims.add(metadata.row_group(group).column(column).total_uncompressed_size)
    for claim in claims:
        if claim > 16 * replace:
            footer = footer.replace(varint(claim), varint(replace, len(varint(claim))))
    forged = data + footer + content[-8:]
    again = pyarrow.parquet.read_metadata(io.BytesIO(forged))
    assert sum(again.row_group(group).total_byte_size for group in range(again.num_row_groups)) < 100 * replace
    return forged


def large_page(size):
    """Return a table with one image of `size` bytes, and a footer that hides it."""
    rows = [{"bytes": bytes(size), "path": None}]
    return with_forged_footer(parquet(rows, [0], compression="zstd", use_dictionary=False, write_statistics=False))


def repeated(size, rows):
    """Return a table in whose dictionary one value of `size` bytes is the image of many rows."""
    images = [{"bytes": bytes(size), "path": None}] * rows
    return parquet(images, [0] * rows, compression="zstd", write_statistics=False, dictionary_pagesize_limit=10**9)


def claimed_page(claim=HUGE):
    """Return a table whose first page claims to unpack to `claim` bytes."""
    rows = [{"bytes": bytes(100_000), "path": None}]
    content = parquet(rows, [0], compression="zstd", use_dictionary=False, write_statistics=False)
    start = pyarrow.parquet.read_metadata(io.BytesIO(content)).row_group(0).column(0).data_page_offset
    true = varint(pages(content, start))
    assert content.count(true, start, start + 10) == 1
    return content[:start] + content[start : start + 10].replace(true, varint(claim, len(true))) + content[start + 10 :]


def pages(content, start):
    """Return the unpacked size in the header of the page at `start`, which begins with two numbers of one byte type."""
    from qathelpers.data.parquet import UNCOMPRESSED_SIZE, _struct

    return _struct(content, start, 0)[1][UNCOMPRESSED_SIZE]


def large_footer(size):
    """Return a table whose footer claims `size` bytes."""
    return b"PAR1" + bytes(100) + struct.pack("<I", size) + b"PAR1"


def texts_as_labels(size, rows):
    """Return a table whose labels are one long text in many rows."""
    return parquet([{"bytes": b"x", "path": None}] * rows, ["a" * size] * rows, dictionary_pagesize_limit=10**9)
