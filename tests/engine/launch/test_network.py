"""Addresses and interfaces of this machine."""

import socket
from types import SimpleNamespace

import psutil
import pytest

from common.errors import UserError
from engine.launch.network import Endpoint, find_route


def test_loopback_is_this_machine_and_its_interface() -> None:
    route = find_route(Endpoint("127.0.0.1", 29500))
    assert route.hosts
    assert route.address == "127.0.0.1"
    assert route.interface in psutil.net_if_addrs()


def test_host_that_calls_itself_by_loopback_is_told_to_others_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.1.1", 29500))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)
    cards = {"lo": "127.0.0.1", "ib0": "10.1.2.3"}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {name: [SimpleNamespace(address=value)] for name, value in cards.items()})
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: SimpleNamespace(isup=True) for name in cards})
    route = find_route(Endpoint("node001", 29500))
    assert (route.hosts, route.address, route.interface) == (True, "node001", "ib0")


def test_host_that_is_unknown_is_named() -> None:
    with pytest.raises(UserError, match=r"--rdzv no-such-host\.invalid:29500: this machine cannot reach no-such-host\.invalid"):
        find_route(Endpoint("no-such-host.invalid", 29500))
