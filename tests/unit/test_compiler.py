"""The compiler's child process: what it needs, what it says without it, and what it answers."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gre_xdp import compiler, errors

needs_bcc = pytest.mark.skipif(
    importlib.util.find_spec("bcc") is None, reason="python3-bpfcc is not installed"
)
needs_headers = pytest.mark.skipif(
    not Path("/usr/include/linux/ip.h").is_file(), reason="linux-libc-dev is not installed"
)

# A BCC that compiles everything to one instruction, and is as noisy as the real one.
NOISY_BCC = """\
import os, sys
__version__ = "9.9.9"
class BPF:
    def __init__(self, text, cflags):
        os.write(1, b"noise on descriptor 1\\n")
        print("noise on stdout")
        sys.stdout.flush()
    def dump_func(self, name):
        return b"\\x95" + bytes(7)
"""

FakeBcc = Callable[[str], Path]


@pytest.fixture
def fake_bcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBcc:
    """Put a package with this source where the child finds it before the real one."""

    def put(source: str) -> Path:
        package = tmp_path / "packages" / "bcc"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(source)
        monkeypatch.setenv("PYTHONPATH", str(package.parent), prepend=os.pathsep)
        return package

    return put


# --- BCC is missing, or is not BCC ----------------------------------------------------------------

# What `import bcc` meets, and what the message has to quote of it.
NO_BCC = {
    "not installed": (
        "raise ModuleNotFoundError(\"No module named 'bcc'\")",
        "No module named 'bcc'",
    ),
    "of another Python": (
        "from bcc.nowhere import BPF",
        "bcc.nowhere",
    ),
    "an import error without words": ("raise ImportError", ""),
    "PyPI's program of that name": ('__version__ = "0.1"', "is not the BPF Compiler Collection"),
    "its library is missing": (
        'import ctypes\nctypes.CDLL("libbcc-absent.so.0")',
        "libbcc-absent.so.0",
    ),
}


@pytest.mark.parametrize(("source", "words"), NO_BCC.values(), ids=NO_BCC)
def test_without_bcc_the_error_names_interpreter_package_and_trap(
    fake_bcc: FakeBcc, source: str, words: str
) -> None:
    """The distribution's package is what is needed; PyPI has another one of that name."""
    fake_bcc(source)
    with pytest.raises(errors.PackageError) as caught:
        compiler.compile_programs()
    assert sys.executable in caught.value.message
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    for word in ("python3-bpfcc", "python3-bcc", "PyPI", "--system-site-packages"):
        assert word in caught.value.remedy


def test_without_headers_the_error_names_their_package(fake_bcc: FakeBcc) -> None:
    """They are the one thing beside BCC that has to be installed."""
    # The child's own module is its __main__: this makes it look where no headers are.
    fake_bcc(
        "import pathlib, sys\n"
        'sys.modules["__main__"]._UAPI_ROOT = pathlib.Path("/nonexistent")\n'
        "class BPF: pass\n"
    )
    with pytest.raises(errors.PackageError, match=r"linux/ip\.h") as caught:
        compiler.compile_programs()
    assert "linux-libc-dev" in caught.value.remedy


def test_the_current_directory_is_no_place_for_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run by root in somebody's directory, nothing of it is executed."""
    marker = tmp_path / "executed"
    (tmp_path / "bcc.py").write_text(f"open({str(marker)!r}, 'w')\nraise ImportError('trap')\n")
    monkeypatch.chdir(tmp_path)
    # Without the real BCC it is an error, but not this one's.
    with contextlib.suppress(errors.PackageError):
        compiler.compile_programs(source="")
    assert not marker.exists()


# --- the child fails ------------------------------------------------------------------------------


@needs_bcc
@needs_headers
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("this is not C", ["error:", "this is not C"]),
        ("int f(void) { return undeclared_word; }", ["undeclared_word"]),
        ('#include "absent.h"\n', ["absent.h", "file not found"]),
        ('_Static_assert(1 == 2, "one is not two");', ["one is not two"]),
    ],
    ids=["no C", "undeclared", "no such header", "false assertion"],
)
def test_broken_c_is_reported_in_the_compilers_words(source: str, words: list[str]) -> None:
    """Which is what a bug report needs."""
    with pytest.raises(errors.KernelError) as caught:
        compiler.compile_programs(source=source)
    assert [word for word in words if word not in caught.value.message] == []
    assert "0.26" in caught.value.remedy


@needs_headers
def test_an_abort_of_the_compiler_is_an_error_and_no_more(fake_bcc: FakeBcc) -> None:
    """LLVM ends the process on what it cannot translate: the child's, with its last words."""
    fake_bcc(
        "import os, resource\n"
        "class BPF:\n"
        "    def __init__(self, text, cflags):\n"
        "        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        '        os.write(2, b"LLVM ERROR: Cannot select\\n")\n'
        "        os.abort()\n"
    )
    with pytest.raises(errors.KernelError, match="LLVM ERROR: Cannot select"):
        compiler.compile_programs()


