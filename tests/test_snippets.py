"""Every command and every file on every page: that it is what it says it is, and works as text.

A block in a language that nothing here can check fails. Files are told by their caption, which is
the path that they belong to.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml
from snippets import ROOT, Block, all_blocks, blocks_of, commands, pages

from hugeprobe.errors import NotObservable
from hugeprobe.kernels import deployment, symbols

if TYPE_CHECKING:
    from collections.abc import Callable

KUBERNETES: Any = importlib.import_module("kubernetes_validate")
BLOCKS = all_blocks()
TREES = Path(__file__).parent / "trees"

# Which check is for which block -------------------------------------------------------------------


LANGUAGES: Final = {
    "console": "terminal",
    "sh": "shell",
    "bash": "shell",
    "python": "python",
    "c": "c",
    "yaml": "manifest",
    "dockerfile": "image",
}
PLACES: Final = {
    r"kernel command line": "parameters",
    r"[\w-]+\.config": "fragment",
    r"/etc/tmpfiles\.d/[\w-]+\.conf": "tmpfiles",
    r"/etc/default/grub\.d/[\w-]+\.cfg": "shell",
    r"/etc/systemd/system/[\w@-]+\.service(\.d/[\w-]+\.conf)?": "unit",
}


def kind(block: Block) -> str:
    """Return what a block is, from its language or from where its caption says it belongs."""
    if block.language in LANGUAGES:
        return LANGUAGES[block.language]
    found = (each for place, each in PLACES.items() if re.fullmatch(place, block.caption))
    return next(found, "")


def of(wanted: str) -> list[Any]:
    """Return the blocks of one kind, each with a name for its test."""
    return [pytest.param(block, id=str(block)) for block in BLOCKS if kind(block) == wanted]


def test_every_block_has_a_check() -> None:
    unknown = [
        f"{block}: {block.language or 'no language'}, caption {block.caption or 'missing'}"
        for block in BLOCKS
        if kind(block) not in CHECKS
    ]
    assert not unknown, "\n".join(unknown)


def test_pages_are_found_with_their_blocks() -> None:
    assert len(pages()) > 12
    assert {"terminal", "python", "manifest", "unit", "tmpfiles", "fragment"} <= {
        kind(block) for block in BLOCKS
    }


# Programs -----------------------------------------------------------------------------------------


def parses(script: str) -> str:
    """Return what bash has against a script, nothing if it can be parsed."""
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    return done.stderr or ("" if done.returncode == 0 else f"status {done.returncode}")


def check_terminal(block: Block) -> None:
    typed = commands(block.code)
    assert typed, "there is nothing to type after a prompt"
    assert not parses(typed)


def check_shell(block: Block) -> None:
    assert not parses(block.code)


def check_python(block: Block) -> None:
    ast.parse(block.code)


def check_c(block: Block) -> None:
    """The compiler reads a whole program; of a part, brackets match."""
    compiler = shutil.which("cc")
    if "#include" in block.code and compiler:
        command = (compiler, "-fsyntax-only", "-x", "c", "-")
        done = subprocess.run(
            command, input=block.code, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    for opening, closing in ("()", "{}", "[]"):
        assert block.code.count(opening) == block.code.count(closing)


# Files of the host --------------------------------------------------------------------------------

TMPFILES_LINE = re.compile(r"w (/\S+) - - - - (\S+)")


def tmpfiles(block: Block) -> dict[str, str]:
    """Return what the lines of a file for systemd-tmpfiles write, by file."""
    lines = [line for line in block.code.splitlines() if line and not line.startswith("#")]
    found = [TMPFILES_LINE.fullmatch(re.sub(r"\s+", " ", line)) for line in lines]
    assert all(found), f"not of the form that this page uses: {lines}"
    return {match[1]: match[2] for match in found if match}


def check_tmpfiles(block: Block) -> None:
    """Each line writes a word that the file takes."""
    for path, word in tmpfiles(block).items():
        assert known(path), f"no recorded kernel has {path}"
        assert word in choices(path), f"{path} takes one of {choices(path)}, not {word}"


UNIT_KEYS: Final = {"Unit", "Service", "Install"}


def check_unit(block: Block) -> None:
    """Sections and keys as far as they can be told without systemd, and by systemd where it is."""
    section = ""
    for line in block.code.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
            assert section in UNIT_KEYS, f"a unit of a service has no section {section}"
        elif line and not line.startswith(("#", ";")):
            assert section, "a setting before the first section"
            assert re.fullmatch(r"[A-Z][A-Za-z]+=.*", line), f"not a setting: {line}"


def check_parameters(block: Block) -> None:
    for word in block.code.split():
        name = word.partition("=")[0]
        assert name in PARAMETERS, f"{name} is not among the parameters with a known source"


def check_fragment(block: Block) -> None:
    for line in block.code.splitlines():
        if line and not line.startswith("# ") and line != "#":
            assert re.fullmatch(r"CONFIG_[A-Z0-9_]+=(y|m|\d+|\"[^\"]*\")", line), line


# Files of containers and clusters -----------------------------------------------------------------


def check_manifest(block: Block) -> None:
    documents = list(yaml.safe_load_all(block.code))
    assert documents
    for document in documents:
        assert "kind" in document, "YAML that is no manifest needs a check of its own"
        KUBERNETES.validate(document, KUBERNETES.latest_version(), strict=True)
        for script in scripts(document):
            assert not parses(script)


def scripts(value: object) -> list[str]:
    """Return the shell scripts in a manifest: what follows ``sh -c``."""
    if isinstance(value, dict):
        return [each for part in value.values() for each in scripts(part)]
    if isinstance(value, list):
        if len(value) > 2 and value[0] in ("sh", "/bin/sh", "bash") and "c" in str(value[1]):
            return [str(value[2])]
        return [each for part in value for each in scripts(part)]
    return []


INSTRUCTIONS: Final = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK"),
        *("LABEL", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
"""https://docs.docker.com/reference/dockerfile/ without the deprecated ones."""


