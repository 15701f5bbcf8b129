"""Fetch the config.json of a Hugging Face Hub id: that one file, never weights, never code."""

from __future__ import annotations

import re
from collections.abc import Mapping

from peftbench.base.errors import CatalogError, install_hint
from peftbench.base.files import MOST_BYTES
from peftbench.catalog.config_file import read_config_file

_FILE = "config.json"
_TIMEOUT_S = 5.0
_OTHERWISE = "download its config.json and pass the path"
_ID = r"([\w.-]+/[\w.-]+)"
_AT = re.compile(rf"^https?://[^/]+/(?:api/resolve-cache/models/{_ID}/|{_ID}/resolve/)", re.ASCII)


def fetch_config(hub_id: str, near: str = "") -> tuple[Mapping[str, object], str]:
    """Return the parsed config.json of `hub_id`, from the local Hub cache when it is there, and the id it has now.

    `near` opens the hint: the spelling that may have been meant. Raises CatalogError for every failure: no
    huggingface_hub, no network, a gated model, no such id.
    """
    try:
        path, now = _download(hub_id)
    except ImportError:
        raise CatalogError(
            f"{hub_id} is not in the catalogue, and huggingface_hub is not installed to fetch it.",
            f"{near}{install_hint('huggingface_hub')}. Or {_OTHERWISE}.",
        ) from None
    except Exception as error:  # its errors share no base class below Exception
        why, remedy = _why(error)
        raise CatalogError(
            f"{hub_id} is not in the catalogue, and the Hub gave no config.json: {why}",
            f"{near}{remedy}, or {_OTHERWISE}.",
        ) from error
    return read_config_file(path)[0], now


def _download(hub_id: str) -> tuple[str, str]:
    """The path in the Hub cache, and the id; asks once first, because a download retries for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, _FILE)
    if isinstance(cached, str):
        return cached, hub_id
    found = get_hf_file_metadata(hf_hub_url(hub_id, _FILE), timeout=_TIMEOUT_S)
    if found.size and found.size > MOST_BYTES:
        raise ValueError(f"it has {found.size:,} bytes, far too many for a config.json")
    moved = _AT.match(found.location)  # a repository that was renamed answers with its new address
    now = moved[1] or moved[2] if moved else hub_id
    return hf_hub_download(now, _FILE), now


def _why(error: Exception) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated.", "Accept its terms on its page and run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or it is private.", "Check the id, run `hf auth login` for a private one"
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return "the repository has none.", "Pass the id of its base model"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE keeps it from asking.", "Unset HF_HUB_OFFLINE"
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return said, "Check the id and the network"
