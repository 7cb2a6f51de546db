"""Kubernetes on this machine: its own API server over etcd, and a node of this process, which runs pods as processes.

The API server decides what names, specs and rights are accepted. The node, a thread, binds pods, runs the container of
each in a root, and in namespaces of mounts, names and processes, of its own, tells its phase, and deletes what its owner leaves behind.
A pod has an address of the loopback, its volumes, its variables, and a token of its service account.

The programs are built by Go, in some seven minutes of CPU (kube-apiserver has 103 MB, etcd 27 MB):

    go mod init api && go mod edit -require k8s.io/kubernetes@v1.34.4
    mod=$(go mod download -json k8s.io/kubernetes@v1.34.4 | sed -n 's/.*"GoMod": "\\(.*\\)",/\\1/p')
    sed -n 's#^\\t\\(k8s.io/[a-z-]*\\) => ./staging.*#\\1=\\1@v0.34.4#p' $mod | xargs -I{} go mod edit -replace {}
    echo 'package api; import _ "k8s.io/kubernetes/cmd/kube-apiserver/app"' > api.go && go mod tidy
    go build -o ~/go/bin/ k8s.io/kubernetes/cmd/kube-apiserver && go build -o ~/go/bin/etcd go.etcd.io/etcd/server/v3

`CURATE_TEST_IMAGE` names an image of buildah's, of target `spark`, for pods; without it they have what this machine has.
"""

import base64
import json
import os
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.kit.waiting import wait_until
from tests.runners.clusters import find_go_program, free_port

IMAGE = "registry.example/curate:1"
ROOT = Path(__file__).resolve().parents[2]
_ADMIN = "admin-token"
_MERGE = "application/merge-patch+json"
_KINDS = ("pods", "services", "configmaps", "secrets", "persistentvolumeclaims")

Object = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """An image's root, and what it says of a container."""

    root: str
    environment: Mapping[str, str]
    entrypoint: Sequence[str]
    folder: str
    user: str


def find_image(folder):
    """The image of buildah's that `CURATE_TEST_IMAGE` names; without it this machine, with files of a folder on top."""
    if name := os.environ.get("CURATE_TEST_IMAGE"):

        def ask(*words):
            return subprocess.run(["buildah", *words], check=True, capture_output=True, text=True).stdout.strip()

        config = json.loads(ask("inspect", "--type", "image", name))["OCIv1"]["config"]
        container = ask("from", "--pull-never", name)
        return Image(
            ask("mount", container),
            dict(text.split("=", 1) for text in config["Env"]),
            config["Entrypoint"],
            config["WorkingDir"],
            config["User"],
        )
    spark = Path(pytest.importorskip("pyspark").__file__).parent
    (folder / "opt/curate/numba").mkdir(parents=True)
    (folder / "opt/venv").symlink_to(sys.prefix)
    (folder / "opt/spark").symlink_to(spark)
    (folder / "opt/curate/staged.py").symlink_to(ROOT / "curate/cli/staged.py")
    shutil.copy2(ROOT / "infra/entrypoint.sh", folder / "opt/curate")
    environment = {
        "PATH": f"/opt/venv/bin:{os.environ['PATH']}",
        "SPARK_HOME": "/opt/spark",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "NUMBA_CACHE_DIR": "/opt/curate/numba",
    }
    return Image("/", environment, ["/opt/curate/entrypoint.sh"], "/tmp", "root")


@dataclass
class Pod:
    """A pod that runs here: its address, and the process whose end is that of all of it."""

    address: str
    process: subprocess.Popen[bytes]
    told: str = ""  # the phase that the API server knows; `asked` to end

    def send(self, number):
        """Send a signal to its first process, with which all others are killed."""
        with suppress(psutil.Error):  # it has ended
            for process in psutil.Process(self.process.pid).children() or [self.process]:
                process.send_signal(number)


