"""The client's settings, and docs/security.md: what it lists is what the code does."""

import re
from pathlib import Path

import pytest
from confluent_kafka.admin import AclOperation, AdminClient

from flows import invoicing_topics, kafka_topics, rights, route_topics, settings
from flows.cells import CellError
from flows.settings import client_settings
from sinks.kafka import _WRITE
from sources.kafka import _READ
from tests.kafka.secured import Authority
from tieout.usage_stage import Limits

DOCUMENT = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
LOOK = {AclOperation.READ, AclOperation.WRITE}


def file_of(tmp_path, text):
    file = tmp_path / "client.properties"
    file.write_text(text)
    return str(file)


def test_lines_are_passed_through_as_they_stand(tmp_path):
    found = client_settings("kafka:9093", file_of(tmp_path, "# ours\n\nsasl.password = a=b #c \n  ssl.ca.location=/tls/ca.crt\n"))
    assert found == {"bootstrap.servers": "kafka:9093", "log_level": "2", "sasl.password": "a=b #c", "ssl.ca.location": "/tls/ca.crt"}
    assert client_settings("kafka:9093", file_of(tmp_path, "log_level=6"))["log_level"] == "6"


@pytest.mark.parametrize("name", sorted(settings.OWN | settings.OBJECTS))
def test_a_name_that_is_not_the_users_to_set_is_refused_with_its_line(tmp_path, name):
    with pytest.raises(CellError, match=f"line 2: '{re.escape(name)}'.*take the line out"):
        client_settings("kafka:9093", file_of(tmp_path, f"security.protocol=SSL\n{name}=x\n"))


def test_the_document_lists_the_names_that_are_refused():
    part = section("Names that are refused")
    assert {name for row in part.splitlines() if row.startswith("| `") for name in re.findall(r"`([^`]+)`", row.split("|")[1])} == settings.OWN | settings.OBJECTS
    overruled = {name for name in _WRITE | _READ if name not in settings.OWN}
    patterns = [name.replace(".", r"\.").replace("*", ".*") for name in re.findall(r"`([^`]+)`", part[part.index("Batching"):])]
    assert {name for name in overruled if not any(re.fullmatch(pattern, name) for pattern in patterns)} == set()


@pytest.mark.parametrize("flow", sorted(rights.NEEDED))
def test_the_document_lists_the_rights_that_are_checked(flow):
    rows = [[cell.strip() for cell in row.split("|")[1:4]] for row in section("Rights").split(f"{flow.title()} flow")[1].split("flow (")[0].splitlines() if row.startswith("| ")]
    listed = {name.strip("`"): set(operations.split(", ")) for kind, name, operations in rows if kind == "topic"}
    assert listed == {topic: spoken(needed) for topic, needed in rights.NEEDED[flow].items()}
    assert ["group", f"`tieout.{flow}`", "Read"] in rows
    assert ["transactional id, prefixed", f"`tieout.{flow}-`", "Write"] in rows


def spoken(needed):
    """Without Describe where it comes along."""
    return set(rights._words(needed - {AclOperation.DESCRIBE} if needed & LOOK else needed).split(", "))


def test_rights_are_checked_for_every_topic_whose_settings_are():
    of_usage = {spec.name for spec in (*kafka_topics.specs(Limits()), *kafka_topics.WHOLE)}
    trimmed = {spec.name for spec in (*kafka_topics.specs(Limits()), *route_topics.specs(Limits()), *invoicing_topics.specs(Limits())) if spec.trimmed}
    assert {topic for needed in rights.NEEDED.values() for topic, operations in needed.items() if AclOperation.DELETE in operations} == trimmed
    of_route = {spec.name for spec in (*route_topics.specs(Limits()), *route_topics.REFERENCE)}
    assert of_usage <= set(rights.NEEDED["usage"])
    assert {spec.name for spec in (*invoicing_topics.specs(Limits()), *kafka_topics.WHOLE, *route_topics.REFERENCE)} <= set(rights.NEEDED["invoicing"])
    assert of_route <= set(rights.NEEDED["route"])


@pytest.mark.parametrize("example", re.findall(r"```properties\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_client_takes_the_examples(tmp_path, example):
    authority = Authority(tmp_path, "authority")
    here = {"/etc/tieout/tls/ca.crt": authority.file, "/etc/tieout/tls/tls.crt": (own := authority.issue("cell")), "/etc/tieout/tls/tls.key": own}
    here |= {"https://login.example.com/oauth2/token": "http://127.0.0.1:9/token"}
    given = client_settings("127.0.0.1:9", file_of(tmp_path, example))
    assert AdminClient({name: str(here.get(value, value)) for name, value in given.items()}) is not None


def section(title):
    return re.split(r"\n#+ ", DOCUMENT.split(f"# {title}\n")[1])[0]
