"""Explanations of a model's answers: maps by each method with their checks, and the nearest training images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from suite.errors import InputError, printable
from suite.explaining.deletion import deletion, random_deletion
from suite.explaining.methods import BY_METHOD, WITHOUT_GRADIENTS, Question, Unsuitable, captum
from suite.explaining.nearest import Nearest
from suite.explaining.raster import raster, shrunk, signed_bytes
from suite.explaining.subject import Subject
from suite.hardware.activations import evaluation_batch
from suite.hardware.memory import channels_last
from suite.models.preprocessing import normalizer, resize
from suite.spec import METHODS, Attribution, Explanation, Method, Neighbour

SHARE = 0.01  # of completeness: integrated gradients may miss the difference of the scores by so much

BATCH = 256  # inputs that are computed together, at most


@dataclass(frozen=True)
class Explained:
    """An explanation with its maps in full."""

    image: str
    label: int | None
    predicted: int
    target: int
    probabilities: np.ndarray  # (classes,)
    picture: np.ndarray  # (C, size, size) uint8, what the model saw
    maps: dict[Method, np.ndarray]  # (size, size) float32
    facts: dict[Method, dict[str, object]]  # the other fields of `spec.Attribution`
    nearest: tuple[Neighbour, ...]

    def described(self, most: int = 1024) -> Explanation:
        """The same for a file or a picture, with at most `most` pixels a side."""
        picture = shrunk(self.picture, most)
        maps = []
        for method, values in self.maps.items():
            small = shrunk(values[None], most)[0]
            largest, data = signed_bytes(small)
            facts: dict[str, object] = {"height": len(small), "width": len(small[0]), **self.facts[method]}
            maps.append(Attribution.model_validate({"method": method, "largest": largest, "data": data, **facts}))
        return Explanation(
            image=printable(self.image),  # a file's name may be no valid text
            label=self.label,
            predicted=self.predicted,
            probability=round(float(self.probabilities[self.predicted]), 6),
            target=self.target,
            target_probability=round(float(self.probabilities[self.target]), 6),
            picture=raster(picture),
            maps=tuple(maps),
            nearest=self.nearest,
        )


@dataclass
class Explainer:
    """Explains answers of one model in float32.

    Args:
        subject: the model, which is moved to `device`.
        methods: which maps are made. Raises InputError where captum is missing, and where none of them suits the model.
        share: the largest remainder of integrated gradients, in parts of the difference of the scores.
        k: number of nearest training images.
    """

    subject: Subject
    device: torch.device
    methods: Sequence[Method] = METHODS
    share: float = SHARE
    nearest: Nearest | None = None
    k: int = 5
    notes: dict[str, None] = field(default_factory=dict)  # what could not be done, in sentences

    def __post_init__(self) -> None:
        captum()
        expects = self.subject.expects
        self.model = channels_last(self.subject.model.to(self.device).eval().requires_grad_(False))
        self.normalize = normalizer(expects, self.device)
        self.batch = evaluation_batch(self.model, expects.shape, self.device, most=BATCH)
        self.suited = [m for m in self.methods if self.subject.gradients or m in WITHOUT_GRADIENTS]
        if len(self.suited) < len(self.methods):
            why = "A knn head answers by votes, which have no gradient: only occlusion explains it."
            if not self.suited:
                raise InputError(f"{why} Choose --method occlusion.")
            self.notes[why] = None

    def explain(
        self, stored: np.ndarray, image: str, *, label: int | None = None, target: int | None = None
    ) -> Explained:
        """The explanation of one picture (C, stored, stored) uint8.

        Args:
            label: index of its true class, where known.
            target: index of the class that is asked about; None: the predicted one.

        Raises:
            InputError: The model gives no finite scores for this picture.
        """
        seen = resize(torch.from_numpy(np.array(stored))[None].to(self.device), self.subject.expects)
        x = self.normalize(seen)
        with torch.no_grad():
            probabilities = self.model(x)[0].float().softmax(0).cpu()
        if not probabilities.isfinite().all():
            raise InputError("The model gives no finite scores for this picture.")
        predicted = int(probabilities.argmax())
        target = predicted if target is None else target
        asked = Question(x, self._baseline(x), target, self.share, self.batch)
        maps, facts = self._maps(asked)
        return Explained(
            image=image,
            label=label,
            predicted=predicted,
            target=target,
            probabilities=probabilities.numpy(),
            picture=seen[0].round().to(torch.uint8).cpu().numpy(),
            maps=maps,
            facts=facts,
            nearest=self.nearest.of(x, self.k) if self.nearest is not None else (),
        )

    def _baseline(self, x: Tensor) -> Tensor:
        """The input without a picture: black for glyphs, whose ground is black; else the training images' mean."""
        black = self.subject.expects.placement is not None
        return self.normalize(torch.zeros_like(x)) if black else torch.zeros_like(x)

    def _maps(self, asked: Question) -> tuple[dict[Method, np.ndarray], dict[Method, dict[str, object]]]:
        maps: dict[Method, np.ndarray] = {}
        facts: dict[Method, dict[str, object]] = {}
        x, baseline, target, _, batch = asked
        random = random_deletion(self.model, x, baseline, target, batch)
        for method in self.suited:
            began = time.perf_counter()
            try:
                found = BY_METHOD[method](self.model, asked)
            except Unsuitable as why:
                self.notes[str(why)] = None
                continue
            seconds = round(time.perf_counter() - began, 4)
            told = bool(found.values.any())  # a map of zeros, as Grad-CAM's may be, has no order
            fell = deletion(self.model, x, baseline, target, found.values, batch) if told else random
            maps[method] = found.values.numpy()
            facts[method] = {**found.facts, "deletion": round(fell, 6), "random": round(random, 6), "seconds": seconds}
        return maps, facts
