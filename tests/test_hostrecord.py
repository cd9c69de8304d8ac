"""Host records: what they hold, what they refuse, and how hosts are compared by them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from hugeprobe import areas, check, emulate, hostrecord, hosts, recording, records
from hugeprobe.errors import MalformedError, NotObservable, ProbeError
from hugeprobe.figures import hosts as figures
from hugeprobe.host import host_facts
from hugeprobe.hostrecord import COMMAND, FOLDER, HostRecord, PublicFacts, Unseen
from hugeprobe.kernels import record as laboratory
from hugeprobe.placement import Rule, Touch
from hugeprobe.public import UNKNOWN_REASON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
SECRET = "xqzsecretzqx"
TREES = ("linux-6.1-debian", "linux-6.12-aarch64-64k", "linux-6.12-container", "linux-6.6-no-thp")


@pytest.fixture(scope="module")
def here() -> HostRecord:
    return recording.measure(infer=False)


def written(record: HostRecord) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(records.text_of(record))
    return content


def sign(path: Path, content: dict[str, Any]) -> None:
    """Write a record that was changed by hand as if it had been measured."""
    content.pop("digest", None)
    path.write_text(json.dumps({**content, "digest": records.digest(content)}))


# Records of the guide -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda path: path.name)
def test_a_record_of_the_guide_is_whole_and_has_its_own_name(path: Path) -> None:
    record = records.read(path, HostRecord)
    assert isinstance(record, HostRecord)
    assert path.name == hostrecord.file_name(record)
    assert path.read_text(encoding="utf-8") == records.text_of(record)


def test_the_guide_has_records() -> None:
    assert hostrecord.read_all()


# This host ----------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(here: HostRecord, tmp_path: Path) -> None:
    path = hostrecord.save(here, tmp_path)
    assert hostrecord.read_all(tmp_path) == (here,)
    assert path.name.startswith(f"{here.date}-linux-")


def test_a_record_says_what_the_probes_say(here: HostRecord) -> None:
    assert here.command == COMMAND
    assert here.host == PublicFacts.of(host_facts())
    assert here.inference == Unseen("it was not asked for")
    if isinstance(here.cases, Unseen):
        pytest.skip(here.cases.because)
    assert len(here.cases) == 24
    assert all(0 <= case.huge_kib <= case.anon_kib for case in here.cases)
    assert sum(case.touch is Touch.EACH for case in here.cases) == 12


def test_inference_is_counted_where_openvino_is(here: HostRecord) -> None:
    pytest.importorskip("openvino")
    full = recording.measure()
    if isinstance(full.inference, Unseen):
        pytest.skip(full.inference.because)
    plain, keep = full.inference
    assert (plain.arm, keep.arm) == ("default", "keep")
    assert min(plain.load_faults, plain.first_faults, keep.anon_kib) > 0
    assert dataclasses.replace(full, inference=here.inference).host == here.host


# What is refused ----------------------------------------------------------------------------------


def parts(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Yield everything in a JSON value, and where it is."""
    yield path, value
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from parts(item, (*path, key))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def test_no_text_of_a_record_can_be_any_other(here: HostRecord, tmp_path: Path) -> None:
    texts = [place for place, value in parts(written(here)) if isinstance(value, str)]
    places = [place for place in texts if place != ("digest",)]
    assert len(places) > 10
    for place in places:
        content = written(here)
        at(content, place[:-1])[place[-1]] += SECRET
        sign(tmp_path / "host.json", content)
        with pytest.raises(MalformedError) as refused:
            records.read(tmp_path / "host.json", HostRecord)
        assert SECRET not in str(refused.value)


def test_nothing_can_be_added_to_a_record(here: HostRecord, tmp_path: Path) -> None:
    places = [place for place, value in parts(written(here)) if isinstance(value, dict)]
    assert len(places) > 1
    for place in places:
        content = written(here)
        at(content, place)["more"] = SECRET
        sign(tmp_path / "host.json", content)
        with pytest.raises(MalformedError, match="make it anew"):
            records.read(tmp_path / "host.json", HostRecord)


def test_what_is_not_published_is_not_even_made(here: HostRecord) -> None:
    leaking = dataclasses.replace(here, caveat=f"no such file: /home/{SECRET}/model.onnx")
    with pytest.raises(ValidationError):
        hostrecord.checked(leaking)


@pytest.mark.parametrize("error", [NotObservable, ProbeError])
def test_a_reason_in_other_words_is_withheld(error: type[NotObservable] | type[ProbeError]) -> None:
    assert Unseen.of(error(f"no such file: /home/{SECRET}")) == Unseen(UNKNOWN_REASON)


@pytest.mark.parametrize("name", TREES)
def test_facts_of_other_hosts_can_be_recorded(
    here: HostRecord, tree: Callable[[str], Path], name: str
) -> None:
    other = dataclasses.replace(here, host=PublicFacts.of(host_facts(tree(name))))
    assert hostrecord.checked(other) == other
    assert figures.facts_table(other, [other]).markdown


