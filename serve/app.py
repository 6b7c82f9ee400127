"""The Ray Serve shell: one replica per device, each with its base, engine and HTTP edge.

The only file of this package that knows Ray. Three ways in:

    serve_registry(...)      blocks until Ctrl-C or SIGTERM (`milpa serve`)
    with serving(...) as url the same, for as long as the context lasts
    serve.app:application    `import_path` of a Serve config or a RayService

An embedded Ray is started with `address="local"`, without a dashboard, its files in a short private
folder that is removed at the end (Unix socket paths end at 107 bytes). Without a key
file only loopback is listened on, and only in an embedded Ray: an existing cluster's proxies listen
where that cluster says.

Serve's own batching and multiplexing are left out: they would split a batch by user, which is what
the engine exists to avoid.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from pydantic import BaseModel, ConfigDict, Field
from ray import serve as ray_serve
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp

from models.base import Base, check
from models.catalog import attach_all
from models.registry import Registry
from serve import routes
from serve.access import Keys
from serve.address import free_port, is_loopback, url_of
from serve.engine import Engine
from serve.memories import Memories
from serve.service import Service

_SPARE_REQUESTS = 64  # that a replica takes beyond its engine's rows and line, to refuse them
_QUEUED_REQUESTS = 256  # that a proxy keeps while every replica is full or being replaced
_STORE_BYTES = 128 * 2**20  # of Ray's object store; requests and answers do not go through it
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # Threads that spin while they wait take the cores from whatever else runs on them.
    "OMP_WAIT_POLICY": "PASSIVE",
}


_QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
_SILENT = LoggingConfig(log_level="CRITICAL", enable_access_log=False)
_NAME = "milpa"
_REASON = "can't serve: "  # after it, in Serve's long report, stands what a person needs to know

log = logging.getLogger(__name__)
logging.getLogger("ray.serve").setLevel(logging.WARNING)


class Settings(BaseModel):
    """What a replica needs to know. Each can be set by `MILPA_<NAME>` in the environment too.

    `threads` are torch's on a replica without a GPU (None: all cores but one).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    registry: Path
    base: str
    keys: Path | None = None
    device: str = "auto"
    dtype: str = "auto"
    rows: int = Field(default=16, ge=1)
    waiting: int = Field(default=64, ge=1)
    memory_bytes: int = Field(default=2 * 2**30, ge=0)
    body_bytes: int = Field(default=2**20, ge=1)
    body_seconds: float = Field(default=60.0, gt=0)
    replicas: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Settings:
        """Settings from arguments, and from the environment where these say nothing."""
        names = {name: f"MILPA_{name.upper()}" for name in cls.model_fields}
        found = {name: os.environ[v] for name, v in names.items() if os.environ.get(v)}
        return cls(**{**found, **arguments})


class Replica:
    """A base with its engine behind the HTTP edge. Serve makes one on each device."""

    def __init__(self, settings: Settings) -> None:
        try:
            base = Base.load(settings.base, settings.device, settings.dtype)
            memories = Memories(Registry(settings.registry), base, settings.memory_bytes)
            memories.check()
            self._keys = None if settings.keys is None else Keys(settings.keys)
        except (OSError, ValueError) as error:
            raise ValueError(f"{_REASON}{error}") from error
        self._service = Service(base, memories)
        self._engine = Engine(base, attach_all(base), settings.rows, settings.waiting)
        self._body_limits = settings.body_bytes, settings.body_seconds

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The routes, in the form that Serve asks for."""
        return routes.application(self._service, self._engine, self._keys, *self._body_limits)

    def check_health(self) -> None:
        """Serve replaces a replica whose engine has died."""
        if not self._engine.alive:
            raise RuntimeError("the engine has stopped")


def application(arguments: dict[str, Any]) -> Any:
    """The Serve application for `import_path: serve.app:application`; arguments are `Settings`.

    Raises:
        ValueError: no keys. A cluster's proxies listen to everybody.
    """
    settings = Settings.of(arguments)
    if settings.keys is None:
        raise ValueError("expected a key file (keys, or MILPA_KEYS) on a cluster, got none")
    return _build(settings)


def _build(settings: Settings) -> Any:
    gpus = int(ray.cluster_resources().get("GPU", 0)) if ray.is_initialized() else 0
    # A cluster may be asked to serve before its workers with GPUs have joined: a device that is
    # named waits for one of them.
    on_gpu = gpus > 0 or settings.device.startswith("cuda")
    threads = settings.threads or max(1, len(os.sched_getaffinity(0)) - 1)
    environment = {**_ENVIRONMENT, **({} if on_gpu else {"OMP_NUM_THREADS": str(threads)})}
    deployment = ray_serve.deployment(
        ray_serve.ingress()(Replica),
        name=_NAME,
        num_replicas=settings.replicas or max(1, gpus),
        max_ongoing_requests=settings.rows + settings.waiting + _SPARE_REQUESTS,
        max_queued_requests=_QUEUED_REQUESTS,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1),
        max_constructor_retry_count=1,
        logging_config=_QUIET,
        ray_actor_options={
            "num_cpus": 0,
            "num_gpus": int(on_gpu),
            "runtime_env": {"env_vars": environment},
        },
    )
    return deployment.bind(settings)


def serve_registry(
    registry: Path,
    base: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Path | None = None,
    address: str | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a registry until Ctrl-C or SIGTERM. Call it from the main thread.

    Args:
        registry: folder of published states.
        base: path or hub name of the base they were made for.
        host: address to listen on; other than loopback only with keys.
        port: 0 takes a free one.
        keys: the key file; None lets in whoever reaches loopback.
        address: an existing Ray cluster's; None starts one here.
        ready: called with the URL once requests are answered.

    Raises:
        ValueError, OSError: nothing was started; says what is wrong.
    """
    with serving(registry, base, host, port, keys, address) as url:
        stopped = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which sets its own
            signal.signal(number, lambda *_: stopped.set())
        if ready is not None:
            ready(url)
        stopped.wait()


