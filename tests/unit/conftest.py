"""How hypothesis runs here: without a time limit per example, which a busy machine would break."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("gre-xdp", deadline=None)
settings.load_profile("gre-xdp")
