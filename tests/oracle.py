"""The oracle: what everything costs when it is priced once, with all facts known. Dull on purpose.

In: contract version and usage event documents (JSON shapes of docs/interfaces.md), in log order. Out: the charge of
each (contract, charge, group, billing period), and the fate of each event. Months in UTC only. It shares no rule with
the product: plain dicts, fractions and loops.
"""

from collections import defaultdict
from datetime import datetime, timedelta
from fractions import Fraction as F


def at(text):
    return datetime.fromisoformat(text)


def key(event):
    return event["customer_id"], event["source"], event["id"]


def content(event):
    return {name: value for name, value in event.items() if name not in ("id", "source") and value is not None and value != {}}


def governing(versions, contract_id, moment):
    found = [v for v in versions if v["contract_id"] == contract_id and at(v["effective_from"]) <= moment and (not v.get("effective_to") or moment < at(v["effective_to"]))]
    return max(found, key=lambda v: v["version"]) if found else None


def facts(versions, events):
    """Fates by row, and the live events with their final quantities (log position kept)."""
    fates = [None] * len(events)
    first = {}
    for row, event in enumerate(events):
        if key(event) in first:
            same = content(events[first[key(event)]]) == content(event)
            fates[row] = "duplicate" if same else "conflict"
        else:
            first[key(event)] = row
    plain = {key(e): (row, dict(e)) for row, e in enumerate(events) if fates[row] is None and not e.get("corrects") and not e.get("voids")}
    voided = set()
    for row, event in enumerate(events):
        if fates[row] is not None or not (event.get("corrects") or event.get("voids")):
            continue
        target = event.get("corrects") or event["voids"]
        name = (event["customer_id"], target["source"], target["id"])
        if name not in plain:
            fates[row] = "held"
            continue
        fates[row] = "priced"
        if event.get("voids"):
            voided.add(name)
        elif name not in voided:
            plain[name][1]["quantity"] = event["quantity"]
    # a correction that came before its original waits for it, and is applied right after it
    for name in voided:
        del plain[name]
    return fates, sorted(plain.values(), key=lambda item: item[0])


def month(moment):
    return f"{moment:%Y-%m}"


def month_span(label):
    start = at(f"{label}-01T00:00:00+00:00")
    return start, (start + timedelta(days=32)).replace(day=1)


def graduated(tiers, q, flat_at_zero=True):
    total, low = F(0), F(0)
    for i, (up, price, flat) in enumerate(tiers):
        if q > low or (i == 0 and (q > 0 or flat_at_zero)):
            total += flat
        if q > low:
            total += (q - low if up is None else min(q, up) - low) * price
        if up is None or q <= up:
            return total
        low = up
    raise AssertionError


def tiers_of(model):
    return [(None if t.get("up_to") is None else F(t["up_to"]), F(t.get("unit_price", t.get("rate_percent", "0"))) / (1 if "unit_price" in t else 100), F(t.get("flat_fee", "0"))) for t in model["tiers"]]


def model_price(model, q):
    kind = model["model"]
    if kind == "per_unit":
        return q * F(model["unit_price"])
    if kind in ("graduated", "graduated_percentage"):
        return graduated(tiers_of(model), q, model.get("flat_at_zero", True))
    if kind == "volume":
        if q == 0 and not model.get("flat_at_zero", True):
            return F(0)
        return next(q * price + flat for up, price, flat in tiers_of(model) if up is None or q <= up)
    if kind == "package":
        paid = q - F(model.get("free_units", "0"))
        if paid <= 0:
            return F(0)
        n = paid / F(model["size"])
        return (n.__floor__() if model.get("partial") == "down" else n.__ceil__()) * F(model["price"])
    raise AssertionError(kind)


def convert(charge, q):
    conversion = charge.get("unit_conversion")
    if not conversion:
        return q
    q = q / F(conversion["divide_by"]) if "divide_by" in conversion else q * F(conversion["multiply_by"])
    how = conversion.get("round", "none")
    return {"none": lambda: q, "ceil": lambda: F(q.__ceil__()), "floor": lambda: F(q.__floor__()), "half_up": lambda: F((q + F(1, 2)).__floor__())}[how]()


def chargeable(charge, q):
    return max(F(0), convert(charge, q) - F(charge.get("included_quantity", "0")))


def r12(x):
    scaled = abs(x) * 10**12
    whole = (scaled + F(1, 2)).__floor__()
    return F(-whole if x < 0 else whole, 10**12)


def p(charge, q):
    amount = model_price(charge["price"], chargeable(charge, max(q, F(0)))) * (1 - F(charge.get("discount_percent", "0")) / 100)
    amount = r12(amount)
    return amount if charge.get("maximum") is None else min(amount, F(charge["maximum"]))


def is_level(charge):
    aggregation = charge.get("aggregation", {"kind": "sum"})
    return aggregation["kind"] == "weighted_sum" or aggregation.get("carry_over", False)


