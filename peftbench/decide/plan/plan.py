"""The answer as one value: a recipe, its memory, whether it fits a card, and what would make it fit."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from peftbench.base.plain import check_classes
from peftbench.base.units import gib, human_bytes, human_count
from peftbench.decide.card import Notes, settle_inference, settle_training
from peftbench.decide.recipe import Options, recipe_options
from peftbench.decide.verdict import Fit, Unpriced, Verdict, ended, judge, widened
from peftbench.estimate.forward.kernels import attention_kernel
from peftbench.estimate.parts.base_weights import checkpoint_bytes, quantized_weights
from peftbench.estimate.parts.card import traits_of
from peftbench.estimate.peft_forward.dispatch import activations_modelled
from peftbench.estimate.peft_types.tensors import adapter_file_bytes
from peftbench.estimate.time.constants import check_framework
from peftbench.estimate.time.flops import experts
from peftbench.estimate.time.step import StepTime, step_time
from peftbench.estimate.training import estimate_training, trainable_parameters
from peftbench.inputs.card.gpu import GpuSpec
from peftbench.inputs.model.spec import ModelSpec, OtherModel
from peftbench.inputs.model.weights import built_by, num_parameters
from peftbench.inputs.recipe import InferenceSpec, TrainingSpec
from peftbench.memory import MemoryProfile, Part, Phase

if TYPE_CHECKING:
    from peftbench.decide.asked import Asked
    from peftbench.decide.plan.advice import Change
    from peftbench.decide.plan.effects import Effects
    from peftbench.dryrun.extrapolate import Extrapolation
    from peftbench.dryrun.session import DryRun


class Plan(NamedTuple):
    """One recipe on one card. `recipe` is what was priced; where that was not asked for, `notes` say so."""

    model: ModelSpec | OtherModel
    gpu: GpuSpec | None
    """None for a plan without a card, which has no verdict."""
    recipe: TrainingSpec | InferenceSpec
    profile: MemoryProfile
    verdict: Verdict | None
    changes: tuple[Change, ...]
    """What would make it fit, from free to costly; empty when it fits."""
    trainable_parameters: int
    """0 for inference."""
    adapter_file_bytes: int
    """On disk: the adapter, or the whole model where there is none."""
    notes: Notes
    """What a reader should know, one sentence each."""
    dry_run: DryRun | Extrapolation | None = None
    """The same recipe on fake tensors, where that was asked for; the profile itself where there is no formula."""
    effects: Effects | None = None
    """Times and losses of quality; None for training and for an architecture without formula."""
    time: StepTime | None = None
    """The time of a training step; None without a card, and where something about it is unknown."""
    unpriced: tuple[Unpriced, ...] = ()
    """Settings of another tool's file that change the memory in a way that is not in `profile`."""

    def __str__(self) -> str:
        return self.summary

    @property
    def task(self) -> str:
        """ "training" or "inference"."""
        return "training" if isinstance(self.recipe, TrainingSpec) else "inference"

    @property
    def method(self) -> str:
        """The name people use: "full", "lora", "qlora", "ia3" …"""
        return self.recipe.method

    @property
    def dry_verdict(self) -> Verdict | None:
        """The dry run judged on the card: how its replay there ends decides, where it was replayed."""
        if self.dry_run is None or self.gpu is None:
            return None
        verdict, card = judge(self.dry_run.profile, self.gpu), getattr(self.dry_run, "on_card", None)
        return verdict if card is None else ended(verdict, bool(card.failure), card.num_alloc_retries)

    @property
    def judged(self) -> Verdict | None:
        """The verdict on what is priced or bounded: of a dry run, which is closer to the truth, if there is one."""
        return widened(verdict, self.unpriced) if (verdict := self.dry_verdict or self.verdict) else None

    @property
    def final_verdict(self) -> Verdict | None:
        """The verdict that counts; None without a card, and where a setting that is not priced may turn it."""
        return None if self.doubts else self.judged

    @property
    def doubts(self) -> tuple[Unpriced, ...]:
        """The settings that are not priced and may turn the verdict on what is."""
        verdict = self.judged
        return tuple(each for each in self.unpriced if each.may_turn(verdict)) if verdict else ()

    def without_price_of(self, unpriced: tuple[Unpriced, ...]) -> Plan:
        """The same plan with settings that are not priced, under which its changes are judged too."""
        return self._replace(unpriced=unpriced, changes=tuple(c.under(unpriced) for c in self.changes))

    @property
    def summary(self) -> str:
        """The first line of an answer: the word, the need and what is left."""
        verdict, what = self.judged, self.summary_subject + (", by dry run," if self.dry_run else "")
        if verdict is None or self.gpu is None:
            profile = self.dry_run.profile if self.dry_run else self.profile
            need = f"needs {gib(profile.device_bytes)} GiB, up to {gib(profile.device_high_bytes)} within its band"
            return f"no card: {what} {need}"
        if self.doubts:
            names = ", ".join(each.setting for each in self.doubts)
            return f"no verdict: {what} {verdict.need}, without what is not priced: {names}"
        return verdict.line(what)

    @property
    def summary_subject(self) -> str:
        """The method and where it runs: "qlora on t4"."""
        gpus = self.recipe.parallelism.gpus
        if self.gpu is None:
            return self.method
        card = {"given": "this card", "local": self.gpu.product}.get(self.gpu.name, self.gpu.name)
        return f"{self.method} on {card if gpus == 1 else f'each of {gpus} × {card}'}"

    @property
    def by_formula(self) -> bool:
        """Whether `profile` is an estimate: an architecture or adapter without formula has the dry run alone."""
        return self.dry_run is None or self.profile is not self.dry_run.profile

    @property
    def variable(self) -> tuple[ModelSpec, TrainingSpec, GpuSpec] | None:
        """What advice can vary: a training recipe with a formula, on a card."""
        if isinstance(self.model, ModelSpec) and isinstance(self.recipe, TrainingSpec) and self.gpu and self.by_formula:
            return self.model, self.recipe, self.gpu
        return None

    @property
    def trainable_share(self) -> float:
        """Trained parameters by those of the base model."""
        return self.trainable_parameters / num_parameters(self.model)

    @property
    def options(self) -> Options:
        """The priced recipe as flat options, under their names on the command line."""
        return recipe_options(self.recipe)


