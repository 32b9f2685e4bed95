import pytest
import torch

from data.core.params import UserError
from models.tokenizer.losses import soft_codes
from models.tokenizer.titok import TiTok
from models.tokenizer.tokenizer import Tokenizer, load

TITOK = {
    "image_size": 16,
    "patch": 4,
    "width": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "heads": 2,
    "latents": 6,
    "token_dim": 4,
    "codes": 32,
    "proxy_grid": 4,
    "proxy_codes": 8,
}
PIXELS = {"channels": [4, 8], "blocks": 1, "stem": 2, "code_dim": 4}
PUBLISHED = [  # width, layers, heads, latents and the millions of parameters with the pixel decoder (TiTok, table 1)
    pytest.param(512, 8, 8, 128, 72, id="S-128"),
    pytest.param(768, 12, 12, 64, 202, id="B-64"),
    pytest.param(1024, 24, 16, 32, 644, id="L-32"),
]


def tokenizer():
    torch.manual_seed(0)
    net = Tokenizer(titok=TITOK, pixels=PIXELS).eval()
    net.codebook.copy_(torch.randn(net.codebook.shape))
    return net


def test_an_image_becomes_k_tokens_and_tokens_an_image():
    net = tokenizer()
    tokens = net.encode(torch.rand(3, 3, 16, 16))
    assert tokens.shape == (3, 6)
    assert tokens.min() >= 0
    assert tokens.max() < 32
    images = net.decode(tokens)
    assert images.shape == (3, 3, 16, 16)
    assert images.min() >= 0
    assert images.max() <= 1


def test_an_image_has_the_same_tokens_alone_and_in_a_batch():
    net, images = tokenizer(), torch.rand(4, 3, 16, 16)
    alone = torch.cat([net.encode(image[None]) for image in images])
    assert torch.equal(net.encode(images), alone)


def test_each_token_is_read_from_its_own_latent_token():
    net = tokenizer().titok.encoder
    images = torch.rand(2, 3, 16, 16)
    before = net(images)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    with torch.no_grad():
        net.latent_tokens.copy_(net.latent_tokens[order])
    torch.testing.assert_close(net(images), before[:, order])


def test_the_decoder_is_differentiable_down_to_its_transformer():
    net = tokenizer()
    net(torch.zeros(1, 6, dtype=torch.long)).square().mean().backward()
    assert net.titok.decoder.blocks[0].mlp.up.weight.grad is not None
    assert net.titok.encoder.head.weight.grad is None


def test_a_sure_logit_is_its_code():
    codebook = torch.randn(5, 3)
    sure = torch.full((2, 5), -50.0)
    sure[0, 1] = sure[1, 4] = 50.0
    torch.testing.assert_close(soft_codes(sure, codebook), codebook[[1, 4]])


@pytest.mark.parametrize(("width", "layers", "heads", "latents", "millions"), PUBLISHED)
def test_full_sizes_have_the_published_number_of_parameters(width, layers, heads, latents, millions):
    titok = {"width": width, "encoder_layers": layers, "decoder_layers": layers, "heads": heads, "latents": latents}
    grid = {"image_size": 256, "patch": 16, "token_dim": 12, "codes": 4096, "proxy_grid": 16, "proxy_codes": 1024}
    pixels = {"channels": [128, 128, 256, 256, 512], "blocks": 2, "stem": 1, "code_dim": 256}
    with torch.device("meta"):
        net = Tokenizer(titok=titok | grid, pixels=pixels)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)


def test_without_quantisation_the_decoder_still_sees_unit_vectors():
    torch.manual_seed(0)
    logits, features, commitment = TiTok(**TITOK)(torch.rand(2, 3, 16, 16), quantise=False)
    assert logits.shape == (2, 16, 8)
    assert features.shape == (2, 16, 16)
    assert commitment == 0


def test_a_folder_without_a_tokenizer_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="run the stage that trains it"):
        load(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(18, 16), (16, 19), (32, 32), (8, 8)])
def test_a_picture_of_another_size_is_refused_and_not_cut(height, width):
    with pytest.raises(UserError, match=f"made for pictures of 16 x 16 pixels, not {height} x {width}"):
        tokenizer().encode(torch.rand(1, 3, height, width))


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (torch.full((2, 6), 32), "tokens go from 0 to 31, not 32 to 32"),
        (torch.full((2, 6), -1), "tokens go from 0 to 31, not -1 to -1"),
        (torch.zeros(2, 1, dtype=torch.int64), "6 tokens for each picture"),
        (torch.zeros(6, dtype=torch.int64), "6 tokens for each picture"),
    ],
)
def test_tokens_that_it_does_not_have_are_refused(tokens, said):
    with pytest.raises(UserError, match=said):
        tokenizer().decode(tokens)


def test_a_patch_that_does_not_divide_the_picture_is_refused():
    with pytest.raises(ValueError, match="image_size 16 is not a multiple of patch 5"):
        TiTok(**{**TITOK, "patch": 5})
