"""Command lines as users type them, run in the process of the test, and what they leave."""

import time
from pathlib import Path

from gan_lightning.__main__ import main
from tests.conftest import FACES

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL = ["--data.image_size", "16", "--data.batch_size", "16"]
SMALL += ["--model.image_size", "16", "--model.base_channels", "4"]
SMALL += ["--evaluation.extractor", "random", "--evaluation.num_images", "10"]
SMALL += ["--trainer.accelerator", "cpu", "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
SMALL += ["--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false", "--sample_grid.num_images", "4"]


def command(*arguments):
    """Run a command line in this process, and return its exit status."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def fit(faces_root, *more, config="quickstart.yaml", name="run"):
    return command("fit", "--config", CONFIGS / config, *SMALL, "--data.root", faces_root, "--name", name, *more)


def restoration_words(finished, faces_root, name, *more, run="restored"):
    """Return a command that restores two faces in a few steps with a shipped configuration."""
    arguments = ["--model.generator_ckpt", finished / "checkpoints" / "best.ckpt", "--data.root", faces_root]
    arguments += ["--data.count", FACES, "--data.image_size", "16", "--data.eval_batch_size", "2"]
    arguments += ["--model.inversion.num_steps", "3", "--model.inversion.refine_steps", "3"]
    arguments += ["--trainer.limit_test_batches", "1"]
    arguments += ["--trainer.accelerator", "cpu"]
    if name == "inpaint":
        arguments += ["--model.degradation.init_args.image_size", "16", "--model.degradation.init_args.hole_size", "4"]
    return ["test", "--config", CONFIGS / "restore" / f"{name}.yaml", *arguments, "--name", run, *more]


def restore(*arguments, **more):
    return command(*restoration_words(*arguments, **more))


def refusal(capsys, status):
    """Return the line printed by a refused command."""
    assert status == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("gan-lightning: error: ")
    return lines[0]


def finished_wandb_run(wandb_folder, patience=60):
    """Return the folder and the records of an offline run, once W&B's own process has written the last record."""
    until = time.monotonic() + patience
    while True:
        for path in wandb_folder.glob("offline-run-*/*.wandb"):
            records = read_wandb_records(path)
            if any(record.WhichOneof("record_type") == "exit" for record in records):
                return path.parent, records
        assert time.monotonic() < until, "W&B has not finished its file"
        time.sleep(0.2)


def read_wandb_records(path):
    """Read an offline run: a header of 7 bytes, then records in the LevelDB format with blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts, records = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or last
            records.append(Record.FromString(parts))
            parts = b""
    return records
