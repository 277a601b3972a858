"""Check how much memory the pages of a Parquet file would take, before pyarrow reads them.

The columns of a Parquet file are stored in compressed pages. The footer of the file states their sizes. A reader,
however, allocates as much memory as the header of each page asks for, up to 2 GB, regardless of the footer. pyarrow
neither exposes these headers nor limits the sizes in them.

Reference: https://parquet.apache.org/docs/file-format/ and, for the encoding of the headers, the "compact protocol" of
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow.parquet

MAGIC = b"PAR1"
MAX_FOOTER = 4_000_000  # bytes; that of 50,000 images in 50 groups has 20,000
MAX_HEADER = 65_536  # bytes of the header of a page; usual ones have 20 to 100
MAX_PAGE = 8_000_000  # bytes of an unpacked page; writers begin a new page after 1 MB
MAX_DEPTH = 4  # of structs in structs in the header of a page

# Types of the compact protocol.
TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 12
UNCOMPRESSED_SIZE, COMPRESSED_SIZE = 2, 3  # fields of the header of a page


def check_footer(file: BinaryIO) -> None:
    """Check the size of a file's footer, which is parsed as a whole when the file is opened.

    Raises:
        ValueError: If the file does not end as a Parquet file does, or if its footer is too large.
    """
    if file.seek(0, os.SEEK_END) < 12:
        raise ValueError("it is too short")
    file.seek(-8, os.SEEK_END)
    size = int.from_bytes(file.read(4), "little")
    if file.read(4) != MAGIC:
        raise ValueError("it has no Parquet footer")
    if size > MAX_FOOTER:
        raise ValueError(f"its footer has {size:,} bytes")


def unpacked_size(file: BinaryIO, metadata: pyarrow.parquet.FileMetaData) -> int:
    """Return the number of bytes to which all pages of a Parquet file unpack.

    Raises:
        ValueError: If a page is larger than `MAX_PAGE`, or has no valid header.
    """
    total = 0
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            for size in _pages(file, metadata.row_group(group).column(column)):
                if not 0 <= size <= MAX_PAGE:
                    raise ValueError(f"a page has {size:,} bytes")
                total += size
    return total


def _pages(file: BinaryIO, chunk: pyarrow.parquet.ColumnChunkMetaData) -> Iterator[int]:
    """Yield the unpacked size of each page of a column chunk."""
    position = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        position = min(position, chunk.dictionary_page_offset)
    end = position + chunk.total_compressed_size
    if not 0 <= position <= end <= file.seek(0, os.SEEK_END):
        raise ValueError("its pages are not in the file")
    while position < end:
        file.seek(position)
        header = file.read(MAX_HEADER)
        length, numbers = _struct(header, 0, 0)
        if numbers.get(COMPRESSED_SIZE, -1) < 0:
            raise ValueError("a page has no size")
        yield numbers.get(UNCOMPRESSED_SIZE, -1)
        position += length + numbers[COMPRESSED_SIZE]
    if position != end:
        raise ValueError("the sizes of its pages do not add up")


def _struct(data: bytes, at: int, depth: int) -> tuple[int, dict[int, int]]:
    """Read a struct that starts at `at`; return where it ends, and its whole numbers by the number of their field."""
    if depth > MAX_DEPTH:
        raise ValueError("a page has a header with too many levels")
    field, numbers = 0, {}
    while True:
        start, at = _byte(data, at), at + 1
        if start == 0:
            return at, numbers
        step, kind = start >> 4, start & 15
        if step:
            field += step
        else:
            field, at = _number(data, at)
        if kind in (I16, I32, I64):
            numbers[field], at = _number(data, at)
        elif kind == STRUCT:
            at, _ = _struct(data, at, depth + 1)
        else:
            at = _after(data, at, kind)


def _after(data: bytes, at: int, kind: int) -> int:
    """Return where a value ends that is neither a struct nor a whole number."""
    if kind in (TRUE, FALSE):
        return at
    if kind in (BYTE, DOUBLE):
        return at + (1 if kind == BYTE else 8)
    if kind == BINARY:
        size, at = _varint(data, at)
        return at + size
    raise ValueError(f"a page has a header with a value of type {kind}")


def _number(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte, at = _byte(data, at), at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a page has a header with a number that does not end")


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise ValueError("a page has a header that does not end")
    return data[at]
