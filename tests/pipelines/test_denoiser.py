"""The flagship's steps, on random weights in the published files' layout, read by the real loaders: what they give is
what the published method gives, and nobody's face touches anybody else's."""

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")

import torch
from torch import Tensor

from nanoswap.pipelines import denoiser as denoiser_module
from nanoswap.pipelines.denoiser import Denoiser, Denoising, Schedule
from nanoswap.pipelines.identity import Identity
from nanoswap.pipelines.instantid_parts import Loaded, _tokenizer, _words, load_parts
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.recipe import Recipe
from tests.instantid_published import IdentityNet, Published, scheduler
from tests.stand_ins import diffusion

FAST = Recipe(steps=4, sizes=(64, 128), strength=0.75, face_scale=0.6, prompt="of a person")
GUIDED = Recipe(steps=6, sizes=(64, 128), spacing="leading", guidance=5.0, prompt="of a person", negative="of")
#: Without Lightning's UNet, and without a second adapter.
NAMES = Manifest.read().engines["instantid-quality"].needs
SIZE = 64
CELLS = SIZE // 8


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    """Tiny tensors: more threads only spin against each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def files() -> Mapping[Any, bytes]:
    manifest, made = Manifest.read(), diffusion.diffusion_files()
    return {manifest.models[name].role: data for name, data in made.items() if name in NAMES}


def loaded(recipe: Recipe) -> Loaded:
    return load_parts(files(), recipe, device="cpu", dtype=torch.float32)


@cache
def ours(recipe: Recipe) -> tuple[Denoiser, Identity, Loaded]:
    parts = loaded(recipe)
    denoiser = Denoiser(parts.parts, recipe, device="cpu", dtype=torch.float32)
    return denoiser, Identity(parts.resampler, guided=recipe.guided), parts


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def embedding(seed: int) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=512) * 1.2, np.float32)


def tokens(recipe: Recipe, person: int) -> list[Tensor]:
    return ours(recipe)[1](embedding(person), None, None)  # type: ignore[arg-type]


def middle() -> Tensor:
    mask = torch.zeros(1, 1, CELLS, CELLS)
    mask[..., 2:6, 1:7] = 1
    return mask


def begin(recipe: Recipe, person: int, seed: int, picture: int = 3, crop: int = 4, size: int = SIZE) -> Denoising:
    cells = size // 8
    mask = torch.nn.functional.interpolate(middle(), (cells, cells))
    hint = (random(picture, 1, 3, size, size) > 1).float()
    return ours(recipe)[0].begin(random(crop, 1, 4, cells, cells), mask, hint, tokens(recipe, person), seed)


def finish(recipe: Recipe, *jobs: Denoising) -> list[Tensor]:
    while any(not job.done for job in jobs):
        ours(recipe)[0].step([job for job in jobs if not job.done])
    return [job.latents for job in jobs]


class FromLatents(Published):
    """Is given the crop's latents, because diffusers draws them and ours are their mean."""

    original: Tensor | None = None

    def _encode_vae_image(self, image: Any, generator: Any) -> Any:
        return self.original


