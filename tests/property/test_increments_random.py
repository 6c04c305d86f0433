"""Rated records folded by columns equal a dull fold of one after the other, to the last digit."""

from datetime import UTC, datetime
from decimal import Decimal, localcontext

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalog
from tieout import ids
from tieout.increments import Divided, increments
from tieout.invoicing.records import DIGEST, UsageSum
from tieout.period import Calendar, micros

ZONES = {"c-utc": "UTC", "c-ny": "America/New_York", "c-granted": "Asia/Kathmandu"}
LABELS = ("2026-01", "2026-02", "2026-02-15")
STARTS = {  # local midnights, worked out by hand: New York is 5 h behind UTC in winter, Kathmandu 5:45 h ahead
    ("c-utc", "2026-01"): "2026-01-01T00:00:00", ("c-utc", "2026-02"): "2026-02-01T00:00:00", ("c-utc", "2026-02-15"): "2026-02-15T00:00:00",
    ("c-ny", "2026-01"): "2026-01-01T05:00:00", ("c-ny", "2026-02"): "2026-02-01T05:00:00", ("c-ny", "2026-02-15"): "2026-02-15T05:00:00",
    ("c-granted", "2026-01"): "2025-12-31T18:15:00", ("c-granted", "2026-02"): "2026-01-31T18:15:00", ("c-granted", "2026-02-15"): "2026-02-14T18:15:00",
}  # fmt: skip
SECOND = 1_000_000
CUTS = (1_767_000_000 * SECOND, 1_769_000_000 * SECOND, 1_771_200_000 * SECOND)
LARGE = 10**38 - 1


def start_of(contract, label):


    return micros(datetime.fromisoformat(STARTS[contract, label]).replace(tzinfo=UTC))


def divided(contract):
    return Divided(Calendar(time_zone=ZONES[contract]), CUTS if contract == "c-granted" else ())


def one_by_one(rows):
    """The specification: a record at a time."""
    found = {}
    for row in rows:
        start = start_of(row["contract_id"], row["billing_period"])
        cuts = [cut for cut in divided(row["contract_id"]).cuts if cut <= row["time"]]
        since = max([start, *cuts])
        cause = row["cause"]
        live = 0
        if cause["kind"] == "usage":
            live = 1
        elif cause["kind"] == "reprice":
            live = -1 if cause["from_version"] == row["contract_version"] else 1
        elif cause["kind"] == "correction" and (row["event"] is None or row["event"]["quantity"] is None):
            live = -1
        group = None if row["group"] is None else tuple(row["group"])
        one = UsageSum(row["charge_id"], group, start, row["contract_version"], since, row["quantity"], row["amount"], live, 1, int(row["rated_id"], 16))
        key = (row["contract_id"], one.key)
        found[key] = found[key].plus(one) if key in found else one
    return [(contract, one) for (contract, _), one in found.items()]


@st.composite
def records(draw):
    contract, label = draw(st.sampled_from(sorted(ZONES))), draw(st.sampled_from(LABELS))
    charge, group = draw(st.sampled_from(["units", "tiers"])), draw(st.sampled_from([None, ("eu",), ("us", None)]))
    kind = draw(st.sampled_from(["usage", "reprice", "correction", "carry"]))
    version = draw(st.integers(1, 2))
    told = draw(st.sampled_from([None, {"quantity": None}, {"quantity": 7}]))
    return {
        "rated_id": f"{draw(st.integers(0, DIGEST - 1)):032x}", "correlation_id": ids.text((contract, charge, *(group or ("none",)), label)),
        "contract_id": contract, "contract_version": version, "charge_id": charge, "group": group, "billing_period": label, "kind": kind,
        "time": draw(st.sampled_from([cut + move for cut in CUTS for move in (-1, 0, 1)])), "quantity": draw(st.integers(-(10**28) + 1, 10**28 - 1)),
        "amount": draw(st.one_of(st.integers(-LARGE, LARGE), st.sampled_from([LARGE, -LARGE, 0]))), "event": told,
        "cause": {"kind": kind, "from_version": draw(st.sampled_from([None, 1, 2])) if kind == "reprice" else None},
    }


def table(rows):
    """As they come from the topic."""
    with localcontext(prec=60):
        made = [
            {
                "rated_id": row["rated_id"], "correlation_id": row["correlation_id"], "batch_id": "b", "usage": {"source": "s", "id": "e"},
                "cause": {"kind": row["cause"]["kind"], "ref": None, "ref_source": None, "from_version": row["cause"]["from_version"], "to_version": None},
                "customer_id": "k", "contract_id": row["contract_id"], "contract_version": row["contract_version"], "charge_id": row["charge_id"],
                "product_id": "p", "legal_entity_id": "l", "meter": "m", "group": None if row["group"] is None else list(row["group"]),
                "billing_period": row["billing_period"], "time": row["time"], "quantity": Decimal(row["quantity"]).scaleb(-9),
                "amount": Decimal(row["amount"]).scaleb(-12), "currency": "USD",
                "event": None if row["event"] is None else {"position": 0, "quantity": None if row["event"]["quantity"] is None else Decimal(7), "attributes": [], "contract_id": None, "amount": None},
            }
            for row in rows
        ]  # fmt: skip
        return pa.RecordBatch.from_pylist(made, schema=catalog.arrow_schema("rated_usage"))


@settings(deadline=None, max_examples=150)
@given(st.lists(records(), max_size=30), st.integers(0, 5))
def test_columns_equal_a_fold_of_one_record_after_the_other(rows, cut):
    made = [(one.contract_id, one.sum) for one in increments(table(rows).slice(cut), divided)]
    assert made == one_by_one(rows[cut:])
    assert all(one.currency == "USD" for one in increments(table(rows), divided))


def test_sums_of_the_largest_amounts_do_not_wrap():
    row = {
        "rated_id": "f" * 32, "correlation_id": "0" * 32, "contract_id": "c-utc", "contract_version": 1, "charge_id": "units", "group": None,
        "billing_period": "2026-01", "time": CUTS[0], "quantity": 10**28 - 1, "amount": LARGE, "event": None, "cause": {"kind": "usage", "from_version": None},
    }  # fmt: skip
    (found,) = increments(table([row] * 1000), divided)
    assert (found.sum.amount, found.sum.quantity, found.sum.live, found.sum.records) == (1000 * LARGE, 1000 * (10**28 - 1), 1000, 1000)
    assert found.sum.digest == 1000 * (DIGEST - 1) % DIGEST
