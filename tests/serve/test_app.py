"""The real thing: Ray Serve on loopback, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import pytest
import torch

from models.base import Base
from models.catalog import attach_all
from models.decoding import generate
from models.registry import BaseIdentity, Registry, UnknownUser
from serve.app import Settings, application, serve_registry
from tests.serve.people import NOBODY, PLACES, publish, state_of
from tests.tiny import save_tiny_base, tiny_model, tiny_tokenizer

ROOT = Path(__file__).parents[2]
QUESTION = "Where is my dog Rex?"
KEYS = {"adas-secret-key": ["ada"], "master-secret-key": "*"}
SERVER = """
import sys
from pathlib import Path
from serve.app import serve_registry
folder = Path(sys.argv[1])
serve_registry(
    folder / "registry", folder / "long", port=0, keys=folder / "keys.json",
    ready=lambda url: print("ready", url, flush=True),
)
print("ended", flush=True)
"""


@dataclass
class Running:
    """A server in a process of its own."""

    folder: Path
    base: Base
    url: str
    process: subprocess.Popen[str]

    @property
    def ray_folder(self) -> Path:
        """Where its Ray keeps files."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        lines = " ".join(" ".join(child.cmdline()) for child in children)
        found = re.search(r"/tmp/milpa-\w+", lines)
        assert found is not None
        return Path(found[0])

    def client(self, key: str = "master-secret-key") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    def health(self) -> dict[str, object]:
        return dict(httpx.get(f"{self.url}/healthz").json())

    def expected(self, user_id: str | None, tokens: int = 12) -> str:
        """What a user's model says, computed here, alone."""
        registry = Registry(self.folder / "registry")
        state = None if user_id is None else registry.load(user_id, self.base)
        prompt = self.base.prompt.prompt(QUESTION)
        answer = generate(self.base, [prompt], [state], attach_all(self.base), tokens)[0]
        return self.base.prompt.decode(answer)


def save_endless_base(folder: Path) -> Path:
    """A base with a long context that never ends a text by itself."""
    model = tiny_model("llama")
    model.config.max_position_embeddings = 4096
    with torch.no_grad():
        model.lm_head.weight[0] = 0  # end-of-text: never the likeliest
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    base = Base.load(save_endless_base(folder / "long"), device="cpu", dtype="float32")
    publish(folder / "registry", base)
    (folder / "keys.json").write_text(json.dumps(KEYS))
    (folder / "keys.json").chmod(0o600)
    settings = {"MILPA_ROWS": "4", "MILPA_WAITING": "4", "MILPA_DEVICE": "cpu"}
    environment = {**os.environ, **settings, "MILPA_DTYPE": "float32"}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("ready "):
            break
    else:
        pytest.fail("the server did not start:\n" + "".join(told))
    running = Running(folder, base, told[-1].split()[1], process)
    ray_folder = running.ray_folder
    yield running
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait() == 0
    assert "ended" in rest
    assert not ray_folder.exists()
    assert "secret" not in "".join(told) + rest


def ask(client: openai.OpenAI, model: str, tokens: int = 12) -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], max_tokens=tokens
    )


def test_each_user_answers_as_their_own_model_does(server: Running) -> None:
    client, answers = server.client(), set()
    for user_id in [*PLACES, None]:
        answer = ask(client, "long" if user_id is None else f"long:{user_id}")
        assert answer.choices[0].message.content == server.expected(user_id)
        assert answer.usage is not None
        assert answer.usage.completion_tokens <= 12
        answers.add(answer.choices[0].message.content)
    assert len(answers) == len(PLACES) + 1
    assert ask(client, f"long:{NOBODY}").choices[0].message.content == server.expected(None)


def test_a_stream_brings_the_same_answer_in_pieces(server: Running) -> None:
    stream = server.client().chat.completions.create(
        model="long:bob",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == server.expected("bob")
    assert chunks[-2].choices[0].finish_reason in ("stop", "length")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == len(server.base.prompt.prompt(QUESTION))


def test_words_are_continued(server: Running) -> None:
    client = server.client()
    whole = client.completions.create(model="long:ada", prompt="My dog", max_tokens=9)
    assert whole.choices[0].finish_reason == "length"
    stream = client.completions.create(model="long:ada", prompt="My dog", max_tokens=9, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_many_users_at_once_get_what_each_gets_alone(server: Running) -> None:
    users: list[str | None] = [*PLACES, None] * 2

    async def all_at_once() -> list[str | None]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="master-secret-key") as client:
            answers = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model="long" if user is None else f"long:{user}",
                        messages=[{"role": "user", "content": QUESTION}],
                        max_tokens=12,
                    )
                    for user in users
                )
            )
        return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(all_at_once()) == [server.expected(user) for user in users]


def test_users_share_one_batch_and_who_goes_away_frees_a_row(server: Running) -> None:
    before = server.health()["cancelled"]
    assert isinstance(before, int)
    client = server.client()
    with ExitStack() as open_streams:
        for user in PLACES:
            stream = client.completions.create(
                model=f"long:{user}", prompt="My dog", max_tokens=4000, stream=True
            )
            open_streams.enter_context(stream)
            next(iter(stream))
        assert server.health()["running"] == len(PLACES)
    while server.health()["running"]:
        time.sleep(0.05)
    assert server.health()["cancelled"] == before + len(PLACES)


def test_a_client_that_stops_waiting_frees_its_row_too(server: Running) -> None:
    before = server.health()["cancelled"]
    assert isinstance(before, int)
    impatient = server.client().with_options(timeout=1.0)
    with pytest.raises(openai.APITimeoutError):
        impatient.completions.create(model="long", prompt="My dog", max_tokens=4000)
    while server.health()["running"]:
        time.sleep(0.05)
    assert server.health()["cancelled"] == before + 1


