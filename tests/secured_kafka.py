"""Apache Kafka with a second listener that wants TLS and a password, its certificates made by the JDK's keytool."""

from __future__ import annotations

import subprocess
from pathlib import Path

from streams.runtime.kafka_process import HOST, KafkaBroker, free_port

USER, PASSWORD, MECHANISM = "dpme", "open-sesame-9f31", "SCRAM-SHA-256"
STORE_PASSWORD = "of-the-key-store"


class SecuredKafka(KafkaBroker):
    """PLAINTEXT on its port, as ever; SASL_SSL on `secured_address`; `authority` signed its certificate."""

    def __init__(self, home: Path | str) -> None:
        super().__init__(home, free_port(3))
        self.authority = self.home / "authority.pem"
        self.key_store = self.home / "keys.p12"

    @property
    def secured_address(self) -> str:
        return f"{HOST}:{self.port + 2}"

    def prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        make_authority(self.authority, self.key_store)
        address = ["-dname", "CN=broker", "-ext", f"san=ip:{HOST}", "-signer", "authority"]
        _keytool(self.key_store, "-genkeypair", "-alias", "broker", *_KEY, *address)
        _keytool(self.key_store, "-delete", "-alias", "authority")
        super().prepare()

    def _settings_text(self) -> str:
        lines = [
            line
            + {
                "listeners": f",SASL_SSL://{self.secured_address}",
                "advertised.listeners": f",SASL_SSL://{self.secured_address}",
                "listener.security.protocol.map": ",SASL_SSL:SASL_SSL",
            }.get(line.partition("=")[0], "")
            for line in super()._settings_text().splitlines()
        ]
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        secured = {
            "sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.sasl_ssl.{MECHANISM.lower()}.sasl.jaas.config": scram,
            "ssl.keystore.location": str(self.key_store.resolve()),
            "ssl.keystore.type": "PKCS12",
            "ssl.keystore.password": STORE_PASSWORD,
        }
        return "\n".join([*lines, *(f"{name}={value}" for name, value in secured.items())]) + "\n"

    def _format_options(self) -> list[str]:
        return [*super()._format_options(), "--add-scram", f"{MECHANISM}=[name={USER},password={PASSWORD}]"]


_KEY = ("-keyalg", "EC", "-groupname", "secp256r1")


def make_authority(certificate: Path, key_store: Path) -> None:
    """A certificate authority: its key in `key_store`, its certificate as PEM."""
    signs = ["-dname", "CN=authority", "-ext", "bc:c", "-ext", "ku=keyCertSign"]
    _keytool(key_store, "-genkeypair", "-alias", "authority", *_KEY, *signs)
    _keytool(key_store, "-exportcert", "-alias", "authority", "-rfc", "-file", str(certificate))


def _keytool(key_store: Path, *arguments: str) -> None:
    store = ["-keystore", str(key_store), "-storetype", "PKCS12", "-storepass", STORE_PASSWORD]
    done = subprocess.run(["keytool", *arguments, *store], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
