"""Cells: how the partitions of a flow are dealt out, and how a cell keeps going.

A cell is one process with a static list of partitions (``ordinal mod cells``), so adding cells is linear and a crash
touches one. A cell that fails for a reason that passes (the broker or the registry does not answer, a commit without
an answer) is thrown away and built again: fence, restore, seek. A cell that was fenced ends: somebody else owns its
partitions.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from schemas.errors import RegistryAway
from sinks.errors import CommitUnknown
from sources.errors import SourceAway

MOST: Final = 16
"""Partitions a cell may own."""
PASSING: Final = (SourceAway, CommitUnknown, RegistryAway)
_FIRST_WAIT: Final = 0.5
_LONGEST_WAIT: Final = 15.0


class _Closes(Protocol):
    def close(self) -> None:
        """Give the partition up."""


_Cell = TypeVar("_Cell", bound=_Closes)


class CellError(ValueError):
    """A cell that may not start; the message says what to set."""


@dataclass(frozen=True, slots=True)
class Share:
    """Which cell of how many a process is."""

    ordinal: int = 0
    cells: int = 1

    def partitions(self, count: int) -> list[int]:
        """The partitions of this cell; CellError where it would have none or too many."""
        if not 0 <= self.ordinal < self.cells:
            msg = f"cell {self.ordinal} of {self.cells}: the first cell is 0, the last {self.cells - 1}; set --cell and --cells"
            raise CellError(msg)
        mine = [partition for partition in range(count) if partition % self.cells == self.ordinal]
        if not mine:
            msg = f"cell {self.ordinal} of {self.cells}: {count} partitions leave it none; run at most {count} cells"
            raise CellError(msg)
        if len(mine) > MOST:
            msg = f"cell {self.ordinal} of {self.cells}: would own {len(mine)} of {count} partitions, {MOST} at most; run {-(-count // MOST)} cells or more"
            raise CellError(msg)
        return mine


def start_all(partitions: Sequence[int], start: Callable[[int], _Cell]) -> dict[int, _Cell]:
    """Fence and restore partitions, all at once: most of it is waiting. Where one fails, all are given up."""
    with ThreadPoolExecutor(len(partitions)) as pool:
        started = [pool.submit(start, partition) for partition in partitions]
    failures = [failure for future in started if (failure := future.exception()) is not None]
    if failures:
        for future in started:
            if future.exception() is None:
                future.result().close()
        raise failures[0]
    return {partition: future.result() for partition, future in zip(partitions, started, strict=True)}


def keep_going(attempt: Callable[[], None], stopped: Callable[[float], bool], told: Callable[[str, float], None]) -> None:
    """Run until an attempt ends by itself; after a failure that passes wait, longer each time, and attempt again.

    ``stopped`` waits so many seconds and says whether to stop; ``told`` hears why and how long it waits.
    """
    wait = _FIRST_WAIT
    while not stopped(0):
        try:
            attempt()
        except PASSING as error:
            told(str(error), wait)
            if stopped(wait):
                return
            wait = min(2 * wait, _LONGEST_WAIT)
        else:
            return


def generation_of(known: Sequence[tuple[int, int]], share: Share, wanted: int | None) -> int:
    """The generation to run as, from the (generation, cells) of all tokens; CellError where another one has begun."""
    newest = max(known, default=(1, share.cells))
    if wanted is not None and wanted < newest[0]:
        msg = f"generation {wanted} is over, {newest[0]} with {newest[1]} cells has begun; start with --generation {newest[0]} --cells {newest[1]}"
        raise CellError(msg)
    if (wanted is None or wanted == newest[0]) and share.cells != newest[1]:
        msg = f"generation {newest[0]} has {newest[1]} cells, this process was told {share.cells}; to change it stop the cells and run 'tieout rescale --cells {share.cells}'"
        raise CellError(msg)
    return newest[0] if wanted is None else wanted
