"""certbot against an authority of our own (pebble), through the shipped nginx; the deploy hook; renewal under load."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.kit.daemons import Daemon, free_port
from tests.ops.kit.edge import DEPLOY, Edge
from tests.ops.kit.programs import eventually, need
from tests.ops.kit.traffic import Traffic

pytestmark = pytest.mark.ops

BIN = DEPLOY / "certificates/bin"
NAME = "api.example.test"


class Authority:
    """pebble, and the DNS server that it asks; both on loopback."""

    def __init__(self, folder: Path, http_port: int) -> None:
        self.folder = folder
        self.port, self.management_port, dns, control = (free_port() for _ in range(4))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
        self.own_certificate = folder / "pebble.pem"
        command += ["-keyout", str(folder / "pebble.key"), "-out", str(self.own_certificate)]
        subprocess.run(command, check=True, capture_output=True)
        settings = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management_port}",
            "certificate": str(self.own_certificate),
            "privateKey": str(folder / "pebble.key"),
            "httpPort": http_port,
            "tlsPort": 9,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
        programs = need("pebble", "pebble-challtestsrv")
        names = [str(programs["pebble-challtestsrv"]), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]
        names += ["-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{control}"]
        names += ["-http01", "", "-https01", "", "-tlsalpn01", ""]
        pebble = [str(programs["pebble"]), "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
        environ = {"PATH": os.environ["PATH"], "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        self._log = (folder / "pebble.log").open("wb")
        self._processes = [
            subprocess.Popen(command, stdout=self._log, stderr=self._log, env=environ) for command in (names, pebble)
        ]
        self.root = folder / "root.pem"
        self.root.write_text(eventually(self._read_root))

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}/dir"

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._log.close()

    def _read_root(self) -> str:
        tls = ssl.create_default_context(cafile=str(self.own_certificate))
        try:
            url = f"https://localhost:{self.management_port}/roots/0"
            with urllib.request.urlopen(url, timeout=5, context=tls) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""


@pytest.fixture(scope="module")
def edge(one: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    need("nginx", "certbot")
    with Edge(tmp_path_factory.mktemp("edge"), [one.address]) as edge:
        yield edge


@pytest.fixture(scope="module")
def authority(edge: Edge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    with contextlib.closing(Authority(tmp_path_factory.mktemp("authority"), edge.http_port)) as authority:
        yield authority


@pytest.fixture(scope="module")
def certbot(edge: Edge, authority: Authority) -> list[str]:
    """Options of certbot that keep it in a folder of its own."""
    folder = edge.folder / "certbot"
    return [f"--{name}-dir={folder / name}" for name in ("config", "work", "logs")]


def test_issue_deploy_and_renew_under_load(edge: Edge, authority: Authority, certbot: list[str]) -> None:
    textfile = edge.folder / "nllbd_certificates.prom"
    issue = [str(BIN / "certificate-issue"), "--domain", NAME, "--email", "none", "--server", authority.url]
    issue += ["--folder", str(edge.folder), "--acme-root", str(edge.folder / "run/acme"), "--textfile", str(textfile)]
    assert served_issuer(edge) == "localhost"  # signed by itself
    run([*issue, "--", *certbot], authority)

    # nginx serves it without having been restarted, and Prometheus is told until when
    first = served(edge, authority)
    assert "Pebble" in served_issuer(edge)
    assert expiry(textfile) == pytest.approx(ssl.cert_time_to_seconds(str(first["notAfter"])), abs=1)

    # a second run asks for nothing
    run([*issue, "--", *certbot], authority)
    assert served(edge, authority)["serialNumber"] == first["serialNumber"]

    # but of another authority: what was issued for a trial must not stay
    trial, first = first, asked_of(f"{authority.url}?other", issue, certbot, edge, authority)
    assert first["serialNumber"] != trial["serialNumber"]

    addresses = {NAME: "127.0.0.1"}
    url = f"https://{NAME}:{edge.https_port}"
    with Traffic(url, rate=25, cafile=authority.root, keepalive=False, echoes=True, addresses=addresses) as traffic:
        traffic.wait_for(20)
        renew = ["certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew", *certbot]
        run(renew, authority)
        traffic.wait_for(20)
    assert not traffic.failed, traffic.report()
    second = served(edge, authority)
    assert second["serialNumber"] != first["serialNumber"]
    assert expiry(textfile) == pytest.approx(ssl.cert_time_to_seconds(str(second["notAfter"])), abs=1)


def test_a_certificate_that_nginx_refuses_changes_nothing(edge: Edge, tmp_path: Path) -> None:
    before = (edge.folder / "nllbd/site/certificate.conf").read_text()
    issuer = served_issuer(edge)
    broken = edge.folder / "nllbd/tls.conf"
    sane = broken.read_text()
    broken.write_text("what is this;\n")
    try:
        lineage = edge.folder / "nllbd/site/certificate"
        command = [str(BIN / "certificate-deploy"), "--lineage", str(lineage), "--folder", str(edge.folder)]
        command += ["--textfile", str(tmp_path / "x.prom")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        broken.write_text(sane)
    assert done.returncode == 1
    assert "the former certificate stays" in done.stderr
    assert (edge.folder / "nllbd/site/certificate.conf").read_text() == before
    assert served_issuer(edge) == issuer


def test_answers_about_revocation_are_stapled(one: Daemon, tmp_path: Path) -> None:
    """With an authority that still has OCSP: nginx-install sees that its certificates name a responder."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        chain, key = make_authority(tmp_path, f"http://127.0.0.1:{port}")
        responder = ["openssl", "ocsp", "-port", str(port), "-index", "index.txt", "-CA", "ca.pem"]
        responder += ["-rsigner", "ca.pem", "-rkey", "ca.key", "-ndays", "1"]
        process = subprocess.Popen(responder, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        options = ("--certificate", str(chain), "--key", str(key))
        edge = stack.enter_context(Edge(tmp_path / "edge", [one.address], *options))

        def is_stapled() -> bool:
            ask = ["openssl", "s_client", "-connect", f"127.0.0.1:{edge.https_port}", "-servername", "localhost"]
            done = subprocess.run([*ask, "-status"], input="", capture_output=True, text=True, check=False)
            return "OCSP Response Status: successful" in done.stdout and "Cert Status: good" in done.stdout

        # nginx fetches the answer when it is first asked for
        eventually(is_stapled, what="a stapled answer")


def make_authority(folder: Path, responder: str) -> tuple[Path, Path]:
    """An authority with one certificate for localhost, in the form of `openssl ca`."""
    (folder / "index.txt").touch()
    (folder / "serial").write_text("1000\n")
    (folder / "ca.conf").write_text(
        "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        "default_days=2\n[p]\ncommonName=supplied\n[leaf]\nsubjectAltName=DNS:localhost,DNS:api.example.test\n"
        f"authorityInfoAccess=OCSP;URI:{responder}\n"
    )
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    signed_by = ["-cert", "ca.pem", "-keyfile", "ca.key", "-notext"]
    for command in (
        ["req", "-x509", *new_key, "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"],
        ["req", *new_key, "-subj", "/CN=localhost", "-keyout", "leaf.key", "-out", "leaf.csr"],
        [
            "ca",
            "-batch",
            "-config",
            "ca.conf",
            "-extensions",
            "leaf",
            *signed_by,
            "-in",
            "leaf.csr",
            "-out",
            "leaf.pem",
        ],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    chain = folder / "chain.pem"
    chain.write_text((folder / "leaf.pem").read_text() + (folder / "ca.pem").read_text())
    return chain, folder / "leaf.key"


def run(command: list[str], authority: Authority) -> None:
    environ = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "REQUESTS_CA_BUNDLE": str(authority.own_certificate)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def asked_of(
    url: str, issue: list[str], certbot: list[str], edge: Edge, authority: Authority
) -> ssl._PeerCertRetDictType:
    """The certificate that is served after another authority was asked, by the address that stands last."""
    run([*issue, "--server", url, "--", *certbot], authority)
    return served(edge, authority)


def served(edge: Edge, authority: Authority) -> ssl._PeerCertRetDictType:
    """The certificate that nginx serves, checked against the authority's root."""
    tls = ssl.create_default_context(cafile=str(authority.root))
    with (
        socket.create_connection(("127.0.0.1", edge.https_port), timeout=10) as plain,
        tls.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        found = connection.getpeercert()
        assert found is not None
        return found


def served_issuer(edge: Edge) -> str:
    ask = f"openssl s_client -connect 127.0.0.1:{edge.https_port} -servername {NAME} </dev/null 2>/dev/null"
    text = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False).stdout
    found = re.search(r"^issuer=.*?CN = (.*)$", text, re.M)
    assert found, text
    return found[1]


def expiry(textfile: Path) -> float:
    line = next(line for line in textfile.read_text().splitlines() if not line.startswith("#"))
    assert line.startswith(f'nllbd_certificate_expiry_timestamp_seconds{{name="{NAME}"}} ')
    assert float(line.split()[-1]) > time.time()
    return float(line.split()[-1])
