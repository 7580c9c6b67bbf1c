"""Offload features of a device (what ``ethtool -k`` shows)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyroute2.ethtool import Ethtool

TX_CHECKSUM = "tx-checksum-ip-generic"
GRO = "rx-gro"
TX_VLAN = "tx-vlan-hw-insert"
TX_VLAN_STAG = "tx-vlan-stag-hw-insert"
RX_VLAN = "rx-vlan-hw-parse"
RX_VLAN_STAG = "rx-vlan-stag-hw-parse"


def get(device: str, features: Iterable[str]) -> dict[str, bool]:
    """Which of the features are on, those that the device has; raises ``OSError`` if it is gone."""
    with Ethtool() as ethtool:
        found = ethtool.get_features(device).features
        return {name: bool(found[name].enable) for name in features if name in found}


def put(device: str, wanted: Mapping[str, bool]) -> None:
    """Switch features."""
    with Ethtool() as ethtool:
        features = ethtool.get_features(device)
        for name, enable in wanted.items():
            features.features[name].enable = enable
        ethtool.set_features(device, features)
