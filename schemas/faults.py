"""What can be wrong with an Avro body, and how a row that has it is told."""

from enum import IntEnum
from typing import Final, NamedTuple


class Fault(IntEnum):
    """What can be wrong with a body."""

    NONE = 0
    TRUNCATED = 1
    NEGATIVE_LENGTH = 2
    VARINT = 3
    UTF8 = 4
    DECIMAL = 5
    COUNT = 6
    INDEX = 7
    TRAILING = 8
    BOOLEAN = 9
    MISSING = 10
    MANY = 11
    DEPTH = 12


MESSAGES: Final = {
    Fault.TRUNCATED: "the body ends before the field does",
    Fault.NEGATIVE_LENGTH: "the length is below 0",
    Fault.VARINT: "the number does not fit its type",
    Fault.UTF8: "the text is not UTF-8",
    Fault.DECIMAL: "the decimal has too many digits",
    Fault.COUNT: "the block count cannot be right: more items than bytes",
    Fault.INDEX: "the union or enum index does not exist, or stands for what the reader does not know",
    Fault.TRAILING: "bytes are left after the last field",
    Fault.BOOLEAN: "the byte is neither true nor false",
    Fault.MISSING: "the field has no value, and one is required",
    Fault.MANY: "the list or map has more items than are read by columns",
    Fault.DEPTH: "records are nested too deep",
}


class Broken(NamedTuple):
    """A row that cannot be read: its place in the input, what is wrong, at which byte of the value, at which field."""

    row: int
    fault: Fault
    at: int
    path: str
