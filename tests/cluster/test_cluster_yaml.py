"""The cluster's files: Ray's own schema check, and that they say what the code expects."""

import ast
import copy
import json
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray import autoscaler
from ray._private.telemetry.metric_cardinality import MetricCardinality
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.dashboard.modules.metrics import dashboards
from ray.serve.schema import ServeDeploySchema

from cluster import outcomes
from cluster.connection import GPU_SLOTS, SLOT

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "cluster" / "k8s").glob("*.yaml"))
BOARDS = sorted((ROOT / "cluster" / "grafana").glob("*.json"))


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """The file as Ray's launcher completes and then checks it."""
    whole = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    return whole


def test_ray_accepts_the_launchers_file(launcher: dict[str, Any]) -> None:
    whole = _checked(launcher)
    assert whole["available_node_types"][whole["head_node_type"]]["max_workers"] == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [("slots", 4), ("max_workers", "many"), ("head_node_type", "nobody"), ("max_workers", 0)],
)
def test_ray_refuses_a_broken_one(launcher: dict[str, Any], key: str, value: object) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        _checked({**launcher, key: value})


def test_every_worker_declares_its_slots_and_the_head_none(launcher: dict[str, Any]) -> None:
    types = dict(launcher["available_node_types"])
    head = types.pop(launcher["head_node_type"])["resources"]
    assert head.get(SLOT, 0) == head.get("GPU", 0) == 0
    for worker in types.values():
        assert worker["resources"][SLOT] == GPU_SLOTS * worker["resources"]["GPU"] > 0
    assert sum(worker["min_workers"] for worker in types.values()) > 0, "no slots at the start"


def test_no_node_starts_from_rays_own_image(launcher: dict[str, Any]) -> None:
    images = {one["node_config"]["ImageId"] for one in launcher["available_node_types"].values()}
    assert len(images) == 1
    rays_own = (resources.files(autoscaler) / "_private" / "aws" / "config.py").read_text()
    assert not any(image in rays_own for image in images)
    assert all(re.fullmatch(r"ami-[0-9a-f]{17}", image) for image in images)


def _environments(launcher: dict[str, Any]) -> list[dict[str, Any]]:
    """What is set in every container, by name: the launcher's, and each of the manifests'."""
    pairs = [o.removeprefix("-e ").partition("=") for o in launcher["docker"]["run_options"]]
    manifests = [yaml.safe_load(path.read_text()) for path in MANIFESTS]
    return [
        {name: value for name, _, value in pairs},
        *(
            {variable["name"]: variable.get("value") for variable in container["env"]}
            for manifest in manifests
            for container in _containers(_cluster(manifest))
        ),
    ]


def test_names_of_tasks_are_nowhere_series_of_prometheus(launcher: dict[str, Any]) -> None:
    for environment in _environments(launcher):
        level = environment["RAY_metric_cardinality_level"]
        assert MetricCardinality(level) is MetricCardinality.LOW
    for board in BOARDS:
        assert not re.search(r"ray_(tasks|actors)\{[^}]*\bName", board.read_text())
        assert "(Name)" not in board.read_text()


