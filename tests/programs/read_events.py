#!/usr/bin/env python3
"""Reads what `train_text --tensorboard` wrote with TensorBoard's own reader, tensorboard 2.21.0 of PyPI.

A run that was cut and resumed, whose first process went further than its last checkpoint, must have every scalar
once, at its step, as the JSON file of the run says.

usage: read_events.py TRAIN_TEXT    needs: pip install tensorboard
"""
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

import tensorboard
from tensorboard.backend.event_processing import event_accumulator


def run(program, folder, *options):
    text = "the quick brown fox jumps over the lazy dog; " * 200
    (folder / "book.txt").write_text(text)
    command = [program, "--text", "book.txt", "--hidden", "4", "--lanes", "2", "--length", "40", "--held-out", "100",
               "--report", "2", *options]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main():
    program = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run(program, folder, "--sequences", "6", "--checkpoint", "run.ckpt")
        shutil.copy(folder / "run.ckpt", folder / "kept.ckpt")
        run(program, folder, "--sequences", "6", "--checkpoint", "again.ckpt", "--tensorboard", "events")
        # the first process goes on to 10, and what it did after 6 is lost with its machine
        run(program, folder, "--sequences", "10", "--checkpoint", "run.ckpt", "--resume", "--tensorboard", "events")
        run(program, folder, "--sequences", "12", "--checkpoint", "kept.ckpt", "--resume", "--tensorboard", "events",
            "--json", "run.json")
        course = json.loads((folder / "run.json").read_text())["course"]
        files = sorted((folder / "events").iterdir())
        assert len(files) == 3, files
        reader = event_accumulator.EventAccumulator(str(folder / "events"))
        reader.Reload()
        assert sorted(reader.Tags()["scalars"]) == ["held_out_bits", "train_bits"], reader.Tags()
        for tag in ("held_out_bits", "train_bits"):
            events = reader.Scalars(tag)
            assert [e.step for e in events] == [row["sequence"] for row in course], (tag, events)
            for event, row in zip(events, course):
                assert math.isclose(event.value, row[tag], rel_tol=1e-7), (event, row)
        times = [e.wall_time for e in reader.Scalars("train_bits")]
        assert times == sorted(times) and times[0] > 1.6e9, times
    print(f"tensorboard {tensorboard.__version__} reads {len(course)} reports of 3 files, each once, as the JSON has them")


if __name__ == "__main__":
    main()
