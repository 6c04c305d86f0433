"""A broker that lets nobody in unasked: TLS, client certificates, passwords, tokens of an identity provider, access control.

Its plaintext listener stays, and who comes through it may do everything: tests make topics and rights there.
"""

import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from flows import rights, topics
from flows.stack import loopback
from flows.stack.broker import Broker, Listener

PASSWORD = "correct horse"
REAUTHENTICATE_MS = 2000
"""How often clients of the password listener show again who they are."""
_AUDIENCE, _ISSUER, _KEY_ID = "kafka", "https://identity.test", "key-1"


class Authority:
    """Issues certificates, as files of a key and a certificate."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_text(_pem(self._sign(self.name, self._key.public_key(), timedelta(days=1), x509.BasicConstraints(True, None))))

    def issue(self, name, remains=timedelta(days=1)):
        """A certificate for a name and the loopback address, valid for so long from now on; expired where that is negative."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(_named(name), key.public_key(), remains, x509.SubjectAlternativeName([x509.IPAddress(ip_address(loopback.ADDRESS))]))
        file = self.folder / f"{name}-{certificate.serial_number}.pem"
        file.write_text(_private(key) + _pem(certificate))
        return file

    def _sign(self, subject, public, remains, extension):
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(self.name, subject, public, x509.random_serial_number(), now - timedelta(days=2), now + remains)
        return made.add_extension(extension, isinstance(extension, x509.BasicConstraints)).sign(self._key, hashes.SHA256())


