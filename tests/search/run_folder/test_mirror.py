import pickle
import time

import pytest
from pyarrow.fs import FileSystem

from search.run_folder import lock as locks
from search.run_folder import mirror as mirrors
from search.run_folder.files import write_json
from search.run_folder.location import hold, local_copy, locate, of_store, restore
from search.run_folder.lock import lock
from search.run_folder.mirror import AHEAD, Mirror
from search.run_folder.store import Store, StoreError, TakenOver, open_store
from search.run_folder.uploads import Uploads


@pytest.fixture
def machine(bucket, tmp_path, monkeypatch):
    """The same run as another machine sees it, which has a cache of its own."""

    def on(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        paths = locate(f"{bucket.uri}/{tmp_path.name}")
        paths.folder.mkdir(parents=True, exist_ok=True)
        return paths

    return on


@pytest.fixture
def uploads(monkeypatch):
    """The names of the files that are uploaded."""
    names, upload = [], Store.upload
    monkeypatch.setattr(Store, "upload", lambda self, file, name: (names.append(name), upload(self, file, name)))
    return names


def push(paths, **how):
    paths.mirror.push(paths.folder, everything=True, **how)


def test_only_changes_are_uploaded_and_the_record_comes_last(machine, uploads):
    paths = machine("a")
    write_json(paths.record, {})
    paths.journal.write_text("{}\n")
    (paths.folder / "run.lock").touch()
    (paths.folder / "ray").mkdir()
    (paths.folder / "ray" / "tuner.pkl").touch()
    paths.events(0).mkdir()
    (paths.events(0) / "events.out.1").touch()
    push(paths)
    assert sorted(uploads) == ["ray/0000/events.out.1", "run.json", "study.journal"]
    assert uploads[-1] == "run.json"
    paths.journal.write_text("{}\n{}\n")
    push(paths)
    assert uploads[3:] == ["study.journal"]


def test_a_file_that_often_changes_is_uploaded_every_few_seconds(machine, uploads):
    paths = machine("a")
    for number in range(20):
        paths.journal.write_text("{}\n" * number)
        paths.best_weights.write_bytes(b"w" * number)
        paths.mirror.push(paths.folder)
    assert uploads.count("study.journal") == 1
    assert uploads.count("best.pt") == 20


def test_another_machine_gets_the_run_without_its_checkpoints(machine):
    here = machine("a")
    write_json(here.record, {"x": 1})
    here.journal.write_text("{}\n")
    push(here)
    worker = Mirror(here.folder, here.mirror.store, of_worker=True)
    for file in (here.checkpoint(3) / "state.pt", here.history(3), here.log(3)):
        file.parent.mkdir(parents=True)
        file.write_text("of a worker")
    worker.push(here.folder, everything=True)
    there = machine("b")
    restore(there)
    assert there.folder != here.folder
    assert there.record.read_text() == here.record.read_text()
    assert there.log(3).read_text() == "of a worker"
    assert not there.checkpoint(3).exists()
    assert there.fetched(there.checkpoint(3) / "state.pt").read_text() == "of a worker"


def test_the_driver_leaves_what_workers_write_alone(machine, uploads):
    paths = machine("a")
    for file in (paths.checkpoint(3) / "weights.pt", paths.history(3), paths.log(3)):
        file.parent.mkdir(parents=True)
        file.write_text("an older version")
    push(paths)
    assert not uploads
    paths.mirror.store.write("logs/0003.log", b"of a worker\n")
    paths.note(3, "of the driver")
    assert paths.mirror.store.read("logs/0003.log").splitlines()[0] == b"of a worker"
    assert paths.mirror.store.read("logs/0003.log").endswith(b" of the driver\n")


def test_a_folder_keeps_what_its_driver_could_not_upload(machine):
    here = machine("a")
    write_json(here.record, {})
    here.journal.write_text("1\n")
    push(here)
    (here.folder / AHEAD).touch()
    here.journal.write_text("1\n2\n")
    restore(here)
    assert here.journal.read_text() == "1\n2\n"
    there = machine("b")
    restore(there)
    assert there.journal.read_text() == "1\n"


def test_a_run_that_was_continued_elsewhere_is_restored(machine):
    here = machine("a")
    write_json(here.record, {})
    here.journal.write_text("1\n2\n")
    here.best.write_text("of the part that was lost")
    (here.folder / AHEAD).touch()
    there = machine("b")
    write_json(there.record, {})
    there.journal.write_text("1\n3\n")
    push(there)
    restore(here)
    assert here.journal.read_text() == "1\n3\n"
    assert not here.best.exists()


def test_a_checkpoint_is_deleted_once_the_journal_has_the_end_of_its_trial(machine):
    paths = machine("a")
    paths.journal.write_text("1\n")
    for name in ("state.pt", "weights.pt"):
        paths.mirror.store.write(f"checkpoints/0003/{name}", b"x")
    paths.mirror.store.write("checkpoints/00031/state.pt", b"x")
    paths.mirror.push(paths.folder)
    paths.journal.write_text("1\n2\n")
    paths.drop(paths.checkpoint(3))
    paths.mirror.push(paths.folder)  # in which the journal is not due yet
    assert len(paths.mirror.store.files("checkpoints")) == 3
    push(paths)
    assert list(paths.mirror.store.files("checkpoints")) == ["checkpoints/00031/state.pt"]
    assert paths.mirror.store.read("study.journal") == b"1\n2\n"


def test_what_the_journal_does_not_have_begins_again(machine):
    paths = machine("a")
    for number in (1, 2):
        paths.mirror.store.write(f"checkpoints/000{number}/state.pt", b"x")
        paths.mirror.store.write(f"logs/000{number}.log", b"x")
    paths.mirror.keep_checkpoints(["0001"])
    assert set(paths.mirror.store.files()) == {"checkpoints/0001/state.pt", "logs/0001.log"}


def test_a_store_that_is_away_is_waited_for(machine, bucket, monkeypatch):
    monkeypatch.setattr(mirrors, "PATIENCE", 0.0)
    monkeypatch.setattr("search.run_folder.uploads.PUSH_SECONDS", 0.1)
    paths, said = machine("a"), []
    with bucket.away():
        uploads = Uploads(paths, said.append)
        uploads.__enter__()
        write_json(paths.record, {})
        while paths.mirror.trouble is None:
            time.sleep(0.1)
        with pytest.raises(StoreError, match="cannot write"):  # at once, since it is known
            paths.fetched(paths.best_weights, waits=False)
        with pytest.raises(StoreError, match=r"^cannot write s3://.*AWS Error NETWORK_CONNECTION"):
            uploads.__exit__(None)
    assert [line.split(":")[0] for line in said] == ["waiting for the store"]
    assert (paths.folder / AHEAD).exists()
    with Uploads(paths, said.append):
        pass
    assert paths.mirror.store.find("run.json") is not None
    assert not (paths.folder / AHEAD).exists()


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(locks, "DEAD_SECONDS", 2.0)


def test_one_driver_has_a_run_whatever_the_machine(machine, hasty):
    first = lock(machine("a"))
    with pytest.raises(ValueError, match=r"^s3://.* is used by process \d+ on .*: wait for it or stop it first$"):
        lock(machine("b"))
    first.release()
    lock(machine("b")).release()


def test_the_lock_of_a_killed_driver_is_taken_over(machine, hasty):
    there = machine("a")
    there.mirror.store.write("run.lock", b"process 1 on other\n0\n")
    lock(there).release()
    assert there.mirror.store.find("run.lock") is None


def test_a_driver_that_lost_its_run_learns_it(machine, hasty):
    paths = machine("a")
    held = lock(paths)
    paths.mirror.store.write("run.lock", b"process 1 on other\n0\n")
    while paths.mirror.lost is None:
        time.sleep(0.05)
    assert isinstance(paths.mirror.lost, TakenOver)
    assert str(paths.mirror.lost) == f"process 1 on other has taken over {paths.mirror.store.uri}"
    held.release()
    assert paths.mirror.store.read("run.lock").startswith(b"process 1 on other")


def test_there_must_be_a_run(machine):
    paths = machine("a")
    for use in (hold, restore):
        with pytest.raises(ValueError, match=r"has no run\.json: give the URI"):
            use(paths)


def test_other_processes_open_a_store_with_this_ones_credentials(bucket, monkeypatch):
    store = open_store(bucket.uri)
    assert "AWS_SECRET_ACCESS_KEY" in store.environment
    assert store.environment["AWS_SECRET_ACCESS_KEY"] not in repr(of_store(store))
    sent = pickle.dumps(of_store(store).mirror)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setattr("search.run_folder.store._open", lambda uri: FileSystem.from_uri(uri))
    pickle.loads(sent).store.check()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nowhere://x/y", r"cannot open nowhere://x/y \(Protocol not known: nowhere"),
        ("s3://", r"cannot open s3:// \(it names no bucket\)"),
        ("s3://key:secret@bucket/runs", "must not contain a password"),
    ],
)
def test_a_uri_that_cannot_be_used(uri, message):
    with pytest.raises(ValueError, match=message) as raised:
        open_store(uri)
    assert "secret" not in str(raised.value)


def test_other_file_systems_are_those_of_fsspec(tmp_path):
    store = open_store("memory://runs") / "one"
    (tmp_path / "file").write_text("x")
    store.upload(tmp_path / "file", "a/b")
    store.check()
    store.download("a/b", tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == "x"
    assert set(store.files()) == {"a/b"}


def test_a_file_uri_is_a_path(tmp_path):
    assert local_copy(f"{tmp_path.as_uri()}/my%20run") == tmp_path / "my run"
    assert locate(f"{tmp_path.as_uri()}/x").mirror is None
