"""Living figures in a browser: used by mouse, keyboard and touch, their numbers against klapprox.

The texts of a figure are compared with what the package says at the values that its controls show.
"""

import math
import re

import numpy as np
import pytest
from playwright.sync_api import expect

from klapprox.exact.families import Bernoulli, Normal, moments

CHAPTER = {
    "fig-living-sampling": "chapters/k3-control-variates.html",
    "fig-living-lambda": "chapters/k3-control-variates.html",
}
# What is chosen by hand: a control and, of a slider, the share of its length.
USED = {
    "fig-living-sampling": [{"pair": "scale", "d": 0.25, "n": "64"}, {"d": 1.0}],
    "fig-living-lambda": [{"lam": 0.3, "mu": 0.55}],
}


def percent(value):
    return f"{100 * value:.1f}%".replace("-", "−")


def sampling_texts(v):
    d = v["d"]
    q, p = {
        "shift": (Normal(0.0, 1.0), Normal(d, 1.0)),
        "scale": (Normal(0.0, 1.0), Normal(0.0, 1 + d)),
        "two outcomes": (Bernoulli(0.5), Bernoulli(0.5 + 0.45 * d)),
    }[v["pair"]]
    exact = moments(q, p)
    bias = {"k1": 0, "k2": exact.mean_k2 / exact.kl - 1, "k3": 0}
    found = [f"KL = {exact.kl:.4f} nats"]
    for name, variance in zip(bias, (exact.var_k1, exact.var_k2, exact.var_k3), strict=True):
        sd = percent(np.sqrt(variance / v["n"]) / exact.kl) if variance < math.inf else "infinite"
        found.append(f"k{'₀₁₂₃'[int(name[1])]}: bias {percent(bias[name])}, s.d. {sd},")
    return found


def lambda_texts(v):
    exact = moments(Normal(0.0, 1.0), Normal(v["mu"], 1.0))
    lam, best = v["lam"], exact.optimal_lambda

    def share(lam):
        variance = exact.var_k1 - 2 * lam * exact.jeffreys + lam**2 * exact.chi_squared
        return percent(np.sqrt(variance / exact.var_k1))

    least = f"{1 - lam + math.log(lam):.2f}".replace("-", "−").replace("−0.00", "0.00")
    return [
        f"λ = {lam:.2f}: s.d. {share(lam)} of k₁’s; values ≥ {least}",
        f"λ* = {best:.3f}: s.d. {share(best)}",
    ]


TEXTS = {"fig-living-sampling": sampling_texts, "fig-living-lambda": lambda_texts}


@pytest.fixture
def opened(browser, bases):
    """A function that opens a page, for a hand or a finger."""
    contexts = []

    def visit(path, *, touch=False, **options):
        size = {"width": 390, "height": 844} if touch else {"width": 1280, "height": 800}
        contexts.append(browser.new_context(viewport=size, has_touch=touch, **options))
        page = contexts[-1].new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        for event in ("warning", "error"):
            page.on(
                "console",
                lambda m, event=event: page.problems.append(m.text) if m.type == event else None,
            )
        page.goto(bases["file"] + path)
        return page

    yield visit
    for context in contexts:
        context.close()


def use(page, control, wanted, means):
    """Set a control by mouse, keyboard or touch."""
    slider = isinstance(wanted, float)
    if not slider:
        control = control.filter(has_text=re.compile(rf"^{wanted}$"))
    if means == "keyboard" and slider:
        control.focus()
        page.keyboard.press("Home")
        for _ in range(min(30, round(wanted * slider_steps(control)))):
            page.keyboard.press("ArrowRight")
    elif means == "keyboard":
        control.locator("input").focus()
        page.keyboard.press("Space")
    else:
        box = control.bounding_box()
        x = min(max(4, (wanted if slider else 0.5) * box["width"]), box["width"] - 4)
        act = control.tap if means == "touch" else control.click
        act(position={"x": x, "y": box["height"] / 2})


def slider_steps(control):
    return control.evaluate("e => Math.round((e.max - e.min) / e.step)")


def settings(figure):
    """Return what the controls of a figure say, by their names."""
    chosen = figure.locator("input[type=range], input:checked")
    pairs = chosen.evaluate_all("all => all.map(e => [e.name, e.type, e.value])")
    for shown in figure.locator("form > label").all():  # the value beside a slider is the slider's
        value = shown.locator("input").input_value()
        assert shown.locator("output").inner_text() == value
    return {
        name: float(value) if kind == "range" or re.fullmatch(r"\d+", value) else value.strip('"')
        for name, kind, value in pairs
    }


@pytest.mark.parametrize("means", ["mouse", "keyboard", "touch"])
@pytest.mark.parametrize("name", CHAPTER)
def test_a_figure_answers_and_says_what_klapprox_says(opened, name, means):
    page = opened(CHAPTER[name], touch=means == "touch")
    figure = page.locator(f"figure[data-living={name}]")
    figure.scroll_into_view_if_needed()
    seen = set()
    for wanted in USED[name]:
        for control, value in wanted.items():
            found = figure.locator(f"[name={control}]")
            label = figure.locator(f"label:has([name={control}])")
            use(page, found if isinstance(value, float) else label, value, means)
        texts = TEXTS[name](settings(figure))
        for text in texts:
            expect(figure.locator(".said")).to_contain_text(text)
            expect(figure.locator(".drawn svg")).to_contain_text(text)
        seen.add(tuple(texts))
    assert len(seen) == len(USED[name])
    assert not page.problems
