"""The operator's page in a real Chromium, told things by a double of its server."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from scipy.signal import butter, sosfilt

from tests.dashboard.scenes import Scene

pytestmark = pytest.mark.slow
api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no Chromium here", allow_module_level=True)

from tests.dashboard.fake_server import FakeSession, served  # noqa: E402
from tests.dashboard.parts import checks  # noqa: E402

Page = Any
expect = api.expect
expect.set_options(timeout=60_000)
FULL_HD = {"width": 1920, "height": 1080}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def window(browser: Any) -> Page:
    """What all pages but one are opened in: a new one takes a second of a core."""
    return browser.new_page()


@pytest.fixture
def opened(browser: Any, window: Page) -> Callable:
    """Opens the page of a scene; nothing that it does may end in an error, or ask another host."""

    @contextmanager
    def open_it(
        scene: Scene | str,
        rights: str = "control",
        *,
        is_timed: bool = False,
        viewport: dict[str, int] = FULL_HD,
    ) -> Iterator[tuple]:
        session = FakeSession(Scene(scene) if isinstance(scene, str) else scene, rights)
        wrong: list[str] = []
        with served(session) as address:
            hears = {
                "pageerror": lambda error: wrong.append(str(error)),
                "console": lambda said: said.type == "error" and wrong.append(said.text),
                "request": lambda r: r.url.startswith((address, "data:")) or wrong.append(r.url),
            }
            page = browser.new_page() if is_timed else window
            page.set_default_timeout(60_000)
            page.set_viewport_size(viewport)
            page.emulate_media(color_scheme="light")
            for event, hear in hears.items():
                page.on(event, hear)
            if is_timed:  # its clock is the test's
                page.clock.install()
            page.goto(address)
            expect(page.locator("body")).to_have_attribute("data-line", "open")
            expect(page.locator("body")).to_have_attribute("data-state", re.compile(".+"))
            yield page, session
            for event, hear in hears.items():
                page.remove_listener(event, hear)
            page.goto("about:blank")
            # A line that a test has broken on purpose is the one thing that Chromium tells of.
            assert [one for one in wrong if "WebSocket" not in one] == []

    return open_it


def _asked(session: FakeSession, *verbs: str) -> dict[str, Any]:
    """The next request of a kind; without one, of any but what the page can see."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        request = session.asked.get(timeout=60)
        if request["ask"] in verbs or (not verbs and request["ask"] != "watch"):
            return request
    raise AssertionError(f"nobody asked for {verbs}")


def _is_drawn(page: Page, canvas: str) -> bool:
    return page.evaluate(
        """async id => {
          await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)));
          const c = document.getElementById(id);
          return c.getContext("2d").getImageData(0, 0, c.width, c.height).data.some(v => v);
        }""",
        canvas,
    )