def published(recipe: Recipe, person: int, seed: int, picture: int, crop: int) -> Tensor:
    net = IdentityNet(**{k: v for k, v in diffusion.identity_net().config.items() if not k.startswith("_")})
    net.load_state_dict(diffusion.identity_net().state_dict())
    unet = type(diffusion.unet()).from_config(diffusion.unet().config)
    unet.load_state_dict(diffusion.unet().state_dict())
    words = _words(*(diffusion.diffusion_files()[name] for name in ("clip_vocabulary", "clip_merges")))
    pipe: Any = FromLatents(
        vae=diffusion.vae(),
        text_encoder=diffusion.text_encoder(False),
        text_encoder_2=diffusion.text_encoder(True),
        tokenizer=_tokenizer(*words, pad="<|endoftext|>"),
        tokenizer_2=_tokenizer(*words, pad="!"),
        unet=unet,
        controlnet=net,
        scheduler=scheduler(recipe),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.load_ip_adapter(
        diffusion.face_adapter(), subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False
    )
    pipe.set_ip_adapter_scale(recipe.face_scale)
    pipe.original = random(crop, 1, 4, CELLS, CELLS)
    mask = torch.nn.functional.interpolate(middle(), (SIZE, SIZE))
    made: Tensor = pipe(
        prompt=recipe.prompt,
        negative_prompt=recipe.negative or None,
        image=torch.zeros(1, 3, SIZE, SIZE),
        mask_image=mask,
        control_image=(random(picture, 1, 3, SIZE, SIZE) > 1).float(),
        ip_adapter_image_embeds=[torch.from_numpy(embedding(person))[None, None]],
        strength=recipe.strength,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        controlnet_conditioning_scale=recipe.net_scale,
        generator=torch.Generator().manual_seed(seed),
        height=SIZE,
        width=SIZE,
        output_type="latent",
    ).images
    return made


@pytest.mark.parametrize("recipe", [FAST, GUIDED], ids=["fast", "guided"])
def test_latents_are_those_of_the_published_method(recipe: Recipe) -> None:
    theirs = published(recipe, person=1, seed=7, picture=3, crop=4)
    (mine,) = finish(recipe, begin(recipe, 1, 7))
    assert float((mine - theirs).abs().max()) < 2e-4 * float(theirs.abs().mean())
    (other,) = finish(recipe, begin(recipe, 2, 7))
    assert float((other - theirs).abs().max()) > 0.01 * float(theirs.abs().mean())


@pytest.mark.parametrize("recipe", [FAST, GUIDED], ids=["fast", "guided"])
def test_row_is_never_touched_by_whose_face_its_neighbours_are(recipe: Recipe) -> None:
    """diffusers#9813: with diffusers' own pipeline it is."""
    alike = finish(recipe, begin(recipe, 1, 7), begin(recipe, 2, 8), begin(recipe, 3, 9))
    others = finish(recipe, begin(recipe, 1, 7), begin(recipe, 4, 5, picture=6, crop=2), begin(recipe, 3, 9))
    assert torch.equal(alike[0], others[0])
    assert torch.equal(alike[2], others[2])
    assert not torch.allclose(alike[1], others[1], atol=0.1)


@pytest.mark.parametrize("recipe", [FAST, GUIDED], ids=["fast", "guided"])
def test_neighbours_at_other_steps_make_no_difference(recipe: Recipe) -> None:
    (alone,) = finish(recipe, begin(recipe, 1, 7))
    mine, early, late = begin(recipe, 1, 7), begin(recipe, 2, 8), begin(recipe, 3, 9)
    denoiser = ours(recipe)[0]
    denoiser.step([early])
    denoiser.step([early, mine])
    denoiser.step([late, mine])
    assert {early.index, mine.index, late.index} == {1, 2}
    together = finish(recipe, early, mine, late)
    assert float((together[1] - alone).abs().max()) < 1e-3
    assert torch.equal(finish(recipe, begin(recipe, 1, 7))[0], alone)


def test_everything_that_should_changes_the_face() -> None:
    base = finish(FAST, begin(FAST, 1, 7))[0]
    for other in (begin(FAST, 2, 7), begin(FAST, 1, 8), begin(FAST, 1, 7, picture=5), begin(FAST, 1, 7, crop=5)):
        assert float((finish(FAST, other)[0] - base).abs().max()) > 0.05


def test_outside_the_mask_the_crop_comes_back() -> None:
    job = begin(FAST, 1, 7)
    outside = middle().expand(1, 4, -1, -1) == 0
    (made,) = finish(FAST, job)
    assert torch.equal(made[outside], job.original[outside])
    assert not torch.allclose(made[~outside], job.original[~outside], atol=0.1)


def test_no_prompt_is_not_the_prompt() -> None:
    prompt = ours(FAST)[2].parts.prompt
    assert prompt.shape == (1, 77, diffusion.CROSS)
    assert ours(GUIDED)[2].parts.prompt.shape == (2, 77, diffusion.CROSS)
    assert not torch.allclose(loaded(replace(FAST, prompt="")).parts.prompt, prompt)
    # The one word of the merges is a word and not two letters.
    words = _words(*(diffusion.diffusion_files()[name] for name in ("clip_vocabulary", "clip_merges")))
    tokenizer = _tokenizer(*words, pad="!")
    said = tokenizer("of", padding="max_length", max_length=77).input_ids
    vocabulary = diffusion.vocabulary()
    assert said[:3] == [0, vocabulary["of</w>"], 1]
    assert set(said[3:]) == {vocabulary["!"]}


def test_schedule_is_diffusers_own() -> None:
    fast = Schedule.of(FAST)
    assert fast.timesteps == (749, 499, 249)
    assert len(fast.sigmas) == 4
    assert fast.sigmas[-1] == 0
    assert sorted(fast.sigmas, reverse=True) == list(fast.sigmas)
    whole = Schedule.of(replace(FAST, strength=1.0))
    assert whole.timesteps == (999, 749, 499, 249)
    assert len(Schedule.of(replace(GUIDED, steps=30, strength=0.8)).timesteps) == 24


def test_step_that_fails_takes_nobody_further(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, *_ = ours(FAST)
    jobs = [begin(FAST, 1, 7), begin(FAST, 2, 8)]
    before = [job.latents.clone() for job in jobs]

    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(ours(FAST)[2].parts.unet, "forward", breaks)
        with pytest.raises(RuntimeError, match="out of memory"):
            denoiser.step(jobs)
    assert [job.index for job in jobs] == [0, 0]
    assert all(torch.equal(job.latents, was) for job, was in zip(jobs, before, strict=True))


def test_wiped_of_everything() -> None:
    job = begin(FAST, 1, 7)
    ours(FAST)[0].step([job])
    held = [job.latents, job.original, job.noise, job.mask, job.hint, *job.tokens]
    assert all(bool(each.any()) for each in held)
    job.wipe()
    assert not any(bool(each.any()) for each in held)


def test_compiled_once_and_not_again_for_another_person() -> None:
    """Without graph breaks, a graph for each size and number of rows, and the same for every identity, seed and step;
    batches are filled up."""
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    parts, counter = loaded(FAST), CompileCounter()
    denoiser = Denoiser(parts.parts, FAST, device="cpu", dtype=torch.float32, compiler=counter)
    identity = Identity(parts.resampler, guided=False)

    def job(person: int, size: int = SIZE) -> Denoising:
        who = identity(embedding(person), None, None)  # type: ignore[arg-type]
        hint = (random(person, 1, 3, size, size) > 1).float()
        mask = torch.nn.functional.interpolate(middle(), (size // 8, size // 8))
        return denoiser.begin(random(person, 1, 4, size // 8, size // 8), mask, hint, who, person)

    for count, size in ((1, 64), (4, 64), (1, 128)):
        denoiser.step([job(person, size) for person in range(count)])
    assert counter.frame_count == 2 * 3
    jobs = [job(person) for person in range(10, 13)]
    while not jobs[0].done:
        denoiser.step(jobs)
    denoiser.step([job(20)])
    denoiser.step([job(21, 128)])
    assert counter.frame_count == 2 * 3
    torch._dynamo.reset()
    alone = begin(FAST, 12, 12, picture=12, crop=12)
    assert float((finish(FAST, alone)[0] - jobs[2].latents).abs().max()) < 1e-3


def test_there_is_room_for_every_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch counts the graphs of all networks together, and an error takes the place of the one too many."""
    torch._dynamo.reset()
    monkeypatch.setattr(denoiser_module, "_COMPILED", (1,))
    config: Any = torch._dynamo.config
    with config.patch(recompile_limit=0, accumulated_recompile_limit=0):
        parts = loaded(FAST)
        denoiser = Denoiser(parts.parts, FAST, device="cpu", dtype=torch.float32, compiler="eager")
        for size in FAST.sizes:
            who = Identity(parts.resampler, guided=False)(embedding(1), None, None)  # type: ignore[arg-type]
            cells = size // 8
            mask, hint = torch.ones(1, 1, cells, cells), torch.zeros(1, 3, size, size)
            denoiser.step([denoiser.begin(random(1, 1, 4, cells, cells), mask, hint, who, 1)])
    torch._dynamo.reset()


def test_identity_net_reads_the_face_and_no_other_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser, _, parts = ours(FAST)
    seen: dict[str, Any] = {}

    def net(*_: Any, **named: Any) -> Any:
        seen["net"] = named["encoder_hidden_states"]
        raise InterruptedError

    who, other = tokens(FAST, 1)[0], random(9, 1, 1, 12, diffusion.CROSS)
    job = denoiser.begin(random(4, 1, 4, CELLS, CELLS), middle(), torch.zeros(1, 3, SIZE, SIZE), [who, other], 1)
    with monkeypatch.context() as patch:
        patch.setattr(parts.parts.identity_net, "forward", net)
        with pytest.raises(InterruptedError):
            denoiser.step([job])
    assert torch.equal(seen["net"], who[:, 0])


def weights_of(layer: Any) -> list[Tensor]:
    return [each.detach() for each in layer.to_k]


@pytest.mark.parametrize(
    ("second", "name", "scale"), [("pulid", "second_adapter", 0.3), ("reference", "reference_adapter", 0.2)]
)
def test_each_adapter_has_its_own_weights_and_scale(second: str, name: str, scale: float) -> None:
    from safetensors.torch import load

    manifest, made = Manifest.read(), diffusion.diffusion_files()
    recipe = replace(FAST, **{"second_scale" if second == "pulid" else "reference_scale": scale})
    needs = manifest.engines[f"instantid-{second}"].needs
    roles = {manifest.models[one].role: made[one] for one in needs if one in made}
    parts = load_parts(roles, recipe, device="cpu", dtype=torch.float32)
    unet = parts.parts.unet
    layers = [(i, unet.attn_processors[key]) for i, key in enumerate(unet.attn_processors) if "attn2" in key]
    mine = diffusion.face_adapter()["ip_adapter"]
    theirs = load(roles[name])
    for index, layer in layers:
        assert layer.scales == (FAST.face_scale, scale)
        assert layer.orthos == (False, second == "pulid")
        face, other = weights_of(layer)
        assert torch.equal(face, mine[f"{index}.to_k_ip.weight"])
        (key,) = (key for key in theirs if key.endswith((f".{index}.to_k_ip.weight", f".{index}.id_to_k.weight")))
        assert torch.equal(other, theirs[key].float())
    assert (parts.pulid is not None) == (second == "pulid")
    assert (parts.reference is not None) == (second == "reference")
    if parts.pulid is not None:
        # Of distilled networks ten rows of zeros, of others twenty.
        assert parts.pulid.nothing().shape[2] == 32 + 10
        guided = load_parts(roles, replace(recipe, guidance=5.0), device="cpu", dtype=torch.float32)
        assert guided.pulid is not None
        assert guided.pulid.nothing().shape[2] == 32 + 20


def test_resampler_gives_what_its_description_says() -> None:
    """InstantID's resampler, stated once more in numpy: queries that look at the one embedding and at themselves."""
    weights = {name: value.double().numpy() for name, value in diffusion.face_adapter()["image_proj"].items()}
    for person in (1, 2):
        expected = resampled(weights, embedding(person).astype(np.float64))
        (given,) = tokens(FAST, person)
        assert given.shape == (1, 1, 16, diffusion.CROSS)
        assert np.abs(given[0, 0].numpy() - expected).max() < 2e-5
    nobody, somebody = tokens(GUIDED, 1)[0][:, 0].numpy()
    assert np.abs(nobody - resampled(weights, np.zeros(512))).max() < 2e-5
    assert np.abs(somebody - resampled(weights, embedding(1).astype(np.float64))).max() < 2e-5


def resampled(w: dict[str, np.ndarray], raw: np.ndarray) -> np.ndarray:
    """Depth 4, heads of 64, feed-forward of 4 times the width with GELU; (16, D)."""
    seen = w["proj_in.weight"] @ raw + w["proj_in.bias"]
    queries = w["latents"][0]
    for layer in range(4):
        p = f"layers.{layer}."
        told = normal(seen[None], w[p + "0.norm1.weight"], w[p + "0.norm1.bias"])
        asking = normal(queries, w[p + "0.norm2.weight"], w[p + "0.norm2.bias"])
        q = asking @ w[p + "0.to_q.weight"].T
        key, value = np.split(np.vstack([told, asking]) @ w[p + "0.to_kv.weight"].T, 2, axis=1)
        heads = []
        for at in range(0, q.shape[1], 64):
            part = slice(at, at + 64)
            score = np.exp(q[:, part] @ key[:, part].T / 8)
            heads.append(score / score.sum(1, keepdims=True) @ value[:, part])
        queries = queries + np.hstack(heads) @ w[p + "0.to_out.weight"].T
        wide = normal(queries, w[p + "1.0.weight"], w[p + "1.0.bias"]) @ w[p + "1.1.weight"].T
        erf = np.vectorize(__import__("math").erf)
        queries = queries + (0.5 * wide * (1 + erf(wide / np.sqrt(2)))) @ w[p + "1.3.weight"].T
    return normal(queries @ w["proj_out.weight"].T + w["proj_out.bias"], w["norm_out.weight"], w["norm_out.bias"])


def normal(x: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + shift


def test_file_that_lacks_a_weight_or_has_one_too_many_does_not_load() -> None:
    from safetensors.torch import load, save

    for role in ("unet", "vae", "identity_net", "text_encoder"):
        good = load(files()[role])
        name = sorted(key for key in good if key.endswith("weight"))[-1]
        for bad in ({k: v for k, v in good.items() if k != name}, {**good, "stranger.weight": torch.zeros(2)}):
            with pytest.raises((RuntimeError, ValueError)):
                load_parts({**files(), role: save(bad)}, FAST, device="cpu", dtype=torch.float32)
