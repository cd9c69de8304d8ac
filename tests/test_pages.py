"""What pages tell readers to type is what the program does itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from hugeprobe import arms, profiles, workloads
from hugeprobe.cli import app

ROOT = Path(__file__).parents[1]
ARTICLE = ROOT / "docs/_upstream/transparent-huge-pages-on-linux.rst"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ARTICLE]
COMMAND = re.compile(
    r"^(?:\$|>)\s+(?:cd \S+ && )?(?:python -m )?hugeprobe (\w+)(.*)$", re.MULTILINE
)


def texts() -> dict[str, str]:
    """Return what pages say, with lines joined that a shell joins."""
    found = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    return {page: re.sub(r"\\\n *", "", text) for page, text in found.items()}


def test_settings_on_pages_are_those_of_the_profiles() -> None:
    known = {profile.env.get("GLIBC_TUNABLES") for profile in profiles.PROFILES}
    found = {
        (page, value)
        for page, text in texts().items()
        for value in re.findall(r"GLIBC_TUNABLES=\"?([\w.:=]+)", text)
    }
    assert {value for _, value in found} >= known - {None}
    assert not {(page, value) for page, value in found if value not in known}


def test_commands_on_pages_exist_with_their_options() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    calls = [(page, *call) for page, text in texts().items() for call in COMMAND.findall(text)]
    assert len(calls) > 8
    for page, name, rest in calls:
        assert name in commands, f"{page}: hugeprobe {name}"
        known = {opt for each in commands[name].params for opt in each.opts + each.secondary_opts}
        own = rest.split("#")[0].split(" -- ")[0]
        unknown = set(re.findall(r"(?<!\S)--[\w-]+", own)) - known
        assert not unknown, f"{page}: hugeprobe {name}{rest}"


@pytest.mark.parametrize(
    ("option", "known"), [("--arm", arms.ARMS), ("--workload", workloads.WORKLOADS)]
)
def test_names_on_pages_exist(option: str, known: dict[str, object]) -> None:
    for page, text in texts().items():
        for name in re.findall(rf"{option} ([\w-]+)(?!\S)", text):
            assert name in known, f"{page}: {option} {name}"
