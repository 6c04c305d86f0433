"""Whose usage it is: aliases by system and by time, against a plain reading of the rule."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tieout import ids
from tieout.aliases import Aliases, CustomerRecord

FEBRUARY, MARCH, APRIL = 200, 300, 400


def record(customer, aliases, valid_from=0, valid_to=None, recorded_at=0, position=0):
    return CustomerRecord(customer, aliases, valid_from, valid_to, recorded_at, (0, position))


def whose(known, *rows):
    """The customers of rows (id, source, time); those that an id names, where it is not one."""
    columns = list(zip(*rows, strict=True))
    found = known.resolve(pa.array(columns[0]), pa.array(columns[1]), np.array(columns[2]))
    meant = [found.several.get(row) or found.customers[code] for row, code in enumerate(found.codes.tolist())]
    assert found.changed.tolist() == [customer != name for customer, name in zip(meant, columns[0], strict=True)]
    return meant


def known(*records):
    aliases = Aliases()
    aliases.learn(records)
    return aliases


def test_an_alias_is_its_customer_from_any_source():
    aliases = known(record("acme", {"crm": "0017", "billing": "A-9"}))
    assert whose(aliases, ("0017", "gateway", 5), ("A-9", "crm", 5), ("acme", "crm", 5), ("globex", "crm", 5)) == ["acme", "acme", "acme", "globex"]


def test_an_alias_holds_for_its_time_only():
    aliases = known(record("acme", {"crm": "0017"}, FEBRUARY, MARCH), record("globex", {"crm": "0017"}, MARCH))
    rows = [("0017", "crm", time) for time in (FEBRUARY - 1, FEBRUARY, MARCH - 1, MARCH, APRIL)]
    assert whose(aliases, *rows) == ["0017", "acme", "acme", "globex", "globex"]


def test_the_record_that_became_known_last_governs_its_time_alone():
    aliases = known(record("acme", {"crm": "new"}, MARCH, None, 20), record("acme", {"crm": "old"}, 0, None, 10))
    assert whose(aliases, ("old", "s", FEBRUARY), ("old", "s", MARCH), ("new", "s", FEBRUARY), ("new", "s", MARCH)) == ["acme", "old", "new", "acme"]


def test_of_two_records_of_one_instant_the_later_in_the_log_counts():
    first, second = record("acme", {"crm": "a"}, position=1), record("acme", {"crm": "b"}, position=2)
    assert whose(known(second, first), ("a", "s", 1), ("b", "s", 1)) == ["a", "acme"]


def test_an_earlier_record_is_in_force_again_after_a_later_ones_end():
    aliases = known(record("acme", {"crm": "a"}), record("acme", {"crm": "b"}, FEBRUARY, MARCH, 1))
    assert whose(aliases, *(("a", "s", time) for time in (0, FEBRUARY, MARCH))) == ["acme", "a", "acme"]


def test_what_the_sources_own_system_says_comes_first_then_the_id_itself_then_what_others_agree_on():
    aliases = known(record("acme", {"crm": "1", "shop": "7"}), record("globex", {"erp": "1", "shop": "8"}), record("1", {"erp": "x"}))
    assert whose(aliases, ("1", "crm", 5), ("1", "erp", 5), ("1", "shop", 5), ("7", "erp", 5)) == ["acme", "globex", "1", "acme"]


def test_an_id_that_names_several_customers_names_none():
    aliases = known(record("acme", {"crm": "1"}), record("globex", {"erp": "1"}), record("initech", {"crm": "1"}, MARCH))
    assert whose(aliases, ("1", "shop", 5), ("1", "crm", 5), ("1", "crm", MARCH)) == [("acme", "globex"), "acme", ("acme", "initech")]


def test_what_is_learnt_later_holds_from_then_on():
    aliases = known(record("acme", {"crm": "1"}))
    assert whose(aliases, ("1", "s", 5)) == ["acme"]
    aliases.learn([record("acme", {}, recorded_at=1), record("globex", {"crm": "1"})])
    assert whose(aliases, ("1", "s", 5)) == ["globex"]


def test_an_empty_interval_says_nothing():
    assert whose(known(record("acme", {"crm": "1"}, MARCH, FEBRUARY)), ("1", "s", 250)) == ["1"]


CUSTOMERS, SYSTEMS, NAMES = ["a", "b", "c"], ["s", "t"], ["a", "b", "1", "2"]
RECORDS = st.builds(
    CustomerRecord, st.sampled_from(CUSTOMERS), st.dictionaries(st.sampled_from(SYSTEMS), st.sampled_from(NAMES)),
    st.integers(0, 6), st.none() | st.integers(0, 8), st.integers(0, 2), st.tuples(st.just(0), st.integers(0, 9)),
)
ROWS = st.tuples(st.sampled_from(NAMES), st.sampled_from([*SYSTEMS, "u"]), st.integers(-1, 9))


def plainly(records, name, source, time):
    """The rule, read event by event."""
    governing = {}
    for each in sorted(records, key=lambda each: (each.recorded_at, each.position)):
        if each.valid_from <= time and (each.valid_to is None or time < each.valid_to):
            governing[each.customer_id] = each
    called = {customer for customer, each in governing.items() if each.aliases.get(source) == name}
    if not called and name in governing:
        called = {name}
    if not called:
        called = {customer for customer, each in governing.items() if name in each.aliases.values()}
    return sorted(called) or [name]


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=8, unique_by=lambda each: each.position), st.lists(ROWS, min_size=1, max_size=8), st.integers(0, 8))
def test_columns_say_what_the_rule_says_however_records_come(records, rows, cut):
    aliases = Aliases()
    aliases.learn(records[cut:])
    whose(aliases, *rows)
    aliases.learn(records[:cut])
    expected = [plainly(records, *row) for row in rows]
    assert whose(aliases, *rows) == [names[0] if len(names) == 1 else tuple(names) for names in expected]


@settings(deadline=None)
@given(st.lists(st.text(max_size=12)), st.integers(1, 100), st.integers(0, 3))
def test_partitions_by_columns_are_those_of_single_keys(keys, partitions, skipped):
    column = pa.array(["skipped"] * skipped + keys, pa.string()).slice(skipped)
    assert ids.partitions_of(column, partitions).tolist() == [ids.partition_of(key, partitions) for key in keys]
