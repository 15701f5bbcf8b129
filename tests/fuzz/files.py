"""Files of every kind, each with something wrong in it, and the command lines that read them."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable

from fuzz import samples
from fuzz.atoms import NAMES, NUMBERS, PATHS, WORDS, text
from fuzz.case import Case
from fuzz.documents import json_text, mutated, spoilt, wrong_json, wrong_yaml, yaml_text

FORMATS = ("terminal", "json", "csv", "jsonl", "markdown", "html")
T4 = ("--gpu", "t4")


def _suite(chance: random.Random) -> Case:
    name = chance.choice(("own",) * 8 + tuple(samples.suites()))
    content = wrong_yaml(samples.suites()[name.removesuffix("-2")], chance)
    words = ("run", "./mine.yaml", *chance.choice((("--dry-run",),) * 9 + (("--device", "cpu", "--out", "out.jsonl"),)))
    return Case(
        "", 0, (*words, *chance.choice(((), (), ("--only", "lora"), ("--only", "x")))), (("mine.yaml", content),)
    )


def _config(chance: random.Random) -> Case:
    content = wrong_json(chance.choice(samples.configs()), chance)
    place = chance.choice(("./model/config.json", "./model", "./model/"))
    method = chance.choice((("--method", "lora"), ("--method", "qlora"), ("--method", "full"), ()))
    json = ("--format", "json")
    verbs = (("plan", *T4), ("plan", *T4, *json), ("plan", "--no-gpu", *json), ("plan", *T4, "--dry-run", *json),
             ("plan", *T4, "--task", "inference", *json))  # fmt: skip
    verb = chance.choice(
        (*verbs * 4, ("recipe",), ("choose", "--tokens", "1M", "--gpu", "l4"), ("timeline", *T4, "-o", "-"))
    )
    return Case("", 0, (*verb, "--model", place, *method), (("model/config.json", content),))


def _adapter(chance: random.Random) -> Case:
    config = chance.choice(samples.adapters())
    content = wrong_json(config, chance)
    files = (("adapter/adapter_config.json", content), ("ta.json", json_text(samples.TRAINING_ARGUMENTS).encode()))
    place = chance.choice(("adapter", "adapter/adapter_config.json"))
    asked = ("plan", "--model", chance.choice(("135m", "gpt2", "8x7b")), *T4, "--adapter-config", place)
    reading = (
        "--from",
        "ta.json",
        "--from",
        "adapter/adapter_config.json",
        "--model",
        "135m",
        "--sequence-length",
        "512",
    )
    words = chance.choice((
        asked, (*asked, "--format", "json"), (*asked, "--format", "json"), (*asked, "--dry-run"),
        (*asked, "--task", "inference", "--format", "json"), ("recipe", *reading), ("plan", *T4, *reading),
    ))  # fmt: skip
    return Case("", 0, words, files)


def _from(chance: random.Random) -> Case:
    import yaml

    ending, content = chance.choice(samples.tool_files())
    own = {"ta.json": samples.TRAINING_ARGUMENTS, "ac.yml": samples.ACCELERATE, "ds.json": samples.DEEPSPEED,
           "bnb.json": samples.BITSANDBYTES}  # fmt: skip
    files = {name: (json_text if name.endswith("json") else yaml_text)(value).encode() for name, value in own.items()}
    if ending == "py":
        files["run.py"] = _script(content, chance)
    else:
        tree = yaml.safe_load(content)
        files[f"run.{ending}"] = (wrong_json if ending == "json" else wrong_yaml)(tree, chance)
    if chance.random() < 0.4:
        name = chance.choice(list(own))
        files[name] = (wrong_json if name.endswith("json") else wrong_yaml)(own[name], chance)
        chosen = [name, *chance.sample(["ta.json", "ac.yml", "ds.json", "bnb.json"], chance.randint(0, 2))]
    else:
        chosen = [f"run.{ending}", *chance.sample(["ac.yml", "ds.json", "bnb.json"], chance.choice((0, 0, 1)))]
    verb = chance.choice((("plan", *T4), ("plan", *T4, "--format", "json"), ("recipe", "--for", "trl"), ("recipe",)))
    more = chance.choice(((), (), ("--model", "135m"), ("--sequence-length", "128", "--model", "135m")))
    words = [*verb, *more, *(word for name in dict.fromkeys(chosen) for word in ("--from", name))]
    return Case("", 0, tuple(words), tuple(files.items()))


def _script(content: str, chance: random.Random) -> bytes:
    """A script whose constants are something else."""
    if chance.random() < 0.3:
        return spoilt(content.encode(), chance)
    lines = content.splitlines()
    constants = [place for place, line in enumerate(lines) if " = " in line and line.split(" ")[0].isupper()]
    place = chance.choice(constants or [0])
    name = lines[place].split(" = ")[0]
    values = (*map(repr, WORDS), *NUMBERS, "float('inf')", "1e999", "None", "{**{}}", "f'{1}'", "-" * 3000 + "1",
              "[" * 300, "'a' * 10**9", "10**10**10", "{'a': 1, 'a': 2}", "b'x'", "...", "1j", "{[]: 1}",
              "__import__('os')")  # fmt: skip
    lines[place] = f"{name} = {chance.choice(values)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


PRICES = (
    "gpu",
    "gpu_count",
    "usd_per_hour",
    "kind",
    "provider",
    "instance_type",
    "region",
    "date",
    "source",
    "currency",
)


def _prices(chance: random.Random) -> Case:
    rows = [["l4", "1", "0.7", "on-demand", "mine", "small", "here", "2026-01-02", "a bill", "usd"],
            ["t4", "2", "1.10", "spot", "mine", "two", "there", "", "", ""]]  # fmt: skip
    heading = list(PRICES)
    for _ in range(chance.choice((1, 1, 2, 4))):
        row = chance.choice((rows[0], rows[1], rows[1], heading))
        row[chance.randrange(len(row))] = text(chance)
    content = _table([heading, *rows], chance)
    words = (
        "choose",
        "--model",
        "135m",
        "--tokens",
        "1M",
        "--method",
        "lora",
        "--prices",
        "mine.csv",
        "--max-gpus",
        "2",
    )
    return Case("", 0, (*words, "--format", chance.choice(FORMATS)), (("mine.csv", content),))


def _calibration(chance: random.Random) -> Case:
    content = wrong_json(samples.calibration(), chance)
    asked = ("--method", chance.choice(("lora", "qlora")), "--format", chance.choice(("json", "terminal", "csv")))
    plan = ("plan", "--model", chance.choice(("135m", "8b")), "--gpu", "l4", *asked)
    choose = ("choose", "--model", "135m", "--tokens", "1M", "--gpu", "l4", "--method", "lora")
    verb = chance.choice((plan, plan, choose))
    if chance.random() < 0.6:
        return Case("", 0, (*verb, "--calibration", "cal/l4.json"), (("cal/l4.json", content),))
    place = chance.choice(("cal", "cal/l4.json"))
    return Case(
        "", 0, verb, (("cal/l4.json", content),), (("PEFTBENCH_CALIBRATION", place),), never_stops=place == "cal"
    )


def _records(chance: random.Random) -> Case:
    lines = samples.comparison_lines() if chance.random() < 0.3 else samples.run_lines()
    good = list(chance.sample(lines, k=min(len(lines), chance.choice((1, 2, 3)))))
    whole = [json_text(line).encode() for line in good]
    wrong = wrong_json(chance.choice(lines), chance).replace(b"\n", b" ")
    place = chance.randint(0, len(whole))
    content = b"\n".join([*whole[:place], wrong, *whole[place:]]) + b"\n"
    by = ("--by", chance.choice(("method", "source", "model", "device", "part")))
    form = ("--format", chance.choice(FORMATS))
    words = chance.choice((
        ("report", "runs.jsonl", *form), ("report", "folder-of-runs", *form), ("validate", "runs.jsonl", *form),
        ("validate", "runs.jsonl", "--rows", *form), ("validate", "folder-of-runs", *by, *form),
        ("run", "./own.yaml", "--device", "cpu", "--only", "ia3", "--out", "runs.jsonl"),
    ))  # fmt: skip
    own = yaml_text(samples.suites()["own"]).encode()
    files = (
        ("runs.jsonl", content),
        ("folder-of-runs/a.jsonl", content),
        ("folder-of-runs/b.jsonl", b""),
        ("own.yaml", own),
    )
    runs = lines is samples.run_lines()
    return Case("", 0, words, files, keeps_good_lines=words[0] == "report" or (words[0] == "validate" and runs))


def _calibrated(chance: random.Random) -> Case:
    lines = [json_text(line).encode() for line in samples.card_lines()]
    place = chance.randrange(len(lines))
    lines[place] = wrong_json(samples.card_lines()[place], chance).replace(b"\n", b" ")
    words = chance.choice(
        (("calibrate", "runs.jsonl", "-o", "l4.json"), ("validate", "runs.jsonl", "--format", "json"))
    )
    return Case("", 0, words, (("runs.jsonl", b"\n".join(lines) + b"\n"),), keeps_good_lines=True)


def _published(chance: random.Random) -> Case:
    records, speeds, models = samples.published()
    if chance.random() < 0.5:
        changed = [json_text(record).encode() for record in records]
        changed[chance.randrange(len(changed))] = wrong_json(chance.choice(records), chance)
        words = ("validate", "p.jsonl", "--format", chance.choice(FORMATS))
        return Case("", 0, words, (("p.jsonl", b"\n".join(changed)),), keeps_good_lines=True)
    rows = [list(row) for row in speeds]
    row = chance.choice(rows)
    row[chance.randrange(len(row))] = text(chance)
    table = _table(rows, chance)
    beside = wrong_json(models, chance) if chance.random() < 0.2 else json_text(models).encode()
    words = (
        "validate",
        "speeds.csv",
        "--by",
        chance.choice(("source", "framework")),
        "--format",
        chance.choice(FORMATS),
    )
    return Case("", 0, words, (("speeds.csv", table), ("throughput_models.json", beside)))


def _table(rows: list[list[str]], chance: random.Random) -> bytes:
    """As CSV, now and then with a wrong text."""
    file = io.StringIO()
    csv.writer(file, quoting=chance.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))).writerows(rows)
    content = file.getvalue().encode("utf-8", "surrogatepass")
    return spoilt(content, chance) if chance.random() < 0.2 else content


def _dataset(chance: random.Random) -> Case:
    name = chance.choice(("data.jsonl", "data.txt", "data.json", "data.ndjson", "data.csv", "DATA.JSONL", "data"))
    lines = [{"prompt": "a word", "answer": ["word"]}, ["a", {"b": "c"}], "text"]
    content = spoilt(samples.DATA, chance) if chance.random() < 0.5 else b"\n".join(
        json_text(mutated(line, chance)).encode("utf-8", "surrogatepass") for line in lines * 3)  # fmt: skip
    tokenizer = samples.TOKENIZER
    files = [(name, content), ("model/config.json", json_text(samples.configs()[0]).encode())]
    if chance.random() < 0.5:
        files.append(("model/tokenizer.json", wrong_json(tokenizer, chance)))
    words = ("choose", "--model", "./model", "--gpu", "l4", "--max-gpus", "1", "--method", "lora", "--dataset", name)
    return Case("", 0, words, tuple(files))


def _cache(chance: random.Random) -> Case:
    words = ("plan", "--model", chance.choice(("135m", "gpt2")), *T4, "--method", "lora", "--dry-run", "--format",
             chance.choice(("json", "terminal")))  # fmt: skip
    return Case("", 0, words, spoils_cache=True)


SPECIAL = (
    "run ./PATH --dry-run", "run PATH --dry-run", "run smoke --device cpu --only lora --out PATH",
    "plan --model ./PATH --gpu t4", "plan --model PATH --gpu t4", "plan --model 8b --gpu t4 --adapter-config PATH",
    "plan --from PATH --gpu t4", "plan --model 8b --gpu t4 --calibration PATH", "recipe --from PATH",
    "recipe --model 8b -o PATH", "choose --model 135m --tokens 1M --gpu l4 --prices PATH",
    "choose --model 135m --gpu l4 --dataset PATH", "report PATH", "report PATH --format html -o PATH", "validate PATH",
    "validate PATH.csv", "calibrate PATH", "calibrate runs.jsonl -o PATH", "report runs.jsonl -o PATH --format html",
    "timeline --model 135m --gpu t4 --method lora -o PATH",
    "timeline --model 135m --gpu t4 --method lora -o - --snapshot PATH",
)  # fmt: skip
"""Wherever a file is read or written."""


def _special(chance: random.Random) -> Case:
    """A path that is no regular file."""
    place, words = chance.choice(PATHS), chance.choice(SPECIAL).split()
    lines = b"".join(json_text(line).encode() + b"\n" for line in samples.card_lines())
    return Case("", 0, tuple(word.replace("PATH", place) for word in words), (("runs.jsonl", lines),))


FILES: dict[str, tuple[int, Callable[[random.Random], Case]]] = {
    "suite": (12, _suite), "config": (20, _config), "adapter": (16, _adapter), "from": (18, _from),
    "prices": (5, _prices), "calibration": (8, _calibration), "records": (14, _records), "calibrated": (2, _calibrated),
    "published": (2, _published), "dataset": (3, _dataset), "cache": (2, _cache), "special": (7, _special),
}  # fmt: skip
"""How often each kind of file is tried, and how it is made."""


def files(chance: random.Random, kind: str, number: int) -> Case:
    """One command line with the files that it reads."""
    name = chance.choices(list(FILES), [weight for weight, _ in FILES.values()])[0]
    case = FILES[name][1](chance)._replace(kind=kind, number=number)
    return _renamed(case, chance) if case.files and chance.random() < 0.1 else case


FIXED = ("config.json", "adapter_config.json", "tokenizer.json", "throughput_models.json")


def _renamed(case: Case, chance: random.Random) -> Case:
    """With a file or folder whose name a message must not show as it is."""
    old = chance.choice([part for name, _ in case.files for part in name.split("/") if part not in FIXED])
    new = chance.choice(NAMES) + old[old.rfind(".") :] * ("." in old)

    def named(path: str) -> str:
        return path if path.startswith("--") else "/".join(new if part == old else part for part in path.split("/"))

    settings = tuple((name, named(value)) for name, value in case.environment)
    files = tuple((named(name), content) for name, content in case.files)
    return case._replace(words=tuple(map(named, case.words)), files=files, environment=settings)
