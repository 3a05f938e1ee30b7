"""The program of random kills, played for a short while. Its seed is in the report of a failure; `make crash` plays it for longer."""

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from crash.kills import run


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(300)])])
async def test_nothing_is_lost_when_killed_at_random_instants(kills: int, tmp_path: Path) -> None:
    seed = secrets.token_hex(4)
    report = await run(kills, seed, tmp_path)

    assert report.violations == [], f"seed {seed}: {report.circumstances}"
    assert report.kills == kills
    assert report.rows >= report.accepted > 0


@pytest.mark.slow
def test_the_program_says_what_it_found_in_its_last_line(tmp_path: Path) -> None:
    program = Path(__file__).with_name("crash.py")
    command = [sys.executable, str(program), "--kills", "2", "--seed", "1", "--keep", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("kills=2 accepted=")
    assert done.stdout.splitlines()[-1].endswith(" violations=0")
