"""What a study will offer, as far as its file alone tells: for mistakes that need no look at anything else.

What only the texts, the teacher and the other things that a file names can tell is assumed to be there:
a mistake found here is one for certain, and creating the study finds the rest.
"""

from __future__ import annotations

from kdsearch.core.facts import TRAIN, Facts
from kdsearch.core.spec import StudySpec
from kdsearch.core.specteacher import TeacherSpec

PLENTY = 1000
"""Labels, layers or columns where the file does not say how many there are."""


def foreseen(spec: StudySpec) -> Facts:
    """The most that a study of this file can have."""
    teacher, runs = spec.teacher, spec.teacher.logits is None
    further = {"unlabelled": spec.data.unlabelled, "augmented": spec.data.augmented}
    return Facts(
        num_labels=len(spec.data.labels or ()) or PLENTY,
        pools=(TRAIN, *(name for name, source in further.items() if source is not None)),
        epochs=spec.training.epochs,
        anchors=teacher.finetune.anchors if teacher.finetune else 0,
        num_historical=len(spec.teachers),
        teacher_width=_size(teacher, "hidden") if runs else None,
        teacher_layers=_size(teacher, "layers") if runs else None,
        bert_teacher=runs,
        vector_width=None if spec.pretrained.vectors is None else PLENTY,
        encoder_layers=None if spec.pretrained.encoder is None else PLENTY,
    )


def _size(teacher: TeacherSpec, key: str) -> int:
    return PLENTY if teacher.build is None else int(getattr(teacher.build, key))
