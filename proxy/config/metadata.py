"""Addresses at which clouds hand out credentials to whoever asks: no upstream, unless it is allowed to be.

Source: RFC 3927 and RFC 4291 §2.5.6 (link-local); RFC 6052 §2.1 (NAT64); the clouds' own documentation (AWS, Azure,
Alibaba, Oracle; Google's is link-local, by a name).
"""

import ipaddress

METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog"})
_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_metadata_address(host: str) -> bool:
    """Whether a host, as it stands in a URL or as a name was resolved, is such an address; other names are not."""
    name = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return name in METADATA_NAMES
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        else:
            address = address.ipv4_mapped or address.sixtofour or address
    return any(address in network for network in _NETWORKS)