def make_plan(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None = None, with_changes: bool = True,
    framework: str = "transformers", asked: Asked | None = None,
) -> Plan:  # fmt: skip
    """Price a training recipe and judge it on a card; without a card there is no verdict.

    `asked` is the question that led to it, over which its advice is typed; None: over the recipe itself. Raises
    SpecError where the model, the card or PEFT cannot run it.
    """
    check_classes(model=(model, ModelSpec), recipe=(training, TrainingSpec), gpu=(gpu, GpuSpec | None))
    check_framework(framework)
    settled, notes = settle_training(model, training, gpu)
    profile, built = estimate_training(model, settled, gpu), built_by(model, settled.transformers)
    plan = Plan(
        model=model, gpu=gpu, recipe=settled, profile=profile, verdict=judge(profile, gpu) if gpu else None, changes=(),
        trainable_parameters=trainable_parameters(model, settled),
        adapter_file_bytes=_file_bytes(built, settled),
        notes=(
            *notes, *_framework_notes(framework), *_weight_notes(built, settled),
            *_attention_notes(model, settled, gpu), *_activation_notes(settled), *_sharding_notes(model, settled),
            *_loading_notes(settled, profile), *_reduction_notes(model, settled, gpu, profile),
            *_connection_notes(model, settled, gpu, profile),
        ),
        time=step_time(model, settled, gpu, framework) if gpu else None,
    )  # fmt: skip
    return advised(plan, asked) if with_changes else plan


def advised(plan: Plan, asked: Asked | None = None) -> Plan:
    """The plan with what would make it fit: changes, and the number of cards. A plan that fits stays as it is.

    Advice is loaded where it is wanted: a comparison starts faster without.
    """
    if plan.variable is None:
        return plan
    from peftbench.decide.plan.advice import suggest

    notes = dict.fromkeys((*plan.notes, *_count_notes(*plan.variable, plan.verdict, asked)))
    return plan._replace(changes=suggest(*plan.variable, asked), notes=tuple(notes))


