from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nllbd.config import ROWS, Settings, load_settings, sources
from nllbd.errors import ConfigError

KEY = "cf83e1357eefb8bd"


@pytest.fixture(autouse=True)
def no_file_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sources, "DEFAULT_FILE", tmp_path / "absent.toml")


def load(environ: Mapping[str, str] | None = None, toml: Path | None = None, **flags: str) -> Settings:
    return load_settings(flags, environ or {}, toml)


def refusal(environ: Mapping[str, str] | None = None, toml: Path | None = None, **flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environ, toml, **flags)
    return caught.value.message


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "nllbd.toml"


@given(present=st.sets(st.sampled_from(["flag", "prefixed", "bare", "file"])))
def test_precedence(tmp_path_factory: pytest.TempPathFactory, present: set[str]) -> None:
    toml = tmp_path_factory.mktemp("p") / "n.toml"
    toml.write_text('log_level = "ERROR"' if "file" in present else "")
    environ = {"NLLBD_LOG_LEVEL": "warning"} if "prefixed" in present else {}
    environ |= {"LOG_LEVEL": "critical"} if "bare" in present else {}
    settings = load(environ, toml, **({"log_level": "DEBUG"} if "flag" in present else {}))
    ranking = [
        ("flag", "DEBUG", "flag --log-level"),
        ("prefixed", "WARNING", "environment NLLBD_LOG_LEVEL"),
        ("bare", "CRITICAL", "environment LOG_LEVEL"),
        ("file", "ERROR", str(toml)),
    ]
    expected = next(((value, origin) for name, value, origin in ranking if name in present), ("INFO", "default"))
    assert (settings.log_level, settings.origin("log_level")) == expected


def test_defaults() -> None:
    assert load() == Settings()


@pytest.mark.parametrize("row", [row for row in ROWS if row.bare], ids=lambda row: row.name)
def test_every_bare_name_works(row: sources.Row) -> None:
    value = {"count": "7", "flag": "true", "list": "https://a.example"}.get(row.kind.name, "cpu")
    value = {"LOG_LEVEL": "debug", "REDIS_URL": "redis://r", "SENTRY_DSN": "https://k@s/1"}.get(row.bare or "", value)
    settings = load({row.bare or "": value})
    assert settings.origin(row.name) == f"environment {row.bare}"
    assert getattr(settings, row.name) != row.default


def test_bare_names_of_no_setting_are_not_looked_at() -> None:
    assert load({"PORT": "1", "HOST": "x y", "MODEL": "z", "PATH": "/bin", "USER": "me"}) == Settings()


def test_toml_values_have_their_types(write: Path) -> None:
    write.write_text(
        'port = 1\nmax_body_bytes = "2MiB"\nrequest_timeout_s = "5m"\nearly_stopping = "never"\n'
        'allow_anonymous = true\ncors_origins = ["https://a.example"]\ncache_ttl_s = 60\n'
    )
    settings = load(toml=write)
    assert (settings.port, settings.max_body_bytes, settings.request_timeout_s) == (1, 2 << 20, 300.0)
    assert (settings.early_stopping, settings.allow_anonymous, settings.cache_ttl_s) == ("never", True, 60.0)
    assert settings.cors_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("prot = 1", "did you mean 'port'?"),
        ("port = [1]", "port: expected a whole number"),
        ("port = true", "port: expected a whole number"),
        ("port = 1979-05-27", "port: expected a whole number"),
        ("[server]\nport = 1", "unknown setting 'server'"),
        ("port = ", "not valid TOML"),
        ('api_key = ""', "api_key is empty"),
        ("port = 1\nport = 2", "not valid TOML"),
        ("port_file = 'x'", "unknown setting 'port_file'"),
    ],
)
def test_mistakes_in_the_file(write: Path, content: str, says: str) -> None:
    write.write_text(content)
    message = refusal(toml=write)
    assert says in message
    assert str(write) in message


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    assert "no such file" in refusal(toml=tmp_path / "gone.toml")
    assert "cannot be read" in refusal(toml=tmp_path)


def test_a_file_that_is_no_text(write: Path) -> None:
    write.write_bytes(b"\xff\xfe")
    assert "not valid TOML" in refusal(toml=write)


def test_unknown_names_are_refused_with_the_nearest_known() -> None:
    assert "environment NLLBD_NUM_BEAM: unknown setting 'num_beam'; did you mean 'num_beams'?" in refusal(
        {"NLLBD_NUM_BEAM": "4"}
    )
    assert "nllbd config sample" in refusal({"NLLBD_ZZZZ": "4"})
    assert "flag --prot" in refusal(prot="1")


