"""The guide's own rules, metrics and dashboard, shown to be wrong; and ours beside them on the same figures."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.ops.kit.programs import need
from tests.ops.monitoring.artefacts import DASHBOARDS, PROMETHEUS, alerts

#: As the guide has them.
GUIDE = {
    "HighMemoryUsage": "(system_memory_usage_bytes / (1024^3)) > 12",
    "HighTranslationLatency": "histogram_quantile(0.95, translation_duration_seconds) > 5",
    "GPUMemoryHigh": "(gpu_memory_usage_bytes / (1024^3)) > 7",
    "HighCPUUsage": "system_cpu_usage_percent > 80",
    "NLLBServerDown": 'up{job="nllb-servers"} == 0',
}
#: With the buckets at last, but of the daemon's whole life.
RAW_BUCKETS = "histogram_quantile(0.95, translation_duration_seconds_bucket) > 5"
GUIDE_DASHBOARD: dict[str, Any] = {
    "dashboard": {
        "title": "NLLB Translation System",
        "panels": [
            {
                "title": "Translation Latency",
                "type": "graph",
                "targets": [{"expr": "histogram_quantile(0.95, translation_duration_seconds)"}],
            }
        ],
    }
}
GIB = 2**30


def firing(tmp_path: Path, exprs: dict[str, str], series: dict[str, str], at: str) -> set[str]:
    """Which of these alerts fire at that moment; ours are loaded beside them, under their own names."""
    guide = [{"alert": f"Guide{name}", "expr": expr} for name, expr in exprs.items()]
    (tmp_path / "guide.yml").write_text(json.dumps({"groups": [{"name": "guide", "rules": guide}]}), "utf-8")
    ours = [str(PROMETHEUS / f"rules/{name}.yml") for name in ("recording", "daemon", "hosts")]
    files = ["guide.yml", *ours]
    inputs = [{"series": name, "values": values} for name, values in series.items()]
    asked = "count by (alertname) (ALERTS{alertstate='firing'})"
    test = {"expr": asked, "eval_time": at, "exp_samples": [{"labels": '{none="x"}', "value": 1}]}
    cases = {"rule_files": files, "evaluation_interval": "1m"}
    cases["tests"] = [{"interval": "1m", "input_series": inputs, "promql_expr_test": [test]}]  # type: ignore[assignment]
    (tmp_path / "cases.yml").write_text(json.dumps(cases), "utf-8")
    command = [str(need("promtool")["promtool"]), "test", "rules", str(tmp_path / "cases.yml")]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    got = (shown.stdout + shown.stderr).partition("got:")[2]
    assert got, shown.stdout + shown.stderr
    return {name for name in (*alerts(), *(f"Guide{name}" for name in exprs)) if f'alertname="{name}"' in got}


def buckets(fast: str, all_: str) -> dict[str, str]:
    name = 'translation_duration_seconds_bucket{job="nllbd",host="a",instance="a:9000",le="%s"}'
    return {name % "5.0": fast, name % "7.5": all_, name % "+Inf": all_}


def test_a_quantile_of_a_histograms_base_name_never_fires(tmp_path: Path) -> None:
    """There is no series of that name: nine of ten translations take too long, and nobody hears of it."""
    slow = buckets("0+10x20", "0+100x20")
    found = firing(tmp_path, {"HighTranslationLatency": GUIDE["HighTranslationLatency"]}, slow, "15m")
    assert "GuideHighTranslationLatency" not in found
    assert "HighTranslationLatency" in found


def test_a_quantile_of_raw_buckets_is_that_of_the_whole_life(tmp_path: Path) -> None:
    """After ten million fast translations twenty minutes of slow ones do not move it; and it never forgets, either."""
    slow = buckets("10000000+10x20", "10000000+100x20")
    found = firing(tmp_path, {"HighTranslationLatency": RAW_BUCKETS}, slow, "15m")
    assert "GuideHighTranslationLatency" not in found
    assert "HighTranslationLatency" in found
    was_slow = buckets("0x40", "10000x40")
    found = firing(tmp_path, {"HighTranslationLatency": RAW_BUCKETS}, was_slow, "30m")
    assert "GuideHighTranslationLatency" in found, "of a bad hour long ago"
    assert "HighTranslationLatency" not in found


def memory(used_gib: float, total_gib: float) -> dict[str, str]:
    labels = '{job="node",host="a",instance="a:9100"}'
    return {
        'system_memory_usage_bytes{job="nllbd",host="a",instance="a:9000"}': f"{used_gib * GIB:.0f}x20",
        f"node_memory_MemAvailable_bytes{labels}": f"{(total_gib - used_gib) * GIB:.0f}x20",
        f"node_memory_MemTotal_bytes{labels}": f"{total_gib * GIB:.0f}x20",
    }


def test_an_absolute_memory_limit_fits_one_size_of_host(tmp_path: Path) -> None:
    """The guide's own large tier has 64 GB: 12 of them are nothing. A host with 12 is dead before it fires."""
    guide = {"HighMemoryUsage": GUIDE["HighMemoryUsage"]}
    healthy = firing(tmp_path, guide, memory(14, 64), "10m")
    assert "GuideHighMemoryUsage" in healthy
    assert "HighMemoryUsage" not in healthy
    ending = firing(tmp_path, guide, memory(11.5, 12), "10m")
    assert "GuideHighMemoryUsage" not in ending
    assert "HighMemoryUsage" in ending


