"""`Model`: an encoder with a head over the C core, under the names of `transformers`.

More than 500 lines, since a class is whole in one file.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _core
from ..data.batch import Batch, pack
from ..formats.int8 import Int8Rows, widened
from ..hub import resolve
from ..keywords import location, take_dtype
from ..system.compute import compute_type, warn_if_portable
from ..system.foreign import check_kind
from ..system.memory import require_memory, workspace
from ..system.names import missing_attribute
from ..system.output import given_path
from ..system.seeds import chosen_seed
from ..system.threads import aligned_zeros, get_num_threads, lock, read_only, sparse_zeros
from .architecture import Architecture, Names
from .checkpoint import WEIGHTS_FILES, write_weights
from .config import check_config
from .configuration import CONFIG_FILE, Config, write_config
from .content_key import logits_digest, logits_key, weights_digest
from .flat_digest import FlatDigest, HashedFilling
from .golden import load_artefact
from .initialization import (
    PROJECTION,
    WORD_EMBEDDINGS,
    Source,
    put_taken,
    random_tensor,
    resized_rows,
    teacher_tensors,
)
from .loading import check_sizes_of_weights, load_parameters
from .packed import PackedFilling, bytes_packed_alone, bytes_without_products, is_product
from .parameters import Flat, IncompatibleKeys, Tensor, TensorViews, by_canonical_name, count_parameters, fitting_arrays
from .quantization import Quantization, read_quantization
from .sentence_files import config_in
from .shown import as_html, in_one_line
from .transformers_names import ATTRIBUTES
from .vocabularies import common_tokens
from .weight_files import WeightFiles

Tap = tuple[str, int]


class PendingUpdates(Protocol):
    """Row updates that an optimiser has postponed. The model applies them before it reads a row."""

    def catch_up(self, ids: NDArray[np.int32] | None = None) -> None: ...


class Model:
    """An encoder with a head, all layers in C. Each architecture with each head is a class that derives from this one.

    Parameters, gradients and the optimiser's moments are flat float32 arrays of one layout; `parameters` and
    `gradients` show them as named views. Gradients are allocated by the first training pass.

    Args:
        config: the model's shape and constants.
        seed: of the initial weights, N(0, initializer_range) with zero biases and unit LayerNorms; also the
            default of `dropout_seed` (default: that of `set_seed`, or 0).

    Attributes:
        architecture: the encoder's names in checkpoints and configurations; stated by the class.
        head: the name of the head among those of the architecture; stated by the class.
        config: the configuration.
        dropout_seed, optimizer_step, tokens_in_step: where the model is in its stream of dropout masks. A training
            pass uses the masks of (dropout_seed, optimizer_step) from token `tokens_in_step` on and adds its tokens
            to that count; `AdamW.step` goes on to the next step.
        frozen: the model only evaluates, as a teacher does: no gradients, no dropout, weights packed once.
        has_new_layers: whether its layers were drawn at random and not trained since: neither read from a checkpoint
            nor copied from a teacher.
        quantization: what the int8 artefact states that it was loaded from; None for all other models.
        name_or_path: the directory that its files were read from, also of a hub id, where copies have it too; "" for a
            model that was read from none. `prune`, `quantize` and `export` find its tokenizer there.
    """

    architecture: ClassVar[Architecture]
    head: ClassVar[str]
    has_new_layers = False
    quantization: Quantization | None = None
    name_or_path = ""

    def __init__(self, config: Config, seed: int | None = None) -> None:
        self._check_own(config)
        seed = chosen_seed(seed)
        self._allocate(config, seed)
        self.has_new_layers = True
        generator = np.random.Generator(np.random.Philox(seed))
        views = TensorViews(self._parameters, self.layout)
        for tensor in self.layout:
            views[tensor.name][:] = random_tensor(tensor.canonical, tensor.shape, config, generator)

    @classmethod
    def _check_own(cls, config: object) -> None:
        """Raise TypeError for what is no configuration, or one of another architecture."""
        check_config("config", config)
        own = cls.architecture.config
        if not isinstance(config, own):
            raise TypeError(
                f"config is of type {type(config).__name__}; expected {own.__name__} for {cls.__name__}, or the class "
                f"{type(config).__name__.removesuffix('Config')}{cls.__name__.removeprefix(cls.architecture.name)}"
            )

    @classmethod
    def stored_names(cls) -> Names:
        """Return what checkpoints of this class call the core's tensors."""
        return cls.architecture.names(cls.head)

    def _allocate(self, config: Config, seed: int, packed_alone: str | None = None) -> None:
        """Make the memory of a new model; with a compute type `packed_alone`, of one that `PackedFilling` fills."""
        self._shape = self.architecture.encoder(config), self.architecture.head(self.head, config)
        names, (size, tensors) = self.stored_names(), _core.layout(*self._shape)
        self.config = config.with_head(self.head)
        self.layout = [
            Tensor(names.stored(canonical), shape, offset, decay, canonical)
            for canonical, shape, offset, decay in tensors
        ]
        bytes_needed = 4 * size if packed_alone is None else bytes_packed_alone(self.layout, packed_alone)
        what = f"a model of {size:,} parameters"
        require_memory(bytes_needed, what, "expected a smaller shape in its configuration")
        self.frozen = packed_alone is not None
        self._compute = packed_alone or "float32"  # the type of the encoder's products: frozen, or while training
        self.dropout_seed = seed
        self.optimizer_step = 0
        self.tokens_in_step = 0
        self._parameters = aligned_zeros(size) if packed_alone is None else sparse_zeros(size)
        self._has_weights = packed_alone is None  # in float32; otherwise those of products are there packed alone
        self._words: Int8Rows | None = None  # the word embeddings, where these are there in int8 alone
        self._files: WeightFiles | None = None  # where those that are there packed alone can be read again
        self._keeps_type = True  # where they are there packed alone, no other compute type is taken
        self._gradients: NDArray[np.float32] | None = None
        self._handed_out = False  # somebody may write through a view: weights are packed before each pass
        self._lent = False  # the same, or somebody was given the flat array
        self._hashes: dict[str, str] = {}  # of the logits, by compute type
        self._digest: str | None = None
        self._pending: PendingUpdates | None = None
        self.core = self._new_core()

    def _new_core(self, parameters: NDArray[np.float32] | None = None) -> _core.Model:
        flat = self._parameters if parameters is None else parameters
        return _core.Model(*self._shape, flat, self._gradients, workspace, dtype=self._compute)

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | os.PathLike[str],
        *,
        dtype: Any = None,
        keep_weights: bool = True,
        config: Config | None = None,
        num_labels: int | None = None,
        id2label: Mapping[int, str] | None = None,
        label2id: Mapping[str, int] | None = None,
        problem_type: str | None = None,
        hidden_dropout_prob: float | None = None,
        attention_probs_dropout_prob: float | None = None,
        ignore_mismatched_sizes: bool = False,
        seed: int | None = None,
        **keywords: Any,
    ) -> Self:
        """Load a checkpoint: a local directory first, then the hub's cache, then the hub.

        Args:
            path_or_id: a directory with config.json and weights (safetensors or either torch .bin format), or a hub id.
            dtype: "float32", "bfloat16" or "int8" (or NumPy's or torch's type): a frozen model that computes in it, see
                `freeze`. By default, and with "auto", a model in float32 that can be trained; an int8 artefact, which
                `kdistill quantize` makes, is frozen in int8. `torch_dtype` is its older name, where float32 leaves the
                model trainable.
            keep_weights: False makes a frozen model, by default in float32, whose products' weights are packed alone,
                also in float32: half of the memory. `freeze(dtype=...)` then reads the files again, and so do copies
                and students.
            config: used in place of config.json.
            num_labels: replaces that of the config; for a checkpoint without a classifier.
            id2label: likewise.
            label2id: likewise.
            problem_type: likewise, and for any checkpoint.
            hidden_dropout_prob: likewise, of embeddings and layers while the model is trained.
            attention_probs_dropout_prob: likewise, of attention.
            ignore_mismatched_sizes: initialise what the file has in another shape, such as a classifier of other
                labels, with a warning, instead of raising.
            seed: of tensors the file lacks (classifier, pooler), which are initialised with a warning (default: that of
                `set_seed`, or 0).
            keywords: where the files are (`token`, `revision`, `cache_dir`, `force_download`, `local_files_only`,
                `subfolder`), see `hub.resolve`; other arguments of the configuration, which replace values of
                config.json; those of transformers that are of no use here, see `kdistill.keywords`. With fewer
                `num_hidden_layers` the first layers are loaded, and a warning names what is left unread. Other sizes
                are those of the weights.

        Raises:
            FileNotFoundError: nothing of that name here or on the hub.
            ValueError: the files do not hold a model of the shape in config.json; names file and tensor. Or `keywords`
                would read the weights as those of another shape, or ask for what kdistill cannot do.
            TypeError: a keyword is unknown; the message names the nearest one.
        """
        older = compute_type("torch_dtype", keywords.get("torch_dtype"))
        compute = take_dtype(keywords | {"dtype": dtype})
        kind = cls.architecture.config
        known = kind.arguments()
        changes = {name: keywords.pop(name) for name in [*keywords] if name in known}
        known += tuple(inspect.signature(Model.from_pretrained).parameters)
        where = location(keywords, f"{cls.__name__}.from_pretrained", known)
        if config is not None:
            cls._check_own(config)
        needed = [WEIGHTS_FILES] if config is not None else [(CONFIG_FILE,), WEIGHTS_FILES]
        directory = resolve(path_or_id, needed, **where)
        stored = config_in(directory, kind.from_pretrained(directory), cls.head) if config is None else config
        named = {
            "num_labels": num_labels,
            "id2label": id2label,
            "label2id": label2id,
            "problem_type": problem_type,
            "hidden_dropout_prob": hidden_dropout_prob,
            "attention_probs_dropout_prob": attention_probs_dropout_prob,
        }
        changes |= {name: value for name, value in named.items() if value is not None}
        config = stored.replace(**changes)
        check_sizes_of_weights(stored, config, changes)
        quantization = read_quantization(directory)
        if quantization is not None:
            compute = compute or older
        elif not keep_weights:
            compute = compute or older or "float32"
        load = partial(
            cls._load,
            directory,
            config,
            chosen_seed(seed),
            keep_weights=keep_weights,
            stored_layers=stored.num_hidden_layers,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
        )
        if quantization is None:
            return load(compute)
        return load_artefact(load, directory, quantization, compute)

    @classmethod
    def _load(
        cls,
        directory: Path,
        config: Config,
        seed: int,
        compute: str | None,
        quantization: Quantization | None = None,
        *,
        keep_weights: bool,
        **settings: Any,
    ) -> Self:
        """Load weights into a new model, frozen in a compute type unless that is None; see `load_parameters`."""
        model = cls.__new__(cls)
        packed_alone = compute if compute != "float32" or not keep_weights else None
        model._allocate(config, seed, packed_alone)
        model.quantization = quantization
        model.name_or_path = str(directory.absolute())
        fill = partial(
            load_parameters,
            model.layout,
            directory=directory,
            names=cls.stored_names(),
            config=model.config,
            seed=seed,
            **settings,
        )
        files = WeightFiles(directory, fill)
        if packed_alone is None:
            files.read(model._filling())
            return model if compute is None else model.freeze(compute)
        digest = FlatDigest(model.num_flat) if keep_weights else None  # otherwise once somebody asks for it
        packed = PackedFilling(model.layout, model._parameters, model.core, digest)
        files.read(packed, packed.take_int8)
        model._files, model._keeps_type = files, keep_weights or quantization is not None
        model._digest, model._words = None if digest is None else digest.finished()[0], packed.words
        warn_if_portable(model._compute)
        return model.freeze(compute)

    def _filling(self) -> Callable[[Tensor], AbstractContextManager[Flat]]:
        """Return what gives each tensor its place in the flat array, to be filled."""
        views = TensorViews(self._parameters, self.layout)
        return lambda tensor: nullcontext(views[tensor.name])

    @classmethod
    def from_teacher(
        cls,
        teacher: Model,
        config: Config,
        layers: Sequence[int] | None = None,
        token_counts: ArrayLike | None = None,
        seed: int | None = None,
        *,
        vocabulary: Mapping[str, int] | None = None,
        teacher_vocabulary: Mapping[str, int] | None = None,
    ) -> Self:
        """Make a student that starts from its teacher, which may be of another architecture.

        The student's embeddings are the teacher's on their principal components (PCA), as many as the student is
        wide. Where the widths are equal, they and `layers` of the teacher are copied instead, and between language
        models the head, too. The rest is initialised N(0, initializer_range); a new language model's head so that it
        expects each word as often as `token_counts` has it. Layers of a teacher that `from_pretrained` loaded in a
        narrow type are read again from its files, those of an int8 artefact as its integers times their scales.

        Args:
            teacher: the model to start from.
            config: the student's; the number of positions must be the teacher's, and that of token types too, unless
                one of both has none. So must the vocabulary, but for rows that pad its matrix to a multiple of 8 to
                128: common rows are taken, others initialised.
            layers: which teacher layer each student layer copies, when hidden size, heads and feed-forward are the
                teacher's; default evenly spaced, the last included.
            token_counts: (vocab_size,) how often each token occurs in the training rows; weighs the components
                (default: all alike).
            seed: of the initialised tensors.
            vocabulary: with `teacher_vocabulary`, for a student that has another one: token -> id, as
                `tokenizer.get_vocab()` returns it. Tokens that both know take the teacher's embeddings, see
                `vocabularies.common_tokens`; others are initialised.
            teacher_vocabulary: likewise.

        Raises:
            ValueError: the shapes do not allow it; names the field or layer. Or the vocabularies have no token in
                common, or only one is given.
            TypeError: the teacher is no model, `config` no configuration of this class's architecture.
            RuntimeError: layers are to be copied, and the teacher gave its float32 weights up (`freeze`), or its files
                hold others by now.
        """
        check_model("teacher", teacher)
        cls._check_own(config)
        if (vocabulary is None) != (teacher_vocabulary is None):
            raise ValueError("one of vocabulary and teacher_vocabulary is None; expected both, or none of them")
        common = None
        if vocabulary is not None and teacher_vocabulary is not None:
            common = common_tokens(vocabulary, teacher_vocabulary)
        if config.pooling is None:
            config = config.with_pooling(teacher.config.pooling)
        trained_with = config.trained_with.at_threshold(None)  # it fits another model's probabilities
        student = cls(config.with_trained(trained_with), seed=seed)
        if any(tensor.canonical == PROJECTION for tensor in student.layout):
            raise ValueError(
                f"config is of type {type(config).__name__}, with embeddings of a width of their own; expected a "
                "student whose embeddings can be taken from a teacher, such as a BertConfig or a DistilBertConfig"
            )
        arrays = teacher.float32_tensors
        projected = any(tensor.canonical == PROJECTION for tensor in teacher.layout)
        if projected or config.hidden_size == teacher.config.hidden_size:
            arrays = teacher.in_float32().tensors  # products, too
        given = Source(teacher.config, arrays, teacher.head_activation)
        tensors = teacher_tensors(given, student.config, student.head_activation, layers, token_counts, common)
        with student.writing() as flat:
            put_taken(TensorViews(flat, by_canonical_name(student.layout)), tensors, config, common)
        student.has_new_layers = not any(name.startswith("layer.") for name in tensors)
        return student

    @classmethod
    def from_tensors(cls, config: Config, tensors: Mapping[str, Flat]) -> Self:
        """Make a model of given weights.

        Args:
            config: the model's.
            tensors: canonical name -> float32 array of the shape that `config` gives the tensor; further names are not
                read.
        """
        cls._check_own(config)
        model = cls.__new__(cls)
        model._allocate(config, 0)
        for name, view in TensorViews(model._parameters, by_canonical_name(model.layout)).items():
            assert tensors[name].shape == view.shape, (name, tensors[name].shape, view.shape)
            view[...] = tensors[name]
        return model

    @property
    def tensors(self) -> TensorViews:
        """Read-only float32 views of the parameters under the core's names, the same for every architecture."""
        return TensorViews(self.flat_parameters, by_canonical_name(self.layout))

    @property
    def head_activation(self) -> str | None:
        """The activation behind the dense product of the head, None without one."""
        activation: str | None = self.architecture.head(self.head, self.config)["dense"]
        return activation

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle keeps: the weights and the place in the dropout masks, not gradients."""
        left_out = dict.fromkeys(("core", "_files", "_gradients", "_pending"))
        return {**self.__dict__, **left_out, "_parameters": self._weights_to_copy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the pickled model again, in memory of its own, frozen if it was."""
        self._allocate(state["config"], state["dropout_seed"])
        self._parameters[:] = state["_parameters"]
        own = ("core", "_shape", "_parameters", "_gradients", "_pending", "_hashes", "_digest", "_handed_out", "_lent")
        of_packed = ("_has_weights", "_words", "_files", "_keeps_type")
        restored = (*own, *of_packed, "frozen", "_compute")
        self.__dict__.update({name: value for name, value in state.items() if name not in restored})
        if state["frozen"]:
            self.freeze(state["_compute"])
        else:
            self.training_dtype = state["_compute"]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return another model with the same weights, not frozen and unknown to any optimiser."""
        weights = self._weights_to_copy()
        model = type(self).__new__(type(self))
        model._allocate(self.config, self.dropout_seed)
        model.has_new_layers = self.has_new_layers
        model.name_or_path = self.name_or_path
        model._parameters[:] = weights
        if not self.frozen:
            model.training_dtype = self.training_dtype
        return model

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors in float32, as `transformers` reads them; create the directory.

        Raises:
            RuntimeError: the model was loaded with a narrow `dtype`, so that its float32 weights are not in memory.
        """
        path, flat = given_path("directory", directory), self.flat_parameters
        path.mkdir(parents=True, exist_ok=True)
        write_weights(path, TensorViews(flat, self.layout))
        write_config(path, self.config.to_dict() | {"architectures": [type(self).__name__]})

    # ---- parameters and gradients

    def track_pending_updates(self, updates: PendingUpdates) -> None:
        """Remember the optimiser that postpones updates of this model's rows, after applying those of a former one."""
        if self._pending is not updates:
            self._apply_pending_updates()
            self._pending = updates

    def _apply_pending_updates(self) -> None:
        """Apply all postponed updates, so that every parameter is up to date."""
        if self._pending is not None:
            self._pending.catch_up()

    @property
    def parameters(self) -> TensorViews:
        """Named float32 views of the parameters; writable between calls unless the model is frozen.

        `parameters[name]` is up to date when it is asked for, `parameters()` gives all arrays. Rows of the word
        embeddings move late (see AdamW): an array from before a step is to be asked for again.
        """
        return TensorViews(self._parameters_of_a_user, self.layout)

    def named_parameters(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield (name, view) of each parameter, as `parameters` shows them."""
        return iter(self.parameters.items())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameters.

        Args:
            only_trainable: count those that can be trained: none of a frozen model.
            exclude_embeddings: leave out the embeddings of words, positions and token types.
        """
        return 0 if only_trainable and self.frozen else count_parameters(self.layout, exclude_embeddings)

    def state_dict(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of each parameter by name, float32; further training does not change it."""
        return {name: view.copy() for name, view in self.named_parameters()}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Set parameters by name: all of them or, when anything does not fit, none.

        Args:
            state_dict: arrays, or what NumPy makes one of, such as tensors of torch on the CPU. Names are understood as
                in a checkpoint, also below `module.` and `_orig_mod.`.
            strict: raise for missing and unknown names.

        Returns:
            The names that were missing, and those that the model does not have.

        Raises:
            ValueError: a name is missing or unknown (with `strict`), or an array has another shape than the parameter.
            TypeError: an array does not hold real numbers.
            RuntimeError: the model is frozen.
        """
        arrays, keys = fitting_arrays(state_dict, self.layout, strict, self.stored_names())
        with self.writing() as flat:
            views = TensorViews(flat, self.layout)
            for name, array in arrays.items():
                views[name][...] = array
        self.has_new_layers = False
        return keys

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> NDArray[np.float32]:
        """Change the rows of the word embeddings, and `config.vocab_size` with them, as `transformers` does.

        New rows come behind the others, and missing ones are cut off there. An optimiser is to be made afterwards.

        Args:
            new_num_tokens: rows, such as `len(tokenizer)` after `add_tokens` (default: as many as there are).
            pad_to_multiple_of: rounds the rows up.
            mean_resizing: draw new rows close to the mean of the others, the default of transformers 5; False draws
                N(0, initializer_range). Both depend on the model's seed.

        Returns:
            The word embeddings, float32 (rows, hidden_size), read-only.

        Raises:
            ValueError: a number is not positive, or the padding token would be cut off.
            TypeError: a number is no int.
            RuntimeError: the model is frozen.
        """
        if self.frozen:
            raise self.frozen_error("its embeddings cannot be resized")
        old = self.tensors
        rows = len(old[WORD_EMBEDDINGS]) if new_num_tokens is None else new_num_tokens
        if pad_to_multiple_of is not None:
            rows = -(-rows // pad_to_multiple_of) * pad_to_multiple_of if pad_to_multiple_of > 0 else pad_to_multiple_of
        if rows != len(old[WORD_EMBEDDINGS]):
            config, place = self.config.replace(vocab_size=rows), (self.optimizer_step, self.tokens_in_step)
            generator = np.random.Generator(np.random.Philox(self.dropout_seed))
            words = resized_rows(old[WORD_EMBEDDINGS], rows, config, generator, mean_resizing)
            compute = self._compute
            self._allocate(config, self.dropout_seed)
            self.training_dtype = compute
            self.optimizer_step, self.tokens_in_step = place
            for name, value in TensorViews(self._parameters, by_canonical_name(self.layout)).items():
                value[...] = words if name == WORD_EMBEDDINGS else old[name]
        return self.tensors[WORD_EMBEDDINGS]

    def _parameters_of_a_user(self) -> NDArray[np.float32]:
        if self.frozen:
            return self.flat_parameters
        self._apply_pending_updates()
        self._handed_out = self._lent = True
        return self._parameters

    @property
    def gradients(self) -> TensorViews:
        """Named float32 views of the gradients, read-only; `gradients()` gives all arrays."""
        self.trainable_core()
        return TensorViews(lambda: self.flat_gradients, self.layout)

    @property
    def flat_parameters(self) -> NDArray[np.float32]:
        """All parameters as one read-only array; `load_flat` writes it.

        Raises `RuntimeError` for a model that holds the weights of its products in a narrow type alone.
        """
        if not self._has_weights:
            how = "without dtype=" if self.quantization is None else 'with dtype="float32"'
            raise RuntimeError(
                f"the model holds its weights in {self._compute} alone, packed to evaluate, and they are needed in "
                f"float32; load it {how}"
            )
        self._apply_pending_updates()
        return read_only(self._parameters)

    def in_float32(self) -> Self:
        """Return the model, or another one of the weights in its files where it was loaded with these packed alone.

        Raises:
            FileNotFoundError: the files are gone.
            RuntimeError: they hold other weights by now; or the model gave its float32 weights up, see `freeze`.
        """
        if self._has_weights or self._files is None:
            _ = self.flat_parameters  # raises where they were given up
            return self
        model = type(self).__new__(type(self))
        model._allocate(self.config, self.dropout_seed)
        self._files.read_again(model._filling())
        return model

    def _weights_to_copy(self) -> Flat:
        """Return the flat array for a copy of the model."""
        return self.flat_parameters if self._keeps_type else self.in_float32().flat_parameters

    @property
    def float32_tensors(self) -> TensorViews:
        """Read-only views, by canonical name, of the tensors that are in memory in float32.

        They are all, or without the weights of products where the model holds these in a narrow type alone. Word
        embeddings in int8 are among them, in a copy.
        """
        if self._has_weights:
            return TensorViews(self.flat_parameters, by_canonical_name(self.layout))
        there = by_canonical_name([tensor for tensor in self.layout if not is_product(tensor)])
        if self._words is None:
            return TensorViews(read_only(self._parameters), there)
        flat = sparse_zeros(self.num_flat)
        copies = TensorViews(flat, there)
        for name, values in TensorViews(self._parameters, there).items():
            copies[name][...] = widened(*self._words) if name == WORD_EMBEDDINGS else values
        return TensorViews(read_only(flat), there)

    @property
    def flat_gradients(self) -> NDArray[np.float32]:
        """All gradients as one read-only array, in the layout of `flat_parameters`."""
        self.trainable_core()
        assert self._gradients is not None
        return read_only(self._gradients)

    def gradients_to_write(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the gradient of the word embeddings, (vocabulary, width), and all others, flat, as they are in memory.

        Whoever writes rows of the former tells `core.touch_rows` of them before. Where the head computes with the word
        embeddings, so that every row has a gradient, they are among the others, and the first array has no rows.
        """
        self.trainable_core()
        assert self._gradients is not None
        shape = self.layout[0].shape if not self._shape[1].get("tied") else (0, self.layout[0].shape[1])
        end = int(np.prod(shape))
        return self._gradients[:end].reshape(shape), self._gradients[end:]

    @property
    def num_flat(self) -> int:
        """The size of the flat arrays: the parameters, and what aligns them."""
        return self._parameters.size

    @contextmanager
    def writing(self) -> Iterator[NDArray[np.float32]]:
        """Yield the flat parameters for writing; packed weights and the content hash are renewed afterwards."""
        if self.frozen:
            raise self.frozen_error("its parameters cannot be written")
        self._apply_pending_updates()
        self._lent = True
        try:
            yield self._parameters
        finally:
            self.core.touch()

    def load_flat(self, values: NDArray[np.float32]) -> None:
        """Set all parameters from an array like `flat_parameters`.

        Raises:
            ValueError: `values` is of another size.
        """
        if values.shape != self._parameters.shape:
            raise ValueError(f"values have shape {values.shape}; this model's parameters {self._parameters.shape}")
        with self.writing() as parameters:
            parameters[:] = values
        self.has_new_layers = False

    def zero_grad(self) -> None:
        """Set the gradients to zero and begin a new effective batch of dropout."""
        if self._gradients is not None:
            self.core.clear_gradients(get_num_threads())
        self.tokens_in_step = 0

    def frozen_error(self, consequence: str) -> RuntimeError:
        """Return the error for what needs a model that can be trained."""
        if self.quantization is not None:
            return RuntimeError(
                f"the model is an int8 artefact, which only evaluates; {consequence}; train the model that it was made "
                "of, and quantize that again"
            )
        return RuntimeError(
            f"the model is frozen (it serves as a teacher); {consequence}; load one without dtype= to train it"
        )

    def freeze(self, dtype: Any = None, *, keep_weights: bool = True) -> Self:
        """Make the model one that only evaluates, such as a teacher. Return the model.

        Gradients and optimiser state are dropped, and weights are packed once. Nobody can write the parameters any
        more: where views of them were given away, those keep the old memory and the model goes on with a copy.

        Args:
            dtype: the compute type of the encoder's products: "float32"; "bfloat16", both operands rounded to it, in
                attention too; or "int8", weights scaled by output channel and activations by token. Sums, activations,
                the head and what is returned stay float32. Default: the type that the model is frozen in, float32
                before.
            keep_weights: False gives the products' float32 weights up for the packed ones, as `from_pretrained` with a
                narrow `dtype` does: half of the memory or less, but saving, copying, `parameters`, another type and
                students that copy its layers then raise `RuntimeError`. A model that was loaded with
                `keep_weights=False` reads its files again for all of these but saving and `parameters`.

        Raises:
            ValueError: another type; the message lists those there are.
            RuntimeError: the weights are needed, and were given up.
        """
        compute = compute_type("dtype", dtype) or (self._compute if self.frozen else "float32")
        if not self.frozen:
            self._forget_hashes_of_trained_weights()
            self._apply_pending_updates()
            if self._lent:
                copy = aligned_zeros(self.num_flat)
                copy[:] = self._parameters
                self._parameters = copy
            self._renew_core(compute, None)
            self._handed_out = self._lent = False
            lock(self._parameters)
            self._pending = None
            self.frozen = True
        elif compute != self._compute:
            if self._has_weights or self._keeps_type or self._files is None:
                _ = self.flat_parameters  # raises where they were given up
                self._renew_core(compute, None)
            else:
                self._pack_again(compute, self._files)
        if self._has_weights and not keep_weights:
            self._give_up_weights()
        return self

    def _give_up_weights(self) -> None:
        """Hold the products' weights packed alone. An interrupted call leaves the model as it was."""
        _ = self.weights_hash(), self.weights_digest()  # which are remembered
        views, flat = TensorViews(self.flat_parameters, self.layout), sparse_zeros(self.num_flat)
        core = self._new_core(flat)
        filling = PackedFilling(self.layout, flat, core)
        for tensor in self.layout:
            with filling(tensor) as values:
                values[:] = views[tensor.name]
        self._has_weights, self._parameters, self.core = False, flat, core

    def _pack_again(self, compute: str, files: WeightFiles) -> None:
        """Hold the products' weights packed in another type, as files give them. Raises what `read_again` raises."""
        warn_if_portable(compute)
        flat = sparse_zeros(self.num_flat)
        core = _core.Model(*self._shape, flat, None, workspace, dtype=compute)
        filling = PackedFilling(self.layout, flat, core)
        files.read_again(filling, filling.take_int8)
        self._parameters, self.core, self._compute, self._words = flat, core, compute, filling.words

    def get_memory_footprint(self) -> int:
        """Return the bytes of weights and gradients that the model holds, packed weights included."""
        parameters = self._parameters.nbytes if self._has_weights else bytes_without_products(self.layout, self._words)
        return parameters + (0 if self._gradients is None else self._gradients.nbytes) + self.core.packed_bytes

    @property
    def holds_float32(self) -> bool:
        """Whether the weights are in memory in float32, or those of products in a narrow type alone, see `freeze`."""
        return self._has_weights

    @property
    def only_type(self) -> str | None:
        """The compute type whose weights alone are in memory, so that `freeze` gives the model no other; else None."""
        return self._compute if self._keeps_type and not self._has_weights else None

    @property
    def training_dtype(self) -> str:
        """The compute type of the products in training: "float32" (default), or "bfloat16" when it is set.

        Parameters and gradients are float32 in both. Setting another type sets the gradients to zero. Passes without
        `train` multiply in it too, save inside `evaluating_in_float32`.
        """
        if self.frozen:
            raise self.frozen_error("it has no type of training")
        return self._compute

    @training_dtype.setter
    def training_dtype(self, dtype: Any) -> None:
        compute = compute_type("training_dtype", dtype) or "float32"
        if compute == "int8":
            raise ValueError("training_dtype is int8, in which no model is trained; expected float32 or bfloat16")
        if compute != self.training_dtype:
            self._apply_pending_updates()
            self._renew_core(compute, None if self._gradients is None else aligned_zeros(self.num_flat))

    @contextmanager
    def evaluating_in_float32(self) -> Iterator[None]:
        """Give the logits of the model as it is saved inside the block, whatever `training_dtype` is. Train none in it.

        A frozen model keeps its type.
        """
        if self.frozen or self._compute == "float32":
            yield
            return
        self._apply_pending_updates()
        pending, core = self._pending, self.core
        self._pending, self.core = None, _core.Model(*self._shape, self._parameters, None, workspace)
        try:
            yield
        finally:
            self._pending, self.core = pending, core
            core.touch()  # the parameters may have been written meanwhile

    def _renew_core(self, compute: str, gradients: NDArray[np.float32] | None) -> None:
        """Go on with a core of this compute type. It does not know yet which gradients are not zero: give zeros."""
        warn_if_portable(compute)
        core = _core.Model(*self._shape, self._parameters, gradients, workspace, dtype=compute)  # refuses some shapes
        self._compute, self._gradients, self.core = compute, gradients, core

    def release(self) -> None:
        """Release the memory of packed weights and activations; the next pass takes it again.

        Packed weights stay where they are the only copy.
        """
        self.core.release()

    def weights_hash(self, dtype: Any = None) -> str:
        """Return the content key of the logits: a sha256 of weights, config, head, compute type and instruction set.

        Args:
            dtype: of a frozen model, the compute type (default: its own).
        """
        compute = compute_type("dtype", dtype) or self._compute
        self._forget_hashes_of_trained_weights()
        if compute not in self._hashes:
            about = self.architecture, self.head, self.config, compute
            if compute != "float32":
                self._hashes[compute] = logits_key(*about, self.weights_digest())
            elif self._has_weights or self._files is None:
                self._hashes[compute] = logits_key(*about, self.flat_parameters)
            else:
                self._hash_files(self._files)
        return self._hashes[compute]

    def weights_digest(self) -> str:
        """Return a sha256 of the float32 weights, the same on every CPU and in every compute type."""
        self._forget_hashes_of_trained_weights()
        if self._digest is None and self._has_weights:
            self._digest = weights_digest(self.flat_parameters)
        elif self._digest is None:
            assert self._files is not None
            self._hash_files(self._files)
        assert self._digest is not None
        return self._digest

    def _forget_hashes_of_trained_weights(self) -> None:
        if not self.frozen:
            self._hashes, self._digest = {}, None

    def _hash_files(self, files: WeightFiles) -> None:
        """Hash the weights as the files give them. Raises what `read_again` raises."""
        of_logits = logits_digest(self.architecture, self.head, self.config, "float32")
        digest = FlatDigest(self.num_flat, hashlib.sha256(), of_logits)
        files.read_again(HashedFilling(self.layout, digest))
        self._digest, self._hashes["float32"] = digest.finished()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError with what to use instead of an attribute of transformers, or the nearest name."""
            raise missing_attribute(self, name, ATTRIBUTES)

    @property
    def device(self) -> str:
        """The place of the weights: "cpu"."""
        return "cpu"

    @property
    def dtype(self) -> np.dtype[Any] | str:
        """The compute type: NumPy's float32 or int8, or "bfloat16", which NumPy lacks. A trainable model is float32."""
        compute = self._compute if self.frozen else "float32"
        return compute if compute == "bfloat16" else np.dtype(compute)

    @property
    def per_token(self) -> bool:
        """Whether there is a row of logits for each token, instead of one for each sequence."""
        return self.architecture.head_of(self.head, self.config).pick in ("all", "listed")

    @property
    def num_labels(self) -> int:
        """The number of logits of a row."""
        return self.config.num_labels

    def to(self, *places: Any, **named: Any) -> Self:
        """Return the model, which is on the CPU in its `dtype`.

        Raises:
            ValueError: another device or dtype.
        """
        kept = ("cpu", str(self.dtype), f"<class 'numpy.{self.dtype}'>")
        for place in (*places, *named.values()):
            if str(place).removeprefix("torch.").partition(":")[0] not in kept:
                raise ValueError(
                    f"{place} is not a place for this model: kdistill computes on the CPU in {self.dtype}; for "
                    "another type that only evaluates, call freeze(dtype=...)"
                )
        return self

    def cpu(self) -> Self:
        """Return the model, which is on the CPU."""
        return self

    def train(self, mode: bool = True) -> Self:
        """Return the model as it is: dropout belongs to a pass, `forward(batch, train=True)`."""
        return self

    def eval(self) -> Self:
        """Return the model as it is: a call `model(...)` and `forward(batch)` never use dropout."""
        return self

    # ---- passes

    @overload
    def forward(
        self, batch: Batch | Any, train: bool = False, *, rows: ArrayLike | None = None, taps: None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def forward(
        self, batch: Batch | Any, train: bool = False, *, rows: ArrayLike | None = None, taps: Sequence[Tap]
    ) -> tuple[NDArray[np.float32], dict[Tap, Flat]]: ...
    def forward(
        self,
        batch: Batch | Any,
        train: bool = False,
        *,
        rows: ArrayLike | None = None,
        taps: Sequence[Tap] | None = None,
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], dict[Tap, Flat]]:
        """Return the logits, float32 (M, num_labels), of the M rows that the head picks: one for each sequence, or all.

        Of an encoder that embeds texts, the embeddings, (B, hidden_size).

        Args:
            batch: a packed Batch, or anything `pack` takes (lists of ids, encodings).
            train: dropout is on, and activations are kept for one `backward`.
            rows: of a language model, the tokens to compute logits (M, vocab_size) of: int64 (M,), ascending places in
                the packed batch (default: all).
            taps: (kind, layer): "hidden" is a layer's input, (N, hidden_size), and of one layer more the last's output;
                "query", "key" and "value" are (N, heads * their width) of a layer; "scores" is what its softmax reads,
                flat: (heads, n, n) of one sequence behind the other's. With them a pair is returned: the logits, and
                what lies there inside the encoder, float32, by tap.

        Raises:
            ValueError: an id, a length, a row or a tap is out of range; names row and position.
            RuntimeError: the model is frozen and `train` is set, or another thread is using it.
            MemoryError: the batch needs more memory than there is; the message gives the size.
        """
        if train:
            self.trainable_core()
        batch = self._ready(pack(batch))
        listed = None if rows is None else np.array(rows, dtype=np.int64)
        place, threads = self._place(), get_num_threads()
        if taps:
            logits, inside = self.core.forward(*batch, train, *place, threads, rows=listed, taps=taps)
        else:
            logits, inside = self.core.forward(*batch, train, *place, threads, rows=listed), {}
        if train:
            self.tokens_in_step += len(batch.ids)
        return logits if taps is None else (logits, inside)

    def _ready(self, batch: Batch) -> Batch:
        """Return the batch as the core takes it, after bringing the rows that it reads up to date."""
        if self.config.type_vocab_size == 0:
            batch = batch._replace(types=np.zeros_like(batch.ids))
        if self._pending is not None:
            batch = Batch(*self.core.check(*batch))  # copies: the rows that catch up are those read
            self._pending.catch_up(None if self._shape[1].get("tied") else batch.ids)
        if self._handed_out:
            self.core.touch()
        return batch

    def _place(self) -> tuple[int, int, int]:
        """Return the place in the stream of dropout masks."""
        return self.dropout_seed % 2**64, self.optimizer_step, self.tokens_in_step

    def backward(self, dlogits: ArrayLike, taps: Mapping[Tap, ArrayLike] | None = None) -> None:
        """Add d loss / d parameter to `gradients`, for the last `forward(train=True)`.

        Args:
            dlogits: d loss / d logits, float32 (M, num_labels).
            taps: d loss / d tap, float32, of taps of that `forward` (default: 0 of each).

        Raises:
            RuntimeError: there was no such forward, or its backward has been done.
            ValueError: a gradient has another shape than what it is of, or is of no tap of that forward.
            KeyboardInterrupt: Ctrl-C, or whatever a signal's handler raises. `gradients` are as before or, when they
                had begun to change, all zero, as after `zero_grad`.
        """
        of_taps = None
        if taps:
            of_taps = {tap: np.ascontiguousarray(given, dtype=np.float32) for tap, given in taps.items()}
        self.core.backward(np.ascontiguousarray(dlogits, dtype=np.float32), get_num_threads(), of_taps)

    def trainable_core(self) -> _core.Model:
        """Return the core with gradients, which are allocated when first needed; raise RuntimeError if frozen."""
        if self.frozen:
            raise self.frozen_error("it has no gradients")
        if self._gradients is None:
            self._gradients = aligned_zeros(self.num_flat)
            self.core = self._new_core()
        return self.core

    def __repr__(self) -> str:
        state = "frozen" if self._compute == "float32" else f"frozen in {self._compute}"
        return in_one_line(type(self).__name__, self.config, self.layout, state if self.frozen else "")

    def _repr_html_(self) -> str:
        """Return the shape as HTML for Jupyter, with a folded list of all tensors."""
        state = "frozen (a teacher)" if self.frozen else "trainable"
        return as_html(type(self).__name__, self.config, self.layout, state, self._compute)


def check_model(name: str, value: object) -> None:
    """Raise TypeError, which names the remedy, for an argument that is not a model of kdistill."""
    kind, load = "a model of kdistill", "AutoModelForSequenceClassification.from_pretrained"
    written = f"{kind}: write it with its save_pretrained(directory), then {load}(directory)"
    check_kind(name, value, Model, f"{kind}: {load}(...)", of_foreign=written)
