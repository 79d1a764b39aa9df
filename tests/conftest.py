"""One thread and no network, for every test: set before anything can load a library that reads the environment."""

from __future__ import annotations

import os
import signal

from hypothesis import settings
from hypothesis.database import InMemoryExampleDatabase

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads this when it loads, so it need not be loaded here
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C

# No deadline: a busy machine is no fault. A database even where CI turns it off: Hypothesis stacks one settings object
# per case of a parametrised test, and without one it asks the whole stack for it, too deep in the test of the laws.
settings.register_profile("headstart", deadline=None, database=settings.default.database or InMemoryExampleDatabase())
settings.load_profile("headstart")
