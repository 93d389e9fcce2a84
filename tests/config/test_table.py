from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from nllbd.config import ROWS, Settings, state_folder
from nllbd.errors import ConfigError


def test_every_setting_has_a_row_and_every_row_a_setting() -> None:
    names = [field.name for field in dataclasses.fields(Settings)]
    assert [row.name for row in ROWS] == [name for name in names if name not in ("origins", "notes")]


def test_bare_names_are_those_of_the_deployment_guide() -> None:
    assert {row.bare for row in ROWS if row.bare} == {
        "API_KEY",
        "JWT_SECRET",
        "CORS_ORIGINS",
        "RATE_LIMIT_PER_MINUTE",
        "MAX_REQUEST_SIZE",
        "ENABLE_SWAGGER",
        "LOG_LEVEL",
        "SENTRY_DSN",
        "MODEL_NAME",
        "DEVICE",
        "REDIS_URL",
    }


def test_groups_stand_together() -> None:
    groups = [row.group for row in ROWS]
    first_seen = list(dict.fromkeys(groups))
    assert groups == sorted(groups, key=first_seen.index)


@pytest.mark.parametrize(
    "values",
    [
        {"port": 65536},
        {"port": "8000"},
        {"port": True},
        {"host": ""},
        {"host": "a b"},
        {"host": "unix:"},
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"max_texts": 0},
        {"request_timeout_s": float("inf")},
        {"log_level": "info"},
        {"cors_origins": ["*"]},
        {"num_beams": 5, "max_num_beams": 4},
        {"num_beams": 5, "max_num_lanes": 4},
        {"port": None},
    ],
)
def test_a_settings_object_is_never_invalid(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**values)
    assert caught.value.field in values


def test_repr_shows_what_was_changed_and_no_secret() -> None:
    shown = repr(Settings(port=1, api_key="hunter2", redis_url="redis://:hunter2@cache/0"))
    assert "port=1" in shown
    assert "redis://***@cache/0" in shown
    assert "hunter2" not in shown


def test_a_refusal_does_not_repeat_a_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(redis_url="http://:hunter2@cache")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "is_open"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("unix:/run/n.sock", True),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_pages_are_on_only_where_no_stranger_comes(host: str, is_open: bool) -> None:
    settings = Settings(host=host)
    assert settings.enable_swagger is settings.enable_web is is_open
    assert Settings(host=host, enable_swagger=not is_open).enable_swagger is not is_open


def test_reload_takes_what_is_live_and_names_the_rest() -> None:
    before = Settings(port=1, log_level="INFO", cors_origins=("*",))
    fresh = Settings(port=2, log_level="DEBUG")
    after, cold = before.reloaded(fresh)
    assert (after.port, after.log_level, after.cors_origins) == (1, "DEBUG", ())
    assert cold == ("port",)


def test_state_folder() -> None:
    assert state_folder({"STATE_DIRECTORY": "/var/lib/nllbd:/var/lib/other", "HOME": "/root"}) == Path("/var/lib/nllbd")
    assert state_folder({"XDG_STATE_HOME": "/x", "HOME": "/root"}) == Path("/x/nllbd")
    assert state_folder({"HOME": "/root"}) == Path("/root/.local/state/nllbd")


def test_the_fingerprint_tells_settings_apart_but_not_secrets() -> None:
    assert Settings().fingerprint == Settings().fingerprint
    assert Settings().fingerprint != Settings(max_texts=7).fingerprint
    one, other = Settings(api_key="one"), Settings(api_key="other")
    assert one.fingerprint == other.fingerprint != Settings().fingerprint
    with_password = [Settings(redis_url=f"redis://:{word}@localhost/0").fingerprint for word in ("one", "other")]
    assert with_password[0] == with_password[1]
