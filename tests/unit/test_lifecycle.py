"""From proposals and approvals to published versions, and every way in which one is refused."""

import json
from dataclasses import replace

import pytest

from flows import signing
from tests.governed import CHARGES, MINUTE, START, book, decide, document, key, propose, public, received, record
from tieout.contracts import instant
from tieout.governance import Command
from tieout.lifecycle import FATES, Lifecycle, Result
from tieout.period import micros
from tieout.reference import ReferenceBook


def run(commands, reference=None, fold=None):
    """The fold over commands, and what it came to."""
    fold = fold or Lifecycle(signing.verify)
    result = fold.step(received(commands), reference or book())
    assert sum(result.counts[fate] for fate in FATES) == result.counts["received"] == len(commands)
    return fold, result


def published(result):
    return [(version.contract_id, version.version) for version in result.published]


def codes(result):
    return [problem.code for refusal in result.refused for problem in refusal.problems]


def agreed(*documents):
    """Proposals and their approvals, in order."""
    return [command for given in documents for proposal in [propose(given)] for command in (proposal, decide(proposal))]


# what is published


def test_a_proposal_that_another_has_approved_is_published_with_who_when_and_the_state():
    given = document()
    _, result = run(agreed(given))
    (version,) = result.published
    assert (version.status, version.change.requested_by, version.change.approved_by) == ("active", "una", "ben")
    assert micros(version.recorded_at) == START + MINUTE  # when its approval was recorded
    assert version.charges[0].charge_id == "calls" and not result.refused


def test_a_proposal_alone_is_a_draft_and_publishes_nothing():
    fold, result = run([propose(document())])
    assert not result.published and not result.refused
    assert list(fold.contracts["c-acme"].proposals) == [1]


def test_an_approval_may_come_before_its_proposal():
    proposal = propose(document())
    assert published(run([decide(proposal), proposal])[1]) == [("c-acme", 1)]


def test_a_gap_in_the_numbers_waits_and_goes_on_when_it_is_filled():
    first, second, third = (agreed(document(number)) for number in (1, 2, 3))
    fold, result = run([*third, *first])
    assert published(result) == [("c-acme", 1)]
    assert published(run(second, fold=fold)[1]) == [("c-acme", 2), ("c-acme", 3)]


def test_every_kind_of_change_leaves_the_contract_in_its_state():
    changes = [
        document(1),
        document(2, "suspension", effective_from="2026-03-01T00:00:00Z"),
        document(3, "resumption", effective_from="2026-04-01T00:00:00Z"),
        document(4, "credit", effective_from="2026-04-02T00:00:00Z", credits=[{"grant_id": "g", "amount": "10"}]),
        document(5, "renewal", effective_from="2026-05-01T00:00:00Z"),
        document(6, "amendment", effective_from="2026-05-02T00:00:00Z"),
        document(7, "termination", effective_from="2026-06-01T00:00:00Z"),
        document(8, "credit", effective_from="2026-07-01T00:00:00Z"),
    ]
    result = run(agreed(*changes))[1]
    assert [version.status for version in result.published] == ["active", "suspended", "active", "active", "active", "active", "terminated", "terminated"]


def test_an_amendment_of_a_suspended_contract_leaves_it_suspended():
    given = [document(1), document(2, "suspension", effective_from="2026-03-01T00:00:00Z"), document(3, effective_from="2026-03-15T00:00:00Z")]
    assert run(agreed(*given))[1].published[-1].status == "suspended"


def test_a_backdated_amendment_that_ends_before_the_termination_is_taken():
    given = [document(1), document(2, "termination", effective_from="2026-06-01T00:00:00Z")]
    late = document(3, effective_from="2026-03-01T00:00:00Z", effective_to="2026-04-01T00:00:00Z")
    assert published(run(agreed(*given, late))[1])[-1] == ("c-acme", 3)


def test_a_renewal_may_begin_where_the_term_has_ended():
    given = [document(1, effective_to="2026-05-01T00:00:00Z"), document(2, "renewal", effective_from="2026-05-01T00:00:00Z")]
    assert run(agreed(*given))[1].published[-1].status == "active"


