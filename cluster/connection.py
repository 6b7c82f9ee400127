"""The Ray a run works on: an embedded one of its own, or an existing cluster by its address.

It knows no study and no model. A pack's places are a custom resource, `slot`: an embedded Ray is
given them, a cluster must declare them. Every actor here asks for no CPU, so that Ray's count of
cores never decides what runs.

An embedded Ray is started with `address="local"`, so that a stale cluster file or variable can't
capture it; its files lie in a short private folder (Unix socket paths end at 107 bytes), removed
at the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

SLOT = "slot"
CPU_SLOTS, GPU_SLOTS = 4, 16
_STORE_BYTES = 128 * 2**20  # nothing large goes through the object store: weights lie on disk
_NODE_SHARE = 0.001
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray sets it in a submitted job's process

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait take the cores from whatever else runs on them.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Every shape of a matrix product is compiled and kept; rows of text have a great many shapes.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


@dataclass(frozen=True)
class Place:
    """Where one packer runs: what to give to `options`, and how many threads it may use."""

    options: dict[str, Any]
    device: str
    threads: int


@dataclass(frozen=True)
class Ground:
    """What a connected Ray offers to a run."""

    slots: int
    places: tuple[Place, ...]
    namespace: str


def output_is_logged() -> bool:
    """Whether what this process prints becomes one of Ray's logs: a submitted job's does."""
    return _JOB in os.environ


@contextmanager
def connected(
    address: str | None, slots: int | None, namespace: str, note_temporary: Any
) -> Iterator[Ground]:
    """A Ray to work on, for as long as the context lasts.

    Args:
        address: an existing cluster's; None starts one here, or in a submitted job takes the
            cluster that the job runs on.
        slots: places in a pack of an embedded Ray; None takes the device's usual number.
        namespace: where this run's named actors live.
        note_temporary: called with the embedded Ray's temporary folder.

    Raises:
        ConnectionError: no cluster answers at the address.
        ValueError: the cluster declares no slots.
    """
    if address is None and output_is_logged():
        address = "auto"
    if address is not None:
        with _joined(address, namespace) as ground:
            yield ground
        return
    folder = Path(tempfile.mkdtemp(prefix="milpa-", dir="/tmp"))  # mode 0700
    note_temporary(folder)
    try:
        # NOTE: Ray opens its own folder to everybody (mode 0777), so it lies in a private one.
        with _embedded(folder / "ray", slots, namespace) as ground:
            yield ground
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _embedded(folder: Path, slots: int | None, namespace: str) -> Iterator[Ground]:
    gpus = _gpu_count()
    per_device = slots or (GPU_SLOTS if gpus else CPU_SLOTS)
    total = per_device * max(1, gpus)
    for name, value in {**_ENVIRONMENT, "PYTHONPATH": python_path()}.items():
        os.environ[name] = value
    ray.init(
        address="local",
        num_cpus=1,  # Ray starts this many workers before any is asked for
        num_gpus=gpus,
        resources={SLOT: total},
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        namespace=namespace,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=str(folder),
    )
    try:
        cores = len(os.sched_getaffinity(0))
        place = Place(
            {"num_gpus": 1 if gpus else 0}, "cuda" if gpus else "cpu", packer_threads(cores)
        )
        yield Ground(total, (place,) * max(1, gpus), namespace)
    finally:
        ray.shutdown()


@contextmanager
def _joined(address: str, namespace: str) -> Iterator[Ground]:
    job = output_is_logged()  # a submitted job has its own environment
    variables = dict(_ENVIRONMENT) if job else {**_ENVIRONMENT, "PYTHONPATH": python_path()}
    try:
        ray.init(
            address=address,
            namespace=namespace,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": variables},
        )
    except ConnectionError as error:
        raise ConnectionError(
            f"--address: no cluster lets us in at {address} ({error}); if it asks for a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from error
    try:
        resources = ray.cluster_resources()
        slots, gpus = int(resources.get(SLOT, 0)), int(resources.get("GPU", 0))
        if not slots:
            raise ValueError(
                f"--address: the cluster at {address} declares no {SLOT!r}, a place in a pack. "
                f"Start its workers with, for example:\n"
                f"  ray start --address={address} --resources='{{\"{SLOT}\": {GPU_SLOTS}}}'"
            )
        yield Ground(slots, _gpu_places(gpus) if gpus else _node_places(), namespace)
    finally:
        ray.shutdown()


def _gpu_places(gpus: int) -> tuple[Place, ...]:
    return (Place({"num_gpus": 1}, "cuda", 4),) * gpus


def _node_places() -> tuple[Place, ...]:
    """One place on every node that declares slots."""
    places = []
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get(SLOT):
            here = {f"node:{node['NodeManagerAddress']}": _NODE_SHARE}
            cores = int(node["Resources"].get("CPU", 1))
            places.append(Place({"resources": here}, "cpu", packer_threads(cores)))
    return tuple(places)


def packer_threads(cores: int) -> int:
    """Threads of a packer: all cores of a small machine, since askers work seldom.

    Fewer where OMP_NUM_THREADS says so, as on a machine that is shared with others.
    """
    free = cores if cores <= 2 else cores - 1
    return min(free, int(os.environ.get("OMP_NUM_THREADS") or free))


def python_path() -> str:
    """This process' import path, so that workers find what it found."""
    root = str(Path(__file__).resolve().parent.parent)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([root, *filter(None, given)]))


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()