@contextmanager
def serving(
    registry: Path,
    base: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    keys: Path | None = None,
    address: str | None = None,
) -> Iterator[str]:
    """A registry served for as long as the context lasts; arguments as in `serve_registry`."""
    settings = Settings.of(
        {
            "registry": Path(registry).absolute(),
            "base": str(Path(base).absolute()) if Path(base).is_dir() else str(base),
            "keys": None if keys is None else Path(keys).absolute(),
        }
    )
    _check(settings, host, address)
    port = free_port(host, port)
    with _connected(address):
        location = "HeadOnly" if address is None else "EveryNode"
        options = {"host": host, "port": port}
        ray_serve.start(proxy_location=location, http_options=options, logging_config=_SILENT)
        try:
            _run(settings)
            yield url_of(host, port)
        finally:
            if address is not None:  # an embedded Ray ends with all that runs in it
                ray_serve.delete(_NAME)


def _run(settings: Settings) -> None:
    try:
        ray_serve.run(_build(settings), name=_NAME)
    except RuntimeError as error:
        deployments = ray_serve.status().applications[_NAME].deployments.values()
        report = "\n".join(status.message for status in deployments) or str(error)
        raise ValueError(report.rpartition(_REASON)[2].strip()) from None


def _check(settings: Settings, host: str, address: str | None) -> None:
    """Refuse what can be seen to be wrong before anything is started."""
    if not settings.registry.is_dir():
        raise FileNotFoundError(f"expected a registry's folder, got {str(settings.registry)!r}")
    if settings.keys is not None:
        if not settings.keys.exists():
            raise FileNotFoundError(
                f"--keys: expected a file, got {str(settings.keys)!r}: not there"
            )
        Keys(settings.keys)
    elif address is not None:
        raise ValueError("expected a key file to serve on a cluster, got none; pass --keys FILE")
    elif not is_loopback(host):
        raise ValueError(
            f"expected a loopback address such as 127.0.0.1 without a key file, got {host!r}; "
            "pass --keys FILE to listen elsewhere"
        )
    else:
        log.warning("no key file: listening on loopback only, where everybody may speak as anybody")
    check(settings.base, settings.dtype)


def _start(folder: str, settings: Mapping[str, Any]) -> None:
    """Starts a Ray of our own.

    Raises:
        OSError: it doesn't start.
    """
    try:
        ray.init(
            address="local",
            num_cpus=1,  # Ray starts this many workers before any is asked for
            object_store_memory=_STORE_BYTES,
            include_dashboard=False,
            _temp_dir=folder,
            **settings,
        )
    except Exception as error:  # Ray raises a bare one where its processes take half a minute
        raise OSError(
            f"expected Ray to start here, got: {error} On a busy machine try again"
        ) from error


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A Ray of our own, or an existing cluster's."""
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "namespace": "milpa-serve"}
    if address is not None:
        ray.init(address=address, **quiet)
        try:
            yield
        finally:
            ray.shutdown()
        return
    own = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, [own, os.environ.get("PYTHONPATH")]))
    os.environ.update({**_ENVIRONMENT, "PYTHONPATH": path})
    # NOTE: Ray opens its temporary folder to everybody (mode 0777), so it lies in a private one.
    folder = tempfile.mkdtemp(prefix="milpa-", dir="/tmp")  # mode 0700
    try:
        _start(f"{folder}/ray", quiet)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
