"""The model hub: the newest commit of a model, its files, and what happens when they are unavailable."""

from fnmatch import fnmatch
from pathlib import Path

from engine.errors import ModelError, UsageError
from engine.model.checkpoints import PICKLES, SAFETENSORS, SIDE_FILES, pattern_of

HUB_SECONDS = 10.0
"""To wait for the hub's first answer."""


def config_of(hub_id: str, flag: str) -> Path:
    """The config.json of a hub model at its newest commit, or at the one in the hub's cache when there is no network.

    The cache keeps it as snapshots/<commit>/config.json. Errors: UsageError, ModelError.
    """
    from httpx2 import TransportError
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        if try_to_load_from_cache(hub_id, "config.json") is None:
            # Asked once: a download that cannot reach the hub tries again for half a minute.
            get_hf_file_metadata(hf_hub_url(hub_id, "config.json"), timeout=HUB_SECONDS)
        return Path(hf_hub_download(hub_id, "config.json"))
    except HFValidationError as error:
        raise UsageError(f"{hub_id}: not a folder and not a hub id (owner/name). Give {flag} one of these.") from error
    except GatedRepoError as error:
        raise ModelError(
            f"{hub_id} is gated: accept its terms on its page on the hub, then log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"{hub_id}: the hub has no such model, or it is private and you are not logged in.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, TransportError, OSError) as error:
        raise ModelError(
            f"{hub_id}: the hub cannot be reached ({type(error).__name__}) and the model is not in its cache. "
            f"Check the network, or give {flag} a local folder."
        ) from error


def weights_of(config: Path, hub_id: str) -> str:
    """The pattern of the files that hold a model's weights (`checkpoints.pattern_of`), at the commit of its cached
    `config` (`config_of`). Asks the hub for its list of files, unless the cache has weights. Errors: ModelError."""
    from httpx2 import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    cached = [path.name for path in config.parent.iterdir()]
    if any(fnmatch(name, pattern) for name in cached for pattern in (SAFETENSORS, PICKLES)):
        return pattern_of(cached, hub_id)
    try:
        info = HfApi().model_info(hub_id, revision=config.parent.name, timeout=HUB_SECONDS)
    except (HfHubHTTPError, OfflineModeIsEnabled, TransportError, OSError) as error:
        raise ModelError(
            f"{hub_id}: cannot list its files on the hub ({type(error).__name__}), and its weights are not in the "
            "cache. Check the network, or give a local folder."
        ) from error
    return pattern_of((file.rfilename for file in info.siblings or []), hub_id)


def download(hub_id: str, revision: str, weights: str) -> Path:
    """The folder of a hub model at a commit: configuration, tokenizer, weights of that pattern. Errors: ModelError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*SIDE_FILES, weights]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(f"{hub_id}: its weights could not be downloaded: {error}") from error