def test_a_full_server_says_so_at_once(server: Running) -> None:
    client = server.client()
    with pytest.raises(openai.RateLimitError):
        client.completions.create(model="long", prompt=["x"] * 16, max_tokens=4000)
    assert ask(client, "long").choices


def test_keys_open_their_users_only(server: Running) -> None:
    adas = server.client("adas-secret-key")
    assert [model.id for model in adas.models.list()] == ["long", "long:ada"]
    assert len(list(server.client().models.list())) == len(PLACES) + 2
    assert adas.models.retrieve("long:ada").id == "long:ada"
    assert ask(adas, "long:ada").choices
    for user in ("bob", "no-such-user"):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(adas, f"long:{user}")
        assert caught.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        ask(server.client("wrong"), "long")


def test_bad_requests_are_openais_errors(server: Running) -> None:
    client = server.client()
    for wrong in ({"max_tokens": 10**6}, {"temperature": 3}, {"n": 2}, {"messages": []}):
        request = {"model": "long", "messages": [{"role": "user", "content": "x"}], **wrong}
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**request)  # type: ignore[call-overload]
        assert caught.value.param == next(iter(wrong))
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="long", prompt="dog " * 5000)
    assert caught.value.code == "context_length_exceeded"
    headers = {"authorization": "Bearer master-secret-key"}
    url = f"{server.url}/v1/chat/completions"
    assert httpx.post(url, content=b"{", headers=headers).status_code == 400
    assert httpx.post(url, content=b" " * (2 << 20), headers=headers).status_code == 413


def test_what_is_published_and_taken_back_counts_without_a_restart(server: Running) -> None:
    client, registry = server.client(), Registry(server.folder / "registry")
    with pytest.raises(openai.NotFoundError):
        ask(client, "long:zoe")
    zoe = state_of(server.base, "zoe", PLACES["bob"], 9)
    digest = registry.publish(zoe, BaseIdentity.of(server.base), {})
    answer = client.chat.completions.with_raw_response.create(
        model="long:zoe", messages=[{"role": "user", "content": QUESTION}], max_tokens=12
    )
    assert answer.headers["x-milpa-memory"] == digest[:12]
    assert answer.parse().choices[0].message.content == server.expected("zoe")
    registry.withdraw("zoe")
    with pytest.raises(openai.NotFoundError):
        ask(client, "long:zoe")
    with pytest.raises(UnknownUser):
        registry.current("zoe")


def test_the_page_is_served(server: Running) -> None:
    response = httpx.get(server.url)
    assert response.headers["content-type"].startswith("text/html")
    assert "<title>Milpa</title>" in response.text


def test_a_port_in_use_is_refused(server: Running) -> None:
    port = int(server.url.rpartition(":")[2])
    keys = server.folder / "keys.json"
    with pytest.raises(OSError, match="free port"):
        serve_registry(server.folder / "registry", server.folder / "long", port=port, keys=keys)


def test_rays_files_hold_no_words_keys_or_users(server: Running) -> None:
    ask(server.client(), "long:a:b/c ü")
    server.client().models.retrieve("long:a:b/c ü")
    logs = [file for file in server.ray_folder.rglob("*") if file.is_file()]
    assert any("serve" in file.parts for file in logs)
    for file in logs:
        content = file.read_bytes()
        for secret in (QUESTION, "secret-key", "a:b/c", "a:b%2Fc", "long:"):
            assert secret.encode() not in content, (file, secret)


def test_ray_folder_is_private(server: Running) -> None:
    assert server.ray_folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"host": "0.0.0.0"}, ValueError, "loopback address"),
        ({"host": "::"}, ValueError, "loopback address"),
        ({"address": "auto"}, ValueError, "key file"),
        ({"registry": Path("no/registry")}, FileNotFoundError, "registry's folder"),
        ({"base": Path("/no/base")}, FileNotFoundError, "base's folder"),
        ({}, OSError, "no config.json there"),
        ({"keys": Path("no/keys.json")}, FileNotFoundError, "keys.json"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    tmp_path: Path, change: dict[str, object], kind: type[Exception], message: str
) -> None:
    arguments = {"registry": tmp_path, "base": tmp_path, "port": 0, **change}
    with pytest.raises(kind, match=message):
        serve_registry(**arguments)  # type: ignore[arg-type]


def test_without_keys_it_says_who_gets_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="free port"):
            serve_registry(tmp_path, save_tiny_base(tmp_path), port=other.getsockname()[1])
    assert "no key file: listening on loopback only" in caplog.text


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 1), ("cuda:0", 1), ("auto", 0), ("cpu", 0)])
def test_a_device_that_is_named_is_waited_for(tmp_path: Path, device: str, gpus: int) -> None:
    """Workers with GPUs may join a cluster after it was asked to serve."""
    arguments = {"registry": "r", "base": "b", "keys": "k", "device": device, "replicas": 3}
    deployment = application(arguments)._bound_deployment
    options = deployment.ray_actor_options
    assert options["num_gpus"] == gpus
    assert ("OMP_NUM_THREADS" in options["runtime_env"]["env_vars"]) == (not gpus)
    assert deployment.num_replicas == 3
    assert deployment.max_queued_requests > 0


def test_a_cluster_is_served_with_keys_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="key file"):
        application({"registry": str(tmp_path), "base": "b"})
    monkeypatch.setenv("MILPA_ROWS", "3")
    monkeypatch.setenv("MILPA_WAITING", "5")
    settings = Settings.of({"registry": "r", "base": "b", "waiting": 9})
    assert (settings.rows, settings.waiting) == (3, 9)
    with pytest.raises(ValueError, match="rows"):
        Settings.of({"registry": "r", "base": "b", "rows": 0})
