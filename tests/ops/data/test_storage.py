"""deploy/storage on booted hosts: a real GlusterFS, mounted by our units when somebody looks; two hosts pull at once;
then the storage goes away under a running service.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from nllbd.checkpoint import DEMO_FOLDER
from tests.ops.data.conftest import Site
from tests.ops.kit.host import Host, install_nllbd
from tests.ops.kit.programs import eventually, need
from tests.ops.kit.traffic import enter_netns
from tests.pull.fake_hub import FakeHub, files_of

pytestmark = pytest.mark.ops
MODELS = "/var/lib/nllbd/models"
ID = "someone/tiny-nllb"
VOLUME = "/srv/brick"


@pytest.fixture(scope="module")
def storage(site: Site) -> Site:
    """db3 serves a volume; db1 and db2 mount it as setup-storage says."""
    need("glusterd", "gluster", "glusterfs", "mount.glusterfs")
    db3, server = site.hosts["db3"], site.addresses["db3"]
    db3.run("sh", "-c", f"mkdir -p {VOLUME} && (glusterd --log-level ERROR)")
    gluster = ("gluster", "--mode=script")
    eventually(lambda: db3.run(*gluster, "volume", "list", check=False).returncode == 0, what="glusterd")
    db3.run(*gluster, "volume", "create", "nllbd-models", f"{server}:{VOLUME}", "force")
    db3.run(*gluster, "volume", "set", "nllbd-models", "network.ping-timeout", "5")
    db3.run(*gluster, "volume", "start", "nllbd-models")
    for name in ("db1", "db2"):
        install_nllbd(site.hosts[name], settings=f'model = "{ID}"\nmodel_dir = "{MODELS}"\n')
        said = site.run(name, "storage/bin/setup-storage", "--glusterfs", f"{server}:/nllbd-models")
        assert "fuse.glusterfs" in said
    site.hosts["db1"].run("chown", "nllbd:nllbd", MODELS)
    return site


@pytest.fixture(scope="module")
def hub(storage: Site) -> Iterator[FakeHub]:
    """A model hub that the hosts reach; it hands out the second half of a big file when told to."""
    fake = FakeHub(files_of(DEMO_FOLDER), ID, address="10.91.7.9", gate=threading.Event())

    def start() -> None:
        enter_netns(storage.outside)
        fake.__enter__()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    yield fake
    fake.gate.set()  # type: ignore[union-attr]
    fake.__exit__()


def pull(host: Host, hub: FakeHub) -> subprocess.CompletedProcess[str]:
    command = ("setpriv", "--reuid=nllbd", "--regid=nllbd", "--clear-groups", "/opt/nllbd/current/bin/nllbd")
    return host.run(
        *command,
        *("model", "pull", ID, "--model-dir", MODELS, "--accept-licence", "cc-by-nc-4.0"),
        env={"HF_ENDPOINT": hub.url, "HOME": "/var/lib/nllbd"},
        check=False,
        timeout=120,
    )


def weights_asked(hub: FakeHub) -> int:
    return sum(path.endswith("model.safetensors") for path, _ in hub.requests)


def test_two_hosts_pull_at_once(storage: Site, hub: FakeHub) -> None:
    hosts = [storage.hosts["db1"], storage.hosts["db2"]]
    with ThreadPoolExecutor() as pool:
        pulls = [pool.submit(pull, host, hub) for host in hosts]
        eventually(lambda: weights_asked(hub) == 1 or any(it.done() for it in pulls), what="one of them downloads")
        assert not any(it.done() for it in pulls), [it.result() for it in pulls if it.done()]
        leases = f"ls -A {MODELS} | grep -c '[.]lease'"
        eventually(lambda: hosts[1].run("sh", "-c", leases, check=False).stdout.strip() == "1", what="the other waits")
        hub.gate.set()  # type: ignore[union-attr]
        results = [future.result() for future in pulls]
    assert [done.returncode for done in results] == [0, 0], results
    assert weights_asked(hub) == 1
    assert hub.served == (DEMO_FOLDER / "model.safetensors").stat().st_size, "one download"
    for host in hosts:
        checked = host.run("/opt/nllbd/current/bin/nllbd", "model", "verify", ID, "--model-dir", MODELS)
        assert checked.returncode == 0
        assert host.run("ls", "-A", MODELS).stdout.split() == ["someone--tiny-nllb"], "nothing is left beside it"


def translate(host: Host, text: str) -> str:
    body = json.dumps({"text": text, "source_lang": "en", "target_lang": "fr"})
    command = ("curl", "-s", "-m", "30", "-H", "Content-Type: application/json", "-d", body)
    answer = host.run(*command, "http://127.0.0.1:8000/translate").stdout
    return str(json.loads(answer)["translated_text"])


def test_loaded_models_outlive_the_storage(storage: Site, hub: FakeHub) -> None:
    host = storage.hosts["db1"]
    host.systemctl("start", "nllbd.service", timeout=120)
    first = translate(host, "It is raining.")
    maps = "grep -l tiny-nllb /proc/[0-9]*/maps 2>/dev/null | wc -l"
    assert host.run("sh", "-c", maps).stdout.strip() == "0", "nothing of the model is mapped from there"
    restarts = host.show("nllbd.service", "NRestarts")

    storage.hosts["db3"].run("sh", "-c", "kill -9 $(pidof glusterfsd) $(pidof glusterd)")
    listing = ("timeout", "60", "ls", f"{MODELS}/someone--tiny-nllb")
    eventually(lambda: host.run(*listing, check=False).returncode != 0, 60, "the storage is gone")

    texts = ("The cat sleeps.", "Where is the station?", "We are going to the market tomorrow.", "It is raining.")
    said = [translate(host, text) for text in texts]
    assert said[-1] == first
    assert all(said)
    assert host.show("nllbd.service", "ActiveState") == "active"
    assert host.show("nllbd.service", "NRestarts") == restarts
    assert '"status":"ok"' in host.run("curl", "-s", "http://127.0.0.1:8000/health").stdout.replace(" ", "")


def test_removed_again(storage: Site) -> None:
    for name in ("db1", "db2"):
        storage.hosts[name].systemctl("stop", "nllbd.service", "nllbd.socket", check=False)
        storage.run(name, "storage/bin/setup-storage", "--remove")
        units = storage.hosts[name].systemctl("list-unit-files", check=False).stdout
        assert "var-lib-nllbd-models" not in units
