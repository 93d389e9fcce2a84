"""Sockets: bound as asked or refused with a reason; who can reach them is judged by the sockets themselves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nllbd.errors import ConfigError
from nllbd.sockets import Listener, bind, check_exposure, sort_inherited
from nllbd.systemd import InheritedSocket


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listening(stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return stack.enter_context(socket.create_server((host, 0), family=family))


def test_binds_every_address_of_a_name_at_one_port() -> None:
    listeners = bind("localhost", 0, "")
    ports = {listener.url.rpartition(":")[2] for listener in listeners}
    assert len(ports) == 1
    assert all(listener.is_private for listener in listeners)
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("host", ["*", "0.0.0.0"])
def test_a_wildcard_is_not_private(host: str) -> None:
    listeners = bind(host, 0, "")
    assert not any(listener.is_private for listener in listeners)
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("host", "message", "may_pass"),
    [
        ("a..b", "host: 'a..b' is no address", False),
        ("192.0.2.1", "192.0.2.1 is no address of this machine", True),
    ],
)
def test_an_address_that_is_not_ours(host: str, message: str, may_pass: bool) -> None:
    """One that is not there yet, at boot, is tried again by systemd: exit code 1, not 2."""
    with pytest.raises(ConfigError, match=message) as caught:
        bind(host, 0, "")
    assert caught.value.may_pass is may_pass


def test_a_taken_port_names_its_setting(stack: ExitStack) -> None:
    port = listening(stack).getsockname()[1]
    with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1 is taken") as caught:
        bind("127.0.0.1", port, "metrics_")
    assert caught.value.field == "metrics_port"


def test_unix_paths(tmp_path: Path) -> None:
    path = tmp_path / "s"
    (listener,) = bind(f"unix:{path}", 0, "")
    assert listener.url == f"unix:{path}"
    assert listener.is_private
    with pytest.raises(ConfigError, match="taken"):
        bind(f"unix:{path}", 0, "")
    listener.sock.close()  # as if killed: the path stays behind
    (again,) = bind(f"unix:{path}", 0, "")
    again.close()
    again.close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ConfigError, match="not a socket"):
        bind(f"unix:{path}", 0, "")
    assert path.read_text() == "precious"
    with pytest.raises(ConfigError, match="cannot listen"):
        bind(f"unix:{tmp_path}/none/s", 0, "")
    with pytest.raises(ConfigError, match="cannot listen"):
        bind(f"unix:{tmp_path}/{'long' * 40}", 0, "")


def named(stack: ExitStack, *names: str) -> list[InheritedSocket]:
    return [InheritedSocket(name, listening(stack)) for name in names]


def test_inherited_by_name_by_order_or_not_at_all(stack: ExitStack) -> None:
    assert sort_inherited([]) == ([], [])
    metrics, http = given = named(stack, "metrics", "http")
    assert [[item.sock for item in part] for part in sort_inherited(given)] == [[http.socket], [metrics.socket]]
    first, second = given = named(stack, "nllbd.socket", "")
    assert [[item.sock for item in part] for part in sort_inherited(given)] == [[first.socket], [second.socket]]
    assert len(sort_inherited(named(stack, "http", "http"))[0]) == 2
    for unclear in (("http", ""), ("", "", "")):
        with pytest.raises(ConfigError, match="FileDescriptorName"):
            sort_inherited(named(stack, *unclear))


def test_exposure_is_judged_by_the_socket(stack: ExitStack, tmp_path: Path) -> None:
    inside = Listener.of(listening(stack))
    outside = Listener.of(listening(stack, "0.0.0.0"), is_inherited=True)
    check_exposure([inside], has_credentials=False, allow_anonymous=False)
    check_exposure([outside], has_credentials=True, allow_anonymous=False)
    check_exposure([outside], has_credentials=False, allow_anonymous=True)
    with pytest.raises(ConfigError, match=r"http://0\.0\.0\.0:.* no credentials"):
        check_exposure([inside, outside], has_credentials=False, allow_anonymous=False)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6(stack: ExitStack) -> None:
    try:
        loopback, mapped = listening(stack, "::1"), listening(stack, "::ffff:127.0.0.1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    assert Listener.of(loopback).url.startswith("http://[::1]:")
    assert Listener.of(loopback).is_private
    assert Listener.of(mapped).is_private
