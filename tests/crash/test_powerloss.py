"""The power goes at each flush of a run, and the store is opened on what the disk may have kept.

With `durability = strict` every acknowledgement stands. `normal` promises only that nothing is damaged: acknowledgements may be lost,
and the test of the planted bugs, which makes `strict` what `normal` is, shows that they are.
"""

import os
import random
import secrets
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from crash import ledger
from crash.ledger import Told, found_wrong
from crash.powerloss import Disk, Image, Loss, Survivors, Write, beginning, everything, losses, nothing, read_log, run_traced, some

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Run:
    """What a program did to the files of a folder, and where to put what it may have left."""

    folder: Path
    log: Path
    left: Path


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """The program of `ledger.py`, with the parameters as its arguments."""
    if shutil.which("strace") is None and not os.environ.get("CI"):
        pytest.skip("strace is not installed")
    made = Run(tmp_path / "disk", tmp_path / "strace.log", tmp_path / "left")
    made.folder.mkdir()
    command = [sys.executable, "-m", "crash.ledger", str(made.folder / "headrace.db"), *request.param]
    run_traced(command, made.log, Path(ledger.__file__).parents[1])
    yield made
    if not made.left.exists():
        made.log.unlink()  # it is large


async def wrong_after(loss: Loss, image: Image, run: Run) -> tuple[list[str], list[str]]:
    """What is damaged, and what is lost, when a store is opened on these files."""
    write(image, run.left)
    wrong = await found_wrong(run.left / "headrace.db", loss.told)
    shutil.rmtree(run.left)
    return wrong


def write(image: Image, folder: Path) -> None:
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)


def images(loss: Loss, kinds: Sequence[Survivors], seed: str) -> Iterator[tuple[str, Image]]:
    """Each with how to get it again from the same log; none twice."""
    seen: list[Image] = []
    for number, kind in enumerate(kinds):
        how = f"{seed} {loss.number} {number} {kind.__name__}"
        image = loss.disk.image(kind(loss.disk.pending, random.Random(how)))
        if image not in seen:
            seen.append(image)
            yield how, image


@pytest.mark.parametrize("run", [["strict"], ["normal"]], indirect=True, ids=lambda value: value[0])
def test_the_replay_of_all_that_was_asked_is_what_is_on_the_disk_when_the_program_has_ended(run: Run) -> None:
    disk, flushed, asked = Disk(run.folder), set(), set()
    for moment in read_log(run.log):
        if disk.flushes(moment):
            asked |= {name.rpartition(".")[2] for name in disk.image(disk.pending)}
            flushed |= {name.rpartition(".")[2] for name in disk.image()}
        disk.see(moment)
    left = {path.name: path.read_bytes() for path in run.folder.iterdir() if not path.name.endswith("-shm")}

    assert disk.image(disk.pending) == left
    assert {"db", "db-wal", "db-journal", "spill"} <= flushed <= asked


@pytest.mark.parametrize("run", [["strict"]], indirect=True, ids=["strict"])
async def test_every_acknowledgement_stands_when_the_power_is_lost_under_strict(run: Run) -> None:
    seed, tried, unflushed = secrets.token_hex(4), 0, 0
    databases, logs = set(), set()
    for loss in losses(run.log, run.folder):
        unflushed += any(isinstance(change, Write) for change in loss.disk.pending)
        flushed = loss.disk.image()
        databases.add(flushed.get("headrace.db", b""))
        logs.add(flushed.get("headrace.db-wal", b"")[:32])
        for how, image in images(loss, (nothing, everything, beginning, some), seed):
            damaged, lost = await wrong_after(loss, image, run)
            if damaged or lost:
                write(image, run.left)
            assert (damaged, lost) == ([], []), how
            tried += 1

    # The program got to its end, there was something to lose, and the log was often written back and begun anew.
    told = Counter(line.split()[0] for line in loss.told)
    assert told == {Told.ACCEPTED: 75, Told.INTENDED: 75, Told.KEPT: 75, Told.ENDED: 69}
    assert unflushed > 100
    assert tried > 2 * unflushed
    assert len(databases) > 20
    assert len(logs) > 10


@pytest.mark.parametrize("run", [["normal"]], indirect=True, ids=["normal"])
async def test_nothing_is_damaged_when_the_power_is_lost_under_normal(run: Run) -> None:
    seed = secrets.token_hex(4)
    for loss in losses(run.log, run.folder):
        for how, image in images(loss, (nothing, everything, beginning, some, some), seed):
            damaged, _ = await wrong_after(loss, image, run)
            if damaged:
                write(image, run.left)
            assert damaged == [], how


@pytest.mark.parametrize("run", [["strict", bug] for bug in ledger.BUGS], indirect=True, ids=ledger.BUGS)
async def test_a_lost_acknowledgement_is_found_when_something_is_not_flushed(run: Run) -> None:
    for loss in losses(run.log, run.folder):
        damaged, lost = await wrong_after(loss, loss.disk.image(), run)
        assert damaged == []
        if lost:
            return
    pytest.fail("every acknowledgement stands")
