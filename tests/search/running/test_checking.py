"""Damaged files of a run: each is named, and what can be made again is."""

import json
import shutil

import pytest
import torch

from search import check, final, submit
from search.run import main as run_main
from search.run_folder.files import read_arrays, read_torch, write_torch
from tests.search.runs import read, trials_of

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def repaired(call, copy):
    """Check the run, repair it, and check it again: what was said of it."""

    def command():
        found = call(check.main, copy)
        assert (found.status, found.err) == (1, "")
        *lines, last = found.out.splitlines()
        assert last == f"repair it with: python -m search.check {copy} --repair"
        again = call(check.main, copy, "--repair")
        assert again.status == 0, again
        done = [line.replace(": ", ": repaired, ", 1) for line in lines]
        assert again.out.splitlines() == [*done, f"{copy} is whole"]
        assert call(check.main, copy).out == f"{copy} is whole\n"
        return lines

    return command


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)


def test_a_whole_run_is_whole(call, copy):
    outcome = call(check.main, copy)
    assert (outcome.status, outcome.out, outcome.err) == (0, f"{copy} is whole\n", "")


@pytest.mark.parametrize("content", [None, "", '{"task": "classify"', "{}"])
def test_the_record_is_written_again_from_the_journal(content, copy, repaired, run):
    before = read(copy, "run")
    if content is None:
        (copy / "run.json").unlink()
    else:
        (copy / "run.json").write_text(content)
    assert repaired() == [f"{copy / 'run.json'} is damaged or missing: it is written again from the journal"]
    assert read(copy, "run") == {**before, "seconds": 0.0}
    more = run("--resume", copy, "--trials", 5)
    assert more.status == 0, more


def test_a_damaged_record_names_its_repair(call, copy):
    (copy / "run.json").write_text('{"task": "classify"')
    outcome = call(run_main, "classify", "--resume", copy)
    repair = f"write it again with: python -m search.check {copy} --repair"
    assert (outcome.status, outcome.err) == (2, f"error: {copy / 'run.json'} is damaged or unreadable: {repair}\n")


def test_a_damaged_line_of_the_journal_is_named_and_what_is_before_it_is_kept(call, copy, repaired, run):
    journal = copy / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    broken = next(i for i, line in enumerate(lines) if b'"trial_id":3' in line)
    journal.write_bytes(b"".join([*lines[:broken], b'{"op_code":4,"wor\n', *lines[broken:]]))
    outcome = call(run_main, "classify", "--resume", copy)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {journal} is damaged in line {broken + 1}: keep what is whole with:")
    lost = len(lines) - broken + 1
    copy_name = "study.journal.1 is a copy of it"
    end = f"it ends there, the last {lost} of its lines are lost, and {copy_name}"
    assert repaired()[0] == f"{journal} is damaged in line {broken + 1}: {end}"
    assert not (copy / "checkpoints" / "0003").exists()
    assert run("--resume", copy).status == 0
    assert [t.state.is_finished() for t in trials_of(copy)] == [True] * 4


@pytest.mark.parametrize("content", [b"", b'{"op_code":0,"worker_id":"a","study_name":"mine","directions":[2]}\n'])
def test_a_journal_without_a_search_is_refused(content, call, copy):
    (copy / "study.journal").write_bytes(content)
    fault = f"{copy / 'study.journal'} has no study of a search: put this run's own back"
    outcome = call(run_main, "classify", "--resume", copy)
    assert (outcome.status, outcome.err) == (2, f"error: {fault}\n")
    outcome = call(check.main, copy, "--repair")
    assert (outcome.status, outcome.out) == (1, f"{fault}: it cannot be repaired\n")


def test_the_journal_of_another_run_is_refused(call, copy, begun):
    shutil.copy(begun / "study.journal", copy)
    for main, words in ((run_main, ("classify", "--resume", copy)), (final.main, (copy,)), (check.main, (copy,))):
        outcome = call(main, *words)
        assert outcome.status == (1 if main is check.main else 2)
        assert f"{copy / 'study.journal'} belongs to another run: put this run's own back" in outcome.out + outcome.err


@pytest.mark.parametrize("name", ["best.pt", "best.json", "val_predictions.npz"])
def test_the_best_is_made_again_from_a_checkpoint(name, copy, repaired):
    before = read_torch(copy / "best.pt")
    if name == "best.json":
        (copy / name).write_text("{")
    else:
        flip(copy / name)
    [line] = repaired()
    assert line.startswith(f"best.json, best.pt and val_predictions.npz in {copy} are damaged or do not belong")
    assert read_torch(copy / "best.pt")["trial"] == before["trial"]
    assert read_arrays(copy / "val_predictions.npz") is not None


def test_the_best_is_trained_again_if_its_weights_are_lost(copy, repaired):
    before = read_torch(copy / "best.pt")
    flip(copy / "best.pt")
    shutil.rmtree(copy / "checkpoints")
    [line] = repaired()
    assert line.endswith(f": they become those of trial {before['trial']}, which is trained again")
    after = read_torch(copy / "best.pt")
    assert (after["trial"], after["epoch"], after["score"]) == (before["trial"], before["epoch"], before["score"])
    for name, tensor in before["model"].items():
        torch.testing.assert_close(after["model"][name], tensor)


def test_the_best_of_another_trial_is_noticed(copy, repaired):
    saved = read_torch(copy / "best.pt")
    write_torch(copy / "best.pt", {**saved, "trial": saved["trial"] + 1})
    assert len(repaired()) == 1
    assert read_torch(copy / "best.pt")["trial"] == saved["trial"]


def test_a_damaged_checkpoint_is_deleted(copy, repaired):
    file = sorted(copy.glob("checkpoints/*/weights.pt"))[-1]
    flip(file)
    assert repaired() == [f"{file} is damaged: it is deleted"]
    assert not file.exists()


def test_damaged_weights_are_never_used(call, copy, dataset):
    flip(copy / "best.pt")
    outcome = call(submit.main, "--data", dataset, "--classify", copy, "--out", copy / "submission.csv")
    assert outcome.status == 2
    assert f"{copy / 'best.pt'} is not a voc-search checkpoint" in outcome.err


def test_mistakes(call, copy, tmp_path):
    outcome = call(check.main, tmp_path / "missing")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: no run folder {tmp_path / 'missing'}")
    assert json.loads((copy / "run.json").read_text())["id"]
