"""What the HTTP edge answers and refuses, without a network: the application is called directly."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.base import Base
from models.catalog import attach_all
from models.registry import Registry
from serve.access import Keys
from serve.engine import Engine
from serve.guard import RAYS_HEADERS
from serve.memories import Memories
from serve.routes import application
from serve.service import Service
from tests.serve.people import NOBODY, PLACES, publish

CHAT = "/v1/chat/completions"
ADA = {"authorization": "Bearer adas-key"}
ALL = {"authorization": "Bearer master-key"}


class Server:
    """The application over a registry, called in an event loop of its own for each request."""

    def __init__(
        self,
        base: Base,
        folder: Path,
        keys: bool,
        body_bytes: int = 20_000,
        body_seconds: float = 60,
    ) -> None:
        self.registry: Registry = publish(folder / "registry", base)
        self.keys = folder / "keys.json"
        self.keys.write_text(json.dumps({"adas-key": ["ada", "ghost"], "master-key": "*"}))
        self.keys.chmod(0o600)
        memories = Memories(self.registry, base, 1 << 30)
        self.engine = Engine(base, attach_all(base), rows=4, waiting=4)
        self.app = application(
            Service(base, memories),
            self.engine,
            Keys(self.keys) if keys else None,
            body_bytes,
            body_seconds,
        )

    def __call__(
        self, method: str, path: str, host: str = "http://localhost", **arguments: Any
    ) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url=host) as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(send())

    def chat(
        self, model: str = "tiny-llama", headers: dict[str, str] = ALL, **body: Any
    ) -> httpx.Response:
        messages = [{"role": "user", "content": "Where is my dog?"}]
        full = {"model": model, "messages": messages, "max_tokens": 8, **body}
        return self("POST", CHAT, json=full, headers=headers)


@pytest.fixture(scope="module")
def server(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(base, tmp_path_factory.mktemp("server"), keys=True)
    yield server
    server.engine.close()


@pytest.fixture
def fresh(base: Base, tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def make(**settings: Any) -> Server:
        servers.append(Server(base, tmp_path, **{"keys": True, **settings}))
        return servers[-1]

    yield make
    for server in servers:
        server.engine.close()


def error(response: httpx.Response) -> tuple[int, Any, Any]:
    body = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert body["message"]
    return response.status_code, body["param"], body["code"]


def test_every_user_answers_under_their_own_memory(server: Server) -> None:
    answers = {}
    for user_id in [*PLACES, NOBODY]:
        response = server.chat(f"tiny-llama:{user_id}")
        assert response.status_code == 200
        answers[user_id] = response.json()["choices"][0]["message"]["content"]
        current = server.registry.current(user_id)
        expected = "none" if user_id == NOBODY else current.digest[:12]
        assert response.headers["x-milpa-memory"] == expected
    plain = server.chat()
    assert plain.headers["x-milpa-memory"] == "none"
    assert plain.json()["choices"][0]["message"]["content"] == answers[NOBODY]
    assert len(set(answers.values())) == len(answers)


def test_a_whole_answer_counts_its_tokens(server: Server, base: Base) -> None:
    body = server.chat("tiny-llama:ada").json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "tiny-llama:ada"
    prompt_tokens = len(base.prompt.prompt("Where is my dog?"))
    assert body["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 8,
        "total_tokens": prompt_tokens + 8,
    }
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream_says_what_the_whole_answer_says(server: Server, include_usage: bool) -> None:
    whole = server.chat("tiny-llama:ada").json()
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    response = server.chat("tiny-llama:ada", stream=True, **options)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-milpa-memory"] != "none"
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    if include_usage:
        assert chunks.pop()["usage"] == whole["usage"]
        assert all(chunk["usage"] is None for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]
    assert choices[-1]["finish_reason"] == "length"


def test_completions_continue_each_text(server: Server) -> None:
    def complete(prompt: object, **more: Any) -> httpx.Response:
        body = {"model": "tiny-llama:bob", "prompt": prompt, "max_tokens": 6, **more}
        return server("POST", "/v1/completions", json=body, headers=ALL)

    one, two = (complete(text).json()["choices"][0]["text"] for text in ("My dog", "I work"))
    both = complete(["My dog", "I work"]).json()
    assert [choice["text"] for choice in both["choices"]] == [one, two]
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["usage"]["completion_tokens"] == 12
    streamed = complete(["My dog", "I work"], stream=True).text.split("\n\n")
    texts = ["", ""]
    for line in streamed[:-2]:
        choice = json.loads(line.removeprefix("data: "))["choices"][0]
        texts[choice["index"]] += choice["text"]
    assert texts == [one, two]


def test_a_request_may_leave_out_all_it_can(server: Server, base: Base) -> None:
    messages = [{"role": "user", "content": "x"}]
    body = {"model": "tiny-llama", "messages": messages}
    usage = server("POST", CHAT, json=body, headers=ALL).json()["usage"]
    assert 0 < usage["total_tokens"] <= base.context


def test_models_are_those_of_the_key(server: Server) -> None:
    def listed(headers: dict[str, str]) -> list[str]:
        data = server("GET", "/v1/models", headers=headers).json()["data"]
        assert {model["object"] for model in data} == {"model"}
        return [model["id"] for model in data]

    assert listed(ADA) == ["tiny-llama", "tiny-llama:ada"]
    everybody = sorted([*PLACES, NOBODY])
    assert listed(ALL) == ["tiny-llama", *(f"tiny-llama:{user}" for user in everybody)]


def test_one_model_can_be_looked_up(server: Server) -> None:
    found = server("GET", "/v1/models/tiny-llama:a:b%2Fc%20%C3%BC", headers=ALL)
    assert found.json()["id"] == "tiny-llama:a:b/c ü"
    hidden = server("GET", "/v1/models/tiny-llama:bob", headers=ADA)
    assert error(hidden) == (404, "model", "model_not_found")


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": ""}])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/tiny-llama", CHAT, "/v1/completions"])
def test_without_a_valid_key_nothing_is_told(
    server: Server, path: str, headers: dict[str, str]
) -> None:
    method = "POST" if "completions" in path else "GET"
    response = server(method, path, headers=headers)
    assert error(response) == (401, None, "invalid_api_key")
    assert response.headers["www-authenticate"] == "Bearer"


def test_unknown_and_forbidden_users_look_the_same(server: Server) -> None:
    refusals = {}
    for user_id in ("bob", "ghost", "nowhere", NOBODY, "ada "):
        model = f"tiny-llama:{user_id}"
        response = server.chat(model, headers=ADA)
        assert error(response) == (404, "model", "model_not_found")
        told = {k: v for k, v in response.headers.items() if k != "content-length"}
        refusals[response.text.replace(model, "MODEL"), str(told)] = user_id
    assert len(refusals) == 1
    assert server.chat("tiny-llama:ada", headers=ADA).status_code == 200
    assert server.chat("tiny-llama", headers=ADA).status_code == 200


@pytest.mark.parametrize("model", ["gpt-4", "tiny-llama:", "tiny-llamaada", "tiny", ":ada", "ada"])
def test_other_models_do_not_exist(server: Server, model: str) -> None:
    assert error(server.chat(model)) == (404, "model", "model_not_found")


def test_absurd_limits_and_long_prompts_are_refused(server: Server, base: Base) -> None:
    assert error(server.chat(max_tokens=10**9)) == (400, "max_tokens", None)
    assert error(server.chat(max_completion_tokens=base.context))[1] == "max_completion_tokens"
    words = [{"role": "user", "content": "dog " * 500}]
    assert error(server.chat(messages=words)) == (400, "messages", "context_length_exceeded")
    for turns in ([{"role": "user", "content": ""}] * base.context, words * 5):
        assert error(server.chat(messages=turns)) == (400, "messages", "context_length_exceeded")
    body = {"model": "tiny-llama", "prompt": ["x", "dog " * 500]}
    response = server("POST", "/v1/completions", json=body, headers=ALL)
    assert error(response) == (400, "prompt", "context_length_exceeded")


def test_an_answer_ends_where_the_context_does(server: Server, base: Base) -> None:
    words = [{"role": "user", "content": "dog " * 35}]
    bodies = [server.chat(messages=words, max_tokens=120, seed=s, temperature=2) for s in range(9)]
    ends = [response.json()["usage"]["total_tokens"] for response in bodies]
    assert max(ends) <= base.context


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"not json", (400, None, "bad_json")),
        (b"[1, 2]", (400, None, None)),
        (b'{"model": "tiny-llama"}', (400, "messages", None)),
        (b'{"messages": [{"role": "user", "content": "x"}]}', (400, "model", None)),
        (b" " * 20_001, (413, None, "body_too_large")),
    ],
)
def test_bad_bodies_are_refused(
    server: Server, content: bytes, expected: tuple[int, Any, Any]
) -> None:
    assert error(server("POST", CHAT, content=content, headers=ALL)) == expected


def test_a_body_that_does_not_come_is_not_waited_for(fresh: Callable[..., Server]) -> None:
    server = fresh(body_seconds=0.05)

    async def half() -> AsyncIterator[bytes]:
        yield b'{"model": '
        await asyncio.Event().wait()

    assert error(server("POST", CHAT, content=half(), headers=ALL)) == (408, None, "body_too_slow")
    assert server.engine.load["running"] == 0


@pytest.mark.parametrize(
    "header", [{"X-Request-Disconnect-Disabled": "?1"}, {"x-request-timeout-seconds": "0"}]
)
def test_headers_that_ray_would_obey_are_refused(server: Server, header: dict[str, str]) -> None:
    assert next(iter(header)).lower() in RAYS_HEADERS
    assert error(server.chat(headers={**ALL, **header}))[0] == 400


def test_unknown_routes_and_methods_answer_in_openais_form(server: Server) -> None:
    assert error(server("GET", "/v2/nothing"))[0] == 404
    assert error(server("GET", CHAT))[0] == 405
    assert server("GET", "/docs").status_code == 404


def test_a_damaged_memory_is_never_a_silent_answer_of_the_base(
    fresh: Callable[..., Server],
) -> None:
    server = fresh()
    file = server.registry.current("ada").folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert error(server.chat("tiny-llama:ada")) == (422, "model", "memory_unusable")
    assert server.chat("tiny-llama:bob").status_code == 200


def test_a_damaged_pointer_hides_its_own_user_alone(fresh: Callable[..., Server]) -> None:
    server = fresh()
    name = hashlib.sha256(b"ada").hexdigest()
    (server.registry.folder / "users" / name[:2] / f"{name}.json").write_text("{")
    for headers in (ADA, ALL):
        listed = server("GET", "/v1/models", headers=headers)
        assert listed.status_code == 200
        assert "tiny-llama:ada" not in listed.text
    assert error(server.chat("tiny-llama:ada")) == (422, "model", "memory_unusable")


def test_who_is_withdrawn_is_unknown_from_then_on(fresh: Callable[..., Server]) -> None:
    server = fresh()
    assert server.chat("tiny-llama:ada").status_code == 200
    server.registry.withdraw("ada")
    assert error(server.chat("tiny-llama:ada"))[0] == 404
    assert "tiny-llama:ada" not in server("GET", "/v1/models", headers=ALL).text


def test_while_the_keys_are_unreadable_nobody_gets_in(fresh: Callable[..., Server]) -> None:
    server = fresh()
    server.keys.chmod(0o644)
    server.keys.write_text("{}")
    assert error(server.chat())[0] == 503


def test_a_full_line_and_a_stopped_engine_are_said(fresh: Callable[..., Server]) -> None:
    server = fresh()
    body = {"model": "tiny-llama", "prompt": ["x"] * 16, "max_tokens": 100}
    busy = server("POST", "/v1/completions", json=body, headers=ALL)
    assert error(busy) == (429, None, "queue_full")
    assert busy.headers["retry-after"] == "1"
    assert server.chat().status_code == 200
    assert server("GET", "/healthz").json()["status"] == "ok"
    server.engine.close()
    assert error(server("GET", "/healthz"))[0] == 503
    assert error(server.chat())[0] == 503


def test_without_keys_only_this_machine_is_answered(fresh: Callable[..., Server]) -> None:
    server = fresh(keys=False)
    assert server.chat("tiny-llama:bob", headers={}).status_code == 200
    for host in ("http://127.0.0.1:8000", "http://[::1]:8000", "http://app.localhost"):
        assert server("GET", "/v1/models", host).status_code == 200
    for host in ("http://evil.example", "http://192.168.0.2:8000", "http://localhost.evil.example"):
        assert error(server("GET", "/v1/models", host))[0] == 403
    for host in ("[", "[::1", "evil@[::1"):
        assert error(server("GET", "/v1/models", headers={"host": host}))[0] == 403
    for origin in ("http://evil.example", "null", "http://localhost:3000", "http://["):
        assert error(server("GET", "/", headers={"origin": origin}))[0] == 403
    own = {"origin": "http://localhost"}
    assert server("GET", "/", headers=own).status_code == 200


def test_the_page_needs_nothing_from_elsewhere(server: Server) -> None:
    response = server("GET", "/")
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "innerHTML" not in response.text


def test_nothing_of_a_request_is_logged(
    fresh: Callable[..., Server], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fresh()
    caplog.set_level(logging.DEBUG)
    secrets = ("ada says", "my dog", "adas-key", "tiny-llama:")
    server.chat("tiny-llama:ada", headers=ADA)
    server.chat("tiny-llama:ghost", headers=ADA)

    said = "ada says: where is my dog, adas-key"

    def broken(*_: object) -> None:
        raise LookupError(said)

    monkeypatch.setattr(server.registry, "current", broken)
    response = server.chat("tiny-llama:ada", headers=ADA)
    assert error(response)[0] == 500
    own = [r for r in caplog.records if r.name.startswith("serve")]
    assert any("LookupError" in record.getMessage() for record in own)
    assert not any(secret in caplog.text + response.text for secret in secrets)
