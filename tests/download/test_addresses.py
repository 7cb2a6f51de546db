"""Which addresses are public."""

import ipaddress

import pytest

from curate.download.addresses import refusal

REFUSED = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
    "private": [
        "10.0.0.1", "172.16.5.4", "192.168.1.1", "fd00:ec2::254", "::ffff:10.0.0.1", "2002:a00:1::", "::10.0.0.1",
        "100.64.0.1", "100.100.100.200", "198.18.0.1", "2001:0:a00:1::",
    ],
    "site-local": ["fec0::1", "feff::1"],
    "link-local": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "multicast": ["224.0.0.1", "ff02::1"],
    "unspecified": ["0.0.0.0", "::"],
    "reserved": ["240.0.0.1", "255.255.255.255"],
    "a cloud's own service": ["168.63.129.16", "192.0.0.192"],
    "no address": ["example.com", "", "/tmp/socket"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, some in REFUSED.items() for one in some])
def test_refused(kind, address):
    assert refusal(address) == kind


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"]
)
def test_public(address):
    assert refusal(address) is None


def test_allowed_networks():
    allowed = (ipaddress.ip_network("127.0.0.0/8"),)
    assert refusal("127.9.9.9", allowed) is None
    assert refusal("::ffff:127.0.0.1", allowed) is None
    assert refusal("10.0.0.1", allowed) == "private"
    assert refusal("::1", allowed) == "loopback"
