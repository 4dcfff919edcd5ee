"""What a training sees of images: each policy against torchvision and scikit-image, and what decides its random numbers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import verbs
from few import few_digits
from numpy.typing import NDArray
from scipy.stats import binomtest
from skimage.exposure import equalize_adapthist
from sklearn.datasets import load_sample_images
from sklearn.metrics import accuracy_score
from test_data import write_npz
from torchvision.transforms import InterpolationMode, v2

from edgebench import models
from edgebench.agent.runtimes import preprocess
from edgebench.data import Split
from edgebench.errors import InputError, MissingExtra
from edgebench.recipes import _augment, _classifier
from edgebench.schema import Preprocessing

Images = NDArray[np.uint8]
FAST = {"epochs": 1, "batch_size": 64, "learning_rate": 0.01, "threads": 1}


@pytest.fixture(scope="module")
def photographs() -> Images:
    """Cut eight pieces of 40 × 32 pixels out of scikit-learn's photograph: uint8 [8, 40, 32, 3]."""
    [photograph, _] = load_sample_images().images
    return np.stack([photograph[at : at + 40, at : at + 32] for at in range(0, 320, 40)])


def turned(degrees: int, height: int, width: int, margin: int) -> list[Any]:
    turn = v2.RandomRotation(degrees, interpolation=InterpolationMode.BILINEAR)
    return [v2.Pad(margin, padding_mode="edge"), turn, v2.CenterCrop((height, width))]


def clahe(image: torch.Tensor) -> torch.Tensor:
    colour = image.permute(1, 2, 0).numpy()
    found = equalize_adapthist(colour if len(image) == 3 else colour[:, :, 0], kernel_size=[10, 8], clip_limit=0.01)
    return torch.from_numpy(np.floor(255 * found.reshape(colour.shape) + 0.5).astype(np.uint8)).permute(2, 0, 1).contiguous()


def by_torchvision(name: str) -> v2.Compose:
    """Write the policies down once more, for images of 40 × 32."""
    if name == "light":
        return v2.Compose([*turned(5, 44, 36, 4), v2.RandomCrop((40, 32)), v2.ColorJitter(brightness=0.1, contrast=0.1)])
    holes = [v2.RandomErasing(p=0.25, scale=(0.005, 0.03), ratio=(0.5, 2.0)) for _ in range(4)]
    sometimes = [([v2.Lambda(clahe)], 0.2), ([v2.GaussianBlur(3, (0.1, 1.0))], 0.2), ([v2.GaussianNoise(sigma=0.03)], 0.3)]
    equalized, blurred, noisy = (v2.RandomApply(each, p=p) for each, p in sometimes)
    first = [v2.RandomHorizontalFlip(), *turned(15, 40, 32, 6), equalized, v2.ColorJitter(brightness=0.2, contrast=0.2)]
    return v2.Compose([*first, blurred, noisy, *holes])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["light", "medical"])