def test_settings_that_a_kernel_words_anew_are_withheld(tree: Callable[[str], Path]) -> None:
    root = tree("linux-6.1-debian")
    folder = root / "sys/kernel/mm/transparent_hugepage"
    (folder / "enabled").write_text(f"always [{SECRET}] never")
    (folder / SECRET).write_text("1")
    facts = PublicFacts.of(host_facts(root))
    assert SECRET not in repr(facts)
    assert (facts.thp_mode, facts.unknown_settings) == ("withheld", 1)


# Hosts that cannot show everything ----------------------------------------------------------------


def test_a_host_with_little_memory_gives_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = areas.too_much(1 << 50)
    assert missing is not None
    for module in (check, emulate):
        monkeypatch.setattr(module, "too_much", lambda _: missing)
    record = recording.measure(infer=False)
    assert record.given == record.cases == Unseen(missing.reason)
    (host,) = hosts.known(record, (), NotObservable("there is none"))
    assert host.cases == missing
    assert str(missing) in figures.hosts_table([host]).markdown
    assert missing.reason in figures.given_table(record, [record]).markdown
    for sentence in (figures.coverage_picture([host]), figures.settings_table([host])):
        assert isinstance(sentence, NotObservable)
    assert "Not observable here" in figures.explained([host]).markdown


# The comparison -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guests() -> tuple[hosts.Host, ...]:
    return hosts.known(records=())


def test_the_guests_of_the_laboratory_are_hosts(guests: tuple[hosts.Host, ...]) -> None:
    record = laboratory.read()
    assert not isinstance(record, NotObservable)
    assert len(guests) == len(record.kernels)
    assert {host.rule for host in guests} == set(Rule)
    assert all(len(host.counted) in {12, 24} for host in guests)


def test_rule_and_sizes_explain_every_guest(guests: tuple[hosts.Host, ...]) -> None:
    assert [host for host in guests if host.unexplained] == []
    assert figures.explained(guests).markdown.endswith("VMA and fault.")


def test_hosts_that_gave_the_same_share_a_row(guests: tuple[hosts.Host, ...]) -> None:
    rows = hosts.alike(guests, 724)
    assert {row.rule for row in rows} == set(Rule)
    assert len(rows) == 3
    assert sum(len(row.hosts) for row in rows) == 5
    by_mode = hosts.alike(guests, 0)
    assert sum(len(row.hosts) for row in by_mode) == len(guests)
    assert all("never" not in row.modes or row.modes == ("never",) for row in by_mode)


def test_a_host_that_does_not_fit_is_named_and_has_a_row_of_its_own(
    guests: tuple[hosts.Host, ...],
) -> None:
    usual = next(host for host in guests if host.rule is Rule.MULTIPLES and len(host.counted) == 24)
    cases = [
        dataclasses.replace(case, minor_faults=case.minor_faults + 1)
        if (case.kib, case.touch, case.top_offset_kib) == (2052, Touch.EACH, 724)
        else case
        for case in usual.counted
    ]
    odd = dataclasses.replace(usual, name="Linux 9.9", cases=tuple(cases))
    assert len(odd.unexplained) == 1
    assert "They do not on Linux 9.9" in figures.explained([*guests, odd]).markdown
    assert len(hosts.alike([*guests, odd], 724)) == 4
    picture = figures.coverage_picture([*guests, odd])
    assert not isinstance(picture, NotObservable)
    assert "multiples, always (1)" in picture.text


def test_a_host_without_a_known_rule_is_not_explained(guests: tuple[hosts.Host, ...]) -> None:
    unknown = dataclasses.replace(guests[0], rule=None)
    assert unknown.unexplained == unknown.counted
    assert "no known rule" in figures.hosts_table([unknown]).markdown


def test_the_widest_difference_is_between_rules(guests: tuple[hosts.Host, ...]) -> None:
    said = figures.widest(guests).markdown
    assert said.count("`") == 4
    assert "0% of it is huge" in said
    never = [host for host in guests if host.mode == "never"]
    assert "give the same" in figures.widest(never).markdown


# The command --------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hugeprobe", "record", "--no-infer", *arguments],
        cwd=NOTEBOOKS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_prints_the_record_or_writes_it_under_its_name(tmp_path: Path) -> None:
    printed = run()
    assert (printed.returncode, printed.stderr) == (0, "")
    told = run("--output", str(tmp_path))
    assert told.returncode == 0
    (path,) = tmp_path.iterdir()
    assert path.name in told.stdout.replace("\n", "")
    assert json.loads(printed.stdout).keys() == json.loads(path.read_text()).keys()
    (record,) = hostrecord.read_all(tmp_path)
    assert path.name == hostrecord.file_name(record)


def test_a_folder_that_is_not_there_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    done = run("--output", str(tmp_path / "missing/host.json"))
    assert done.returncode == 1
    assert "that folder does not exist" in done.stderr.replace("\n", " ")