@dataclass
class Kubernetes:
    """A cluster.

    Attributes:
        folder: of its own; `logs` in it has what each pod prints.
        address: of the API server, at port 443.
        image: what pods run.
    """

    folder: Path
    address: str
    image: Image
    _pods: dict[str, Pod] = field(default_factory=dict)  # by uid
    _count: int = 1
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self):
        return f"https://{self.address}:443"

    def ask(self, method, path, body=None, kind="application/json"):
        """What the API server answers, below /api/v1. Raises urllib.error.HTTPError."""
        data, headers = json.dumps(body).encode() if body else None, {"Authorization": f"Bearer {_ADMIN}"}
        path = path if path.startswith("/") else f"/api/v1/{path}"
        request = urllib.request.Request(self.url + path, data, headers | {"Content-Type": kind}, method=method)
        context = ssl.create_default_context(cafile=str(self.folder / "apiserver.crt"))
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.load(answer)

    def objects(self, kind="pods"):
        """All objects of a kind."""
        return self.ask("GET", kind)["items"]

    def account(self, name):
        """Make a service account that may edit its namespace; returns a token."""
        self.ask("POST", "namespaces/default/serviceaccounts", {"metadata": {"name": name}})
        subject = {"kind": "ServiceAccount", "name": name, "namespace": "default"}
        bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
        for part in ("system:aggregate-to-edit", "system:aggregate-to-view"):  # of which a controller makes `edit`
            role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": part}
            self.ask("POST", bindings, {"metadata": {"name": f"{name}:{part}"}, "roleRef": role, "subjects": [subject]})
        return self.token(name)

    def token(self, account, namespace="default"):
        path = f"namespaces/{namespace}/serviceaccounts/{account}/token"
        return str(self.ask("POST", path, {"spec": {"expirationSeconds": 86400}})["status"]["token"])

    def write_config(self, file, token):
        """Write a configuration of `kubectl`, for a user with this token."""
        named = {"name": "here"}
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "apiserver.crt")}
        context = {"cluster": "here", "user": "here", "namespace": "default"}
        parts = {"cluster": cluster, "user": {"token": token}, "context": context}
        config = {f"{kind}s": [named | {kind: part}] for kind, part in parts.items()}
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "here"} | config))
        return file

    def find_pods(self, role):
        """Those of Spark's `driver` or `executor` that run, the oldest first."""
        pods = [pod for pod in self.objects() if pod["metadata"].get("labels", {}).get("spark-role") == role]
        is_here = [pod for pod in pods if pod["metadata"]["uid"] in self._pods and pod["status"]["phase"] == "Running"]
        return sorted(is_here, key=lambda pod: str(pod["status"]["startTime"]))

    def kill(self, pod):
        """Kill all processes of a pod at once, as a node does whose memory is full."""
        self._pods[pod["metadata"]["uid"]].send(signal.SIGKILL)

    def read_log(self, pod):
        return (self.folder / "logs" / pod["metadata"]["name"]).read_text(errors="replace")

    def read_logs(self):
        """The ends of what pods printed."""
        files = sorted((self.folder / "logs").iterdir())
        return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-3000:]}" for file in files)

    def _work(self):
        while not self._ended.wait(0.2):
            with suppress(OSError):
                self._name_services()
                for pod in self.objects():
                    with suppress(urllib.error.HTTPError):  # 404, 409: it, or what it mounts, is not there yet, or gone
                        self._look_at(pod)

    def _name_services(self):
        """As the cluster's DNS does: a service without an address is its pods."""
        hosts = self.folder / "hosts"
        lines = hosts.read_text().splitlines()
        pods = self.objects()
        for service in self.objects("services"):
            labels, name = (service["spec"].get("selector") or {}).items(), service["metadata"]["name"]
            for pod in pods:
                if labels and labels <= pod["metadata"].get("labels", {}).items() and "podIP" in pod["status"]:
                    line = f"{pod['status']['podIP']} {name}.{service['metadata']['namespace']}.svc"
                    if line not in lines:
                        with open(hosts, "a") as file:
                            file.write(f"{line}\n")

    def _look_at(self, pod):
        meta, here = pod["metadata"], self._pods.get(pod["metadata"]["uid"])
        path = f"namespaces/{meta['namespace']}/pods/{meta['name']}"
        if "deletionTimestamp" in meta:
            if here and not self._stop(here, meta["deletionTimestamp"]):
                return
            self.ask("DELETE", path, {"gracePeriodSeconds": 0})
            self._pods.pop(meta["uid"], None)
            self._collect(meta["uid"])
        elif "nodeName" not in pod["spec"]:
            target = {"apiVersion": "v1", "kind": "Node", "name": "here"}
            self.ask("POST", f"{path}/binding", {"metadata": {"name": meta["name"]}, "target": target})
        elif not here and pod["status"]["phase"] == "Pending":
            self._pods[meta["uid"]] = self._start(pod)
        elif here:
            status = here.process.poll()
            phase = "Running" if status is None else "Failed" if status else "Succeeded"
            if here.told != phase:
                self.ask("PATCH", f"{path}/status", {"status": _status(pod, here.address, phase, status)}, _MERGE)
                here.told = phase

    @staticmethod
    def _stop(pod, until):
        """Ask the first process of a pod to end, and kill all at that time; returns whether it has ended."""
        if pod.told != "asked":
            pod.send(signal.SIGTERM)
            pod.told = "asked"
        if _now() > until:
            pod.send(signal.SIGKILL)
        return pod.process.poll() is not None

    def _collect(self, uid):
        """Delete what has this owner, as the cluster's controllers do."""
        for kind in _KINDS:
            for item in self.objects(kind):
                meta = item["metadata"]
                if uid in [owner["uid"] for owner in meta.get("ownerReferences", ())]:
                    with suppress(urllib.error.HTTPError):  # it is gone
                        self.ask("DELETE", f"namespaces/{meta['namespace']}/{kind}/{meta['name']}")

    def _start(self, pod):
        [container], meta = pod["spec"]["containers"], pod["metadata"]
        assert container["image"] == IMAGE, container["image"]
        address = self.address.rpartition(".")[0] + f".{self._count + 1}"
        known = {"status.podIP": address} | {f"metadata.{key}": meta[key] for key in ("name", "namespace")}
        variables = dict(self.image.environment) | {"HOME": self.image.folder}
        for entry in container.get("env", ()):
            source = entry.get("valueFrom")
            variables[entry["name"]] = self._read_value(source, meta, known) if source else entry.get("value", "")
        folder = self.folder / "pods" / meta["uid"]
        root = folder / "root"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"hostname {meta['name']}", f"mount -t tmpfs tmpfs {folder}"]
        lines += [f"mkdir {folder}/upper {folder}/work {root}", f"cp -a {self.folder}/image/. {folder}/upper"]
        options = f"lowerdir={self.image.root},upperdir={folder}/upper,workdir={folder}/work"
        lines += [f"mount -t overlay overlay -o {options} {root}", f"mount -t proc proc {root}/proc"]
        lines += [f"mount --rbind /dev {root}/dev", f"mount --bind {self.folder}/hosts {root}/etc/hosts"]
        for mount in container.get("volumeMounts", ()):
            [volume] = [volume for volume in pod["spec"]["volumes"] if volume["name"] == mount["name"]]
            source, place = self._fill(volume, meta, known, pod["spec"]["serviceAccountName"]), mount["mountPath"]
            inside = f"chroot {root}"
            lines += [f"{inside} mkdir -p {place}", f"mount --bind {source} {root}$({inside} readlink -f {place})"]
        command, arguments = container.get("command", self.image.entrypoint), container.get("args", ())
        words = ["env", "-C", self.image.folder, *command, *arguments]
        lines += [f"exec chroot --userspec={self.image.user} {root} {shlex.join(words)}"]
        command = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "sh", "-ec", "\n".join(lines)]
        self._count += 1
        with open(self.folder / "hosts", "a") as hosts:
            hosts.write(f"{address} {meta['name']}\n")
        with open(self.folder / "logs" / meta["name"], "ab") as log:
            process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
        return Pod(address, process)

    def _read_value(self, source, meta, known):
        if reference := source.get("secretKeyRef"):
            data = self.ask("GET", f"namespaces/{meta['namespace']}/secrets/{reference['name']}")["data"]
            return base64.b64decode(data[reference["key"]]).decode()
        return known[source["fieldRef"]["fieldPath"]]

    def _fill(self, volume, meta, known, account):
        """The folder of a pod's volume."""
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        folder = self.folder / "volumes" / meta["uid"] / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        for source in volume["projected"]["sources"] if "projected" in volume else [volume]:
            files = {}
            if "configMap" in source:
                path = f"namespaces/{meta['namespace']}/configmaps/{source['configMap']['name']}"
                files = self.ask("GET", path).get("data", {})
            if asked := source.get("serviceAccountToken"):
                files = {asked["path"]: self.token(account, meta["namespace"])}
            if asked := source.get("downwardAPI"):
                files = {item["path"]: known[item["fieldRef"]["fieldPath"]] for item in asked["items"]}
            for name, text in files.items():
                (folder / name).write_text(text)
        return folder


