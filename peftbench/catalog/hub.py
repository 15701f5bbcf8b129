"""Fetch the config.json of a Hugging Face Hub id: that one file, never weights, never code."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.base.errors import CatalogError, install_hint
from peftbench.base.files import MOST_BYTES
from peftbench.catalog.config_file import read_config_file

_FILE = "config.json"
_TIMEOUT_S = 5.0
_OTHERWISE = "download its config.json and pass the path"


def fetch_config(hub_id: str, near: str = "") -> Mapping[str, object]:
    """Return the parsed config.json of `hub_id`, from the local Hub cache when it is there.

    `near` opens the hint: the spelling that may have been meant. Raises CatalogError for every failure: no
    huggingface_hub, no network, a gated model, no such id.
    """
    try:
        path = _download(hub_id)
    except ImportError:
        raise CatalogError(
            f"{hub_id} is not in the catalogue, and huggingface_hub is not installed to fetch it.",
            f"{near}{install_hint('huggingface_hub')}. Or {_OTHERWISE}.",
        ) from None
    except Exception as error:  # its errors share no base class below Exception
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise CatalogError(
            f"{hub_id} is not in the catalogue, and the Hub gave no config.json: {why}",
            f"{near}Check the id and the network (a gated model needs `hf auth login`), or {_OTHERWISE}.",
        ) from error
    return read_config_file(path)[0]


def _download(hub_id: str) -> str:
    """The path in the Hub cache; asks once first, because a download retries for half a minute."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(hub_id, _FILE)
    if isinstance(cached, str):
        return cached
    size = get_hf_file_metadata(hf_hub_url(hub_id, _FILE), timeout=_TIMEOUT_S).size
    if size and size > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, far too many for a config.json")
    return hf_hub_download(hub_id, _FILE)
