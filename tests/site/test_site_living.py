"""Living figures in a browser: used by mouse, keyboard and touch, their numbers against klapprox.

The texts of a figure are compared with what the package says at the values that its controls show.
"""

import itertools
import json
import math
import re

import numpy as np
import pytest
from playwright.sync_api import expect
from scipy import optimize, special, stats

import klapprox as kl
from klapprox.exact.families import Bernoulli, Normal, moments
from klapprox.vocabulary import exact_kl, topk_kl

# What is chosen by hand on each page, one after the other: of a slider, the share of its length.
USED = {
    "index.html": {
        "fig-living-sampling": [{"pair": "scale", "d": 0.25, "n": "64"}, {"d": 1.0}],
    },
    "chapters/k3-control-variates.html": {
        "fig-living-lambda": [{"lam": 0.3, "mu": 0.55}],
        "fig-living-sampling": [{"pair": "two outcomes", "n": "4"}],
    },
    "chapters/practice.html": {"fig-living-running-means": [{"sd": "1.5", "draw": 0.4}]},
    "chapters/sequences.html": {"fig-living-length": [{"T": 0.1, "mu": 0.8}]},
    "chapters/whole-vocabulary.html": {
        "fig-living-topk": [{"a": "1.5", "draw": 0.6, "log2k": 0.4}]
    },
    "chapters/policy-gradients.html": {
        "fig-living-simplex": [{"start": 0.5}, {"placed": "k3 in the loss"}],
    },
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
        negative = f"negative {percent(below_zero(v))}" if name == "k1" else "never negative"
        sign = "₀₁₂₃"[int(name[1])]
        found.append(f"k{sign}: bias {percent(bias[name])}, s.d. {sd}, {negative}")
    return found


def below_zero(v):
    """Return the probability that the mean of N values of k1 is negative."""
    d, n = v["d"], v["n"]
    if v["pair"] == "shift":
        return stats.norm.cdf(-np.sqrt(n) * d / 2)
    if v["pair"] == "scale":
        return stats.chi2(n).sf(2 * n * np.log(1 + d) / (1 - (1 + d) ** -2))
    heads, tails = -np.log1p(0.9 * d), -np.log1p(-0.9 * d)  # k1 = -log r
    counts = np.arange(n + 1)
    return stats.binom(n, 0.5).pmf(counts) @ (counts * heads + (n - counts) * tails < 0)


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


def stored(value):
    """Return a number as the specification holds it."""
    return float(f"{value:.4g}")


def running_texts(v):
    x = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(v["draw"]))))
    q, p, x = Normal(0.0, 1.0), Normal(0.0, v["sd"]), x.standard_normal(10_000)
    log_r = kl.log_ratio(q.log_density(x), p.log_density(x))
    means = (stored(k(log_r).mean() / q.kl(p)) for k in (kl.k1, kl.k3))
    signs = ("k₁", "k₃")
    return [f"{k}: {m:.3f} of KL after 10 000 draws" for k, m in zip(signs, means, strict=True)]


def length_texts(v):
    T, one = v["T"], moments(Normal(0.0, 1.0), Normal(v["mu"], 1.0))
    whole = (1 + one.chi_squared) ** T - 1 + T * one.var_k1 - 2 * T * one.jeffreys
    found = {"k₁": T * one.var_k1, "Σ k₃ of tokens": T * one.var_k3, "k₃ of sequence": whole}
    return [f"{k}: s.d. {100 * np.sqrt(x) / T / one.kl:,.1f}% of KL" for k, x in found.items()]


def topk_texts(v):
    logits = -v["a"] * np.log(np.arange(1, 1025))
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(v["draw"]))))
    tilted, k = logits + 0.1 * rng.standard_normal(1024), 2 ** int(v["log2k"])
    log_q, log_p = (special.log_softmax(z)[:k] for z in (logits, tilted))
    whole, q = float(exact_kl(logits, tilted)), np.exp(log_q)
    found = {
        "L, truncated": q @ (log_q - log_p),
        "S, sum of q k₃": q @ kl.k3(log_p - log_q),
        "K, with a bucket": float(topk_kl(log_q, log_p)),
    }
    return [f"{name}: {percent(stored(part / whole))}" for name, part in found.items()]


def simplex_texts(v):
    """Return where the two right placements and k3 in the loss end (thm-optima-by-placement)."""
    reference, prizes = np.array([0.6, 0.3, 0.1]), np.array([0.0, 0.5, 1.0])
    end = reference * np.exp(prizes)
    if v["placed"] == "k3 in the loss":
        nu = optimize.brentq(lambda nu: (reference / (nu - prizes)).sum() - 1, 1.0001, 9)
        end = reference / (nu - prizes)
    return ["ends at " + ", ".join(f"{x:.3f}" for x in end / end.sum()) + ", at rest"]


TEXTS = {
    "fig-living-sampling": sampling_texts,
    "fig-living-lambda": lambda_texts,
    "fig-living-running-means": running_texts,
    "fig-living-length": length_texts,
    "fig-living-topk": topk_texts,
    "fig-living-simplex": simplex_texts,
}


