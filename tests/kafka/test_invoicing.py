"""From priced usage to numbered documents on a real broker, through kills: complete, once, without a gap, as undisturbed.

``TIEOUT_KILLS`` sets the number of kills (20 here), ``TIEOUT_SEED`` what happens when.
"""

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from flows import cli, codecs, document_view, topics
from flows.commands import governed
from flows.commands.verify import proofs
from flows.file_place import FilePlace
from tests.flow import invoicing_folders as folder
from tests.kafka import billing, installations
from tests.kafka.billing import PARTITIONS, Campaign
from tieout import ids
from tieout.governance import Command

KILLS = int(os.environ.get("TIEOUT_KILLS", "20"))
SEED = int(os.environ.get("TIEOUT_SEED", "1"))
CUSTOMERS = [f"k{n}" for n in range(60)]
CONTRACTS = [folder.contract(customer, legal_entity_id="de-gmbh") for customer in CUSTOMERS]
STILL = 0
"""The partition whose usage cell stands still in the first half."""


def partition_of(customer):
    return ids.partition_of(customer, PARTITIONS)


MOVING = [customer for customer in CUSTOMERS if partition_of(customer) != STILL]


def day(month, number):
    return f"{2026 + month // 12}-{month % 12 + 1:02d}-{number:02d}T00:00:00Z"


def label(month):
    return day(month, 1)[:7]


def usage_of(month, rnd):
    """A month of usage; before it, usage that comes late for a closed month, and events of that month that are taken back."""
    late = [folder.event(customer, f"late {month}", day(month - 2, 25), str(rnd.randrange(1, 50))) for customer in MOVING[::5]] if month > 1 else []
    gone = [folder.event(customer, f"gone {month}", day(month - 1, 28), None, voids={"source": "s", "id": f"{month - 2} 9"}) for customer in MOVING[1::10]] if month > 1 else []
    return late + gone + [folder.event(customer, f"{month} {at}", day(month, at), str(rnd.randrange(1, 99))) for at in (3, 9, 20) for customer in CUSTOMERS]


def other_program(place, command):
    """A request as a program that does not look first writes it."""
    with governed.writing(place) as write:
        write(command)


class Steps:
    """What was done, in its order: on the broker amid kills, then once more on a folder where nobody disturbs it."""

    def __init__(self, place):
        self.place, self.done, self.usage = place, [], []
        self.asked = Counter()
        """Closes and notes that commands come to, by customer."""
        self.refused = 0

    def put(self, usage_, contracts=()):
        self.done.append(("put", usage_, contracts))
        self.usage += usage_
        installations.put(self.place, usage_, contracts, PARTITIONS)

    def price(self, cells):
        """The clock of each partition that was priced."""
        self.done.append(("price", cells, ()))
        return {partition: token.clock for partition, token in billing.price(self.place, cells).items()}

    def ask(self, commands):
        """Give commands, one after the other, as a person would; a request that would not count comes from another program."""
        self.done.append(("ask", commands, ()))
        where = ["--bootstrap", self.place.settings["bootstrap.servers"], "--installation", self.place.installation, "--topic-prefix", self.place.prefix]
        for words in commands:
            if isinstance(words, Command):
                other_program(self.place, words)
            else:
                assert cli.main([*words, *where]) == 0, words

    def commands(self, month):
        """Void an invoice and bill its period again, take an amount off one, void one twice, then close the period for all."""
        found = {one.customer_id: one for part in billing.invoices(self.place) for one in part if one.period.label == label(month - 1)}
        voided, lowered, twice = (found[customer] for customer in random.Random(month).sample(MOVING, 3))
        fee = next(line for line in lowered.lines if line.kind == "fee")
        self.asked.update([voided.customer_id, lowered.customer_id, twice.customer_id] + [voided.customer_id, twice.customer_id])
        self.refused += 1
        why = ["--reason", f"month {month}"]
        return [
            ["void", voided.invoice_id, *why],
            ["close", "--period", label(month - 1), "--contract", voided.contract_id, *why],
            ["credit", lowered.invoice_id, "--amount", f"{fee.line_id}=1.50", *why],
            ["void", twice.invoice_id, *why],
            Command("correct", "invoice", twice.invoice_id, "somebody else", 2 * 10**15, "again"),
            ["close", "--period", label(month - 1), *why],
        ]

    def undisturbed(self, root):
        for kind, what, contracts in self.done:
            if kind == "put":
                folder.write(root, what, contracts, PARTITIONS)
                continue
            if kind == "price":
                folder.price(root, what)
            else:
                for words in what:
                    if isinstance(words, Command):
                        other_program(FilePlace(root), words)
                    else:
                        assert cli.main([*words, "--dir", str(root)]) == 0
            folder.bill(root, partitions=range(PARTITIONS))
        return folder.invoices(root, PARTITIONS)


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_killed_cells_bill_all_usage_once_and_number_it_without_a_gap_as_cells_that_nobody_disturbed(broker, topic_prefix, tmp_path):
    place, rnd = billing.make(broker, topic_prefix), random.Random(SEED)
    campaign, steps = Campaign(place, tmp_path, rnd), Steps(place)
    cells, month = [number for number in range(PARTITIONS) if number != STILL], 0
    steps.put(usage_of(0, rnd), CONTRACTS)
    clocks = steps.price(range(PARTITIONS))
    try:
        with ThreadPoolExecutor(1) as person:
            while len(campaign.kills) < KILLS or STILL not in cells:
                month += 1
                assert month < KILLS, f"only {len(campaign.kills)} kills in {campaign.starts} starts, TIEOUT_SEED={SEED}"
                if 2 * len(campaign.kills) >= KILLS and STILL not in cells:
                    billed = {one.customer_id for part in billing.invoices(place) for one in part}
                    assert billed == set(MOVING), "a period was closed without its usage"
                    cells = range(PARTITIONS)
                campaign.rest()
                steps.put(usage_of(month, rnd))
                clocks |= steps.price(cells)
                campaign.wanted |= wanted(cells, month, steps.asked)
                until = KILLS if STILL in cells else (KILLS + 1) // 2
                campaign.strike(4, until)
                campaign.strike(4, until)
                campaign.settle(clocks)
                if month % 2 == 0:
                    commands = steps.commands(month)
                    campaign.wanted |= wanted(cells, month, steps.asked)
                    asking = person.submit(steps.ask, commands)
                    campaign.strike(3, until)
                    asking.result()
                    campaign.settle(clocks)
    finally:
        campaign.close()
    struck = Counter(kill.name for kill in campaign.kills)
    print(f"{len(campaign.kills)} kills, {sum(kill.inside for kill in campaign.kills)} in an open transaction, {dict(struck)}, {campaign.starts} starts, {month} months, seed {SEED}")
    assert len(campaign.kills) >= KILLS and set(struck) == set(billing.NAMES)
    assert any(kill.inside for kill in campaign.kills)
    exact(place, steps, month, tmp_path / "undisturbed")


