"""Run the command line on a rank that fails at a chosen place: run by test_rank_watch.py.

Usage: PLACE=... RANKS=... DEAF=... GRACE=... fail_on_ranks.py WORDS..., where DEAF is 1 if the other ranks wait as in
a collective of nccl, which nothing interrupts, and GRACE the seconds for which the watch lets them end by themselves.
PLACE may be followed by -refuse, -kill or -stop.
"""

import os
import signal
import sys
import time

from lightning.pytorch.utilities import rank_zero_only

from gan_lightning import DCGAN, InputError, SyntheticFaces
from gan_lightning.__main__ import main
from gan_lightning.callbacks.evaluation import GenerationMetrics
from gan_lightning.callbacks.samples import SampleGrid, SampleWriter
from gan_lightning.resume import rank_watch
from gan_lightning.resume.checkpoint_io import WholeCheckpoints

PLACES = {  # name -> class and method that fails, or is never left by deaf ranks, and at which call
    "prepare": (SyntheticFaces, "prepare_data", 1),
    "setup": (DCGAN, "setup", 1),
    "data": (SyntheticFaces, "on_after_batch_transfer", 2),
    "step": (DCGAN, "on_before_optimizer_step", 4),
    "evaluation": (GenerationMetrics, "_measure", 1),
    "grid": (SampleGrid, "_draw", 2),
    "saving": (WholeCheckpoints, "save_checkpoint", 1),
    "predict": (DCGAN, "predict_step", 1),
    "writing": (SampleWriter, "on_predict_batch_end", 1),
}


def fail(how):
    print(f"failed at {time.time()}", file=sys.stderr, flush=True)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
        return
    raise InputError("one rank is refused") if how == "refuse" else RuntimeError("one rank is broken")


def spoil(place, ranks, deaf):
    place, _, how = place.partition("-")
    owner, name, number = PLACES[place]
    method, calls = getattr(owner, name), 0

    def spoiled(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number and str(rank_zero_only.rank) in ranks:
            fail(how)
        if calls == number and deaf:
            time.sleep(3600)
        return method(*args, **kwargs)

    setattr(owner, name, spoiled)


if __name__ == "__main__":
    rank_watch.GRACE = float(os.environ["GRACE"])
    spoil(os.environ["PLACE"], os.environ["RANKS"].split(","), os.environ["DEAF"] == "1")
    sys.exit(main())
