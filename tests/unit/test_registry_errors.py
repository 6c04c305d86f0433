"""What a registry can answer, and what it means: away (records wait), refused (somebody has to act), unknown."""

import json
import socket
import ssl
import threading
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from schemas.errors import RegistryAway, RegistryError, RegistryRefused, UnknownSchema, UnusableSchema
from schemas.registry import Registry


@contextmanager
def serving(answers, context=None):
    """A server that answers every request with (status, text), or by the path's beginning."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, text = next(answers[path] for path in answers if self.path.startswith(path))
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def said(code, message="said"):
    return json.dumps({"error_code": code, "message": message})


ANSWERS = {
    "in trouble": (500, said(50001), RegistryAway, r"in trouble \(500: said\); records wait"),
    "a gateway's page": (503, "<html>", RegistryAway, "in trouble"),
    "too many requests": (429, said(42901), RegistryAway, "in trouble"),
    "no credentials": (401, said(401), RegistryRefused, "refuses the credentials"),
    "not allowed": (403, "", RegistryRefused, "refuses the credentials"),
    "nothing at this path": (404, said(404, "HTTP 404 Not Found"), RegistryRefused, "there is no registry at this address"),
    "a page of somebody else": (404, "<html>", RegistryRefused, "there is no registry at this address"),
    "a page that is fine": (200, "<html>hello</html>", RegistryRefused, "is no address of a registry"),
    "not acceptable": (406, said(406), RegistryRefused, r"refuses \(406: said\)"),
    "no such schema": (404, said(40403, "Schema not found"), UnknownSchema, "schema id 7 is not in the registry .*under 'refused' in the lock file"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_one_kind_of_failure_and_never_a_reason_to_reject_a_record(name):
    status, text, kind, message = ANSWERS[name]
    with serving({"/": (status, text)}) as url, closing(Registry(url)) as registry:
        with pytest.raises(RegistryError, match=message) as failure:
            registry.writer(7)
        assert type(failure.value) is kind


def test_an_unknown_id_is_asked_for_again_and_a_known_one_never():
    answers = {"/": (404, said(40403))}
    with serving(answers) as url, closing(Registry(url)) as registry:
        with pytest.raises(UnknownSchema):
            registry.writer(7)
        avro = {"type": "record", "name": "R", "fields": []}
        answers["/"] = (200, json.dumps({"schema": json.dumps(avro)}))
        assert registry.writer(7) == avro
        answers["/"] = (500, "")
        assert registry.writer(7) == avro


def test_nobody_listening_is_away():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with closing(Registry(url)) as registry, pytest.raises(RegistryAway, match=r"does not answer .*records wait"):
        registry.writer(7)


def test_a_registry_that_takes_the_question_and_says_nothing_is_away():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with closing(Registry(url, {"timeout": 0.1})) as registry, pytest.raises(RegistryAway, match="does not answer"):
            registry.writer(7)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"schemaType": "PROTOBUF", "schema": "message M {}"}, "schema id 7 is PROTOBUF, not Avro"),
        ({"schema": "nonsense"}, "schema id 7 cannot be read as Avro"),
        ({"schema": '{"type": "record"}'}, "schema id 7 cannot be read as Avro"),
        ({"schema": '"string"'}, "schema id 7 is no record"),
        ({"schema": '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Gone"}]}'}, "cannot be read as Avro: Gone"),
    ],
)
def test_a_schema_that_nobody_can_read_avro_with_is_about_the_data(answer, message):
    with serving({"/": (200, json.dumps(answer))}) as url, closing(Registry(url)) as registry, pytest.raises(UnusableSchema, match=message):
        registry.writer(7)


def test_types_of_other_subjects_are_written_out_each_once():
    def version(avro, **more):
        return 200, json.dumps({"subject": "s", "id": 1, "version": 1, "schema": json.dumps(avro), **more})

    key = {"type": "record", "name": "Key", "namespace": "x", "fields": [{"name": "unit", "type": "x.Unit"}]}
    unit = {"type": "enum", "name": "Unit", "namespace": "x", "symbols": ["a"]}
    main = {"type": "record", "name": "E", "namespace": "x", "fields": [{"name": "first", "type": "Key"}, {"name": "second", "type": ["null", "Key"]}, {"name": "unit", "type": "Unit"}]}
    to_unit, to_key = {"name": "x.Unit", "subject": "unit-value", "version": 1}, {"name": "x.Key", "subject": "key-value", "version": 2}
    answers = {
        "/schemas/ids/7": (200, json.dumps({"schema": json.dumps(main), "references": [to_key, to_unit]})),
        "/subjects/key-value/versions/2": version(key, references=[to_unit]),
        "/subjects/unit-value/versions/1": version(unit),
        "/": (404, said(40401)),
    }
    with serving(answers) as url, closing(Registry(url)) as registry:
        found = registry.writer(7)
        first, second, third = (field["type"] for field in found["fields"])
        assert first == {"type": "record", "name": "x.Key", "fields": [{"name": "unit", "type": {"type": "enum", "name": "x.Unit", "symbols": ["a"]}}]}
        assert (second, third) == (["null", "x.Key"], "x.Unit")
    del answers["/subjects/unit-value/versions/1"]
    with serving(answers) as url, closing(Registry(url)) as registry, pytest.raises(UnusableSchema, match="refers to unit-value version 1, which is gone"):
        registry.writer(7)


def test_credentials_in_an_address_are_in_no_message():
    with serving({"/": (401, said(401))}) as url, closing(Registry(url.replace("//", "//ada:secret@"))) as registry:
        with pytest.raises(RegistryRefused) as failure:
            registry.writer(7)
        assert "secret" not in str(failure.value)
        assert "secret" not in registry.url


@pytest.mark.parametrize(
    ("url", "settings"),
    [("ftp://x", {}), ("http://[x", {}), ("http://x", {"no.such.setting": 1}), ("https://x", {"ssl.ca.location": "/nowhere/ca.pem"})],
)
def test_settings_that_cannot_be_are_refused_at_once(url, settings):
    with pytest.raises(RegistryRefused, match="repair its address or the settings"):
        Registry(url, settings)


@pytest.mark.parametrize("days", [-1, 1], ids=["expired", "of nobody known"])
def test_a_certificate_that_is_expired_or_of_nobody_known_is_refused_and_not_waited_for(tmp_path, days):
    authority, context = certificate(tmp_path, days)
    settings = {"ssl.ca.location": authority} if days < 0 else {}
    with serving({"/": (200, "{}")}, context) as url, closing(Registry(url, settings)) as registry, pytest.raises(RegistryRefused, match="its certificate is refused.*ssl.ca.location"):
        registry.writer(7)


def test_a_certificate_of_a_named_authority_is_taken(tmp_path):
    authority, context = certificate(tmp_path, 1)
    with serving({"/": (404, said(40403))}, context) as url, closing(Registry(url, {"ssl.ca.location": authority})) as registry, pytest.raises(UnknownSchema):
        registry.writer(7)


def certificate(folder, days):
    """A self-signed certificate that ends so many days from now: its file, and a server's context."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=9)).not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    whole, alone = folder / "server.pem", folder / "ca.pem"
    text = made.public_bytes(serialization.Encoding.PEM)
    alone.write_bytes(text)
    whole.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()) + text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(whole)
    return str(alone), context
