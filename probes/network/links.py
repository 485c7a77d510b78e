"""Interfaces and their addresses, asked from the kernel by netlink in getifaddrs order."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Union

Address = Union[IPv4Address, IPv6Address]  # noqa: UP007 - nodes may have Python 3.9

GETLINK, GETADDR, DONE, ERROR = 18, 22, 3, 2
UP, LOOPBACK, RUNNING = 0x1, 0x8, 0x40
LINK_NAME, LINK_MTU, LINK_INFO, INFO_KIND = 3, 4, 18, 1
ADDR_ADDRESS, ADDR_LOCAL = 1, 2

# Names that container engines, VPNs and hypervisors give to what they make.
VIRTUAL_NAMES = (
    "docker", "br-", "virbr", "veth", "cni", "flannel", "cali", "cilium", "lxc", "lxdbr", "podman",
    "tun", "tap", "wg", "tailscale", "zt", "vmnet", "vboxnet", "kube-ipvs", "dummy", "nodelocaldns",
)  # fmt: skip
VIRTUAL_KINDS = {
    "bridge", "tun", "wireguard", "dummy", "vxlan", "geneve", "gre", "ipip", "sit", "vti", "ifb",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interface:
    name: str
    index: int
    flags: int
    mtu: int
    kind: str = ""
    """What made it (veth, bridge, tun, ...); empty for hardware."""
    addresses: tuple[Address, ...] = ()

    @property
    def up(self) -> bool:
        return bool(self.flags & UP)

    @property
    def running(self) -> bool:
        return bool(self.flags & RUNNING)

    @property
    def loopback(self) -> bool:
        return bool(self.flags & LOOPBACK)

    @property
    def virtual(self) -> bool:
        """Whether others can hardly reach it; a veth alone is how a container is reached."""
        return self.kind in VIRTUAL_KINDS or self.name.startswith(VIRTUAL_NAMES)

    @property
    def usable(self) -> tuple[Address, ...]:
        """Addresses that another host may be told: no loopback and no link-local ones."""
        return tuple(a for a in self.addresses if not (a.is_loopback or a.is_link_local))


def interfaces() -> tuple[Interface, ...]:
    """All interfaces of this network namespace; raises OSError where netlink is not for us."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as netlink:
        netlink.settimeout(2.0)
        netlink.bind((0, 0))
        found = {}
        for body in _dump(netlink, GETLINK):
            _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
            attributes = dict(_attributes(body[16:]))
            info = dict(_attributes(attributes.get(LINK_INFO, b"")))
            found[index] = Interface(
                os.fsdecode(attributes.get(LINK_NAME, b"").rstrip(b"\0")),
                index,
                flags,
                int.from_bytes(attributes.get(LINK_MTU, b"")[:4], "little"),
                os.fsdecode(info.get(INFO_KIND, b"").rstrip(b"\0")),
            )
        for body in _dump(netlink, GETADDR):
            _, _, _, _, index = struct.unpack_from("=BBBBI", body)
            attributes = dict(_attributes(body[8:]))
            raw = attributes.get(ADDR_LOCAL) or attributes.get(ADDR_ADDRESS)
            if raw and index in found:
                link = found[index]
                found[index] = replace(link, addresses=(*link.addresses, ip_address(raw)))
    return tuple(found.values())


def _dump(netlink: socket.socket, what: int) -> Iterator[bytes]:
    netlink.send(struct.pack("=IHHIIBxxx", 20, what, 0x301, what, 0, socket.AF_UNSPEC))
    while True:
        packet = netlink.recv(1 << 18)
        while len(packet) >= 16:
            length, kind = struct.unpack_from("=IH", packet)
            if kind == DONE:
                return
            if kind == ERROR:
                code = -struct.unpack_from("=i", packet, 16)[0]
                raise OSError(code, os.strerror(code))
            yield packet[16:length]
            packet = packet[(length + 3) & ~3 :]


def _attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while len(raw) >= 4:
        length, kind = struct.unpack_from("=HH", raw)
        if length < 4:
            return
        yield kind & 0x3FFF, raw[4:length]
        raw = raw[(length + 3) & ~3 :]


def plain(address: str) -> Address | None:
    """The address a text is, without a scope and with mapped IPv4 undone; None for a name."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def is_ours(address: Address) -> bool:
    """Whether this host has the address: the same test by bind() that gloo makes."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((str(address), 0))
    except OSError as error:
        # Where no port is left the address may still be ours.
        return error.errno == errno.EADDRINUSE
    return not address.is_unspecified


def way_to(address: Address) -> Address | None:
    """The own address from which packets to `address` would leave; nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trial:
            trial.connect((str(address), 9))
            return plain(trial.getsockname()[0])
    except OSError:
        return None
