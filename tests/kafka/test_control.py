"""The control on a real broker: nothing where all ties out, one exception for an invoice by other hands, while the flows go on."""

import time

import pyarrow as pa
import pytest

from flows import cli, codecs, control, invoice_records, topics
from flows.control_outputs import FLOW
from flows.kafka_place import KafkaPlace
from flows.verification import verify, verify_invoicing
from tests.flow.invoicing_folders import contract, event
from tests.kafka import installations
from tests.kafka.billing import PARTITIONS, bill, invoices, make, price

CUSTOMERS = 6


def use(place, month, contracts=()):
    installations.put(place, [event(f"k{n}", month, f"{month}-10T00:00:00Z", "700") for n in range(CUSTOMERS)], contracts, PARTITIONS)
    price(place)
    bill(place)
    for partition in range(PARTITIONS):
        reader = place.reader(topics.INVOICES, partition)
        while reader.refresh() < place.ends(topics.INVOICES, partition):
            time.sleep(0.01)


def told(place):
    values = [value for part in installations.values(place, topics.EXCEPTIONS, PARTITIONS) for value in part]
    return codecs.own("exception").decode(pa.array(values, pa.large_binary())).batch.to_pylist() if values else []


@pytest.mark.timeout(300)
def test_an_invoice_by_other_hands_is_one_exception_and_the_flows_proofs_stay_whole(broker, topic_prefix):
    place = make(broker, topic_prefix)
    use(place, "2026-01", [contract(f"k{n}") for n in range(CUSTOMERS)])
    use(place, "2026-03")
    mine = KafkaPlace(place.settings, place.installation, place.prefix, flow=control.NAME)
    words = ["run", "control", "--bootstrap", broker.bootstrap, "--topic-prefix", place.prefix, "--installation", place.installation, "--drain"]
    assert cli.main(words) == 0
    assert told(place) == []
    partition, forged = next((partition, part[0]) for partition, part in enumerate(invoices(place)) if part)
    other = place.fence("other", 0)
    other.commit(0, {topics.in_partition(topics.INVOICES, partition): invoice_records.records([forged._replace(invoice_id="forged")], [0])}, {}, None)
    other.close()
    assert cli.main(words) == 3
    checks = []
    control.keep_checking(mine, 0, lambda _: len(checks) == 2, checks.append, lambda: None)
    assert [(sum(one.breaks.values()), one.opened, one.over) for one in checks] == [(1, 0, 0)] * 2
    (one,) = told(place)
    assert (one["object"]["id"], str(one["amount_at_risk"])) == (forged.contract_id, "-7.000000000000")
    assert "document forged, 7.000000000000" in one["evidence"][2]
    use(place, "2026-05")
    assert all(verify(place, number)["breaks"] == [] for number in range(PARTITIONS)) and FLOW == control.NAME
    assert [verify_invoicing(place, number)["breaks"] == [] for number in range(PARTITIONS)] == [number != partition for number in range(PARTITIONS)]
    assert cli.main(words) == 3
    assert len(told(place)) == 1
    mine.close()


@pytest.mark.timeout(300)
def test_a_request_that_would_not_count_is_not_written_on_a_broker_either(broker, topic_prefix, capsys):
    place = make(broker, topic_prefix)
    use(place, "2026-01", [contract(f"k{n}") for n in range(CUSTOMERS)])
    use(place, "2026-03")
    january = next(one for part in invoices(place) for one in part if one.period.label == "2026-01")
    where = ["--bootstrap", broker.bootstrap, "--topic-prefix", place.prefix, "--installation", place.installation, "--reason", "r"]
    assert cli.main(["close", "--period", "2026-03", "--contract", january.contract_id, *where]) == 1
    assert "has closed no billing period 2026-03" in capsys.readouterr().err
    assert cli.main(["void", january.invoice_id, *where]) == 0
    assert cli.main(["void", january.invoice_id, *where]) == 1
    assert "is taken back already" in capsys.readouterr().err
    end = place.ends(topics.COMMANDS, 0)
    reader = place.reader(topics.COMMANDS, 0)
    while reader.refresh() < end:
        time.sleep(0.01)
    bill(place)
    assert [one.voids for part in invoices(place) for one in part if one.voids] == [january.invoice_id]
    assert told(place) == []
