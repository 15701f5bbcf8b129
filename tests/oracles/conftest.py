"""What the real classes need before tests ask for them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def mistral4_is_a_causal_language_model() -> None:
    """transformers 5.23 has its class only for what it reads images with, under the language model's own model_type."""
    try:
        from transformers import AutoModelForCausalLM, Mistral4Config, Mistral4ForCausalLM
    except ImportError:
        return
    AutoModelForCausalLM.register(Mistral4Config, Mistral4ForCausalLM, exist_ok=True)