def check_image(block: Block) -> None:
    joined = re.sub(r"\\\n", " ", block.code)
    lines = [line.split(maxsplit=1) for line in joined.splitlines() if line[:1] not in ("", "#")]
    assert lines[0][0] in ("FROM", "ARG")
    for name, rest in lines:
        assert name in INSTRUCTIONS, f"{name} is no instruction"
        if rest.startswith("["):
            assert all(isinstance(word, str) for word in json.loads(rest))
        elif name in ("RUN", "CMD"):
            assert not parses(rest)
        if name == "ENV":
            assert re.fullmatch(r"\w+=\S+", rest), rest


CHECKS: Final[dict[str, Callable[[Block], None]]] = {
    "terminal": check_terminal,
    "shell": check_shell,
    "python": check_python,
    "c": check_c,
    "tmpfiles": check_tmpfiles,
    "unit": check_unit,
    "parameters": check_parameters,
    "fragment": check_fragment,
    "manifest": check_manifest,
    "image": check_image,
}


@pytest.mark.parametrize("block", [pytest.param(each, id=str(each)) for each in BLOCKS])
def test_a_block_is_what_it_says(block: Block) -> None:
    CHECKS[kind(block)](block)


# Names in the text --------------------------------------------------------------------------------

PARAMETERS: Final = frozenset(
    (
        # Documentation/admin-guide/kernel-parameters.txt of Linux 6.12 and newer
        *("transparent_hugepage", "thp_anon", "thp_shmem", "numa_balancing"),
        *("transparent_hugepage_shmem", "transparent_hugepage_tmpfs"),
        *("hugepages", "hugepagesz", "default_hugepagesz", "hugetlb_free_vmemmap"),
    )
)

PATH = re.compile(r"(?<![\w.:/])/(?:sys|proc)/[\w./<>*-]+[\w*>]")
CHOICES = re.compile(r"\[?([a-z+_]+)\]?")


def recorded() -> set[str]:
    """Return every path of every recorded tree, and the folders above."""
    paths = set[str]()
    for tree in TREES.glob("linux-*.txt"):
        for path in re.findall(r"^==> (\S+) <==$", tree.read_text(), re.MULTILINE):
            paths |= {f"/{path}", *(f"/{parent}" for parent in Path(path).parents)}
    record = deployment.read()
    assert not isinstance(record, NotObservable)
    folder = "/sys/kernel/mm/transparent_hugepage"
    paths |= {f"{folder}/{name}" for guest in record.guests for name in guest.booted}
    return paths


RECORDED = recorded()


DOCUMENTED: Final = frozenset(
    (
        # Documentation/filesystems/proc.rst
        *("/proc/self/maps", "/proc/self/smaps", "/proc/self/smaps_rollup", "/proc/self/numa_maps"),
        *("/proc/self/pagemap", "/proc/vmstat", "/proc/mounts", "/proc/buddyinfo"),
        # Documentation/admin-guide/sysctl
        *("/proc/sys/vm/nr_hugepages", "/proc/sys/vm/compact_memory"),
        *("/proc/sys/vm/drop_caches", "/proc/sys/kernel/numa_balancing"),
    )
)
"""What recorded trees leave out, because this package does not read it there."""


def known(path: str) -> bool:
    """Return whether a recorded kernel has a file, or the kernel's documentation names it."""
    pattern = re.sub(r"<\w+>", "*", path).replace("/PID", "/self")
    return pattern in DOCUMENTED or bool(fnmatch.filter(RECORDED, pattern))


def choices(path: str) -> set[str]:
    """Return the words that a recorded file offers."""
    offered = set[str]()
    for tree in TREES.glob("linux-*.txt"):
        text = tree.read_text()
        found = re.search(rf"^==> {re.escape(path[1:])} <==\n(.*)$", text, re.MULTILINE)
        offered |= set(CHOICES.findall(found[1])) if found else set()
    return offered


def texts() -> list[Any]:
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages()]


@pytest.mark.parametrize("page", texts())
def test_files_that_a_page_names_exist_in_a_kernel(page: Path) -> None:
    named = set(PATH.findall(page.read_text(encoding="utf-8")))
    assert not {path for path in named if not known(path)}


