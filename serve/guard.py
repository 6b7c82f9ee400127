"""What stands around every route: the last line for errors, and the fence of an open server.

An unexpected error becomes OpenAI's 500 and a log entry of its type and place; its message stays
out of both, since it may hold somebody's words. A server without keys trusts whoever reaches
loopback, so it turns away requests that a web page elsewhere had a browser send: those that name
another host (DNS rebinding) or come from another origin.

Ray Serve obeys two headers of anybody's: one switches off that it notices when a client has gone
away, whose rows would then run to the end for nobody, the other overrides an operator's time limit.
Requests that bring one are refused.
"""

from __future__ import annotations

import logging
import traceback
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.address import is_loopback
from serve.schema import RefusedError

RAYS_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")

log = logging.getLogger(__name__)


class Guard:
    """Wraps an ASGI application.

    Args:
        app: what is guarded.
        loopback_only: answer only requests that a program on this machine sent on its own.
    """

    def __init__(self, app: ASGIApp, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._loopback_only and not is_local(Headers(scope=scope)):
            message = "this server has no keys and answers on loopback only"
            await _response(RefusedError(403, message))(scope, receive, send)
            return
        for name in RAYS_HEADERS:
            if name in Headers(scope=scope):
                refused = RefusedError(400, f"the header {name} is not taken here; leave it out")
                await _response(refused)(scope, receive, send)
                return
        await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except ClientDisconnect:
            return
        except Exception as error:  # the edge: whatever it is, the client gets an answer
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("a request failed with %s at\n%s", type(error).__name__, place)
            if not started:
                refused = RefusedError(500, "the server failed to answer; its log says where")
                await _response(refused)(scope, receive, send)


def is_local(headers: Headers) -> bool:
    """Whether a request names a loopback host and comes from no other web origin."""
    host = headers.get("host", "")
    origin = headers.get("origin")
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "") and (
            origin is None or urlsplit(origin).netloc == host
        )
    except ValueError:  # a bracket without the other
        return False


def _response(refused: RefusedError) -> JSONResponse:
    return JSONResponse(refused.body, refused.status)
