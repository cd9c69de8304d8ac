"""Secrets are hidden wherever a process keeps any; then everything that publishes is searched."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from hugeprobe import hostrecord, public, recording, records

if TYPE_CHECKING:
    from collections.abc import Iterator

PARQUET = importlib.import_module("pyarrow.parquet")  # which has no types
REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = REPOSITORY / "notebooks"
SECRETS: Final = {
    name: f"xq{index:02d}{name}qx"
    for index, name in enumerate(
        ("env", "user", "home", "folder", "temp", "arg", "child", "file", "comm", "host", "mount")
    )
}
"""Text that is nowhere else, by where it is hidden; at most 15 letters, as a process's name has."""
NEEDS_A_NAMESPACE = {"host", "mount"}

SITECUSTOMIZE = f"""
import mmap, os
from pathlib import Path

_file = Path({SECRETS["file"]!r}).resolve()
_file = Path(__file__).with_name(_file.name)
_mapped = mmap.mmap(os.open(_file, os.O_RDONLY), 0, access=mmap.ACCESS_READ)
Path("/proc/self/comm").write_text({SECRETS["comm"]!r})
"""
TELL_ALL = """
import getpass, os, socket, tempfile
from pathlib import Path

print(os.environ, getpass.getuser(), Path.home(), Path.cwd(), tempfile.gettempdir())
print(socket.gethostname(), Path("/proc/self/mounts").read_text())
print(*(Path("/proc/self", name).read_text() for name in ("cmdline", "comm", "maps")))
for process in Path("/proc").glob("[0-9]*/cmdline"):
    try:
        print(process.read_text())
    except OSError:
        pass
"""


