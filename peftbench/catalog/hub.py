"""Fetch the config.json of a Hugging Face Hub id: that one file, never weights, never code."""

from __future__ import annotations

from collections.abc import Mapping

from peftbench.catalog.config_file import read_config_file
from peftbench.errors import CatalogError

_OTHERWISE = "download its config.json and pass the path"


def fetch_config(hub_id: str, near: str = "") -> Mapping[str, object]:
    """Return the parsed config.json of `hub_id`, from the local Hub cache when it is there.

    `near` opens the hint: the spelling that may have been meant. Raises CatalogError for every failure: no
    huggingface_hub, no network, a gated model, no such id.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise CatalogError(
            f"{hub_id} is not in the catalogue, and huggingface_hub is not installed to fetch it.",
            f"{near}To fetch it: pip install 'peftbench[hub]'. Or {_OTHERWISE}.",
        ) from None
    try:
        path = hf_hub_download(hub_id, filename="config.json")
    except Exception as error:  # its errors share no base class below Exception
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise CatalogError(
            f"{hub_id} is not in the catalogue, and the Hub gave no config.json: {why}",
            f"{near}Check the id and the network (a gated model needs `hf auth login`), or {_OTHERWISE}.",
        ) from error
    return read_config_file(path)[0]
