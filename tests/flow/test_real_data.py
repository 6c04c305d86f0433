"""Real telemetry: two hours of requests to language-model services, two meters a request, priced by the example contract.

The traces are no part of the project; the test reads them where they lie beside it, and skips, saying so, elsewhere.
"""

import csv
import gzip
from decimal import Decimal
from pathlib import Path

import pytest

from flows import cli, local_engine, usage
from flows.file_place import FilePlace

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
FILES = {"code": "azure-llm-2023-code.csv.gz", "conversation": "azure-llm-2023-conv.csv.gz"}


@pytest.mark.skipif(not DATA.exists(), reason="the traces do not lie beside this checkout")
def test_two_traces_are_priced_to_the_last_digit(tmp_path):
    root = str(tmp_path / "topics")
    assert cli.main(["import", "contracts", str(ROOT / "examples/contracts/llm.json"), "--dir", root]) == 0
    expected, events = Decimal(0), 0
    for customer, name in FILES.items():
        for meter, column in (("tokens_in", "ContextTokens"), ("tokens_out", "GeneratedTokens")):
            maps = ["time=TIMESTAMP", f"customer_id=:{customer}", f"meter=:{meter}", f"quantity={column}"]
            assert cli.main(["import", "csv", str(DATA / name), "--dir", root, *(part for m in maps for part in ("--map", m))]) == 0
        with gzip.open(DATA / name, "rt") as file:
            rows = list(csv.DictReader(file))
        events += 2 * len(rows)
        tokens_in, tokens_out = (sum(int(row[column]) for row in rows) for column in ("ContextTokens", "GeneratedTokens"))
        low, high = 5_000_000, 15_000_000
        expected += min(tokens_in, low) * Decimal("0.000003") + max(0, min(tokens_in, high) - low) * Decimal("0.0000025")
        expected += max(0, tokens_in - high) * Decimal("0.000002") + -(-tokens_out // 1000) * Decimal("0.015")
    pipeline = usage.pipeline(FilePlace(Path(root)), range(4))
    local_engine.run(pipeline)
    tokens = [cell.token for cell in pipeline.cells.values()]
    assert sum(token.totals.get("priced", 0) for token in tokens) == events == 56_370
    assert usage.amounts_of(tokens) == {"USD": expected}
