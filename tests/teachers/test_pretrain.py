"""Masked-language-model training: what is guessed, that it is learned, and that resuming changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertModel

from kdsearch.core.errors import ArtifactError, KdsearchError
from kdsearch.core.specteacher import PretrainSpec
from kdsearch.data.dataset import Pool
from kdsearch.data.tokens import TokenPool, tokenise
from kdsearch.teachers import source
from kdsearch.teachers.pretrain import Between, PretrainReport, WordPieces, mask_tokens, pretrain

SPEC = PretrainSpec(epochs=3, learning_rate=5e-3, batch_size=16, mask=0.3)
TEXTS = tuple(
    f"{a} {b} today" for a in ("see you at", "win a free", "call to claim") for b in ("lunch", "prize")
)


@pytest.fixture(scope="module")
def texts(encoder: Path) -> TokenPool:
    pool = Pool("train", TEXTS * 12, np.zeros(72, np.int64))
    return tokenise(pool, source.load_tokenizer(encoder), 24)


class Run:
    """One pretraining and what it reported."""

    def __init__(
        self,
        encoder: Path,
        into: Path,
        pools: list[TokenPool],
        *,
        spec: PretrainSpec = SPEC,
        seed: int = 7,
        resume: bytes | None = None,
        steps: int | None = None,
        every_s: float | None = None,
    ) -> None:
        self.reports: list[PretrainReport] = []
        self.checkpoints: list[bytes] = []
        self.between: list[tuple[float, bytes]] = []
        self.steps, self.allowed, self.folder = 0, steps, into
        self.seconds = pretrain(
            encoder,
            into,
            spec,
            pools,
            seed=seed,
            device="cpu",
            on_epoch=self._note,
            resume=resume,
            breathe=self._breathe,
            should_stop=lambda: self.allowed is not None and self.steps >= self.allowed,
            between=None if every_s is None else Between(every_s=every_s, put=self._note_between),
        )

    def _note(self, report: PretrainReport, checkpoint: bytes) -> None:
        self.reports.append(report)
        self.checkpoints.append(checkpoint)

    def _note_between(self, share: float, checkpoint: bytes) -> None:
        self.between.append((share, checkpoint))

    def _breathe(self) -> None:
        self.steps += 1

    @property
    def losses(self) -> list[float]:
        return [report.loss for report in self.reports]


@pytest.fixture(scope="module")
def whole(encoder: Path, texts: TokenPool, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return Run(encoder, tmp_path_factory.mktemp("pretrained") / "whole", [texts])


def test_what_is_guessed_is_masked_replaced_or_left_in_these_shares(encoder: Path) -> None:
    tokenizer = source.load_tokenizer(encoder)
    pieces = WordPieces.of(tokenizer)
    ids = torch.full((200, 200), 30)
    ids[:, 0], ids[:, -1] = tokenizer.cls_token_id, tokenizer.sep_token_id
    mask = torch.ones_like(ids)
    mask[:, 150:] = 0
    read, guessed = mask_tokens(ids, mask, pieces, 0.15, torch.Generator().manual_seed(1))
    assert not guessed[:, 0].any() and not guessed[:, 150:].any()
    assert torch.equal(read[~guessed], ids[~guessed])
    assert guessed[:, 1:150].float().mean() == pytest.approx(0.15, abs=0.01)
    seen = read[guessed]
    assert (seen == pieces.mask_id).float().mean() == pytest.approx(0.8, abs=0.02)
    assert (seen == 30).float().mean() == pytest.approx(0.1, abs=0.02)
    replaced = seen[(seen != pieces.mask_id) & (seen != 30)]
    assert len(replaced.unique()) > 50
    assert not pieces.special_V[replaced].any()


def test_it_learns_and_leaves_an_encoder_with_the_same_tokenizer(encoder: Path, whole: Run) -> None:
    assert len(whole.losses) == 3
    assert whole.seconds == whole.reports[-1].seconds > whole.reports[0].seconds > 0
    assert whole.losses[-1] < whole.losses[0] < 1.2 * np.log(200)
    before, after = source.describe(encoder), source.describe(whole.folder)
    assert (after.classifies, after.width, after.layers) == (False, before.width, before.layers)
    assert after.fingerprint != before.fingerprint
    assert source.tokenizer_fingerprint(whole.folder) == source.tokenizer_fingerprint(encoder)
    assert (whole.folder / "config.json").read_text() == (encoder / "config.json").read_text()
    classifier = source.load_encoder_for(whole.folder, ("a", "b"), seed=1)
    start = source.load_encoder_for(encoder, ("a", "b"), seed=1)
    moved = {
        name
        for (name, p), q in zip(classifier.named_parameters(), start.parameters(), strict=True)
        if not torch.equal(p, q)
    }
    assert any("word_embeddings" in name for name in moved) and any(".layer.2." in name for name in moved)
    assert not any("pooler" in name or ".classifier." in name for name in moved)


def test_resumed_equals_uninterrupted(encoder: Path, texts: TokenPool, whole: Run, tmp_path: Path) -> None:
    stopped = Run(encoder, tmp_path / "stopped", [texts], steps=8)  # 5 steps an epoch
    assert stopped.seconds is None and len(stopped.losses) == 1
    assert not (tmp_path / "stopped").exists()
    resumed = Run(encoder, tmp_path / "resumed", [texts], resume=stopped.checkpoints[-1])
    assert stopped.losses + resumed.losses == whole.losses
    assert source.fingerprint(resumed.folder) == source.fingerprint(whole.folder)


def test_resumed_between_two_steps_equals_uninterrupted(
    encoder: Path, texts: TokenPool, whole: Run, tmp_path: Path
) -> None:
    kept = Run(encoder, tmp_path / "kept", [texts], every_s=0.0)
    assert kept.losses == whole.losses
    shares = [share for share, _ in kept.between]
    assert len(shares) == 3 * 4 and shares == sorted(set(shares)) and 0 < shares[0] < shares[-1] < 1
    for number in (0, 6, 11):
        torch.manual_seed(number)
        again = Run(encoder, tmp_path / f"again-{number}", [texts], resume=kept.between[number][1])
        assert again.losses == whole.losses[number // 4 :]
        assert source.fingerprint(again.folder) == source.fingerprint(whole.folder)


def test_asked_to_stop_between_two_steps_nothing_is_lost(
    encoder: Path, texts: TokenPool, whole: Run, tmp_path: Path
) -> None:
    stopped = Run(encoder, tmp_path / "stopped", [texts], steps=8, every_s=1e9)
    assert stopped.seconds is None and len(stopped.between) == 1
    rest = Run(encoder, tmp_path / "rest", [texts], resume=stopped.between[0][1], every_s=1e9)
    assert rest.steps == whole.steps - 8
    assert stopped.losses + rest.losses == whole.losses
    assert source.fingerprint(rest.folder) == source.fingerprint(whole.folder)


def test_a_death_between_the_last_epoch_and_the_end_loses_nothing(
    encoder: Path, texts: TokenPool, whole: Run, tmp_path: Path
) -> None:
    again = Run(encoder, tmp_path / "again", [texts], resume=whole.checkpoints[-1])
    assert again.seconds == whole.seconds and not again.losses
    assert source.fingerprint(again.folder) == source.fingerprint(whole.folder)


def test_the_seed_decides_and_every_pool_is_read(
    encoder: Path, texts: TokenPool, whole: Run, tmp_path: Path
) -> None:
    one = PretrainSpec(epochs=1, learning_rate=5e-3, batch_size=16, mask=0.3)
    first, second, other = (
        Run(encoder, tmp_path / name, [texts], spec=one, seed=seed)
        for name, seed in (("first", 7), ("second", 7), ("other", 8))
    )
    assert first.losses == second.losses != other.losses
    assert source.fingerprint(first.folder) == source.fingerprint(second.folder)
    both = Run(encoder, tmp_path / "both", [texts, texts], spec=one)
    assert (first.steps, both.steps) == (5, 9)


def test_texts_without_any_word_are_no_reason_to_fail(encoder: Path, tmp_path: Path) -> None:
    pool = tokenise(Pool("train", ("", ""), np.zeros(2, np.int64)), source.load_tokenizer(encoder), 24)
    assert Run(encoder, tmp_path / "into", [pool]).losses == [0.0, 0.0, 0.0]


def test_a_loss_that_is_no_number_ends_it(encoder: Path, texts: TokenPool, tmp_path: Path) -> None:
    model = BertModel.from_pretrained(encoder)
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    source.load_tokenizer(encoder).save_pretrained(tmp_path / "broken")
    with pytest.raises(KdsearchError, match="diverged") as error:
        Run(tmp_path / "broken", tmp_path / "into", [texts])
    assert "learning_rate" in error.value.hint


def test_bytes_that_are_no_checkpoint_are_refused(encoder: Path, texts: TokenPool, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="pretraining"):
        Run(encoder, tmp_path / "into", [texts], resume=b"whatever")
