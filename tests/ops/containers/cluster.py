"""A small Kubernetes API for the real kubectl: stores what it is given and plays the controllers' part, so that a
script that deploys can be run whole. No pod runs: an image's name says how its pods would fare."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]

VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]
#: Plural → (group and version, kind).
RESOURCES = {
    "deployments": ("apps/v1", "Deployment"),
    "replicasets": ("apps/v1", "ReplicaSet"),
    "jobs": ("batch/v1", "Job"),
    "services": ("v1", "Service"),
    "pods": ("v1", "Pod"),
}
_PATH = re.compile(
    r"/(?:api/v1|apis/[\w.]+/v1)/namespaces/(?P<namespace>[\w-]+)/(?P<plural>\w+)(?:/(?P<name>[\w-]+))?(?P<log>/log)?"
)


@dataclass
class Cluster:
    """Deployments with images that end in `-never` do not get available; a smoke translation through a Service that
    leads to pods of an image that ends in `-refusing` fails.

    Attributes:
        served: image behind the Service `nllbd` after each change of it or of a Deployment: what clients would see.
    """

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    served: list[str] = field(default_factory=list)
    _version: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        cluster = self

        class Handler(_Handler):
            pass

        Handler.cluster = cluster
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, path: Path) -> Path:
        cluster = {"name": "test", "cluster": {"server": self.url}}
        context = {"name": "test", "context": {"cluster": "test", "user": "test"}}
        users = [{"name": "test", "user": {}}]
        text = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": users, "contexts": [context]}
        path.write_text(json.dumps({**text, "current-context": "test"}))
        return path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # What kubectl asks

    def get(self, plural: str, name: str) -> Object | None:
        with self._lock:
            return copy.deepcopy(self.objects.get((plural, name)))

    def list(self, plural: str) -> Object:
        with self._lock:
            items = [copy.deepcopy(one) for (kind, _), one in self.objects.items() if kind == plural]
        version, kind = RESOURCES[plural]
        return {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}, "items": items}

    def put(self, plural: str, thing: Object) -> Object:
        """Store, then do what the controllers would."""
        with self._lock:
            self._version += 1
            metadata = thing["metadata"]
            metadata.setdefault("namespace", "nllbd")
            metadata["resourceVersion"] = str(self._version)
            metadata.setdefault("uid", f"uid-{plural}-{metadata['name']}")
            self.objects[plural, metadata["name"]] = thing
            if plural == "deployments":
                self._roll_out(thing)
            if plural == "jobs":
                self._run_job(thing)
            self._look_at_service()
            return copy.deepcopy(thing)

    def patch(self, plural: str, name: str, change: Object) -> Object | None:
        with self._lock:
            thing = self.objects.get((plural, name))
            return None if thing is None else self.put(plural, _merged(thing, change))

    def patch_json(self, plural: str, name: str, operations: list[Object]) -> Object | None:
        """RFC 6902, as far as `rollout undo` needs it: whole fields replaced."""
        with self._lock:
            thing = copy.deepcopy(self.objects[plural, name])
            for operation in operations:
                *parents, last = operation["path"].strip("/").split("/")
                place = thing
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[last] = operation["value"]
            return self.put(plural, thing)

    def delete(self, plural: str, name: str) -> bool:
        with self._lock:
            gone = self.objects.pop((plural, name), None) is not None
            self._look_at_service()
            return gone

    # What controllers do

    def _roll_out(self, deployment: Object) -> None:
        """A ReplicaSet for each template, numbered; available at once, or never."""
        metadata, spec = deployment["metadata"], deployment["spec"]
        spec.setdefault("replicas", 1)
        template = json.dumps(spec["template"], sort_keys=True)
        sets = [
            one
            for (plural, _), one in self.objects.items()
            if plural == "replicasets" and _owner(one) == metadata["name"]
        ]
        own = next((one for one in sets if one["template_text"] == template), None)
        revision = 1 + max((int(one["metadata"]["annotations"][REVISION]) for one in sets), default=0)
        if own is None:
            metadata["generation"] = metadata.get("generation", 0) + 1
            name = f"{metadata['name']}-{revision}"
            own = {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": name,
                    "namespace": "nllbd",
                    "uid": f"uid-{name}",
                    "labels": {**spec["template"]["metadata"]["labels"], "pod-template-hash": str(revision)},
                    "annotations": {REVISION: str(revision)},
                    "ownerReferences": [
                        {
                            "apiVersion": "apps/v1",
                            "kind": "Deployment",
                            "name": metadata["name"],
                            "uid": metadata["uid"],
                            "controller": True,
                        }
                    ],
                },
                "spec": {"selector": spec["selector"], "replicas": spec["replicas"], "template": spec["template"]},
                "template_text": template,
            }
            self.objects["replicasets", name] = own
        elif own is not max(sets, key=lambda one: int(one["metadata"]["annotations"][REVISION])):
            own["metadata"]["annotations"][REVISION] = str(revision)
            metadata["generation"] = metadata.get("generation", 0) + 1
        metadata.setdefault("annotations", {})[REVISION] = own["metadata"]["annotations"][REVISION]
        count, is_up = spec["replicas"], not image_of(deployment).endswith("-never")
        deployment["status"] = {
            "observedGeneration": metadata.setdefault("generation", 1),
            "replicas": count,
            "updatedReplicas": count if is_up else 1,
            "readyReplicas": count,
            "availableReplicas": count if is_up else count - 1,
            "conditions": [{"type": "Progressing", **(AVAILABLE if is_up else LATE)}],
        }

    def _run_job(self, job: Object) -> None:
        """A smoke translation is asked of whatever its Service leads to."""
        arguments = job["spec"]["template"]["spec"]["containers"][0]["args"]
        service = urlsplit(arguments[arguments.index("--url") + 1]).hostname or ""
        is_good = bool(self.behind(service)) and not any(image.endswith("-refusing") for image in self.behind(service))
        labels = {"job-name": job["metadata"]["name"]}
        job["spec"]["selector"] = {"matchLabels": labels}
        pod = {"name": job["metadata"]["name"], "namespace": "nllbd", "uid": "uid-pod", "labels": labels}
        spec = job["spec"]["template"]["spec"]
        self.objects["pods", pod["name"]] = {"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": spec}
        job["status"] = {"conditions": [{"type": "Complete" if is_good else "Failed", "status": "True"}]}

    def behind(self, service: str) -> list[str]:
        """Images of the pods that a Service leads to."""
        found = self.objects.get(("services", service))
        if found is None:
            return []
        wanted = found["spec"]["selector"].items()
        deployments = [one for (plural, _), one in self.objects.items() if plural == "deployments"]
        return [_running(one) for one in deployments if wanted <= one["spec"]["template"]["metadata"]["labels"].items()]

    def _look_at_service(self) -> None:
        for image in self.behind("nllbd"):
            if self.served[-1:] != [image]:
                self.served.append(image)


AVAILABLE = {"status": "True", "reason": "NewReplicaSetAvailable"}
LATE = {"status": "False", "reason": "ProgressDeadlineExceeded"}
REVISION = "deployment.kubernetes.io/revision"


def image_of(deployment: Object) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def _running(deployment: Object) -> str:
    """maxUnavailable is 0: a version that never gets ready takes nothing from the one before it."""
    image = image_of(deployment)
    return str(deployment["metadata"].get("before", image)) if image.endswith("-never") else image


def _owner(thing: Object) -> str:
    return str(thing["metadata"]["ownerReferences"][0]["name"])


def _merged(old: Any, change: Any) -> Any:
    """A merge patch; lists of named things are merged by name, as strategic patches do."""
    if isinstance(old, dict) and isinstance(change, dict):
        result = {name: value for name, value in old.items() if name not in change or change[name] is not None}
        for name, value in change.items():
            if value is not None and not name.startswith("$"):
                result[name] = _merged(result.get(name), value)
        return result
    if (
        isinstance(old, list)
        and isinstance(change, list)
        and all(isinstance(one, dict) and "name" in one for one in change)
    ):
        changes = {one["name"]: one for one in change}
        merged = [_merged(one, changes.pop(one["name"], one)) for one in old]
        return [*merged, *changes.values()]
    return copy.deepcopy(change)


class _Handler(BaseHTTPRequestHandler):
    cluster: Cluster
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if (discovered := _discover(parts.path)) is not None:
            return self._answer(200, discovered)
        match, cluster = _PATH.fullmatch(parts.path), self.cluster
        if match is None:
            return self._answer(404, _status(404, parts.path))
        plural, name = match["plural"], match["name"]
        if match["log"]:
            return self._say("Where is the train station?\n")
        query = parse_qs(parts.query)
        if "watch" in query:
            return self._say("", "application/json")  # nothing ever changes by itself
        if name is None and "fieldSelector" in query:
            wanted = query["fieldSelector"][0].removeprefix("metadata.name=")
            items = cluster.list(plural)
            items["items"] = [one for one in items["items"] if one["metadata"]["name"] == wanted]
            return self._answer(200, items)
        found = cluster.list(plural) if name is None else cluster.get(plural, name)
        return self._answer(200, found) if found is not None else self._answer(404, _status(404, name))

    def do_POST(self) -> None:
        self._change(lambda plural, _name, body: self.cluster.put(plural, body), 201)

    def do_PUT(self) -> None:
        self._change(lambda plural, _name, body: self.cluster.put(plural, body))

    def do_PATCH(self) -> None:
        is_json = self.headers["Content-Type"] == "application/json-patch+json"
        self._change(self.cluster.patch_json if is_json else self.cluster.patch)

    def do_DELETE(self) -> None:
        def remove(plural: str, name: str, _body: Any) -> Object | None:
            return _status(200, name) if self.cluster.delete(plural, name) else None

        self._change(remove)

    def _change(self, change: Callable[[str, str, Any], Object | None], status: int = 200) -> None:
        match = _PATH.fullmatch(urlsplit(self.path).path)
        assert match is not None, self.path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_json = body[:1] in (b"{", b"[")
        answer = change(match["plural"], match["name"], json.loads(body) if is_json else {})
        self._answer(status if answer is not None else 404, answer or _status(404, match["name"]))

    def _answer(self, status: int, thing: Object) -> None:
        self._say(json.dumps(thing), "application/json", status)

    def _say(self, text: str, kind: str = "text/plain", status: int = 200) -> None:
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _discover(path: str) -> Object | None:
    groups = sorted({version for version, _ in RESOURCES.values()} - {"v1"})
    if path == "/version":
        return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        versions = [{"groupVersion": one, "version": "v1"} for one in groups]
        named = [
            {"name": one.partition("/")[0], "versions": [version], "preferredVersion": version}
            for one, version in zip(groups, versions, strict=True)
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
    version = path.removeprefix("/apis/") if path.startswith("/apis/") else path.removeprefix("/api/")
    found = [
        {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": VERBS}
        for plural, (one, kind) in RESOURCES.items()
        if one == version
    ]  # fmt: skip
    return {"kind": "APIResourceList", "groupVersion": version, "resources": found} if found else None


def _status(code: int, what: str | None) -> Object:
    reason = {200: "", 404: "NotFound"}[code]
    return {
        "kind": "Status", "apiVersion": "v1", "status": "Success" if code == 200 else "Failure", "reason": reason,
        "code": code, "message": f"{what} not found" if code == 404 else "", "details": {"name": what},
    }  # fmt: skip
