"""Numbers follow each other without a gap in every legal entity's series."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieout import numbering


def dull(entities, last):
    """One document after the other."""
    given, after = [], dict(last)
    for entity in entities:
        after[entity] = after.get(entity, 0) + 1
        given.append(after[entity])
    return given, after


@given(st.lists(st.sampled_from(["us-inc", "de-gmbh", "jp-kk", ""])), st.dictionaries(st.sampled_from(["us-inc", "jp-kk", "br-sa"]), st.integers(1, 10**12)))
def test_numbers_are_those_of_counting_one_document_after_the_other(entities, last):
    found = numbering.number(pa.array(entities, pa.string()), last)
    assert (found.sequences.tolist(), found.last) == dull(entities, last)


def test_a_series_goes_on_where_it_stood_and_another_begins_at_one():
    found = numbering.number(pa.array(["us-inc", "de-gmbh", "us-inc"]), {"us-inc": 41})
    assert found.sequences.tolist() == [42, 1, 43]
    assert found.last == {"us-inc": 43, "de-gmbh": 1}


def test_a_number_names_its_entity_and_its_place_and_is_read_back():
    assert numbering.printed("us-inc", 42) == "us-inc-00000042"
    assert numbering.parsed("us-inc-00000042") == ("us-inc", 42)
    assert numbering.parsed(numbering.printed("a", 123_456_789)) == ("a", 123_456_789)


@pytest.mark.parametrize("text", ["", "us-inc", "us-inc-42", "-00000001", "us-inc-0000004x", "us-inc-000000042"])
def test_what_is_no_number_is_refused_with_how_one_looks(text):
    with pytest.raises(ValueError, match="one looks like us-inc-00000017"):
        numbering.parsed(text)
