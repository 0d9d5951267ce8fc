"""/healthz, /readyz and /metrics of a worker, from a thread of its own: they answer while the event loop does not.

/healthz   200 while the event loop comes round, 503 when it has been silent for long: restart the process
/readyz    200 when partitions are assigned, restored, and read to within a limit of the end; 503 with the reason
/metrics   Prometheus text
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from streams.runtime.exits import die
from streams.runtime.meter import Meter

SILENCE_LIMIT_S = 5.0
_TEXT = "text/plain; charset=utf-8"


class HealthServer:
    """Listens from construction to close(). Ends the process if the port is taken."""

    def __init__(self, host: str, port: int, meter: Meter) -> None:
        handler = type("Handler", (_Handler,), {"meter": meter})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            die(f"metrics_port {port} on {host}: {error.strerror}: choose another, or 0 for none")
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    meter: Meter

    def do_GET(self) -> None:
        status, kind, body = self._answer(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, path: str) -> tuple[int, str, bytes]:
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self.meter.registry)
        if path not in ("/healthz", "/readyz"):
            return 404, _TEXT, b"there are /healthz, /readyz and /metrics\n"
        reason = self._sick() or (self.meter.standing.not_ready() if path == "/readyz" else "")
        return (503, _TEXT, f"{reason}\n".encode()) if reason else (200, _TEXT, b"ok\n")

    def _sick(self) -> str:
        silence_s = self.meter.standing.loop_silence_s()
        return f"the event loop has been silent for {silence_s:.1f} s" if silence_s > SILENCE_LIMIT_S else ""

    def log_message(self, format: str, *arguments: object) -> None:
        """Probes come every few seconds: nothing to note."""
