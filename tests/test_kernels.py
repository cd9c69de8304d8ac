"""The kernel laboratory: its change to the source, what it resumes, its record and the model."""

from __future__ import annotations

import asyncio
import lzma
import os
import shutil
import signal
import sys
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hugeprobe.emulate import emulate
from hugeprobe.errors import MalformedError, NotObservable, NotPermittedError, ProbeError
from hugeprobe.kernels import configuration, guest, images, processes, record
from hugeprobe.kernels.archive import Archive, Package, _packages
from hugeprobe.kernels.change import LENGTH_CONDITION, State
from hugeprobe.kernels.images import Build, Kernel
from hugeprobe.kernels.machine import QEMU, Machine, initramfs
from hugeprobe.kernels.record import Collector, KernelUnderSetting, RecordedLayout
from hugeprobe.placement import Layout, Rule, model
from hugeprobe.sizes import KIB

if TYPE_CHECKING:
    from collections.abc import Sequence

MMAP_C = """\
unsigned long get(void)
{
\tif (get_area) {
\t\taddr = get_area(file, addr, len, pgoff, flags);
\t} else if (IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE)
\t\t   && !addr /* no hint */
\t\t   && IS_ALIGNED(len, PMD_SIZE)) {
\t\taddr = aligned(file, addr, len);
\t}
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tree = tmp_path / "source"
    (tree / "mm").mkdir(parents=True)
    (tree / "mm/mmap.c").write_text(MMAP_C)
    return tree


# The change ---------------------------------------------------------------------------------------


def test_the_change_removes_the_condition_and_nothing_else(source: Path) -> None:
    LENGTH_CONDITION.bring(source, State.CHANGED)
    changed = (source / "mm/mmap.c").read_text()
    assert changed == MMAP_C.replace(" */\n\t\t   && IS_ALIGNED(len, PMD_SIZE)) {", " */) {")
    assert LENGTH_CONDITION.state(changed) is State.CHANGED


@pytest.mark.parametrize("state", State)
def test_the_change_is_made_once(source: Path, state: State) -> None:
    LENGTH_CONDITION.bring(source, state)
    once = (source / "mm/mmap.c").read_text()
    LENGTH_CONDITION.bring(source, state)
    assert (source / "mm/mmap.c").read_text() == once


def test_the_change_is_undone(source: Path) -> None:
    LENGTH_CONDITION.bring(source, State.CHANGED)
    LENGTH_CONDITION.bring(source, State.ORIGINAL)
    assert (source / "mm/mmap.c").read_text() == MMAP_C
    assert [file.name for file in (source / "mm").iterdir()] == ["mmap.c"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        MMAP_C.replace("&& !addr", "&& !file && !addr"),
        MMAP_C.replace("PMD_SIZE", "PUD_SIZE"),
        MMAP_C.replace("\t\t   &&", "\t\t    &&"),
        MMAP_C * 2,
        MMAP_C + LENGTH_CONDITION.after,
    ],
    ids=["empty", "another condition", "another size", "other blanks", "twice", "both"],
)
@pytest.mark.parametrize("wanted", State)
def test_another_source_is_refused_and_left_alone(source: Path, text: str, wanted: State) -> None:
    (source / "mm/mmap.c").write_text(text)
    with pytest.raises(MalformedError, match="not the one that the change was written for"):
        LENGTH_CONDITION.bring(source, wanted)
    assert (source / "mm/mmap.c").read_text() == text


# The archive --------------------------------------------------------------------------------------

SHOWN = """\
Package: linux-image-amd64
Source: linux-signed-amd64 (7.3.4+1)
Version: 7.3.4-1
Depends: linux-base-amd64 (= 7.3.4-1), linux-image-7.3.4-amd64 (= 7.3.4-1), kmod (= 3)
Description: Linux for 64-bit PCs
 This package depends on the latest kernel.

