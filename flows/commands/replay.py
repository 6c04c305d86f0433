"""``tieout replay``: usage priced and invoices made again from the first interval, compared byte for byte.

Nothing is written. A topic whose records differ is shown with the first interval where they do; exit code 3.
"""

import argparse
from collections.abc import Iterable
from typing import Any

from flows import invoicing, invoicing_replay, output, usage
from flows.cli import DIFFERENCES, DONE
from flows.commands import files
from flows.replay import Replayed, replay
from tieout.usage_stage import Limits


def run(options: argparse.Namespace) -> int:
    """Replay all partitions and print what came out."""
    root, partitions = files.folder(options.dir)
    rows = [_row(usage.FLOW, partition, replay(root, partition, Limits(), options.rows)) for partition in range(partitions)]
    rows += [_row(invoicing.FLOW, partition, done) for partition in range(partitions) if (done := invoicing_replay.replay(root, partition, Limits()))]
    output.show(rows, options.output, "done again as the tokens say")
    return DIFFERENCES if any(row["different"] for row in rows) else DONE


def _row(flow: str, partition: int, replayed: Iterable[Replayed]) -> dict[str, Any]:
    """What a partition of a flow came to."""
    intervals = records = 0
    different: dict[str, str] = {}
    for done in replayed:
        intervals, records = intervals + 1, records + done.records
        for topic in done.different:
            different.setdefault(topic, done.token.batch_id)
    first = [f"{topic} from {batch_id} on" for topic, batch_id in different.items()]
    return {"flow": flow, "partition": partition, "intervals": intervals, "records": records, "different": first}
