"""Original records read again by their positions: what a dead letter or an exception shows, when its lot is long gone."""

from collections.abc import Sequence
from typing import Final

from flows.pipeline import Reader
from sources.lot import Lot

_NEIGHBOURS: Final = 500


def neighbours(reader: Reader, positions: Sequence[int]) -> list[Lot]:
    """Lots that hold the records at these rising positions, each a few hundred records long: a read each is dear."""
    lots: list[Lot] = []
    for position in positions:
        if not lots or lots[-1].row_of(position) is None:
            lots.append(reader.lot(position, _NEIGHBOURS))
    return lots