def test_a_session_is_told_whole_and_what_changes_moves_nothing(opened: Callable) -> None:
    scene = Scene("live")
    with opened(scene) as (page, session):
        expect(page.locator("#state-word")).to_have_text("READY")
        expect(page.locator("#badges li")).to_have_text(["demo", "simulated subject"])
        said = [
            page.locator(f"[data-part={v['part']}] .word").inner_text()
            for v in scene.told()["verdicts"]
        ]
        assert said == [verdict["word"] for verdict in scene.told()["verdicts"]]
        newest = scene.trial(scene.n_trials - 1)["answers"][-1]
        labels = page.locator("#answer .first .label, #answer-rest .label")
        expect(labels).to_have_text(newest["labels"])
        expect(page.locator("#strip li")).to_have_count(scene.n_trials)
        expect(page.locator("#ledger")).to_contain_text(
            "49 markers = 44 decoded + 4 dropped + 1 open ✓"
        )
        expect(page.locator("#reasons")).to_have_text("dropped: 3 rejected · 1 gap")
        expect(page.locator("#accuracy-body .chance")).to_have_count(2)
        expect(page.locator("#head-list li")).to_contain_text(
            ["F7flat", "FC1mains noise", "CP4mains noise"]
        )
        expect(page.locator("#latency tr[data-level=warn] .over")).to_have_text("▲ 4 over")
        for element in (".tile .word", "#answer .first .label", "#answer .first .share"):
            size = page.locator(element).first.evaluate(
                "e => parseFloat(getComputedStyle(e).fontSize)"
            )
            assert size >= 32, element
        page.evaluate(
            """() => {
              window.shifted = new Set();
              const place = node => node?.parentElement?.closest("section, header, footer, aside");
              new PerformanceObserver(list => list.getEntries().forEach(one => one.sources.forEach(
                ({ node }) => window.shifted.add(place(node)?.id ?? String(node?.nodeName))
              ))).observe({ type: "layout-shift" });
            }"""
        )
        last = scene.n_trials + 1
        for _ in range(41):
            session.say(*scene.step())
        expect(page.locator("#answer-ends li[data-now]")).to_contain_text("1 s")
        expect(page.locator(f"[data-trial='{last}']")).to_have_count(1)
        labels = scene.trial(last)["answers"][-1]["labels"]
        expect(page.locator("#answer .first .label")).to_have_text(labels[0])
        assert _is_drawn(page, "eeg-traces")
        assert _is_drawn(page, "evoked-plot")
        session.say(
            {
                "kind": "note",
                "at_s": scene.now_s + 1,
                "node": "reader",
                "level": "info",
                "text": "x",
            }
        )
        expect(page.locator("#log")).to_be_hidden()
        session.say(
            {
                "kind": "note",
                "at_s": scene.now_s + 1,
                "node": "paint",
                "level": "bad",
                "text": "no memory",
            }
        )
        expect(page.locator("#log")).to_be_visible()
        expect(page.locator("#log-lines li").last).to_contain_text("no memory")
        scene.state, scene.name = "lost", "lost"
        session.say(scene.told())
        why = page.locator("[data-part=EEG][data-level=bad] .why")
        expect(why).to_contain_text("goes on by itself when it is back.")
        assert why.evaluate("e => e.scrollHeight <= e.clientHeight"), "it is read to its end"
        moved = page.evaluate("[...window.shifted]")
        assert set(moved) <= {"trials"}, "the strip is pushed on, and nothing else"


def test_what_is_asked_reaches_the_session_and_its_answer_the_page(opened: Callable) -> None:
    with opened("live") as (page, session):
        page.keyboard.press("Space")
        assert _asked(session, "pause").keys() == {"id", "ask"}
        expect(page.locator("#state-word")).to_have_text("PAUSED")
        page.locator("[data-verb=resume]").click()
        expect(page.locator("#said")).to_have_text("the session is ready")
        page.keyboard.press("m")
        page.keyboard.type("half time?")
        page.keyboard.press("Enter")
        assert _asked(session, "mark")["argument"] == "half time?"
        page.locator(".more summary").click()
        page.locator("#argument-reset_group").fill("pear")
        page.locator("[data-verb=reset_group]").click()
        expect(page.locator("#said[data-level=bad]")).to_have_text("no stimulus is called 'pear'")
        _asked(session, "reset_group")
        page.locator("[data-verb=stop]").click()
        page.locator("#confirm-dialog button[value=no]").click()
        page.locator("[data-verb=finish]").click()
        page.locator("#confirm-yes").click()
        assert _asked(session)["ask"] == "finish"  # and no stop before it
        setting = page.locator(".setting", has_text="min confidence")
        setting.locator("input").fill("0.35")
        setting.locator("button").click()
        request = _asked(session, "set")
        assert (request["path"], request["value"]) == ("decoding.min_confidence", 0.35)
        expect(setting.locator("output")).to_have_text("decoding.min_confidence is 0.35")
        page.locator("#strip button").nth(3).click()
        assert _asked(session, "trial_eeg")["trial"] == 3
        expect(page.locator("#trial-body .columns section")).to_have_count(3)
        expect(page.locator("#trial-body .empty")).to_be_hidden()
        page.keyboard.press("Escape")
        expect(page.locator("#trial-dialog")).to_be_hidden()
    with opened("live", "look") as (page, _):
        expect(page.locator("#badges")).to_contain_text("read only")
        expect(
            page.locator(".verb:not(:has([data-verb=like])) :enabled, .setting input:enabled")
        ).to_have_count(0)
        expect(page.locator("#checks-open")).to_be_disabled()


