"""What a process asks of the libraries beneath it, before any of them is loaded.

An interval's columns are some hundred arrays of a few megabytes, made and let go again and again. As they come, the C
library and Arrow give such memory back to the system each time and have it cleared again for the next one: a tenth of
a flow's whole cost (docs/decisions/0009). So both draw from one heap, which keeps up to 128 MB for the next interval.

Python looks for cycles among its objects each time 700 more are alive; an interval holds some 25,000 messages at once,
and no cycles. So it looks after as many objects as starting makes, which all stay, and four intervals hold.
"""

import ctypes
import gc
import os
from typing import Final

_TRIM, _MAP = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of the GNU C library."""
KEPT: Final = 128 << 20
"""Bytes at the end of the heap that are kept."""
MAPPED: Final = 32 << 20
"""Arrays from this size on are mapped on their own, the most that the library allows."""

OBJECTS: Final = 200_000
"""More objects alive than at the last look for cycles, before the next one."""


def settle() -> None:
    """Settle it for this process; where the C library is another one, what it does not know stays as it is."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy's threads for matrices, of which there are none, spin while they wait
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    gc.set_threshold(OBJECTS)
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(_TRIM, KEPT)
        adjust(_MAP, MAPPED)
