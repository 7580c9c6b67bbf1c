"""The documents say what the code does: every command, metric, reason and key is in them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from gre_xdp import config
from gre_xdp.metrics import METRIC_NAMES
from gre_xdp_cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
GENERATED = runpy.run_path(str(ROOT / "docs" / "generate.py"))["documents"]()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_generated_documents_are_up_to_date(path: Path) -> None:
    """``python docs/generate.py`` would change nothing."""
    assert path.read_text() == GENERATED[path]


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """docs/metrics.md lists exactly what the collector yields."""
    rows = re.findall(r"^\| `(gre_xdp_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M)
    assert sorted(rows) == sorted(METRIC_NAMES)


def commands() -> list[str]:
    return sorted(cli.commands)


@pytest.mark.parametrize("command", commands())
def test_every_command_is_in_the_readme(command: str) -> None:
    """Somebody who reads the README knows all commands."""
    assert f"`gre-xdp {command}`" in README


def test_the_readme_names_no_command_that_is_not_there() -> None:
    """And none that are not there."""
    named = set(re.findall(r"gre-xdp ([a-z]+)", README)) - {"does", "with", "show"}
    assert named <= set(commands())


def test_the_readme_configuration_is_valid() -> None:
    """The example can be copied."""
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.S)
    parsed = config.parse(example, "README.md")
    assert [tunnel.name for tunnel in parsed.tunnels] == ["ams1"]


@pytest.mark.parametrize("path", sorted((ROOT / "contrib").glob("*.toml")), ids=lambda p: p.name)
def test_examples_are_valid(path: Path) -> None:
    """Every example passes ``gre-xdp check``."""
    assert config.load(path).tunnels


def test_links_lead_somewhere() -> None:
    """Relative links in the documents have targets."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("path", sorted((ROOT / "gre_xdp").glob("*.py")), ids=lambda p: p.stem)
def test_every_file_of_the_library_is_in_the_architecture(path: Path) -> None:
    """ARCHITECTURE.md says which file to open."""
    if path.stem not in ("__init__", "errors", "sysctl", "owners", "toml_lines"):
        assert f"`{path.stem}`" in (ROOT / "ARCHITECTURE.md").read_text() or (
            f"`{path.name}`" in (ROOT / "ARCHITECTURE.md").read_text()
        )


def test_the_example_of_sizes_is_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers in docs/mtu.md are those of ``gre-xdp mtu``, to the blank."""
    (shown,) = re.findall(
        r"```console\n\$ gre-xdp mtu\n(.*?)```", (ROOT / "docs" / "mtu.md").read_text(), re.S
    )
    with pytest.raises(SystemExit) as end:
        cli.main(["mtu"])
    assert end.value.code == 0
    assert capsys.readouterr().out == shown
