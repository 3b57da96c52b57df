"""PuLID: its attention beside InstantID's, its tokens, and what it sees a face with."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and the flagship is optional")

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, IPAdapterAttnProcessor2_0
from safetensors.torch import load
from torch import Tensor, nn

from nanoswap.pipelines import eva_vision, id_former
from nanoswap.pipelines.align import FFHQ, cut, similarity
from nanoswap.pipelines.eva_vision import EvaVision
from nanoswap.pipelines.face_attention import Adapter, Branch, FaceAttention, install
from nanoswap.pipelines.id_former import IdFormer
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.parser import Parser
from nanoswap.pipelines.pulid import Pulid, grey_on_white, shown_to_eva
from tests.clips import portrait
from tests.stand_ins import pulid as stand_in

CROSS, WIDTH, HEADS = 48, 32, 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Tiny tensors: more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def attention() -> Attention:
    torch.manual_seed(3)
    return Attention(query_dim=WIDTH, cross_attention_dim=CROSS, heads=HEADS, dim_head=WIDTH // HEADS).eval()


def branch(seed: int, *, ortho: bool = False, scale: float = 0.8) -> Branch:
    return Branch(random(WIDTH, CROSS, seed=seed) / 4, random(WIDTH, CROSS, seed=seed + 50) / 4, scale, ortho)


HIDDEN, TEXT = random(3, 25, WIDTH, seed=1), random(3, 7, CROSS, seed=2)
TOKENS = [random(3, 1, 16, CROSS, seed=3), random(3, 1, 12, CROSS, seed=4)]


# Attention


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_without_ortho_it_is_diffusers_own(count: int, masked: bool) -> None:
    attn, branches = attention(), [branch(5), branch(6, scale=0.3)][:count]
    theirs = IPAdapterAttnProcessor2_0(WIDTH, CROSS, num_tokens=[16, 12][:count], scale=[0.8, 0.3][:count])
    for index, one in enumerate(branches):
        theirs.to_k_ip[index].weight = nn.Parameter(one.to_k)
        theirs.to_v_ip[index].weight = nn.Parameter(one.to_v)
    mask = torch.zeros(3, 1, 7).masked_fill(torch.arange(7) > 4, -10_000.0) if masked else None
    said = (TEXT, TOKENS[:count])
    with torch.inference_mode():
        ours = FaceAttention(branches)(attn, HIDDEN, said, attention_mask=mask)
        expected = theirs(attn, HIDDEN, said, attention_mask=mask)
        without = attn(HIDDEN, TEXT, attention_mask=mask)
    assert (ours - expected).abs().max() <= 1e-6
    assert (ours - without).abs().max() > 1e-2, "an adapter that says nothing would prove nothing"


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


def restated(attn: Attention, one: Branch, tokens: Tensor) -> np.ndarray:
    """PuLID's ortho v2, one row, one head and one channel at a time, float64."""
    w = {name: value.double().numpy() for name, value in attn.state_dict().items()}
    answers = []
    for hidden, text, face in zip(HIDDEN.double().numpy(), TEXT.double().numpy(), tokens.double().numpy(), strict=True):
        query, size = hidden @ w["to_q.weight"].T, WIDTH // HEADS
        said, given = np.zeros_like(query), np.zeros_like(query)
        share = np.zeros(len(hidden))
        for head in range(HEADS):
            mine = slice(head * size, (head + 1) * size)
            for out, key, value in (
                (said, text @ w["to_k.weight"].T, text @ w["to_v.weight"].T),
                (given, face[0] @ one.to_k.double().numpy().T, face[0] @ one.to_v.double().numpy().T),
            ):
                out[:, mine] = softmax(query[:, mine] @ key[:, mine].T / np.sqrt(size)) @ value[:, mine]
            share += softmax(query[:, mine] @ key[:, mine].T)[:, :5].sum(1) / HEADS
        answer = said.copy()
        for channel in range(WIDTH):
            text_says, face_says = said[:, channel], given[:, channel]
            along = (text_says @ face_says) / (text_says @ text_says) * text_says
            answer[:, channel] += one.scale * (face_says - (1 - share) * along)
        answers.append(answer @ w["to_out.0.weight"].T + w["to_out.0.bias"])
    return np.array(answers)


