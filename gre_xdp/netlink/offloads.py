"""Offload features of a device (what ``ethtool -k`` shows)."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping

from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool, NoSuchDevice

TX_CHECKSUM = "tx-checksum-ip-generic"
GRO = "rx-gro"
TX_VLAN = "tx-vlan-hw-insert"
TX_VLAN_STAG = "tx-vlan-stag-hw-insert"
RX_VLAN = "rx-vlan-hw-parse"
RX_VLAN_STAG = "rx-vlan-stag-hw-parse"


def get(device: str, features: Iterable[str]) -> dict[str, bool]:
    """Which of the features are on, those that the device has; raises ``OSError`` if it is gone."""
    with _ethtool(device) as ethtool:
        found = ethtool.get_features()
        return {name: bool(found.get_value(name)) for name in features if name in found}


def put(device: str, wanted: Mapping[str, bool]) -> None:
    """Switch features; raises ``OSError``, ``KeyError`` for one that the device does not have."""
    with _ethtool(device) as ethtool:
        found = ethtool.get_features()
        for name, enable in wanted.items():
            found.set_value(name, enable)
        ethtool.set_features(found)


@contextlib.contextmanager
def _ethtool(device: str) -> Iterator[IoctlEthtool]:
    # By ioctl: opening generic netlink costs as much as ten devices.
    ethtool = IoctlEthtool(device)
    try:
        yield ethtool
    except NoSuchDevice as error:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from error
    except EthtoolError as error:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from error
    finally:
        ethtool.close()
