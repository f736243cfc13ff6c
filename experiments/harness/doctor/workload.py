"""How much there is to do: every step of a plan in numbers of texts, tokens, requests and floating-point operations.

Steps are known by what their builders are given (`walk.arguments`). A step of another kind counts for nothing, and is
said (`Workload.unknown`) if it works with a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from experiments.harness.config import RunConfig
from experiments.harness.doctor import needs
from experiments.harness.doctor.needs import ASSUMED_TEXTS, KNOWN_TEXTS, LAB_TOKENS, TEXT_TOKENS, Asked, TrainingLoad
from experiments.harness.doctor.uses import IN_WORKER, engine_of, engines_of
from experiments.harness.doctor.walk import CHATS, Steps, arguments, found_in
from experiments.tasks import TASKS
from experiments.tasks.base import Training
from experiments.tasks.instruction import Evaluation
from experiments.tasks.steering import NORMS, layers_tried
from fac.clusters import LEAST_TEXTS
from fac.data.files import data_files
from fac.data.hub import hub_name
from fac.data.mixture import Part
from fac.data.schemas import PAIR
from fac.data.source import Source
from fac.encoder import FeatureEncoder
from fac.errors import FacError
from fac.llm.engines import COMPARE, Engine
from fac.llm.openai import OpenAISettings
from fac.model_ref import ModelRef
from fac.sae.ref import SaeRef
from fac.sae.settings import RecipeSettings, TrainSettings
from fac.store import Step

BYTES_PER_TOKEN = 4
MODEL_BYTES = 4  # of a parameter of a model that is kept: at most, on a CPU
LIGHT = (
    "draw",
    "examples",
    "pool",
    "joined",
    "missing",
    "relevance",
    "coverage",
    "evaluation",
)  # steps that load no model
LINES = ("train the SAE", "measure", "interpret", "write", "answer", "train", "test")  # in the order of a run


@dataclass(frozen=True)
class Texts:
    """What a step comes to."""

    count: int
    tokens: int  # mean length


@dataclass(frozen=True)
class Work:
    """Work of one step that stands in one line of the estimates."""

    name: str
    shape: needs.Shape | None = None  # of the model that works; None: a server's
    flop: float = 0.0
    asked: Asked = needs.NOTHING
    engine: Engine | None = None  # who is asked; None: a pass through the model
    reply: int = 0  # tokens of the longest reply

    def seconds(self, flops: float) -> float:
        """On a device of this speed; 0 where a server works."""
        if self.engine is None:
            return self.flop / (needs.COMPUTED * flops)
        kind = engine_kind(self.engine)
        if kind is None or self.shape is None:
            return 0.0
        return needs.asking_seconds(self.shape, self.asked, kind, flops)


@dataclass(frozen=True)
class InWorker:
    """What a worker process holds: a training, or a model that answers (`load` None)."""

    shape: needs.Shape
    load: TrainingLoad | None = None
    reply: int = 0


class Facts:
    """What is known of models and encoders, once they have been looked for."""

    def __init__(self) -> None:
        self.shapes: dict[str, needs.Shape] = {}  # by path of the model
        self.encoders: dict[int, needs.Encoder] = {}  # by id

    def shape(self, ref: ModelRef | None) -> needs.Shape | None:
        return None if ref is None else self.shapes.get(ref.path)

    def encoder(self, encoder: FeatureEncoder) -> needs.Encoder | None:
        """As its SAE says, as it is to be trained, or as the paper measures; None while the model is not known."""
        shape, sae = self.shape(encoder.model), encoder.sae
        if shape is None or id(encoder) in self.encoders:
            return self.encoders.get(id(encoder))
        if isinstance(sae, SaeRef):
            return needs.paper_encoder(shape)
        return needs.Encoder(encoder.chosen_layer or max(shape.layers // 2, 1), sae.width, sae.k)


class Workload:
    """The steps of a plan in numbers."""

    def __init__(self, run: RunConfig, steps: Steps, facts: Facts) -> None:
        self.run, self.steps, self.facts = run, steps, facts
        self.work: list[Work] = []
        self.workers: list[InWorker] = []
        self.stored = 0  # bytes
        self.unknown: dict[str, None] = {}  # names of steps without an estimate
        self._texts: dict[int, Texts] = {}
        self._drawn: dict[Any, int] = {}
        for step in steps:
            kind = next((one for one in KINDS if one(self, step)), None)
            if kind is None and step.name not in LIGHT and next(found_in(step, (ModelRef, *CHATS)), None):
                self.unknown[step.name] = None

    # Texts

    def texts(self, step: Step) -> Texts:
        """About what a step comes to, as a corpus or set of examples."""
        mark = self.steps.mark(step)
        if mark not in self._texts:
            self._texts[mark] = self._counted(step)
        return self._texts[mark]

    def _counted(self, step: Step) -> Texts:
        given = arguments(step)
        if step.name == "examples":
            return self._of_role(step.inputs[0], given["role"])
        if step.name == "synthesis":
            seed, human = step.inputs[2:4] if given["method"].prompts else step.inputs[:2]
            own = self.texts(seed)
            return Texts(self.texts(human).count if given["budget"] is None else given["budget"], own.tokens)
        if step.name == "joined":
            joined = [self.texts(part) for part in step.inputs]
            return Texts(sum(texts.count for texts in joined), joined[0].tokens)
        if step.name == "pool":
            return Texts(given["sizes"].human, LAB_TOKENS)
        read = [held for _, held in found_in(step, (Source, Part))]
        if read:
            return Texts(sum(map(texts_of, read)), TEXT_TOKENS)
        return self.texts(step.inputs[0]) if step.inputs else Texts(0, TEXT_TOKENS)

    def _of_role(self, draw: Step, role: str) -> Texts:
        given = arguments(draw)
        if "sizes" in given:
            place = (given["task"].name, role, given["world"], given["sizes"])
            if place not in self._drawn:
                self._drawn[place] = len(given["task"].drawn_in_lab(role, given["world"], given["sizes"]))
            return Texts(self._drawn[place], LAB_TOKENS)
        named = {name: source for name, source in given["read"].items() if f"{name}_".startswith(f"{role}_")}
        return Texts(given["sample"].get(role) or sum(map(texts_of, named.values())), TEXT_TOKENS)

    # Steps. Each method says whether it knows the step.

    def _sae(self, step: Step) -> bool:
        found = next(found_in(step, (TrainSettings, RecipeSettings)), None)
        encoder = next((encoder for _, encoder in found_in(step, FeatureEncoder)), None)
        if step.name != "sae" or found is None or encoder is None:
            return step.name == "sae"
        settings, shape, known = found[1], self.facts.shape(encoder.model), self.facts.encoder(encoder)
        if shape and known:
            flop = needs.sae_training_flop(shape, known.layer, known.width, sae_tokens(settings, self.texts(step)))
            self.work.append(Work("train the SAE", shape, flop))
            self.stored += needs.sae_bytes(shape, known.width)
        return True

    def _features(self, step: Step) -> bool:
        encoder = getattr(step.build, "__self__", None)
        if step.name not in ("features", "sae_quality") or not isinstance(encoder, FeatureEncoder):
            return False
        texts = self.texts(step)
        self._measured(encoder, texts.count, texts.tokens, kept=step.name == "features")
        return True

    def _measured(self, encoder: FeatureEncoder, count: int, tokens: int, kept: bool = True) -> None:
        shape, known = self.facts.shape(encoder.model), self.facts.encoder(encoder)
        if shape and known:
            self.work.append(Work("measure", shape, needs.measuring_flop(shape, known, count * tokens)))
        if shape and known and kept:
            self.stored += needs.measured_bytes(known, count, tokens, encoder.settings.top_spans)

    def _interpretations(self, step: Step) -> bool:
        given = arguments(step)
        if step.name != "interpret" or not {"annotators", "settings", "encoder"} <= given.keys():
            return False
        settings, known = given["settings"], self.facts.encoder(given["encoder"])
        only, most = given.get("only"), known.width if known else 0
        features = most if only is None else len(only)
        for among in step.inputs[2:]:  # a step that says which, and how many at most
            features = min(arguments(among).get("most") or most, most)
        self._annotate(given, features, settings.span_tokens)
        return True

    def _annotate(self, given: dict[str, Any], count: int, span_tokens: int) -> None:
        """So many features (or clusters) explained and judged by the step's annotators."""
        for role, annotator in given.get("annotators", {}).items():
            settings = given["settings"]
            shown = settings.spans * span_tokens if role != "judge" else 0
            asked = needs.asked(count, settings.max_new_tokens, shown)
            self._ask(f"interpret: {role}", engine_of(annotator), asked, settings.max_new_tokens)

    def _clusters(self, step: Step) -> bool:
        """Texts are measured without the SAE; one cluster for so many of them is explained and judged."""
        given = arguments(step)
        if step.name not in ("clusters", "dense_coverage") or "encoder" not in given:
            return False
        texts = (
            [self.texts(part) for part in step.inputs[:2]] if step.name == "clusters" else [self.texts(step.inputs[3])]
        )
        shape = self.facts.shape(given["encoder"].model)
        if shape and (known := self.facts.encoder(given["encoder"])):
            passes = sum(part.count * part.tokens for part in texts)
            self.work.append(Work("measure", shape, 2.0 * passes * shape.up_to(known.layer)))
        self._annotate(given, texts[0].count // LEAST_TEXTS, texts[0].tokens)
        return True

    def _synthesis(self, step: Step) -> bool:
        given = arguments(step)
        if step.name != "synthesis" or "method" not in given:
            return False
        method, settings = given["method"], given["settings"]
        if method.prompts:
            texts = self.texts(step)
            features = max(round(settings.ratio * texts.count), 1)  # as many are missing as the budget
            count = method.requests(settings, features, texts.count)
            asked = needs.asked(count, settings.max_new_tokens)
            self._ask("write", engine_of(given["model"]), asked, settings.max_new_tokens)
            self._measured(given["mining"].encoder, count, texts.tokens)
        return True

    def _answers(self, step: Step) -> bool:
        """Answers to what is there: by the writer, or by a model as it is."""
        given = arguments(step)
        if "sampling" not in given or not ({"writer"} <= given.keys() or step.name == "reference"):
            return False
        most, count = given["sampling"].max_new_tokens, self.texts(step).count
        if "writer" in given:
            method = arguments(step.inputs[0]).get("method")
            if method is not None and not method.prompts:
                return True  # examples that are there have their answers
            self._ask("answer", engine_of(given["writer"]), needs.asked(count, most), most)
        else:
            self._answer(given["model"], "test: reference", count, most)
        return True

    def _training(self, step: Step) -> bool:
        training = next((training for _, training in found_in(step, Training)), None)
        if training is None or "task" not in step.params:
            return False
        load = self.training(step, training)
        if shape := self.facts.shape(training.model):
            self.work.append(Work("train", shape, needs.training_flop(shape, load.trained_tokens)))
            self.workers.append(InWorker(shape, load))
            self.stored += needs.trained_bytes(shape, load.rank)
        return True

    def training(self, step: Step, training: Training) -> TrainingLoad:
        """A training step in numbers."""
        task, settings = TASKS[str(step.params["task"])], training.settings
        given, rows = arguments(step), 0
        parts = zip(["fixed"] * given["fixed"] + list(given["names"]), step.inputs, strict=True)
        for name, part in ((name, part) for name, part in parts if name != "chosen"):
            drawn = getattr(settings, "pairs", None) if name == "seed_examples" else None
            rows += min(self.texts(part).count, drawn) if drawn else self.texts(part).count

        def of(name: str, otherwise: Any) -> Any:
            return getattr(settings, name, None) or otherwise

        longest = of("max_tokens", self.run.features.max_tokens)
        batch = of("batch_size", 1) * of("gradient_accumulation", 1) * (2 if task.schema is PAIR else 1)  # a pair: two
        return TrainingLoad(
            task=task.name,
            rows=rows,
            tokens=self.texts(step).tokens,
            epochs=of("epochs", 1),
            longest=longest,
            batch=min(batch, max(of("pass_tokens", longest) // longest, 1)),  # in one forward pass
            rank=of("rank", 0),
            dropout=of("dropout", 0.0),
            bf16=getattr(settings, "bf16", True),
            float64=of("float64", False),
            checkpointed=of("gradient_checkpointing", False),
            head_only=getattr(settings, "mode", None) == "head",
            next_token=task.from_base,
        )

    def _made(self, step: Step) -> bool:
        """A model that was trained, kept as a whole: nothing is computed with it."""
        if step.name != "trained_model":
            return False
        if shape := self.facts.shape(arguments(step)["model"]):
            self.stored += shape.params * MODEL_BYTES
        return True

    def _choice(self, step: Step) -> bool:
        """Settings of a vector: every layer and norm at two multipliers, on all held-out questions in both orders."""
        given = arguments(step)
        if step.name != "steering_choice":
            return False
        if shape := self.facts.shape(given["ref"]):
            held, tried = self.texts(step.inputs[1]), len(layers_tried(shape.layers)) * len(NORMS)
            flop = needs.testing_flop(shape, held.count * held.tokens * 4 * tried)
            self.work.append(Work("test", shape, flop))
        return True

    def _scores(self, step: Step) -> bool:
        given = arguments(step)
        if step.name != "scores" or "is_trained" not in given:
            return False
        task, shape = TASKS[given["task"]], self.facts.shape(given["model"])
        tested = self.texts(step.inputs[1 if given["is_trained"] else 0])
        how = next((told for part in step.inputs for _, told in found_in(part, Evaluation)), None)
        if how is None:
            if shape:
                flop = needs.testing_flop(shape, tested.count * tested.tokens * task.passes)
                self.work.append(Work("test", shape, flop))
            return True
        self._answer(given["model"], "test: answers", tested.count, how.answer_tokens)
        judged = needs.asked(tested.count * how.asked, how.judging.max_new_tokens)
        judge = next((engine for role, engine in engines_of(step) if role == COMPARE), None)
        if judge is not None:
            self._ask("test: judge", judge, judged, how.judging.max_new_tokens)
        return True

    def _states(self, step: Step) -> bool:
        """What a frozen model says of examples."""
        if step.name != "states":
            return False
        texts = self.texts(step)
        if shape := self.facts.shape(arguments(step)["model"]):
            each = 2 if arguments(step)["rows"].__module__.endswith("reward") else 1
            flop = needs.testing_flop(shape, each * texts.count * texts.tokens)
            self.work.append(Work("test", shape, flop))
        return True

    def _ask(self, name: str, engine: Engine, asked: Asked, reply: int) -> None:
        shape = self.facts.shape(engine.model)
        if asked.requests and (shape or engine_kind(engine) is None):
            self.work.append(Work(name, shape, asked=asked, engine=engine, reply=reply))

    def _answer(self, ref: ModelRef | None, name: str, count: int, longest: int) -> None:
        if (shape := self.facts.shape(ref)) and count:
            self.work.append(Work(name, shape, asked=needs.asked(count, longest), engine=IN_WORKER))
            self.workers.append(InWorker(shape, reply=longest))


KINDS: tuple[Callable[[Workload, Step], bool], ...] = (
    Workload._sae,
    Workload._features,
    Workload._interpretations,
    Workload._clusters,
    Workload._synthesis,
    Workload._answers,
    Workload._training,
    Workload._made,
    Workload._choice,
    Workload._scores,
    Workload._states,
)


def sae_tokens(settings: TrainSettings | RecipeSettings, texts: Texts) -> int:
    """Tokens that an SAE is trained on."""
    if isinstance(settings, RecipeSettings):
        return settings.epochs * min(settings.max_tokens, texts.tokens) * texts.count
    return settings.steps * settings.batch_size


def texts_of(data: Source | Part) -> int:
    """About how many texts a data set gives: what is drawn, its limit, by the size of its files, or as assumed."""
    if isinstance(data, Part):
        return data.sample or texts_of(data.source)
    if data.limit is not None:
        return data.limit
    if data.on_hub:
        return KNOWN_TEXTS.get(hub_name(data.paths[0]).id, ASSUMED_TEXTS)
    try:
        size = sum(file.stat().st_size for file in data_files(data))
    except (FacError, OSError):
        return KNOWN_TEXTS.get(data.paths[0].name, ASSUMED_TEXTS)
    return max(size // (TEXT_TOKENS * BYTES_PER_TOKEN), 1)


def engine_kind(engine: Engine) -> str | None:
    """Which engine holds a model on this machine; None if a server does."""
    return None if isinstance(engine.settings, OpenAISettings) else type(engine.settings).__name__[:-8].lower()


def by_name(work: list[Work]) -> Iterator[tuple[str, list[Work]]]:
    """The works of each line."""
    names = sorted(dict.fromkeys(one.name for one in work), key=lambda name: LINES.index(name.partition(":")[0]))
    yield from ((name, [one for one in work if one.name == name]) for name in names)
