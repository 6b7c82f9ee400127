"""A judge's endpoint on this machine: real HTTP, and a rule instead of a model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Said = Mapping[str, str]
Reply = str | tuple[int, object]  # what the model says, or a status with a body
Rule = Callable[[Said], Reply]


@dataclass
class Served:
    """A running judge and what it was asked."""

    url: str = ""
    asked: list[Said] = field(default_factory=list)
    requests: list[Mapping[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@contextmanager
def serving(rule: Rule, gate: Callable[[], object] = lambda: None) -> Iterator[Served]:
    """An endpoint that answers by a rule of (question, true answer, A, B), once past the gate."""
    served, lock = Served(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            request = json.loads(self.rfile.read(length))
            said = json.loads(request["messages"][-1]["content"])
            with lock:
                served.asked.append(said)
                served.requests.append({"path": self.path, **request})
                served.keys.append(self.headers.get("Authorization"))
                served.at_once += 1
                served.most_at_once = max(served.most_at_once, served.at_once)
                reply = rule(said)
            gate()
            with lock:
                served.at_once -= 1
            status, body = (200, completion(reply)) if isinstance(reply, str) else reply
            self._send(status, body if isinstance(body, bytes) else json.dumps(body).encode())

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has gone
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def completion(text: str) -> dict[str, object]:
    """A chat completion as OpenAI writes it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "rule",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }


def refusal(status: int, code: str, text: str = "") -> tuple[int, object]:
    """An error as OpenAI writes it."""
    return status, {"error": {"message": text, "type": "error", "code": code, "param": None}}