def test_recorded_time_never_goes_back():
    fold = Lifecycle(signing.verify)
    one, two = agreed(document()), agreed(document(contract_id="c-other"))
    fold.step(received(one, START + 10 * MINUTE), book())
    result = fold.step(received(two, START), book())
    assert micros(result.published[0].recorded_at) == START + 11 * MINUTE


def test_contracts_do_not_wait_for_each_other():
    bad = propose(document(contract_id="c-bad", customer_id="nobody"))
    reference = book(record("customer", "acme", {"aliases": {}, "tax_jurisdiction": None, "erp_ids": {}}))
    result = run([bad, decide(bad), *agreed(document())], reference)[1]
    assert published(result) == [("c-acme", 1)] and codes(result)[0] == "customer_unknown"


# repeats


@pytest.mark.parametrize("again", [propose(document()), propose(document(), author="cid", at=START + 5)])
def test_a_repeated_number_with_equal_content_is_ignored_as_draft_and_when_published(again):
    draft = run([propose(document()), again])[1]
    assert (draft.counts["repeated"], draft.refused) == (1, [])
    done = run([*agreed(document()), again])[1]
    assert (done.counts["repeated"], done.refused, len(done.published)) == (1, [], 1)


def test_an_approval_that_is_sent_twice_counts_once_before_and_after_it_is_published():
    proposal = propose(document(2))
    early = run([decide(proposal), decide(proposal), proposal, decide(proposal)])[1]
    assert (early.counts["accepted"], early.counts["repeated"]) == (2, 2)
    first = agreed(document())
    assert run([*first, first[1]])[1].counts["repeated"] == 1


def test_a_repeated_number_with_other_content_is_refused_as_draft_and_when_published():
    other = propose(document(charges=[]))
    assert codes(run([propose(document()), other])[1]) == ["version_conflict"]
    result = run([*agreed(document()), other])[1]
    assert codes(result) == ["version_conflict"] and len(result.published) == 1
    assert "is published with other content; propose the next number" in result.refused[0].message


# who may


def unsigned(command):
    return replace(command, signature=None)


@pytest.mark.parametrize(
    ("command", "code", "path"),
    [
        (unsigned(propose(document())), "signature_missing", "signature"),
        (propose(document(), signer="ben"), "signature_invalid", "signature"),
        (replace(propose(document()), reason="another"), "signature_invalid", "signature"),
        (replace(propose(document()), payload=json.dumps(document(charges=[]))), "signature_invalid", "signature"),
        (replace(propose(document()), signature=b"short"), "signature_invalid", "signature"),
        (propose(document(), author="mallory"), "author_unknown", "author"),
        (propose(document(), author="dot"), "key_missing", "author"),
        (unsigned(decide(propose(document()))), "signature_missing", "signature"),
        (decide(propose(document()), signer="una"), "signature_invalid", "signature"),
        (decide(propose(document()), "reject", author="mallory"), "author_unknown", "author"),
    ],
)
def test_a_command_without_its_authors_signature_is_refused(command, code, path):
    reference = book(record("user", "dot", {"name": "Dot", "public_key": None}))
    result = run([command], reference)[1]
    (refusal,) = result.refused
    assert (refusal.kind, [(problem.code, problem.path) for problem in refusal.problems]) == ("command_refused", [(code, path)])
    assert result.counts["refused"] == 1


def test_a_key_that_was_taken_back_signs_nothing_more_whatever_time_a_command_gives_itself():
    gone = record("user", "una", {"name": "una", "public_key": None}, valid_from=START, recorded_at=START, number=1)
    assert codes(run([propose(document(), at=START - 10)], book(gone))[1]) == ["key_missing"]


def test_a_new_key_takes_the_place_of_the_old_one():
    rotated = record("user", "una", {"name": "una", "public_key": public("una2")}, recorded_at=START, number=1)
    assert codes(run([propose(document())], book(rotated))[1]) == ["signature_invalid"]
    assert not run([propose(document(), signer="una2")], book(rotated))[1].refused


