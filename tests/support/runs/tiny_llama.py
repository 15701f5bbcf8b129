"""A Llama of random weights with a tokenizer, small enough to be compared in a second."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from peftbench.measure.quality.small_llama import Recipe, train_tokenizer

TEXT = "It was the best of times, it was the worst of times, and 42 birds sang: so they said. " * 200


def tiny_llama(layers=2, width=256):
    """Frozen, in float32. Weights are large enough for quantization to change what it predicts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=320, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True, initializer_range=0.06,
            use_cache=False, bos_token_id=None, eos_token_id=0,
        ))  # fmt: skip
    return model.eval().requires_grad_(False)


def save_tiny_llama(folder):
    """As a folder that from_pretrained reads, with a text beside it."""
    tiny_llama().save_pretrained(folder)
    train_tokenizer(TEXT, Recipe(vocab_size=320)).save_pretrained(folder)
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    return folder
