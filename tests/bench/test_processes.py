import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from measure import cpu_seconds, resident_bytes, tree
from processes import CannotStart, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CORE = min(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
SERVER = "import time; print('listening on 127.0.0.1:1234', flush=True); time.sleep(60)"


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid):
    until = time.monotonic() + 5
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_alive(pid)


def test_a_server_runs_on_its_core_until_it_is_left(tmp_path):
    with running([sys.executable, "-c", SERVER], core=CORE, folder=tmp_path) as process:
        assert (process.host, process.port) == ("127.0.0.1", 1234)
        assert os.sched_getaffinity(process.pid) == {CORE}
        assert 0 < process.start < 30

    assert gone(process.pid)


def test_a_server_ends_when_whoever_started_it_is_killed(tmp_path):
    bench = Path(__file__).resolve().parents[2] / "bench"
    program = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(bench)!r})
from processes import running
with running([sys.executable, "-c", {SERVER!r}], core={CORE}, folder=Path({str(tmp_path)!r})) as process:
    print(process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.send_signal(signal.SIGKILL)

    assert gone(pid)


@pytest.mark.parametrize(
    ("command", "why"),
    [([sys.executable, "-c", "raise SystemExit('out of luck')"], "out of luck"), (["no-such-command-here"], "No such file")],
)
def test_a_server_that_does_not_start_says_why(tmp_path, command, why):
    with pytest.raises(CannotStart, match=why), running(command, core=CORE, folder=tmp_path):
        pass


def test_processor_time_counts_children_also_when_they_have_ended(tmp_path):
    burn = "import time\nuntil = time.process_time() + 0.15\nwhile time.process_time() < until: pass\n"
    program = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n{SERVER}"
    with running([sys.executable, "-c", program], core=CORE, folder=tmp_path) as process:
        assert cpu_seconds(process.pid) >= 0.15
        assert resident_bytes(process.pid) > 1_000_000


def test_a_tree_holds_the_processes_below(tmp_path):
    program = f"import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])\n{SERVER}"
    with running([sys.executable, "-c", program], core=CORE, folder=tmp_path) as process:
        family = tree(process.pid)
        assert len(family) == 2
        assert family[0] == process.pid

    assert gone(family[1])