def met(versions, event):
    """The contract, version and charges that an event meets with all facts known; None where it is held."""
    moment, attributes = at(event["time"]), event.get("attributes", {})
    contracts = sorted({v["contract_id"] for v in versions if v["customer_id"] == event["customer_id"]})
    if event.get("contract_id"):
        contracts = [name for name in contracts if name == event["contract_id"]]
    found = [(name, v) for name in contracts if (v := governing(versions, name, moment)) and any(c["meter"] == event["meter"] for c in v["charges"])]
    if len(found) != 1:
        return None
    name, version = found[0]
    if version.get("status", "active") in ("suspended", "terminated") and version.get("billing", {}).get("inactive_usage", "exception") != "price":
        return None
    passing = [c for c in version["charges"] if c["meter"] == event["meter"] and all(attributes.get(n) in allowed for n, allowed in c.get("filters", {}).items())]
    return (name, version, passing) if passing else None


def waiting(versions, events):
    """How many events wait for ever: what nothing prices, and corrections whose original never came."""
    fates, live = facts(versions, events)
    return fates.count("held") + sum(met(versions, event) is None for _, event in live)


def charges(versions, events, through=None):
    """The charge of each (contract, charge, group, period) that has live events; levels to the month of ``through``."""
    placed = defaultdict(list)
    for position, event in facts(versions, events)[1]:
        moment, attributes = at(event["time"]), event.get("attributes", {})
        found = met(versions, event)
        for charge in found[2] if found else ():
            group = tuple(attributes.get(name) for name in charge["group_by"]) if charge.get("group_by") else None
            placed[found[0], charge["charge_id"], group].append((moment, position, event, found[1]["version"], charge))
    totals = {}
    for place, found in placed.items():
        if is_level(found[0][4]):
            for label, amount in levels(place, versions, found, through).items():
                totals[*place, label] = amount
            continue
        for label in {month(moment) for moment, *_ in found}:
            totals[*place, label] = period_charge(found, label)
    return totals


def period_charge(found, label):
    inside = [item for item in found if month(item[0]) == label]
    charge = inside[0][4]
    kind = charge["price"]["model"]
    aggregation = charge.get("aggregation", {"kind": "sum"})["kind"]
    reset = charge.get("reset", "billing_period")
    if kind in ("percentage", "matrix"):
        walks = defaultdict(list)
        for item in inside:
            walks[item[3] if reset == "contract_version" else 0].append(item)
        return sum((walk(items) for items in walks.values()), F(0))
    versions = sorted({item[3] for item in inside})
    total = F(0)
    for version in versions:
        mine = [item for item in inside if item[3] == version]
        charge = mine[0][4]
        if aggregation in ("max", "latest", "unique_count"):
            total += kept(charge, aggregation, mine)
            continue
        below = [item for item in inside if item[3] < version]
        if reset == "contract_version":
            below = []
        if reset == "never":
            below += [item for item in found if month(item[0]) < label]
        quantity = (lambda item: F(1)) if aggregation == "count" else (lambda item: F(item[2]["quantity"]))
        b, s = sum(map(quantity, below), F(0)), sum(map(quantity, mine), F(0))
        total += p(charge, b + s) - (p(charge, b) if below else 0)
    return total


def levels(place, versions, found, through):
    """A level's charge in each month from its first event to the month of ``through``."""
    found = sorted(found, key=lambda item: item[:2])
    start, end = month_span(month(found[0][0]))
    level = F(found[0][4]["aggregation"].get("initial") or 0)
    last = max([item[0] for item in found] + [through])
    totals = {}
    while start <= last:
        inside = [item for item in found if start <= item[0] < end]
        governs = governing(versions, place[0], start)
        opening = None if governs is None else next((c for c in governs["charges"] if c["charge_id"] == place[1]), None)
        opener = (governs["version"], opening) if opening else (inside[0][3], inside[0][4]) if inside else None
        if opener:
            how = per_day if opener[1]["aggregation"].get("prorate") else per_month
            totals[month(start)] = how(place, versions, inside, level, opener, start, end)
        for item in inside:
            level = level_after(opener[1], level, item)
        start, end = end, month_span(month(end))[1]
    return totals


def level_after(charge, level, item):
    kind, quantity = charge["aggregation"]["kind"], F(item[2]["quantity"])
    return {"max": max(level, quantity), "latest": quantity, "count": level + 1}.get(kind, level + quantity)


