"""Students: the small classifiers that are searched, trained and exported. One file a student."""

from __future__ import annotations

from kdsearch.students.bag import Bag
from kdsearch.students.base import Student
from kdsearch.students.bert_small import BertSmall
from kdsearch.students.bilstm import BiLSTM
from kdsearch.students.textcnn import TextCNN

STUDENTS: dict[str, type[Student]] = {
    Bag.NAME: Bag,
    TextCNN.NAME: TextCNN,
    BiLSTM.NAME: BiLSTM,
    BertSmall.NAME: BertSmall,
}