@needs_headers
def test_words_on_stdout_before_a_failure_are_not_lost(fake_bcc: FakeBcc) -> None:
    """BCC prints diagnostics there; they are part of the message."""
    fake_bcc(
        "class BPF:\n"
        "    def __init__(self, text, cflags):\n"
        '        print("diagnostics on stdout", flush=True)\n'
        '        raise Exception("Failed to compile BPF module")\n'
    )
    with pytest.raises(errors.KernelError) as caught:
        compiler.compile_programs()
    assert "diagnostics on stdout" in caught.value.message
    assert "Failed to compile BPF module" in caught.value.message


@needs_headers
def test_a_compiler_that_hangs_is_an_error(
    fake_bcc: FakeBcc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time limit there is a message for the user, not a traceback."""
    fake_bcc(
        "import signal\nclass BPF:\n    def __init__(self, text, cflags):\n        signal.pause()\n"
    )
    monkeypatch.setattr(compiler, "COMPILE_TIMEOUT_S", 0.5)
    with pytest.raises(errors.GreXdpError):
        compiler.compile_programs()


# --- its answer -----------------------------------------------------------------------------------


def child(request: dict[str, object]) -> subprocess.CompletedProcess[str]:
    """The child's own outputs, which ``compile_programs`` does not hand on."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "gre_xdp.compiler"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_headers
def test_only_the_answer_is_on_stdout(fake_bcc: FakeBcc) -> None:
    """What BCC writes there goes to stderr."""
    fake_bcc(NOISY_BCC)
    answer = child({"flags": [], "source": None})
    assert answer.returncode == 0
    found = json.loads(answer.stdout)
    assert set(found) == {"programs", "bcc_version"}
    assert set(found["programs"]) == set(compiler.PROGRAMS)
    assert all(len(base64.b64decode(code)) == 8 for code in found["programs"].values())
    assert "noise on descriptor 1" in answer.stderr
    assert "noise on stdout" in answer.stderr


@needs_headers
def test_noise_does_not_reach_the_caller(
    fake_bcc: FakeBcc, capfd: pytest.CaptureFixture[str]
) -> None:
    """Instructions and version come back, and both outputs of the caller stay clean."""
    fake_bcc(NOISY_BCC)
    found = compiler.compile_programs()
    assert found.programs == dict.fromkeys(compiler.PROGRAMS, b"\x95" + bytes(7))
    assert found.bcc_version == "9.9.9"
    assert capfd.readouterr() == ("", "")


@needs_bcc
@needs_headers
def test_a_warning_of_the_real_compiler_is_not_on_stdout() -> None:
    """The answer stays JSON, and whoever looks finds the warning on stderr."""
    answer = child({"flags": [], "source": "#warning be warned\n"})
    assert answer.returncode == 0
    assert json.loads(answer.stdout)["programs"] == {}
    assert "be warned" in answer.stderr


def test_a_failing_child_answers_nothing(fake_bcc: FakeBcc) -> None:
    """Half an answer could be taken for one."""
    fake_bcc("raise ImportError('nothing here')")
    answer = child({"flags": [], "source": None})
    assert answer.returncode != 0
    assert answer.stdout == ""
    assert "nothing here" in answer.stderr


# --- sources and version --------------------------------------------------------------------------


def test_the_sources_are_found_beside_or_inside_the_package() -> None:
    """An editable install has them beside, a wheel inside."""
    assert (compiler.source_dir() / compiler.MAIN_SOURCE).is_file()


def test_a_package_without_sources_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It was installed in a way that lost them."""
    monkeypatch.setattr(compiler, "__file__", str(tmp_path / "gre_xdp" / "compiler.py"))
    with pytest.raises(errors.PackageError, match=compiler.MAIN_SOURCE) as caught:
        compiler.source_dir()
    assert "reinstall" in caught.value.remedy


@pytest.fixture
def fresh_version() -> Iterator[None]:
    """Forget the version that was found, before and after."""
    compiler.bcc_version.cache_clear()
    yield
    compiler.bcc_version.cache_clear()


VERSIONS = {
    "double quotes": ('__version__ = "0.26.0"\n', "0.26.0"),
    "single quotes": ("__version__ = '0.31.0+git'\n", "0.31.0+git"),
    "no version": ("", None),
    "no file": (None, None),
}


@pytest.mark.usefixtures("fresh_version")
@pytest.mark.parametrize(("text", "version"), VERSIONS.values(), ids=VERSIONS)
def test_the_version_is_read_without_importing(
    fake_bcc: FakeBcc, monkeypatch: pytest.MonkeyPatch, text: str | None, version: str | None
) -> None:
    """An import would cost a hundred megabytes, and fail where only metrics are wanted."""
    package = fake_bcc("raise AssertionError('imported')")
    if text is not None:
        (package / "version.py").write_text(text)
    monkeypatch.syspath_prepend(str(package.parent))
    assert compiler.bcc_version() == version
    assert "bcc" not in sys.modules
