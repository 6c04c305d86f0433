"""``tieout replay``: the committed usage priced again from the first interval, compared byte for byte.

Nothing is written. A topic whose records differ is shown with the first interval where they do; exit code 3.
"""

import argparse

from flows import output
from flows.cli import DIFFERENCES, DONE
from flows.commands import files
from flows.replay import replay
from tieout.usage_stage import Limits


def run(options: argparse.Namespace) -> int:
    """Replay all partitions and print what came out."""
    root, partitions = files.folder(options.dir)
    rows = []
    for partition in range(partitions):
        intervals = records = 0
        different: dict[str, str] = {}
        for done in replay(root, partition, Limits(), options.rows):
            intervals, records = intervals + 1, records + done.records
            for topic in done.different:
                different.setdefault(topic, done.token.batch_id)
        first = [f"{topic} from {batch_id} on" for topic, batch_id in different.items()]
        rows.append({"partition": partition, "intervals": intervals, "records": records, "different": first})
    output.show(rows, options.output, "usage priced again as the tokens say")
    return DIFFERENCES if any(row["different"] for row in rows) else DONE