def per_month(place, versions, inside, level, opener, start, end):
    kind = opener[1]["aggregation"]["kind"]
    if kind in ("max", "latest"):
        values = {opener[0]: (opener[1], level)}
        for item in inside:
            level = level_after(opener[1], level, item)
            values[item[3]] = (item[4], level)
        return sum((p(charge, value) for charge, value in values.values()), F(0))
    parts = [(opener[0], opener[1], level)]
    for item in inside:
        quantity = F(1) if kind == "count" else F(item[2]["quantity"])
        weight = F(int((end - item[0]).total_seconds()), int((end - start).total_seconds())) if kind == "weighted_sum" else F(1)
        parts.append((item[3], item[4], quantity * weight))
    total, below = F(0), None
    for version in sorted({part[0] for part in parts}):
        charge = [part[1] for part in parts if part[0] == version][-1]
        mine = sum((part[2] for part in parts if part[0] == version), F(0))
        total += p(charge, (below or 0) + mine) - (0 if below is None else p(charge, below))
        below = (below or 0) + mine
    return total


def per_day(place, versions, inside, level, opener, start, end):
    """Each day's closing level at 1/n of the unit prices; flats once, for the highest level."""
    days, sums, highest = (end - start).days, defaultdict(F), (F(-1), None)
    for day in range(days):
        morning = start + timedelta(days=day)
        today = [item for item in inside if morning <= item[0] < morning + timedelta(days=1)]
        governs = governing(versions, place[0], morning)
        charge = None if governs is None else next((c for c in governs["charges"] if c["charge_id"] == place[1]), None)
        for item in today:
            level = level_after(opener[1], level, item)
        if charge is None and not today:
            continue
        version, charge = (governs["version"], charge) if charge else (today[0][3], today[0][4])
        sums[version] += unrounded(without_flats(charge), level) / days
        if level > highest[0]:
            highest = (level, version, charge)
    if highest[1] is not None:
        sums[highest[1]] += unrounded(highest[2], highest[0]) - unrounded(without_flats(highest[2]), highest[0])
    by_version = {v["version"]: next(c for c in v["charges"] if c["charge_id"] == place[1]) for v in versions if any(c["charge_id"] == place[1] for c in v["charges"])}
    total = F(0)
    for version, amount in sums.items():
        most = by_version[version].get("maximum")
        total += r12(amount) if most is None else min(r12(amount), F(most))
    return total


def unrounded(charge, q):
    return model_price(charge["price"], chargeable(charge, max(q, F(0)))) * (1 - F(charge.get("discount_percent", "0")) / 100)


def without_flats(charge):
    model = charge["price"]
    if "tiers" not in model:
        return charge
    return charge | {"price": model | {"tiers": [tier | {"flat_fee": "0"} for tier in model["tiers"]]}}


def kept(charge, aggregation, mine):
    if aggregation == "unique_count":
        name = charge["aggregation"]["property"]
        return p(charge, F(len({item[2].get("attributes", {}).get(name) or "" for item in mine})))
    if aggregation == "latest":
        return p(charge, F(max(mine, key=lambda item: (item[0], item[1]))[2]["quantity"]))
    bucket = charge["aggregation"].get("bucket")
    tops = defaultdict(list)
    for moment, _, event, *_ in mine:
        place = None if bucket is None else moment.replace(minute=0, second=0, microsecond=0, **({"hour": 0} if bucket == "day" else {}))
        tops[place].append(F(event["quantity"]))
    return sum((p(charge, max(values)) for values in tops.values()), F(0))


def walk(items):
    items = sorted(items, key=lambda item: (item[0], item[2]["source"], item[2]["id"]))
    c, events, value, running = F(0), 0, F(0), F(0)
    for number, (_, _, event, _, charge) in enumerate(items):
        model = charge["price"]
        low, high = chargeable(charge, c), chargeable(charge, c + F(event["quantity"]))
        c += F(event["quantity"])
        if model["model"] == "matrix":
            amount = cell_price(model, event, high) - (cell_price(model, event, low) if number else 0)
        else:
            part = high - low
            events, value, before = events + 1, value + part, value
            free_events, free_amount = model.get("free_events"), model.get("free_amount")
            events_left, amount_left = free_events is None or events <= free_events, free_amount is None or value <= F(free_amount)
            amount = None
            if free_events is not None or free_amount is not None:  # each event's own version says what is left of the sums so far
                if events_left and amount_left:
                    amount = F(0)
                elif events_left:
                    part = value - max(before, F(free_amount))
            if amount is None:
                amount = part * F(model["rate_percent"]) / 100 + F(model.get("fixed_per_event") or 0)
                amount = max(amount, F(model.get("minimum_per_event") or 0))
                if model.get("maximum_per_event") is not None:
                    amount = min(amount, F(model["maximum_per_event"]))
        running_after = running + amount * (1 - F(charge.get("discount_percent", "0")) / 100)
        if charge.get("maximum") is not None:
            running_after = max(running, min(running_after, F(charge["maximum"])))
        running = running_after
    return r12(running)


def cell_price(model, event, q):
    attributes = event.get("attributes", {})
    found = [price for price in model["prices"] if all(attributes.get(n) == v for n, v in price["match"].items())]
    if not found:
        return q * F(model["default_unit_price"])
    best = max(found, key=lambda price: len(price["match"]))
    return q * F(best["unit_price"]) if "unit_price" in best else graduated(tiers_of(best), q)
