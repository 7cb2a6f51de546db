"""Which addresses are public."""

import ipaddress

from curate.download.addresses import refusal

KINDS = {
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
    None: ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"],
}  # fmt: skip


def test_which_addresses_are_public():
    assert {kind: [one for one in some if refusal(one) == kind] for kind, some in KINDS.items()} == KINDS


def test_allowed_networks():
    allowed = (ipaddress.ip_network("127.0.0.0/8"),)
    addresses = ("127.9.9.9", "::ffff:127.0.0.1", "10.0.0.1", "::1")
    assert [refusal(one, allowed) for one in addresses] == [None, None, "private", "loopback"]
