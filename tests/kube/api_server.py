"""A real Kubernetes API server with its etcd on loopback: their start, their end by pid.

There are no controllers: nothing is garbage-collected, and a deleted namespace stays and is `Terminating`.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
import subprocess
import threading
from pathlib import Path

from lockstep.runtime.clock import SystemClock
from tests.etcd.etcd_process import EtcdProcess, free_ports
from tests.kube.client import KubeClient
from tests.kube.program import Programs

START_MS = 60_000
_clock = SystemClock()


class ApiServer:
    """One API server. It authorises by RBAC; `admin_token` may do everything."""

    def __init__(self, directory: Path, programs: Programs) -> None:
        self._directory = directory
        self._programs = programs
        self._etcd = EtcdProcess(directory / "etcd", program=str(programs.etcd))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.admin_token = secrets.token_hex(16)
        self.has_definitions = False

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self._directory / "certs" / "apiserver.crt"

    def start(self) -> ApiServer:
        """Start both, and return when the server is ready."""
        self._etcd.start()
        (self.port,) = free_ports(1)
        directory = self._directory
        (directory / "tokens.csv").write_text(
            f'{self.admin_token},admin,admin-uid,"system:masters"\n'
        )
        key = directory / "service-accounts.key"
        curve = ("-name", "prime256v1", "-genkey", "-noout")
        subprocess.run(
            ["openssl", "ecparam", *curve, "-out", str(key)], check=True, capture_output=True
        )
        command = [
            str(self._programs.kube_apiserver),
            *("--etcd-servers", f"http://{self._etcd.endpoint}"),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--secure-port", str(self.port), "--cert-dir", str(directory / "certs")),
            *("--authorization-mode", "RBAC", "--token-auth-file", str(directory / "tokens.csv")),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *(
                "--service-account-key-file",
                str(key),
                "--service-account-signing-key-file",
                str(key),
            ),
            *("--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none"),
            # No controller makes the account `default` of a namespace, which this would ask of each pod.
            *("--disable-admission-plugins", "ServiceAccount"),
        ]
        with (directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait_until_ready(self._process)
        return self

    def stop(self) -> None:
        """End both at once; nothing of them is needed any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._etcd.stop()

    def client(self, token: str = "") -> KubeClient:
        """Return a client for one token; by default the one that may do everything."""
        return KubeClient(self.url, token or self.admin_token, self.ca_file)

    def write_kubeconfig(self, path: Path, token: str = "", *, url: str = "") -> Path:
        """Write what programs need to find this server, and return its path.

        Args:
            path: Where.
            token: Who they are; by default who may do everything.
            url: Of a proxy before the server.
        """
        trust = {"certificate-authority-data": base64.b64encode(self.ca_file.read_bytes()).decode()}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": url or self.url, **trust}}],
            "users": [{"name": "test", "user": {"token": token or self.admin_token}}],
        }
        path.write_text(json.dumps(config))  # JSON is YAML
        return path

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        ends_ms = _clock.monotonic_ms() + START_MS
        pause = threading.Event()
        while not self._is_ready():
            code = process.poll()
            assert code is None, f"kube-apiserver ended with {code}: {self._log()}"
            assert _clock.monotonic_ms() < ends_ms, f"kube-apiserver is not ready: {self._log()}"
            pause.wait(0.05)

    def _is_ready(self) -> bool:
        if not self.ca_file.exists():
            return False
        try:
            trusted = ssl.create_default_context(cafile=str(self.ca_file))
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=5, context=trusted
            )
            try:
                connection.request(
                    "GET", "/readyz", headers={"Authorization": f"Bearer {self.admin_token}"}
                )
                return connection.getresponse().status == http.client.OK
            finally:
                connection.close()
        except OSError:
            return False

    def _log(self) -> str:
        return (self._directory / "log").read_text()[-4_000:]
