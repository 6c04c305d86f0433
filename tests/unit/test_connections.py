"""Which of a client's reports are a refusal and which pass by waiting; the texts are those of a real client and broker."""

from datetime import timedelta

import pytest
from confluent_kafka import KafkaError

from sinks import certificates
from sinks.connections import Connections, is_refusal
from tests.kafka.secured import Authority

AT = "sasl_ssl://127.0.0.1:9093/bootstrap: "
REFUSALS = [
    (KafkaError._AUTHENTICATION, AT + "SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 330ms in state AUTH_REQ)", "check sasl.mechanism and the user"),
    (KafkaError._AUTHENTICATION, AT + 'SASL authentication error: {"status":"invalid_token"} (after 303ms in state AUTH_REQ)', "password or token"),
    (KafkaError._AUTHENTICATION, AT + "SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: OAUTHBEARER", "check sasl.mechanism"),
    (KafkaError._AUTHENTICATION, 'Failed to acquire SASL OAUTHBEARER token: {"error": "invalid_client"}', "check sasl.oauthbearer"),
    (KafkaError._SSL, "ssl://nobody.invalid:9093/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified", "see that it has not expired, name its authority in ssl.ca.location"),
    (KafkaError._TRANSPORT, "ssl://nobody.invalid:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed", "the broker's certificate is not accepted"),
    (KafkaError._TRANSPORT, AT + "Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46", "does not accept this client's certificate"),
    (KafkaError._TRANSPORT, AT + "Receive failed: error:0A00045C:SSL routines::tlsv13 alert certificate required: SSL alert number 116", "in ssl.certificate.location"),
    (KafkaError._SSL, AT + "SSL handshake failed: error:0A000410:SSL routines::ssl/tls alert handshake failure: SSL alert number 40", "the TLS handshake fails"),
]
PASSING = [
    (KafkaError._TRANSPORT, AT + "Connect to ipv4#127.0.0.1:9093 failed: Connection refused (after 0ms in state CONNECT)"),
    (KafkaError._TRANSPORT, AT + "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 3ms in state SSL_HANDSHAKE)"),
    (KafkaError._SSL, AT + "SSL handshake failed: SSL transport error: Connection timed out"),
    (KafkaError._RESOLVE, AT + "Failed to resolve 'kafka:9093': Name or service not known (after 7ms in state CONNECT)"),
    (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"),
    (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Failed to connect to 127.0.0.1:9 after 0 ms: Could not connect to server"),
    (KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Could not resolve host: login.example.com"),
    (KafkaError._AUTHENTICATION, AT + "SASL SCRAM-SHA-512 mechanism handshake failed: Local: Broker transport failure: broker's supported mechanisms: (n/a)"),
]


@pytest.mark.parametrize(("code", "text", "words"), REFUSALS)
def test_a_failed_login_and_a_certificate_that_is_not_accepted_are_refusals_with_what_to_do(code, text, words):
    connections = Connections({})
    connections(KafkaError(code, text))
    assert words in connections.refusal()
    assert text.partition(" (after")[0] in connections.refusal()
    assert "(after" not in connections.refusal()


@pytest.mark.parametrize(("code", "text"), PASSING)
def test_a_broker_or_an_identity_provider_without_an_answer_is_no_refusal(code, text):
    assert not is_refusal(KafkaError(code, text))
    connections = Connections({})
    connections(KafkaError(code, text))
    assert connections.refusal() is None


def test_what_was_heard_is_forgotten_before_a_new_question_and_that_all_brokers_are_down_says_nothing():
    connections = Connections({})
    connections(KafkaError(*REFUSALS[0][:2]))
    connections(KafkaError(*PASSING[0]))
    connections(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert "invalid credentials" in connections.refusal()
    assert connections.last() == AT + "Connect to ipv4#127.0.0.1:9093 failed: Connection refused"
    connections.forget()
    assert (connections.refusal(), connections.last()) == (None, None)


def test_ones_own_certificate_is_judged_by_its_dates_and_not_by_its_authority(tmp_path):
    authority = Authority(tmp_path, "authority")

    def fault(file):
        return certificates.fault_of_own({"ssl.certificate.location": str(file), "ssl.key.location": str(file)})

    assert fault(authority.issue("cell")) is None
    assert fault(authority.issue("cell", timedelta(days=-1))) == "certificate has expired"
    assert fault(tmp_path / "nowhere.pem") is None
    assert certificates.fault_of_own({}) is None