def test_ortho_is_the_published_one() -> None:
    attn, one = attention(), branch(7, ortho=True)
    with torch.inference_mode():
        ours = FaceAttention([one])(attn, HIDDEN, (TEXT, TOKENS[:1]))
        without = FaceAttention([branch(7)])(attn, HIDDEN, (TEXT, TOKENS[:1]))
    assert np.abs(ours.numpy() - restated(attn, one, TOKENS[0])).max() <= 1e-5
    assert (ours - without).abs().max() > 1e-2


def test_ortho_takes_the_text_as_direction_and_no_other_adapter() -> None:
    attn, both = attention(), [branch(5), branch(6, ortho=True)]
    with torch.inference_mode():
        one = FaceAttention(both)(attn, HIDDEN, (TEXT, TOKENS))
        other = FaceAttention(both[::-1])(attn, HIDDEN, (TEXT, TOKENS[::-1]))
    assert (one - other).abs().max() <= 1e-6


def test_text_that_says_nothing_has_no_direction() -> None:
    attn = attention()
    nn.init.zeros_(attn.to_v.weight)
    with torch.inference_mode():
        ours, without = (
            FaceAttention([branch(7, ortho=ortho)])(attn, HIDDEN, (TEXT, TOKENS[:1])) for ortho in (True, False)
        )
    assert ours.isfinite().all()
    assert (ours - without).abs().max() <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nobody_has_a_part_in_another_row(dtype: torch.dtype) -> None:
    attn, net = attention().to(dtype), FaceAttention([branch(5), branch(6, ortho=True)]).to(dtype)

    def run(hidden: Tensor, text: Tensor, tokens: list[Tensor]) -> Tensor:
        with torch.inference_mode():
            made: Tensor = net(attn, hidden.to(dtype), (text.to(dtype), [each.to(dtype) for each in tokens]))
        return made

    def changed(states: Tensor) -> Tensor:
        states = states.clone()
        states[1] = random(*states.shape[1:], seed=99) * 30
        return states

    before = run(HIDDEN, TEXT, TOKENS)
    after = run(changed(HIDDEN), changed(TEXT), [changed(each) for each in TOKENS])
    assert before.dtype == dtype
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert not torch.equal(before[1], after[1])
    for index in range(2):
        tokens = list(TOKENS)
        tokens[index] = changed(tokens[index])
        after = run(HIDDEN, TEXT, tokens)
        assert torch.equal(before[[0, 2]], after[[0, 2]])
        assert not torch.equal(before[1], after[1])


def test_it_is_traced_whole() -> None:
    attn = attention()
    attn.set_processor(FaceAttention([branch(5), branch(6, ortho=True)]))
    said = (TEXT, TOKENS)
    torch.compiler.reset()
    traced = torch.compile(attn, fullgraph=True, backend="eager")
    with torch.inference_mode():
        assert (traced(HIDDEN, said) - attn(HIDDEN, said)).abs().max() <= 1e-6
    torch.compiler.reset()


def test_tokens_of_an_adapter_that_isnt_there_are_refused() -> None:
    with pytest.raises(ValueError, match="1 adapters, and tokens for 2"):
        FaceAttention([branch(5)])(attention(), HIDDEN, (TEXT, TOKENS))


# In a UNet


def unet() -> Any:
    torch.manual_seed(1)
    made = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        cross_attention_dim=CROSS,
    )
    return made.eval()


def widths(net: Any) -> list[int]:
    names = [name.removesuffix(".processor") for name in net.attn_processors if "attn2" in name]
    return [net.get_submodule(name).inner_dim for name in names]


def instantid(net: Any, seed: int = 8) -> dict[str, Tensor]:
    shapes = stand_in.attention_shapes(CROSS, widths(net))
    renamed = {name.replace("id_to_", "to_").replace(".weight", "_ip.weight"): shape for name, shape in shapes.items()}
    return {name: random(*shape, seed=seed + index) / 4 for index, (name, shape) in enumerate(renamed.items())}


