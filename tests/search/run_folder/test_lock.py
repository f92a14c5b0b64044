import errno
import signal
import subprocess
import sys

import pytest
from filelock import FileLock

from search.run_folder.lock import lock
from search.run_folder.paths import RunPaths


def test_another_process_holds_the_lock_until_it_ends(tmp_path):
    code = "import fcntl, os, sys; h = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.flock(h, fcntl.LOCK_EX)"
    code += "; print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "run.lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="is used by another process"):
            lock(RunPaths(tmp_path))
        other.send_signal(signal.SIGKILL)
    lock(RunPaths(tmp_path))


def test_this_process_keeps_others_away_until_it_releases_the_lock(tmp_path):
    first, second = lock(RunPaths(tmp_path)), lock(RunPaths(tmp_path))
    first.release()
    code = "import fcntl, os, sys; h = os.open(sys.argv[1], os.O_RDWR); fcntl.flock(h, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    other = subprocess.run([sys.executable, "-c", code, tmp_path / "run.lock"], capture_output=True, text=True)
    assert "BlockingIOError" in other.stderr
    second.release()
    again = subprocess.run([sys.executable, "-c", code, tmp_path / "run.lock"], capture_output=True, text=True)
    assert again.returncode == 0, again


def test_a_file_system_without_locks_has_a_file_for_one(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "_acquire", refuse)
    held = lock(RunPaths(tmp_path))
    assert RunPaths(tmp_path).soft_lock.exists()
    code = "import sys; from filelock import SoftFileLock; SoftFileLock(sys.argv[1], timeout=0).acquire()"
    command = [sys.executable, "-c", code, RunPaths(tmp_path).soft_lock]
    assert "Timeout" in subprocess.run(command, capture_output=True, text=True).stderr
    held.release()
    assert subprocess.run(command).returncode == 0