def test_an_absolute_gpu_limit_fires_for_ever_on_the_guides_own_gpus(tmp_path: Path) -> None:
    """An A100 of 40 GB whose KV cache was made as large as planned."""
    labels = '{job="nllbd",host="a",instance="a:9000"}'
    series = {f"gpu_memory_usage_bytes{labels}": f"{34 * GIB}x20", f"gpu_memory_total_bytes{labels}": f"{40 * GIB}x20"}
    found = firing(tmp_path, {"GPUMemoryHigh": GUIDE["GPUMemoryHigh"]}, series, "10m")
    assert "GuideGPUMemoryHigh" in found
    assert "GPUMemoryHigh" not in found


def test_a_busy_cpu_is_what_an_engine_is_for(tmp_path: Path) -> None:
    """Cores at work and nothing waiting: the guide's alert wakes somebody for it."""
    node = 'node_cpu_seconds_total{job="node",host="a",instance="a:9100",cpu="0",mode="%s"}'
    queue = 'nllbd_queue_time_seconds_bucket{job="nllbd",host="a",instance="a:9000",le="%s"}'
    series = {node % "idle": "0+3x30", node % "user": "0+57x30", queue % "0.1": "0+100x30", queue % "+Inf": "0+100x30"}
    series['system_cpu_usage_percent{job="nllbd",host="a",instance="a:9000"}'] = "95x30"
    found = firing(tmp_path, {"HighCPUUsage": GUIDE["HighCPUUsage"]}, series, "20m")
    assert "GuideHighCPUUsage" in found
    assert "HighCPUUsage" not in found


class _FakeGpu:
    def __init__(self, used_mib: int) -> None:
        self.memoryUsed = used_mib


def test_gputil_sees_one_gpu_and_hides_its_failures() -> None:
    """The guide's own lines, with a module of two GPUs, then with one whose driver is gone."""
    shown: list[float] = []

    def update(get_gpus: Any) -> None:
        try:
            gpus = get_gpus()
            if gpus:
                gpu = gpus[0]
                shown.append(gpu.memoryUsed * 1024 * 1024)
        except:  # noqa: E722  # as it stands there
            pass

    update(lambda: [_FakeGpu(1000), _FakeGpu(39000)])
    assert shown == [1000 * 2**20], "the second, full one is not seen"

    def is_gone() -> Any:
        raise OSError("nvidia-smi has failed")

    update(is_gone)
    assert shown == [1000 * 2**20], "the last figure stays, as if all were well"


def test_the_guides_collector_is_never_called() -> None:
    """Its gauges are set by update_system_metrics, which nothing calls: they read 0 for ever. A scrape reads ours."""
    from nllbd.metrics import Metrics

    text = Metrics().render()[0].decode()
    used = next(line for line in text.splitlines() if line.startswith("system_memory_usage_bytes "))
    assert float(used.split()[1]) > 0


def test_the_guides_dashboard_is_none_that_grafana_provisions() -> None:
    """Wrapped as for an old HTTP API, it has no panels when read as a file; these have no place and no data source, and
    are of a kind that Grafana no longer has.
    """
    from grafana_foundation_sdk.models.dashboard import Dashboard

    assert not Dashboard.from_json(GUIDE_DASHBOARD).panels
    panel = GUIDE_DASHBOARD["dashboard"]["panels"][0]
    assert not {"gridPos", "datasource", "id"} & set(panel)
    ours = [panel for path in DASHBOARDS for panel in json.loads(path.read_text("utf-8"))["panels"]]
    assert all({"gridPos", "id"} <= set(panel) and panel["type"] != "graph" for panel in ours)


def test_targets_in_the_configuration_need_a_reload_and_a_deployment_for_every_host() -> None:
    """Here no host is named in it."""
    text = (PROMETHEUS / "prometheus.yml").read_text("utf-8")
    static = [line for line in text.splitlines() if "targets: [" in line]
    assert all("localhost" in line for line in static)
    assert text.count("file_sd_configs") == 7
