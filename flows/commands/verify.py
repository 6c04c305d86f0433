"""``tieout verify``: prove what a folder or a broker holds; a break is shown with its interval, exit code 3."""

import argparse
from typing import Any

from flows import contract, contract_outputs, document, document_outputs, invoicing, output, usage
from flows.cli import DIFFERENCES, DONE
from flows.commands import places
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.verification import verify, verify_contract, verify_document, verify_invoicing


def run(options: argparse.Namespace) -> int:
    """Verify all partitions and print the chain's heads."""
    rows = proofs(places.place(options))
    output.show(rows, options.output, "proof by partition; keep the chain's heads elsewhere as evidence")
    return DIFFERENCES if any(row["breaks"] for row in rows) else DONE


def proofs(place: FilePlace | KafkaPlace) -> list[dict[str, Any]]:
    """The proof of every flow that has been at a place, by partition."""
    there = place.topics() if isinstance(place, KafkaPlace) else None
    rows = [{"flow": usage.FLOW} | row for partition in range(place.partitions()) if (row := verify(place, partition)) is not None]
    if there is None or invoicing.TOKEN in there:
        rows += [{"flow": invoicing.FLOW} | row for partition in range(place.partitions()) if (row := verify_invoicing(place, partition)) is not None]
    for flow, token, proved in ((contract_outputs.FLOW, contract.TOKEN, verify_contract), (document_outputs.FLOW, document.TOKEN, verify_document)):
        found = proved(place) if there is None or token in there else None
        rows += [] if found is None else [{"flow": flow} | found]
    return rows