def test_every_node_asks_for_the_token(launcher: dict[str, Any]) -> None:
    options = launcher["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in options
    (path,) = [o.partition("=")[2] for o in options if o.startswith("-e RAY_AUTH_TOKEN_PATH=")]
    assert launcher["file_mounts"][path] == "~/.ray/auth_token"
    (start,) = [c for c in launcher["head_start_ray_commands"] if "--head" in c]
    assert "--dashboard-host=127.0.0.1" in start


def test_what_travels_to_the_nodes_is_there(launcher: dict[str, Any]) -> None:
    local = [path for path in launcher["file_mounts"].values() if not path.startswith("~")]
    assert local == ["constraints.txt"]
    assert (ROOT / "constraints.txt").is_file()


def _cluster(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    return spec.get("rayClusterSpec") or spec["rayClusterConfig"]


def _containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for g in groups for container in g["template"]["spec"]["containers"]]


def test_the_manifests_are_these() -> None:
    kinds = {path.name: yaml.safe_load(path.read_text())["kind"] for path in MANIFESTS}
    assert kinds == {"rayjob.yaml": "RayJob", "rayservice.yaml": "RayService"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_hold_a_cluster_of_our_ray_that_asks_for_a_token(path: Path) -> None:
    manifest = yaml.safe_load(path.read_text())
    assert manifest["apiVersion"] == "ray.io/v1"
    cluster = _cluster(manifest)
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    assert {container["image"] for container in _containers(cluster)} == {
        "registry.example.com/milpa:0.1.0"
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_mount_what_they_claim_and_declare_their_slots(path: Path) -> None:
    cluster = _cluster(yaml.safe_load(path.read_text()))
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert container["resources"]["limits"] == container["resources"]["requests"]
        gpus = int(container["resources"]["limits"].get("nvidia.com/gpu", 0))
        (given,) = shlex.split(group["rayStartParams"].get("resources", "'{}'"))
        assert json.loads(given).get(SLOT, 0) in (0, GPU_SLOTS * gpus)


def test_the_job_is_a_search_with_slots() -> None:
    job = yaml.safe_load((ROOT / "cluster/k8s/rayjob.yaml").read_text())
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "milpa", "search"]
    assert words[words.index("--address") + 1] == "auto"
    for group in _cluster(job)["workerGroupSpecs"]:
        (given,) = shlex.split(group["rayStartParams"]["resources"])
        assert json.loads(given)[SLOT] == GPU_SLOTS


def test_the_jobs_database_is_opened_with_a_password_from_a_secret() -> None:
    job = yaml.safe_load((ROOT / "cluster/k8s/rayjob.yaml").read_text())
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[words.index("--storage") + 1].startswith("postgresql://")
    for container in _containers(_cluster(job)):
        (given,) = [one for one in container["env"] if one["name"] == "PGPASSWORD"]
        assert "value" not in given
        assert set(given["valueFrom"]["secretKeyRef"]) == {"name", "key"}


def test_the_service_is_our_application_with_keys() -> None:
    service = yaml.safe_load((ROOT / "cluster/k8s/rayservice.yaml").read_text())
    config = ServeDeploySchema(**yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = config.applications
    assert application.import_path == "serve.app:application"
    # What the application takes, read from its source: this package doesn't import serve.
    source = ast.parse((ROOT / "serve" / "app.py").read_text())
    (settings,) = [n for n in source.body if isinstance(n, ast.ClassDef) and n.name == "Settings"]
    fields = {ast.unparse(n.target) for n in settings.body if isinstance(n, ast.AnnAssign)}
    assert "keys" in application.args
    assert set(application.args) <= fields
    # The config arrives when the head is up: what isn't named then is placed on the head.
    assert application.args["device"] == "cuda"
    groups = _cluster(service)["workerGroupSpecs"]
    assert application.args["replicas"] == sum(group["minReplicas"] for group in groups)
    assert any(isinstance(n, ast.FunctionDef) and n.name == "application" for n in source.body)


def _expressions(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]


def _metrics(text: str) -> set[str]:
    return set(re.findall(r"\bray_[a-z0-9_]+", text))


def test_boards_ask_only_for_metrics_that_ray_itself_draws_and_our_own() -> None:
    panels = [f for f in resources.files(dashboards).iterdir() if f.name.endswith("_panels.py")]
    known = set().union(*(_metrics(file.read_text()) for file in panels))
    assert "ray_tasks" in known
    ours = f"ray_{outcomes.NAME}_total"
    for board in BOARDS:
        content = json.loads(board.read_text())
        asked = _metrics(json.dumps([p.get("targets") for p in content["panels"]]))
        assert {"ray_tasks", "ray_serve_num_http_requests_total", ours} <= asked
        assert asked - known == {ours}
        (sum_of_ours,) = [e for e in _expressions(content) if ours in e]
        assert sum_of_ours.endswith(f"by ({outcomes.LABEL})")


def test_boards_have_panels_that_do_not_overlap() -> None:
    assert BOARDS
    for board in BOARDS:
        panels = json.loads(board.read_text())["panels"]
        cells = [
            (x, y)
            for grid in (panel["gridPos"] for panel in panels)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24
        assert len({panel["id"] for panel in panels}) == len(panels)
