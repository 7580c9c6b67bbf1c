"""What the data path's tests share: root and BPF, or a reason for the skip; and one compile."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests, and the commands that they start, remember what was applied in a place of their own: this
# has to be known before anything of the project is read.
STATE = tempfile.mkdtemp(prefix="gre-xdp-state-")
os.environ["STATE_DIRECTORY"] = STATE

from gre_xdp import abi, bpf, compiler, errors  # noqa: E402 - see above

HERE = Path(__file__).parent
NEED_BPF = tuple(
    HERE / name for name in ("program", "netns", "interop", "linux61", "service", "fuzz")
)


def pytest_unconfigure() -> None:
    """Forget what tests have had remembered."""
    shutil.rmtree(STATE, ignore_errors=True)


def what_is_missing() -> str | None:
    """Why no program can be loaded here; None if one can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces and BPF"
    try:
        os.close(bpf.map_create(abi.MAPS[abi.MapIndex.SETTINGS]))
    except (OSError, errors.GreXdpError) as error:
        return f"needs bpf(2), which is refused here ({error})"
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many odd frames and configuration files are tried, and which; what is written down."""
    parser.addoption("--frames", type=int, default=40_000, help="odd frames to run (%(default)s)")
    parser.addoption("--files", type=int, default=30_000, help="odd files to read (%(default)s)")
    parser.addoption("--seed", type=int, help="have the odd ones of an earlier run again")
    parser.addoption(
        "--write-reliability", action="store_true", help="write docs/reliability.md's table"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the data path's tests, with the reason, where they cannot run."""
    reason = what_is_missing()
    if reason is None:
        return
    for item in items:
        if any(folder in item.path.parents for folder in NEED_BPF):
            item.add_marker(pytest.mark.skip(reason=reason))


_compile_once = functools.cache(compiler.compile_programs)


@pytest.fixture(scope="module", autouse=True)
def _one_compile(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compile in the first module only: the sources do not change while the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        if any(folder in request.path.parents for folder in NEED_BPF):
            patch.setattr(compiler, "compile_programs", _compile_once)
        yield
