"""Arguments of `transformers.TrainingArguments`, also of version 4, that kdistill lacks or has under another name.

With the fields of `arguments.TrainingArguments` this table covers every name that transformers knows;
`docs/arguments.md` is made from both.
"""

from __future__ import annotations

import enum
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

from .fields import Origin, did_you_mean_argument
from .world import World


class OtherArgument(NamedTuple):
    """An argument of transformers that is not a field of `TrainingArguments` here.

    Values that change nothing are accepted in silence, see `changes_nothing`.

    Args:
        name: the argument.
        default: the default of transformers.
        verdict: the effect of giving it. "renamed": it sets the argument `becomes`. "ignored": a warning gives the
            reason. "without effect": nothing, because it asks for what is always done or only scripts read it.
            "refused": `ValueError` gives the reason and the alternative.
        reason: a sentence without the argument's name and without a full stop.
        becomes: the name here of a renamed one.
        harmless: values that change nothing, besides the default.
        origin: where the name comes from.
    """

    name: str
    default: Any
    verdict: Literal["renamed", "ignored", "without effect", "refused"]
    reason: str
    becomes: str | None = None
    harmless: tuple[Any, ...] = ()
    origin: Origin = "transformers"

    def changes_nothing(self, value: Any) -> bool:
        """Return whether kdistill does what `value` asks for anyway.

        That is so for None, the default, one of `harmless`, and an empty value where the default is empty (False for
        None, "" for []).
        """
        if value is None or (not value and not self.default):
            return True
        return any(value == harmless for harmless in (self.default, *self.harmless))

    def is_kept(self, value: Any) -> bool:
        """Return whether the arguments show `value` when they are read, since it holds or is for scripts alone."""
        return self.becomes is None and (self.verdict == "without effect" or self.changes_nothing(value))


def _group(verdict: Any, reason: str, origin: Origin = "transformers", **defaults: Any) -> list[OtherArgument]:
    """Return arguments that share a verdict and its reason."""
    return [OtherArgument(name, default, verdict, reason, origin=origin) for name, default in defaults.items()]


def _renamed(name: str, becomes: str) -> OtherArgument:
    return OtherArgument(name, None, "renamed", f"an older name of {becomes}", becomes, origin="transformers 4")


_OLD: Origin = "transformers 4"
_FLOAT32 = "products are float32, or bfloat16 with bf16, and the model is saved in float32"
_RECOMPUTING = (
    "activations are always kept for one batch; to save memory, lower per_device_train_batch_size and raise "
    "gradient_accumulation_steps, which gives the same updates"
)
_ONE_PROCESS = (
    "a process computes in threads, whose number kdistill.set_num_threads or --threads sets; mpirun starts several "
    "processes (docs/how-to/mpi.md)"
)
_SHARDING = "the whole model fits into one process; set the batch size and the optimiser with the training arguments"
_COMPILED = "all arithmetic already runs in compiled C"
_NO_LOADER = "rows are encoded once and batches are taken from memory, without worker processes"
_NO_PADDING = "batches are never padded, so rows of similar length need not be grouped"
_ADAMW_ALONE = "the optimiser is AdamW (learning_rate, weight_decay, adam_beta1, adam_beta2, adam_epsilon)"
_ADAMW_NAMES = ("adamw_torch", "adamw_hf", "adamw_apex_fused", "adamw_torch_xla", "adamw_torch_npu_fused")
_WHOLE_EVALUATION = "the logits of all rows are kept in memory; they need only a few numbers per row"
_NOT_COUNTED = "tokens are not counted; the results contain rows and steps per second"
_FOR_SCRIPTS = "as in transformers, Trainer does not use it; scripts can read it from the arguments"