Package: linux-image-amd64
Version: 6.1.176-1
Depends: linux-image-6.1.0-50-amd64 (= 6.1.176-1), initramfs-tools (>= 0.120) | dracut
"""


def test_packages_are_read_with_the_parts_of_their_kernel() -> None:
    assert list(_packages(SHOWN)) == [
        Package(
            "linux-image-amd64",
            "7.3.4-1",
            (("linux-base-amd64", "7.3.4-1"), ("linux-image-7.3.4-amd64", "7.3.4-1")),
        ),
        Package("linux-image-amd64", "6.1.176-1", (("linux-image-6.1.0-50-amd64", "6.1.176-1"),)),
    ]


class FakeArchive(Archive):
    """An archive of three packages; counts what is fetched, and can break off like a network."""

    fetched: list[str] = []  # noqa: RUF012 - one archive a test, reset by the fixture
    breaks: bool = False

    async def versions(self, name: str) -> list[Package]:
        meta = Package(images.STOCK, "6.1.7-1", (("linux-image-6.1", "6.1.7-1"),))
        known = {
            images.STOCK: meta,
            "linux-image-6.1": Package("linux-image-6.1", "6.1.7-1", ()),
            images.SOURCE: Package(images.SOURCE, "6.12.7-1", ()),
        }
        return [known[name]] if name in known else []

    async def unpack(self, package: Package, folder: Path) -> None:
        self.fetched.append(package.name)
        if self.breaks:
            (folder / "half").touch()
            raise ProbeError("The network broke off.")
        if package.name == "linux-image-6.1":
            _stock_files(folder)
        if package.name == images.SOURCE:
            (folder / "usr/src").mkdir(parents=True)
            (folder / f"usr/src/{images.SOURCE}.tar.xz").touch()


def _stock_files(folder: Path) -> None:
    modules = folder / "lib/modules/6.1.0/kernel"
    modules.mkdir(parents=True)
    (folder / "boot").mkdir()
    (folder / "boot/vmlinuz-6.1.0").write_bytes(b"image")
    (folder / "boot/config-6.1.0").write_text("A\nCONFIG_TRANSPARENT_HUGEPAGE=y\n")
    for name, needs in {"9p": "9pnet,netfs", "9pnet": "", "netfs": "", "unrelated": "9p"}.items():
        content = f"\0name={name}\0depends={needs}\0".encode()
        (modules / f"{name}.ko.xz").write_bytes(lzma.compress(content))
    (modules / "9pnet-virtio.ko").write_bytes(b"\0depends=9pnet\0")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeArchive:
    monkeypatch.setattr(FakeArchive, "fetched", [])
    return FakeArchive(tmp_path / "apt")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


def _unfinished(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if "unfinished" in path.name or "half" in path.name]


# Kernels on disk ----------------------------------------------------------------------------------


def test_a_stock_kernel_is_unpacked_once(archive: FakeArchive, cache: Path) -> None:
    kernel = asyncio.run(images.stock(archive, "6.1.", cache))
    assert asyncio.run(images.stock(archive, "6.1.", cache)) == kernel
    assert archive.fetched == [images.STOCK, "linux-image-6.1"]
    assert kernel.image.read_bytes() == b"image"
    assert kernel.origin == "Debian's stock kernel 6.1.7-1"


def test_modules_are_loaded_after_those_they_need(archive: FakeArchive, cache: Path) -> None:
    kernel = asyncio.run(images.stock(archive, "6.1.", cache))
    names = [module.name for module in kernel.modules]
    assert names == ["00-9pnet.ko", "01-9pnet_virtio.ko", "02-netfs.ko", "03-9p.ko"]


def test_an_interrupted_kernel_is_not_taken_for_a_whole_one(
    archive: FakeArchive, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeArchive, "breaks", True)
    with pytest.raises(ProbeError, match="broke off"):
        asyncio.run(images.stock(archive, "6.1.", cache))
    assert not _unfinished(cache)
    monkeypatch.setattr(FakeArchive, "breaks", False)
    assert asyncio.run(images.stock(archive, "6.1.", cache)).image.exists()


def test_what_a_killed_run_left_is_removed(cache: Path) -> None:
    (cache / "kernels/.unfinished-1/content").mkdir(parents=True)
    (cache / "kernels/whole").mkdir()
    images.sweep(cache)
    assert [path.name for path in (cache / "kernels").iterdir()] == ["whole"]


def test_a_version_that_no_suite_has_is_a_sentence(archive: FakeArchive, cache: Path) -> None:
    with pytest.raises(ProbeError, match=r"linux-image-amd64 .* version 5\.10\., but none"):
        asyncio.run(images.stock(archive, "5.10.", cache))


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, source: Path) -> list[str]:
    """Stand in for the compiler; return the states of the source it was given, as it is called."""
    states: list[str] = []

    async def run(command: Sequence[str | Path], _: str, **options: Any) -> str:
        words = [str(word) for word in command]
        if words[0] == "tar":
            shutil.copytree(source, options["cwd"] / images.SOURCE)
        if "allnoconfig" in words:
            objects = next(word for word in words if word.startswith("O=")).removeprefix("O=")
            (Path(objects) / ".config").write_text(configuration.FRAGMENT)
        if "bzImage" in words:
            tree = Path(words[words.index("-C") + 1])
            states.append(LENGTH_CONDITION.state((tree / "mm/mmap.c").read_text()).value)
            boot = tree.parent / "objects/arch/x86/boot"
            boot.mkdir(parents=True, exist_ok=True)
            (boot / "bzImage").write_text(states[-1])
            if len(states) == 2 and os.environ.get("BREAK"):
                raise asyncio.CancelledError
        return ""

    async def present() -> None:
        pass

    monkeypatch.setattr(images, "run", run)
    monkeypatch.setattr(images, "_require_build_tools", present)
    monkeypatch.setattr(images, "require_space", lambda *_: None)
    return states


def _build(archive: Archive, cache: Path) -> list[Kernel]:
    return asyncio.run(images.built(archive, cache, 1, lambda _: None))


def test_both_forms_are_built_once_from_one_configuration(
    archive: FakeArchive, cache: Path, compiled: list[str]
) -> None:
    kernels = _build(archive, cache)
    assert _build(archive, cache) == kernels
    assert compiled == ["original", "changed"]
    assert [kernel.image.read_text() for kernel in kernels] == compiled
    assert kernels[0].config_digest == kernels[1].config_digest
    assert kernels[0].origin == "built from Debian's linux-source-6.12 6.12.7-1, as it is"
    assert not (cache / "build").exists()


def test_an_interrupted_build_goes_on_with_the_form_that_is_missing(
    archive: FakeArchive, cache: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAK", "1")
    with pytest.raises(asyncio.CancelledError):
        _build(archive, cache)
    monkeypatch.delenv("BREAK")
    _build(archive, cache)
    assert compiled == ["original", "changed", "changed"]
    assert archive.fetched == [images.SOURCE]
    assert not _unfinished(cache)


def test_a_build_is_named_by_all_that_it_depends_on(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Build(Package(images.SOURCE, "6.12.7-1", ()), State.ORIGINAL)
    names = {build.folder(cache)}
    names.add(replace(build, form=State.CHANGED).folder(cache))
    names.add(replace(build, source=Package(images.SOURCE, "6.12.8-1", ())).folder(cache))
    monkeypatch.setattr(configuration, "FRAGMENT", configuration.FRAGMENT + "CONFIG_MORE=y\n")
    names.add(build.folder(cache))
    assert len(names) == 4


def test_an_option_that_the_kernel_dropped_is_named() -> None:
    without = configuration.FRAGMENT.replace("CONFIG_9P_FS=y", "# CONFIG_9P_FS is not set")
    with pytest.raises(ProbeError, match="CONFIG_9P_FS=y"):
        configuration.check(without)


# Other programs -----------------------------------------------------------------------------------


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: program if program == "tar" else None)
    with pytest.raises(ProbeError, match="apt-get install qemu-system-x86 xz-utils` adds"):
        processes.require(QEMU, "tar", "xz")


def test_too_little_disk_space_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="needs 1000000 GiB of disk space"):
        processes.require_space(tmp_path, 1_000_000, "Building")


def test_a_program_that_fails_is_a_sentence_with_its_last_words() -> None:
    with pytest.raises(ProbeError, match=r"Trying failed: sh ended with status 3 and said:\nout"):
        asyncio.run(processes.run(("sh", "-c", "echo out; exit 3"), "Trying"))


def test_programs_end_with_everything_they_started() -> None:
    async def interrupted() -> int:
        script = "sleep 1000 & echo $!; wait"
        async with processes.started(("sh", "-c", script)) as process:
            assert process.stdout is not None
            return int(await process.stdout.readline())

    grandchild = asyncio.run(interrupted())
    for _ in range(100):
        try:
            os.kill(grandchild, 0)
        except ProcessLookupError:
            return
        if "State:\tZ" in Path(f"/proc/{grandchild}/status").read_text():
            return
        asyncio.run(asyncio.sleep(0.05))
    os.kill(grandchild, signal.SIGKILL)
    pytest.fail("a program that was started by a program outlived it")


# Guests -------------------------------------------------------------------------------------------


def test_what_writes_to_sys_refuses_to_run_outside_a_guest() -> None:
    with pytest.raises(NotPermittedError, match="outside one of its guests"):
        guest.main([])


def test_settings_are_those_that_the_kernel_has() -> None:
    assert [each.mthp for each in guest.settings([2048])] == [()] * 3
    assert len(guest.settings([64, 128, 256, 512, 1024, 2048])) == 9


def test_the_first_files_are_aligned_as_the_kernel_reads_them(tmp_path: Path) -> None:
    for name in ("busybox", "00-a.ko"):
        (tmp_path / name).write_bytes(b"12345")
    packed = initramfs("echo", tmp_path / "busybox", [tmp_path / "00-a.ko"])
    names = []
    position = 0
    while position < len(packed):
        assert packed[position : position + 6] == b"070701"
        header = [int(packed[position + 6 + 8 * i :][:8], 16) for i in range(13)]
        size, name_size = header[6], header[11]
        names.append(packed[position + 110 :][: name_size - 1].decode())
        position += -(-(110 + name_size) // 4) * 4 + -(-size // 4) * 4
    assert names[-4:] == ["init", "bin/busybox", "modules/00-a.ko", "TRAILER!!!"]


def test_a_case_that_a_guest_cannot_measure_breaks_the_run(tmp_path: Path) -> None:
    (tmp_path / "origin").write_text("a kernel")
    told = {"about": "layouts", "lengths": [4], "touch": "each", "reason": "memory is low"}
    with pytest.raises(ProbeError, match=r"\[4\] KiB, but could not .* because memory is low"):
        Collector(Kernel(tmp_path)).add(told)


# The record against the model ---------------------------------------------------------------------


PLACEMENT = ("mappings", "gap_kib", "vmas", "anon_kib")
FAULTS = ("huge_kib", "minor_faults")


def _difference(
    under: KernelUnderSetting, found: RecordedLayout, other: Layout, names: Sequence[str]
) -> str:
    for name in names:
        recorded, ours = getattr(found, name), getattr(other, name)
        if recorded != ours:
            return (
                f"{under.release}, THP {under.thp_mode}, mTHP {under.mthp}, {found.lengths} KiB, "
                f"{found.touch.value}, top {found.top_offset}: "
                f"{name} is {recorded} on the kernel and {ours} here"
            )
    return ""


def first_difference(under: KernelUnderSetting, found: RecordedLayout) -> str:
    """Return how a recorded layout differs from the model, or nothing."""
    assert under.rule is not None
    lengths = [length * KIB for length in found.lengths]
    modelled = model(
        lengths, under.rule, found.touch, top_offset=found.top_offset, sizes=under.sizes
    )
    return _difference(under, found, modelled, PLACEMENT + FAULTS)


def recorded() -> record.KernelsRecord:
    found = record.read()
    assert not isinstance(found, NotObservable), found
    return found


def test_the_model_gives_what_every_recorded_kernel_gave() -> None:
    differences = [
        difference
        for under in recorded().kernels
        for found in under.layouts
        if (difference := first_difference(under, found))
    ]
    assert not differences, differences[0]


@pytest.mark.parametrize("rule", Rule)
def test_the_emulation_gives_what_a_recorded_kernel_gave(rule: Rule) -> None:
    under = next(
        each
        for each in recorded().kernels
        if each.rule is rule and each.thp_mode == "always" and not each.mthp
    )
    for found in under.layouts:
        emulated = emulate(
            [length * KIB for length in found.lengths],
            rule,
            found.touch,
            top_offset=found.top_offset,
        )
        if isinstance(emulated, NotObservable):
            pytest.skip(str(emulated))
        # Where this host answers faults with other pages, placement is still the same.
        names = PLACEMENT if emulated.caveat else PLACEMENT + FAULTS
        assert not _difference(under, found, emulated.layout, names)


def test_the_record_has_a_kernel_of_every_rule() -> None:
    rules = {under.release: under.rule for under in recorded().kernels}
    assert sorted(rule.value for rule in rules.values() if rule) == [
        *("forced", "multiples", "multiples", "multiples", "packed"),
    ]


def test_the_two_built_kernels_differ_in_the_change_alone() -> None:
    built = [each for each in recorded().kernels if each.origin.startswith("built")]
    assert len({each.config_digest for each in built}) == 1
    assert len({each.release for each in built}) == 2
    assert recorded().change == LENGTH_CONDITION


def test_a_missing_record_says_what_makes_it(tmp_path: Path) -> None:
    found = record.read(tmp_path / "kernels.json")
    assert isinstance(found, NotObservable)
    assert found.reason.endswith("has not been made yet; `nox -s kernels` makes it")


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    edited = record.RECORD.read_text().replace('"huge_kib":32768', '"huge_kib":32760', 1)
    (tmp_path / "kernels.json").write_text(edited)
    with pytest.raises(MalformedError, match="changed after it was measured"):
        record.read(tmp_path / "kernels.json")


# A real kernel ------------------------------------------------------------------------------------


async def _measure(kernel: Kernel, busybox: Path) -> tuple[KernelUnderSetting, ...]:
    command = (sys.executable, "-m", guest.__name__, "--brief")
    env = {"PYTHONPATH": str(Path(guest.__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    collector = Collector(kernel)
    async with aclosing(Machine(busybox).lines(kernel, command, 300.0, env)) as lines:
        async for told in lines:
            collector.add(told)
    return collector.finished()


def test_a_real_kernel_gives_what_the_model_gives(bootable: tuple[Kernel, Path]) -> None:
    (under,) = asyncio.run(_measure(*bootable))
    assert len(under.layouts) == len(guest.cases(guest.settings([])[0]))
    differences = [first_difference(under, found) for found in under.layouts]
    assert not any(differences), next(filter(None, differences))
