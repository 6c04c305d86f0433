"""``tieout verify``: prove what a folder holds.

For every interval of the usage flow: the fate equations, the digests of its records read back, and the chain of
tokens. A break is shown with its interval; exit code 3.
"""

import argparse
from pathlib import Path
from typing import Any

from flows import output, usage
from flows import token as tokens
from flows.cli import DIFFERENCES, DONE
from flows.commands import files
from flows.token import Token
from schemas import segments
from sources.files import TopicReader
from tieout.stage import NAMES, Counts


def run(options: argparse.Namespace) -> int:
    """Verify all partitions and print the chain's heads."""
    root, partitions = files.folder(options.dir)
    rows = [row for partition in range(partitions) if (row := verify(root, partition)) is not None]
    output.show(rows, options.output, "proof by partition; keep the chain's heads elsewhere as evidence")
    return DIFFERENCES if any(row["breaks"] for row in rows) else DONE


def verify(root: Path, partition: int) -> dict[str, Any] | None:
    """One partition's proof; None where the flow has not been here."""
    found = intervals(root, partition)
    if not found:
        return None
    readers: dict[str, TopicReader] = {}
    breaks: list[str] = []
    checked = 0
    before = Token(usage.FLOW, partition, 0)
    sums = Counts()
    for token in found:
        breaks += _figures(token, before, sums)
        for topic, digest in token.digests.items():
            reader = readers.setdefault(topic, TopicReader(root, topic, partition))
            if not reader.segments():
                reader.refresh()
            start, end = before.written.get(topic, 0), token.written[topic]
            if start < reader.start and topic.startswith("_tieout."):
                continue  # a full state has replaced it
            checked += 1
            if segments.digest(reader.read(start, end - start)) != digest:
                breaks.append(f"{token.batch_id}: {topic} records {start} to {end - 1} are not those that were committed")
        before = token
    return {
        "partition": partition, "intervals": len(found), "digests": checked, "breaks": breaks, "head": found[-1].chain,
    }


def intervals(root: Path, partition: int) -> list[Token]:
    """All tokens of a partition, in order."""
    return list(tokens.all_of(TopicReader(root, usage.TOKEN, partition)))


def _figures(token: Token, before: Token, sums: Counts) -> list[str]:
    counts = Counts(**{name: token.counts[name] for name in NAMES})
    sums.add(counts)
    breaks = []
    broken = counts.broken()
    if broken:
        breaks.append(f"{token.batch_id}: {broken}")
    if sums.as_dict() | {"waiting": sums.waiting} != token.totals:
        breaks.append(f"{token.batch_id}: the totals are not the sum of the intervals")
    if token.sequence != before.sequence + 1 or token.previous_chain != before.chain or token.chain != token.linked():
        breaks.append(f"{token.batch_id}: the chain is broken here")
    return breaks
