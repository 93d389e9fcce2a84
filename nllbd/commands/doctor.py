"""Look at everything the daemon needs: model, device, ports, Redis, database, disk, limits. One line each, and what to
do where something is wrong. Exit code 1 if anything would keep the daemon from working."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from nllbd import cgroup
from nllbd.checkpoint import read_checkpoint, resolve_model
from nllbd.commands.doctor_services import TIMEOUT_S, Finding, check_database, check_rates, check_redis, existing
from nllbd.commands.options import add_settings, settings_from
from nllbd.commands.output import Progress, human_bytes, print_line
from nllbd.config import Settings, state_folder
from nllbd.errors import CheckpointError
from nllbd.text.tokenizer import Tokenizer
from nllbd.weight_files import check_shapes, read_headers, weight_files

_MIN_FREE_DISK = 1 << 30
_MIN_OPEN_FILES = 4096
_TORCH_TIMEOUT_S = 60.0
_ASK_TORCH = """
import torch
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
print(torch.__version__, *names, sep="|")
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    settings = settings_from(args)
    failed = False
    for check in CHECKS:
        with Progress("checking"):
            finding = check(settings)
        failed |= finding.verdict == "fail"
        print_line(str(finding))
    return 1 if failed else 0


def check_model(settings: Settings) -> Finding:
    """The checkpoint is complete and its tensors have the shapes that it promises."""
    try:
        checkpoint = read_checkpoint(resolve_model(settings.model, settings.model_dir))
        Tokenizer(checkpoint)
        files = weight_files(checkpoint.path)
        if files[0].suffix == ".safetensors":
            headers = {name: header for file in files for name, header in read_headers(file).items()}
            check_shapes(headers, checkpoint.config, checkpoint.path)
    except CheckpointError as error:
        return Finding("fail", "model", error.message)
    size = human_bytes(sum(file.stat().st_size for file in files))
    return Finding("ok", "model", f"{checkpoint.name}, {size}, in {checkpoint.path}")


def check_device(settings: Settings) -> Finding:
    """torch can be imported and has the device that is wanted. Asked in a process of its own: it takes seconds."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_TORCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding("fail", "device", f"torch took over {_TORCH_TIMEOUT_S:.0f} s to load", "is the disk overloaded?")
    if asked.returncode != 0:
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        return Finding("fail", "device", f"torch cannot be imported ({reason})", "make run installs it")
    version, *gpus = asked.stdout.strip().split("|")
    return _device_finding(settings.device, version, gpus)


def _device_finding(wanted: str, version: str, gpus: list[str]) -> Finding:
    index = int(wanted.partition(":")[2] or 0)
    if wanted.startswith("cuda") and index >= len(gpus):
        has = f"{len(gpus)} CUDA device(s)" if gpus else "no CUDA device"
        return Finding(
            "fail", "device", f"{wanted} is wanted, torch {version} sees {has}", "check nvidia-smi, or set device=cpu"
        )
    if gpus and wanted != "cpu":
        return Finding("ok", "device", f"{gpus[index]}, torch {version}")
    cores = cgroup.usable_cores()
    return Finding("ok", "device", f"CPU, {cores} cores, {_int8_support()}, torch {version}")


def _int8_support() -> str:
    """What the processor offers for int8, the default there."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return "unknown instruction set"
    known = (("amx_int8", "AMX"), ("avx512_vnni", "AVX512-VNNI"), ("avx_vnni", "AVX-VNNI"), ("avx2", "AVX2"))
    return next((name for flag, name in known if flag in flags), "no AVX2: int8 will be slow")


def check_port(settings: Settings) -> Finding:
    return _can_listen("port", settings.host, settings.port)


def check_metrics_port(settings: Settings) -> Finding:
    if settings.metrics_port == 0:
        return Finding("ok", "metrics", "off (metrics_port=0)")
    return _can_listen("metrics", settings.metrics_host, settings.metrics_port)


def _can_listen(subject: str, host: str, port: int) -> Finding:
    """Bind as the daemon would, and let go again."""
    if host.startswith("unix:"):
        return _can_listen_unix(subject, Path(host.removeprefix("unix:")))
    where = f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if _is_taken(host, port):
            return Finding("warn", subject, f"{where} is in use", "fine if that is nllbd; else stop what it is")
        return Finding(
            "fail", subject, f"cannot listen on {where} ({error.strerror})", f"choose another host or {subject}"
        )
    return Finding("ok", subject, f"{where} is free")


def _can_listen_unix(subject: str, path: Path) -> Finding:
    if os.access(path.parent, os.W_OK | os.X_OK):
        return Finding("ok", subject, f"{path} can be made")
    return Finding("fail", subject, f"{path.parent} is not writable", "create it for the user that runs nllbd")


def _is_taken(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S):
            return True
    except OSError:
        return False


def check_disk(settings: Settings) -> Finding:
    """Room where models are pulled to."""
    folder = existing(settings.model_dir or state_folder())
    free = shutil.disk_usage(folder).free
    seen = f"{human_bytes(free)} free in {folder}"
    if free < _MIN_FREE_DISK:
        return Finding("warn", "disk", seen, "make room: NLLB-200 models take 2.5 to 18 GB")
    return Finding("ok", "disk", seen)


def check_memory(settings: Settings) -> Finding:
    """The weights fit into what is free now, as float32 at worst."""
    try:
        size = sum(file.stat().st_size for file in weight_files(resolve_model(settings.model, settings.model_dir)))
    except CheckpointError:
        return Finding("ok", "memory", "nothing to load")
    free = cgroup.available_memory()
    seen = f"{human_bytes(free)} available, weights {human_bytes(size)}"
    if free < 2 * size:
        return Finding("warn", "memory", seen, "free some memory, or serve a smaller model")
    return Finding("ok", "memory", seen)


def check_limits(settings: Settings) -> Finding:
    """Open files: one per connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _MIN_OPEN_FILES:
        return Finding(
            "warn",
            "limits",
            f"{soft} open files",
            f"ulimit -n {min(_MIN_OPEN_FILES, hard)}",
        )
    return Finding("ok", "limits", f"{soft} open files")


#: In the order in which a start would meet them.
CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    check_model,
    check_device,
    check_port,
    check_metrics_port,
    check_redis,
    check_rates,
    check_database,
    check_disk,
    check_memory,
    check_limits,
)
