"""Invoices for tests: many small ones of several customers, legal entities and currencies, all different and seeded."""

import random
from datetime import date
from fractions import Fraction

import numpy as np

from flows import invoice_records
from tieout import ids
from tieout.invoicing.records import CreditUse, Invoice, Line, LineKey, TierUse
from tieout.period import Calendar, midnight

CURRENCIES = {"us-inc": "USD", "de-gmbh": "EUR", "jp-kk": "JPY"}
AT = midnight(date(2026, 2, 2), "UTC")
PERIOD = Calendar().containing(midnight(date(2026, 1, 1), "UTC"))


def invoice(number, rnd, entity=None, **more):
    """One document with a usage line in two tiers and its tax; now and then a credit note, or one that a grant paid for."""
    entity = entity or rnd.choice(sorted(CURRENCIES))
    customer, currency = f"k{rnd.randrange(40)}", CURRENCIES[entity]
    amount, tax = rnd.randrange(1, 10_000), rnd.randrange(100)
    sign = -1 if rnd.random() < 0.1 else 1
    key = LineKey(PERIOD.start_us, "tokens", ("eu",), "usage", (), PERIOD.start_us, entity, currency)
    tiers = (TierUse(10**12, (1000, 1), (sign * amount, 3)), TierUse(None, (1, 7), (0, 1)))
    lines = (
        Line(key, PERIOD.end_us, "2026-01", (1, 2), 10**9, sign * 10**12, Fraction(sign * amount, 3), sign * amount, "llm", "usage", tiers, "saas", 17, number, "usage", key.start_us, None, f"line-{number}"),
        Line(key._replace(kind="tax", ref=("saas",), group=None), PERIOD.end_us, "2026-01", (2,), 0, 0, Fraction(sign * tax), sign * tax, tax_code="saas", kind="tax", start_us=key.start_us, line_id=f"tax-{number}"),
    )
    total = sign * (amount + tax)
    paid = (CreditUse("g1", 1, 99),) if sign > 0 and rnd.random() < 0.3 else ()
    made = Invoice(
        f"inv-{number:06d}", "invoice" if sign > 0 else "credit_note", "final", customer, f"c-{customer}", entity, currency, PERIOD, "2026-02-02", "2026-03-04",
        lines, sign * amount, sign * tax, total, paid, total - len(paid), "standard", "Europe/Berlin",
    )  # fmt: skip
    return made._replace(**more)


def invoices(count, seed=1):
    """So many documents; every hundredth is a draft."""
    rnd = random.Random(seed)
    return [invoice(number, rnd, status="draft" if number % 100 == 99 else "final") for number in range(count)]


def by_partition(made, partitions):
    """Documents as topic records by the partition of their customers, a second apart."""
    found = {}
    for at, one in enumerate(made):
        found.setdefault(ids.partition_of(one.customer_id, partitions), []).append((one, AT + at * 1_000_000))
    return {partition: invoice_records.records([one for one, _ in pairs], np.array([at for _, at in pairs]).tolist()) for partition, pairs in sorted(found.items())}