def make_inference_plan(model: ModelSpec, inference: InferenceSpec, gpu: GpuSpec | None = None) -> Plan:
    """Price a generation request and judge it on a card; it has no changes.

    Raises SpecError where the model, the card or PEFT cannot run it.
    """
    check_classes(model=(model, ModelSpec), recipe=(inference, InferenceSpec), gpu=(gpu, GpuSpec | None))
    from peftbench.decide.plan.effects import effects_of  # planning training does not pay for either
    from peftbench.estimate.inference import estimate_inference

    settled, notes = settle_inference(model, inference, gpu)
    profile = estimate_inference(model, settled, gpu)
    return Plan(
        model=model, gpu=gpu, recipe=settled, profile=profile, verdict=judge(profile, gpu) if gpu else None, changes=(),
        trainable_parameters=0, adapter_file_bytes=_file_bytes(model, settled),
        notes=(*notes, *_weight_notes(model, settled)),
        effects=effects_of(model, settled, gpu) if settled.parallelism.gpus == 1 else None,  # times of one card
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _file_bytes(model: ModelSpec, recipe: TrainingSpec | InferenceSpec) -> int:
    if recipe.adapter is None:
        return checkpoint_bytes(model, recipe.dtype)
    return adapter_file_bytes(model, recipe.adapter, recipe.dtype)


def _framework_notes(framework: str) -> Notes:
    """Another framework has its own time here, and no memory of its own."""
    if framework == "transformers":
        return ()
    saved = {"unsloth": " (checkpoints in host memory, its kernels, a loss in chunks)"}.get(framework, "")
    alone = f"--framework {framework} changes the time alone: memory is that of transformers"
    return (f"{alone}, what {framework} saves{saved} is not priced.",)


def _attention_notes(model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None) -> Notes:
    """Where attention keeps a score for every pair of tokens, because no fused kernel takes the recipe."""
    kernel = attention_kernel(model, training, traits_of(gpu))
    if kernel == "math" and gpu is not None and not gpu.has_bfloat16:
        return (f"SDPA has no fused kernel for grouped-query heads on {gpu.name}: every pair of tokens is kept.",)
    if kernel == "eager" and training.attention == "sdpa":
        return (f"transformers has no SDPA for {model.model_type}: attention runs eagerly, every pair is kept.",)
    return ()


def _activation_notes(training: TrainingSpec) -> Notes:
    """Where the activations are those of a generic adapter, and where checkpointing does not reach them."""
    kept = training.quantization.scheme.keeps_inputs if training.quantization else ""
    unseen = kept and training.gradient_checkpointing and not training.use_reentrant
    notes = (kept,) if unseen else ()
    if training.adapter is None or activations_modelled(training.adapter):
        return notes
    generic = f"What {training.adapter.peft_type} keeps for backward is not modelled: its activations are a guess."
    return (*notes, generic)


def _sharding_notes(model: ModelSpec, training: TrainingSpec) -> Notes:
    """What sharding asks of the libraries, and offload of the host."""
    quantization, notes = training.quantization, list(_host_notes(model, training))
    if quantization is not None and training.parallelism.shards_weights:
        option = quantization.scheme.storage_option
        option = f": {option}={quantization.compute_dtype.value}" if option else ""
        notes.append(f"4-bit weights are only sharded when stored in a floating dtype{option}.")
    return tuple(notes)


def _loading_notes(training: TrainingSpec, profile: MemoryProfile) -> Notes:
    """Why loading needs more than training, and what would load the model in parts."""
    if profile.peak_phase is not Phase.LOAD or not training.parallelism.shards_weights:
        return ()
    why = "the peak is in loading, where each GPU holds the whole model before it is cut"
    if training.parallelism.strategy != "zero3":
        return (f'{why}: device_map={{"": "cpu"}} in from_pretrained sends it its part only, --loading sharded.',)
    if training.quantization is not None:
        return (f"{why}: zero.Init leaves quantized models out.",)
    return (f"{why}: TrainingArguments made before from_pretrained switch zero.Init on, --loading sharded.",)


def _reduction_notes(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None, profile: MemoryProfile
) -> Notes:
    """What FSDP's whole gradients take, where they wait for the last micro-batch."""
    if not training.defers_reduction:
        return ()
    synced = estimate_training(model, replace(training, sync_each_batch=True), gpu)
    saved_bytes = profile.needed_bytes - synced.needed_bytes
    why = "the Trainer reduces gradients with the last micro-batch only, so FSDP keeps whole ones until then"
    return (f"{why}: --sync-each-batch saves {human_bytes(saved_bytes)}.",) if saved_bytes > 0 else ()


def _connection_notes(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec | None, profile: MemoryProfile
) -> Notes:
    """Why each of three GPUs or more can need more than each of two; the links of a plan are not measured."""
    nccl_bytes = profile.bytes_of(Part.NCCL)
    if training.parallelism.gpus < 3 or 20 * nccl_bytes < profile.needed_bytes:
        return ()
    two = estimate_training(model, replace(training, parallelism=replace(training.parallelism, gpus=2, nodes=1)), gpu)
    more = profile.needed_bytes - two.needed_bytes
    if not 0 < more <= nccl_bytes - two.bytes_of(Part.NCCL):
        return ()
    why = "NCCL connects each of three or more to two neighbours of its tree, each of two to one"
    return (f"each of two GPUs would need {human_bytes(more)} less: {why}.",)


def _host_notes(model: ModelSpec, training: TrainingSpec) -> Notes:
    """How much of the host's memory offload takes: that of a node, and what one GPU has of it."""
    if not training.parallelism.cpu_offload:
        return ()
    from peftbench.estimate.training import host_bytes

    each_bytes = host_bytes(model, training)
    node_bytes = training.parallelism.gpus_per_node * each_bytes
    moved = f"CPU offload keeps {human_bytes(node_bytes)} in the host's memory"
    return (f"{moved}, {human_bytes(each_bytes)} for each GPU: every node needs that beside what its programs take.",)


def _count_notes(
    model: ModelSpec, training: TrainingSpec, gpu: GpuSpec, verdict: Verdict | None, asked: Asked | None
) -> Notes:
    """How many of these cards would do, where one, or as many as were asked for, is too few."""
    if gpu.is_cpu or verdict is None or verdict.fit is not Fit.DOES_NOT_FIT:
        return ()
    from peftbench.decide.plan.gpu_count import more_cards  # a plan that fits does not pay for the search

    found = more_cards(model, training, gpu, asked)
    if found is None:
        return ()
    shared, words = found
    return (f"fits on {shared.gpus} × {gpu.name} with {shared.strategy}: {' '.join(words)}.",)


@lru_cache(maxsize=1024)
def _weight_notes(model: ModelSpec, recipe: TrainingSpec | InferenceSpec) -> Notes:
    """What a quantization leaves alone, and what the checkpoint says of its own."""
    if recipe.quantization is None:
        stored = model.stored_quantization
        note = f"the checkpoint is stored as {stored}: priced as if its weights were {recipe.dtype.value}."
        return (note,) if stored else ()
    quantized, library = quantized_weights(model, recipe.quantization), recipe.quantization.scheme.library
    if not quantized and not model.num_experts:
        return (f"transformers quantizes no linear layer of {model.model_type}: all weights stay 16 bit.",)
    kept = "float32" if recipe.quantization.upcast_unquantized else recipe.dtype.value
    note = f"{library} leaves embeddings, lm_head and norms alone: they stay {kept}."
    if not model.num_experts or model.split_experts:
        return (note,)
    if recipe.quantization.scheme.reaches_experts:
        return (note, f"a checkpoint of {library} holds each expert's matrices apart; adapters on them are a guess.")
    return (
        note,
        f"{library} does not quantize the fused experts of transformers{' 5' if model.family.split_experts else ''}: "
        f"{human_count(experts(model))} of {human_count(num_parameters(model))} parameters stay {kept}.",
        *((_four_bit_experts(model),) if isinstance(recipe, TrainingSpec) else ()),
    )


def _four_bit_experts(model: ModelSpec) -> str:
    """Who stores experts in 4 bit, where bitsandbytes finds fused parameters."""
    if model.family.split_experts:
        return "Experts in 4 bit: Unsloth quantizes them, and --transformers 4.48 has linear layers of them."
    return "Experts in 4 bit: Unsloth quantizes them; transformers itself does not train on MXFP4 as it comes."