def test_what_the_doctor_finds_is_shown_the_worst_first(opened: Callable) -> None:
    with opened("live") as (page, session):
        page.keyboard.press("c")
        assert _asked(session, "check").keys() == {"id", "ask"}
        expect(page.locator("#checks-told")).to_have_text("Since 12:31:07: 1 verdict …")
        expect(page.locator("#checks-begin")).to_be_disabled()
        session.say(checks("done"))
        expect(page.locator("#checks-told")).to_have_text("At 12:31:07: 6 ok, 1 warn, 1 FAIL.")
        lines = page.locator("#checks-lines li")
        expect(lines).to_have_count(8)
        expect(lines.nth(0)).to_contain_text("no LSL stream named 'PsychoPy'")
        expect(lines.nth(1)).to_contain_text("make room")
        page.keyboard.press("Escape")
        expect(page.locator("#checks-open[data-level=bad]")).to_contain_text("checks: 1 FAIL")
        page.keyboard.press("c")  # what was found is shown, and nobody looks again
        expect(page.locator("#checks-dialog")).to_be_visible()
        page.locator("#checks-begin").click()
        assert _asked(session)["ask"] == "check"


def test_a_line_that_breaks_is_seen_and_heals_by_itself(opened: Callable) -> None:
    with opened("live") as (page, session):
        session.refuses = True
        session.hang_up()
        expect(page.locator("#line-lost")).to_contain_text(
            "The connection is lost. What you see is"
        )
        page.locator("[data-verb=pause]").click()
        expect(page.locator("#said[data-level=bad]")).to_contain_text("cannot be reached")
        session.scene.state = "paused"
        session.refuses = False
        expect(page.locator("body")).to_have_attribute("data-line", "open")
        expect(page.locator("#state-word")).to_have_text("PAUSED")
        expect(page.locator("#line-lost")).to_be_hidden()
        expect(page.locator("#strip li")).to_have_count(session.scene.n_trials)
        session.hang_up(1012)
        expect(page.locator("#line-lost")).to_contain_text("dashboard sessions")


def test_a_line_on_which_nobody_answers_is_a_lost_one(opened: Callable) -> None:
    with opened("live", is_timed=True) as (page, session):
        while session.asked.qsize():
            session.asked.get()
        page.clock.fast_forward(4000)
        assert _asked(session, "watch")  # quiet: is anybody there?
        session.say(session.scene.notes()[0] | {"text": "after the answer to that"})
        expect(page.locator("#log-last")).to_contain_text("after the answer to that")
        expect(page.locator("body")).to_have_attribute("data-line", "open")
        session.is_deaf = True
        page.clock.fast_forward(4000)
        assert _asked(session, "watch")
        page.clock.fast_forward(5000)
        expect(page.locator("#line-lost")).to_be_visible()
        session.is_deaf = False
        page.clock.fast_forward(5000)
        expect(page.locator("body")).to_have_attribute("data-line", "open")


def test_what_may_not_be_known_or_believed_is_not_shown_as_if(opened: Callable) -> None:
    with opened("blind") as (page, _):
        expect(page.locator("#badges")).to_contain_text("blind")
        expect(page.locator("#shown")).to_contain_text("hidden: this session is blind")
        expect(
            page.locator("#shown img, #strip img, [data-shown], [data-flag=hit], [data-flag=miss]")
        ).to_have_count(0)
        expect(page.locator("#accuracy-body")).to_contain_text("Hidden")
        expect(page.locator("#strip .sign").last).to_contain_text(
            "%"
        )  # how sure, as nobody knows more
    scene = Scene("unsure")
    with opened(scene) as (page, session):
        expect(page.locator("[data-flag=uncalibrated]")).to_be_visible()
        session.say(scene.trial(scene.n_trials, 1))
        expect(page.locator("#answer .first .label")).to_have_text("abstains")
        expect(page.locator("#answer .told")).to_contain_text("under the 40 % that are asked for")
        expect(page.locator("#accuracy-body")).to_contain_text("Calibration: not known yet")


def test_a_session_without_a_decoder_shows_what_it_records(opened: Callable) -> None:
    with opened("record") as (page, _):
        expect(page.locator("#recording")).to_contain_text("48.2 MB")
        expect(page.locator("#answer")).to_be_hidden()
        expect(page.locator("#strip li")).to_have_count(48)
        expect(page.locator("#strip img")).to_have_count(0)  # there is no gallery


