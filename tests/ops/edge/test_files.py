"""What is shipped for the edge, looked at without running it: checkers, installing, and the commands that change it.

What takes more than a moment is of the heavy tier, though it needs nothing special.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.ops.edge.haproxy import LIMITED
from tests.ops.kit.edge import DEPLOY, INSTALL, install
from tests.ops.kit.nginx import Nginx
from tests.ops.kit.programs import need

SCRIPTS = [
    DEPLOY / "nginx/bin/nginx-install",
    DEPLOY / "nginx/bin/nginx-stapling",
    DEPLOY / "nginx/bin/nginx-upstream",
    *sorted((DEPLOY / "certificates/bin").iterdir()),
]
PYTHON = [DEPLOY / "nginx/bin/nginx-cdn-ranges", DEPLOY / "haproxy/bin/haproxy-upstream"]
ONE, TWO = "10.0.1.10:8000", "10.0.1.11:8000"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("nginx", "openssl")
    folder = tmp_path_factory.mktemp("pristine")
    install(folder, [ONE, TWO], unlimited=False)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """An installed configuration that a test may change. Its paths are those of the first one: nothing runs from it."""
    copy = tmp_path / "nginx"
    shutil.copytree(pristine, copy, symlinks=True)
    return copy


Upstream = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def upstream(folder: Path) -> Upstream:
    """Runs nginx-upstream on the folder."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(folder / "nllbd/bin/nginx-upstream"), "--folder", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def pools(upstream: Upstream) -> dict[str, dict[str, str]]:
    shown = json.loads(upstream("show", "--json").stdout)["pools"]
    return {pool: {row["address"]: row["state"] for row in rows} for pool, rows in shown.items()}


def contents(folder: Path) -> dict[str, str]:
    """All that nginx reads and nginx-upstream writes, links as links."""
    files = [path for name in ("upstreams", "state") for path in (folder / "nllbd" / name).iterdir()]
    return {
        path.name: os.readlink(path) if path.is_symlink() else path.read_text() for path in files if path.name != "lock"
    }


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_clean(script: Path) -> None:
    subprocess.run([str(need("shellcheck")["shellcheck"]), str(script)], check=True)


@pytest.mark.parametrize("script", [*SCRIPTS, *PYTHON], ids=lambda path: path.name)
def test_scripts_explain_themselves_and_refuse_what_they_do_not_know(script: Path) -> None:
    explained = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=True)
    assert "usage: " in explained.stdout
    assert subprocess.run([str(script), "--what"], capture_output=True, check=False).returncode == 2


