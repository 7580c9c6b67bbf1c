"""Compiling once is enough for the tests of this folder, too."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from gre_xdp import compiler

_compile_once = functools.cache(compiler.compile_programs)


@pytest.fixture(scope="module", autouse=True)
def _one_compile() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compile_programs", _compile_once)
        yield