OTHER_ARGUMENTS = {
    row.name: row
    for row in (
        _renamed("evaluation_strategy", "eval_strategy"),
        _renamed("per_gpu_train_batch_size", "per_device_train_batch_size"),
        _renamed("per_gpu_eval_batch_size", "per_device_eval_batch_size"),
        _renamed("push_to_hub_model_id", "hub_model_id"),
        _renamed("push_to_hub_token", "hub_token"),
        # Optimiser and schedule
        OtherArgument("optim", "adamw_torch_fused", "refused", _ADAMW_ALONE, harmless=_ADAMW_NAMES),
        *_group("refused", _ADAMW_ALONE, optim_args=None, optim_target_modules=None),
        *_group("refused", _ADAMW_ALONE, _OLD, adafactor=False),
        # What is learned
        *_group("refused", "no noise is added to embeddings; use hidden_dropout_prob", neftune_noise_alpha=None),
        *_group(
            "ignored",
            "a process that runs out of memory is ended by the system; lower per_device_train_batch_size and raise "
            "gradient_accumulation_steps, which gives the same updates",
            auto_find_batch_size=False,
        ),
        OtherArgument(
            "train_sampling_strategy",
            "random",
            "refused",
            "rows are shuffled anew in each epoch; " + _NO_PADDING,
            harmless=("group_by_length", "batch_rebalance"),
        ),
        *_group("ignored", _NO_PADDING, length_column_name="length"),
        *_group("ignored", _NO_PADDING, _OLD, group_by_length=False),
        # Precision and memory
        *_group("ignored", _FLOAT32, fp16=False, bf16_full_eval=False, fp16_full_eval=False, tf32=None),
        *_group("ignored", _FLOAT32, _OLD, fp16_opt_level="O1", fp16_backend="auto", half_precision_backend="auto"),
        *_group(
            "ignored",
            _RECOMPUTING,
            activation_checkpointing=None,
            activation_checkpointing_kwargs=None,
            gradient_checkpointing=None,
            gradient_checkpointing_kwargs=None,
        ),
        *_group("ignored", "there is no device cache to empty on the CPU", torch_empty_cache_steps=None),
        *_group("ignored", "a classifier reads each row once, so there is no key-value cache", use_cache=False),
        *_group(
            "ignored",
            _COMPILED,
            torch_compile=False,
            torch_compile_backend=None,
            torch_compile_mode=None,
            use_liger_kernel=False,
            liger_kernel_config=None,
        ),
        *_group("ignored", _COMPILED, _OLD, torchdynamo=None, use_ipex=False, jit_mode_eval=False),
        # Devices and processes
        *_group("without effect", "kdistill always runs on the CPU", use_cpu=False),
        *_group("without effect", "kdistill always runs on the CPU", _OLD, no_cuda=False),
        *_group("ignored", "kdistill always runs on the CPU", _OLD, use_mps_device=False, xpu_backend=None),
        OtherArgument("local_rank", -1, "refused", _ONE_PROCESS, harmless=(0,)),
        *_group("refused", _SHARDING, fsdp=None, fsdp_config=None, deepspeed=None, parallelism_config=None),
        *_group("refused", _SHARDING, _OLD, sharded_ddp="", fsdp_min_num_params=0, mp_parameters=""),
        *_group("refused", _SHARDING, _OLD, fsdp_transformer_layer_cls_to_wrap=None),
        *_group(
            "ignored",
            _ONE_PROCESS,
            ddp_find_unused_parameters=None,
            ddp_bucket_cap_mb=None,
            ddp_broadcast_buffers=None,
            ddp_static_graph=None,
            ddp_backend=None,
            ddp_timeout=1800,
            accelerator_config=None,
            log_on_each_node=True,
            save_on_each_node=False,
            eval_use_gather_object=False,
        ),
        *_group("without effect", "there is only one device", average_tokens_across_devices=True),
        *_group(
            "ignored",
            _ONE_PROCESS,
            _OLD,
            tpu_num_cores=None,
            tpu_metrics_debug=False,
            split_batches=None,
            dispatch_batches=None,
            ray_scope="last",
        ),
        # Data
        *_group(
            "ignored",
            _NO_LOADER,
            dataloader_num_workers=0,
            dataloader_pin_memory=True,
            dataloader_persistent_workers=False,
            dataloader_prefetch_factor=None,
            dataloader_multiprocessing_context=None,
            dataloader_in_order=True,
        ),
        *_group("ignored", "only the text and label columns are read", remove_unused_columns=True),
        OtherArgument(
            "label_names",
            None,
            "refused",
            "labels are read from the column label or labels; rename your column, or name it with --label-column",
            harmless=(["labels"], ["label"]),
        ),
        *_group(
            "ignored",
            "the position in the data is computed from the step, so a resumed run skips rows at no cost",
            ignore_data_skip=False,
        ),
        # Evaluation
        *_group("ignored", _WHOLE_EVALUATION, eval_accumulation_steps=None, eval_do_concat_batches=True),
        *_group("ignored", _WHOLE_EVALUATION, prediction_loss_only=False),
        *_group(
            "refused",
            "compute_metrics is called once, with the logits and labels of all rows",
            batch_eval_metrics=False,
        ),
        OtherArgument(
            "include_for_metrics",
            [],
            "refused",
            "compute_metrics receives logits and labels only; your script has the rows, and the metrics contain the "
            "loss",
        ),
        *_group(
            "refused",
            "compute_metrics receives logits and labels only; your script has the rows",
            _OLD,
            include_inputs_for_metrics=False,
        ),
        *_group("ignored", "rows are independent and share no state", _OLD, past_index=-1),
        *_group("ignored", "there is only one prediction loop", _OLD, use_legacy_prediction_loop=False),
        # Logs and checkpoints
        *_group(
            "ignored",
            "a loss of NaN or infinity stops the run with an error that names the rows",
            logging_nan_inf_filter=True,
        ),
        OtherArgument("include_num_input_tokens_seen", "no", "ignored", _NOT_COUNTED, harmless=(False,)),
        *_group("ignored", _NOT_COUNTED, _OLD, include_tokens_per_second=False),
        *_group("ignored", "set log levels with Python's logging module", log_level="passive"),
        OtherArgument(
            "log_level_replica", "warning", "ignored", "rank 0 alone writes to the log", harmless=("passive",)
        ),
        *_group(
            "ignored",
            "set the environment variable WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME instead; report_to selects the "
            "tracker",
            project="huggingface",
            trackio_space_id=None,
            trackio_bucket_id=None,
            trackio_static_space_id=None,
        ),
        *_group("ignored", "memory is not measured", skip_memory_metrics=True),
        *_group("ignored", "a loss of NaN or infinity always stops the run with an error", debug=""),
        *_group(
            "ignored",
            "a checkpoint always contains everything that a resumed run needs, which is small",
            save_only_model=False,
        ),
        *_group("ignored", "weights are always written as safetensors", _OLD, save_safetensors=True),
        *_group(
            "without effect",
            "a resumed run always restores the state of its callbacks",
            restore_callback_states_from_checkpoint=False,
        ),
        *_group("without effect", "runs are always deterministic, bit for bit", full_determinism=False),
        *_group("ignored", "training waits for each upload, so no upload is skipped", hub_always_push=False),
        *_group(
            "refused", "put the organisation into hub_model_id, as in name/model", _OLD, push_to_hub_organization=None
        ),
        # Scripts
        *_group("without effect", _FOR_SCRIPTS, do_train=False, do_eval=False, do_predict=False),
        *_group(
            "without effect",
            _FOR_SCRIPTS + "; to resume, pass it to Trainer.train, or give the command --resume",
            resume_from_checkpoint=None,
        ),
    )
}
"""Every argument of transformers that is not a field of `TrainingArguments` here, by name."""