@dataclass(frozen=True)
class Surroundings:
    """Where secrets are hidden; see :func:`surroundings`."""

    env: dict[str, str]
    cwd: Path
    wrapper: tuple[str, ...]
    hidden: frozenset[str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python there, with another secret on its command line."""
        done = subprocess.run(
            [*self.wrapper, sys.executable, "-X", SECRETS["arg"], *arguments],
            env=self.env,
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    """Hide secrets in environment, names, folders, command lines, mapped files and mounts."""
    base = tmp_path_factory.mktemp("privacy")
    home, cwd, temp, mount = (base / SECRETS[name] for name in ("home", "folder", "temp", "mount"))
    code = base / "code"
    for folder in (home, cwd, temp, mount, code):
        folder.mkdir()
    (code / SECRETS["file"]).write_text("x" * 4096)
    (code / "sitecustomize.py").write_text(SITECUSTOMIZE)
    wrapper, unseen = _wrapper(mount)
    env = {
        **os.environ,
        "PLANTED": SECRETS["env"],
        "USER": SECRETS["user"],
        "LOGNAME": SECRETS["user"],
        "HOME": str(home),
        "TMPDIR": str(temp),
        "PYTHONPATH": os.pathsep.join([str(NOTEBOOKS), str(code)]),
        # Fonts are listed once for all tests, not again for a home that is new.
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(base / "matplotlib")),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    asleep = [sys.executable, "-c", "input()", SECRETS["child"]]
    with subprocess.Popen(asleep, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        yield Surroundings(env, cwd, wrapper, frozenset(SECRETS.keys() - unseen))
        child.kill()


def _wrapper(mount: Path) -> tuple[tuple[str, ...], set[str]]:
    """Return what starts a program on a host and in mounts of another name, where that may be."""
    script = (
        'echo "$0" >/proc/sys/kernel/hostname && mount -t tmpfs none "$1" && shift && exec "$@"'
    )
    for user in ((), ("--map-root-user",)) if shutil.which("unshare") else ():
        start = ("unshare", *user, "--uts", "--mount", "sh", "-c", script)
        wrapper = (*start, SECRETS["host"], str(mount))
        if not subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
            return wrapper, set()
    return (), NEEDS_A_NAMESPACE


def found_in(*published: str | Path) -> set[str]:
    """Return which secrets are in texts, or in the files of folders, whatever their form."""
    texts = [each for each in published if isinstance(each, str)]
    folders = [each for each in published if isinstance(each, Path)]
    files = [path for each in folders for path in each.rglob("*") if path.is_file()]
    assert files or not folders
    texts += [_text(path) for path in files] + [str(path.name) for path in files]
    return {
        name for name, secret in SECRETS.items() if any(secret in text.lower() for text in texts)
    }


def _text(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "objects.inv":
        content = zlib.decompress(content.split(b"\n", 4)[4])
    if path.suffix == ".parquet":
        return str(PARQUET.read_table(path).to_pylist())
    return content.decode(errors="replace")


# The test itself ----------------------------------------------------------------------------------


def test_every_secret_is_there_to_be_found(surroundings: Surroundings) -> None:
    told = surroundings.run("-c", TELL_ALL)
    assert found_in(told.stdout) == surroundings.hidden


def test_a_record_that_leaks_is_caught(tmp_path: Path) -> None:
    record = recording.measure(infer=False)
    folder = tmp_path / "records"
    folder.mkdir()
    hostrecord.save(record, folder)
    assert found_in(folder) == set()
    leaking = dataclasses.replace(record, caveat=f"no such file: /home/{SECRETS['home']}/x")
    records.write(folder / "leaking.json", leaking)
    assert found_in(folder) == {"home"}


def test_a_site_that_leaks_is_caught(surroundings: Surroundings, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text(
        "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n# Leaks\n\n"
        "```{code-cell}\nimport os\n\nos.environ['PLANTED']\n```\n"
    )
    (source / "conf.py").write_text("extensions = ['myst_nb']\n")
    site = _built(surroundings, source, tmp_path / "build")
    assert found_in(site / "html") == {"env"}


# What is published --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["host --json", "rule --json", "layout 3M*4 --json", "doctor self --json"]
)
def test_what_commands_print_holds_no_secret(surroundings: Surroundings, command: str) -> None:
    out, error = _printed(surroundings, command)
    assert out
    assert found_in(out, error) == set()


def test_what_commands_write_holds_no_secret(surroundings: Surroundings, tmp_path: Path) -> None:
    told = _written(surroundings, tmp_path)
    told += _printed(surroundings, f"survey --bench --output {tmp_path / 'survey.parquet'}")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".parquet"}
    assert found_in(tmp_path, *told) == set()


def test_what_runtimes_say_of_files_is_not_published(
    surroundings: Surroundings, tmp_path: Path
) -> None:
    code, out = tmp_path / "code", tmp_path / "out"
    said = f"cannot open {surroundings.cwd}/library.so"
    for package in ("openvino", "onnxruntime"):
        (code / package).mkdir(parents=True)
        (code / package / "__init__.py").write_text(f"raise ImportError({said!r})\n")
    out.mkdir()
    path = os.pathsep.join([str(code), surroundings.env["PYTHONPATH"]])
    broken = dataclasses.replace(surroundings, env={**surroundings.env, "PYTHONPATH": path})
    told = _written(broken, out)
    record = "".join(path.read_text() for path in out.glob("*-linux-*.json"))
    assert public.UNKNOWN_REASON in record
    assert "cannot open library.so" in (out / "bench.json").read_text()
    assert found_in(out, *told) == set()


def _written(surroundings: Surroundings, out: Path) -> list[str]:
    """Record and bench into ``out``; return what is printed."""
    bench = f"bench --workload bert-tiny --arm keep --rounds 1 --output {out / 'bench.json'}"
    return _printed(surroundings, f"record --output {out}") + _printed(surroundings, bench)


def _printed(surroundings: Surroundings, command: str) -> list[str]:
    done = surroundings.run("-m", "hugeprobe", *command.split())
    return [done.stdout, done.stderr]


def test_pages_and_notebooks_hold_no_secret(surroundings: Surroundings, tmp_path: Path) -> None:
    pages = ("docs/recorded-hosts.md", "docs/check-your-host.md")
    books = ("measured-on", "recorded-hosts", "check-your-host")
    wanted = ",".join([*pages, *(f"notebooks/{name}.ipynb" for name in books)])
    options = ("-D", f"include_patterns={wanted}", "-D", "root_doc=docs/recorded-hosts")
    build = _built(surroundings, REPOSITORY, tmp_path, *options)
    executed = build / "jupyter_execute/notebooks"
    assert {path.stem for path in executed.glob("*.ipynb")} == set(books)
    assert found_in(build / "html", executed) == set()


def _built(surroundings: Surroundings, source: Path, build: Path, *options: str) -> Path:
    folders = ("-d", str(build / "doctrees"), str(source), str(build / "html"))
    surroundings.run("-m", "sphinx", "-q", "-b", "html", *options, *folders)
    return build
