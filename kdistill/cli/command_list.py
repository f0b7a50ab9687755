"""The commands: what each does, and which training arguments are options of it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..train.arguments import DistillationTrainingArguments, TrainingArguments
from ..train.presets import STUDENT_PRESETS


@dataclass(frozen=True)
class Command:
    """A command as `--help` tells of it, with the training arguments that are its options."""

    name: str
    usage: str
    summary: str
    description: str
    example: str
    arguments: type[TrainingArguments] | None = None
    """The training arguments that are options of this command, ..."""
    only: tuple[str, ...] | None = None
    """... or only these of them."""


_PREDICTING = (
    *("max_length", "doc_stride", "max_answer_length", "n_best"),
    *("per_device_eval_batch_size", "disable_tqdm"),
)
_MEASURING = (*_PREDICTING, "mlm_probability", "threshold")
_LEARNING = tuple(
    field.name
    for field in fields(DistillationTrainingArguments)
    if field.metadata["group"] in ("distillation", "training", "optimiser", "evaluation")
)
# A trial writes no model, so it needs no options about checkpoints and uploads.
_SEARCHING = (*("output_dir", "plots", "report_to", "logging_dir", "disable_tqdm"), *_LEARNING)
_RECOVERING = (*("save_strategy", "save_steps", "save_total_limit", "disable_tqdm"), *_LEARNING)
COMMANDS = (
    Command(
        "finetune",
        "--model MODEL --train FILE [--eval FILE] --output-dir DIR",
        "train a model on labelled rows",
        "Train a pretrained model of the BERT family on labelled rows, for example to make a teacher. The output "
        "directory receives the model, which `transformers` can load, a model card and the results.",
        "kdistill finetune --model bert-base-uncased --train train.tsv --eval dev.tsv --output-dir teacher",
        TrainingArguments,
    ),
    Command(
        "distill",
        "--teacher MODEL [--student MODEL] --train FILE [--eval FILE] --output-dir DIR",
        "train a small model to reproduce a large one",
        "Train a small model (the student) on the labels and on the probabilities that a large fine-tuned one (the "
        "teacher) predicts. On rows without a label the student learns from the teacher only. A "
        f"recipe names the student as well: --recipe {' or '.join(STUDENT_PRESETS)}.",
        "kdistill distill --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv --output-dir student",
        DistillationTrainingArguments,
    ),
    Command(
        "doctor",
        "--teacher MODEL [--student MODEL] --train FILE [--eval FILE] [--output-dir DIR]",
        "check a run of distill before it is made",
        "Look at teacher, student, rows, arguments and machine as distill would take them, in seconds: what would make "
        "the run fail or mislead, and what to do about it. The teacher answers sampled rows, a copy of the student "
        "makes a few steps, and nothing is written. The exit status is 1 when there is an error.",
        "kdistill doctor --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv \\\n"
        "      --output-dir student",
        DistillationTrainingArguments,
    ),
    Command(
        "search",
        "--teacher MODEL [--student MODEL] --train FILE --eval FILE --output-dir DIR",
        "find the best hyperparameters for distill",
        "Distil the student repeatedly from the same initial weights, with hyperparameters that Optuna chooses from "
        "the results of earlier trials on the --eval rows. The study is stored in the output directory: running the "
        "same command again continues it, and several processes can work on it at once. The best hyperparameters are "
        "written to best_run.toml, which distill --config reads.",
        "kdistill search --teacher teacher --student L2-H128-A2 --train train.tsv --eval dev.tsv \\\n"
        "      --output-dir search --n-trials 50 --n-jobs 2",
        DistillationTrainingArguments,
        _SEARCHING,
    ),
    Command(
        "label",
        "--teacher MODEL --data FILE --output FILE",
        "write what a teacher answers beside the rows",
        "Write the rows of --data with the logits that the teacher gives them (a column teacher_logits), as data that "
        "distill --train takes without a teacher, on this machine or another. What the teacher has answered is kept in "
        "the teacher cache: the same command goes on where it was interrupted.",
        "kdistill label --teacher teacher --data train.tsv --output labelled.parquet",
        DistillationTrainingArguments,
        ("max_length", "doc_stride", "teacher_cache", "disable_tqdm"),
    ),
    Command(
        "encode",
        "--data FILE --tokenizer MODEL --output DIR",
        "write token files, for more rows than fit into memory",
        "Write the tokens of the rows of --data into a directory that --train and --eval take in place of the file. A "
        "run maps it into memory, so that its memory does not grow with the rows, and has the bits of a run on the "
        "text. JSON lines, Parquet, TSV, CSV and a text a line are never whole in memory. The directory is written in "
        "shards: the same command goes on where it was interrupted.",
        "kdistill encode --data 'rows-*.parquet' --tokenizer teacher --output tokens --max-length 128",
        TrainingArguments,
        ("max_length", "doc_stride", "disable_tqdm"),
    ),
    Command(
        "prune",
        "--model MODEL --data FILE --output DIR",
        "leave out the parts of a model that matter least",
        "Write a smaller model of a trained one into a new directory: with some of its layers, with the attention "
        "heads and feed-forward units that matter most for its loss on the rows of --data, which are then all that is "
        "computed, or with the word pieces that occur in texts. Rows of these pieces have the same logits, bit for "
        "bit. With --rounds the model learns again, from what it was. The rows of --data are training rows, never "
        "those that the model is measured on.",
        "kdistill prune --model student --data train.tsv --output student-small --feed-forward 0.5 --vocabulary",
        DistillationTrainingArguments,
        _RECOVERING,
    ),
    Command(
        "quantize",
        "--model MODEL --data FILE --output DIR",
        "write a trained model in int8",
        "Write a trained model with weights and embeddings in int8, a quarter of its size, into a new directory that "
        "every command loads, and print how far it differs on the rows of --data: accuracy before and after with "
        "McNemar's test, and agreement.",
        "kdistill quantize --model student --data dev.tsv --output student-int8",
        TrainingArguments,
        ("max_length", "doc_stride", "mlm_probability", "per_device_eval_batch_size", "disable_tqdm"),
    ),
    Command(
        "evaluate",
        "--model MODEL --data FILE",
        "measure a model on labelled rows",
        "Print the loss, n (the number of labelled rows) and the metrics of the model's problem type: accuracy for "
        "single-label classification; accuracy (all labels of a row right), micro f1, average precision and top-1 for "
        "multi-label classification; mse, pearson and spearmanr for regression; accuracy of tags, and f1, precision "
        "and recall of entities; exact_match and f1 of answers to questions. --metrics adds others.",
        "kdistill evaluate --model student --data dev.tsv",
        TrainingArguments,
        _MEASURING,
    ),
    Command(
        "predict",
        "--model MODEL [--data FILE | --text TEXT ...] [--output FILE]",
        "predict labels of texts, tags of words or answers to questions",
        "Write one line per row: its index, the predicted label (or labels, or number), the probability of each label "
        "or of the best (--top-k), and the text, separated by tabs. Tags of words and answers to questions are JSON "
        "lines. Rows are those of --data or --text, or a text a line on standard input.",
        "kdistill predict --model student --data test.tsv --output predictions.tsv",
        TrainingArguments,
        _PREDICTING,
    ),
    Command(
        "serve",
        "--model MODEL [--host HOST] [--port PORT]",
        "answer texts over HTTP",
        "Load a model and answer requests for predictions until Ctrl-C or SIGTERM: POST /invocations, as SageMaker and "
        "Hugging Face's inference toolkit send them, or POST /predict; GET /ping, /health and /metrics (Prometheus). "
        "Texts of different requests are computed in one batch, with the scores of kdistill predict.",
        "kdistill serve --model student --port 8080",
    ),
    Command(
        "export",
        "--model MODEL --format onnx|gguf --output FILE|DIR [--dtype TYPE] [--data FILE]",
        "write a model for other programs",
        "Write a model as ONNX, for ONNX Runtime, transformers.js, OpenVINO and others. --output FILE.onnx gets the "
        "graph alone; a directory gets it as onnx/model.onnx (float16: onnx/model_fp16.onnx, int8: "
        "onnx/model_quantized.onnx) with the configuration and the tokenizer beside it. Before it is written, its "
        "logits in ONNX Runtime are compared with those of kdistill. int8 with training rows (--data) has the form "
        "QDQ, which is fast in OpenVINO. Or as GGUF, for llama.cpp: encoders and classifiers in the shape of BERT, "
        "with their tokenizer, int8 as Q8_0. Needs the extra export.",
        "kdistill export --model student --format onnx --output exported",
        TrainingArguments,
        ("max_length", "doc_stride", "mlm_probability", "disable_tqdm"),
    ),
    Command(
        "report",
        "--model DIR [--without-teacher DIR ...] [--seed-runs DIR ...] [--holdout FILE]",
        "measure a finished run and complete its model card",
        "Measure the run in DIR on its evaluation rows: accuracy with a confidence interval, calibration, agreement "
        "with the teacher, and the speed of both models. Compare it with the same student trained without a teacher, "
        "with other seeds and on held-out rows, if they are given. Write the results to the model card, DIR/README.md. "
        "The inputs of the run are read from DIR/command.txt. An int8 artefact is measured on the rows of --eval.",
        "kdistill report --model student --without-teacher student-alone --seed-runs student-34 student-35 \\\n"
        "      --holdout test.tsv",
    ),
    Command(
        "bench",
        "--model MODEL [--data FILE]",
        "measure the speed of a model on this machine",
        "Measure sentences per second in batches, the latency of a single sentence, and the share of the machine's "
        "measured float32 peak that this reaches, in each compute type of --dtype. PyTorch, ONNX Runtime "
        "and OpenVINO are measured as well, in float32, if they are installed.",
        "kdistill bench --model L2-H128-A2 --dtype float32 bfloat16 int8",
    ),
    Command(
        "info",
        "[--model MODEL]",
        "show versions, CPU, threads and the teacher cache",
        "Show versions, the instruction sets of the CPU, which of them multiplies each compute type, the number of "
        "threads and the teacher cache.",
        "kdistill info --model student",
    ),
    Command(
        "cache",
        "info|clear",
        "show or empty the teacher cache",
        "The teacher cache stores the logits of teachers, so that later runs on the same rows need not run the "
        "teacher. It is in $KDISTILL_CACHE or in the user's cache directory, and can be cleared at any time.",
        "kdistill cache info",
    ),
    Command(
        "completion",
        "bash|zsh|fish",
        "print a shell script that completes commands and options",
        'Print a completion script. Put eval "$(kdistill completion bash)" into ~/.bashrc (the same with zsh in '
        "~/.zshrc), or kdistill completion fish | source into the configuration of fish.",
        "kdistill completion bash",
    ),
)
