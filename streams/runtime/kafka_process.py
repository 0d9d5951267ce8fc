"""Either kind of broker as a child process that can be started, killed and restarted on the same data and port.

Standard library only: infra/kafka/kafka runs it with the system's Python, before any environment exists.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[2]
KAFKA_FILES = ROOT / "infra" / "kafka"
POLL_S = 0.05
START_LIMIT_S = 90.0
METADATA, METADATA_VERSION = 3, 5


class BrokerError(Exception):
    """The broker cannot be started; the message says what to do."""


def free_port(span: int = 1) -> int:
    """A port of loopback that is free now, together with the `span` - 1 ports above it."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server((HOST, 0))).getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                for port in range(first + 1, first + span):
                    stack.enter_context(socket.create_server((HOST, port)))
                return first


def answers(port: int) -> bool:
    """Whether a broker on this port says by Kafka's Metadata request that it serves."""
    body = struct.pack(">hhihi?", METADATA, METADATA_VERSION, 1, -1, 0, False)
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as stream:
                (size,) = struct.unpack(">i", stream.read(4))
                brokers: int = struct.unpack_from(">i", stream.read(size), 8)[0]  # after correlation id, throttle time
                return brokers > 0
    except (OSError, struct.error):
        return False


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Broker:
    """A broker process over the folder `home`. `detached`: it outlives this process, and is found again by its pid."""

    name = ""

    def __init__(self, home: Path | str, port: int, detached: bool = False) -> None:
        self.home, self.port, self.detached = Path(home), port, detached
        self.log_path = self.home / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        """What has to be there before the process starts."""
        self.home.mkdir(parents=True, exist_ok=True)

    def pid(self) -> int | None:
        """The living process: our child, or for a detached one whoever its pid file names, if it is this program."""
        if self.process is not None:
            return self.process.pid if self.process.poll() is None else None
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.home / "pid").read_text())
            if self.name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return None

    def running(self) -> bool:
        return self.pid() is not None

    def start(self) -> None:
        """Starts and waits until the broker answers. Raises BrokerError. Nothing happens if it runs already."""
        if not self.running():
            self.launch()
            self.await_answer()

    def launch(self) -> None:
        """Starts the process, waits for nothing."""
        self.prepare()
        # the kernel sends that signal when the starting *thread* ends, so only the main thread may ask for it
        tied = not self.detached and threading.current_thread() is threading.main_thread()
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in a terminal reaches only who started it
                preexec_fn=_die_with_parent if tied else None,
            )
        (self.home / "pid").write_text(str(self.process.pid))

    def await_answer(self) -> None:
        """Waits until the broker answers. Raises BrokerError, and ends the process, where it does not."""
        deadline = time.monotonic() + START_LIMIT_S
        while not answers(self.port):
            if not self.running() or time.monotonic() > deadline:
                self.kill()
                raise BrokerError(f"the broker did not start: {self._last_line()} (log: {self.log_path})")
            time.sleep(POLL_S)

    def _last_line(self) -> str:
        lines = self.log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    def signal(self, number: int) -> None:
        """Sends a signal to the process if it lives (SIGSTOP and SIGCONT freeze and thaw it)."""
        if (pid := self.pid()) is not None:
            os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed or said goodbye to."""
        self.signal(signal.SIGKILL)
        self._wait(10.0)

    def stop(self, grace_s: float = 15.0) -> bool:
        """SIGTERM, SIGKILL after the grace; whether it was running."""
        if not self.running():
            return False
        self.signal(signal.SIGTERM)
        if not self._wait(grace_s):
            self.kill()
        (self.home / "pid").unlink(missing_ok=True)
        return True

    def _wait(self, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while self.running() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return not self.running()

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()


class DevelopmentBroker(Broker):
    """The development broker over the data folder `home`. Port 0: any free one, kept over restarts."""

    name = "streams.runtime.development_broker"

    def __init__(self, home: Path | str, port: int = 0, detached: bool = False) -> None:
        super().__init__(home, port or free_port(), detached)

    def command(self) -> list[str]:
        return [sys.executable, "-m", self.name, "--data", str(self.home.resolve()), "--port", str(self.port)]


class KafkaBroker(Broker):
    """Apache Kafka over `home` (its data, settings, log). Port 0: any free pair; the controller takes the next port.

    The jars are shared: `library`, or DPME_KAFKA_LIB, or .dpme/kafka/lib; fetched by Maven if they are missing.
    """

    name = "kafka.Kafka"

    def __init__(self, home: Path | str, port: int = 0, detached: bool = False, library: Path | str = "") -> None:
        super().__init__(home, port or free_port(2), detached)
        self.library = Path(library or os.environ.get("DPME_KAFKA_LIB", ROOT / ".dpme" / "kafka" / "lib")).resolve()
        self.settings = self.home / "server.properties"

    def command(self) -> list[str]:
        small = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        return ["java", *small, *self._java(self.name), str(self.settings.resolve())]

    def _java(self, main: str) -> list[str]:
        return ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{self.library}/*", main]

    def prepare(self) -> None:
        super().prepare()
        require("java")
        fetch_jars(self.library)
        for port in (self.port, self.port + 1):
            self._check_port(port)
        self.settings.write_text(self._settings_text())
        if not (self.home / "data" / "meta.properties").exists():
            tool = ["java", *self._java("kafka.tools.StorageTool")]
            _run([*tool, "format", *self._format_options(), "-c", str(self.settings)])

    def _settings_text(self) -> str:
        text = (KAFKA_FILES / "server.properties").read_text()
        marks = {"@CONTROLLER_PORT@": self.port + 1, "@PORT@": self.port, "@HOME@": self.home.resolve()}
        for mark, value in marks.items():
            text = text.replace(mark, str(value))
        return text

    def _format_options(self) -> list[str]:
        return ["--standalone", "-t", new_cluster_id()]

    def running_address(self) -> str:
        """Where the running broker listens, as its own settings say."""
        return self.settings.read_text().split("advertised.listeners=PLAINTEXT://")[1].split()[0]

    def _check_port(self, port: int) -> None:
        try:
            socket.create_server((HOST, port)).close()
        except OSError as error:
            advice = "stop what listens there, or choose another by DPME_KAFKA_PORT"
            raise BrokerError(f"port {port} is in use: {advice}") from error


# What three nodes change in server.properties. Measured: the broker session decides how long a dead broker stops
# everyone (acks=all waits for it); quorum timeouts of 500 ms elect a new controller again and again, 1000 do not.
CLUSTER_SETTINGS = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "controller.quorum.fetch.timeout.ms": "1000",
    "controller.quorum.election.timeout.ms": "1000",
}


class KafkaNode(KafkaBroker):
    """One of several nodes, broker and controller; `voters`: number of each node -> its broker port."""

    def __init__(
        self, home: Path | str, number: int, voters: dict[int, int], cluster_id: str, library: Path | str = ""
    ) -> None:
        super().__init__(home, voters[number], library=library)
        self.number, self.voters, self.cluster_id = number, voters, cluster_id

    def _settings_text(self) -> str:
        lines = super()._settings_text().splitlines()
        settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        del settings["controller.quorum.bootstrap.servers"]
        voters = ",".join(f"{number}@{HOST}:{port + 1}" for number, port in self.voters.items())
        own = {"node.id": str(self.number), "controller.quorum.voters": voters}
        return "".join(f"{name}={value}\n" for name, value in (settings | CLUSTER_SETTINGS | own).items())

    def _format_options(self) -> list[str]:
        return ["-t", self.cluster_id]


class KafkaCluster:
    """Three nodes of Apache Kafka under `home`, every record on all of them, two needed for an acknowledgement."""

    def __init__(self, home: Path | str, library: Path | str = "") -> None:
        voters = {number: free_port(2) for number in (1, 2, 3)}
        identity = new_cluster_id()
        self.nodes = [KafkaNode(Path(home) / str(n), n, voters, identity, library) for n in voters]

    @property
    def address(self) -> str:
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """All together: one alone has no majority. Raises BrokerError."""
        for node in self.nodes:
            if not node.running():
                node.launch()
        for node in self.nodes:
            node.await_answer()

    def stop(self) -> None:
        """Kills what does not end by itself: the last node finds no majority to say goodbye to."""
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.signal(signal.SIGTERM)
        for node in self.nodes:
            node.stop(grace_s=5.0)

    def __enter__(self) -> KafkaCluster:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()


def new_cluster_id() -> str:
    """As Kafka's own tool makes them: 16 random bytes, none that an option parser takes for an option."""
    while (made := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return made


def require(program: str) -> None:
    """Raises BrokerError if the program is not installed."""
    if shutil.which(program) is None:
        raise BrokerError(f"{program} is missing: apt install --no-install-recommends default-jre-headless maven")


def fetch_jars(library: Path) -> None:
    """Fetches Kafka's jars into `library` (45 MB, once), whole or not at all; to an older library what it lacks."""
    if any(library.glob("kafka-tools-[0-9]*.jar")):
        return
    require("mvn")
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        jars = Path(folder) / "lib"
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        _run(["mvn", "-q", "-B", "-f", str(KAFKA_FILES / "pom.xml"), *copy])
        with contextlib.suppress(OSError):  # another process may have been faster, or an older library is there
            jars.rename(library)
            return
        for jar in jars.iterdir():
            if not (library / jar.name).exists():
                jar.rename(library / jar.name)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise BrokerError(f"{Path(command[0]).name} failed: {said[0]}")
    return done.stdout.strip()
