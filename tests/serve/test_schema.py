"""Requests are read strictly, refused by the field at fault, and answered in OpenAI's own forms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from serve.schema import (
    ChatRequest,
    Choice,
    CompletionRequest,
    Envelope,
    RefusedError,
    parse,
)

MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> ChatRequest:
    body = {"model": "base", "messages": MESSAGES, **fields}
    return parse(ChatRequest, json.dumps(body).encode())


def refused(**fields: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_request_needs_nothing_but_a_model_and_messages() -> None:
    request = chat()
    assert (request.token_limit, request.stops, request.wants_usage) == (None, (), False)
    assert not request.stream
    assert not request.temperature


def test_what_was_asked_for_is_read() -> None:
    request = chat(
        max_tokens=5,
        max_completion_tokens=7,
        temperature=0,
        top_p=1,
        seed=-3,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert (request.token_limit, request.temperature, request.top_p) == (7, 0.0, 1.0)
    assert (request.seed, request.stops, request.wants_usage) == (-3, ("a", "b"), True)
    assert chat(stop="end").stops == ("end",)


def test_content_may_come_in_parts_of_text() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].text == "hello"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
    ],
)
def test_a_refusal_names_the_field(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert param in error.message
    assert set(error.body["error"]) == {"message", "type", "param", "code"}  # type: ignore[call-overload]


@pytest.mark.parametrize("stop", [["a", "b", "c", "d", "e"], [""], [1], "x" * 257])
def test_stop_texts_are_at_most_four_and_not_empty(stop: object) -> None:
    assert str(refused(stop=stop).param) in ("stop", "stop.0")


def test_fields_that_ask_for_nothing_are_taken() -> None:
    request = chat(
        n=1,
        logprobs=False,
        presence_penalty=0,
        frequency_penalty=0.0,
        tools=[],
        response_format={"type": "text"},
        user="somebody",
        metadata={"a": "b"},
        temperature=None,
        stop=None,
    )
    assert request.model == "base"


def test_missing_messages_are_named() -> None:
    with pytest.raises(RefusedError) as caught:
        parse(ChatRequest, b'{"model": "base"}')
    assert (caught.value.param, caught.value.message) == ("messages", "messages: Field required")


@pytest.mark.parametrize("body", [b"", b"hello", b"{", b'{"model": "\xff"}', b"[" * 100_000])
def test_a_body_that_is_not_json_is_refused_without_repeating_it(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(ChatRequest, body)
    assert (caught.value.status, caught.value.code) == (400, "bad_json")


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"hello"'])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(ChatRequest, body)
    assert caught.value.status == 400


def test_a_completion_takes_one_text_or_several() -> None:
    def prompts(value: object) -> list[str]:
        body = json.dumps({"model": "base", "prompt": value}).encode()
        return parse(CompletionRequest, body).prompts

    assert prompts("one") == ["one"]
    assert prompts(["one", "two"]) == ["one", "two"]
    for wrong in ([], [1, 2], None, ["x"] * 17):
        with pytest.raises(RefusedError):
            prompts(wrong)


def test_an_error_is_picklable_and_has_openais_form() -> None:
    error = RefusedError(429, "later", None, "queue_full", 1)
    assert error.body["error"] == {
        "message": "later",
        "type": "rate_limit_error",
        "param": None,
        "code": "queue_full",
    }
    copy = type(error)(*error.args)
    assert (copy.status, copy.retry_after_seconds) == (429, 1)


def test_whole_answers_are_openais() -> None:
    choices = [Choice("hi", "stop", 2), Choice("ho", "length", 3)]
    completion = ChatCompletion.model_validate(Envelope(True, "m", 1, 4).whole(choices))
    assert completion.usage is not None
    assert completion.usage.total_tokens == 9
    assert [c.message.content for c in completion.choices] == ["hi", "ho"]
    plain = Completion.model_validate(Envelope(False, "m", 1, 4).whole(choices))
    assert [(c.index, c.text, c.finish_reason) for c in plain.choices] == [
        (0, "hi", "stop"),
        (1, "ho", "length"),
    ]


def test_pieces_are_openais() -> None:
    envelope = Envelope(True, "m", 1, 4, counts_usage=True)
    bodies = [
        envelope.opening(),
        envelope.piece(0, "hi"),
        envelope.piece(0, "", "stop"),
        envelope.usage(2),
    ]
    chunks = [ChatCompletionChunk.model_validate(body) for body in bodies]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[1].choices[0].delta.content == "hi"
    assert chunks[2].choices[0].finish_reason == "stop"
    assert chunks[2].choices[0].delta.content is None
    assert chunks[3].choices == []
    assert chunks[3].usage is not None
    assert chunks[3].usage.completion_tokens == 2
    assert all("usage" in body for body in bodies)
    assert len({chunk.id for chunk in chunks}) == 1
