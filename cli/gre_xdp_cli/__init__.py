"""The command ``gre-xdp``: a thin layer of click over the library."""
