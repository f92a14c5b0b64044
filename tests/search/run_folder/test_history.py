from search.run_folder.history import append_epoch, read_history, start_history


def test_all_digits_are_kept(tmp_path):
    file = tmp_path / "history" / "0007.jsonl"
    start_history(file)
    epochs = [{"epoch": 1, "lr": 0.1 + 0.2, "val_mAP": 1 / 3}, {"epoch": 2, "lr": 1e-17, "val_mAP": 2 / 3}]
    for epoch in epochs:
        append_epoch(file, epoch)
    assert read_history(file) == {1: epochs[0], 2: epochs[1]}


def test_a_training_that_starts_again_replaces_its_history(tmp_path):
    file = tmp_path / "0.jsonl"
    for score in (0.1, 0.2):
        start_history(file)
        append_epoch(file, {"epoch": 1, "val_mAP": score})
    assert read_history(file) == {1: {"epoch": 1, "val_mAP": 0.2}}


def test_a_line_that_was_cut_off_is_skipped(tmp_path):
    file = tmp_path / "0.jsonl"
    file.write_text('{"epoch": 1, "val_mAP": 0.5}\n{"epoch": 2, "val_m')
    assert read_history(file) == {1: {"epoch": 1, "val_mAP": 0.5}}


def test_no_file_is_no_history(tmp_path):
    assert read_history(tmp_path / "missing.jsonl") == {}