@given(
    names=st.sets(
        st.sampled_from(
            [
                "NLLBD_SERVICE_HOST",
                "NLLBD_SERVICE_PORT",
                "NLLBD_SERVICE_PORT_HTTP",
                "NLLBD_PORT_8000_TCP",
                "NLLBD_PORT_X",
            ]
        )
    )
)
def test_what_kubernetes_injects_is_ignored(names: set[str]) -> None:
    settings = load(dict.fromkeys(names, "tcp://10.0.0.1:8000") | {"NLLBD_PORT": "tcp://10.0.0.1:8000"})
    assert settings == Settings()
    assert any("enableServiceLinks" in note for note in settings.notes)


def test_a_real_port_beside_kubernetes_names_counts() -> None:
    assert load({"NLLBD_PORT": "81", "NLLBD_SERVICE_HOST": "10.0.0.1"}).port == 81


def test_node_env_is_ignored_with_one_note() -> None:
    settings = load({"NODE_ENV": "production"})
    assert settings == Settings()
    assert len(settings.notes) == 1


def test_a_setting_that_nothing_acts_on_yet_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(replace(row, pending=row.name == "max_texts") for row in ROWS)
    monkeypatch.setattr(sources, "ROWS", rows)
    settings = load({"NLLBD_MAX_TEXTS": "10", "MAX_REQUEST_SIZE": "7"})
    assert settings.notes == ("max_texts is set, but this version does not act on it yet",)


@pytest.mark.parametrize("name", ["API_KEY_FILE", "NLLBD_API_KEY_FILE"])
def test_secrets_come_from_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    settings = load({name: str(tmp_path / "key")})
    assert settings.api_key == KEY
    assert settings.origin("api_key") == f"environment {name}"


@pytest.mark.parametrize("value_name", ["API_KEY", "NLLBD_API_KEY"])
@pytest.mark.parametrize("file_name", ["API_KEY_FILE", "NLLBD_API_KEY_FILE"])
def test_value_and_file_at_once_is_an_error(tmp_path: Path, value_name: str, file_name: str) -> None:
    (tmp_path / "key").write_text(KEY)
    message = refusal({value_name: KEY, file_name: str(tmp_path / "key")})
    assert "both set" in message
    assert KEY not in message


def test_a_secret_file_in_toml_and_as_a_flag(tmp_path: Path, write: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    write.write_text(f"api_key_file = '{tmp_path / 'key'}'")
    assert load(toml=write).api_key == KEY
    assert load(api_key_file=str(tmp_path / "key")).api_key == KEY


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_secret_files_without_a_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    message = refusal({"API_KEY_FILE": str(tmp_path / "key")})
    assert "API_KEY_FILE" in message


def test_a_secret_file_that_is_missing(tmp_path: Path) -> None:
    assert "No such file" in refusal({"API_KEY_FILE": str(tmp_path / "gone")})


def test_an_empty_secret_is_a_mistake_and_an_empty_other_value_is_none() -> None:
    assert "api_key is empty" in refusal({"API_KEY": ""})
    assert load({"REDIS_URL": "", "NLLBD_PORT": ""}) == Settings()


def test_systemd_credentials(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text(KEY)
    (tmp_path / "tls.pem").write_text("something else")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert load(environ).api_key == KEY
    assert load(environ).origin("api_key") == "credential api_key"
    assert load(environ | {"API_KEY": "other"}).api_key == "other"


def test_a_wrong_value_says_where_it_stood() -> None:
    assert refusal({"MAX_REQUEST_SIZE": "many"}).startswith("environment MAX_REQUEST_SIZE: max_request_size: expected")
    assert "flag --port" in refusal(port="99999")


@given(
    environ=st.dictionaries(
        st.one_of(
            st.sampled_from([f"NLLBD_{row.name.upper()}" for row in ROWS] + [row.bare for row in ROWS if row.bare]),
            st.text(st.characters(exclude_characters="=\0", codec="utf-8"), min_size=1),
        ),
        st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    )
)
def test_any_environment_gives_settings_or_a_config_error(environ: dict[str, str]) -> None:
    try:
        settings = load(environ)
    except ConfigError:
        return
    assert isinstance(settings, Settings)


def test_value_and_file_in_one_toml_are_told_apart(write: Path) -> None:
    write.write_text('api_key = "secret"\napi_key_file = "/run/key"\n')
    assert refusal(toml=write) == f"{write}: api_key and api_key_file are both set: keep one of the two"


def test_a_wrong_unit_is_shown_as_it_was_written(write: Path) -> None:
    write.write_text('max_body_bytes = "1 parsec"\n')
    assert refusal(toml=write).endswith("got '1 parsec'")
