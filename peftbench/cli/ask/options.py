"""The options of `peftbench plan`, in the sections in which its help shows them.

An option that was not given is None, so that the specs' own defaults apply and an option that belongs to none
of the chosen methods can be refused rather than ignored.
"""

from __future__ import annotations

from typing import Any

import click

from peftbench.cli.ask.calibration_option import CALIBRATION
from peftbench.decide.recipe import ZERO_GRADS
from peftbench.estimate.time.constants import FRAMEWORKS
from peftbench.inputs.recipe.adapter import AdapterSpec
from peftbench.inputs.recipe.dtype import DType
from peftbench.inputs.recipe.inference import InferenceSpec
from peftbench.inputs.recipe.parallelism import MAX_GPUS, STRATEGIES, ParallelismSpec
from peftbench.inputs.recipe.quantization import QuantizationSpec
from peftbench.inputs.recipe.training import ATTENTIONS, FUSED_KERNELS, LOOPS, LOSSES, TRANSFORMERS, TrainingSpec
from peftbench.inputs.schemes.scheme import QUANT_TYPES

DTYPES = tuple(dtype.value for dtype in DType)
MOST = 10_000_000
"""More tokens, sequences or ranks than that are a typing error."""
MAXIMA = ("sequence-length", "micro-batch-size")
FORMATS = ("terminal", "json", "csv", "markdown")


class Count(click.ParamType):  # type: ignore[type-arg]
    """A whole number from `least` to `most`; help shows it as N."""

    name = "N"
    otherwise = ""
    """What may be given instead of a number."""

    def __init__(self, least: int = 1, most: int = MOST) -> None:
        self.least, self.most = least, most

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number, or say which ones are meant."""
        try:
            number = int(value)
        except ValueError:
            number = self.least - 1
        if not self.least <= number <= self.most:
            wanted = f"a whole number from {self.least} to {self.most:,}{self.otherwise}"
            self.fail(f"{value!r} is not {wanted}.", param, ctx)
        return number


COUNT = Count()


class GpuCount(Count):
    """A whole number, or `auto`, which is None of them until the card is known."""

    name = "N|auto"
    otherwise = ", or auto"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number or the word."""
        return value if value == "auto" else super().convert(value, param, ctx)


def _option(name: str, type_: Any, text: str, default: object = None) -> click.Option:
    """An option with a value; `default` is only shown, the spec applies it."""
    return click.Option([name], type=type_, help=_with_default(text, default))


def _switch(name: str, text: str, default: bool) -> click.Option:
    """A pair of flags, --name and --no-name."""
    return click.Option([f"--{name}/--no-{name}"], default=None, help=_with_default(text, "on" if default else "off"))


def _choice(name: str, values: tuple[str, ...], text: str, default: object = None) -> click.Option:
    return click.Option([name], type=click.Choice(values), help=_with_default(text, default))


def _many(name: str, text: str, metavar: str) -> click.Option:
    return click.Option([name], multiple=True, metavar=metavar, help=f"{text}; may be repeated.")


def _with_default(text: str, default: object) -> str:
    return text if default is None else f"{text}  [default: {default}]"


QUESTION = (
    click.Option(
        ["--model"],
        metavar="NAME",
        help="Catalogue name, size (8b), Hub id, or the path of a config.json.",
    ),
    click.Option(
        ["--from", "from_files"], multiple=True, metavar="FILE",
        help="An axolotl, LLaMA-Factory, TRL or Trainer configuration, and the files that go with it; may be repeated.",
    ),
    _many("--gpu", "Card, or `local` for the one in this machine; none compares all", "NAME"),
    click.Option(["--gpu-memory"], metavar="SIZE", help="A card of this size, as torch sees it: 14.5GiB."),
    click.Option(["--no-gpu"], is_flag=True, help="Only the memory, judged against no card."),
    CALIBRATION,
    _many(
        "--method",
        "full, lora, qlora, or another PEFT type, with q in front for a quantized base; "
        "none compares full, lora and qlora",
        "NAME",
    ),
    click.Option(
        ["--task"],
        type=click.Choice(("training", "inference")),
        default="training",
        show_default=True,
        help="What runs on the card.",
    ),
)

