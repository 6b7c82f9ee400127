"""From a request to asks of the engine: which user is meant, and what exactly is to be read.

It knows no HTTP transport and no Ray. A model id is `<base>` or `<base>:<user>`, where a user id
may hold anything, colons and slashes too. A user that a key may not speak as and a user that does
not exist get the same refusal, made before anything is looked up.

What a user's method puts before a query stands before the last turn of a conversation, and before
the words that a completion continues; these themselves are read as they were sent. Without a chat
template it is one line with them there too, as everywhere else: a line break would end a query.
"""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import TemplateError

from models.base import Base
from models.catalog import frame_all
from models.decoding import Sampling
from models.excerpts import LONGEST_TOKEN
from models.personalizer import Framed
from models.prompt import ChatPrompt, Row, flatten
from models.registry import UnknownUser
from models.soft import with_soft
from serve.access import Grant
from serve.ask import Ask
from serve.memories import Memories, Served, UnusableError
from serve.schema import (
    ChatRequest,
    CompletionRequest,
    Envelope,
    RefusedError,
    model,
    model_list,
)

# Below this, dividing by the temperature leaves the range of floats, and the likeliest wins anyway.
_GREEDY_BELOW = 1e-3

_SINGLY = 1000  # users of a key whose files are looked at one by one; of more, everybody is listed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A request that will be answered: what to ask, and how the answer is wrapped."""

    asks: tuple[Ask, ...]
    envelope: Envelope
    headers: Mapping[str, str]


