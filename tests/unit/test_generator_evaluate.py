"""The probe and the comparisons of a generator's evaluation, on pictures made for the purpose."""

import pytest
import torch

from data.core.params import UserError
from models.core import saved
from models.core.images import flip
from models.generator import evaluate, load, probe, train
from models.maskgit.params import Sampling


def bars(n, seed=0, size=32):
    """Pictures of two classes: bright on the left or above, in any colour."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    images = torch.randint(0, 40, (n, 3, size, size), generator=random)
    bright = torch.randint(80, 200, (n, 3, 1, 1), generator=random)
    images[labels == 0, :, :, : size // 4] += bright[labels == 0]
    images[labels == 0, :, :, -size // 4 :] += bright[labels == 0]  # left and right: mirroring keeps the class
    images[labels == 1, :, : size // 4] += bright[labels == 1]
    return images.byte(), labels


def test_the_probe_tells_classes_apart_that_it_has_not_seen():
    torch.set_num_threads(1)
    images, labels = bars(64)
    classifier = probe.train(images, labels, classes=2, steps=30, batch=16, seed=0)
    held_out, truth = bars(32, seed=1)
    probability, features = probe.look(classifier, held_out)
    assert (probability.argmax(1) == truth).float().mean().item() > 0.9
    assert features.shape[0] == 32


def test_the_probe_sees_neither_colour_nor_brightness():
    images = torch.rand(4, 3, 32, 32)
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True).expand_as(images)
    assert torch.allclose(probe.grey(images), probe.grey(grey * 0.5 + 0.1), atol=2e-2)


def test_agreement_is_the_share_of_pictures_seen_as_asked():
    seen = evaluate.Seen(torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]), torch.zeros(4, 1))
    assert seen.agreement(torch.tensor([0, 1, 1, 0])) == 75.0


def test_a_mirrored_copy_of_a_training_picture_is_found_at_distance_zero():
    images, _ = bars(10)
    asked = torch.cat([images[3:4].flip(-1), images[4:5]])
    distance, index, mirrored = evaluate.nearest_neighbours(asked, images)
    assert index.tolist() == [3, 4]
    assert distance.tolist() == pytest.approx([0, 0], abs=1e-3)
    assert mirrored.tolist() == [True, False]
    assert torch.equal(flip(images[index], mirrored), asked)  # as the picture shows it


def test_distance_is_in_units_of_brightness():
    black, white = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert evaluate.nearest_neighbours(black, white)[0].item() == pytest.approx(1)


def test_a_generator_knows_its_tokenizer(tmp_path):
    saved.write(tmp_path, {"weight": torch.zeros(1)}, {})
    sampling = Sampling(8, 1.0, "linear", 1.0)
    digest = saved.weights_digest(tmp_path)
    load.check_tokenizer(load.Generator(None, "maskgit", sampling, ("a",), digest), tmp_path)
    with pytest.raises(UserError, match=f"tokenizer 0123, but .* holds {digest}"):
        load.check_tokenizer(load.Generator(None, "maskgit", sampling, ("a",), "0123"), tmp_path)


def test_no_generator_in_a_folder_is_said(tmp_path):
    with pytest.raises(UserError, match="config.json does not exist; run the stage that trains it first"):
        load.load(tmp_path)


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_of_no_class_is_refused(label):
    generator = load.Generator(torch.nn.Module(), "maskgit", Sampling(8, 1.0, "linear", 1.0), ("a", "b"), "")
    with pytest.raises(UserError, match=f"label {label} is of no class; the generator's are 0 to 1"):
        load.draw_tokens(generator, torch.tensor([0, label]), seed=0)


def test_a_row_of_tokens_that_goes_beyond_the_codes_is_named():
    train.within(torch.tensor([[0, 1], [1, 1]]), 2, "train_tokens")
    with pytest.raises(UserError, match="train_tokens: row 1 goes beyond 0 to 1"):
        train.within(torch.tensor([[0, 1], [1, 2]]), 2, "train_tokens")
