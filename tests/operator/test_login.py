"""How the operator reaches a cluster: the certificates that clusters have are accepted."""

from __future__ import annotations

import ssl

import pytest

from lockstep_operator.watching import login

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: me, user: {token: secret}}]
"""


def test_an_authority_without_the_extensions_that_python_3_13_demands_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = ssl.create_default_context

    def as_python_3_13(*args: object, **options: object) -> ssl.SSLContext:
        context = make(*args, **options)  # type: ignore[arg-type] # handed on as they came
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    kubeconfig = tmp_path_factory.mktemp("kube") / "config"
    kubeconfig.write_text(KUBECONFIG)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setattr(ssl, "create_default_context", as_python_3_13)

    info = login()

    assert (info.server, info.token) == ("https://127.0.0.1:6443", "secret")
    context = info.as_ssl_context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
