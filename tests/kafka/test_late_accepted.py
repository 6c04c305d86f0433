"""Late usage and late credits on a real broker: decided about by commands, billed once, the same after every restore."""

import pytest

from flows import exception_records
from flows.kafka_place import KafkaPlace
from flows.verification import verify_invoicing
from tests.flow.invoicing_folders import SIMPLE, contract, event
from tests.kafka import installations
from tests.kafka.billing import PARTITIONS, bill, invoices, make, price
from tests.kafka.test_dead_letters import command

CUSTOMERS = ("k1", "k2")


def contracts(number=1, **more):
    return [contract(name, number, charges=SIMPLE[:1], billing={"late_usage": "exception"}, **more) for name in CUSTOMERS]


def run(place, *usage_):
    """More usage, both flows to the end with cells that are restored for it, and the control totals."""
    installations.put(place, [event(name, *one) for one in usage_ for name in CUSTOMERS], (), PARTITIONS)
    price(place)
    bill(place)
    for partition in range(PARTITIONS):
        assert verify_invoicing(place, partition)["breaks"] == []


def lots(place):
    reading = KafkaPlace(place.settings, place.installation, place.prefix)
    found = {item.opened.customer_id: item for item in exception_records.queue(reading).items.values() if item.opened.kind == "late_usage"}
    reading.close()
    return found


def made(place, customer):
    return [[(line.kind, line.period, line.amount) for line in one.lines] for part in invoices(place) for one in part if one.customer_id == customer]


@pytest.mark.timeout(400)
def test_accepted_late_usage_is_billed_once_and_waived_usage_never_through_restores(broker, topic_prefix):
    place = make(broker, topic_prefix)
    installations.put(place, [], contracts(), PARTITIONS)
    run(place, ("a", "2026-01-10T00:00:00Z"), ("b", "2026-02-05T00:00:00Z"))
    run(place, ("late", "2026-01-30T00:00:00Z", "7"), ("c", "2026-03-05T00:00:00Z"))
    found = lots(place)
    assert {name: (item.state, str(item.opened.amount_at_risk)) for name, item in found.items()} == dict.fromkeys(CUSTOMERS, ("open", "0.070000000000"))
    command(place, "exception", "accept", found["k1"].opened.exception_id, "--reason", "agreed")
    command(place, "exception", "waive", found["k2"].opened.exception_id, "--reason", "a gift")
    command(place, "exception", "waive", found["k1"].opened.exception_id, "--reason", "late", code=1)
    bill(place)
    assert lots(place)["k1"].asked.author == "ada"
    run(place, ("d", "2026-04-05T00:00:00Z"))
    run(place, ("e", "2026-05-05T00:00:00Z"))
    months = [[("usage", f"2026-0{month}", 10)] for month in range(1, 5)]
    assert made(place, "k1") == [*months[:2], [("delta", "2026-01", 7), *months[2]], months[3]]
    assert made(place, "k2") == months
    assert {name: item.state for name, item in lots(place).items()} == {"k1": "resolved", "k2": "waived"}


@pytest.mark.timeout(400)
def test_credits_that_become_known_within_the_period_pay_for_what_was_used_since(broker, topic_prefix):
    place = make(broker, topic_prefix)
    installations.put(place, [], contracts(), PARTITIONS)
    run(place, *((f"{day}", f"2026-01-{day:02d}T00:00:00Z", "100") for day in range(1, 21, 2)))
    granted = [{"grant_id": "g", "amount": "100.00", "kind": "granted", "effective_from": "2026-01-10T00:00:00Z"}]
    installations.put(place, [], contracts(2, effective_from="2026-01-15T00:00:00Z", credits=granted), PARTITIONS)
    run(place, ("clock", "2026-02-05T00:00:00Z", "1"))
    for name in CUSTOMERS:
        (january,) = [one for part in invoices(place) for one in part if one.customer_id == name]
        assert (january.total, [use.applied for use in january.credits], january.amount_due) == (1000, [500], 500)
    assert not lots(place)
