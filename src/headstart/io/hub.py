"""Models by name from the Hugging Face hub: configuration, tokenizer or preprocessor, and safetensors, nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from headstart.core import Unfit, Unreadable

WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.codes", "README.md", "LICENSE*", "LICENCE*")
UNWANTED = ("onnx/*", "openvino/*", "*.bin", "*.pt", "*.py", "checkpoint-*/*", "runs/*")
NAME = re.compile(
    r"hub:(?P<repo>[A-Za-z0-9][\w.-]{0,95}(?:/[A-Za-z0-9][\w.-]{0,95})?)(?:@(?P<revision>[A-Za-z0-9][\w./-]{0,99}))?"
)


def fetched(origin: str, *, cache: Path | None = None, offline: bool = False) -> Path:
    """The local folder of `hub:org/name@revision`, downloaded when it is not in the hub's cache yet.

    cache: the hub's cache folder, by default its own. offline: do not ask the network. Raises `Unfit` for a name that
    is none, and `Unreadable`, with how to provide the folder, where the network or the model is not there.
    """
    named = NAME.fullmatch(origin)
    if not named or ".." in origin or "--" in origin:
        raise Unfit(
            f"`{origin[:120]}` is not the name of a model on the hub",
            where="the name of a source",
            fix="write it like hub:org/name or hub:org/name@revision",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    # among the bases of the first is that of its HTTP library's errors, whichever library that is
    own = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)
    expected: tuple[type[Exception], ...] = (*own, *(k for k in HfHubHTTPError.__bases__ if issubclass(k, Exception)))
    repo, revision = named["repo"], named["revision"]
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                cache_dir=cache,
                allow_patterns=list(WANTED),
                ignore_patterns=list(UNWANTED),
                local_files_only=offline,
            )
        )
    except expected as error:
        at = f" --revision {revision}" if revision else ""
        raise Unreadable(
            f"`{repo}` is not on this machine and could not be fetched ({type(error).__name__})",
            where=f"source `{origin}`",
            fix=f"on a machine with internet: hf download {repo}{at} --local-dir {repo.rpartition('/')[2]}, "
            "then copy the folder here and name it instead",
        ) from error