@pytest.mark.parametrize("page", texts())
def test_symbols_that_a_page_names_exist_in_a_kernel(page: Path) -> None:
    record = symbols.read()
    assert not isinstance(record, NotObservable)
    exist = {f"CONFIG_{name}" for kernel in record.kernels for name in kernel.values}
    assert set(re.findall(r"CONFIG_[A-Z0-9_]+", page.read_text(encoding="utf-8"))) <= exist


# systemd's own programs ---------------------------------------------------------------------------


def systemd(program: str) -> str:
    """Return a program of systemd, or skip where this is no host of that kind."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed; what can be told without it is checked above")
    return path


@pytest.mark.parametrize("block", of("tmpfiles"))
@pytest.mark.parametrize("kernel", ["linux-6.12-container", "linux-6.1-debian"])
def test_systemd_writes_what_the_file_says(
    block: Block, kernel: str, tree: Callable[[str], Path], tmp_path: Path
) -> None:
    """Into the tree of a recorded kernel; what an older one does not have is passed over."""
    program, root = systemd("systemd-tmpfiles"), tree(kernel)
    file = tmp_path / "page.conf"
    file.write_text(block.code)
    done = subprocess.run(
        [program, "--create", f"--root={root}", str(file)],
        text=True,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    wrote = {}
    for path, word in tmpfiles(block).items():
        target = root / path[1:]
        if target.exists():
            assert target.read_text().startswith(word)  # in place, as sysfs takes it
            wrote[path] = word
    expected = len(tmpfiles(block)) - ("6.1-" in kernel)
    assert len(wrote) == expected


@pytest.mark.parametrize("block", of("unit"))
def test_systemd_knows_every_setting_of_a_unit(block: Block, tmp_path: Path) -> None:
    """A drop-in is read with a unit that it belongs to."""
    program = systemd("systemd-analyze")
    path = block.caption.removeprefix("/etc/systemd/system/")
    service = path.partition(".d/")[0]
    if ".d/" in path:
        (tmp_path / f"{service}.d").mkdir()
        (tmp_path / service).write_text("[Service]\nExecStart=/bin/true\n")
    (tmp_path / path).write_text(block.code)
    done = verify(program, tmp_path, service)
    if "Failed to initialize manager" in done.stderr or "Failed to create" in done.stderr:
        pytest.skip("systemd-analyze does not run within this container")
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if service in line], done.stderr


def verify(program: str, folder: Path, service: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", str(folder / service)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        text=True,
        capture_output=True,
        check=False,
    )


def test_systemd_would_notice(tmp_path: Path) -> None:
    (tmp_path / "inference.service").write_text("[Service]\nExecStart=/bin/true\nHugePages=yes\n")
    done = verify(systemd("systemd-analyze"), tmp_path, "inference.service")
    assert "HugePages" in done.stderr


# What the checks refuse ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block",
    [
        "```console\n$ cat 'file\n```",
        "```console\nno prompt\n```",
        "```python\nprint(\n```",
        "```{code-block} ini\n:caption: /etc/tmpfiles.d/a.conf\n\n"
        "w /sys/kernel/mm/transparent_hugepage/enabled - - - - sometimes\n```",
        "```{code-block} ini\n:caption: /etc/tmpfiles.d/a.conf\n\n"
        "w /sys/kernel/mm/transparent_hugepage/enable - - - - never\n```",
        "```{code-block} ini\n:caption: /etc/systemd/system/a.service\n\n[Servic]\nA=b\n```",
        "```{code-block} text\n:caption: kernel command line\n\nthp_anom=64K:always\n```",
        "```{code-block} text\n:caption: a.config\n\nCONFIG_NUMA is y\n```",
        "```{code-block} yaml\n\napiVersion: apps/v1\nkind: DaemonSet\nspec: {replicas: 1}\n```",
        "```{code-block} dockerfile\n\nFROM a\nENVIRONMENT b=c\n```",
        "```{code-block} c\n\nint main(void) { return 0;\n```",
    ],
)
def test_a_block_that_is_not_so_is_refused(block: str) -> None:
    (found,) = blocks_of(block, "page.md")
    validation = getattr(KUBERNETES, "ValidationError", ValueError)
    with pytest.raises((AssertionError, SyntaxError, validation)):
        CHECKS[kind(found)](found)


@pytest.mark.parametrize(
    "block", ["```\nls\n```", "```{code-block} ini\n\na=b\n```", "```rust\nfn\n```", "    ls"]
)
def test_a_block_of_no_kind_is_noticed(block: str) -> None:
    (found,) = blocks_of(block, "page.md")
    assert kind(found) not in CHECKS


def test_names_that_no_kernel_has_are_noticed() -> None:
    assert not known("/sys/kernel/mm/transparent_hugepage/hugepages-63kB/enabled")
    assert not known("/proc/PID/smap")
    assert known("/sys/kernel/mm/transparent_hugepage/hugepages-<size>kB/enabled")
    assert known("/proc/PID/smaps")


def test_what_a_terminal_prints_is_not_typed() -> None:
    assert commands("$ a \\\n    b\nprinted\n# c\n") == "a \\\n    b\nc\n"