@pytest.fixture(scope="module")
def hands(browser):
    """Browser contexts with a mouse, and with a finger on a phone."""
    sizes = {"mouse": {"width": 1280, "height": 800}, "touch": {"width": 390, "height": 844}}
    found = {
        means: browser.new_context(viewport=size, has_touch=means == "touch")
        for means, size in sizes.items()
    }
    yield found | {"keyboard": found["mouse"]}
    for context in found.values():
        context.close()


@pytest.fixture
def opened(hands, bases):
    """A function that opens a page, for a hand or a finger; nothing goes wrong on it."""
    pages, problems = [], []

    def visit(path, means="mouse"):
        page = hands[means].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type != "log" else None)
        page.goto(bases["file"] + path)
        pages.append(page)
        return page

    yield visit
    for page in pages:
        page.close()
    assert not problems


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
        name: float(value) if kind == "range" else json.loads(value) for name, kind, value in pairs
    }


@pytest.mark.parametrize("means", ["mouse", "keyboard", "touch"])
@pytest.mark.parametrize("path", USED)
def test_figures_answer_and_say_what_klapprox_says(opened, path, means):
    page = opened(path, means)
    for name, rounds in USED[path].items():
        figure = page.locator(f"figure[data-living={name}]")
        figure.scroll_into_view_if_needed()
        said = [figure.locator(".said").inner_text()]
        steps = [(chosen, item) for chosen in rounds for item in chosen.items()]
        for chosen, (control, value) in steps:
            found = figure.locator(f"[name={control}]")
            label = figure.locator(f"label:has([name={control}])")
            use(page, found if isinstance(value, float) else label, value, means)
            if control == [*chosen][-1]:
                for text in TEXTS[name](settings(figure)):
                    expect(figure.locator(".said")).to_contain_text(text)
                    expect(figure.locator(".drawn svg")).to_contain_text(text)
                said.append(figure.locator(".said").inner_text())
        assert said[0] == "", "nothing is said before anything is done"
        assert name == "fig-living-simplex" or len(set(said)) == len(said)


def test_without_a_hand_nothing_is_loaded_and_the_still_picture_stays(opened):
    page = opened("index.html")
    page.wait_for_timeout(200)
    assert page.locator("figure.living img").is_visible()
    assert page.evaluate("typeof drawLiving") == "undefined"
    page.mouse.move(600, 400)
    expect(page.locator("figure.living.live")).to_have_count(1)
    assert not page.locator("figure.living img").is_visible()


def test_a_living_figure_follows_the_colours_of_the_page(opened):
    page = opened("index.html")
    page.mouse.move(600, 400)
    line = page.locator("figure.live .mark-area path").first
    fill = "e => getComputedStyle(e).fill"
    light = line.evaluate(fill)
    assert light == "rgb(0, 114, 178)", "k1 is blue"
    page.click(".theme-button")
    assert line.evaluate(fill) == "rgb(86, 180, 233)"
    page.click(".theme-button")


def test_the_front_page_answers_what_to_write(opened):
    page = opened("index.html")
    shown = page.locator(".choose tbody tr:visible")
    for place, fits, at_hand in itertools.product(
        ("in the loss", "in the reward"),
        ("just drawn", "older"),
        ("scores of the sampled tokens", "whole logits"),
    ):
        for words in (place, fits, at_hand):
            page.get_by_label(words, exact=True).check()
        assert shown.count() == 1
        code = shown.locator("pre").inner_text()
        assert ("exact_kl" in code) == (place == "in the loss" and at_hand == "whole logits")
        assert ("reward" in code) == (place == "in the reward")
        assert shown.locator("strong").inner_text() == "Optimises"
        assert shown.locator("a.reference").count()


def test_without_a_script_the_front_page_has_the_whole_table_and_a_still_picture(browser, bases):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{bases['file']}index.html")
    assert page.locator(".choose tbody tr:visible").count() == 5
    assert page.locator(".choose td:first-child:visible").count() == 5
    assert page.locator("figure.living img").is_visible()
    assert not page.locator(".controls").first.is_visible()
    context.close()


# Doubts of the front page, and how the first sentence begins where their links lead.
ANSWERS = {
    "Why is my KL negative?": "Either the estimate is noisy, or the scores",
    "Which of the three": "For a value",
    "Why does my KL jump?": "A few samples with a large ratio",
    "Which policy is": "q is the trained policy",
    "Reward or loss?": "The two places have different gradients",
    "may I reset the reference?": "A budget fixes",
}


def test_doubts_lead_to_a_place_whose_first_sentence_answers(opened):
    page = opened("index.html")
    items = page.locator("li:has(> p > em)")
    links = {doubt: items.filter(has_text=doubt).locator("a").first for doubt in ANSWERS}
    places = {doubt: link.get_attribute("href").split("#") for doubt, link in links.items()}
    assert {path for path, _ in places.values()} == {"chapters/practice.html"}
    page.goto(page.url.replace("index.html", "chapters/practice.html"))
    for doubt, (_, anchor) in places.items():
        section = page.locator(f"section:has(> span#{anchor}), section#{anchor}").last
        found = section.locator("> p").first.evaluate("e => e.textContent.replace(/\\s+/g, ' ')")
        assert found.startswith(ANSWERS[doubt]), doubt
