"""A booted host: a real systemd as PID 1 in namespaces of its own, on a throw-away copy of this machine's files.

    with Host("web1") as host:
        install_nllbd(host)
        host.systemctl("start", "nllbd.service")

What is enabled or runs on this machine does not run there, and nothing of the host is ever seen on this machine: its
mounts, processes, network and control groups go with it, also when the tests are killed. See host.sh for how.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.ops.kit.programs import CHECKOUT, need, need_root

_SCRIPT = Path(__file__).with_name("host.sh")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_S = 60.0
#: Where the interpreter and the packages that run the tests are seen in every host.
_ENVIRONMENT = "/opt/test-environment"
#: Where the checkout is seen, read-only, in every host, wherever it lies on this machine.
CHECKOUT_INSIDE = "/opt/checkout"


class Host:
    """One host. Booted by `with` or `boot()`; `stop()` removes it wholly.

    Args:
        name: its host name; several hosts of one test have different ones.
        netns: an existing named network namespace to live in (`ip netns add`); else one of its own, with loopback only.
        size: the most that its disk may hold beyond what this machine has, in memory.
    """

    def __init__(self, name: str, netns: str | None = None, size: str = "1g") -> None:
        need_root()
        need("unshare", "nsenter", "systemd", "ip", "pgrep", "hostname")
        self.name = name
        self._pid: int | None = None
        command = ["unshare", "--mount", "--propagation", "private", "bash", str(_SCRIPT), name, size, netns or ""]
        # A session of its own: a signal to our process group must not keep it from cleaning up after us.
        self._holder = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._disk = self._hear()
        for target, source in _environment().items():
            self._ask(f"bind {source} {_ENVIRONMENT}/{target}")
        self._ask(f"bind {CHECKOUT} {CHECKOUT_INSIDE}")

    def __enter__(self) -> Host:
        try:
            return self if self.is_on else self.boot()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def is_on(self) -> bool:
        return self._pid is not None

    @property
    def pid(self) -> int:
        """Its PID 1, as this machine sees it."""
        if self._pid is None:
            raise RuntimeError(f"host {self.name} is off")
        return self._pid

    @property
    def root(self) -> Path:
        """Its root seen from here; absolute links in there lead astray. While it is off: its disk alone."""
        return Path(f"/proc/{self._pid}/root" if self._pid else f"/proc/{self._holder.pid}/root{self._disk}")

    def boot(self) -> Host:
        """Power on, and wait until everything that is enabled was started."""
        answer = self._ask("boot")
        if not answer.isdecimal():
            raise RuntimeError(f"host {self.name} does not boot: {answer}")
        self._pid = int(answer)
        state = self.run("bash", "-c", _WAIT_BOOTED, check=False, timeout=_BOOT_S).stdout.strip()
        if state not in ("running", "degraded"):
            raise RuntimeError(f"host {self.name} does not come up: it is {state or 'silent'}")
        return self

    def kill(self) -> None:
        """A power cut: all its processes end at once. What it wrote is kept; `boot()` brings it back."""
        self._ask("kill")
        self._pid = None

    def stop(self) -> None:
        """Remove it wholly: processes, mounts, control groups. May be called twice."""
        if self._holder.returncode is not None:
            return
        self._pid = None
        with suppress(BrokenPipeError):
            self._holder.communicate(timeout=_BOOT_S)

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        input: str | None = None,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in there as root, with a clean environment; raises with its output if it fails and `check`."""
        done = subprocess.run(
            self.command(*argv, env=env), input=input, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode != 0:
            shown = " ".join(map(str, argv))
            raise AssertionError(f"{self.name}: {shown}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def popen(self, *argv: str | Path, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a command in there that goes on beside the test; it ends with the host at the latest."""
        return subprocess.Popen(self.command(*argv, env=env), text=True, **options)

    def command(self, *argv: str | Path, env: Mapping[str, str] | None = None) -> list[str]:
        """The command line that runs `argv` in there."""
        settings = [f"{name}={value}" for name, value in (env or {}).items()]
        enter = ["nsenter", "--target", str(self.pid), "--all", "--wdns=/"]
        return [*enter, "env", "-i", f"PATH={_PATH}", "HOME=/root", "LANG=C.UTF-8", *settings, *map(str, argv)]

    def write(self, path: str | Path, text: str, mode: int = 0o644) -> None:
        """Write a file in there, with its folders; `mode` holds from its first byte."""
        script = 'mkdir -p "$(dirname "$1")" && rm -f "$1" && umask 077 && cat >"$1" && chmod "$2" "$1"'
        self.run("sh", "-c", script, "sh", str(path), f"{mode:o}", input=text)

    def copy(self, source: Path, target: str | Path) -> None:
        """Copy a file or folder of this machine to `target` in there, owned by root."""
        seen = self.root / str(target).lstrip("/")
        seen.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, seen, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, seen)
        self.run("chown", "-R", "root:root", str(target))

    def systemctl(self, *args: str, check: bool = True, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return self.run("systemctl", "--no-pager", *args, check=check, timeout=timeout)

    def show(self, unit: str, name: str) -> str:
        """One property of a unit: `show("nllbd.service", "NRestarts")`."""
        return self.systemctl("show", unit, f"--property={name}", "--value").stdout.strip()

    def journal(self, unit: str) -> list[dict[str, str]]:
        """A unit's journal entries, oldest first, with all their fields."""
        self.run("journalctl", "--sync")
        text = self.run("journalctl", "--no-pager", "--all", "--output=json", f"--unit={unit}").stdout
        return [json.loads(line) for line in text.splitlines()]

    def _ask(self, command: str) -> str:
        """Hand host.sh a command; its answer."""
        assert self._holder.stdin is not None
        self._holder.stdin.write(f"{command}\n")
        self._holder.stdin.flush()
        return self._hear()

    def _hear(self) -> str:
        assert self._holder.stdout is not None
        if not (line := self._holder.stdout.readline()):
            raise RuntimeError(f"host {self.name} cannot be made: see above")
        return line.rstrip("\n")


#: Removes the network namespace at the end of its input, whoever ended it and however.
_NETWORK = """
trap '' INT HUP
trap 'ip netns del "$1"' EXIT
ip netns add "$1" && ip -n "$1" link set lo up && echo "$1" && cat >/dev/null
"""


@contextmanager
def network(name: str) -> Iterator[str]:
    """A network namespace of that name with nothing but loopback, for `Host(netns=...)` and for who talks to it."""
    need_root()
    need("ip")
    command = ["bash", "-c", _NETWORK, "network", name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == f"{name}\n", f"there is no network namespace {name}"
        try:
            yield name
        finally:
            keeper.communicate(timeout=_BOOT_S)


#: Asking too early is refused; `--wait` does the rest.
_WAIT_BOOTED = """
until state=$(systemctl is-system-running --wait 2>/dev/null) || [ "$state" = degraded ]; do sleep 0.02; done
echo "$state"
"""


def _environment() -> dict[str, Path]:
    """What of the running interpreter hosts need under a fixed path: its own files may lie where only root looks."""
    found = {"site-packages": Path(sysconfig.get_path("purelib"))}
    if not sys.base_prefix.startswith("/usr"):
        found["python"] = Path(sys.base_prefix)
    return found


def install_nllbd(host: Host, version: str = "0.1.0", settings: str = "") -> None:
    """Put the installed layout in place: a release of that version in use, user, folders, units, settings.

    The release is this checkout's package over the packages that run the tests. Called again with another version, it
    adds that release and makes it the current one; nothing is restarted. `settings` are nllbd.toml's lines; settings
    that are there stay if none are given.
    """
    add_release(host, version)
    host.run("ln", "-sfn", f"releases/{version}", "/opt/nllbd/current")
    for folder, target in (("sysusers.d", "/etc/sysusers.d"), ("tmpfiles.d", "/etc/tmpfiles.d")):
        if (CHECKOUT / "systemd" / folder).is_dir():
            host.copy(CHECKOUT / "systemd" / folder, target)
    for unit in sorted((CHECKOUT / "systemd").glob("nllbd*.*")):
        host.copy(unit, f"/etc/systemd/system/{unit.name}")
    host.run("systemd-sysusers")
    host.run("systemd-tmpfiles", "--create", "--prefix=/etc/nllbd", "--prefix=/var", "--prefix=/run", check=False)
    if settings or not (host.root / "etc/nllbd/nllbd.toml").exists():
        host.write("/etc/nllbd/nllbd.toml", settings)
    host.systemctl("daemon-reload")


def add_release(host: Host, version: str) -> None:
    """Put /opt/nllbd/releases/<version> in place, and the dependencies that it stands on."""
    release = f"/opt/nllbd/releases/{version}"
    home = Path(f"{_ENVIRONMENT}/python" if "python" in _environment() else sys.base_prefix) / "bin"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = f"{release}/lib/{python}/site-packages"
    host.run("mkdir", "-p", f"{release}/bin", packages, "/opt/nllbd/dependencies/test")
    host.run("ln", "-sfn", f"{_ENVIRONMENT}/site-packages", "/opt/nllbd/dependencies/test/site-packages")
    host.write(f"{release}/pyvenv.cfg", f"home = {home}\ninclude-system-site-packages = false\n")
    host.run("ln", "-sfn", str(home / python), f"{release}/bin/python")
    host.write(f"{packages}/dependencies.pth", "/opt/nllbd/dependencies/test/site-packages\n")
    host.copy(CHECKOUT / "nllbd", f"{packages}/nllbd")
    host.write(f"{packages}/nllbd/__init__.py", _with_version(version))
    # An interpreter built with a shared library looks for it where it was built: where only root looks, perhaps.
    host.write("/etc/ld.so.conf.d/00-test-environment.conf", f"{home.parent}/lib\n")
    host.run("ldconfig")
    script = f"#!{release}/bin/python\nimport sys\nfrom nllbd.cli import main\nsys.exit(main())\n"
    host.write(f"{release}/bin/nllbd", script, 0o755)


def _with_version(version: str) -> str:
    lines = (CHECKOUT / "nllbd/__init__.py").read_text("utf-8").splitlines()
    return "\n".join(f'__version__ = "{version}"' if line.startswith("__version__") else line for line in lines) + "\n"