RECIPE = (
    _option("--sequence-length", COUNT, "Tokens of each sequence.", TrainingSpec.sequence_length),
    _switch("padded", "Sequences differ in length, so attention gets a mask.", TrainingSpec.padded),
    _option("--micro-batch-size", COUNT, "per_device_train_batch_size.", TrainingSpec.micro_batch_size),
    _option(
        "--gradient-accumulation-steps",
        COUNT,
        "Micro-batches a step.",
        TrainingSpec.gradient_accumulation_steps,
    ),
    _switch(
        "gradient-checkpointing",
        "Recompute each layer in the backward pass.",
        TrainingSpec.gradient_checkpointing,
    ),
    _switch("use-reentrant", "torch's older checkpointing.", TrainingSpec.use_reentrant),
    _choice("--dtype", DTYPES, "Of the weights that are not quantized.", TrainingSpec.dtype),
    _switch(
        "autocast",
        "Run the forward pass under torch.autocast, as the Trainer's bf16 and fp16 do.",
        TrainingSpec.autocast,
    ),
    _option("--optimizer", click.STRING, "A name of TrainingArguments.optim.", TrainingSpec.optimizer),
    _choice("--attention", ATTENTIONS, "attn_implementation.", TrainingSpec.attention),
    _choice("--loss", LOSSES, "What becomes of the logits.", TrainingSpec.loss),
    _choice("--fused-kernels", FUSED_KERNELS, "Fused kernels in the layers.", TrainingSpec.fused_kernels),
    _choice("--transformers", TRANSFORMERS, "The generation of transformers.", TrainingSpec.transformers),
    _choice(
        "--loop",
        LOOPS,
        "The Trainer drops the outputs before backward, a plain loop keeps them.",
        TrainingSpec.loop,
    ),
    _choice("--zero-grad", ZERO_GRADS, "Whether gradients outlive a step.", ZERO_GRADS[0]),
    _switch("use-cache", "Keep the keys and values in training: config.use_cache.", TrainingSpec.use_cache),
)

SEVERAL_GPUS = (
    _option("--gpus", GpuCount(most=MAX_GPUS), "GPUs over all nodes; auto: as few as fit.", ParallelismSpec.gpus),
    _option("--nodes", Count(most=MAX_GPUS), "Machines that the GPUs are in.", "one for each 8"),
    _choice("--parallel", STRATEGIES[1:], "How they share the model.", "fsdp; tensor for inference"),
    click.Option(["--cpu-offload"], is_flag=True, default=None, help="Keep what is sharded in the host's memory."),
)

ADAPTER = (
    _option("--r", COUNT, "Rank.", "16 for LoRA, else PEFT's"),
    _option(
        "--target-modules",
        click.STRING,
        "Names with commas between, or all-linear.",
        "all-linear for LoRA, else PEFT's",
    ),
    _choice("--adapter-dtype", DTYPES, "Of the adapter's weights.", DType.FLOAT32),
    click.Option(["--use-dora"], is_flag=True, default=None, help="DoRA: train a magnitude for each output."),
    click.Option(
        ["--use-rslora"],
        is_flag=True,
        default=None,
        help="rsLoRA: scale by the root of the rank; costs no memory.",
    ),
    _option("--lora-dropout", click.FLOAT, "Keeps a mask and a copy for each target.", AdapterSpec.dropout),
    _option("--num-virtual-tokens", COUNT, "Length of a prompt or prefix.", 20),
    _many("--adapter-option", "Another option of a PEFT type, under PEFT's name", "NAME=VALUE"),
    click.Option(["--adapter-config"], metavar="FILE", help="The adapter_config.json that PEFT wrote."),
)

