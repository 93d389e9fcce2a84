"""`/docs` in a real browser, where there is one: the API browser comes up under its Content-Security-Policy, and every
byte of it comes from the daemon.
"""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_the_api_browser_comes_up(daemon: Any) -> None:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--enable-logging=stderr"]
    command = [str(BROWSER), *flags, "--dump-dom", f"{daemon.url}/docs"]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    for words in ("Translate one text or several", "LibreTranslate", "Exchange a key for a short session", "Authorize"):
        assert words in seen.stdout
    assert "Content Security Policy" not in seen.stderr
    assert "Failed to load" not in seen.stdout


def test_its_files_are_ours_and_its_policy_is_strict(daemon: Any) -> None:
    page = daemon.request("GET", "/docs")
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert b"//" not in page.body  # nothing from elsewhere
    for name, kind in (
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ):
        file = daemon.request("GET", f"/docs/{name}")
        assert (file.status, file.headers["content-type"].split(";")[0]) == (200, kind)
        assert file.headers["content-security-policy"] == policy
    assert daemon.request("GET", "/docs/../pages.py").status == 404
