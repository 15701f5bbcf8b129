"""One process of a sharded training step on the CPU: prints, as JSON, what its part of the model weighs.

python sharded_run.py fsdp|zero1|zero2|zero3 full|tied|lora|qlora PASSES RANK WORLD PORT
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

CONFIG = {
    "model_type": "llama", "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3,
    "num_key_value_heads": 1, "intermediate_size": 101, "vocab_size": 2111, "max_position_embeddings": 64,
    "head_dim": 16, "tie_word_embeddings": False,
}  # fmt: skip
"""Odd sizes, so that parts are padded; embeddings and head alone are too large for ZeRO-3 to keep whole."""
CONFIGS = {
    "full": CONFIG, "lora": CONFIG, "tied": {**CONFIG, "tie_word_embeddings": True},
    "qlora": {**CONFIG, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 192},
}  # fmt: skip
"""By method; bitsandbytes multiplies on a CPU only where a row has whole blocks of 64."""
RANK = 5
"""r of the adapter."""
TOKENS = 12


def main() -> None:
    """Join the other processes, take one step, print the bytes."""
    import torch
    import torch.distributed as dist

    strategy, method, passes, rank, world, port = sys.argv[1:]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": world}
    os.environ |= {"LOCAL_RANK": rank}
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    model = _model(method)
    sizes = _fsdp(model, int(passes)) if strategy == "fsdp" else _deepspeed(model, int(strategy[-1]))
    print(json.dumps(sizes), flush=True)
    dist.destroy_process_group()


def _model(method: str) -> Any:
    """A small model in bfloat16; PEFT makes the adapter float32."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**CONFIGS[method])).to(torch.bfloat16)
    if method in ("full", "tied"):
        return model
    if method == "qlora":
        _quantize(model)
    return get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear"))


def _quantize(model: Any) -> None:
    """Linear layers of the decoder in NF4, their codes stored as bfloat16: what FSDP can cut."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    settings = {"quant_type": "nf4", "compress_statistics": True, "quant_storage": torch.bfloat16}
    for parent in [module for layer in model.model.layers for module in layer.modules()]:
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                linear = Linear4bit(child.in_features, child.out_features, False, torch.bfloat16, **settings)
                linear.weight = Params4bit(child.weight.data, requires_grad=False, module=linear, **settings)
                linear.support_avx512bf16_for_cpu = False  # it would pack the codes in place
                setattr(parent, name, linear.to("cpu"))
    model.is_loaded_in_4bit = True  # PEFT chooses its layers by that


def _batch() -> dict[str, Any]:
    import torch

    tokens = torch.randint(0, CONFIG["vocab_size"], (1, TOKENS))
    return {"input_ids": tokens, "labels": tokens}


def _fsdp(model: Any, passes: int) -> dict[str, int]:
    """As accelerate does it under mixed precision: trained parameters in float32, a unit a layer, then the rest.

    All but the last of several micro-batches run under its no_sync, which is set_requires_gradient_sync(False).
    """
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    for layer in [m for m in model.modules() if type(m).__name__ == "LlamaDecoderLayer"]:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    accumulated = 0
    for number in range(passes):
        model.set_requires_gradient_sync(number == passes - 1)
        accumulated = _whole_gradient_bytes(model)
        model(**_batch()).loss.backward()
    optimizer.step()
    moments = [s for state in optimizer.state.values() for name, s in state.items() if name != "step"]
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return {
        "frozen": _local_bytes(p for p in model.parameters() if not p.requires_grad),
        "trained": _local_bytes(p for p in model.parameters() if p.requires_grad),
        "accumulated": accumulated,
        "gradients": _local_bytes(gradients),
        "states": _local_bytes(moments),
    }


def _whole_gradient_bytes(model: Any) -> int:
    """Gradients that are not reduced yet: in the type they came in, or cast to that of the reduction."""
    groups = {id(group): group for m in model.modules() if (group := _group_of(m)) is not None}
    parameters = [p for group in groups.values() for p in group.fsdp_params if hasattr(p, "_unsharded_param")]
    held = [g for p in parameters for g in (p._unsharded_param.grad, p.unsharded_accumulated_grad) if g is not None]
    return sum(g.numel() * g.element_size() for g in held)


def _group_of(module: Any) -> Any:
    from torch.distributed.fsdp import FSDPModule

    return module._get_fsdp_state()._fsdp_param_group if isinstance(module, FSDPModule) else None


def _local_bytes(tensors: Any) -> int:
    return sum(t.to_local().numel() * t.element_size() for t in tensors)


def _deepspeed(model: Any, stage: int) -> dict[str, int]:
    """Partitions of the parameters, the float32 master copy and the states of torch's AdamW over it."""
    import deepspeed
    import torch

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # gloo does; this one would be compiled first
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p for p in model.parameters() if not p.requires_grad]
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": stage, "reduce_bucket_size": 200_000},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=torch.optim.AdamW(trained), config=settings)
    engine.backward(engine(**_batch()).loss)
    engine.step()
    optimizer = engine.optimizer
    masters = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    states = [s for state in optimizer.optimizer.state.values() for name, s in state.items() if name != "step"]

    def held(parameters: list[Any]) -> int:
        if stage == 3:
            return sum(p.ds_tensor.numel() * p.ds_tensor.element_size() for p in parameters)
        return sum(p.numel() * p.element_size() for p in parameters)

    def whole(parameters: list[Any]) -> int:
        """Those that are there after the step, though all are cut."""
        return sum(p.numel() * p.element_size() for p in parameters if stage == 3 and p.numel() == p.ds_numel)

    return {
        "frozen": held(frozen),
        "trained": held(trained),
        "persistent": whole(frozen + trained),
        "master": sum(m.numel() * m.element_size() for m in masters),
        "states": sum(s.numel() * s.element_size() for s in states),
    }


if __name__ == "__main__":
    main()