QUANTIZATION = (
    _choice(
        "--quant-type",
        QUANT_TYPES,
        "How bitsandbytes stores the frozen weights.",
        QuantizationSpec.quant_type,
    ),
    _option(
        "--blocksize",
        click.INT,
        "Weights that share a constant: 32, 64, 128 …",
        "the library's, 64 for nf4",
    ),
    _switch("double-quant", "Quantize the constants too.", QuantizationSpec.double_quant),
    _choice("--compute-dtype", DTYPES, "bnb_4bit_compute_dtype.", QuantizationSpec.compute_dtype),
    _switch(
        "upcast-unquantized",
        "What prepare_model_for_kbit_training does: norms, embeddings and head in float32.",
        QuantizationSpec.upcast_unquantized,
    ),
    _switch("upcast-norms", "The norms alone in float32, as after TRL.", QuantizationSpec.upcast_norms),
)

INFERENCE = (
    _option("--prompt-tokens", COUNT, "Length of each prompt.", InferenceSpec.prompt_tokens),
    _option("--new-tokens", Count(0), "Tokens generated after it.", InferenceSpec.new_tokens),
    _option("--batch-size", COUNT, "Prompts at a time.", InferenceSpec.batch_size),
    _choice(
        "--adapter",
        ("merged", "dynamic", "none"),
        "Whether the adapter is merged into the weights.",
        "dynamic",
    ),
)

DRY_RUN = (
    click.Option(
        ["--dry-run"], is_flag=True,
        help="Also run the real step on fake tensors: needs peftbench[bench], takes seconds.",
    ),
    click.Option(["--batch-lengths"], metavar="N,N,…", help="Lengths of the batches, a step each: 696,610,…"),
    _option(
        "--torch-empty-cache-steps", COUNT, "torch.cuda.empty_cache() after every so many steps.", "never"
    ),
    click.Option(["--alloc-conf"], metavar="TEXT", help="PYTORCH_ALLOC_CONF, as in expandable_segments:True."),
    click.Option(["--extrapolate"], is_flag=True, help="Run a few layers and go on from there: allocated memory only."),
    click.Option(
        ["--dry-run-device"], type=click.Choice(("cuda", "cpu")), default="cuda", show_default=True,
        help="cpu where fake CUDA does not hold.",
    ),
    click.Option(["--no-cache"], is_flag=True, help="Run again what was run before."),
)  # fmt: skip

ANSWER = (
    _choice("--max", MAXIMA, "Find the largest value that fits instead."),
    click.Option(["--explain"], metavar="PART", help='Where it comes from: "logits and loss", activations …, time.'),
    _choice("--framework", FRAMEWORKS, "Whose launches and kernels the time of a step is of.", FRAMEWORKS[0]),
    click.Option(["--check"], is_flag=True, help="Exit with 1 when every plan says `does not fit`."),
    click.Option(
        ["--format"],
        type=click.Choice(FORMATS),
        default="terminal",
        show_default=True,
        help="How to write the answer.",
    ),
)

SECTIONS = {
    "Question": QUESTION,
    "Training recipe": RECIPE,
    "Several GPUs": SEVERAL_GPUS,
    "Adapter": ADAPTER,
    "Quantization": QUANTIZATION,
    "Inference": INFERENCE,
    "Dry run": DRY_RUN,
    "Answer": ANSWER,
}


class SectionedCommand(click.Command):
    """A command whose help groups the options under the headings of its sections."""

    sections = SECTIONS

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section, and the options of none (--help) at the end."""
        shown = {id(option) for options in self.sections.values() for option in options}
        rest = tuple(p for p in self.get_params(ctx) if id(p) not in shown)
        for heading, options in {**self.sections, "Other": rest}.items():
            records = [record for option in options if (record := option.get_help_record(ctx))]
            with formatter.section(heading):
                formatter.write_dl(records)
