"""The server that `benchmarks.serving` compares with: ONNX Runtime behind the same framework, as one writes it.

The tokenizer is the same package, and so are the ASGI server and its settings. Each request is a batch of its own
("one"), or what waits is padded and computed together ("gathered"), in a thread while the event loop goes on.
"""

from __future__ import annotations

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tokenizers import Tokenizer

LABELS = ("negative", "positive")
MOST_TEXTS = 64


class Model:
    """A tokenizer and a session of ONNX Runtime."""

    def __init__(self, tokenizer: Path, graph: Path, threads: int) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_truncation(512)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return label and score of each text."""
        if len(texts) == 1:
            ids = np.array([self.tokenizer.encode(texts[0]).ids])
            mask = np.ones_like(ids)
        else:
            rows = [row.ids for row in self.tokenizer.encode_batch_fast(texts)]
            ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
            mask = np.zeros_like(ids)
            for place, row in enumerate(rows):
                ids[place, : len(row)] = row
                mask[place, : len(row)] = 1
        (logits,) = self.session.run(None, {"input_ids": ids, "attention_mask": mask})
        powers: NDArray[np.float32] = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = powers / powers.sum(axis=1, keepdims=True)
        best = scores.argmax(axis=1)
        return [{"label": LABELS[k], "score": float(row[k])} for k, row in zip(best, scores, strict=True)]


class Gathered:
    """Computes what waits, together."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.waiting: list[tuple[str, asyncio.Future[dict[str, Any]]]] = []
        self.there = asyncio.Event()
        self.pool = ThreadPoolExecutor(1)
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def ask(self, text: str) -> dict[str, Any]:
        """Return the answer to a text."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.waiting.append((text, future))
        self.there.set()
        return await future

    async def run(self) -> None:
        """Take all that waits, again and again."""
        loop = asyncio.get_running_loop()
        while True:
            await self.there.wait()
            batch, self.waiting = self.waiting[:MOST_TEXTS], self.waiting[MOST_TEXTS:]
            if not self.waiting:
                self.there.clear()
            answers = await loop.run_in_executor(self.pool, self.model, [text for text, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def make_app(model: Model, way: str) -> Starlette:
    """Return the application."""
    gathered: list[Gathered] = []
    pool = ThreadPoolExecutor(2)

    async def predict(request: Request) -> Response:
        text = (await request.json())["inputs"]
        if way == "one":
            return JSONResponse(model([text]))
        if way == "threads":
            return JSONResponse(await asyncio.get_running_loop().run_in_executor(pool, model, [text]))
        if not gathered:
            gathered.append(Gathered(model))
        return JSONResponse([await gathered[0].ask(text)])

    return Starlette(routes=[Route("/predict", predict, methods=["POST"])])


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--way", choices=("one", "threads", "gathered"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    model = Model(options.tokenizer, options.graph, options.threads)
    model(["a first text"])
    uvicorn.run(make_app(model, options.way), port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