class IdentityProvider:
    """Gives tokens to clients (OAuth 2, client credentials) from the moment on that it is started; the secret is ``PASSWORD``."""

    def __init__(self, folder):
        self._key = rsa.generate_private_key(65537, 2048)
        self.keys = folder / "jwks.json"
        public = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": _KEY_ID, "use": "sig", "alg": "RS256", "n": _number(public.n), "e": _number(public.e)}
        self.keys.write_text(json.dumps({"keys": [key]}))
        self.refused, self.lifetimes = set(), {}
        self._servers = []

    def serve(self, port=0):
        """Its token endpoint."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                client, _, secret = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode().partition(":")
                allowed = secret == PASSWORD and client not in provider.refused
                answer = provider._token(client) if allowed else {"error": "invalid_client", "error_description": f"{client} may not log in"}
                body = json.dumps(answer).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer((loopback.ADDRESS, port), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._servers.append(server)
        return f"http://{loopback.ADDRESS}:{server.server_port}/token"

    def _token(self, client):
        now, lifetime = int(time.time()), self.lifetimes.get(client, 3600)
        claims = {"sub": client, "iss": _ISSUER, "aud": _AUDIENCE, "iat": now, "exp": now + lifetime, "scope": "kafka"}
        signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "RS256", "kid": _KEY_ID}, claims))
        signature = _base64(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))
        return {"access_token": f"{signed}.{signature}", "token_type": "Bearer", "expires_in": lifetime}

    def close(self):
        for server in self._servers:
            server.shutdown()
            server.server_close()


class SecuredBroker(Broker):
    """``address(name)`` of a listener: PASSWORDS, TOKENS, CERTIFICATES, and EXPIRED, whose own certificate has."""

    def __init__(self, folder, authority, provider):
        self.authority, self.provider = authority, provider
        protocols = {"PASSWORDS": "SASL_SSL", "TOKENS": "SASL_SSL", "CERTIFICATES": "SSL", "EXPIRED": "SSL"}
        ports = loopback.free(len(protocols))
        self._ports = dict(zip(protocols, ports, strict=True))
        good, expired = authority.issue("broker"), authority.issue("broker", timedelta(days=-1))
        settings = {"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer", "super.users": "User:ANONYMOUS"}
        for name in protocols:
            settings |= _of_listener(name, {
                "ssl.keystore.type": "PEM", "ssl.keystore.location": expired if name == "EXPIRED" else good,
                "ssl.truststore.type": "PEM", "ssl.truststore.location": authority.file,
            })
        settings |= _of_listener("CERTIFICATES", {"ssl.client.auth": "required"})
        settings |= _of_listener("PASSWORDS", {
            "sasl.enabled.mechanisms": "SCRAM-SHA-512", "connections.max.reauth.ms": REAUTHENTICATE_MS,
            "scram-sha-512.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        })
        oauth = "org.apache.kafka.common.security.oauthbearer"
        settings |= _of_listener("TOKENS", {
            "sasl.enabled.mechanisms": "OAUTHBEARER", "connections.max.reauth.ms": 3_600_000,
            "oauthbearer.sasl.jaas.config": f"{oauth}.OAuthBearerLoginModule required;",
            "oauthbearer.sasl.server.callback.handler.class": f"{oauth}.OAuthBearerValidatorCallbackHandler",
            "oauthbearer.sasl.oauthbearer.jwks.endpoint.url": provider.keys.as_uri(),
            "oauthbearer.sasl.oauthbearer.expected.audience": _AUDIENCE, "oauthbearer.sasl.oauthbearer.expected.issuer": _ISSUER,
        })
        super().__init__(folder, listeners=[Listener(name, port, port, protocols[name]) for name, port in self._ports.items()], settings=settings)

    def environment(self):
        """Java's permission to read the provider's keys."""
        allowed = "org.apache.kafka.sasl.oauthbearer.allowed"
        return {"JAVA_TOOL_OPTIONS": f"-D{allowed}.urls={self.provider.keys.as_uri()} -D{allowed}.files={self.provider.keys}"}

    def address(self, listener):
        return f"{loopback.ADDRESS}:{self._ports[listener]}"

    def port_of(self, listener):
        return self._ports[listener]


def login(user, authority, **more):
    """Client settings of a user with a password."""
    given = {"security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": user, "sasl.password": PASSWORD}
    return given | {"ssl.ca.location": authority.file} | more


def certificate(file, authority):
    """Client settings of a user with a certificate."""
    return {"security.protocol": "SSL", "ssl.ca.location": authority.file, "ssl.certificate.location": file, "ssl.key.location": file}


def token(client, endpoint, authority, **more):
    """Client settings of a user of the identity provider."""
    given = {
        "security.protocol": "SASL_SSL", "ssl.ca.location": authority.file, "sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": client, "sasl.oauthbearer.client.secret": PASSWORD, "sasl.oauthbearer.token.endpoint.url": endpoint,
        "sasl.oauthbearer.scope": "kafka",
    }
    return given | more


def add_users(broker, *names):
    _alter(broker, [UserScramCredentialUpsertion(name, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), PASSWORD.encode()) for name in names])


def remove_user(broker, name):
    _alter(broker, [UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512)])


def _alter(broker, changes):
    client = AdminClient({"bootstrap.servers": broker.bootstrap})
    for answer in client.alter_user_scram_credentials(changes).values():
        answer.result()


def bindings(place, principal):
    """What docs/security.md says that a cell needs, and no more."""
    wanted = [
        (ResourceType.TOPIC, place.physical(topic), ResourcePatternType.LITERAL, operation)
        for topic, needed in rights.NEEDED[place.flow].items()
        for operation in (needed - {AclOperation.DESCRIBE} if needed & {AclOperation.READ, AclOperation.WRITE} else needed)
    ]
    wanted.append((ResourceType.GROUP, place.group_id, ResourcePatternType.LITERAL, AclOperation.READ))
    wanted.append((ResourceType.TRANSACTIONAL_ID, f"{place.installation}.{place.flow}-", ResourcePatternType.PREFIXED, AclOperation.WRITE))
    return [
        AclBinding(kind, name, pattern, f"User:{principal}", "*", operation, AclPermissionType.ALLOW) for kind, name, pattern, operation in wanted
    ]


def importing(place, principal):
    """What docs/security.md says that an import needs."""
    wanted = [(ResourceType.TOPIC, place.physical(topic), AclOperation.WRITE) for topic in (topics.USAGE, topics.CONTRACTS)]
    wanted.append((ResourceType.TRANSACTIONAL_ID, f"{place.installation}.{topics.INGRESS}", AclOperation.WRITE))
    return [AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{principal}", "*", operation, AclPermissionType.ALLOW) for kind, name, operation in wanted]


def _of_listener(name, settings):
    return {f"listener.name.{name.lower()}.{setting}": str(value) for setting, value in settings.items()}


def _named(name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate_):
    return certificate_.public_bytes(serialization.Encoding.PEM).decode()


def _private(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _base64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value):
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))
