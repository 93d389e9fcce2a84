"""What the READMEs say is done on a booted host, line by line: by hand it must work as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ops.kit.edge import DEPLOY
from tests.ops.kit.host import CHECKOUT_INSIDE, Host
from tests.ops.kit.programs import eventually, need, need_root

pytestmark = pytest.mark.ops

#: Answers for the daemons of the READMEs, whose addresses are on loopback here.
DAEMON = """
import http.server
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8000), Answer).serve_forever()
"""
CALL = ["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"]
#: Of both families, where the kernel has them.
ADDRESSES = ["127.0.0.1", *(["[::1]"] if Path("/proc/net/if_inet6").exists() else [])]


def commands(readme: str, heading: str) -> list[str]:
    """The lines of the shell block below a heading; packages are there already."""
    text = (DEPLOY / readme).read_text("utf-8")
    found = re.search(rf"^## {heading}.*?```sh\n(.*?)```", text, re.M | re.S)
    assert found, heading
    joined = found[1].replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("apt-get ")]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    need_root()
    need("nginx", "haproxy", "curl", "openssl", "logrotate")
    with Host("edge1") as host:
        for address in ("10.0.1.10", "10.0.1.11", "10.0.1.12", "10.0.2.10", "10.0.0.11"):
            host.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
        host.write("/root/daemon.py", DAEMON)
        host.run("systemd-run", "--unit=daemons", "python3", "/root/daemon.py")
        eventually(lambda: host.run("curl", "-sf", "10.0.1.10:8000", check=False).returncode == 0)
        yield host


def follow(host: Host, lines: list[str]) -> str:
    script = "\n".join([f"cd {CHECKOUT_INSIDE}", "set -ex", *lines])
    done = host.run("bash", "-c", script, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def status(host: Host, path: str, address: str = "127.0.0.1") -> str:
    call = [*CALL, "--resolve", f"api.example.com:443:{address}", f"https://api.example.com{path}"]
    return str(host.run(*call, check=False).stdout)


def test_nginx_from_nothing_and_in_operation(host: Host) -> None:
    host.systemctl("stop", "haproxy", check=False)
    follow(host, commands("nginx/README.md", "From nothing"))
    assert {status(host, "/health", address) for address in ADDRESSES} == {"200"}
    follow(host, commands("nginx/README.md", "In operation"))
    assert status(host, "/translate") == "200"
    assert host.run("systemctl", "is-active", "nginx").stdout.strip() == "active"
    shown = host.run("/etc/nginx/nllbd/bin/nginx-upstream", "show").stdout
    assert "green (in use)" in shown
    assert "10.0.1.10" not in shown
    # Debian's rotation of logs, and its own way to reload
    follow(host, ["logrotate -f /etc/logrotate.d/nginx", "systemctl reload nginx"])
    assert status(host, "/health") == "200"


def test_the_timers_of_certificates_and_ranges(host: Host) -> None:
    """Their units are sound, and the expiry of nginx's own certificate is written from within the sandbox."""
    units = ("certificates/nllbd-certificate-metrics.*", "nginx/nllbd-cdn-ranges@.*")
    follow(host, [f"cp deploy/{unit} /etc/systemd/system/" for unit in units])
    live = "/etc/letsencrypt/live/api.example.com"
    follow(host, [f"mkdir -p {live}", f"cp /etc/nginx/nllbd/site/certificate/fullchain.pem {live}"])
    host.systemctl("daemon-reload")
    host.systemctl("enable", "--now", "nllbd-certificate-metrics.timer", "nllbd-cdn-ranges@cloudfront.timer")
    host.systemctl("start", "nllbd-certificate-metrics.service")
    written = host.run("cat", "/var/lib/prometheus/node-exporter/nllbd_certificates.prom").stdout
    assert 'nllbd_certificate_expiry_timestamp_seconds{name="api.example.com"} ' in written
    assert 'nllbd_certificate_expiry_timestamp_seconds{name="nginx"} ' in written  # its own, which is not certbot's
    names = ("nllbd-certificate-metrics.timer", "nllbd-cdn-ranges@cloudfront.timer")
    verified = host.run("systemd-analyze", "verify", "--man=no", *names, check=False)
    assert "nllbd" not in verified.stderr


def test_the_firewall_for_attacks_is_put_in_front(host: Host) -> None:
    if not Path("/usr/share/modsecurity-crs/rules").exists():
        pytest.skip("needs modsecurity-crs")
    text = (DEPLOY / "waf/README.md").read_text("utf-8")
    block = re.search(r"```sh\n(.*?)```", text, re.S)
    assert block
    lines = [line for line in block[1].splitlines() if not line.startswith("apt-get ")]
    follow(host, ["PATH=$PATH:/etc/nginx/nllbd/bin", *lines])
    assert status(host, "/languages?id=1'+OR+'1'='1'--+-") == "403"
    assert status(host, "/languages") == "200"


def test_the_shared_address_is_taken(host: Host) -> None:
    """keepalived, with nginx running from before."""
    need("keepalived")
    host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
    for device in ("eth0", "peer0"):
        host.run("ip", "link", "set", device, "up")
    host.run("ip", "addr", "add", "10.0.0.11/24", "dev", "eth0")
    block = re.search(r"```sh\n(.*?)```", (DEPLOY / "keepalived/README.md").read_text("utf-8"), re.S)
    assert block
    lines = [line for line in block[1].splitlines() if not line.startswith(("apt-get ", "ip "))]
    follow(host, ["editor() { :; }", *lines])
    eventually(lambda: "10.0.0.10/24" in host.run("ip", "-o", "addr", "show").stdout)
    host.systemctl("stop", "keepalived")
    assert "10.0.0.10/24" not in host.run("ip", "-o", "addr", "show").stdout


def test_haproxy_from_nothing_and_in_operation(host: Host) -> None:
    host.systemctl("stop", "nginx", check=False)
    lines = commands("haproxy/README.md", "From nothing")
    if "[::1]" not in ADDRESSES:
        lines.insert(-3, "sed -i /NLLBD_ADDRESS6/d /etc/default/haproxy")
    follow(host, lines)
    eventually(lambda: status(host, "/health") == "200")
    assert {status(host, "/health", address) for address in ADDRESSES} == {"200"}
    lines = commands("haproxy/README.md", "In operation")
    shown = follow(host, lines)
    assert "10.0.1.10:8000" in shown
    assert status(host, "/translate") == "503"  # the last line turns maintenance on
    follow(host, ["/etc/haproxy/nllbd/bin/haproxy-upstream maintenance off", "systemctl reload haproxy"])
    eventually(lambda: status(host, "/translate") == "200")
    assert '"active"' in host.run("/etc/haproxy/nllbd/bin/haproxy-upstream", "show", "--json").stdout
    workers = host.run("ps", "-o", "user=", "-C", "haproxy").stdout.split()
    assert "haproxy" in workers