@pytest.mark.parametrize("early", [False, True])
def test_nobody_approves_a_proposal_of_their_own(early):
    proposal = propose(document())
    own = decide(proposal, author="una")
    fold, result = run([own, proposal] if early else [proposal, own])
    assert codes(result) == ["self_approved"] and not result.published
    assert result.refused[0].problems[0].path == "author"
    done = fold.step(received([decide(proposal)], position=5), book())
    assert published(done) == [("c-acme", 1)]
    assert [settled.refusal.problems[0].code for settled in done.settled] == ["self_approved"]


def test_an_approval_holds_for_what_was_approved_and_not_for_another_text_of_the_number():
    seen, other = propose(document()), propose(document(charges=[]))
    result = run([decide(seen), other])[1]
    assert not result.published
    whole = run([decide(seen), other, decide(other)])[1]
    assert published(whole) == [("c-acme", 1)] and codes(whole) == ["proposal_unknown"]


# rejections


def test_a_rejected_proposal_makes_room_for_another_of_its_number():
    bad, good = propose(document(charges=[])), propose(document())
    result = run([bad, decide(bad, "reject"), good, decide(good)])[1]
    assert published(result) == [("c-acme", 1)] and not result.refused


@pytest.mark.parametrize("early", [False, True])
def test_a_rejected_proposal_does_not_come_back_by_being_sent_again(early):
    proposal = propose(document())
    first = [decide(proposal, "reject"), proposal] if early else [proposal, decide(proposal, "reject")]
    fold, result = run([*first, proposal, decide(proposal), decide(proposal, "reject")])
    assert not result.published and codes(result) == ["proposal_closed"]
    assert result.counts["repeated"] == 2 and not fold.contracts["c-acme"].proposals


def test_what_is_published_is_neither_rejected_nor_approved_otherwise():
    first = agreed(document())
    result = run([*first, decide(first[0], "reject"), decide(propose(document(charges=[])))])[1]
    assert codes(result) == ["version_published", "version_published"] and len(result.published) == 1


@pytest.mark.parametrize(
    ("subject", "payload", "code"),
    [("c-acme", '{"proposal": "x"}', "subject_invalid"), ("c-acme/02", '{"proposal": "x"}', "subject_invalid"), ("c-acme/1", None, "payload_invalid"),
     ("c-acme/1", "[]", "payload_invalid"), ("c-acme/1", '{"proposal": 7}', "payload_invalid")],
)
def test_an_approval_names_a_version_and_a_proposal(subject, payload, code):
    command = signing.signed(Command("approve", "contract_version", subject, "ben", START, "r", payload), key("ben"))
    assert codes(run([command])[1]) == [code]


# documents


@pytest.mark.parametrize(
    ("given", "path", "code"),
    [
        (document(effective_to="2026-02-01T00:00:00Z"), "effective_to", "interval_empty"),
        (document(effective_to="2026-01-31T23:00:00-01:00"), "effective_to", "interval_empty"),
        (document(recorded_at="2026-01-01T00:00:00Z"), "recorded_at", "recorded_at_given"),
        (document(status="draft"), "status", "status_given"),
        (document(status="approved"), "status", "status_given"),
        (document(change={"approved_by": "ben"}), "change.approved_by", "approved_by_given"),
        (document(change={"requested_by": "ben"}), "change.requested_by", "requested_by_mismatch"),
        (document(rate_card={"rate_card_id": "list", "version": 1}), "charges", "charges_with_rate_card"),
        (document(overrides=CHARGES), "overrides", "overrides_without_rate_card"),
        (document(colour="red"), "colour", "unexpected_keyword_argument"),
        (document(currency="XXQ"), "currency", "value_error"),
        (document(charges=[CHARGES[0] | {"price": {"model": "per_unit", "unit_price": 0.01}}]), "charges.0.price.unit_price", "value_error"),
        (document(charges=[{"charge_id": "calls", "price": {"model": "per_unit", "unit_price": "1"}}]), "charges.0", "value_error"),
        ({name: value for name, value in document().items() if name != "customer_id"}, "customer_id", "missing"),
        (document(0), "version", "greater_than_equal"),
    ],
)
def test_a_document_that_cannot_be_taken_is_refused_with_its_path(given, path, code):
    result = run([propose(given)])[1]
    (refusal,) = result.refused
    assert refusal.kind == "proposal_refused"
    assert [(problem.path, problem.code) for problem in refusal.problems] == [(path, code)]
    assert refusal.customer_id == given.get("customer_id", "")