def pulids(net: Any) -> dict[str, Tensor]:
    shapes = stand_in.attention_shapes(CROSS, widths(net))
    return {name: random(*shape, seed=70 + index) / 4 for index, (name, shape) in enumerate(shapes.items())}


def test_every_layer_gets_its_own_matrices_of_each_adapter() -> None:
    net = unet()
    before = dict(net.attn_processors)
    first, second = instantid(net), pulids(net)
    install(net, [Adapter(first, 0.6), Adapter(second, 0.4, ortho=True)])
    assert len(set(widths(net))) == 2, "layers of one width would hide a wrong order"
    for index, (name, processor) in enumerate(net.attn_processors.items()):
        if "attn1" in name:
            assert index % 2 == 0
            assert processor is before[name]
            continue
        assert (processor.scales, processor.orthos) == ((0.6, 0.4), (False, True))
        for kind, held in (("k", processor.to_k), ("v", processor.to_v)):
            assert torch.equal(held[0], first[f"{index}.to_{kind}_ip.weight"])
            assert held[1].data_ptr() == second[f"{index}.id_to_{kind}.weight"].data_ptr(), "held twice"
            assert not held[0].requires_grad


def test_unet_gives_what_it_gives_with_diffusers_processors() -> None:
    ours, theirs = unet(), unet()
    weights = instantid(ours)
    install(ours, [Adapter(weights, 0.7)])
    processors = dict(theirs.attn_processors)
    for index, (name, width) in enumerate(zip((n for n in processors if "attn2" in n), widths(theirs), strict=True)):
        processors[name] = IPAdapterAttnProcessor2_0(width, CROSS, num_tokens=[16], scale=[0.7])
        processors[name].to_k_ip[0].weight = nn.Parameter(weights[f"{2 * index + 1}.to_k_ip.weight"])
        processors[name].to_v_ip[0].weight = nn.Parameter(weights[f"{2 * index + 1}.to_v_ip.weight"])
    theirs.set_attn_processor(processors)
    made = []
    for net in (ours, theirs):
        net.encoder_hid_proj = nn.Identity()
        net.config.encoder_hid_dim_type = "ip_image_proj"
        with torch.inference_mode():
            (one,) = net(
                random(3, 4, 8, 8),
                torch.tensor([1, 500, 900]),
                TEXT,
                added_cond_kwargs={"image_embeds": TOKENS[:1]},
                return_dict=False,
            )
        made.append(one)
    assert (made[0] - made[1]).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda weights: weights.popitem(), "adapter of another network"),
        (
            lambda weights: weights.update({"99.id_to_k.weight": weights.pop("1.id_to_k.weight")}),
            "matrices for layer 1",
        ),
        (lambda weights: weights.update({"1.id_to_v.weight": random(8, CROSS)}), "adapter of another network"),
    ],
)
def test_adapter_of_another_network_changes_nothing(spoil: Callable[[dict[str, Tensor]], object], message: str) -> None:
    net = unet()
    before, weights = dict(net.attn_processors), pulids(net)
    spoil(weights)
    with pytest.raises(ValueError, match=message):
        install(net, [Adapter(weights, 0.4, ortho=True)])
    assert dict(net.attn_processors) == before


# The two networks, stated once more


