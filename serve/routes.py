"""The HTTP edge: routes, keys, limits, streams, and errors in OpenAI's form. Knows no Ray.

    GET  /                      the page
    GET  /healthz               whether asks are answered
    GET  /v1/models             the base and the users that the key opens
    GET  /v1/models/{id}        one of them
    POST /v1/chat/completions   an answer, whole or streamed
    POST /v1/completions        words continued, whole or streamed

An answer's header `x-milpa-memory` holds the first 12 digits of the state it was given under, or
`none`. What a user's method keeps as words stands before the query, or before the words that a
completion continues. When a client goes away its rows are freed. Nothing of a request is logged: no
text, no key, no user id.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from serve.access import EVERYONE, Grant, Keys
from serve.answering import Answering
from serve.ask import BusyError, EngineError
from serve.engine import Engine
from serve.guard import Guard
from serve.schema import ChatRequest, CompletionRequest, Envelope, RefusedError, parse
from serve.service import Service

_PAGE = Path(__file__).parent / "web" / "index.html"

log = logging.getLogger(__name__)


def application(
    service: Service,
    engine: Engine,
    keys: Keys | None,
    body_bytes: int = 1 << 20,
    body_seconds: float = 60.0,
) -> FastAPI:
    """The web application.

    Args:
        service: what may be asked for.
        engine: what answers.
        keys: who may ask; None lets in whoever reaches loopback.
        body_bytes: the largest request body that is read.
        body_seconds: how long one may take to come, since it holds a place meanwhile.
    """
    edge = _Edge(service, engine, keys, body_bytes, body_seconds)
    app = FastAPI(title="Milpa", openapi_url=None)
    app.add_route("/", _page(), methods=["GET"])
    app.add_route("/healthz", edge.health, methods=["GET"])
    app.add_route("/v1/models", edge.models, methods=["GET"])
    app.add_route("/v1/models/{name:path}", edge.model, methods=["GET"])
    app.add_route("/v1/chat/completions", edge.chat, methods=["POST"])
    app.add_route("/v1/completions", edge.complete, methods=["POST"])
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Guard, loopback_only=keys is None)
    return app


class _Edge:
    """The routes."""

    def __init__(
        self,
        service: Service,
        engine: Engine,
        keys: Keys | None,
        body_bytes: int,
        body_seconds: float,
    ) -> None:
        self._service, self._engine, self._keys = service, engine, keys
        self._body_bytes, self._body_seconds = body_bytes, body_seconds

    async def health(self, request: Request) -> Response:
        """200 while asks are answered, with the engine's load."""
        if self._engine.alive:
            return JSONResponse({"status": "ok", **self._engine.load})
        raise RefusedError(503, "the engine has stopped")

    async def models(self, request: Request) -> Response:
        """The models that the key opens."""
        grant = await self._grant(request)
        body = await asyncio.to_thread(self._service.models_body, grant)
        return Response(body, media_type="application/json")

    async def model(self, request: Request) -> Response:
        """One model."""
        grant, name = await self._grant(request), request.path_params["name"]
        return JSONResponse(await asyncio.to_thread(self._service.model, name, grant))

    async def chat(self, request: Request) -> Response:
        """The next turn of a conversation."""
        return await self._answer(request, ChatRequest)

    async def complete(self, request: Request) -> Response:
        """Words that continue a text."""
        return await self._answer(request, CompletionRequest)

    async def _answer(
        self, request: Request, kind: type[ChatRequest] | type[CompletionRequest]
    ) -> Response:
        grant = await self._grant(request)
        wanted = parse(kind, await self._body_in_time(request))
        prepared = await asyncio.to_thread(self._service.prepare, wanted, grant)
        try:
            answering = Answering(self._engine, prepared.asks)
        except EngineError as error:
            raise _engine_refused(error) from error
        if wanted.stream:
            events = _events(answering, prepared.envelope)
            return _EventStream(answering, events, prepared.headers)
        try:
            choices = await answering.choices()
        except EngineError as error:
            raise _engine_refused(error) from error
        finally:
            answering.close()
        return JSONResponse(prepared.envelope.whole(choices), headers=dict(prepared.headers))

    async def _grant(self, request: Request) -> Grant:
        if self._keys is None:
            return EVERYONE
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        grant = None
        try:
            if scheme.lower() == "bearer":  # reading many keys must not hold up others' answers
                grant = await asyncio.to_thread(self._keys.grant, key.strip())
        except (OSError, ValueError) as error:
            log.error("nobody gets in: %s", error)
            raise RefusedError(503, "the keys can't be read; the server's log says why") from None
        if grant is None:
            message = "expected a valid key as 'Authorization: Bearer KEY', got none or another"
            raise RefusedError(401, message, None, "invalid_api_key")
        return grant

    async def _body_in_time(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(self._body_seconds):
                return await self._body(request)
        except TimeoutError:
            message = f"expected the whole body within {self._body_seconds:g} seconds, got less"
            raise RefusedError(408, message, None, "body_too_slow") from None

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > self._body_bytes:
                message = f"expected a body of at most {self._body_bytes} bytes, got more"
                raise RefusedError(413, message, None, "body_too_large")
        return bytes(body)


class _EventStream(StreamingResponse):
    """A stream of server-sent events whose rows are freed however it ends."""

    def __init__(
        self, answering: Answering, events: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> None:
        unbuffered = {"cache-control": "no-store", "x-accel-buffering": "no", **headers}
        super().__init__(events, headers=unbuffered, media_type="text/event-stream")
        self._answering = answering

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answering.close()


async def _events(answering: Answering, envelope: Envelope) -> AsyncIterator[bytes]:
    if envelope.chat:
        yield _event(envelope.opening())
    tokens: dict[int, int] = {}
    try:
        async for pieces in answering.pieces():
            chunks = []
            for index, piece in pieces:
                tokens[index] = piece.tokens
                if piece.text:
                    chunks.append(envelope.piece(index, piece.text))
                if piece.finish is not None:
                    chunks.append(envelope.piece(index, "", piece.finish))
            yield b"".join(map(_event, chunks))
    except EngineError as error:
        yield _event(_engine_refused(error).body)
        return
    if envelope.counts_usage:
        yield _event(envelope.usage(sum(tokens.values())))
    yield b"data: [DONE]\n\n"


def _event(body: Mapping[str, object]) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _engine_refused(error: EngineError) -> RefusedError:
    if isinstance(error, BusyError):
        message = "too many requests are waiting; try again in a moment"
        return RefusedError(429, message, None, "queue_full", retry_after_seconds=1)
    return RefusedError(503, str(error), None, "unavailable")


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(error.body, error.status, headers)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return JSONResponse(RefusedError(error.status_code, message).body, error.status_code)


def _page() -> Callable[[Request], Awaitable[Response]]:
    text = _PAGE.read_text(encoding="utf-8")
    script = re.search(r"<script>(.*)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}

    async def page(request: Request) -> Response:
        return HTMLResponse(text, headers=headers)

    return page