def test_each_image_is_changed_as_torchvision_changes_it_alone(photographs: Images, name: str, channels: int) -> None:
    images = np.ascontiguousarray(photographs[..., :channels])
    indices, epoch = [3, 1, 4, 159, 26, 5, 35, 8], 7
    found = _augment.Augmentation(name, 11, lambda: epoch)(images, indices)
    assert found.dtype == np.uint8 and found.shape == images.shape
    whole = by_torchvision(name)
    for image, index, changed in zip(images, indices, found, strict=True):
        torch.manual_seed(_augment.number(11, epoch, index))
        wanted = whole(torch.from_numpy(image).permute(2, 0, 1).contiguous())
        assert np.array_equal(changed, wanted.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_clahe_is_scikit_images(photographs: Images, channels: int) -> None:
    for image in photographs[..., :channels]:
        flat = image if channels == 3 else image[:, :, 0]
        wanted = 255 * equalize_adapthist(flat, kernel_size=[10, 8], clip_limit=0.01)
        found = _augment.equalized(torch.from_numpy(image.copy()).permute(2, 0, 1)).permute(1, 2, 0).numpy()
        assert np.abs(found - wanted.reshape(image.shape)).max() <= 0.5 + 1e-9
        assert found.std() > image.std()


def test_a_blank_image_and_a_tiny_one_go_through_everything() -> None:
    for shape in ((4, 40, 32, 1), (4, 8, 8, 1), (4, 8, 8, 3)):
        for name in _augment.PIXELS:
            change = _augment.Augmentation(name, 0, lambda: 0)
            assert change(np.full(shape, 200, np.uint8), range(4)).shape == shape
        assert _augment.equalized(torch.full((shape[3], *shape[1:3]), 200, dtype=torch.uint8)).shape == (shape[3], *shape[1:3])


def test_random_numbers_come_from_seed_epoch_and_index_alone(photographs: Images) -> None:
    def changed(indices: list[int], seed: int = 0, epoch: int = 0) -> Images:
        return _augment.Augmentation("medical", seed, lambda: epoch)(photographs[indices], indices)

    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole = changed([0, 1, 2, 3, 4, 5, 6, 7])
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert np.array_equal(changed([5, 2]), whole[[5, 2]])
    for others in (changed(list(range(8)), seed=1), changed(list(range(8)), epoch=1)):
        assert all(not np.array_equal(one, other) for one, other in zip(whole, others, strict=True))
    same = np.stack([photographs[0]] * 8)
    apart = _augment.Augmentation("medical", 0, lambda: 0)(same, list(range(8)))
    assert len({each.tobytes() for each in apart}) == 8


def test_what_a_sampler_gives_twice_in_an_epoch_is_not_seen_twice(photographs: Images) -> None:
    epochs = iter([0, 0, 0, 0, 1])
    change = _augment.Augmentation("medical", 0, lambda: next(epochs))
    one, two = change(photographs[[2, 2]], [2, 2])
    three, four = change(photographs[[2, 2]], [2, 2])
    assert len({each.tobytes() for each in (one, two, three, four)}) == 4
    [later] = change(photographs[[2]], [2])
    assert np.array_equal(later, _augment.Augmentation("medical", 0, lambda: 1)(photographs[[2]], [2])[0])


def test_turns_and_mirrors_are_as_often_and_as_far_as_the_policy_says() -> None:
    image = np.zeros((1, 41, 41, 1), np.uint8)
    image[0, 20, 21:] = 200  # a line to the right of the middle
    angles, mirrored = [], 0
    change = _augment.policy("medical", 41, 41)
    moved = v2.Compose(list(change.transforms)[:4])  # type: ignore[attr-defined]
    y, x = np.mgrid[-20:21, -20:21]
    torch.manual_seed(0)
    for _ in range(300):
        seen = moved(torch.from_numpy(image[0]).permute(2, 0, 1)).numpy()[0].astype(float)
        across, down = (seen * x).sum(), (seen * y).sum()
        mirrored += across < 0
        angles.append(np.degrees(np.arctan2(down, abs(across))))
    assert 115 <= mirrored <= 185  # binomial, 4 standard deviations
    assert 14 < max(map(abs, angles)) < 15.5
    assert 7.5 < np.std(angles) < 9.8  # uniform over ±15°: 8.66


def test_a_split_is_resized_then_changed_and_its_grey_is_repeated_last(photographs: Images) -> None:
    split = Split(np.ascontiguousarray(photographs[..., :1]), np.arange(8))
    spec = Preprocessing(height=20, width=16, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    change = _augment.Augmentation("medical", 0, lambda: 0)
    images, labels = _classifier.Samples(split, spec, change).__getitems__([6, 1])
    assert (tuple(images.shape), labels.tolist()) == ((2, 3, 20, 16), [6, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    small = preprocess.whole(split.images[[6, 1]], {**spec.model_dump(), "channels": 1})
    wanted = _augment.Augmentation("medical", 0, lambda: 0)(small, [6, 1])[..., 0] / 255
    assert np.allclose(images[:, 0].numpy(), (wanted - 0.5) / 0.25, atol=1e-6)


def test_volumes_and_a_missing_library_are_refused(photographs: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="these are volumes"):
        _augment.augmentation("light", 0, lambda: 0, photographs[None])
    assert _augment.augmentation("affine", 0, lambda: 0, photographs) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(MissingExtra, match=r"'skimage', which is not installed; run: pip install 'edgebench\[torch\]'"):
        _augment.augmentation("medical", 0, lambda: 0, photographs)


# ---------------------------------------------------------------- in a training


def train(here: Path, **options: Any) -> Path:
    data = few_digits(here, 60)
    return verbs.train("tinynet:net", dataset=data, size=16, name="tiny", options={**FAST, **options})


def test_an_interrupted_training_sees_what_an_uninterrupted_one_sees(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    whole = _augment.Augmentation.__call__

    def watched(self: _augment.Augmentation, images: Images, indices: Any) -> Images:
        found = whole(self, images, indices)
        order = np.argsort(indices)
        seen.append((self._epoch(), found[order].tobytes().hex()))
        return found

    monkeypatch.setattr(_augment.Augmentation, "__call__", watched)
    options = {"augment": "medical", "epochs": 3}
    train(here, **options)
    uninterrupted, seen = seen, []
    assert [epoch for epoch, _ in uninterrupted] == [0, 1, 2]
    assert len({pixels for _, pixels in uninterrupted}) == 3

    def interrupt(self: Any) -> None:
        if self.current_epoch == 2:
            raise KeyboardInterrupt

    (here / "again").mkdir()
    monkeypatch.chdir(here / "again")
    with monkeypatch.context() as patch:
        patch.setattr(_classifier.Classifier, "on_train_epoch_start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(here, **options)
    train(here, **options)
    assert seen == uninterrupted


def test_a_policy_is_of_the_lineage_and_the_default_is_as_it_was(here: Path) -> None:
    folder = train(here, augment="light")
    assert models.read_model(folder).lineage.options["augment"] == "light"
    assert "loggers" not in models.read_model(folder).lineage.options
    with pytest.raises(InputError, match="augment: Input should be 'none', 'affine', 'flip', 'light' or 'medical'"):
        train(here, augment="heavy")


# ---------------------------------------------------------------- several values of one option


VARY = ("train", "tinynet:net", "--size", "16", "--name", "tiny")
QUICK = ("--option", "epochs=2", "--option", "learning_rate=0.01", "--option", "threads=1")


def test_several_values_of_an_option_are_compared_in_one_command(here: Path, cli: Any) -> None:
    data = few_digits(here, 60)
    given = (*VARY, "--dataset", data, *QUICK, "--vary", "augment=none,medical")
    code, out, err = cli(*given, "--json")
    assert code == 0, err
    found = json.loads(out)
    one, two = found["alternatives"]
    assert (found["option"], one["value"], two["value"]) == ("augment", "none", "medical")
    labels = np.load(here / "few.npz")["test_labels"].ravel()
    hits = []
    for each in (one, two):
        network = models.load_model(Path(each["folder"]))
        spec = network.model.preprocessing.model_dump()
        images = preprocess.apply(np.load(here / "few.npz")["test_images"][..., None], spec)
        with torch.no_grad():
            decided = network.module(torch.from_numpy(images)).argmax(dim=1).numpy()
        hits.append(decided == labels)
        assert each["test"]["value"] == pytest.approx(accuracy_score(labels, decided))
        for part, value in (("test", each["test"]["value"]), ("val", network.model.metrics["val_accuracy"])):
            wanted = binomtest(round(60 * value), 60).proportion_ci(method="wilson")
            assert (each[part]["low"], each[part]["high"]) == pytest.approx((wanted.low, wanted.high), abs=1e-4)
        assert network.model.lineage.options["augment"] == each["value"]
        assert each["epochs"] == 2
        assert each["seconds"] > 0
    gained, lost = int((hits[1] & ~hits[0]).sum()), int((hits[0] & ~hits[1]).sum())
    assert one["beside_first"] is None
    assert two["beside_first"]["difference"]["value"] == pytest.approx((gained - lost) / 60)
    p_value = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert two["beside_first"]["mcnemar_p"] == pytest.approx(p_value)

    options = {"epochs": 2, "learning_rate": 0.01, "augment": "medical", "threads": 1}
    assert verbs.train("tinynet:net", dataset=data, size=16, name="tiny", options=options).name == Path(two["folder"]).name
    code, out, err = cli(*given)
    assert code == 0, err
    assert out.count("made before") == 2
    assert "test, points from the first" in out
    assert "--vary seed=0,1,2" in out


def test_a_metric_that_is_no_share_of_samples_has_no_interval(here: Path, cli: Any) -> None:
    data = f"medmnist:{write_npz(here / 'own.npz', labels=4, shape=(16, 16, 1))}"
    code, out, err = cli(*VARY, "--dataset", data, *QUICK, "--vary", "seed=0,1", "--json")
    assert code == 0, err
    for each in json.loads(out)["alternatives"]:
        assert (each["val"]["low"], each["test"]["low"], each["beside_first"]) == (None, None, None)
        assert 0 <= each["test"]["value"] <= 1


def test_values_that_cannot_be_compared_are_refused_before_any_is_trained(here: Path, cli: Any) -> None:
    for given, reason in (
        (("--vary", "augment=none,medcal"), "augment: Input should be"),
        (("--vary", "augment=none"), "not KEY=VALUE,VALUE"),
        (("--vary", "augment"), "not KEY=VALUE,VALUE"),
        (("--vary", "augment=none,none"), "stands there twice"),
        (("--vary", "augment=[none"), "are no YAML"),
        (("--vary", "epochs=1,2", "--option", "epochs=3"), "--option gives epochs too"),
        (("--vary", "epoch=1,2"), "did you mean 'epochs'"),
    ):
        code, _, err = cli(*VARY, *given)
        assert code == 2
        assert reason in err
    assert not Path(".edgebench").exists()
