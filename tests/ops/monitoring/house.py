"""One booted host that is the whole house: daemon, nginx, Redis, PostgreSQL, exporters, Prometheus, Alertmanager and
log shipping, each set up by the script that ships, run by Debian's own units.

Only times are shortened (`hasten`): what waits minutes in production waits seconds here.
"""

from __future__ import annotations

import json
import re
import time
import urllib.parse
from pathlib import Path
from typing import Any

from tests.ops.kit.host import Host, install_nllbd
from tests.ops.kit.programs import CHECKOUT, eventually, need

ADDRESS = "10.0.1.20"
RECEIVED = "/var/lib/receiver"
_DAEMON = f"""
metrics_host = "{ADDRESS}"
num_threads = 1
allow_anonymous = true
trusted_proxies = ["127.0.0.1"]
"""
_TARGETS = f"""
- targets: ["{ADDRESS}:9000"]
  labels: {{__exporter: nllbd, host: app-1}}
- targets: ["{ADDRESS}:9100"]
  labels: {{__exporter: node, host: app-1}}
- targets: ["{ADDRESS}:9113"]
  labels: {{__exporter: nginx, host: app-1}}
- targets: ["{ADDRESS}:9121"]
  labels: {{__exporter: redis, __metrics_path__: /scrape, __param_target: "rediss://127.0.0.1:6379",
           host: app-1, instance: "{ADDRESS}:6379"}}
- targets: ["{ADDRESS}:9121"]
  labels: {{__exporter: redis, __metrics_path__: /scrape, __param_target: "rediss://127.0.0.1:6380",
           host: app-1, instance: "{ADDRESS}:6380"}}
- targets: ["{ADDRESS}:9187"]
  labels: {{__exporter: postgres, host: app-1}}
"""
_PUBLIC = """
- targets: ["https://localhost/readyz"]
  labels: {__exporter: blackbox, host: public}
"""


class House:
    """The host, and how to ask what runs on it."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def sh(self, script: str, timeout: float = 60.0, check: bool = True) -> str:
        return self.host.run("bash", "-ec", script, timeout=timeout, check=check).stdout

    def deploy(self, command: str, timeout: float = 60.0) -> str:
        """A shipped script, from a checkout at /srv/nllbd as the READMEs have it."""
        return self.sh(f"cd /srv/nllbd && {command}", timeout)

    def fetch(self, url: str) -> str:
        return self.sh(f"curl -ksS --max-time 10 '{url}'")

    def translate(self, text: str, request_id: str = "") -> str:
        body = json.dumps({"text": text, "source_lang": "en", "target_lang": "fr"})
        headers = f"-H 'Content-Type: application/json' -H 'X-Request-Id: {request_id}'"
        return self.sh(f"curl -ksS --max-time 30 {headers} -d '{body}' https://localhost/translate")

    def ask_prometheus(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector that an expression gives now; raises on an error of Prometheus'."""
        return list(self._prometheus("query", query=expr)["result"])

    def series(self, selector: str) -> list[dict[str, str]]:
        return list(self._prometheus("series", **{"match[]": selector}))

    def received(self, path: str) -> list[dict[str, Any]]:
        """What was posted to an address whose path begins so, oldest first."""
        text = self.sh(f"cat {RECEIVED}/received 2>/dev/null || true")
        return [record for record in map(json.loads, text.splitlines()) if record["path"].startswith(path)]

    def notified(self, path: str, alert: str, status: str) -> list[dict[str, Any]]:
        """Notifications of an alert that came to a receiver."""
        bodies = [json.loads(record["body"]) for record in self.received(path)]
        return [body for body in bodies if body["status"] == status and body["groupLabels"].get("alertname") == alert]

    def _prometheus(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        answer = json.loads(self.fetch(f"http://127.0.0.1:9090/api/v1/{what}?{query}"))
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]


def open_house(host: Host) -> House:
    """Set everything up, as the READMEs say, and wait until Prometheus has seen all of it."""
    need("prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-redis-exporter")
    need("prometheus-nginx-exporter", "prometheus-postgres-exporter", "prometheus-blackbox-exporter", "syslog-ng")
    need("nginx", "redis-server", "initdb", "curl", "openssl")
    house = House(host)
    host.copy(CHECKOUT / "deploy", "/srv/nllbd/deploy")
    host.copy(Path(__file__).with_name("receiver.py"), "/usr/local/bin/receiver.py")
    house.sh(f"ip link add internal type bridge && ip addr add {ADDRESS}/24 dev internal && ip link set internal up")
    receive = f"/usr/bin/python3 /usr/local/bin/receiver.py {RECEIVED} 9099 9200 3100"
    house.sh(f"systemd-run --quiet --unit=receiver {receive}")
    _services(house)
    _monitoring(house)
    end = time.monotonic() + 90
    while problems := _unseen(house):
        assert time.monotonic() < end, problems
        time.sleep(0.2)
    return house