class ParallelMode(enum.Enum):
    """How processes share the work: they do not, or each computes micro-batches of its own."""

    NOT_PARALLEL = "not_parallel"
    DISTRIBUTED = "distributed"


PROCESS: dict[str, Callable[[World], Any]] = {
    "should_log": lambda world: world.leads,
    "should_save": lambda world: world.leads,
    "device": lambda world: "cpu",
    "n_gpu": lambda world: 0,
    "world_size": lambda world: world.size,
    "process_index": lambda world: world.rank,
    "local_process_index": lambda world: world.local_rank,
    "parallel_mode": lambda world: ParallelMode.NOT_PARALLEL if world.size == 1 else ParallelMode.DISTRIBUTED,
    "place_model_on_device": lambda world: False,
}
"""What scripts ask their training arguments about processes and devices, and the answers of a process on the CPU."""

# Methods of transformers' TrainingArguments that set several arguments at once.
_SETTERS = (
    "training",
    "evaluate",
    "testing",
    "save",
    "logging",
    "push_to_hub",
    "optimizer",
    "lr_scheduler",
    "dataloader",
)


def instead_of_method(name: str) -> str:
    """Return ": " and what to do instead of calling a method that sets several arguments, or ""."""
    is_setter = name.removeprefix("set_") in _SETTERS and name.startswith("set_")
    return ": assign the arguments one by one, such as args.learning_rate = 1e-4" if is_setter else ""


_OPTIMIZERS = (
    f"{_ADAMW_ALONE} with the schedule lr_scheduler_type and warmup_steps, all set in the training arguments; to use "
    "another, write your own loop with forward, distillation_loss, backward and step"
)
# Arguments of transformers' Trainer that a trainer here lacks -> what to do instead.
_TRAINER_ARGUMENTS = {
    "optimizers": _OPTIMIZERS,
    "optimizer_cls_and_kwargs": _OPTIMIZERS,
    "compute_loss_func": "kdistill needs the gradient of a loss too: subclass the trainer and override "
    "compute_loss(logits, labels, rows), which returns the mean loss and its gradient with respect to the logits",
    "preprocess_logits_for_metrics": "compute_metrics receives the logits of all rows as one NumPy array; preprocess "
    "them there",
}

