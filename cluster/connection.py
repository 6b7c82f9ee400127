"""The Ray a run works on: an embedded one of its own, or an existing cluster by its address.

It knows no study and no model. A pack's places are a custom resource, `slot`: an embedded Ray is
given them, a cluster must declare them. A GPU has one packer. A CPU has one for each core as far as
memory reaches: a small base on two threads takes more of the processor than on one, and no less
time (`python -m benchmarks.pack_sizes --threads 1`, `--threads 2`). Every actor here asks for no
CPU, so that Ray's count of cores never decides what runs.

An embedded Ray is started with `address="local"`, so that a stale cluster file or variable can't
capture it; its files lie in a short private folder (Unix socket paths end at 107 bytes), removed
at the end.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import ray

from cluster.process import output_is_logged
from models.lines import QUOTES

SLOT = "slot"
CPU_SLOTS, GPU_SLOTS = 4, 16
_STORE_BYTES = 128 * 2**20  # nothing large goes through the object store: weights lie on disk
_NODE_SHARE = 0.001
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_DEDUP_LOGS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Threads that spin while they wait take the cores from whatever else runs on them.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Memory that is given back is zeroed by the kernel when it is asked for again: at every step.
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the most that glibc takes
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
# An embedded Ray has no dashboard: what is gathered for one would only take time.
_EMBEDDED = {
    "RAY_enable_metrics_collection": "false",
    "RAY_event_stats": "false",
    "RAY_metrics_report_interval_ms": "60000",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
}


@dataclass(frozen=True)
class Place:
    """Where one packer runs: what to give to `options`, and how many threads it may use."""

    options: dict[str, Any]
    device: str
    threads: int


@dataclass(frozen=True)
class Ground:
    """What a connected Ray offers to a run.

    `places` has one for each packer, `whole` the first one's machine for work that has it to
    itself; `cores` are of all machines together.
    """

    slots: int
    cores: int
    places: tuple[Place, ...]
    whole: Place
    namespace: str


@contextmanager
def connected(
    address: str | None,
    slots: int | None,
    namespace: str,
    note_temporary: Any,
    packer_bytes: float,
) -> Iterator[Ground]:
    """A Ray to work on, for as long as the context lasts.

    Args:
        address: an existing cluster's; None starts one here, or in a submitted job takes the
            cluster that the job runs on.
        slots: places of an embedded Ray, on each GPU or on the CPU in all; None takes the usual
            number.
        namespace: where this run's named actors live.
        note_temporary: called with the embedded Ray's temporary folder.
        packer_bytes: what a packer holds on a CPU; infinite where that is not known.

    Raises:
        OSError: no cluster answers at the address, or Ray doesn't start here.
        ValueError: the cluster declares no slots.
    """
    if address is None and output_is_logged():
        address = "auto"
    if address is not None:
        with _joined(address, namespace, packer_bytes) as ground, _terminated_as_interrupted():
            yield ground
        return
    folder = Path(tempfile.mkdtemp(prefix="milpa-", dir="/tmp"))  # mode 0700
    note_temporary(folder)
    try:
        # NOTE: Ray opens its own folder to everybody (mode 0777), so it lies in a private one.
        with (
            _embedded(folder / "ray", slots, namespace, packer_bytes) as ground,
            _terminated_as_interrupted(),
        ):
            yield ground
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, which cluster managers send, ends a run as Ctrl-C does.

    Only where Ray runs: with the handler that Ray sets, the process aborts where it stands.
    """
    rays = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, rays)


@dataclass(frozen=True)
class Node:
    """A machine without a GPU: how Ray is asked for it, and what it offers."""

    options: dict[str, Any]
    cores: int
    slots: int
    free_bytes: float

    @property
    def whole(self) -> Place:
        """All of it, for one process."""
        return Place(self.options, "cpu", packer_threads(self.cores))

    def places(self, packer_bytes: float) -> tuple[Place, ...]:
        """As many packers as cores, slots and memory allow, at least one; they share the threads.

        Half of the memory is theirs: what they train takes the other half.
        """
        threads = packer_threads(self.cores)
        fitting = int(self.free_bytes / 2 / packer_bytes)
        count = max(1, min(threads, self.slots, fitting))
        return (Place(self.options, "cpu", threads // count),) * count


@contextmanager
def _embedded(
    folder: Path, slots: int | None, namespace: str, packer_bytes: float
) -> Iterator[Ground]:
    gpus = _gpu_count()
    per_device = slots or (GPU_SLOTS if gpus else CPU_SLOTS)
    total = per_device * max(1, gpus)
    for name, value in {**_ENVIRONMENT, **_EMBEDDED, "PYTHONPATH": python_path()}.items():
        os.environ[name] = value
    try:
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
    except Exception as error:  # Ray raises a bare one where its processes take half a minute
        raise OSError(
            f"expected Ray to start here, got: {error} On a busy machine try again; or give "
            "--address, a cluster's that runs"
        ) from error
    try:
        cores = len(os.sched_getaffinity(0))
        device = Place({"num_gpus": 1}, "cuda", packer_threads(cores))
        node = Node({"num_gpus": 0}, cores, total, psutil.virtual_memory().available)
        places = (device,) * gpus or node.places(packer_bytes)
        yield Ground(total, cores, places, device if gpus else node.whole, namespace)
    finally:
        ray.shutdown()


@contextmanager
def _joined(address: str, namespace: str, packer_bytes: float) -> Iterator[Ground]:
    job = output_is_logged()  # a submitted job has its own environment
    own = {QUOTES: "no"} if job else {"PYTHONPATH": python_path()}
    variables = {**_ENVIRONMENT, **own}
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
        cores = max(len(os.sched_getaffinity(0)), int(resources.get("CPU", 0)))
        if not slots:
            raise ValueError(
                f"--address: the cluster at {address} declares no {SLOT!r}, a place in a pack. "
                f"Start its workers with, for example:\n"
                f"  ray start --address={address} --resources='{{\"{SLOT}\": {GPU_SLOTS}}}'"
            )
        if gpus:
            device = Place({"num_gpus": 1}, "cuda", 4)
            yield Ground(slots, cores, (device,) * gpus, device, namespace)
        else:
            nodes = _nodes_with_slots()
            places = tuple(place for node in nodes for place in node.places(packer_bytes))
            yield Ground(slots, cores, places, nodes[0].whole, namespace)
    finally:
        ray.shutdown()


def _nodes_with_slots() -> list[Node]:
    found = []
    for node in ray.nodes():
        resources = node["Resources"]
        if node["Alive"] and resources.get(SLOT):
            here = {f"node:{node['NodeManagerAddress']}": _NODE_SHARE}
            cores, slots = int(resources.get("CPU", 1)), int(resources[SLOT])
            found.append(Node({"resources": here}, cores, slots, resources.get("memory", 0)))
    return found


def packer_threads(cores: int) -> int:
    """Threads of a machine's packers: all cores of a small machine, since askers work seldom.

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
