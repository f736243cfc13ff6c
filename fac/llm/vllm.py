"""The `vllm` engine: many requests at once, on GPUs or a CPU, in a process of its own.

Chats become ids in `fac.chat` and ids become text again in this process; vLLM sees ids only. It changes torch for the
whole process it runs in and holds its memory until that ends, hence the child; `close` ends it.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from transformers import AutoModelForCausalLM, GenerationConfig

from fac.backbone import ModelRef, end_tokens, load_config, load_tokenizer, room_for_replies
from fac.errors import FacError
from fac.llm.base import Completion, Request, Sampling, check_unshifted
from fac.llm.local import completion, openings
from fac.llm.settings import VllmSettings
from fac.model_weights import check_weights, load_pretrained
from fac.processes import die_with
from fac.store import Step

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

SEEDS = 1 << 31  # as fac.llm.openai sends them, so that a model says the same behind a server of vLLM's
ENVIRONMENT = {  # of the child, where the user has not set them
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no third process; what goes wrong is said here
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the default pins the process to one core, whoever else is on it
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
PATIENCE = 30.0  # seconds for the child to end by itself


class _Child(NamedTuple):
    process: SpawnProcess
    pipe: Connection
    log: Path  # what it printed; kept if it failed


class VllmChat:
    """A ChatModel on vLLM. The child process starts with the first request. A model with an adapter raises FacError."""

    engine = "vllm"

    def __init__(self, ref: ModelRef, settings: VllmSettings | None = None) -> None:
        if ref.adapter is not None:
            raise FacError(f"The vllm engine takes no adapter: leave out {ref.adapter}, or choose transformers.")
        self.ref, self.settings = ref, settings or VllmSettings()
        self.batch = self.settings.batch
        self._child: _Child | None = None

    @property
    def made_by(self) -> tuple[Step, ...]:
        """The steps that make its model."""
        return self.ref.made_by

    @property
    def identity(self) -> str:
        """Engine, model, and the length at which a reply is cut off."""
        return self._identity

    @cached_property
    def _identity(self) -> str:
        return f"vllm:{self.ref.identity()}/{self.settings.max_model_len} tokens"

    def chat(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        check_unshifted(requests, "vllm")
        tokenizer, (stops, penalty) = self._tokenizer, self._generation
        opened = openings(tokenizer, requests)
        prompts, stops = [opening.ids for opening in opened], stops.union(*(o.stops for o in opened))
        room_for_replies(self._config, self.ref.path, max(map(len, prompts)), self.settings.max_model_len)
        shared = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.temperature > 0 else 1.0,
            "max_tokens": sampling.max_new_tokens,
            "repetition_penalty": penalty,
            "stop_token_ids": sorted(stops),
            "detokenize": False,
        }
        drawn = self._ask((prompts, [{**shared, "seed": r.seed % SEEDS} for r in requests]))
        return [completion(tokenizer, o.ids, row, stops, o.mark) for o, row in zip(opened, drawn, strict=True)]

    def close(self) -> None:
        """End the child; its memory is free when this returns."""
        if self._child is not None:
            with suppress(OSError):
                self._child.pipe.send(None)
            self._child.process.join(PATIENCE)
            self._end()

    def _ask(self, work: object) -> Any:
        try:
            if self._child is None:
                self._start()
            return self._exchange(work)
        except BaseException as error:  # in the middle of work the child hears nothing
            self._end(keep_log=isinstance(error, FacError))
            raise

    def _start(self) -> None:
        self.settings.check()
        ref, settings = self.ref, self.settings
        if check_weights(AutoModelForCausalLM, ref, self._config):  # the child loads by itself, and says less
            raise FacError(
                f"The embedding of {ref.path} is stored as its head only, which vLLM does not read: load and save it "
                f"once with transformers (save_pretrained), or choose the engine transformers."
            )
        options = {
            "model": str(ref.folder) if ref.is_local else ref.path,
            "revision": ref.commit,
            "dtype": ref.dtype,
            "max_model_len": room_for_replies(self._config, ref.path, 0, settings.max_model_len),
            "tensor_parallel_size": settings.tensor_parallel_size,
            "gpu_memory_utilization": settings.gpu_memory_utilization,
            "skip_tokenizer_init": True,
            "disable_log_stats": True,
        }
        handle, log = tempfile.mkstemp(prefix="fac-vllm-", suffix=".log")
        os.close(handle)
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, options, settings.cpu_cache_gib, os.getpid(), log))
        process.start()
        theirs.close()
        self._child = _Child(process, ours, Path(log))
        atexit.register(self._end)  # before multiprocessing waits for its children
        self._exchange(None)

    def _exchange(self, work: object) -> Any:
        assert self._child is not None
        process, pipe, log = self._child
        try:
            if work is not None:
                pipe.send(work)
            done, told = pipe.recv()
        except (EOFError, OSError):
            process.join(PATIENCE)
            raise FacError(
                f"The vLLM process ended (exit status {process.exitcode}; -9 is out of memory, most likely): see "
                f"{log}, or lower gpu_memory_utilization, max_model_len or batch; finished batches are kept."
            ) from None
        if not done:
            raise FacError(
                f"vLLM fails with {self.ref.path} ({told}): see {log}, change gpu_memory_utilization, max_model_len or "
                f"tensor_parallel_size, or choose the engine transformers; finished batches are kept."
            )
        return told

    def _end(self, keep_log: bool = False) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            child.process.kill()
            child.process.join()
            child.pipe.close()
            if not keep_log:
                child.log.unlink()
            atexit.unregister(self._end)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.ref)

    @cached_property
    def _config(self) -> Any:
        return load_config(self.ref)

    @cached_property
    def _generation(self) -> tuple[set[int], float]:
        """What generate() of transformers reads from the model, too: stop tokens and repetition penalty."""
        try:
            held = load_pretrained(GenerationConfig, self.ref)
        except FacError:  # the file may be missing
            held = GenerationConfig.from_model_config(self._config)
        return end_tokens(held, self._tokenizer, self.ref.path), float(held.repetition_penalty or 1.0)


def _serve(pipe: Connection, options: dict[str, Any], cpu_cache_gib: float, parent: int, log: str) -> None:
    """The child: answer (True, what was asked for) or (False, what went wrong) until the parent says None or ends."""
    die_with(parent)
    with open(log, "ab") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        engine = _load(options, cpu_cache_gib)
        pipe.send((True, None))
        while (work := pipe.recv()) is not None:
            pipe.send((True, _generate(engine, *work)))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # vLLM raises what it likes
        traceback.print_exc()
        pipe.send((False, " ".join(str(error).split())[:300] or type(error).__name__))


def _load(options: dict[str, Any], cpu_cache_gib: float) -> Any:
    from vllm import LLM  # pyright: ignore[reportMissingImports]
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    cpu: dict[str, Any] = {
        "dtype": "float32" if options["dtype"] == "auto" else options["dtype"],  # as fac.backbone
        "distributed_executor_backend": "uni",
        "enforce_eager": True,  # compiling costs more than a small model takes
        "enable_chunked_prefill": False,  # a prompt cut in two ends the engine where requests have seeds
        "kv_cache_memory_bytes": int(cpu_cache_gib * 2**30),
    }
    return LLM(**(options | cpu if current_platform.is_cpu() else options))


def _generate(engine: Any, prompts: list[list[int]], sampling: list[dict[str, Any]]) -> list[list[int]]:
    from vllm import SamplingParams, TokensPrompt  # pyright: ignore[reportMissingImports]

    outputs = engine.generate(
        [TokensPrompt(prompt_token_ids=ids) for ids in prompts],
        [SamplingParams(**settings) for settings in sampling],
        use_tqdm=False,
    )
    return [list(output.outputs[0].token_ids) for output in outputs]
