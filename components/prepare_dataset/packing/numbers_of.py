"""Arrays of C numbers as Arrow's, without a copy and without a Python object for each number."""

from array import array
from typing import Any

import pyarrow as pa

_TYPES = {"i": pa.int32(), "I": pa.uint32(), "q": pa.int64(), "Q": pa.uint64(), "d": pa.float64()}
"""Type code of `array` -> Arrow's type of the same size."""


def as_arrow(values: "array[int] | array[float]") -> pa.Array:
    return pa.Array.from_buffers(_TYPES[values.typecode], len(values), [None, pa.py_buffer(values)])


def from_arrow(values: pa.Array) -> memoryview:
    """The numbers of an array without nulls, to read."""
    code = next(code for code, kind in _TYPES.items() if kind == values.type)
    buffer = values.buffers()[1]
    numbers: Any = memoryview(buffer).cast("B")
    return numbers.cast(code)[values.offset : values.offset + len(values)]
