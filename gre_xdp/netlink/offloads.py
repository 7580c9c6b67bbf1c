"""Offload features of a device (what ``ethtool -k`` shows)."""

from __future__ import annotations

from pyroute2.ethtool import Ethtool

# A packet that a local socket sends carries an unfinished checksum unless this is off; XDP would
# send it on as it is.
TX_CHECKSUM = "tx-checksum-ip-generic"
# NAPI on a veth, without which frames redirected into its other end are lost.
GRO = "rx-gro"


def get(device: str, feature: str) -> bool:
    """Is the feature on? Raises ``OSError`` when the device is gone."""
    with Ethtool() as ethtool:
        return bool(ethtool.get_features(device).features[feature].enable)


def put(device: str, feature: str, *, enable: bool) -> None:
    """Switch a feature."""
    with Ethtool() as ethtool:
        features = ethtool.get_features(device)
        features.features[feature].enable = enable
        ethtool.set_features(device, features)
