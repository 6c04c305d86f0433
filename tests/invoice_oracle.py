"""What a contract must be billed when everything is known: dull, line by line, in fractions; months in UTC.

Usage amounts are those of tests/oracle.py (event by event); everything after them is written out here a second time,
sharing no code of tieout/invoicing. Answers rows (period, kind, charge, rounded amount) and what each grant paid.
"""

from collections import defaultdict
from datetime import timedelta
from fractions import Fraction as F

from tests import oracle


def half_up(x, places):
    scaled = abs(x) * 10**places + F(1, 2)
    whole = scaled.numerator // scaled.denominator
    return F(-whole if x < 0 else whole, 10**places)


def split(total, weights, places):
    """Largest remainder over minor units, ties to the first."""
    unit = F(1, 10**places)
    exact = [total * w / sum(weights) for w in weights]
    parts = [(x / unit).__floor__() * unit for x in exact]
    order = sorted(range(len(weights)), key=lambda i: (-(exact[i] - parts[i]), i))
    for i in order[: int((total - sum(parts)) / unit)]:
        parts[i] += unit
    return parts


def months(first, last):
    label, out = first, []
    while label <= last:
        out.append(label)
        label = oracle.month(oracle.month_span(label)[1])
    return out


def bill(contract, events, last, places=2):
    """One version without an end; ``last`` is the last month that closes."""
    begin = oracle.at(contract["effective_from"])
    metered = contract | {"version": 1, "charges": [charge for charge in contract["charges"] if charge["price"]["model"] != "flat"]}
    usage = oracle.charges([metered], events, oracle.month_span(last)[1] - timedelta(microseconds=1))
    rows, memory = [], {}
    balance = {g["grant_id"]: F(g["amount"]) for g in contract.get("credits", [])}
    paid = defaultdict(F)
    for label in months(oracle.month(begin), last):
        start, end = oracle.month_span(label)
        lines = usage_lines(contract, usage, label) + fees(contract, begin, start, end)
        lines = [[kind, charge, half_up(exact, places)] for kind, charge, exact in lines]
        for charge in contract["charges"]:
            missing = F(charge.get("minimum") or 0) - sum(a for _, c, a in lines if c == charge["charge_id"])
            if charge.get("minimum") and missing > 0:
                lines.append(["minimum", charge["charge_id"], half_up(missing, places)])
        base = list(lines)
        for commitment in contract.get("commitments", []):
            lines += committed(commitment, begin, start, end, base, memory.setdefault(commitment["commitment_id"], {}), places)
        left = [a for _, _, a in lines]
        coupons = coupon_rows(contract, lines, left, start, places)
        rows += [(label, *line) for line in lines] + [(label, *row) for row in coupons]
        nets = [(charge, amount) for (kind, charge, _), amount in zip(lines, left, strict=True) if kind == "usage"]
        pay(contract, events, nets, start, end, balance, paid, places)
    return rows, {name: (paid[name], balance[name]) for name in balance}


def usage_lines(contract, usage, label):
    lines = []
    for charge in contract["charges"]:
        if charge["price"]["model"] == "flat":
            continue
        found = [amount for (_, name, _, month), amount in usage.items() if (name, month) == (charge["charge_id"], label)]
        lines += [("usage", charge["charge_id"], amount) for amount in found or [oracle.p(charge, F(0))]]
    return lines


def fees(contract, begin, start, end):
    lines = []
    for charge in contract["charges"]:
        if charge["price"]["model"] != "flat":
            continue
        whole_start, whole_end = (start, end) if charge.get("interval", "month") == "month" else (start.replace(month=1), start.replace(year=start.year + 1, month=1))
        first = max(begin, whole_start)
        due = start <= first < end if charge.get("timing") == "advance" else whole_end == end
        if due:
            days = (whole_end - whole_start).days
            covered = sum(1 for d in range(days) if whole_start + timedelta(days=d) >= first)
            lines.append(("fee", charge["charge_id"], F(charge["price"]["amount"]) * covered / days * (1 - F(charge.get("discount_percent", "0")) / 100)))
    return lines


