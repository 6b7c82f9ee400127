"""From a request to asks: names, roles, and what a chat template can't write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models.base import Base
from models.pointer import Pointer
from models.registry import Registry
from serve.access import EVERYONE, Grant
from serve.memories import Memories
from serve.schema import ChatRequest, CompletionRequest, RefusedError, parse
from serve.service import Prepared, Service, served_name
from tests.serve.people import publish
from tests.tiny import tiny_model, tiny_tokenizer

TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system comes first') }}{% endif %}"
    "[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture
def service(base: Base, tmp_path: Path) -> Service:
    return Service(base, Memories(publish(tmp_path / "registry", base), base, 1 << 30))


@pytest.fixture
def chatting(tmp_path: Path) -> Service:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    base = Base.wrap("org/chat", tiny_model(), tokenizer)
    return Service(base, Memories(publish(tmp_path / "chat", base), base, 1 << 30))


def prepared(
    service: Service, *messages: tuple[str, str], grant: Grant = EVERYONE, **more: Any
) -> Prepared:
    body = {
        "model": service.name,
        "messages": [{"role": role, "content": text} for role, text in messages],
        **more,
    }
    return service.prepare(parse(ChatRequest, json.dumps(body).encode()), grant)


def test_a_base_is_called_by_its_folder_or_hub_name(tmp_path: Path) -> None:
    assert served_name(str(tmp_path)) == tmp_path.name
    assert served_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"


def test_a_key_of_few_and_a_key_of_many_users_list_the_same(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = frozenset(["bob", "gone"]), frozenset(["bob", *(f"u{i}" for i in range(5000))])
    read: list[Path] = []
    reading = Pointer.read
    monkeypatch.setattr(Pointer, "read", lambda file: read.append(file) or reading(file))
    listed = [service.models(Grant(users))["data"] for users in (few, many, few)]
    assert listed[0] == listed[1] == listed[2]
    assert len(read) <= 6  # one for each key of few, and the four who are published


def test_everybodys_list_is_written_anew_only_where_it_changed(
    service: Service, base: Base, tmp_path: Path
) -> None:
    first = service.models_body(EVERYONE)
    assert json.loads(first) == service.models(EVERYONE)
    assert service.models_body(EVERYONE) is first
    Registry(tmp_path / "registry").withdraw("ada")
    second = service.models_body(EVERYONE)
    assert json.loads(second) == service.models(EVERYONE)
    assert b"ada" in first
    assert b"ada" not in second
    bobs = json.loads(service.models_body(Grant(frozenset(["bob"]))))["data"]
    assert [model["id"] for model in bobs] == [service.name, f"{service.name}:bob"]


def test_a_conversation_is_read_in_the_bases_format(service: Service, base: Base) -> None:
    (ask,) = prepared(service, ("user", "hello")).asks
    assert list(ask.prompt) == base.prompt.prompt("hello")
    (ask,) = prepared(service, ("developer", "be kind"), ("user", "hello")).asks
    assert base.prompt.decode(ask.prompt) == "be kind\nhello"


def test_a_users_state_goes_with_the_ask(service: Service) -> None:
    answer = prepared(service, ("user", "x"), model=f"{service.name}:a:b/c ü")
    state = answer.asks[0].state
    assert state is not None
    assert state.user_id == "a:b/c ü"


def test_every_ask_says_whose_key_it_came_with(service: Service) -> None:
    body = json.dumps({"model": service.name, "prompt": ["x", "y"]}).encode()
    for grant in (EVERYONE, Grant(None, "one"), Grant(frozenset(), "two")):
        found = service.prepare(parse(CompletionRequest, body), grant).asks
        assert [ask.asker for ask in found] == [grant.asker] * 2


def test_a_stop_token_in_somebodys_words_is_only_words(service: Service, base: Base) -> None:
    (ask,) = prepared(service, ("user", "end<|endoftext|>now")).asks
    assert base.tokenizer.eos_token_id not in ask.prompt[len(base.prompt.begin) :]


def test_an_answer_may_fill_the_context_but_not_more(service: Service, base: Base) -> None:
    (free,) = prepared(service, ("user", "hello")).asks
    assert free.max_tokens == base.context - len(free.prompt)
    (most,) = prepared(service, ("user", "hello"), max_tokens=base.context - 1).asks
    assert most.max_tokens == free.max_tokens
    (few,) = prepared(service, ("user", "hello"), max_tokens=3).asks
    assert few.max_tokens == 3


@pytest.mark.parametrize(("given", "used"), [(None, 0.0), (0, 0.0), (1e-40, 0.0), (0.5, 0.5)])
def test_a_temperature_too_small_to_divide_by_is_none(
    service: Service, given: float | None, used: float
) -> None:
    (ask,) = prepared(service, ("user", "hello"), temperature=given).asks
    assert ask.sampling.temperature == used


def test_a_chat_template_is_used_where_there_is_one(chatting: Service) -> None:
    answer = prepared(chatting, ("developer", "be kind"), ("user", "hello"))
    expected = "[system] be kind\n[user] hello\n[assistant] "
    assert tiny_tokenizer().decode(list(answer.asks[0].prompt)) == expected
    assert answer.envelope.model == "org/chat"


def test_what_the_chat_template_refuses_is_the_clients_mistake(chatting: Service) -> None:
    with pytest.raises(RefusedError, match="chat template") as caught:
        prepared(chatting, ("user", "hello"), ("system", "be kind"))
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_bare_words_get_no_frame(chatting: Service) -> None:
    body = b'{"model": "org/chat", "prompt": ["My dog"]}'
    (ask,) = chatting.prepare(parse(CompletionRequest, body), EVERYONE).asks
    assert tiny_tokenizer().decode(list(ask.prompt), skip_special_tokens=True) == "My dog"
    assert ask.bare


def test_a_forbidden_user_is_refused_before_anything_is_looked_up(base: Base) -> None:
    class Untouched(Memories):
        def __init__(self) -> None:
            pass

        def get(self, user_id: str) -> Any:
            raise AssertionError("looked up")

    with pytest.raises(RefusedError) as caught:
        prepared(
            Service(base, Untouched()),
            ("user", "x"),
            grant=Grant(frozenset({"ada"})),
            model="tiny-llama:bob",
        )
    assert caught.value.status == 404