@pytest.mark.parametrize("payload", [None, "", "{", "[]", "7"])
def test_a_payload_that_is_no_document_is_refused(payload):
    command = signing.signed(Command("propose", "contract_version", "c-acme/1", "una", START, "r", payload), key("una"))
    assert codes(run([command])[1]) == ["payload_invalid"]


def test_a_document_about_another_version_than_its_command_is_refused():
    assert codes(run([propose(document(), subject="c-acme/2")])[1]) == ["subject_mismatch"]


def test_all_problems_of_a_document_are_told_at_once():
    result = run([propose(document(currency="XXQ", recorded_at="2026-01-01T00:00:00Z", effective_to="2026-01-01T00:00:00Z"))])[1]
    assert sorted(codes(result)) == ["interval_empty", "recorded_at_given", "value_error"]


# the order of changes

JUNE = {"effective_from": "2026-06-01T00:00:00Z"}
ACTIVE, SUSPENDED = [document(1)], [document(1), document(2, "suspension", effective_from="2026-03-01T00:00:00Z")]
ENDED = [document(1), document(2, "termination", effective_from="2026-03-01T00:00:00Z")]


@pytest.mark.parametrize(
    ("before", "given", "path", "code"),
    [
        ([], document(1, "amendment"), "change.kind", "change_not_new"),
        (ACTIVE, document(2, "new"), "change.kind", "change_not_first"),
        (ENDED, document(3, **JUNE), "effective_from", "contract_terminated"),
        (ENDED, document(3, effective_from="2026-02-15T00:00:00Z"), "effective_from", "contract_terminated"),
        (ENDED, document(3, "renewal", **JUNE), "effective_from", "contract_terminated"),
        (ENDED, document(3, "credit", effective_from="2026-02-15T00:00:00Z"), "effective_to", "states_mixed"),
        (SUSPENDED, document(3, effective_from="2026-02-15T00:00:00Z"), "effective_to", "states_mixed"),
        (SUSPENDED, document(3, "suspension", **JUNE), "effective_from", "not_active"),
        (ENDED, document(3, "suspension", **JUNE), "effective_from", "not_active"),
        (ACTIVE, document(2, "resumption", **JUNE), "effective_from", "not_suspended"),
        (ENDED, document(3, "resumption", **JUNE), "effective_from", "not_suspended"),
        ([*SUSPENDED, document(3, "termination", **JUNE)], document(4, "resumption", effective_from="2026-04-01T00:00:00Z"), "effective_from", "not_suspended"),
        (ENDED, document(3, "termination", **JUNE), "effective_from", "not_in_force"),
        (ACTIVE, document(2, "termination", effective_from="2026-01-01T00:00:00Z"), "effective_from", "not_in_force"),
        (ACTIVE, document(2, "termination", **JUNE, effective_to="2026-07-01T00:00:00Z"), "effective_to", "termination_ends"),
        (ACTIVE, document(2, "suspension", **JUNE, status="active"), "status", "status_mismatch"),
        (ACTIVE, document(2, customer_id="other"), "customer_id", "customer_changed"),
    ],
)
def test_a_change_that_does_not_fit_the_contracts_state_is_refused(before, given, path, code):
    result = run(agreed(*before, given))[1]
    assert len(result.published) == len(before)
    turned = [refusal for refusal in result.refused if refusal.kind == "proposal_refused"]
    assert [(problem.path, problem.code) for refusal in turned for problem in refusal.problems] == [(path, code)]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (document(3, effective_from="2026-03-15T00:00:00Z", effective_to="2026-04-01T00:00:00Z"), "suspended"),
        (document(3, effective_from="2026-04-01T00:00:00Z"), "active"),
        (document(3, effective_from="2026-02-15T00:00:00Z", effective_to="2026-03-01T00:00:00Z"), "active"),
    ],
)
def test_an_interval_ends_before_its_end(given, status):
    """A suspension of March: what touches it at either end has nothing to do with it."""
    march = document(2, "suspension", effective_from="2026-03-01T00:00:00Z", effective_to="2026-04-01T00:00:00Z")
    assert run(agreed(document(1), march, given))[1].published[-1].status == status