def _now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _status(pod, address, phase, status):
    now, [container] = _now(), pod["spec"]["containers"]
    is_ready, began = phase == "Running", pod["status"].get("startTime", "")
    state = {"running": {"startedAt": now}}
    if status is not None:
        code = status if status >= 0 else 128 - status
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": began, "finishedAt": now}
        state = {"running": None, "terminated": ended}
    named = {key: container[key] for key in ("name", "image")}
    told = named | {"imageID": "", "ready": is_ready, "started": is_ready, "restartCount": 0, "state": state}
    condition = {"type": "Ready", "status": str(is_ready), "lastTransitionTime": now}
    where = {"podIP": address, "podIPs": [{"ip": address}], "hostIP": address}
    return where | {"phase": phase, "startTime": began or now, "conditions": [condition], "containerStatuses": [told]}


@contextmanager
def running_kubernetes(folder):
    """Start a cluster; in the end it and all pods are killed. Skips the test where a program is missing."""
    if os.geteuid() or sys.platform != "linux":
        pytest.skip("a pod's mounts need root")
    etcd, server = find_go_program("etcd"), find_go_program("kube-apiserver")
    number, peer = os.getpid(), f"http://127.0.0.1:{free_port()}"
    address, store = f"127.{1 + number // 250 % 250}.{number % 250}.1", f"http://127.0.0.1:{free_port()}"
    for name in ("logs", "pods", "volumes", "image"):
        (folder / name).mkdir(parents=True)
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} kubernetes.default.svc\n")
    (folder / "tokens.csv").write_text(f"{_ADMIN},admin,admin,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", f"{folder}/accounts.key", "2048"], check=True, capture_output=True)
    key, issuer = f"{folder}/accounts.key", "https://kubernetes.default.svc"
    commands = [
        f"{etcd} --data-dir {folder}/etcd --unsafe-no-fsync --listen-client-urls {store} --advertise-client-urls {store} "
        f"--listen-peer-urls {peer} --initial-advertise-peer-urls {peer} --initial-cluster default={peer}",
        f"{server} --etcd-servers {store} --bind-address {address} --advertise-address {address} --secure-port 443 "
        f"--cert-dir {folder} --token-auth-file {folder}/tokens.csv --authorization-mode RBAC --endpoint-reconciler-type none "
        f"--service-account-issuer {issuer} --service-account-signing-key-file {key} --service-account-key-file {key}",
    ]
    daemons = []
    cluster = Kubernetes(folder, address, find_image(folder / "image"))
    node = threading.Thread(target=cluster._work, name="node")

    def is_ready():
        with suppress(OSError):
            return bool(cluster.ask("GET", "namespaces/default"))
        return False

    def daemons_run():
        return all(daemon.poll() is None for daemon in daemons)

    try:
        for command in commands:
            with open(folder / f"{Path(command.split()[0]).name}.log", "ab") as log:
                daemons.append(subprocess.Popen(command.split(), stdout=log, stderr=log, start_new_session=True))
        wait_until(is_ready, daemons_run)
        accounts = "namespaces/default/serviceaccounts"
        certificate = (folder / "apiserver.crt").read_text()
        root = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": certificate}}
        cluster.ask("POST", "namespaces/default/configmaps", root)
        cluster.ask("POST", accounts, {"metadata": {"name": "default"}})
        node.start()
        yield cluster
    finally:
        cluster._ended.set()
        if node.is_alive():
            node.join()
        for pod in cluster._pods.values():
            pod.send(signal.SIGKILL)
            pod.process.wait()
        for daemon in reversed(daemons):
            daemon.kill()
            daemon.wait()