def wanted(cells, month, asked):
    """Closes and credit notes that each partition has to come to."""
    return {cell: sum(month + asked[customer] for customer in CUSTOMERS if partition_of(customer) == cell) for cell in cells}


def exact(place, steps, month, root):
    """Every document once, in its partition, numbered from 1 on; as undisturbed, as offline; everything ties out."""
    made = billing.invoices(place)
    flat = sorted((one for part in made for one in part), key=lambda one: one.invoice_id)
    assert len({one.invoice_id for one in flat}) == len(flat) == len(CUSTOMERS) * month + steps.asked.total()
    assert [partition_of(one.customer_id) for part in made for one in part] == [partition for partition, part in enumerate(made) for _ in part]
    documents = list(document_view.all_of(place))
    assert [one.sequence for one in documents] == list(range(1, len(flat) + 1))
    assert {one.invoice.legal_entity_id for one in documents} == {"de-gmbh"}
    assert sorted((one.invoice for one in documents), key=lambda one: one.invoice_id) == flat
    assert flat == sorted(steps.undisturbed(root), key=lambda one: one.invoice_id)
    late = {one["customer_id"] for one in steps.usage if one["id"].startswith(("late", "gone"))}
    plain = [customer for customer in CUSTOMERS if customer not in late and not steps.asked[customer]]
    assert len(plain) > len(CUSTOMERS) // 2
    for customer in plain:
        mine = {one.period.label: (one,) for one in flat if one.customer_id == customer}
        assert mine == {label(number): folder.expected(customer, steps.usage, CONTRACTS, label(number)) for number in range(month)}
    assert {line.kind for one in flat for line in one.lines} == {"usage", "fee", "delta"}
    told = [value for part in installations.values(place, topics.EXCEPTIONS, PARTITIONS) for value in part]
    assert codecs.own("exception").decode(pa.array(told, pa.large_binary())).batch["kind"].to_pylist() == ["command_refused"] * steps.refused
    found = proofs(place)
    assert Counter(one["flow"] for one in found) == {"usage": PARTITIONS, "invoicing": PARTITIONS, "document": 1}
    assert [one["breaks"] for one in found] == [[]] * len(found)
