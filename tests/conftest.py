"""One thread and no network, for every test: set before anything can load a library that reads the environment."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["OMP_NUM_THREADS"] = "1"  # torch reads this when it loads, so it need not be loaded here
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

settings.register_profile("headstart", deadline=None)  # a busy machine is no fault
settings.load_profile("headstart")