# parked behind a refusal


def test_an_approval_that_came_before_the_refusal_does_not_pass_on_either():
    bad = propose(document(2, "resumption", effective_from="2026-03-01T00:00:00Z"))
    good = propose(document(2, effective_from="2026-03-01T00:00:00Z"))
    fold, result = run([bad, decide(bad), *agreed(document(1)), good])
    assert published(result) == [("c-acme", 1)] and codes(result) == ["not_suspended"]
    assert published(fold.step(received([decide(good)], START + 60 * MINUTE, 9), book())) == [("c-acme", 2)]


def test_later_versions_wait_behind_a_refused_one_and_go_on_when_it_is_corrected():
    bad = propose(document(2, "resumption", effective_from="2026-03-01T00:00:00Z"))
    third = agreed(document(3, effective_from="2026-04-01T00:00:00Z"))
    fold, result = run([*agreed(document(1)), bad, *third])
    assert published(result) == [("c-acme", 1)] and codes(result) == ["not_suspended"]
    good = propose(document(2, effective_from="2026-03-01T00:00:00Z"))
    done = fold.step(received([good, decide(good)], START + 60 * MINUTE, 9), book())
    assert published(done) == [("c-acme", 2), ("c-acme", 3)]
    assert [settled.refusal.received.command for settled in done.settled] == [bad]
    assert "c-acme/2 was published" in done.settled[0].resolution


def test_an_approval_of_a_refused_proposal_does_not_pass_to_the_one_that_corrects_it():
    bad = propose(document(1, "amendment"))
    good = propose(document(1))
    result = run([bad, decide(bad), good])[1]
    assert codes(result) == ["change_not_new", "proposal_closed"] and not result.published


def test_a_refused_proposal_may_be_sent_again_when_what_was_missing_is_there():
    known = record("customer", "other", {"aliases": {}, "tax_jurisdiction": None, "erp_ids": {}})
    proposal = propose(document())
    fold, result = run([proposal], book(known))
    assert codes(result) == ["customer_unknown"]
    acme = record("customer", "acme", {"aliases": {}, "tax_jurisdiction": None, "erp_ids": {}})
    done = fold.step(received([proposal, decide(proposal)], START + 60 * MINUTE, 9), book(known, acme))
    assert published(done) == [("c-acme", 1)] and len(done.settled) == 1


# references

ENTITY = record("legal_entity", "default", {"name": "Default", "currency": "USD"})
CUSTOMER = record("customer", "acme", {"aliases": {}, "tax_jurisdiction": "DE", "erp_ids": {}})
PRODUCT = record("product", "llm", {"name": "LLM", "tax_code": "saas"})
WITH_PRODUCT = [CHARGES[0] | {"product_id": "llm", "legal_entity_id": "de"}]


def tax(where, code="saas"):
    return record("tax_rate", f"{where} {code}", {"jurisdiction": where, "tax_code": code, "rate_percent": "19"})


def mapping(role, entity="default"):
    return record("account_mapping", f"{entity} {role}", {"legal_entity_id": entity, "role": role, "account": "1200"})


