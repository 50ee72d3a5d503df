"""Where nodes meet, and which of this machine's addresses and interfaces leads there."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address

import psutil

from common.errors import UserError


@dataclass(frozen=True)
class Endpoint:
    """HOST:PORT on one of the nodes."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Route:
    """How this machine reaches an endpoint, and is reached by the other nodes."""

    hosts: bool
    """True where the endpoint is this machine itself."""
    address: str
    """A name or address under which other nodes reach this machine."""
    interface: str | None
    """The network interface of that address, where it can be told."""


def parse_endpoint(text: str) -> Endpoint:
    """Read HOST:PORT, or [IPv6]:PORT.

    Raises:
        UserError: naming what is wrong with it.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host:
        raise UserError(f"--rdzv {text}: must be HOST:PORT, such as node001:29500.")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"--rdzv {text}: the port must be a number from 1 to 65535, not {port or 'nothing'}.")
    return Endpoint(host, int(port))


def find_route(endpoint: Endpoint) -> Route:
    """Look up an endpoint.

    Raises:
        UserError: the host has no address, or this machine has no way there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)  # of a datagram socket: picks the route and sends nothing
            mine = probe.getsockname()[0]
    except OSError as error:
        raise UserError(f"--rdzv {endpoint}: this machine cannot reach {endpoint.host}: {error.strerror or error}.") from error
    hosts = _is_mine(family, str(address[0]))
    # the others know the host by the name they were given; /etc/hosts may call it 127.0.1.1 on the host itself
    return Route(hosts, endpoint.host if hosts else mine, _interface(endpoint.host, mine))


def interface_settings(route: Route | None) -> dict[str, str]:
    """Environment by which gloo and NCCL take the interface of a route."""
    if route is None or route.interface is None:
        return {}
    return {"GLOO_SOCKET_IFNAME": route.interface, "NCCL_SOCKET_IFNAME": f"={route.interface}"}  # NCCL takes names as beginnings otherwise


def _is_mine(family: int, address: str) -> bool:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
        return True


def _interface(host: str, address: str) -> str | None:
    found = {card.address.partition("%")[0]: name for name, cards in psutil.net_if_addrs().items() for card in cards}
    if not ip_address(address.partition("%")[0]).is_loopback or _is_loopback(host):
        return found.get(address.partition("%")[0])
    others = {name for name, card in psutil.net_if_stats().items() if card.isup} & {
        name for known, name in found.items() if _is_address(known) and not ip_address(known).is_loopback
    }
    return others.pop() if len(others) == 1 else None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
