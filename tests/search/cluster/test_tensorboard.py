import errno
from types import SimpleNamespace

import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from search.cluster.tensorboard import TensorBoard
from search.run_folder.paths import RunPaths


def events(folder):
    """The summaries in the files of a folder: TFRecords of 8 bytes of length, 4 of its checksum, content, 4 more."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while len(content) >= 8 and len(content) >= 16 + (size := int.from_bytes(content[:8], "little")):
            event = Event.FromString(content[12 : 12 + size])
            yield from ((event.step, value) for value in event.summary.value)
            content = content[16 + size :]


def test_scalars_appear_as_they_come_and_parameters_at_the_end(tmp_path):
    params = {"lr": 0.01, "architecture": "simple", "ema": False}
    trial = SimpleNamespace(config={"training": 7, "config": {}, "params": params})
    board = TensorBoard(RunPaths(tmp_path), "val_mAP")
    for epoch, score in ((1, 0.25), (2, 0.5)):
        result = {"epoch": epoch, "val_mAP": score, "train_loss": 1.0, "seconds": 3.0, "pid": 12, "done": False}
        board.on_trial_result(0, [], trial, result)
        seen = [(step, v.simple_value) for step, v in events(tmp_path / "ray" / "0007") if v.tag == "val_mAP"]
        assert seen[-1] == (epoch, score)
    board.on_trial_complete(0, [], trial)
    found = [v for _, v in events(tmp_path / "ray" / "0007")]
    assert {v.tag for v in found if not v.tag.startswith("_")} == {"val_mAP", "train_loss", "seconds"}
    starts = [v for v in found if v.tag == "_hparams_/session_start_info"]
    known = HParamsPluginData.FromString(starts[0].metadata.plugin_data.content).session_start_info.hparams
    assert known["lr"].number_value == pytest.approx(0.01)
    assert known["architecture"].string_value == "simple"
    assert known["ema"].bool_value is False
    assert set(known) == set(params)


def test_a_full_disk_loses_events_and_nothing_else(tmp_path, monkeypatch):
    def full(self, event):
        raise OSError(errno.ENOSPC, "No space left on device")

    trial = SimpleNamespace(config={"training": 7, "params": {"lr": 0.01}})
    board = TensorBoard(RunPaths(tmp_path), "val_mAP")
    board.on_trial_result(0, [], trial, {"epoch": 1, "val_mAP": 0.1})
    with monkeypatch.context() as patch:
        patch.setattr(EventsWriter, "write_event", full)
        for epoch in range(2, 50):  # more than any queue holds
            board.on_trial_result(0, [], trial, {"epoch": epoch, "val_mAP": 0.1})
    board.on_trial_result(0, [], trial, {"epoch": 50, "val_mAP": 0.5})
    board.on_trial_complete(0, [], trial)
    assert [step for step, v in events(tmp_path / "ray" / "0007") if v.tag == "val_mAP"] == [1, 50]


def test_a_trial_that_never_reported_writes_nothing(tmp_path):
    TensorBoard(RunPaths(tmp_path), "val_mAP").on_trial_complete(0, [], SimpleNamespace(config={"training": 1}))
    assert not list(tmp_path.iterdir())