@pytest.mark.parametrize(
    ("known", "given", "expected"),
    [
        ([record("customer", "other", {})], document(), [("customer_id", "customer_unknown")]),
        ([record("customer", "acme", {}, valid_from=micros(instant("2026-02-02T00:00:00Z")))], document(), [("customer_id", "customer_unknown")]),
        ([record("legal_entity", "us", {"name": "US", "currency": "USD"})], document(), [("legal_entity_id", "legal_entity_unknown")]),
        ([ENTITY], document(charges=WITH_PRODUCT), [("charges.0.legal_entity_id", "legal_entity_unknown")]),
        ([record("product", "other", {"name": "O", "tax_code": None})], document(charges=WITH_PRODUCT), [("charges.0.product_id", "product_unknown")]),
        ([record("meter", "tokens", {"unit": "1"})], document(), [("charges.0.meter", "meter_unknown")]),
        ([mapping("receivable")], document(), [("legal_entity_id", "account_unmapped")]),
        ([mapping("receivable", "us"), mapping("revenue", "us")], document(), [("legal_entity_id", "account_unmapped")]),
        ([mapping("receivable"), mapping("revenue")], document(), []),
        ([ENTITY, record("exchange_rate", "e", {"from_currency": "GBP", "to_currency": "USD", "rate": "1.2"})], document(currency="EUR"), [("currency", "exchange_rate_unknown")]),
        ([ENTITY, record("exchange_rate", "e", {"from_currency": "EUR", "to_currency": "USD", "rate": "1.1"})], document(currency="EUR"), []),
        ([ENTITY], document(currency="EUR"), []),
        ([CUSTOMER, PRODUCT, tax("FR")], document(charges=WITH_PRODUCT), [("charges.0.product_id", "tax_code_unknown")]),
        ([CUSTOMER, PRODUCT, tax("DE", "goods")], document(charges=WITH_PRODUCT), [("charges.0.product_id", "tax_code_unknown")]),
        ([CUSTOMER, PRODUCT, tax("DE")], document(charges=WITH_PRODUCT), []),
        ([PRODUCT, tax("FR")], document(charges=WITH_PRODUCT), []),
        ([], document(charges=WITH_PRODUCT), []),
    ],
)
def test_what_a_version_refers_to_must_be_in_the_reference_data_where_that_has_such_things(known, given, expected):
    result = run(agreed(given), book(*known))[1]
    turned = [refusal for refusal in result.refused if refusal.kind == "proposal_refused"]
    assert [(problem.path, problem.code) for refusal in turned for problem in refusal.problems] == expected
    assert len(result.published) == (0 if expected else 1)


# rate cards


def card(version, *charges, **more):
    return record("rate_card", "list", {"version": version, "charges": json.dumps(charges)}, **more)


TOKENS = {"charge_id": "tokens", "meter": "tokens", "price": {"model": "per_unit", "unit_price": "2"}}
CARD = {"rate_card_id": "list", "version": 1}
BARE = {name: value for name, value in document().items() if name != "charges"}


def test_a_rate_cards_charges_are_resolved_with_overrides_when_the_version_is_published():
    special = TOKENS | {"price": {"model": "per_unit", "unit_price": "1.5"}}
    given = BARE | {"rate_card": CARD, "overrides": [special]}
    (version,) = run(agreed(given), book(card(1, *CHARGES, TOKENS), card(2, TOKENS)))[1].published
    assert [(charge.charge_id, str(charge.price.unit_price)) for charge in version.charges] == [("calls", "0.01"), ("tokens", "1.5")]
    assert (version.rate_card.version, len(version.overrides)) == (1, 1)


def test_a_rate_card_that_changes_later_changes_nothing_that_is_published():
    given = BARE | {"rate_card": CARD}
    fold, result = run(agreed(given), book(card(1, TOKENS)))
    dearer = TOKENS | {"price": {"model": "per_unit", "unit_price": "3"}}
    again = fold.step(received(agreed(document(2, rate_card=CARD, charges=[])), START + 60 * MINUTE, 9), book(card(1, TOKENS), card(1, dearer, recorded_at=START, number=1)))
    assert [str(version.charges[0].price.unit_price) for version in (*result.published, *again.published)] == ["2", "3"]


@pytest.mark.parametrize(
    ("known", "more", "expected"),
    [
        ([], {}, [("rate_card", "rate_card_unknown")]),
        ([card(2, TOKENS)], {}, [("rate_card", "rate_card_unknown")]),
        ([card(1, TOKENS, valid_from=START)], {"effective_from": "2025-01-01T00:00:00Z"}, [("rate_card", "rate_card_unknown")]),
        ([card(1, TOKENS)], {"overrides": [TOKENS | {"charge_id": "tokenz"}]}, [("overrides.0.charge_id", "override_unknown")]),
        ([card(1, TOKENS)], {"overrides": [TOKENS, TOKENS]}, [("overrides.1.charge_id", "override_repeated")]),
        ([card(1, *CHARGES, TOKENS), record("meter", "calls", {"unit": "1"})], {}, [("rate_card.charges.tokens.meter", "meter_unknown")]),
        ([card(1, TOKENS), record("meter", "calls", {"unit": "1"})], {"overrides": [TOKENS]}, [("overrides.0.meter", "meter_unknown")]),
    ],
)
def test_a_rate_card_and_its_overrides_must_fit(known, more, expected):
    result = run([propose(BARE | {"rate_card": CARD} | more)], book(*known))[1]
    assert [(problem.path, problem.code) for refusal in result.refused for problem in refusal.problems] == expected