def _services(house: House) -> None:
    house.deploy("deploy/lib/internal-ca init --folder /root/ca")
    san = f"--san IP:{ADDRESS}"
    house.deploy(
        f"deploy/lib/internal-ca issue --folder /root/ca --name app-1 {san} && cp /root/ca/ca.crt /root/ca/app-1"
    )
    house.deploy("deploy/lib/internal-ca issue --folder /root/ca --name localhost")
    house.deploy(f"deploy/redis/bin/setup-redis --bind {ADDRESS} --tls /root/ca/app-1 --maxmemory 64mb")
    house.deploy(f"deploy/postgres/bin/pg-setup-primary --bind {ADDRESS} --tls /root/ca/app-1 --network 10.0.0.0/8")
    certificate = "--certificate /root/ca/localhost/server.crt --key /root/ca/localhost/server.key"
    house.deploy(f"deploy/nginx/bin/nginx-install --server-name localhost --server 127.0.0.1:8000 {certificate}")
    # what the probe and the daemon trust, as on a host with an authority of its own
    house.sh("install -D -m 0644 /root/ca/ca.crt /usr/local/share/ca-certificates/house.crt")
    house.sh("update-ca-certificates >/dev/null 2>&1")
    password = house.sh("cat /etc/redis/nllbd/secrets/nllbd").strip()
    url = f"rediss://nllbd:{password}@127.0.0.1:{{}}/0?ssl_ca_certs=/usr/local/share/ca-certificates/house.crt"
    install_nllbd(house.host, settings=_DAEMON)
    house.host.write("/etc/nllbd/instances/1.toml", _DAEMON + 'runner = "fake"\n')
    house.host.write("/etc/nllbd/credentials/redis_url", url.format(6379), 0o600)
    house.host.write("/etc/nllbd/credentials/rate_limit_redis_url", url.format(6380), 0o600)
    house.sh("systemctl restart nginx; systemctl start nllbd.service", timeout=90)


def _monitoring(house: House) -> None:
    roles = "server host nginx redis postgres grafana logs"
    setup = f"deploy/monitoring/bin/setup-monitoring --listen {ADDRESS} --logs-to elasticsearch --logs-to loki {roles}"
    house.deploy(setup, timeout=120)
    house.host.write("/etc/prometheus/targets/app-1.yml", _TARGETS)
    house.host.write("/etc/prometheus/targets/public.yml", _PUBLIC)
    house.deploy(f"{setup} --no-start")  # a second run leaves targets alone
    hasten(house)
    house.sh("systemctl restart prometheus-alertmanager prometheus")


def hasten(house: House) -> None:
    """Minutes become seconds, in the copies that run here: intervals, `for`, and Alertmanager's patience."""
    folder = house.host.root / "etc/prometheus"
    for path in (folder / "prometheus.yml", folder / "alertmanager.yml", *(folder / "rules").glob("*.yml")):
        path.write_text(_hastened(path.read_text("utf-8")), "utf-8")


def _hastened(text: str) -> str:
    text = re.sub(r"(?m)^(\s*(?:scrape|evaluation|refresh)_interval:) \d+\w+", r"\1 2s", text)
    text = re.sub(r"(?m)^(\s*scrape_timeout:) \d+\w+", r"\1 2s", text)
    text = re.sub(r"(?m)^(\s*interval:) \d+\w+", r"\1 1s", text)
    text = re.sub(r"(?m)^(\s*for:) \d+\w+", r"\1 3s", text)
    return re.sub(r"(?m)^(\s*group_(?:wait|interval):) \d+\w+", r"\1 1s", text)


_JOBS = {"nllbd", "node", "nginx", "redis", "postgres", "blackbox", "blackbox-exporter", "prometheus", "alertmanager"}


def _unseen(house: House) -> list[str]:
    """What keeps Prometheus from seeing all that there is; empty when it does."""
    try:
        targets = json.loads(house.fetch("http://127.0.0.1:9090/api/v1/targets"))["data"]["activeTargets"]
    except (AssertionError, ValueError) as error:
        return [f"Prometheus does not answer: {error}"]
    missing = _JOBS - {target["labels"]["job"] for target in targets}
    return [f"no target of {job}" for job in missing] + [
        f"{target['scrapeUrl']}: {target['health']} {target['lastError']}"
        for target in targets
        if target["health"] != "up"
    ]


def wait_scraped(house: House, since: float) -> None:
    """Return once Prometheus has scraped the daemon after that moment (time.time())."""
    newest = 'max(timestamp(up{job="nllbd"}))'

    def is_newer() -> bool:
        found = house.ask_prometheus(newest)
        return bool(found) and float(found[0]["value"][1]) > since

    eventually(is_newer, 20, "a scrape")