def test_the_session_form_is_filled_before_a_session_starts(opened: Callable) -> None:
    with opened("form") as (page, session):
        expect(page.locator("#form-dialog")).to_be_visible()
        page.keyboard.press("Escape")
        for name in ("subject", "cap"):
            page.locator(f"[name={name}]").fill("?")
        page.locator("#session-form button.main").click()
        expect(page.locator("#session-form [aria-invalid] + output")).to_have_text(["is wrong"] * 2)
        expect(page.locator("#session-form > output")).to_contain_text("2 fields need another")
        expect(page.locator("[name=subject]")).to_be_focused()
        _asked(session, "form")
        page.locator("[name=cap]").fill("")
        page.locator("[name=subject]").fill("07")
        page.locator("#session-form button.main").click()
        request = _asked(session, "form")
        assert request["start"] is True
        assert request["values"]["subject"] == "07"
        assert request["values"]["task"] == "rsvp"
        expect(page.locator("#form-dialog")).to_be_hidden()
        page.locator("#form-open").click()
        page.locator("[name=run]").fill("2")
        page.locator("#session-form button.main").click()
        request = _asked(session, "form")
        assert (request["start"], request["values"]["run"]) == (False, "2")
        expect(page.locator("#form-dialog")).to_be_hidden()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1920, 1080)])
def test_it_fits_every_screen_in_both_themes_and_sends_for_what_is_seen(
    opened: Callable, width: int, height: int
) -> None:
    size = {"width": width, "height": height}
    with opened("live", viewport=size) as (page, session):
        assert page.evaluate(_WIDTH) <= width
        if width < 1000:
            assert "eeg" not in _asked(session, "watch")["kinds"]
        page.locator("#eeg").scroll_into_view_if_needed()
        while "eeg" not in _asked(session, "watch")["kinds"]:
            pass
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            contrasts = page.evaluate(_CONTRASTS)
            assert {name: c for name, c in contrasts.items() if c < 4.5} == {}, theme
        for width_then in (768, 1024):  # as where a tablet is turned
            page.set_viewport_size({"width": width_then, "height": 1792 - width_then})
            assert page.evaluate(_WIDTH) <= width_then
        page.set_viewport_size({"width": 1440, "height": 810})  # a laptop, which scrolls to less
        page.evaluate("scrollTo(0, 0)")
        controls = page.locator("#controls").bounding_box()["y"]
        for panel in ("#accuracy", "#eeg"):
            box = page.locator(panel).bounding_box()
            assert box["y"] + box["height"] <= controls, panel


_WIDTH = """async () => {
  await new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)));
  return document.documentElement.scrollWidth;
}"""
_CONTRASTS = """() => {
  const dot = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const light = name => {
    dot.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
    dot.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...dot.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const against = (...two) => {
    const [less, more] = two.map(name => light(name) + 0.05).sort((a, b) => a - b);
    return more / less;
  };
  const found = {};
  for (const ink of ["ink", "dim", "accent", "ok", "warn", "bad"])
    for (const paper of ["panel", "well"]) found[ink + " on " + paper] = against(ink, paper);
  found["on-accent"] = against("on-accent", "accent");
  return found;
}"""


def test_eeg_is_filtered_as_scipy_does_and_a_ring_forgets_the_oldest(opened: Callable) -> None:
    rate_hz, n = 100.0, 250
    uv = np.random.default_rng(0).normal(50, 10, (n, 2)).astype(np.float32)
    run = """async ([uv, high_hz, low_hz, reference]) => {
      const { Ring } = await import("/static/eeg/ring.js");
      const ring = new Ring(2, 100, 2);
      ring.showAs({ high_hz, low_hz, reference });
      for (let i = 0; i < 250; i += 50) {
        const values = new Float32Array(uv.slice(2 * i, 2 * i + 100));
        ring.add({ values, first_s: 7 + i / 100, n_samples: 50 });
      }
      const rows = [];
      for (let k = ring.oldest; k < ring.count; k++)
        for (const c of [0, 1]) rows.push(ring.shown[k % ring.capacity * 2 + c]);
      return rows;
    }"""
    with opened(Scene("live", n_trials=1)) as (page, _):
        shown = page.evaluate(run, [uv.ravel().tolist(), 1, 30, "as is"])
        wanted = uv - uv[0].astype(
            float
        )  # it begins as if the first sample had been there for ever
        for corner_hz, kind in ((1, "high"), (30, "low")):
            wanted = sosfilt(butter(2, corner_hz, kind, fs=rate_hz, output="sos"), wanted, axis=0)
        np.testing.assert_allclose(np.reshape(shown, (-1, 2)), wanted[50:], atol=1e-3)
        shown = page.evaluate(run, [uv.ravel().tolist(), 0, 0, "average"])
        np.testing.assert_allclose(
            np.reshape(shown, (-1, 2)), (uv - uv.mean(1, keepdims=True))[50:], atol=1e-4
        )
