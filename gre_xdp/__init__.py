"""GRE tunnels forwarded by XDP, with the kernel as control plane and slow path."""

__version__ = "0.1.0"
