"""What a check of schemas finds: a code of a closed list, the field, and a message that says what to do."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One finding; ``path`` is the field as a reader of the schema writes it: ``charges[].price.tiers[].unit_price``."""

    code: str
    path: str
    message: str


def child(path: str, name: str) -> str:
    """The path of a record's field."""
    return f"{path}.{name}" if path else name
