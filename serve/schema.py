"""OpenAI-compatible request, response and error bodies.

It knows no model and no user: limits that depend on a base (context, known names) are checked in
`service.py`. Types are strict, since a number sent as text is a client's mistake. A field that
would change the answer in a way this server can't do is refused by name; any other unknown field
is ignored, as OpenAI's servers do.

Two defaults differ from OpenAI's: the temperature is 0 (greedy answers are what the search
scored), and an answer without `max_tokens` may fill the rest of the context.

Reference: https://platform.openai.com/docs/api-reference (chat, completions, models, errors).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

# Fields that are accepted only where they ask for nothing.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
}

Finish = Literal["stop", "length"]


class RefusedError(ValueError):
    """A request that gets an error instead of an answer; OpenAI's error object with its status."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(status, message, param, code, retry_after_seconds)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_seconds = retry_after_seconds

    @property
    def body(self) -> dict[str, object]:
        """The JSON body that OpenAI's clients understand."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": self.message,
            "type": kinds.get(self.status, kind),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class StreamOptions(_Body):
    """What a stream carries besides its pieces."""

    include_usage: bool | None = None


StopText = Annotated[str, Field(min_length=1, max_length=256)]


class Request(_Body):
    """What both kinds of completion share."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: StopText | Annotated[list[StopText], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _refuse_what_cannot_be_done(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in _NEUTRAL and not _asks_for_nothing(value, _NEUTRAL[name]):
                message = "'{name}' is not supported here; leave it out"
                raise PydanticCustomError("unsupported", message, {"name": name})
        if self.stream_options is not None and not self.stream:
            message = "'{name}' is only allowed when 'stream' is true"
            raise PydanticCustomError("unsupported", message, {"name": "stream_options"})
        return self

    @property
    def token_limit(self) -> int | None:
        """The most tokens the client wants, None where it doesn't say."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a count of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class TextPart(_Body):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


class Message(_Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(Request):
    """Body of `POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)


class CompletionRequest(Request):
    """Body of `POST /v1/completions`: bare words to be continued, one text or several."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=16)]

    @property
    def prompts(self) -> list[str]:
        """The texts to be continued; each gives one choice."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


AnyRequest = TypeVar("AnyRequest", bound=Request)


def parse(kind: type[AnyRequest], body: bytes) -> AnyRequest:
    """The request in a body.

    Raises:
        RefusedError: 400, naming the first field that is wrong.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None  # the cause holds the user's text


def _asks_for_nothing(value: object, neutral: Sequence[object]) -> bool:
    return value is None or any(type(value) is type(n) and value == n for n in neutral)


def _is_field(part: int | str) -> bool:
    """Whether a place in pydantic's path is a client's: a field or index, no branch of a union."""
    return isinstance(part, int) or (part.isidentifier() and part != "str")


def _refused(error: ValidationError) -> RefusedError:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return RefusedError(
            400, "expected a JSON object as the body, got something else", None, "bad_json"
        )
    named: dict[str, Any] = first.get("ctx", {})
    where = ".".join(str(part) for part in first["loc"] if _is_field(part)) or named.get("name")
    message = (
        first["msg"] if first["type"] == "unsupported" else f"{where or 'body'}: {first['msg']}"
    )
    return RefusedError(
        400, message, where, "unsupported" if first["type"] == "unsupported" else None
    )


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


@dataclass(frozen=True)
class Choice:
    """One finished answer."""

    text: str
    finish: Finish
    tokens: int


@dataclass(frozen=True)
class Envelope:
    """The bodies of one response: whole, or piece by piece.

    Chat and plain completions differ in names only: `message` and `delta`, or `text`.
    """

    chat: bool
    model: str
    created: int
    prompt_tokens: int
    counts_usage: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def whole(self, choices: Sequence[Choice]) -> dict[str, object]:
        """The body of an answer that was not streamed."""
        answers = [
            {"index": index, **self._said(choice.text), "logprobs": None}
            | {"finish_reason": choice.finish}
            for index, choice in enumerate(choices)
        ]
        usage = _usage(self.prompt_tokens, sum(choice.tokens for choice in choices))
        return self._frame(answers, "chat.completion") | {"usage": usage}

    def piece(self, index: int, text: str, finish: Finish | None = None) -> dict[str, object]:
        """What one choice says next, or how it ends."""
        delta = {"content": text} if text else {}
        said = {"delta": delta} if self.chat else {"text": text}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        return self._chunk([choice])

    def opening(self) -> dict[str, object]:
        """A chat stream's first piece: who speaks."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._chunk([choice])

    def usage(self, completion_tokens: int) -> dict[str, object]:
        """A stream's last piece, where the client asked for it."""
        return self._chunk([]) | {"usage": _usage(self.prompt_tokens, completion_tokens)}

    def _said(self, text: str) -> dict[str, object]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message} if self.chat else {"text": text}

    def _chunk(self, choices: Sequence[Mapping[str, object]]) -> dict[str, object]:
        frame = self._frame(choices, "chat.completion.chunk")
        return frame | {"usage": None} if self.counts_usage else frame

    def _frame(
        self, choices: Sequence[Mapping[str, object]], chat_object: str
    ) -> dict[str, object]:
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.id}",
            "object": chat_object if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def model_list(names: Iterable[str], created: int) -> dict[str, object]:
    """Body of `GET /v1/models`; `created` in Unix seconds."""
    return {"object": "list", "data": [model(name, created) for name in names]}


def model(name: str, created: int) -> dict[str, object]:
    """One model of the list."""
    return {"id": name, "object": "model", "created": created, "owned_by": "milpa"}
