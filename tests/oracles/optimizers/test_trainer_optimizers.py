"""States of the optimizer that the real Trainer makes: it keeps those of embeddings in 32 bit."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("bitsandbytes")

from peftbench.estimate.parts.base_weights import trained_weights  # noqa: E402
from peftbench.estimate.parts.optimizer import optimizer_bytes  # noqa: E402
from peftbench.inputs.model.config_json import read_config  # noqa: E402
from peftbench.inputs.recipe import DType  # noqa: E402

pytestmark = pytest.mark.oracle

CONFIG = {
    "model_type": "llama", "vocab_size": 1000, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def held(name, tied):
    """Bytes of all states after a step, of tensors of more than one element; each storage once."""
    config = {key: value for key, value in CONFIG.items() if key != "model_type"}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config, tie_word_embeddings=tied))
    row = {"input_ids": torch.arange(16), "labels": torch.arange(16)}
    arguments = transformers.TrainingArguments(
        output_dir="unused", max_steps=1, use_cpu=True, optim=name, report_to=[], save_strategy="no", disable_tqdm=True
    )
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=[row])
    trainer.train()
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    tensors = [value for state in optimizer.state.values() for value in state.values()]
    storages = {t.untyped_storage()._cdata: t.nbytes for t in tensors if isinstance(t, torch.Tensor) and t.numel() > 1}
    return sum(storages.values())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["adamw_bnb_8bit", "lion_8bit", "rmsprop_bnb_8bit", "ademamix_8bit", "adamw_torch"])
def test_states_are_those_of_the_trainer(name, tied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = trained_weights(read_config({**CONFIG, "tie_word_embeddings": tied}, "tiny", "here"), DType.FLOAT32)
    priced = optimizer_bytes(tensors, name, by_trainer=True)
    assert priced.state_bytes + priced.paged_bytes == held(name, tied)