_LOOP = (
    "the training loop cannot be overridden; use callbacks, or write your own loop with forward, distillation_loss, "
    "backward and step"
)
_NO_BATCHES = "batches are taken from the encoded rows in train_dataset and eval_dataset; change those instead"
_ONE_EVALUATION = "override evaluate or predict, or pass compute_metrics"
# Methods of transformers' Trainer that a trainer here lacks -> what to do instead.
TRAINER_METHODS = {
    **dict.fromkeys(("training_step", "get_batch_samples", "autocast_smart_context_manager", "num_tokens"), _LOOP),
    **dict.fromkeys(("create_optimizer", "create_scheduler", "create_optimizer_and_scheduler"), _OPTIMIZERS),
    **dict.fromkeys(("get_optimizer_cls_and_kwargs", "get_decay_parameter_names"), _OPTIMIZERS),
    **dict.fromkeys(("get_train_dataloader", "get_eval_dataloader", "get_test_dataloader"), _NO_BATCHES),
    **dict.fromkeys(("_get_train_sampler", "_get_eval_sampler", "_prepare_inputs", "num_examples"), _NO_BATCHES),
    **dict.fromkeys(("prediction_step", "evaluation_loop", "prediction_loop"), _ONE_EVALUATION),
    "call_model_init": "call model_init directly",
    "init_hf_repo": "push_to_hub creates the repository",
    "store_flos": "operations are not counted",
    "floating_point_ops": "operations are not counted",
    "metrics_format": "log_metrics prints them",
    "get_learning_rates": "read the learning rates from state.log_history",
    "get_num_trainable_parameters": "use model.num_parameters()",
    "accelerator": "args.process_index and args.world_size tell of the processes that train together, on the CPU",
}


def check_overrides(cls: type) -> None:
    """Raise `TypeError` for a class derived from a trainer whose methods are those of transformers, never called here.

    These are methods that a trainer here lacks, and a `compute_loss` with the arguments model and inputs.
    """
    for name in vars(cls):
        if name in TRAINER_METHODS:
            raise TypeError(f"{cls.__name__}.{name} would never be called: {TRAINER_METHODS[name]}")
    compute_loss = vars(cls).get("compute_loss")
    if callable(compute_loss) and {"model", "inputs"} & inspect.signature(compute_loss).parameters.keys():
        raise TypeError(
            f"{cls.__name__}.compute_loss has the arguments of transformers; expected compute_loss(self, logits, "
            "labels, rows), which returns the mean loss of a batch and its gradient with respect to the logits; to "
            "weigh labels give the argument class_weights, or pos_weight with several labels a row"
        )


# Arguments of Optuna's create_study and Study.optimize that a search here lacks -> what to do instead.
_SEARCH_ARGUMENTS = {
    "directions": "pass the list as direction",
    "callbacks": "use the callbacks of the trainer, which are called in every trial; the study is trainer.study",
    "show_progress_bar": "progress is shown unless the training argument disable_tqdm is True",
    "resources_per_trial": "n_jobs trials share the cores, with Ray those of its cluster",
}


def check_search_arguments(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise `TypeError` for keyword arguments that a search does not have, with the alternative or the nearest name.

    Args:
        given: the unexpected arguments. `gc_after_trial` is accepted: memory is always freed after a trial.
        known: names of the arguments that the search has.
    """
    for name in given:
        if name in _SEARCH_ARGUMENTS:
            raise TypeError(f"hyperparameter_search does not take {name}: {_SEARCH_ARGUMENTS[name]}")
        if name != "gc_after_trial":
            named = [each for each in known if each not in ("self", "others")]
            raise TypeError(f"hyperparameter_search has no argument {name!r}{did_you_mean_argument(name, named)}")


def check_trainer_arguments(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise `TypeError` for keyword arguments that a `Trainer` does not have, with the alternative or the nearest name.

    Args:
        given: the unexpected arguments. Of those that transformers has, None and optimizers=(None, None) are accepted.
        known: names of the arguments that the trainer has.
    """
    for name, value in given.items():
        if name not in _TRAINER_ARGUMENTS:
            raise TypeError(
                f"a trainer has no argument {name!r}{did_you_mean_argument(name, [*known, *_TRAINER_ARGUMENTS])}"
            )
        if value is not None and value != (None, None):
            raise TypeError(f"a trainer does not take {name}: {_TRAINER_ARGUMENTS[name]}")


def translate(name: str, value: Any, stacklevel: int) -> tuple[str, Any] | None:
    """Return the argument and the value to set for one of `OTHER_ARGUMENTS`, or None when there is nothing to set.

    A value that is ignored gives a warning.

    Args:
        name: a key of `OTHER_ARGUMENTS`.
        value: the value given for it.
        stacklevel: of the warning, as in `warnings.warn`.

    Raises:
        ValueError: the argument is refused.
    """
    other = OTHER_ARGUMENTS[name]
    if other.changes_nothing(value) or other.verdict == "without effect":
        return None
    if other.becomes is not None:
        return other.becomes, value
    if other.verdict == "refused":
        raise ValueError(f"{name} is {value!r}, which kdistill does not support: {other.reason}")
    warnings.warn(f"{name} is ignored: {other.reason}", stacklevel=stacklevel + 1)
    return None