# others' commands


def test_a_command_of_another_kind_or_about_something_else_is_left_alone():
    release = Command("release", "partition", "usage-0", "ops", START, "mended")
    elsewhere = replace(decide(propose(document())), subject_type="invoice")
    result = run([release, elsewhere, replace(release, kind="unknown")])[1]
    assert result.counts["other"] == 3 and not result.refused


def test_the_statement_covers_every_field_and_the_digest_follows_it():
    command = propose(document())
    for changed in (
        replace(command, kind="approve"), replace(command, subject_type="x"), replace(command, subject_id="x"), replace(command, author="x"),
        replace(command, at=1), replace(command, reason="x"), replace(command, payload=None),
    ):
        assert changed.statement() != command.statement() and changed.digest() != command.digest()
        assert changed.command_id != command.command_id
    assert replace(command, signature=None).digest() == command.digest()


def test_the_statement_is_this():
    """These bytes are a promise: whoever signs elsewhere builds them from docs/contracts.md."""
    command = Command("approve", "contract_version", "c-é/1", "ben", 1_767_225_600_000_000, 'say "yes"', '{"proposal":"ab"}')
    expected = (
        'tieout command v1\n{"at":1767225600000000,"author":"ben","kind":"approve","payload":"{\\"proposal\\":\\"ab\\"}",'
        '"reason":"say \\"yes\\"","subject_id":"c-\\u00e9/1","subject_type":"contract_version"}'
    )
    assert command.statement() == expected.encode()


def test_the_empty_fold_knows_nothing():
    result = Lifecycle(signing.verify).step([], ReferenceBook())
    assert result == Result()


def test_a_version_keeps_the_billing_calendar_of_its_contract():
    first = document()
    moved = document(version=2, change={"kind": "amendment"}, effective_from="2026-08-01T00:00:00Z", billing={"anchor_day": 15})
    _, result = run(agreed(first, moved))
    assert published(result) == [("c-acme", 1)]
    assert [(problem.path, problem.code) for refusal in result.refused for problem in refusal.problems] == [
        ("billing.anchor_day", "calendar_changed"), ("payload", "proposal_closed"),
    ]


@pytest.mark.parametrize(
    ("second", "refused"),
    [
        ({"effective_from": "2026-08-01T00:00:00Z"}, []),
        ({"effective_from": "2026-08-02T00:00:00Z"}, [("currency", "currency_changed")]),
        ({"effective_from": "2026-08-01T00:00:00Z", "effective_to": "2026-09-15T00:00:00Z"}, [("currency", "currency_changed")]),
        ({"effective_from": "2026-08-01T00:00:00Z", "commitments": [{"commitment_id": "m", "amount": "5"}]}, [("commitments.0.commitment_id", "currency_changed")]),
        ({"effective_from": "2026-08-01T00:00:00Z", "commitments": [{"commitment_id": "n", "amount": "5"}]}, []),
    ],
)
def test_a_contract_changes_its_currency_with_a_billing_period_or_not_at_all(second, refused):
    first = document(commitments=[{"commitment_id": "m", "amount": "5"}])
    changed = document(version=2, change={"kind": "amendment"}, currency="EUR", **({"commitments": []} | second))
    _, result = run(agreed(first, changed))
    told = [(problem.path, problem.code) for refusal in result.refused if refusal.kind == "proposal_refused" for problem in refusal.problems]
    assert (told, len(result.published)) == (refused, 1 if refused else 2)


@pytest.mark.parametrize(("given", "terms"), [({}, 45), ({"billing": {"payment_terms_days": 10}}, 10)])
def test_a_version_that_does_not_say_its_payment_terms_is_published_with_the_customers(given, terms):
    facts = book()
    facts.learn([record("customer", "acme", {"tax_jurisdiction": None, "payment_terms_days": 45})])
    _, result = run(agreed(document(**given)), facts)
    assert result.published[0].billing.payment_terms_days == terms
