"""Which addresses are public, and what becomes of hosts that have none."""

import socket

import pytest

from core import addresses
from core.addresses import addresses_of, is_public
from core.errors import ImageError, StorageError
from core.verdicts import Status


@pytest.fixture(autouse=True)
def _nothing_looked_up() -> None:
    addresses._look_up.cache_clear()


def host_is(monkeypatch: pytest.MonkeyPatch, *found: str) -> list[str]:
    """Let every host have these addresses; returns the hosts that were asked for."""
    asked: list[str] = []

    def answer(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.5",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:1.1.1.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_private_local_shared_and_disguised_addresses_are_not(address: str) -> None:
    assert not is_public(address)


def test_one_private_address_among_public_ones_is_enough_to_refuse_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    host_is(monkeypatch, "1.1.1.1", "10.0.0.1")
    with pytest.raises(ImageError, match=r"10\.0\.0\.1, which is not public") as caught:
        addresses_of("mixed.test", 443, is_trusted=False)
    assert caught.value.status is Status.UNREADABLE


def test_a_trusted_host_may_have_any_address(monkeypatch: pytest.MonkeyPatch) -> None:
    host_is(monkeypatch, "10.0.0.1", "fd00::1")
    assert addresses_of("images.test", 443, is_trusted=True) == ("10.0.0.1", "fd00::1")


def test_few_of_many_addresses_are_tried_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    host_is(monkeypatch, "1.1.1.1", "1.1.1.1", *(f"1.1.1.{last}" for last in range(2, 100)))
    assert addresses_of("many.test", 443, is_trusted=False) == ("1.1.1.1", "1.1.1.2", "1.1.1.3")


def test_a_host_is_not_looked_up_for_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    asked = host_is(monkeypatch, "1.1.1.1")
    for _ in range(10):
        addresses_of("images.test", 443, is_trusted=False)
    assert asked == ["images.test"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), ImageError),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), StorageError),
        (UnicodeError("label empty or too long"), ImageError),
    ],
    ids=["no such host", "no answer", "no name"],
)
def test_a_host_that_cannot_be_looked_up_has_a_named_failure(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(kind, match="host"):
        addresses_of("gone.test", 443, is_trusted=False)