def test_gixy_finds_nothing(pristine: Path) -> None:
    gixy = Path(sys.executable).with_name("gixy")
    done = subprocess.run([str(gixy), str(pristine / "nginx.conf")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_shipped_include_is_used(pristine: Path) -> None:
    dump = subprocess.run(
        [str(need("nginx")["nginx"]), "-T", "-c", str(pristine / "nginx.conf")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for path in (DEPLOY / "nginx/nllbd").glob("*.conf"):
        assert f"# configuration file {pristine}/nllbd/{path.name}:" in dump, path.name


def test_haproxy_finds_nothing(pristine: Path, tmp_path: Path) -> None:
    haproxy = need("haproxy")["haproxy"]
    (tmp_path / "certificates").mkdir()
    certificate = pristine / "nllbd/site/certificate"
    both = (certificate / "fullchain.pem").read_text() + (certificate / "privkey.pem").read_text()
    (tmp_path / "certificates/all.pem").write_text(both)
    lines = [line.partition("=") for line in (DEPLOY / "haproxy/nllbd.env").read_text().splitlines() if line[0] != "#"]
    environ = {name: value for name, _, value in lines} | LIMITED
    environ |= {"NLLBD_FOLDER": str(DEPLOY / "haproxy"), "NLLBD_CERTIFICATES": str(tmp_path / "certificates")}
    files = [word for path in sorted((DEPLOY / "haproxy").glob("*.cfg")) for word in ("-f", str(path))]
    done = subprocess.run([str(haproxy), "-c", *files], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_both_load_balancers_hide_the_same_endings() -> None:
    marker = "env|git|svn|hg|htaccess|htpasswd|bak|old|orig|save|sql|sqlite3?|swp|ini|log|conf|"
    for path in ("nginx/nllbd/locations.conf", "haproxy/20-api.cfg"):
        assert marker in (DEPLOY / path).read_text(), path


def test_both_load_balancers_have_the_same_pages() -> None:
    for name in ("maintenance.html", "unavailable.html"):
        assert (DEPLOY / "nginx/nllbd/pages" / name).read_bytes() == (DEPLOY / "haproxy" / name).read_bytes()


# nginx-install


def test_installing_again_keeps_what_is_this_hosts_own(folder: Path) -> None:
    rates, former = folder / "nllbd/site/rates.conf", contents(folder)
    rates.write_text(rates.read_text().replace("rate=10r/m", "rate=30r/m"))
    (folder / "nllbd/tls.conf").write_text("")
    install(folder, ["10.9.9.9:8000"], unlimited=False)
    assert "rate=30r/m" in rates.read_text()
    assert contents(folder) == former
    assert "ssl_protocols" in (folder / "nllbd/tls.conf").read_text()
    assert Nginx.check(folder).returncode == 0


@pytest.mark.ops
def test_what_nginx_refuses_is_not_installed(folder: Path, tmp_path: Path) -> None:
    """Another certificate that is not there; and daemons that were forgotten, beside somebody else's configuration."""
    before = sorted((path, path.is_dir() or path.read_bytes()) for path in folder.rglob("*"))
    command = [str(INSTALL), "--folder", str(folder), "--run-folder", str(folder / "run")]
    command += ["--certificate", "/no/such.pem", "--key", "/no/such.key"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "/no/such.pem" in refused.stderr
    assert sorted((path, path.is_dir() or path.read_bytes()) for path in folder.rglob("*")) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "nginx.conf").write_text("events {}\n")
    command = [str(INSTALL), "--folder", str(other), "--run-folder", str(other / "run"), "--server-name", "a.example"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 2
    assert (other / "nginx.conf").read_text() == "events {}\n"
    assert not (other / "nllbd").exists()


def test_a_dry_run_of_installing_writes_nothing(tmp_path: Path) -> None:
    command = [
        str(INSTALL),
        "--folder",
        str(tmp_path / "new"),
        "--server-name",
        "a.example",
        "--server",
        ONE,
        "--dry-run",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "site/names.conf" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.ops
def test_somebody_elses_configuration_is_kept(tmp_path: Path) -> None:
    need("nginx")
    (tmp_path / "nginx.conf").write_text("events {}\n")
    install(tmp_path, [ONE])
    install(tmp_path, [ONE])
    assert (tmp_path / "nginx.conf.before-nllbd").read_text() == "events {}\n"
    assert not list(tmp_path.glob("*~"))


# nginx-upstream


@pytest.mark.ops
def test_daemons_come_drain_and_go(upstream: Upstream, folder: Path) -> None:
    three = "[2001:db8::3]:8000"
    assert upstream("add", three, "--weight", "2").returncode == 0
    assert pools(upstream)["blue"] == {ONE: "up", TWO: "up", three: "up"}
    assert upstream("drain", TWO).returncode == 0
    assert upstream("drain", TWO).stderr.strip() == "nothing to do"
    assert pools(upstream)["blue"][TWO] == "drained"
    assert upstream("add", TWO).returncode == 0
    upstream("drain", three)
    upstream("add", three)
    assert f"server {three} weight=2 max_fails=3" in (folder / "nllbd/upstreams/blue.conf").read_text()
    assert upstream("remove", three).returncode == 0
    assert upstream("remove", three).returncode == 0  # gone is gone
    assert pools(upstream)["blue"] == {ONE: "up", TWO: "up"}


@pytest.mark.ops
def test_the_last_daemon_stays(upstream: Upstream) -> None:
    upstream("drain", TWO)
    for command in ("drain", "remove"):
        refused = upstream(command, ONE)
        assert refused.returncode == 1
        assert "last daemon" in refused.stderr
    assert upstream("drain", ONE, "--force").returncode == 0
    assert pools(upstream)["blue"] == {ONE: "drained", TWO: "drained"}


@pytest.mark.ops
def test_a_daemon_that_is_alone_is_its_own_second_try(upstream: Upstream, folder: Path, tmp_path: Path) -> None:
    blue = folder / "nllbd/upstreams/blue.conf"
    assert blue.read_text().count(f"server {ONE} weight=1 max_fails=0 backup;") == 1
    upstream("drain", TWO)
    assert blue.read_text().count(f"server {ONE} weight=1 max_fails=0 backup;") == 2
    install(tmp_path / "alone", [ONE])
    of_one = (tmp_path / "alone/nllbd/upstreams/blue.conf").read_text()
    assert of_one.count(f"server {ONE} weight=1 max_fails=0 backup;") == 2


@pytest.mark.ops
def test_pools_are_switched_only_to_daemons_that_are_up(upstream: Upstream) -> None:
    assert "no daemon that is up" in upstream("switch", "green").stderr
    upstream("add", "10.0.2.10:8000", "--pool", "green")
    assert upstream("switch", "green").returncode == 0
    assert json.loads(upstream("show", "--json").stdout)["active"] == "green"
    assert upstream("drain", ONE).returncode == 1  # of the pool in use now
    assert upstream("remove", ONE, "--pool", "blue").returncode == 0


def test_what_nginx_refuses_is_undone(folder: Path, upstream: Upstream) -> None:
    before = contents(folder)
    refused = upstream("add", "no-such-host.invalid:8000")
    assert refused.returncode == 1
    assert "host not found" in refused.stderr
    assert contents(folder) == before
    (folder / "nllbd/tls.conf").write_text("nonsense;\n")
    upstream("add", "10.0.2.10:8000", "--pool", "green")
    for command in (("maintenance", "on"), ("switch", "green"), ("drain", ONE)):
        assert upstream(*command).returncode == 1
    assert contents(folder) == before


@pytest.mark.ops
def test_who_has_the_number_of_an_nginx_that_died_is_left_alone(upstream: Upstream, pristine: Path) -> None:
    pid_file = pristine / "run/nginx.pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        pid_file.write_text(f"{other.pid}\n")
        try:
            done = upstream("add", "10.0.1.12:8000", "--within", "1")
            assert other.poll() is None
        finally:
            pid_file.unlink()
            other.kill()
    assert done.returncode == 0
    assert "nginx does not run" in done.stderr


@pytest.mark.ops
def test_a_change_that_was_interrupted_is_undone_by_the_next(folder: Path, upstream: Upstream) -> None:
    before = contents(folder)
    blue = folder / "nllbd/upstreams/blue.conf"
    blue.with_name("blue.conf.former").write_text(blue.read_text())
    blue.write_text("server half")
    done = upstream("maintenance", "off")
    assert "interrupted" in done.stderr
    assert contents(folder) == before


@pytest.mark.ops
def test_a_dry_run_shows_and_changes_nothing(folder: Path, upstream: Upstream) -> None:
    before = contents(folder)
    shown = upstream("drain", ONE, "--dry-run")
    assert f"+server {ONE} weight=1 down;" in shown.stderr
    assert upstream("maintenance", "on", "--dry-run").returncode == 0
    assert contents(folder) == before


@pytest.mark.ops
def test_changes_wait_for_each_other(folder: Path) -> None:
    command = [str(folder / "nllbd/bin/nginx-upstream"), "--folder", str(folder), "--pool", "green", "add"]
    processes = [
        subprocess.Popen([*command, f"10.0.3.{number}:8000"], stderr=subprocess.DEVNULL) for number in range(1, 5)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    lines = (folder / "nllbd/upstreams/green.conf").read_text().splitlines()
    assert sum(" backup;" in line for line in lines) == 4


@pytest.mark.parametrize(
    "arguments",
    [("add", "10.0.0.1"), ("add", "a b:1"), ("add", "x:99999"), ("add", "x:1;down"), ("switch", "red"), ("drain",), ()],
)
def test_nonsense_is_refused(upstream: Upstream, folder: Path, arguments: tuple[str, ...]) -> None:
    before = contents(folder)
    assert upstream(*arguments).returncode == 2
    assert contents(folder) == before


# nginx-cdn-ranges

AMAZON = {
    "prefixes": [{"ip_prefix": f"205.251.{n}.0/24", "service": "CLOUDFRONT"} for n in range(8)]
    + [{"ip_prefix": "54.0.0.0/15", "service": "EC2"}],
    "ipv6_prefixes": [{"ipv6_prefix": "2600:9000::/28", "service": "CLOUDFRONT"}],
}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def lists(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL under which it is served."""
    served = tmp_path / "lists"
    served.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield served, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def update(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(folder / "nllbd/bin/nginx-cdn-ranges"), *arguments, "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.ops
def test_ranges_are_fetched_checked_and_written(folder: Path, lists: tuple[Path, str]) -> None:
    served, url = lists
    (folder / "nllbd/site/cdn.conf").write_text("include nllbd/cdn/cloudfront.conf;\n")
    (served / "amazon.json").write_text(json.dumps(AMAZON))
    assert update(folder, "cloudfront", "--source", f"{url}/amazon.json").returncode == 0
    written = (folder / "nllbd/cdn/cloudfront.conf").read_text()
    assert written.count("set_real_ip_from") == 9
    assert "set_real_ip_from 2600:9000::/28;" in written
    assert "54.0.0.0" not in written
    assert Nginx.check(folder).returncode == 0
    assert "up to date" in update(folder, "cloudfront", "--source", str(served / "amazon.json")).stdout


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "cannot be all"),
        ("0.0.0.0/0\n" + "".join(f"104.16.{n}.0/24\n" for n in range(20)), "too wide"),
        ("10.0.0.0/16\n" + "".join(f"104.16.{n}.0/24\n" for n in range(20)), "not public"),
        ("<html>\n" * 9, "no range of addresses"),
        ("".join(f"104.16.{n}.0/24\n" for n in range(6)), "--force"),
        ('{"prefixes": 1}', "ip-ranges.json"),
    ],
    ids=lambda value: value[:12].strip(),
)
def test_a_list_that_cannot_be_right_changes_nothing(
    folder: Path, lists: tuple[Path, str], text: str, why: str
) -> None:
    served, url = lists
    (served / "list").write_text(text)
    path = folder / "nllbd/cdn/cloudflare.conf"
    before = path.read_text()
    done = update(folder, "cloudflare", "--source", f"{url}/list")
    assert done.returncode == 1
    assert why in done.stderr
    assert path.read_text() == before


@pytest.mark.ops
def test_a_source_that_is_away_changes_nothing(folder: Path) -> None:
    done = update(folder, "cloudflare", "--source", "http://127.0.0.1:9/ips")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# certificates


@pytest.mark.ops
def test_expiry_is_written_for_each_certificate_and_unreadable_ones_are_said(pristine: Path, tmp_path: Path) -> None:
    live = tmp_path / "live/api.example.test"
    live.mkdir(parents=True)
    shutil.copy(pristine / "nllbd/site/certificate/fullchain.pem", live)
    (tmp_path / "broken.pem").write_text("nothing")
    textfile = tmp_path / "out/certificates.prom"
    command = [str(DEPLOY / "certificates/bin/certificate-metrics"), "--live", str(tmp_path / "live")]
    command += ["--textfile", str(textfile)]
    subprocess.run(command, check=True)
    assert textfile.read_text().count('nllbd_certificate_expiry_timestamp_seconds{name="api.example.test"} ') == 1
    assert textfile.stat().st_mode & 0o777 == 0o644
    done = subprocess.run([*command, "--file", f"x={tmp_path}/broken.pem"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "broken.pem cannot be read" in done.stderr
    assert "api.example.test" in textfile.read_text()
    assert [path.name for path in textfile.parent.iterdir()] == [textfile.name]


@pytest.mark.ops
def test_a_certificate_is_not_deployed_with_a_key_of_another(pristine: Path, folder: Path, tmp_path: Path) -> None:
    lineage = tmp_path / "lineage"
    shutil.copytree(pristine / "nllbd/site/certificate", lineage)
    new_key = ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    subprocess.run([*new_key, "-out", str(lineage / "privkey.pem")], check=True, capture_output=True)
    before = (folder / "nllbd/site/certificate.conf").read_text()
    command = [str(DEPLOY / "certificates/bin/certificate-deploy"), "--lineage", str(lineage), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "does not belong to its key" in done.stderr
    assert (folder / "nllbd/site/certificate.conf").read_text() == before