def norm(w: Mapping[str, np.ndarray], name: str, x: np.ndarray, epsilon: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(centred.var(-1, keepdims=True) + epsilon) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", np.zeros(1))


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    parts = [slice(at, at + 64) for at in range(0, query.shape[-1], 64)]
    return np.concatenate([softmax(query[:, p] @ key[:, p].T / 8) @ value[:, p] for p in parts], -1)


def eva_restated(w: Mapping[str, np.ndarray], picture: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """picture: (3, S, S). Places are turned as complex numbers."""
    row = picture.shape[1] // 14
    cells = picture.reshape(3, row, 14, row, 14).transpose(1, 3, 0, 2, 4).reshape(row * row, -1)
    x = cells @ w["patch_embed.proj.weight"].reshape(len(w["patch_embed.proj.bias"]), -1).T + w["patch_embed.proj.bias"]
    x = np.vstack([w["cls_token"][0], x]) + w["pos_embed"][0]
    turn = np.ones((1 + row * row, 32), complex)
    for place in range(row * row):
        for pair in range(32):
            along = (place // row if pair < 16 else place % row) * 16 / row
            turn[1 + place, pair] = np.exp(1j * along / 10_000 ** (pair % 16 / 16))

    def turned(states: np.ndarray) -> np.ndarray:
        pairs = states.reshape(len(states), -1, 32, 2)
        after = (pairs[..., 0] + 1j * pairs[..., 1]) * turn[:, None]
        return np.stack([after.real, after.imag], -1).reshape(states.shape)

    depth = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    entered = []
    for index in range(depth):
        if index * 6 % depth == 0 and index:
            entered.append(x)
        name = f"blocks.{index}"
        y = norm(w, f"{name}.norm1", x, 1e-6)
        query, key, value = (linear(w, f"{name}.attn.{each}_proj", y) for each in "qkv")
        y = norm(w, f"{name}.attn.norm", attend(turned(query), turned(key), value), 1e-6)
        x = x + linear(w, f"{name}.attn.proj", y)
        y = norm(w, f"{name}.norm2", x, 1e-6)
        gate = linear(w, f"{name}.mlp.fc1_g", y)
        y = gate / (1 + np.exp(-gate)) * linear(w, f"{name}.mlp.fc1_x", y)
        x = x + linear(w, f"{name}.mlp.fc2", norm(w, f"{name}.mlp.norm", y, 1e-6))
    return entered, linear(w, "head", norm(w, "norm", x, 1e-6)[0])


def former_restated(w: Mapping[str, np.ndarray], identity: np.ndarray, seen: list[np.ndarray]) -> np.ndarray:
    def mapped(name: str, x: np.ndarray) -> np.ndarray:
        for at in (0, 3):
            x = norm(w, f"{name}.{at + 1}", linear(w, f"{name}.{at}", x), 1e-5)
            x = np.where(x > 0, x, 0.01 * x)
        return linear(w, f"{name}.6", x)

    latents = w["latents"][0]
    whose = mapped("id_embedding_mapping", identity).reshape(5, -1)
    x = np.vstack([latents, whose])
    for index, states in enumerate(seen):  # a layer for each, as in the stand-in
        name = f"layers.{index}"
        context = norm(w, f"{name}.0.norm1", np.vstack([whose, mapped(f"mapping_{index}", states)]), 1e-5)
        mine = norm(w, f"{name}.0.norm2", x, 1e-5)
        key, value = np.split(linear(w, f"{name}.0.to_kv", np.vstack([context, mine])), 2, 1)
        x = x + linear(w, f"{name}.0.to_out", attend(linear(w, f"{name}.0.to_q", mine), key, value))
        y = linear(w, f"{name}.1.1", norm(w, f"{name}.1.0", x, 1e-5))
        gelu = np.array([[0.5 * v * (1 + erf(v / np.sqrt(2))) for v in line] for line in y])
        x = x + linear(w, f"{name}.1.3", gelu)
    return x[: len(latents)] @ w["proj_out"]


def erf(value: float) -> float:
    return float(torch.erf(torch.tensor(value, dtype=torch.float64)))


def doubles(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v.double().numpy() for k, v in weights.items() if k.startswith(prefix)}


EVA = stand_in.eva()
FILE = stand_in.pulid(CROSS, (32, 64))


def test_tower_is_timms_stated_once_more() -> None:
    weights, picture = load(EVA), random(2, 3, stand_in.SIDE, stand_in.SIDE, seed=9)
    with torch.inference_mode():
        entered, answer = EvaVision.load(weights)(picture)
    assert len(entered) == 5
    for row in range(2):
        expected, last = eva_restated(doubles(weights), picture[row].double().numpy())
        for ours, theirs in zip(entered, expected, strict=True):
            assert np.abs(ours[row].numpy() - theirs).max() <= 1e-4 * np.abs(theirs).max()
        assert np.abs(answer[row].numpy() - last).max() <= 1e-4 * np.abs(last).max()


def test_tokens_are_the_idformers_stated_once_more() -> None:
    weights = {k.removeprefix("id_adapter."): v for k, v in load(FILE).items() if k.startswith("id_adapter.")}
    identity, seen = random(2, 512 + 96, seed=10), [random(2, 17, 64, seed=11 + index) for index in range(5)]
    with torch.inference_mode():
        ours = IdFormer.load(weights)(identity, seen)
    for row in range(2):
        expected = former_restated(
            doubles(weights), identity[row].double().numpy(), [each[row].double().numpy() for each in seen]
        )
        assert np.abs(ours[row].numpy() - expected).max() <= 1e-4 * np.abs(expected).max()


def test_full_size_has_the_published_names_and_counts() -> None:
    with torch.device("meta"):
        former, tower = IdFormer(id_former.Sizes()), EvaVision(eva_vision.Sizes())
    for net, shapes, count in (
        (former, stand_in.former_shapes(), 151_398_400),
        (tower, stand_in.eva_shapes(), 304_432_832),
    ):
        assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == shapes
        assert sum(value.numel() for value in net.parameters()) == count
        # And what is read from a file of that size is the published size.
        held = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        assert type(net.sizes).of(held) == net.sizes


@pytest.mark.parametrize("missing", ["latents", "layers.4.0.to_kv.weight", "mapping_4.6.bias"])
def test_former_that_lacks_a_weight_doesnt_load(missing: str) -> None:
    weights = {k.removeprefix("id_adapter."): v for k, v in load(FILE).items() if k.startswith("id_adapter.")}
    del weights[missing]
    with pytest.raises((KeyError, RuntimeError), match=missing):
        IdFormer.load(weights)


def test_tower_of_other_depth_or_shape_doesnt_load() -> None:
    with pytest.raises(ValueError, match="5 blocks"):
        EvaVision.load({k: v for k, v in load(EVA).items() if not k.startswith("blocks.5.")})
    with pytest.raises(ValueError, match="places"):
        EvaVision.load(load(EVA) | {"pos_embed": torch.zeros(1, 14, 64)})


# A face


def aligned(name: str) -> np.ndarray:
    """uint8 (512, 512, 3): the portrait as `align.FFHQ` has it, by where its pupils are."""
    eyes = {"astronaut": ((202.7, 100.0), (247.0, 101.8)), "hopper": ((220.0, 190.0), (305.0, 188.0))}[name]
    return cut(portrait(name), similarity(np.array(eyes, np.float32), FFHQ[:2]), 512)


def labels() -> np.ndarray:
    """An oval of skin with hair above, glasses, and everything else around it."""
    seen = np.zeros((512, 512), np.uint8)
    seen[400:] = 16
    cv2.ellipse(seen, (256, 200), (170, 190), 0, 0, 360, 17, -1)
    cv2.ellipse(seen, (256, 280), (130, 170), 0, 0, 360, 1, -1)
    seen[220:260, 180:330] = 6
    return seen


FACE, OTHER, SEEN = aligned("astronaut"), aligned("hopper"), labels()
WHOSE = random(512, seed=20).numpy() * 1.3


@pytest.fixture(scope="module")
def pulid() -> Pulid:
    return Pulid.load(FILE, EVA, device="cpu", dtype=torch.float32)


def test_tokens_have_the_shape_of_an_adapters(pulid: Pulid) -> None:
    tokens = pulid.tokens(WHOSE, FACE, SEEN)
    assert tokens.shape == pulid.nothing().shape == (1, 1, 32 + 20, CROSS)
    assert tokens.isfinite().all()
    assert not tokens[:, :, 32:].any()
    assert tokens[:, :, :32].std() > 0.1
    few = Pulid.load(FILE, EVA, device="cpu", dtype=torch.float32, zeros=0, scale=0.5)
    assert torch.equal(few.tokens(WHOSE, FACE, SEEN), tokens[:, :, :32])
    assert (pulid.adapter.scale, pulid.adapter.ortho, few.adapter.scale) == (0.8, True, 0.5)


def test_another_face_or_identity_gives_other_tokens(pulid: Pulid) -> None:
    mine = pulid.tokens(WHOSE, FACE, SEEN)
    assert torch.equal(mine, pulid.tokens(WHOSE, FACE, SEEN))
    for other in (
        pulid.tokens(WHOSE, OTHER, SEEN),
        pulid.tokens(-WHOSE, FACE, SEEN),
        pulid.tokens(WHOSE / np.linalg.norm(WHOSE), FACE, SEEN),
        pulid.nothing(),
    ):
        assert (mine - other).abs().max() > 1e-2


def test_what_is_around_the_face_says_nothing(pulid: Pulid) -> None:
    around = np.isin(SEEN, (0, 16))
    elsewhere, bald = FACE.copy(), FACE.copy()
    elsewhere[around] = OTHER[around]
    bald[SEEN == 17] = 255
    mine = pulid.tokens(WHOSE, FACE, SEEN)
    assert torch.equal(mine, pulid.tokens(WHOSE, elsewhere, SEEN))
    assert not torch.equal(mine, pulid.tokens(WHOSE, bald, SEEN))


def test_nobodys_tokens_are_those_of_zeros_and_ones_own(pulid: Pulid) -> None:
    expected = former_restated(doubles(load(FILE), "id_adapter."), np.zeros(512 + 96), [np.zeros((17, 64))] * 5)
    first = pulid.nothing()
    assert np.abs(first[0, 0, :32].numpy() - expected).max() <= 1e-4 * np.abs(expected).max()
    first.zero_()
    assert pulid.nothing().any()


def test_tokens_are_those_of_the_identity_as_it_is_and_of_evas_answer_at_unit_length(pulid: Pulid) -> None:
    w = doubles(load(EVA))
    picture = shown_to_eva(grey_on_white(FACE, SEEN), stand_in.SIDE)[0].double().numpy()
    entered, answer = eva_restated(w, picture)
    identity = np.concatenate([WHOSE, answer / np.linalg.norm(answer)])
    expected = former_restated(doubles(load(FILE), "id_adapter."), identity, entered)
    ours = pulid.tokens(WHOSE, FACE, SEEN)[0, 0, :32].numpy()
    assert np.abs(ours - expected).max() <= 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_of_a_face_is_left(dtype: torch.dtype) -> None:
    pulid = Pulid.load(FILE, EVA, device="cpu", dtype=dtype)
    kept: list[Tensor] = []
    hooks = [
        pulid._eva.register_forward_hook(lambda _, given, made: kept.extend([*given, *made[0], made[1]])),
        pulid._former.register_forward_hook(lambda _, given, made: kept.extend([given[0], *given[1], made])),
    ]
    face, seen, whose = FACE.copy(), SEEN.copy(), WHOSE.copy()
    try:
        pulid.tokens(whose, face, seen)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(kept) == 1 + 5 + 1 + 1 + 5 + 1
    assert not any(each.any() for each in kept)
    # What belongs to the caller is as it was.
    assert np.array_equal(face, FACE)
    assert np.array_equal(seen, SEEN)
    assert np.array_equal(whose, WHOSE)


def test_nothing_is_left_when_a_network_fails(pulid: Pulid) -> None:
    kept: list[Tensor] = []

    def fail(_: nn.Module, given: tuple[Tensor, list[Tensor]]) -> None:
        kept.extend([given[0], *given[1]])
        raise RuntimeError("no memory")

    hook = pulid._former.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="no memory"):
            pulid.tokens(WHOSE, FACE, SEEN)
    finally:
        hook.remove()
    assert kept
    assert not any(each.any() for each in kept)


def test_in_bfloat16_it_says_nearly_the_same(pulid: Pulid) -> None:
    half = Pulid.load(FILE, EVA, device="cpu", dtype=torch.bfloat16)
    tokens, exact = half.tokens(WHOSE, FACE, SEEN), pulid.tokens(WHOSE, FACE, SEEN)
    assert tokens.dtype == half.nothing().dtype == torch.bfloat16
    assert {value.dtype for value in half.adapter.weights.values()} == {torch.bfloat16}
    assert (tokens.float() - exact).norm() < 0.1 * exact.norm()


def test_weights_fit_a_unet(pulid: Pulid) -> None:
    net = unet()
    file = stand_in.pulid(CROSS, widths(net))
    install(net, [Pulid.load(file, EVA, device="cpu", dtype=torch.float32).adapter])
    held = load(file)
    for index, processor in enumerate(net.attn_processors.values()):
        if index % 2:
            assert torch.equal(processor.to_k[0], held[f"id_adapter_attn_layers.{index}.id_to_k.weight"])
            assert torch.equal(processor.to_v[0], held[f"id_adapter_attn_layers.{index}.id_to_v.weight"])


def test_files_and_inputs_that_dont_belong_together_are_refused(pulid: Pulid) -> None:
    from safetensors.torch import save

    with pytest.raises(ValueError, match="something else"):
        Pulid.load(save(load(FILE) | {"pulid_ca.0": torch.zeros(1)}), EVA, device="cpu", dtype=torch.float32)
    wide = stand_in._filled(stand_in.eva_shapes(side=56, dim=128, inner=64, depth=6, out=96), 0)
    with pytest.raises(ValueError, match="sees 128"):
        Pulid.load(FILE, wide, device="cpu", dtype=torch.float32)
    with pytest.raises(ValueError, match="identity"):
        pulid.tokens(WHOSE[:500], FACE, SEEN)
    with pytest.raises(ValueError, match="labels"):
        pulid.tokens(WHOSE, FACE, SEEN[:100])


# Before the networks


def test_face_is_grey_and_the_rest_white() -> None:
    every = np.arange(19, dtype=np.uint8).repeat(4).reshape(1, -1)
    face = np.random.default_rng(0).integers(0, 256, (1, 76, 3), dtype=np.uint8)
    picture = grey_on_white(face, every).numpy()
    assert picture.shape == (1, 3, 1, 76)
    for at, label in enumerate(every[0]):
        red, green, blue = face[0, at] / 255
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        # Skin, brows, eyes, glasses, nose, mouth, lips and hair are shown.
        shown = label in (1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 17)
        assert picture[0, :, 0, at] == pytest.approx(grey if shown else 1.0, abs=1e-6)


def test_picture_is_brought_to_evas_size_as_opencv_would_and_to_clips_range() -> None:
    picture = grey_on_white(FACE, SEEN)
    ours = shown_to_eva(picture, 336)[0].numpy()
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        # OpenCV's bicubic is torch's, and doesn't smooth either.
        smaller = cv2.resize(picture[0, channel].numpy(), (336, 336), interpolation=cv2.INTER_CUBIC)
        assert np.abs(ours[channel] - (smaller - mean) / std).max() <= 1e-4


class _Blobs:
    """A network that keeps a copy of what it is given, and finds label 17 everywhere."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []
        self.held: list[np.ndarray] = []

    def forward(self, blob: np.ndarray) -> list[np.ndarray]:
        self.given.append(blob.copy())
        labels = np.zeros((len(blob), 19, 512, 512), np.float32)
        labels[:, 17] = 1
        self.held += [blob, labels]
        return [labels]


def test_parser_is_given_imagenets_range_and_leaves_nothing() -> None:
    net: Any = _Blobs()
    crops = [FACE, cv2.resize(OTHER, (300, 300), interpolation=cv2.INTER_AREA)]
    before = [crop.copy() for crop in crops]
    maps = Parser(net)(crops)
    assert len(net.given) == 1
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = ((FACE / 255 - mean) / std).transpose(2, 0, 1)
    assert np.abs(net.given[0][0] - expected).max() <= 1e-5
    assert [each.shape for each in maps] == [(512, 512), (300, 300)]
    assert all(each.dtype == np.uint8 and (each == 17).all() for each in maps)
    assert not any(each.any() for each in net.held)
    assert all(np.array_equal(a, b) for a, b in zip(before, crops, strict=True))
    assert Parser(net)([]) == []


def test_parser_tells_hair_from_skin_and_both_from_the_ground() -> None:
    crop = FACE.copy()
    crop[:100] = (0, 255, 0)
    crop[100:200] = 0
    crop[200:] = (200, 150, 120)
    small = np.ascontiguousarray(crop[::4, ::4])
    for map_, size in zip(
        Parser(OnnxNet(stand_in.parser().SerializeToString()))([crop, small]), (512, 128), strict=True
    ):
        assert map_.shape == (size, size)
        rows = [map_[at * size // 512] for at in (50, 150, 400)]
        assert [set(row.tolist()) for row in rows] == [{0}, {17}, {1}]