class Service:
    """The base and everybody's memories under their public names."""

    def __init__(self, base: Base, memories: Memories) -> None:
        self._base = base
        self._memories = memories
        self._frame = frame_all(base)
        self.name = served_name(base.name)
        self._started = int(time.time())
        # The engine's thread decodes with the base's own tokenizer, which must not be set up
        # differently meanwhile; what arrives is read by a copy.
        self._prompt = copy.deepcopy(base.prompt)
        self._reading = threading.Lock()
        self._listed: tuple[list[str], bytes] = ([], b"")  # everybody, and the list as it was sent

    def models_body(self, grant: Grant) -> bytes:
        """`models` as JSON; everybody's is written anew only where somebody came or went."""
        if grant.users is not None:
            return _json(self.models(grant))
        users, body = self._listed
        everybody = self._memories.users()
        if not body or users != everybody:
            body = _json(self._named(everybody))
            self._listed = everybody, body
        return body

    def models(self, grant: Grant) -> dict[str, object]:
        """Body of the list of models that a key opens."""
        if grant.users is None or len(grant.users) > _SINGLY:
            users = [user for user in self._memories.users() if grant.opens(user)]
        else:
            users = sorted(user for user in grant.users if user in self._memories)
        return self._named(users)

    def _named(self, users: Sequence[str]) -> dict[str, object]:
        names = [self.name, *(f"{self.name}:{user}" for user in users)]
        return model_list(names, self._started)

    def model(self, name: str, grant: Grant) -> dict[str, object]:
        """Body of one model.

        Raises:
            RefusedError: 404.
        """
        self._served(name, grant)
        return model(name, self._started)

    def prepare(self, request: ChatRequest | CompletionRequest, grant: Grant) -> Prepared:
        """What a request asks of the engine. Blocks: it reads files and tokenizes.

        Raises:
            RefusedError: unknown model, unusable memory, or words that don't fit.
        """
        served = self._served(request.model, grant)
        prompts = self._prompts(request, served)
        asks = tuple(self._ask(request, served, prompt, grant.asker) for prompt in prompts)
        envelope = Envelope(
            chat=isinstance(request, ChatRequest),
            model=request.model,
            created=int(time.time()),
            prompt_tokens=sum(map(len, prompts)),
            counts_usage=request.wants_usage,
        )
        digest = served.digest
        return Prepared(asks, envelope, {"x-milpa-memory": digest[:12] if digest else "none"})

    def _served(self, name: str, grant: Grant) -> Served:
        user_id = self._user_of(name)
        if not grant.opens(user_id):
            raise _not_found(name)
        if user_id is None:
            return Served()
        try:
            return self._memories.get(user_id)
        except UnknownUser:
            raise _not_found(name) from None
        except UnusableError as error:
            raise RefusedError(422, str(error), "model", "memory_unusable") from None

    def _user_of(self, name: str) -> str | None:
        """The user in a model id; None for the base itself."""
        if name == self.name:
            return None
        user_id = name.removeprefix(f"{self.name}:")
        if user_id in (name, ""):
            raise _not_found(name)
        return user_id

    def _prompts(
        self, request: ChatRequest | CompletionRequest, served: Served
    ) -> list[tuple[int, ...]]:
        self._check_size(request)
        if isinstance(request, CompletionRequest):
            framed = [self._framed(served, text) for text in request.prompts]
            texts = [self._continued(*pair) for pair in zip(framed, request.prompts, strict=True)]
            with self._reading:
                prompts = [(*self._prompt.begin, *self._prompt.text(text)) for text in texts]
        else:
            turns = _turns(request)
            framed = [self._framed(served, turns[-1]["content"])]
            if turns[-1]["role"] == "user":
                turns[-1]["content"] = framed[0].query
            with self._reading:
                prompts = [tuple(self._messages(turns))]
        prompts = [self._softened(*pair) for pair in zip(prompts, framed, strict=True)]
        for prompt in prompts:
            self._check_length(request, len(prompt))
        return prompts

    def _framed(self, served: Served, text: str) -> Framed:
        try:
            return self._frame(served.state, text)
        except ValueError as error:  # such as an encoder that isn't there any more
            log.warning("memory %s can't frame a prompt", served.digest, exc_info=error)
            message = "this user's memory can't be used here; the server's log says why"
            raise RefusedError(422, message, "model", "memory_unusable") from None

    def _continued(self, framed: Framed, text: str) -> str:
        """A text that is to be continued, behind what a method puts before it."""
        before = framed.query.removesuffix(text)
        return (before if isinstance(self._prompt, ChatPrompt) else flatten(before)) + text

    def _softened(self, prompt: tuple[int, ...], framed: Framed) -> tuple[int, ...]:
        """The prompt behind its soft tokens; never cut, since a request too long is refused."""
        row, room = Row(prompt, len(prompt)), self._base.context + len(prompt)
        return with_soft(row, framed.soft_tokens, self._prompt.begin, room).tokens

    def _messages(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        try:
            return self._prompt.messages(turns)
        except (TemplateError, ValueError):
            message = "messages: this base's chat template can't write these roles in this order"
            raise RefusedError(400, message, "messages") from None

    def _check_size(self, request: ChatRequest | CompletionRequest) -> None:
        """Refuse what can't fit however it is read, since reading a megabyte takes seconds."""
        context = self._base.context
        if isinstance(request, ChatRequest):
            field, longest = "messages", sum(len(m.text) for m in request.messages)
            fits = len(request.messages) < context  # each is a token at least
        else:
            field, longest, fits = "prompt", max(map(len, request.prompts)), True
        if not fits or longest > context * LONGEST_TOKEN:
            message = (
                f"This model's maximum context length is {context} tokens, but your {field} came "
                "to far more. Please shorten them."
            )
            raise RefusedError(400, message, field, "context_length_exceeded")

    def _check_length(self, request: ChatRequest | CompletionRequest, tokens: int) -> None:
        context = self._base.context
        field = "messages" if isinstance(request, ChatRequest) else "prompt"
        if tokens == 0:
            raise RefusedError(400, f"{field}: expected words, got none", field)
        if tokens >= context:
            message = (
                f"This model's maximum context length is {context} tokens, but your {field} came "
                f"to {tokens}. Please shorten them."
            )
            raise RefusedError(400, message, field, "context_length_exceeded")
        if (request.token_limit or 0) >= context:
            given = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
            message = f"{given}: expected less than the context of {context}"
            raise RefusedError(400, f"{message}, got {request.token_limit}", given)

    def _ask(
        self,
        request: ChatRequest | CompletionRequest,
        served: Served,
        prompt: tuple[int, ...],
        asker: str,
    ) -> Ask:
        room = self._base.context - len(prompt)
        temperature = request.temperature or 0.0
        return Ask(
            prompt=prompt,
            state=served.state,
            max_tokens=min(request.token_limit or room, room),
            sampling=Sampling(
                temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
                top_p=request.top_p or 1.0,
                seed=request.seed,
            ),
            stops=request.stops,
            bare=isinstance(request, CompletionRequest),
            piecewise=bool(request.stream),
            asker=asker,
        )


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _turns(request: ChatRequest) -> list[dict[str, str]]:
    """The conversation in the roles that chat templates know."""
    roles = {"developer": "system"}
    return [{"role": roles.get(m.role, m.role), "content": m.text} for m in request.messages]


def served_name(source: str) -> str:
    """What a base is called over HTTP: a folder's own name, or a hub name as it is."""
    path = Path(source)
    return path.resolve().name if path.is_dir() else source


def _not_found(name: str) -> RefusedError:
    message = f"The model '{name}' does not exist or you do not have access to it."
    return RefusedError(404, message, "model", "model_not_found")
