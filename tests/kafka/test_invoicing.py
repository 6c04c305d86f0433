"""The invoicing flow on a real broker: complete while an upstream cell stands still, once through kills, equal to the offline answer."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from flows import invoice_records, invoicing, invoicing_topics, local_engine, topics, usage
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.invoicing_live import INVOICING
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell
from flows.verification import verify, verify_invoicing
from tests.flow import invoicing_folders as folder
from tests.flow.invoicing_folders import contract, event
from tests.kafka import installations
from tieout import ids
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
PARTITIONS = 3
CUSTOMERS = 45
CODE = "import sys; from flows import cli, invoicing; invoicing.CLOSES = 2; sys.exit(cli.main(sys.argv[1:]))"


def make(broker, prefix):
    installations.make(broker.bootstrap, prefix, PARTITIONS)
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, "log_level": 2}, prefix, prefix + ".", flow="invoicing")
    invoicing_topics.create(place.admin, place.prefix, PARTITIONS, 1, Limits())
    assert invoicing_topics.check(place.admin, place.prefix, Limits()) == PARTITIONS
    return place


def price(place, cells=range(PARTITIONS)):
    """The usage flow's cells to the end of what there is; then what they wrote can be read."""
    for number in cells:
        installations.cell(KafkaPlace(place.settings, place.installation, place.prefix), Share(number, PARTITIONS), PARTITIONS).attempt()
        for topic in (topics.RATED, topics.HOLDS, usage.TOKEN):
            reader = place.reader(topic, number)
            while reader.refresh() < place.ends(topic, number):
                time.sleep(0.01)


def bill(place):
    """Each cell to the end of what there is; the last token of each partition."""
    tokens = {}
    for number in range(PARTITIONS):
        live = Live(Share(number, PARTITIONS), drain=True)
        cell = LiveCell(place, [number], live, FlowMetrics("invoicing", [number], fates=INVOICING.fates), local_engine.run, lambda: False, print, flow=INVOICING)
        cell.attempt()
        tokens |= cell.tokens
    return tokens


def invoices(place):
    return [invoice_records.decode(pa.array(values, pa.large_binary())) if values else [] for values in installations.values(place, topics.INVOICES, PARTITIONS)]


def facts():
    """Usage of two months in two halves, with late usage for the first in the second, and a clock in March."""
    rnd = random.Random(3)
    days = [f"2026-{month:02d}-{day:02d}T00:00:00Z" for month in (1, 2) for day in range(1, 29, 3)]
    usage_ = [event(f"k{n}", f"{at}", at, str(rnd.randrange(1, 99))) for at in days for n in range(CUSTOMERS)]
    half = len(usage_) // 4
    late = [event(f"k{n}", "late", "2026-01-29T00:00:00Z") for n in range(0, CUSTOMERS, 4)]
    march = [event(f"k{n}", "march", "2026-03-10T00:00:00Z") for n in range(CUSTOMERS)]
    return usage_[:half], usage_[half:], late + march


@pytest.mark.timeout(400)
def test_killed_cells_and_an_upstream_cell_that_stands_still_cost_no_usage_and_no_invoice_comes_twice(broker, topic_prefix):
    place = make(broker, topic_prefix)
    first, second, third = facts()
    contracts = [contract(f"k{n}") for n in range(CUSTOMERS)]
    installations.put(place, first, contracts, PARTITIONS)
    price(place)
    installations.put(place, second, (), PARTITIONS)
    price(place, [1, 2])
    rnd = random.Random(8)
    kills = sum(killed(place, broker, rnd) for _ in range(3))
    bill(place)
    billed = {one.customer_id for part in invoices(place) for one in part}
    still = {f"k{n}" for n in range(CUSTOMERS) if ids.partition_of(f"k{n}", PARTITIONS) == 0}
    assert len(billed) == CUSTOMERS - len(still)
    assert not billed & still, "a period was closed without its usage"
    installations.put(place, third, (), PARTITIONS)
    price(place)
    kills += sum(killed(place, broker, rnd) for _ in range(3))
    tokens = bill(place)
    made = [one for part in invoices(place) for one in part]
    assert len({one.invoice_id for one in made}) == len(made) == 2 * CUSTOMERS
    assert all(ids.partition_of(one.customer_id, PARTITIONS) == partition for partition, part in enumerate(invoices(place)) for one in part)
    for number in range(CUSTOMERS):
        mine = [one for one in made if one.customer_id == f"k{number}"]
        assert sum(line.usage_exact for one in mine for line in one.lines) == sum(int(one["quantity"]) for one in first + second + third[:12] if one["customer_id"] == f"k{number}") * 10**10
        if f"k{number}" not in still and number % 4:
            assert tuple(mine[:1]) == folder.expected(f"k{number}", first + second, contracts, "2026-01")
    print(f"{kills} kills of {6 * PARTITIONS} starts")
    assert kills > 2
    assert sum(token.totals["received"] for token in tokens.values()) == len(first + second + third)
    for partition in range(PARTITIONS):
        assert verify(place, partition)["breaks"] == verify_invoicing(place, partition)["breaks"] == []
    assert {partition: token.sequence for partition, token in bill(place).items()} == {partition: token.sequence for partition, token in tokens.items()}


def killed(place, broker, rnd):
    """Start three cells, kill each at some instant after it was fenced; how many were still alive then."""
    started = [start(place, broker, number) for number in range(PARTITIONS)]
    before = [place.ends(invoicing.TOKEN, number) for number in range(PARTITIONS)]
    alive = 0
    for number, process in enumerate(started):
        deadline = time.monotonic() + 60
        while place.ends(invoicing.TOKEN, number) == before[number] and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rnd.uniform(0, 0.1))
        alive += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    return alive


def start(place, broker, number):
    command = [
        sys.executable, "-c", CODE, "run", "invoicing", "--bootstrap", broker.bootstrap, "--installation", place.installation, "--topic-prefix", place.prefix,
        "--rows", "15", "--engine", "bytewax", "--drain", "--cells", str(PARTITIONS), "--cell", str(number), "--output", "json",
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
