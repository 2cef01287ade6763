"""The command line, in which a signal arrives in the middle of a step, between D's update and G's.

Usage: signal_at_step.py STEP NUMBER ARGUMENT...
"""

import os
import sys

from gan_lightning import DCGAN
from gan_lightning.__main__ import main

step, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
original = DCGAN._generator_step


def signal_then_step(self, *arguments):
    if self.global_step + 1 == step:
        os.kill(os.getpid(), number)
    return original(self, *arguments)


DCGAN._generator_step = signal_then_step
sys.exit(main())