def committed(commitment, begin, start, end, base, memory, places):
    """Months and calendar years; ``memory`` keeps the sums of the running interval and what is carried."""
    yearly = commitment.get("interval", "month") == "year"
    first = start.month == 1 or start <= begin if yearly else True
    if first:
        kept = memory.get("unused", F(0)) if commitment.get("rollover") else F(0)
        memory.update(used=F(0), unused=kept, carried=kept, drawn=F(0), over=F(0), relief=F(0))
    scope = commitment.get("scope", "contract")
    memory["used"] += sum(a for kind, charge, a in base if scope in ("contract", charge) and (kind != "fee" or commitment.get("includes_base_fee")))
    amount, used, carried = F(commitment["amount"]), memory["used"], memory["carried"]
    ends = end.month == 1 if yearly else True
    charge = None if scope == "contract" else scope
    rows = []
    if commitment.get("kind") == "prepaid":
        if first:
            rows.append(["commitment", charge, half_up(amount, places)])
        drawn = min(used, amount + carried)
        rows.append(["commitment", charge, half_up(-drawn, places) - half_up(-memory["drawn"], places)])
        memory.update(drawn=drawn, unused=amount + carried - drawn)
    else:
        if ends and used < amount:
            rows.append(["commitment", charge, half_up(amount - used, places)])
        relief = min(carried, max(F(0), used - amount))
        rows.append(["commitment", charge, half_up(-relief, places) - half_up(-memory["relief"], places)])
        memory.update(relief=relief, unused=carried - relief + (max(F(0), amount - used) if ends else 0))
    if commitment.get("overage_factor"):
        over = max(F(0), used - amount - carried) * (F(commitment["overage_factor"]) - 1)
        rows.append(["overage", charge, half_up(over, places) - half_up(memory["over"], places)])
        memory["over"] = over
    return [row for row in rows if row[2]]


def coupon_rows(contract, lines, left, start, places):
    rows = []
    coupons = contract.get("coupons", [])
    for coupon, kind in [(c, "percent") for c in coupons] + [(c, "amount") for c in coupons]:
        if coupon.get(kind) is None or (coupon.get("until") and start >= oracle.at(coupon["until"])) or sum(left) <= 0:
            continue
        off = half_up(sum(left) * F(coupon["percent"]) / 100 if kind == "percent" else min(F(coupon["amount"]), sum(left)), places)
        for place, part in enumerate(split(off, [max(a, F(0)) for a in left], places)):
            left[place] -= part
            if part:
                rows.append(("coupon", lines[place][1], -part))
    return rows


def pay(contract, events, nets, start, end, balance, paid, places):
    """One usage charge whose events all have the same unit price: each event's day decides which grants may pay."""
    grants = contract.get("credits", [])
    if not grants:
        return
    edges = sorted({start} | {oracle.at(g[name]) for g in grants for name in ("effective_from", "expires_at") if g.get(name) and start < oracle.at(g[name]) < end})
    order = sorted(range(len(grants)), key=lambda i: (grants[i].get("priority", 1), grants[i].get("expires_at") or "9", grants[i].get("kind") == "purchased", i))
    for charge, net in nets:
        parts = [F(0)] * len(edges)
        for event in events:
            if start <= oracle.at(event["time"]) < end:
                parts[max(i for i, edge in enumerate(edges) if edge <= oracle.at(event["time"]))] += F(event["quantity"])
        used = [i for i, part in enumerate(parts) if part] or [0]
        shares = split(max(net, F(0)), [parts[i] or F(1) for i in used], places)
        for i, share in zip(used, shares, strict=True):
            for g in (grants[n] for n in order):
                valid = oracle.at(g.get("effective_from") or contract["effective_from"]) <= edges[i] and (not g.get("expires_at") or edges[i] < oracle.at(g["expires_at"]))
                part = min(share, balance[g["grant_id"]]) if valid else F(0)
                share -= part
                balance[g["grant_id"]] -= part
                paid[g["grant_id"]] += part
    for g in grants:
        if g.get("expires_at") and oracle.at(g["expires_at"]) <= end:
            balance[g["grant_id"]] = F(0)
